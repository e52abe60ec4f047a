package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

const remoteColumns = `id, project_id, execution_id, node, iteration, try, queue, priority, input, input_ref, input_size, heartbeat, created_at, due, lease, worker, leased_until, seen_at, progress,
	ended_at, outcome, answer`

// remotePriorities are those of executions, the highest first.
var remotePriorities = [...]string{"high", "normal", "low"}

func scanRemote(r pgx.Rows, t *protocol.RemoteTask) error {
	var ref []byte
	var size, priority int
	err := r.Scan((*dbID)(&t.ID), (*dbID)(&t.Project), (*dbID)(&t.Execution), &t.Node, &t.Iteration, &t.Try, &t.Queue, &priority, (*[]byte)(&t.Input), &ref, &size, &t.Heartbeat, dbTime{&t.Created}, dbTime{&t.Due},
		&t.Lease, &t.Worker, dbTime{&t.Until}, dbTime{&t.Seen}, (*[]byte)(&t.Progress), dbTime{&t.Ended}, (*string)(&t.Outcome), &t.Answer)
	if err != nil {
		return err
	}
	if v := reference(ref, size); v.Ref != "" {
		t.InputRef = &v
	}
	t.Priority = remotePriorities[max(0, min(priority, len(remotePriorities)-1))]
	return nil
}

// FreeRemote implements protocol.Tx: protocol.RemoteTask.free is its rule. Each half locks what it finds, twice as many as are wanted at the most, and what the other half
// outdoes is free again with the end of the transaction.
func (t *tx) FreeRemote(ctx context.Context, project protocol.ID, queue string, limit int) ([]protocol.RemoteTask, error) {
	rows, err := t.conn.Query(ctx, `
		WITH over AS MATERIALIZED (
			SELECT * FROM remote_tasks WHERE project_id = $1 AND queue = $2 AND ended_at IS NULL AND leased_until IS NOT NULL AND leased_until <= $3 AND lease < $4
			ORDER BY leased_until LIMIT $5 FOR UPDATE SKIP LOCKED),
		waiting AS MATERIALIZED (
			SELECT * FROM remote_tasks WHERE project_id = $1 AND queue = $2 AND ended_at IS NULL AND leased_until IS NULL
			ORDER BY priority, created_at, id LIMIT $5 FOR UPDATE SKIP LOCKED)
		SELECT `+remoteColumns+` FROM (SELECT * FROM over UNION ALL SELECT * FROM waiting) AS free ORDER BY priority, created_at, id LIMIT $5`,
		dbID(projectOf(project)), queue, t.now, protocol.MaxDeliveries, limit)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanRemote)
}

// RemoteTasks implements protocol.Tx.
func (t *tx) RemoteTasks(ctx context.Context, ids []protocol.ID, lock bool) ([]protocol.RemoteTask, error) {
	sql := `SELECT ` + remoteColumns + ` FROM remote_tasks WHERE id = ANY ($1) ORDER BY id`
	if lock {
		sql += ` FOR UPDATE`
	}
	rows, err := t.conn.Query(ctx, sql, dbIDs(ids))
	if err != nil {
		return nil, err
	}
	return collect(rows, scanRemote)
}

// LostRemote implements protocol.Store.
func (db *DB) LostRemote(ctx context.Context, limit int) ([]protocol.ID, error) {
	// The 5 is protocol.MaxDeliveries, as the index has it.
	return list(ctx, db, db.primary, "LostRemote", `SELECT id FROM remote_tasks WHERE ended_at IS NULL AND lease >= 5 AND leased_until <= now() ORDER BY leased_until LIMIT $1`, scanID, limit)
}

// openRemote are the tasks that have not ended, by the two indexes that hold no others.
const openRemote = `SELECT * FROM remote_tasks WHERE ended_at IS NULL AND leased_until IS NULL UNION ALL SELECT * FROM remote_tasks WHERE ended_at IS NULL AND leased_until IS NOT NULL`

// RemoteTask reads a task from the primary. ErrNotFound: there is none.
func (db *DB) RemoteTask(ctx context.Context, id protocol.ID) (protocol.RemoteTask, error) {
	return one(ctx, db, db.primary, "RemoteTask", `SELECT `+remoteColumns+` FROM remote_tasks WHERE id = $1`, scanRemote, dbID(id))
}

// RemoteOf lists the tasks of an execution that have not ended.
func (db *DB) RemoteOf(ctx context.Context, execution protocol.ID) ([]protocol.RemoteTask, error) {
	return list(ctx, db, db.primary, "RemoteOf", `SELECT `+remoteColumns+` FROM remote_tasks WHERE execution_id = $1 AND ended_at IS NULL ORDER BY id LIMIT 1000`, scanRemote, dbID(execution))
}

// ListRemote lists the tasks of a queue ("": of all) that have not ended, leased ones too, by id.
func (db *DB) ListRemote(ctx context.Context, queue string, p Page) ([]protocol.RemoteTask, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.replica, "ListRemote", `SELECT `+remoteColumns+` FROM (`+openRemote+`) AS t WHERE ($1 = '' OR queue = $1) AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3`,
		scanRemote, queue, after, p.limit()+1)
	rows, next := cut(rows, p, func(t *protocol.RemoteTask) protocol.ID { return t.ID })
	return rows, next, err
}

// RemoteQueue is what one queue of remote tasks holds.
type RemoteQueue struct {
	Queue   string
	Waiting int       // nobody has a lease that lives
	Leased  int       // somebody has
	Oldest  time.Time // when the oldest waiting one was made; zero: none waits
	Seen    time.Time // last poll with a result, or heartbeat; zero: none of the tasks was ever leased
}

// maxRemoteQueues bounds the list of queues.
const maxRemoteQueues = 1000

// RemoteQueues lists the queues that hold tasks, by name.
func (db *DB) RemoteQueues(ctx context.Context) ([]RemoteQueue, error) {
	return list(ctx, db, db.replica, "RemoteQueues", `SELECT queue, count(*) FILTER (WHERE NOT leased), count(*) FILTER (WHERE leased), min(created_at) FILTER (WHERE NOT leased), max(seen_at)
		FROM (SELECT queue, created_at, seen_at, coalesce(leased_until > now(), false) AS leased FROM (`+openRemote+`) AS o) AS t GROUP BY queue ORDER BY queue LIMIT $1`,
		func(r pgx.Rows, q *RemoteQueue) error {
			return r.Scan(&q.Queue, &q.Waiting, &q.Leased, dbTime{&q.Oldest}, dbTime{&q.Seen})
		}, maxRemoteQueues)
}

// closeWaits closes the open waits of executions that have ended, and ends the remote tasks behind these: one statement, which costs executions without such tasks nothing.
func closeWaits(ids []protocol.ID) statement {
	return statement{`
		WITH closed AS (UPDATE waits SET closed_at = clock_timestamp() WHERE execution_id = ANY($1) AND met_at IS NULL AND closed_at IS NULL RETURNING kind, key)
		UPDATE remote_tasks t SET ended_at = clock_timestamp(), outcome = 'cancelled', input = NULL FROM closed c
		WHERE c.kind = 'remote' AND t.id = CASE WHEN c.kind = 'remote' THEN c.key::uuid END AND t.ended_at IS NULL`, []any{dbIDs(ids)}, -1, "waits"}
}

// writeRemote gives the statements for what a batch decided of remote tasks.
func writeRemote(c *protocol.Changes) ([]statement, error) {
	var out []statement
	if len(c.RemoteMade) > 0 {
		st, err := makeRemote(c.RemoteMade)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	if n := len(c.RemoteHeld); n > 0 {
		ids, workers, leases, progress := make([]protocol.ID, n), make([]string, n), make([]int32, n), make([][]byte, n)
		until, seen := make(times, n), make(times, n)
		for i, t := range c.RemoteHeld {
			ids[i], workers[i], leases[i], progress[i], until[i], seen[i] = t.ID, clean(t.Worker), int32(t.Lease), nilIfEmpty(t.Progress), at(t.Until), at(t.Seen)
		}
		out = append(out, statement{`UPDATE remote_tasks t SET worker = u.worker, lease = u.lease, progress = u.progress, leased_until = u.until, seen_at = u.seen
			FROM unnest($1::uuid[], $2::text[], $3::int[], $4::bytea[], $5::timestamptz[], $6::timestamptz[]) AS u (id, worker, lease, progress, until, seen)
			WHERE t.id = u.id AND t.id = ANY ($1) AND t.ended_at IS NULL`, []any{dbIDs(ids), workers, leases, progress, until, seen}, n, "remote tasks"})
	}
	if n := len(c.RemoteEnded); n > 0 {
		ids, outcomes, answers, when := make([]protocol.ID, n), make([]string, n), make([][]byte, n), make(times, n)
		for i, t := range c.RemoteEnded {
			ids[i], outcomes[i], answers[i], when[i] = t.ID, string(t.Outcome), t.Answer, at(t.Ended)
		}
		out = append(out, statement{`UPDATE remote_tasks t SET ended_at = u.ended, outcome = u.outcome, answer = u.answer, input = NULL
			FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::timestamptz[]) AS u (id, outcome, answer, ended)
			WHERE t.id = u.id AND t.id = ANY ($1) AND t.ended_at IS NULL`, []any{dbIDs(ids), outcomes, answers, when}, -1, "remote tasks"})
	}
	return out, nil
}

func makeRemote(tasks []protocol.RemoteTask) (statement, error) {
	n := len(tasks)
	ids, projects, executions := make([]protocol.ID, n), make([]protocol.ID, n), make([]protocol.ID, n)
	nodes, iterations, queues := make([]string, n), make([]string, n), make([]string, n)
	tries, priorities, sizes := make([]int32, n), make([]int32, n), make([]int32, n)
	inputs, refs := make([][]byte, n), make([][]byte, n)
	beats, made, due := make([]pgtype.Interval, n), make(times, n), make(times, n)
	for i, t := range tasks {
		ids[i], projects[i], executions[i] = t.ID, protocol.ID(projectOf(t.Project)), t.Execution
		nodes[i], iterations[i], queues[i], tries[i], priorities[i] = t.Node, t.Iteration, clean(t.Queue), int32(t.Try), 1
		for k, name := range remotePriorities {
			if t.Priority == name {
				priorities[i] = int32(k)
			}
		}
		inputs[i], sizes[i] = nilIfEmpty(t.Input), int32(len(t.Input))
		if v := t.InputRef; v != nil {
			sum, err := payload.ParseRef(v.Ref)
			if err != nil || v.Size < 0 || v.Size > protocol.MaxValue {
				return statement{}, fmt.Errorf("%w: remote task %s: an input by reference that is none", protocol.ErrData, t.ID)
			}
			inputs[i], refs[i], sizes[i] = nil, sum, int32(v.Size)
		}
		beats[i], made[i], due[i] = pgtype.Interval{Microseconds: t.Heartbeat.Microseconds(), Valid: true}, at(t.Created), at(t.Due)
	}
	return statement{`
		INSERT INTO remote_tasks (id, project_id, execution_id, node, iteration, try, queue, priority, input, input_ref, input_size, heartbeat, created_at, due)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::int[], $7::text[], $8::int[], $9::bytea[], $10::bytea[], $11::int[], $12::interval[], $13::timestamptz[], $14::timestamptz[])
		ON CONFLICT (id) DO NOTHING`,
		[]any{dbIDs(ids), dbIDs(projects), dbIDs(executions), nodes, iterations, tries, queues, priorities, inputs, refs, sizes, beats, made, due}, -1, "remote tasks"}, nil
}

// RemoteInput gives a task's input, wherever it stands.
func (db *DB) RemoteInput(ctx context.Context, t *protocol.RemoteTask) (json.RawMessage, error) {
	if t.InputRef == nil {
		return t.Input, nil
	}
	return db.Value(ctx, t.Execution, t.InputRef.Ref)
}

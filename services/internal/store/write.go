package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// statement is one of those that a Write consists of.
type statement struct {
	sql  string
	args []any
	rows int // it must touch; -1: any number
	what string
}

// Write sends everything that a batch has decided in one round trip: multi-row statements, only those that have something to do.
func (t *tx) Write(ctx context.Context, c *protocol.Changes) error {
	todo := make([]statement, 0, 6)
	if len(c.Rows) > 0 {
		st, err := updateRows(c.Rows, c.Results)
		if err != nil {
			return err
		}
		todo = append(todo, st)
		if ids := append(endedWithWaits(c.Rows), c.Closed...); len(ids) > 0 {
			todo = append(todo, closeWaits(ids))
		}
	} else if len(c.Results) > 0 {
		return fmt.Errorf("results without the rows that they belong to")
	}
	if len(c.Restarted) > 0 {
		todo = append(todo, statement{`UPDATE executions SET deadline = clock_timestamp() + (deadline - coalesce(restarted_at, created_at)), restarted_at = clock_timestamp() WHERE id = ANY($1) AND deadline IS NOT NULL`, []any{dbIDs(c.Restarted)}, -1, "deadlines"})
	}
	if len(c.Reports) > 0 {
		if whole := slices.DeleteFunc(slices.Clone(c.Reports), func(r protocol.StoredReport) bool { return !r.Whole }); len(whole) > 0 {
			todo = append(todo, replaceReports(whole))
		}
		todo = append(todo, insertReports(c.Reports))
	}
	if len(c.Opened) > 0 {
		todo = append(todo, openWaits(c.Opened))
	}
	if len(c.Met) > 0 {
		todo = append(todo, meetWaits(c.Met))
	}
	mail, err := writeLetters(c)
	if err != nil {
		return err
	}
	todo = append(todo, mail...)
	remote, err := writeRemote(c)
	if err != nil {
		return err
	}
	todo = append(todo, remote...)
	if len(c.Called) > 0 {
		todo = append(todo, placeCalls(c.Called)...)
	}
	limits, err := writeLimits(c)
	if err != nil {
		return err
	}
	todo = append(todo, limits...)
	if len(c.Failures) > 0 {
		todo = append(todo, leaveFailures(c.Failures))
	}
	if len(c.Dead) > 0 {
		todo = append(todo, insertDead(c.Dead, t.now))
	}
	switch len(todo) {
	case 0:
		return nil
	case 1:
		tag, err := t.conn.Exec(ctx, todo[0].sql, todo[0].args...)
		return todo[0].check(tag.RowsAffected(), err)
	}
	var batch pgx.Batch
	for _, st := range todo {
		batch.Queue(st.sql, st.args...)
	}
	res := t.conn.SendBatch(ctx, &batch)
	for _, st := range todo {
		tag, err := res.Exec()
		if err := st.check(tag.RowsAffected(), err); err != nil {
			_ = res.Close() // its error is the same
			return err
		}
	}
	return res.Close()
}

func (s statement) check(n int64, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", s.what, err)
	}
	if s.rows >= 0 && int(n) != s.rows {
		return fmt.Errorf("%s: %d rows written in place of %d: not all of them were locked by this transaction", s.what, n, s.rows)
	}
	return nil
}

// endedWithWaits lists final rows that may have open waits. Those that ended by themselves in their first attempt have none, or Changes.Closed has them: a suspend ends an attempt.
func endedWithWaits(rows []protocol.Row) []protocol.ID {
	var ids []protocol.ID
	for i := range rows {
		r := &rows[i]
		if r.State.Final() && (r.Attempt > 1 || r.State == protocol.Cancelled || r.State == protocol.TimedOut) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// queued_tx is set wherever a row is (still) queued and not before: see Unhanded. Columns that don't change their value keep the update HOT.
const updateRowsSQL = `
UPDATE executions e SET state = u.state, attempt = u.attempt, seq = u.seq, owner = u.owner, run = u.run, handed = u.handed, hold = u.hold, paused = u.paused, pool = u.pool, cancel = u.cancel,
	deaths = u.deaths, retries = u.retries, queued_at = u.queued_at, started_at = u.started_at, finished_at = u.finished_at,
	queued_tx = CASE WHEN u.state = 'queued' THEN (SELECT pg_current_xact_id()::text::bigint) ELSE e.queued_tx END`

// The rows are named twice. By the join alone all partitions would be looked into; and by a range, instead of the list, the planner counts on
// few rows when its statistics are older than they are, and loops over all of u for each.
const updateRowsFrom = `
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::uuid[], $6::bigint[], $7::int[], $8::text[], $9::text[], $10::text[], $11::text[], $12::int[], $13::int[], $14::timestamptz[], $15::timestamptz[], $16::timestamptz[]`

const updatePlainSQL = updateRowsSQL + updateRowsFrom + `)
	AS u (id, state, attempt, seq, owner, run, handed, hold, paused, pool, cancel, deaths, retries, queued_at, started_at, finished_at)
WHERE e.id = u.id AND e.id = ANY($1)`

const updateFinalSQL = updateRowsSQL + `,
	output = CASE WHEN u.ended THEN u.output ELSE e.output END, output_size = CASE WHEN u.ended THEN u.output_size ELSE e.output_size END,
	output_ref = CASE WHEN u.ended THEN u.output_ref ELSE e.output_ref END,
	error = CASE WHEN u.ended THEN u.error ELSE e.error END` + updateRowsFrom + `, $17::bool[], $18::bytea[], $19::bytea[], $20::bytea[], $21::int[])
	AS u (id, state, attempt, seq, owner, run, handed, hold, paused, pool, cancel, deaths, retries, queued_at, started_at, finished_at, ended, output, error, output_ref, output_size)
WHERE e.id = u.id AND e.id = ANY($1)`

func updateRows(rows []protocol.Row, results []protocol.FinalResult) (statement, error) {
	n := len(rows)
	ids := make([]protocol.ID, n)
	owners := make([]protocol.ID, n)
	state, hold, paused, pool, cancel := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	attempt, seq, handed, deaths, retries := make([]int32, n), make([]int32, n), make([]int32, n), make([]int32, n), make([]int32, n)
	run := make([]int64, n)
	queued, started, finished := make(times, n), make(times, n), make(times, n)
	for i := range rows {
		r := &rows[i]
		ids[i], owners[i], run[i] = r.ID, r.Owner, r.Run
		state[i], hold[i], paused[i], pool[i], cancel[i] = string(r.State), r.Hold, r.Paused, r.Pool, string(r.Cancel)
		attempt[i], seq[i], handed[i], deaths[i], retries[i] = int32(r.Attempt), int32(r.Seq), int32(r.Handed), int32(r.Deaths), int32(r.Retries)
		queued[i], started[i], finished[i] = at(r.QueuedAt), at(r.StartedAt), at(r.FinishedAt)
	}
	st := statement{updatePlainSQL, []any{dbIDs(ids), state, attempt, seq, dbIDs(owners), run, handed, hold, paused, pool, cancel, deaths, retries, queued, started, finished}, n, "executions"}
	if len(results) == 0 {
		return st, nil
	}
	place := make(map[protocol.ID]int, n)
	for i, id := range ids {
		place[id] = i
	}
	over := make([]bool, n)
	outputs, refs, failures, sizes := make([][]byte, n), make([][]byte, n), make([][]byte, n), make([]int32, n)
	for _, res := range results {
		i, ok := place[res.ID]
		if !ok {
			return st, fmt.Errorf("result of %s without its row", res.ID)
		}
		over[i], outputs[i], failures[i], sizes[i] = true, nilIfEmpty(res.Output), encodeFailure(res.Error), int32(len(res.Output))
		if v := res.OutputRef; v != nil {
			sum, err := payload.ParseRef(v.Ref)
			if err != nil || v.Size < 0 || v.Size > protocol.MaxValue {
				return st, fmt.Errorf("%w: result of %s: an output by reference that is none", protocol.ErrData, res.ID)
			}
			outputs[i], refs[i], sizes[i] = nil, sum, int32(v.Size)
		}
	}
	st.sql = updateFinalSQL
	st.args = append(st.args, over, outputs, failures, refs, sizes)
	return st, nil
}

// times is a timestamptz[] parameter.
type times = pgtype.FlatArray[pgtype.Timestamptz]

// replaceReports takes away what checkpoints stand for; rows with log lines stay for these.
func replaceReports(whole []protocol.StoredReport) statement {
	ids := make([]protocol.ID, len(whole))
	attempts, seqs := make([]int32, len(whole)), make([]int32, len(whole))
	for i, r := range whole {
		ids[i], attempts[i], seqs[i] = r.Execution, int32(r.Attempt), int32(r.Seq)
	}
	return statement{`WITH whole AS (SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[]) AS w (id, attempt, seq)),
		gone AS (DELETE FROM reports r USING whole w WHERE r.execution_id = w.id AND (r.attempt, r.seq) < (w.attempt, w.seq) AND r.logs IS NULL)
		UPDATE reports r SET events = '[]', codec = '' FROM whole w WHERE r.execution_id = w.id AND (r.attempt, r.seq) < (w.attempt, w.seq) AND r.logs IS NOT NULL`,
		[]any{dbIDs(ids), attempts, seqs}, -1, "reports"}
}

func insertReports(reports []protocol.StoredReport) statement {
	n := len(reports)
	ids := make([]protocol.ID, n)
	attempts, seqs := make([]int32, n), make([]int32, n)
	events, logs := make([][]byte, n), make([][]byte, n)
	for i, r := range reports {
		ids[i], attempts[i], seqs[i], events[i], logs[i] = r.Execution, int32(r.Attempt), int32(r.Seq), r.Events, nilIfEmpty(r.Logs)
		if r.Events == nil {
			events[i] = []byte("[]")
		}
	}
	return statement{`INSERT INTO reports (execution_id, attempt, seq, events, logs) SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::bytea[], $5::bytea[])`,
		[]any{dbIDs(ids), attempts, seqs, events, logs}, n, "reports"}
}

func openWaits(waits []protocol.OpenWait) statement {
	n := len(waits)
	ids := make([]protocol.ID, n)
	node, iteration, kind, key, reason := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	due, since := make(times, n), make(times, n)
	approvers, forms := make([][]byte, n), make([][]byte, n)
	for i, w := range waits {
		if names, form := formOf(&w); names != nil {
			approvers[i], _ = json.Marshal(names) // strings always marshal; lists of lists must be of one length in an array
			forms[i] = form
		}
		ids[i], node[i], iteration[i], kind[i], key[i], reason[i] = w.Execution, w.Node, w.Iteration, w.Kind, w.Key, clean(w.Reason)
		due[i], since[i] = at(w.Due), at(w.Since)
	}
	return statement{`
		INSERT INTO waits (execution_id, node, iteration, kind, key, reason, due, since, approvers, form)
		SELECT u.id, u.node, u.iteration, u.kind, u.key, u.reason, u.due, coalesce(u.since, clock_timestamp()),
			CASE WHEN u.approvers IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(convert_from(u.approvers, 'UTF8')::json)) END, u.form
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[], $9::bytea[], $10::bytea[])
			AS u (id, node, iteration, kind, key, reason, due, since, approvers, form)
		ON CONFLICT (execution_id, node, iteration) WHERE met_at IS NULL AND closed_at IS NULL DO NOTHING`,
		[]any{dbIDs(ids), node, iteration, kind, key, reason, due, since, approvers, forms}, -1, "waits"}
}

func meetWaits(waits []protocol.OpenWait) statement {
	n := len(waits)
	ids := make([]protocol.ID, n)
	node, iteration := make([]string, n), make([]string, n)
	met := make(times, n)
	for i, w := range waits {
		ids[i], node[i], iteration[i], met[i] = w.Execution, w.Node, w.Iteration, at(w.Met)
	}
	return statement{`
		UPDATE waits w SET met_at = coalesce(u.met, clock_timestamp())
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[]) AS u (id, node, iteration, met)
		WHERE w.execution_id = u.id AND w.node = u.node AND w.iteration = u.iteration AND w.met_at IS NULL AND w.closed_at IS NULL`,
		[]any{dbIDs(ids), node, iteration, met}, -1, "waits"}
}

// insertDead stores dead letters. One that is there already stays as it is: what is parked may come twice. But if somebody has asked for it back meanwhile it has
// come again, and is open again.
func insertDead(dead []protocol.DeadLetter, now time.Time) statement {
	dead = eachOnce(dead) // PostgreSQL changes no row twice in one statement
	n := len(dead)
	ids, executions := make([]protocol.ID, n), make([]protocol.ID, n)
	kind, reason, detail, origin := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	body := make([][]byte, n)
	count := make([]int32, n)
	when := make(times, n)
	for i, d := range dead {
		if d.ID.IsZero() {
			d.ID = NewID()
		}
		if d.At.IsZero() {
			d.At = now
		}
		ids[i], executions[i], body[i], count[i], when[i] = d.ID, d.Execution, d.Body, int32(max(d.Count, 1)), at(d.At)
		kind[i], reason[i], detail[i], origin[i] = clean(d.Kind), clean(d.Reason), clean(d.Detail), clean(d.Origin) // what is parked must not be refused
	}
	return statement{`
		INSERT INTO dead_letters (id, kind, reason, detail, origin, execution_id, body, count, at)
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::bytea[], $8::int[], $9::timestamptz[])
		ON CONFLICT (id) DO UPDATE SET asked_at = NULL, done_at = NULL, outcome = 'it came again', count = dead_letters.count + 1 WHERE dead_letters.asked_at IS NOT NULL`,
		[]any{dbIDs(ids), kind, reason, detail, origin, dbIDs(executions), body, count, when}, -1, "dead letters"}
}

// eachOnce leaves out what has the id of one before it.
func eachOnce(dead []protocol.DeadLetter) []protocol.DeadLetter {
	if len(dead) < 2 {
		return dead
	}
	seen, out := map[protocol.ID]bool{}, make([]protocol.DeadLetter, 0, len(dead))
	for _, d := range dead {
		if d.ID.IsZero() || !seen[d.ID] {
			seen[d.ID] = true
			out = append(out, d)
		}
	}
	return out
}

// clean makes text that PostgreSQL takes: valid UTF-8 without NUL. For texts that people read, not for keys.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func nilIfEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// storedFailure is a failure as JSON: its data goes through the exact codec of flow.
type storedFailure struct {
	flow.Failure
	Data json.RawMessage `json:"data,omitempty"`
}

// encodeFailure never fails: data that JSON can't hold goes missing, the failure itself doesn't.
func encodeFailure(f *flow.Failure) []byte {
	if f == nil {
		return nil
	}
	s := storedFailure{Failure: *f}
	s.Failure.Data = nil
	if f.Data != nil {
		if b, err := flow.EncodeValue(f.Data); err == nil {
			s.Data = b
		}
	}
	b, err := json.Marshal(s)
	if err != nil { // raw data that isn't JSON
		s.Data = nil
		b, _ = json.Marshal(s)
	}
	return b
}

func decodeFailure(b []byte) (*flow.Failure, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var s storedFailure
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("stored error: %w", err)
	}
	if len(s.Data) > 0 {
		v, err := flow.DecodeValue(s.Data)
		if err != nil {
			return nil, fmt.Errorf("stored error: %w", err)
		}
		s.Failure.Data = v
	}
	return &s.Failure, nil
}

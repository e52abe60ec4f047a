package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// IdempotencyKey makes an accept repeatable: the same key with the same body gives the same execution.
type IdempotencyKey struct {
	Scope    string // whose key it is: client and call
	Key      string // "": none
	BodyHash []byte
}

// NewExecution is an execution as it is accepted: queued, attempt 1.
type NewExecution struct {
	ID             protocol.ID // UUIDv7, from NewID, soon after it was made
	Project        protocol.ID // zero: the default one
	Flow           protocol.ID
	Version        int
	Shard          int
	Pool           string
	Priority       string
	Trigger        string
	Client         string
	Labels         map[string]string
	Input          json.RawMessage // nil: none
	Deadline       time.Time       // zero: none
	ReplayOf       protocol.ID
	Parent         protocol.ID
	Root           protocol.ID
	Hold           string // what of flow control it waits for before it may be handed out
	Paused         string // who paused it before it began, and why
	Limited        bool   // protocol.Row.Limited
	Undoes         bool   // protocol.Row.Undoes
	CreatedAt      time.Time
	IdempotencyKey IdempotencyKey
	Limits         []protocol.Limit // of its flow, with their keys computed; none: it is not Limited
	Group          int              // with limits: those of one batch that stand or fall together

	ended bool // by a limit, in the transaction that accepted it
}

// Ready tells whether its task is to be published now that it is committed.
func (e *NewExecution) Ready() bool { return e.Hold == "" && e.Paused == "" && !e.ended }

// Inserted tells what became of a NewExecution.
type Inserted struct {
	ID        protocol.ID // of the new row, or of the one that the key has already
	Duplicate bool        // the key was used before, with the same body: ID is that execution
	Conflict  bool        // the key was used before, with another body: nothing was stored
	Refused   error       // ErrLimit: nothing was stored, of the others of its group neither
	Ended     bool        // it is stored, and cancelled: the limit says cancel_newest
	Merged    bool        // it became part of a debounced execution: ID is that one
	Err       error       // the database would refuse this row's texts (protocol.ErrData): nothing was stored; the others were
}

// InsertExecutions stores executions in one transaction and one statement; the answers are in the order of the rows. It is done when it returns nil:
// nothing of it ends with ctx once it is sent. protocol.ErrUnknown: perhaps all, perhaps none are stored; ExistingExecutions tells.
func (db *DB) InsertExecutions(ctx context.Context, rows []NewExecution) ([]Inserted, error) {
	if slices.ContainsFunc(rows, func(e NewExecution) bool { return len(e.Limits) > 0 }) {
		return db.insertLimited(ctx, rows)
	}
	out := make([]Inserted, len(rows))
	keyed := false
	good := make([]*NewExecution, 0, len(rows))
	for i := range rows {
		e := &rows[i]
		out[i].ID = e.ID
		if err := e.check(); err != nil {
			out[i].Err = err
			continue
		}
		keyed = keyed || e.IdempotencyKey.Key != ""
		good = append(good, e)
	}
	if len(good) == 0 {
		return out, nil
	}
	sql, args := insertion(good, keyed)
	stored, err := write(ctx, db, "InsertExecutions", sql, scanID, args...)
	if err != nil {
		return nil, err
	}
	if len(stored) == len(good) {
		return out, nil
	}
	return out, db.duplicates(ctx, rows, out, stored)
}

// insertion is the statement that inserts executions.
func insertion(good []*NewExecution, keyed bool) (sql string, args []any) {
	with, insert := "", insertPlainSQL
	args, large := insertArgs(good)
	if keyed {
		with, insert = insertKeysSQL, insertKeyedSQL
		args = append(args, keyArgs(good)...)
	}
	sql = with + insert
	if len(large) > 0 {
		sql = insertWithPayloads(with, insert, len(args))
		args = append(args, payloadArgs(large)...)
	}
	return sql, args
}

// check refuses texts that PostgreSQL would refuse, for this row alone: they would take the whole batch with them.
func (e *NewExecution) check() error {
	for _, s := range []string{e.Pool, e.Priority, e.Trigger, e.Client, e.Hold, e.Paused, e.IdempotencyKey.Scope, e.IdempotencyKey.Key} {
		if !storable(s) {
			return fmt.Errorf("store.InsertExecutions: %q: %w", s, protocol.ErrData)
		}
	}
	for k, v := range e.Labels {
		if !storable(k) || !storable(v) {
			return fmt.Errorf("store.InsertExecutions: label %q: %w: labels must be valid UTF-8 without NUL", k, protocol.ErrData)
		}
	}
	return nil
}

func storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

const insertColumns = `id, project_id, flow_id, flow_version, shard, pool, priority, trigger, client, labels, input, input_ref, input_size, deadline, replay_of, parent_id, root_id, hold, paused, limited, undoes, created_at, idempotency_key`

const insertSelect = `
	SELECT u.id, u.project, u.flow, u.version, u.shard, u.pool, u.priority, u.trigger, u.client, u.labels::jsonb, u.input, u.input_ref, u.input_size, u.deadline, u.replay_of, u.parent, u.root,
		u.hold, u.paused, u.limited, u.undoes, coalesce(u.created_at, clock_timestamp()), u.key, (SELECT pg_current_xact_id()::text::bigint)
	FROM `

const insertUnnest = `unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bytea[], $12::timestamptz[],
		$13::uuid[], $14::uuid[], $15::uuid[], $16::text[], $17::timestamptz[], $18::text[], $19::bytea[], $20::int[], $21::text[], $22::bool[], $23::bool[]`

const insertNames = `(id, project, flow, version, shard, pool, priority, trigger, client, labels, input, deadline, replay_of, parent, root, hold, created_at, key, input_ref, input_size, paused, limited, undoes`

const insertPlainSQL = `INSERT INTO executions (` + insertColumns + `, queued_tx)` + insertSelect + insertUnnest + `) AS u ` + insertNames + `) RETURNING id`

// Keys first, in the order of their text, so that two batches with the same keys don't block each other; then the executions whose key is new.
const insertKeysSQL = `
	WITH u AS MATERIALIZED (SELECT * FROM ` + insertUnnest + `, $24::text[], $25::bytea[]) AS u ` + insertNames + `, scope, hash)),
	k AS (
		INSERT INTO idempotency_keys (scope, key, body_hash, execution_id)
		SELECT u.scope, u.key, u.hash, u.id FROM u WHERE u.key <> '' ORDER BY u.scope, u.key
		ON CONFLICT (scope, key) DO NOTHING RETURNING execution_id)`

const insertKeyedSQL = `
	INSERT INTO executions (` + insertColumns + `, queued_tx)` + insertSelect + `u WHERE u.key = '' OR u.id IN (SELECT k.execution_id FROM k) RETURNING id`

// insertArgs gives the arguments of an insert, and the inputs that don't stand in the rows themselves.
func insertArgs(rows []*NewExecution) (args []any, large []Payload) {
	n := len(rows)
	ids, projects, flows := make([]protocol.ID, n), make([]protocol.ID, n), make([]protocol.ID, n)
	replays, parents, roots := make([]protocol.ID, n), make([]protocol.ID, n), make([]protocol.ID, n)
	versions, shards := make([]int32, n), make([]int32, n)
	pools, priorities, triggers, clients := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	labels, holds, keys, paused := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	limited, undoes := make([]bool, n), make([]bool, n)
	inputs, refs, sizes := make([][]byte, n), make([][]byte, n), make([]int32, n)
	deadlines, created := make(times, n), make(times, n)
	for i, e := range rows {
		ids[i], projects[i], flows[i] = e.ID, protocol.ID(projectOf(e.Project)), e.Flow
		replays[i], parents[i], roots[i] = e.ReplayOf, e.Parent, e.Root
		versions[i], shards[i] = int32(e.Version), int32(e.Shard)
		pools[i], triggers[i], clients[i], holds[i], keys[i] = e.Pool, e.Trigger, e.Client, e.Hold, e.IdempotencyKey.Key
		paused[i], limited[i], undoes[i] = e.Paused, e.Limited, e.Undoes
		priorities[i] = e.Priority
		if e.Priority == "" {
			priorities[i] = "normal"
		}
		labels[i] = "{}"
		if len(e.Labels) > 0 {
			b, _ := json.Marshal(e.Labels) // strings always marshal
			labels[i] = string(b)
		}
		sizes[i] = int32(len(e.Input))
		if len(e.Input) > protocol.MaxInline {
			p := NewPayload(e.ID, e.Input)
			large, refs[i] = append(large, p), p.SHA256
		} else {
			inputs[i] = nilIfEmpty(e.Input)
		}
		deadlines[i], created[i] = at(e.Deadline), at(e.CreatedAt)
	}
	return []any{dbIDs(ids), dbIDs(projects), dbIDs(flows), versions, shards, pools, priorities, triggers, clients, labels, inputs, deadlines, dbIDs(replays), dbIDs(parents), dbIDs(roots), holds, created, keys, refs, sizes, paused, limited, undoes}, large
}

func keyArgs(rows []*NewExecution) []any {
	scopes, hashes := make([]string, len(rows)), make([][]byte, len(rows))
	for i, e := range rows {
		scopes[i], hashes[i] = e.IdempotencyKey.Scope, e.IdempotencyKey.BodyHash
		if hashes[i] == nil {
			hashes[i] = []byte{}
		}
	}
	return []any{scopes, hashes}
}

// duplicates finds what the keys of the rows that weren't stored stand for.
func (db *DB) duplicates(ctx context.Context, rows []NewExecution, out []Inserted, stored []protocol.ID) error {
	have := make(map[protocol.ID]bool, len(stored))
	for _, id := range stored {
		have[id] = true
	}
	var scopes, keys []string
	for i := range rows {
		if out[i].Err == nil && !have[rows[i].ID] {
			scopes, keys = append(scopes, rows[i].IdempotencyKey.Scope), append(keys, rows[i].IdempotencyKey.Key)
		}
	}
	known, err := db.keys(ctx, scopes, keys)
	if err != nil {
		return err
	}
	for i := range rows {
		if out[i].Err != nil || have[rows[i].ID] {
			continue
		}
		k, ok := known[[2]string{rows[i].IdempotencyKey.Scope, rows[i].IdempotencyKey.Key}]
		if !ok { // removed between the two statements: the key is free again, the caller may come again
			return fmt.Errorf("store.InsertExecutions: the idempotency key of %s expired this moment: %w", rows[i].ID, ErrConflict)
		}
		out[i].ID = k.Execution
		out[i].Duplicate = slices.Equal(k.BodyHash, rows[i].IdempotencyKey.BodyHash)
		out[i].Conflict = !out[i].Duplicate
	}
	return nil
}

// Idempotency is what a key stands for.
type Idempotency struct {
	Scope, Key string
	BodyHash   []byte
	Execution  protocol.ID
	CreatedAt  time.Time
}

func (db *DB) keys(ctx context.Context, scopes, keys []string) (map[[2]string]Idempotency, error) {
	rows, err := list(ctx, db, db.primary, "Idempotency", `SELECT k.scope, k.key, k.body_hash, k.execution_id, k.created_at
		FROM idempotency_keys k JOIN unnest($1::text[], $2::text[]) AS u (scope, key) ON k.scope = u.scope AND k.key = u.key`,
		func(r pgx.Rows, k *Idempotency) error {
			return r.Scan(&k.Scope, &k.Key, &k.BodyHash, (*dbID)(&k.Execution), dbTime{&k.CreatedAt})
		}, scopes, keys)
	if err != nil {
		return nil, err
	}
	out := make(map[[2]string]Idempotency, len(rows))
	for _, k := range rows {
		out[[2]string{k.Scope, k.Key}] = k
	}
	return out, nil
}

// Idempotency finds what a key stands for; ErrNotFound when it is free.
func (db *DB) Idempotency(ctx context.Context, scope, key string) (Idempotency, error) {
	known, err := db.keys(ctx, []string{scope}, []string{key})
	if err != nil {
		return Idempotency{}, err
	}
	k, ok := known[[2]string{scope, key}]
	if !ok {
		return Idempotency{}, fmt.Errorf("store.Idempotency: %w", ErrNotFound)
	}
	return k, nil
}

// ExistingExecutions tells which of the ids have rows, on the primary: to read an unknown commit back.
func (db *DB) ExistingExecutions(ctx context.Context, ids []protocol.ID) (map[protocol.ID]bool, error) {
	lo, hi := bounds(ids)
	rows, err := list(ctx, db, db.primary, "ExistingExecutions", `SELECT id FROM executions WHERE id = ANY($1) AND id BETWEEN $2 AND $3`, scanID, dbIDs(ids), lo, hi)
	if err != nil {
		return nil, err
	}
	out := make(map[protocol.ID]bool, len(rows))
	for _, id := range rows {
		out[id] = true
	}
	return out, nil
}

// Execution is an execution as it is shown.
type Execution struct {
	protocol.Row
	Version   int
	Trigger   string
	Client    string
	Labels    map[string]string
	Deadline  time.Time
	Root      protocol.ID
	ReplayOf  protocol.ID
	Input     json.RawMessage
	InputRef  protocol.Value // where the input is, when it is larger than protocol.MaxInline
	Output    json.RawMessage
	OutputRef protocol.Value
	Error     *flow.Failure
	CreatedAt time.Time
}

const executionColumns = rowColumns + `, e.flow_version, e.trigger, e.client, e.labels, e.deadline, e.root_id, e.replay_of, e.created_at, e.error`

// values are read where one execution is asked for; lists go without.
const executionValues = `, e.input, e.output, e.input_ref, e.output_ref, e.input_size, e.output_size`

func executionTargets(x *Execution, failure *[]byte) []any {
	return append(rowTargets(&x.Row), &x.Version, &x.Trigger, &x.Client, &x.Labels, dbTime{&x.Deadline}, (*dbID)(&x.Root), (*dbID)(&x.ReplayOf), dbTime{&x.CreatedAt}, failure)
}

func scanListed(r pgx.Rows, x *Execution) error {
	var failure []byte
	err := r.Scan(executionTargets(x, &failure)...)
	if err == nil {
		x.Error, err = decodeFailure(failure)
	}
	return err
}

func scanExecution(r pgx.Rows, x *Execution) error {
	var failure, input, output []byte
	var inputSize, outputSize int
	err := r.Scan(append(executionTargets(x, &failure), (*[]byte)(&x.Input), (*[]byte)(&x.Output), &input, &output, &inputSize, &outputSize)...)
	x.InputRef, x.OutputRef = reference(input, inputSize), reference(output, outputSize)
	if err == nil {
		x.Error, err = decodeFailure(failure)
	}
	return err
}

// ExecutionByID reads an execution from the primary.
func (db *DB) ExecutionByID(ctx context.Context, id protocol.ID) (Execution, error) {
	return one(ctx, db, db.primary, "ExecutionByID", `SELECT `+executionColumns+executionValues+` FROM executions e WHERE e.id = $1`, scanExecution, dbID(id))
}

// ExecutionFilter narrows a list of executions.
type ExecutionFilter struct {
	Flow   protocol.ID      // zero: any
	Parent protocol.ID      // that waits for them; zero: any
	States []protocol.State // none: any
	Since  time.Time        // accepted then or later, to the millisecond
	Label  map[string]string
	Query  string // in the id, the trigger, the labels, or the flow's name
}

// ListExecutions lists executions without their input and output, newest first, from the replica when there is one.
func (db *DB) ListExecutions(ctx context.Context, f ExecutionFilter, p Page) ([]Execution, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	var where strings.Builder
	args := []any{p.limit() + 1}
	add := func(cond string, v any) {
		args = append(args, v)
		where.WriteString(" AND " + strings.ReplaceAll(cond, "$", fmt.Sprintf("$%d", len(args))))
	}
	if after != (dbID{}) {
		add("e.id < $", after)
	}
	f.narrow(add)
	rows, err := list(ctx, db, db.replica, "ListExecutions", `SELECT `+executionColumns+` FROM executions e WHERE true`+where.String()+` ORDER BY e.id DESC LIMIT $1`, scanListed, args...)
	rows, next := cut(rows, p, func(x *Execution) protocol.ID { return x.ID })
	return rows, next, err
}

// narrow adds the filter's conditions on executions e; $ stands for the value.
func (f *ExecutionFilter) narrow(add func(cond string, v any)) {
	if !f.Flow.IsZero() {
		add("e.flow_id = $", dbID(f.Flow))
	}
	if !f.Parent.IsZero() {
		add("e.parent_id = $", dbID(f.Parent))
	}
	if len(f.States) > 0 {
		states := make([]string, len(f.States))
		for i, s := range f.States {
			states[i] = string(s)
		}
		add("e.state = ANY($)", states)
	}
	if !f.Since.IsZero() {
		add("e.id >= flow_first_id($)", f.Since)
	}
	if len(f.Label) > 0 {
		add("e.labels @> $::jsonb", f.Label)
	}
	if f.Query != "" {
		add("(e.id::text ILIKE $ OR e.trigger ILIKE $ OR e.labels::text ILIKE $ OR e.flow_id IN (SELECT id FROM flows WHERE name ILIKE $))", contains(f.Query))
	}
}

// ReportsOf lists an execution's reports, oldest first.
func (db *DB) ReportsOf(ctx context.Context, id protocol.ID) ([]protocol.StoredReport, error) {
	return list(ctx, db, db.primary, "ReportsOf", `SELECT execution_id, attempt, seq, events FROM reports WHERE execution_id = $1 ORDER BY attempt, seq`, func(r pgx.Rows, s *protocol.StoredReport) error {
		return r.Scan((*dbID)(&s.Execution), &s.Attempt, &s.Seq, (*[]byte)(&s.Events))
	}, dbID(id))
}

// StoredLogs are the lines that came with one report.
type StoredLogs struct {
	Attempt, Seq int
	Lines        json.RawMessage // list of protocol.LogLine
}

// LogsOf lists what an execution's reports brought of logs, oldest first, from the report (attempt, seq) on.
func (db *DB) LogsOf(ctx context.Context, id protocol.ID, attempt, seq, limit int) ([]StoredLogs, error) {
	return list(ctx, db, db.primary, "LogsOf", `SELECT attempt, seq, logs FROM reports WHERE execution_id = $1 AND logs IS NOT NULL AND (attempt, seq) >= ($2, $3) ORDER BY attempt, seq LIMIT $4`,
		func(r pgx.Rows, l *StoredLogs) error { return r.Scan(&l.Attempt, &l.Seq, (*[]byte)(&l.Lines)) }, dbID(id), int32(attempt), int32(seq), limit)
}

// WaitsOf lists an execution's waits, met ones too, oldest first. One that was open when the execution ended counts as met then.
func (db *DB) WaitsOf(ctx context.Context, id protocol.ID) ([]protocol.OpenWait, error) {
	return list(ctx, db, db.primary, "WaitsOf", `SELECT w.execution_id, w.node, w.iteration, w.kind, w.key, w.reason, w.due, w.since, coalesce(w.met_at, w.closed_at) FROM waits w WHERE w.execution_id = $1 ORDER BY w.id`, scanWait, dbID(id))
}

// FinalOf tells the states of those of the executions that are final, on the primary: one query for all that wait.
func (db *DB) FinalOf(ctx context.Context, ids []protocol.ID) (map[protocol.ID]protocol.State, error) {
	type row struct {
		id    protocol.ID
		state protocol.State
	}
	lo, hi := bounds(ids)
	rows, err := list(ctx, db, db.primary, "FinalOf", `SELECT id, state FROM executions WHERE id = ANY($1) AND id BETWEEN $2 AND $3 AND state IN ('succeeded', 'failed', 'cancelled', 'timed_out')`, func(r pgx.Rows, v *row) error {
		return r.Scan((*dbID)(&v.id), (*string)(&v.state))
	}, dbIDs(ids), lo, hi)
	if err != nil {
		return nil, err
	}
	out := make(map[protocol.ID]protocol.State, len(rows))
	for _, v := range rows {
		out[v.id] = v.state
	}
	return out, nil
}

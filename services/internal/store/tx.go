package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// tx implements protocol.Tx: each method is one round trip.
type tx struct {
	conn *pgx.Conn
	now  time.Time // the database's clock, read by BEGIN's round trip
}

var _ protocol.Tx = (*tx)(nil)

// Now is the database's clock when the transaction began.
func (t *tx) Now(context.Context) (time.Time, error) { return t.now, nil }

// rowColumns are those of protocol.Row, in the order of rowTargets.
const rowColumns = `e.id, e.project_id, e.flow_id, e.state, e.attempt, e.seq, e.owner, e.run, e.handed, e.shard, e.hold, e.paused, e.limited, e.undoes, e.calls, e.cancel, e.deaths, e.retries, e.parent_id, e.priority, e.pool, e.queued_at, e.started_at, e.finished_at`

// rowTargets are where rowColumns are scanned to.
func rowTargets(r *protocol.Row) []any {
	return []any{(*dbID)(&r.ID), (*dbID)(&r.Project), (*dbID)(&r.Flow), (*string)(&r.State), &r.Attempt, &r.Seq, (*dbID)(&r.Owner), &r.Run, &r.Handed, &r.Shard, &r.Hold, &r.Paused, &r.Limited, &r.Undoes, &r.Calls, (*string)(&r.Cancel), &r.Deaths, &r.Retries,
		(*dbID)(&r.Parent), &r.Priority, &r.Pool, dbTime{&r.QueuedAt}, dbTime{&r.StartedAt}, dbTime{&r.FinishedAt}}
}

func scanID(rows pgx.Rows, id *protocol.ID) error { return rows.Scan((*dbID)(id)) }

// Lock locks in the order of ids. FOR UPDATE waits for whoever holds a row and then gives it as it is after that.
func (t *tx) Lock(ctx context.Context, ids []protocol.ID) ([]protocol.Row, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	lo, hi := bounds(ids)
	rows, err := t.conn.Query(ctx, `SELECT `+rowColumns+` FROM executions e WHERE e.id = ANY($1) AND e.id BETWEEN $2 AND $3 ORDER BY e.id FOR UPDATE`, dbIDs(ids), lo, hi)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make([]protocol.Row, 0, len(ids))
	var r protocol.Row
	targets := rowTargets(&r)
	for rows.Next() {
		r = protocol.Row{}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Alive reads which sessions are alive.
func (t *tx) Alive(ctx context.Context, sessions []protocol.ID) (map[protocol.ID]bool, error) {
	return t.set(ctx, `SELECT id FROM sessions WHERE id = ANY($1) AND alive`, dbIDs(sessions))
}

func (t *tx) set(ctx context.Context, sql string, args ...any) (map[protocol.ID]bool, error) {
	rows, err := t.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	ids, err := collect(rows, scanID)
	if err != nil {
		return nil, err
	}
	out := make(map[protocol.ID]bool, len(ids))
	for _, id := range ids {
		out[id] = true
	}
	return out, nil
}

func (t *tx) ids(ctx context.Context, sql string, args ...any) ([]protocol.ID, error) {
	rows, err := t.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanID)
}

// Owned lists executions of the shard that the session owns.
func (t *tx) Owned(ctx context.Context, session protocol.ID, shard, limit int) ([]protocol.ID, error) {
	return t.ids(ctx, `SELECT id FROM executions WHERE owner = $1 AND shard = $2 ORDER BY id LIMIT $3`, dbID(session), shard, limit)
}

const waitColumns = `w.execution_id, w.node, w.iteration, w.kind, w.key, w.reason, w.due, w.since, w.met_at`

func scanWait(rows pgx.Rows, w *protocol.OpenWait) error {
	return rows.Scan((*dbID)(&w.Execution), &w.Node, &w.Iteration, &w.Kind, &w.Key, &w.Reason, dbTime{&w.Due}, dbTime{&w.Since}, dbTime{&w.Met})
}

// OpenWaits lists the open waits, oldest first.
func (t *tx) OpenWaits(ctx context.Context, executions []protocol.ID) ([]protocol.OpenWait, error) {
	rows, err := t.conn.Query(ctx, `SELECT `+waitColumns+` FROM waits w WHERE w.execution_id = ANY($1) AND w.met_at IS NULL AND w.closed_at IS NULL ORDER BY w.id`, dbIDs(executions))
	if err != nil {
		return nil, err
	}
	return collect(rows, scanWait)
}

// OpenSession inserts a session; nothing when its id exists.
func (t *tx) OpenSession(ctx context.Context, s protocol.OpenSessionRequest) error {
	_, err := t.conn.Exec(ctx, `INSERT INTO sessions (id, worker, pool, host, version, allocation, slots, weight) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING`,
		dbID(s.Session), s.Worker, s.Pool, s.Host, s.Version, s.Allocation, s.Slots, s.Weight)
	return err
}

// Beat renews in the order of ids, so that two orchestrators with the same sessions don't block each other.
func (t *tx) Beat(ctx context.Context, sessions []protocol.ID) (map[protocol.ID]protocol.Orders, error) {
	rows, err := t.conn.Query(ctx, `
		WITH held AS MATERIALIZED (SELECT id FROM sessions WHERE id = ANY($1) AND alive ORDER BY id FOR NO KEY UPDATE)
		UPDATE sessions s SET beat = s.beat + 1, beat_at = clock_timestamp() FROM held WHERE s.id = held.id AND s.alive RETURNING s.id, s.drain <> '', s.tuned,
			(SELECT jsonb_object_agg(name, jsonb_build_array(set_by, reason)) FROM pauses WHERE kind = 'node-type'),
			(SELECT p.set_by || ': ' || p.reason FROM pauses p WHERE p.kind = 'pool' AND p.name = coalesce(nullif(s.pool, ''), 'default'))`, dbIDs(sessions))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[protocol.ID]protocol.Orders, len(sessions))
	for rows.Next() {
		var id protocol.ID
		var o protocol.Orders
		var types map[string][2]string
		var pool *string
		if err := rows.Scan((*dbID)(&id), &o.Drain, &o.Slots, &types, &pool); err != nil {
			return nil, err
		}
		if pool != nil {
			o.PausedPool = *pool
		}
		o.PausedTypes = pausedTypes(types)
		out[id] = o
	}
	return out, rows.Err()
}

// EndSessions marks sessions dead that are alive and stand at the beat given.
func (t *tx) EndSessions(ctx context.Context, ends []protocol.SessionEnd) ([]protocol.ID, error) {
	ids := make([]protocol.ID, len(ends))
	beats := make([]int64, len(ends))
	reasons := make([]string, len(ends))
	for i, e := range ends {
		ids[i], beats[i], reasons[i] = e.ID, e.Beat, clean(e.Reason)
	}
	return t.ids(ctx, `
		WITH ends AS (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS u (id, beat, reason)),
		held AS MATERIALIZED (SELECT id FROM sessions WHERE id = ANY($1) AND alive ORDER BY id FOR NO KEY UPDATE)
		UPDATE sessions s SET alive = false, ended_at = clock_timestamp(), end_reason = ends.reason
		FROM held JOIN ends ON ends.id = held.id
		WHERE s.id = held.id AND s.alive AND (ends.beat = -1 OR s.beat = ends.beat) RETURNING s.id`, dbIDs(ids), beats, reasons)
}

// Cancels lists what the sessions own and should end.
func (t *tx) Cancels(ctx context.Context, sessions []protocol.ID) (map[protocol.ID][]protocol.CancelOrder, error) {
	rows, err := t.conn.Query(ctx, `SELECT owner, id, cancel FROM executions WHERE owner = ANY($1) AND owner IS NOT NULL AND cancel <> ''
		UNION ALL SELECT owner, id, '' FROM executions WHERE owner = ANY($1) AND owner IS NOT NULL AND paused <> '' AND cancel = '' ORDER BY 2`, dbIDs(sessions))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[protocol.ID][]protocol.CancelOrder{}
	for rows.Next() {
		var owner protocol.ID
		var c protocol.CancelOrder
		if err := rows.Scan((*dbID)(&owner), (*dbID)(&c.Execution), (*string)(&c.As)); err != nil {
			return nil, err
		}
		out[owner] = append(out[owner], c)
	}
	return out, rows.Err()
}

// Runs lists what the sessions own.
func (t *tx) Runs(ctx context.Context, sessions []protocol.ID) (map[protocol.ID][]protocol.Orphan, error) {
	rows, err := t.conn.Query(ctx, `SELECT owner, id, attempt, run, seq, shard FROM executions WHERE owner = ANY($1) AND owner IS NOT NULL ORDER BY id`, dbIDs(sessions))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[protocol.ID][]protocol.Orphan{}
	for rows.Next() {
		var owner protocol.ID
		var o protocol.Orphan
		if err := rows.Scan((*dbID)(&owner), (*dbID)(&o.Execution), &o.Attempt, &o.Run, &o.Seq, &o.Shard); err != nil {
			return nil, err
		}
		out[owner] = append(out[owner], o)
	}
	return out, rows.Err()
}

package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// Kinds of a Pause beyond executions and flows.
const (
	PauseNodeType = "node-type"
	PausePool     = "pool"
)

// PauseRow is a node type or a pool that is paused.
type PauseRow struct {
	Kind, Name    string
	Reason, SetBy string
	SetAt         time.Time
}

func scanPause(r pgx.Rows, p *PauseRow) error {
	return r.Scan(&p.Kind, &p.Name, &p.Reason, &p.SetBy, dbTime{&p.SetAt})
}

const pauseColumns = `kind, name, reason, set_by, set_at`

// maxPauses bounds the table: every renewal of a session carries it.
const maxPauses = 200

// ListPauses lists node types and pools that are paused: all of them.
func (db *DB) ListPauses(ctx context.Context) ([]PauseRow, error) {
	return list(ctx, db, db.primary, "ListPauses", `SELECT `+pauseColumns+` FROM pauses ORDER BY kind, name`, scanPause)
}

// SetPause pauses a node type or a pool, or changes the reason. ErrFull when there are too many.
func (db *DB) SetPause(ctx context.Context, p PauseRow) (PauseRow, error) {
	rows, err := write(ctx, db, "SetPause", `INSERT INTO pauses (kind, name, reason, set_by) SELECT $1::text, $2::text, $3::text, $4::text WHERE (SELECT count(*) FROM pauses WHERE (kind, name) <> ($1, $2)) < $5
		ON CONFLICT (kind, name) DO UPDATE SET reason = excluded.reason, set_by = excluded.set_by RETURNING `+pauseColumns, scanPause, p.Kind, p.Name, clean(p.Reason), clean(p.SetBy), maxPauses)
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("store.SetPause: %w: the most is %d", ErrFull, maxPauses)
	}
	if err != nil {
		return PauseRow{}, err
	}
	return rows[0], nil
}

// ClearPause ends a pause; ErrNotFound when there is none.
func (db *DB) ClearPause(ctx context.Context, kind, name string) error {
	n, err := exec(ctx, db, "ClearPause", `DELETE FROM pauses WHERE kind = $1 AND name = $2`, kind, name)
	if err == nil && n == 0 {
		err = fmt.Errorf("store.ClearPause: %w", ErrNotFound)
	}
	return err
}

// SetFlowPause pauses a flow (text: protocol.FlowPaused) or resumes it (""). It tells whether that changed anything.
func (db *DB) SetFlowPause(ctx context.Context, flow protocol.ID, text string) (Flow, bool, error) {
	rows, err := write(ctx, db, "SetFlowPause", `UPDATE flows SET paused_reason = $2, updated_at = clock_timestamp() WHERE id = $1 AND deleted_at IS NULL AND (paused_reason = '') <> ($2 = '') RETURNING `+flowColumns, scanFlow, dbID(flow), clean(text))
	if err == nil && len(rows) == 1 {
		return rows[0], true, nil
	}
	if err != nil {
		return Flow{}, false, err
	}
	f, err := db.FlowByID(ctx, flow)
	return f, false, err
}

// maxHeld bounds HeldByPause.
const maxHeld = 100_000

// HeldByPause counts a flow's executions that are paused, whoever paused them, up to 100,000.
func (db *DB) HeldByPause(ctx context.Context, flow protocol.ID) (int, error) {
	return scalar[int](ctx, db, db.primary, "HeldByPause", `SELECT count(*) FROM (SELECT FROM executions WHERE flow_id = $1 AND paused <> '' LIMIT $2) AS h`, dbID(flow), maxHeld)
}

// Pauses implements protocol.Tx.
func (t *tx) Pauses(ctx context.Context, flows []protocol.ID) (protocol.Pauses, error) {
	out := protocol.Pauses{Flows: map[protocol.ID]string{}, Types: map[string]bool{}}
	rows, err := t.conn.Query(ctx, `SELECT id, '', paused_reason FROM flows WHERE id = ANY($1) AND paused_reason <> '' AND deleted_at IS NULL
		UNION ALL SELECT NULL, name, '' FROM pauses WHERE kind = 'node-type'`, dbIDs(flows))
	if err != nil {
		return out, err
	}
	defer rows.Close()
	for rows.Next() {
		var id protocol.ID
		var typ, text string
		if err := rows.Scan((*dbID)(&id), &typ, &text); err != nil {
			return out, err
		}
		if typ != "" {
			out.Types[typ] = true
		} else {
			out.Flows[id] = text
		}
	}
	return out, rows.Err()
}

// pausedTypes makes of (who, why) by type what a worker hands executions back with.
func pausedTypes(types map[string][2]string) map[string]string {
	if len(types) == 0 {
		return nil
	}
	out := make(map[string]string, len(types))
	for typ, p := range types {
		out[typ] = protocol.NodeTypePaused(typ, p[0], p[1])
	}
	return out
}

// What the leader carries out.

// PausedFlows lists flows that are paused.
func (db *DB) PausedFlows(ctx context.Context) (map[protocol.ID]string, error) {
	rows, err := list(ctx, db, db.primary, "PausedFlows", `SELECT `+flowColumns+` FROM flows WHERE paused_reason <> '' AND deleted_at IS NULL ORDER BY id`, scanFlow)
	out := make(map[protocol.ID]string, len(rows))
	for _, f := range rows {
		out[f.ID] = f.PausedReason
	}
	return out, err
}

// UnpausedOf reads a page of a flow's executions from after an id on, whatever their state: those that a pause of the flow must still take, and the last id that it
// has looked at; zero: there are no more.
func (db *DB) UnpausedOf(ctx context.Context, flow, after protocol.ID, page int) (ids []protocol.ID, last protocol.ID, err error) {
	type row struct {
		id   protocol.ID
		open bool
	}
	rows, err := list(ctx, db, db.primary, "UnpausedOf", `SELECT id, state IN ('queued', 'running', 'waiting') AND paused = '' AND cancel = '' FROM executions WHERE flow_id = $1 AND id > $2 ORDER BY id LIMIT $3`,
		func(r pgx.Rows, v *row) error { return r.Scan((*dbID)(&v.id), &v.open) }, dbID(flow), uuidOf(after), page)
	for _, v := range rows {
		if v.open {
			ids = append(ids, v.id)
		}
	}
	if len(rows) == page {
		last = rows[page-1].id
	}
	return ids, last, err
}

// uuidOf is an id where NULL has no place.
func uuidOf(id protocol.ID) [16]byte { return id }

// HoldingFlows lists the flows that have paused executions. It goes along the index from flow to flow, however many executions each has.
func (db *DB) HoldingFlows(ctx context.Context) ([]protocol.ID, error) {
	return list(ctx, db, db.primary, "HoldingFlows", `
		WITH RECURSIVE f AS (
			(SELECT flow_id FROM executions WHERE paused <> '' ORDER BY flow_id LIMIT 1)
			UNION ALL
			SELECT (SELECT e.flow_id FROM executions e WHERE e.paused <> '' AND e.flow_id > f.flow_id ORDER BY e.flow_id LIMIT 1) FROM f WHERE f.flow_id IS NOT NULL)
		SELECT flow_id FROM f WHERE flow_id IS NOT NULL`, scanID)
}

// ReleasableOf lists executions of a flow that isn't paused, and that are paused all the same by it, or by a node type that isn't paused any more: the oldest first.
func (db *DB) ReleasableOf(ctx context.Context, flow protocol.ID, limit int) ([]protocol.ID, error) {
	return list(ctx, db, db.primary, "ReleasableOf", `
		SELECT e.id FROM executions e WHERE e.flow_id = $1 AND e.paused <> ''
			AND (e.paused LIKE 'flow: %' OR e.paused LIKE 'node-type %' AND NOT EXISTS (SELECT FROM pauses p WHERE p.kind = 'node-type' AND p.name = split_part(substr(e.paused, 11), ':', 1)))
		ORDER BY e.id LIMIT $2`, scanID, dbID(flow), limit)
}

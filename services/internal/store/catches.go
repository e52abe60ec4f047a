package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/protocol"
)

// ErrorSpec is what a trigger.error of a version says.
type ErrorSpec struct {
	Flows  []string // names or ids; none: all others
	States []protocol.State
}

// replaceErrorTrigger gives a flow exactly this trigger.error; nil: none.
func (t *tx) replaceErrorTrigger(ctx context.Context, f Flow, node string, spec *ErrorSpec) error {
	if _, err := t.conn.Exec(ctx, `DELETE FROM error_triggers WHERE flow_id = $1`, dbID(f.ID)); err != nil || spec == nil {
		return err
	}
	names := spec.Flows
	if names == nil {
		names = []string{}
	}
	_, err := t.conn.Exec(ctx, `INSERT INTO error_triggers (flow_id, project_id, node, names, states) VALUES ($1, $2, $3, $4, $5)`, dbID(f.ID), dbID(f.Project), node, names, stateTexts(spec.States))
	return err
}

func stateTexts(states []protocol.State) []string {
	out := make([]string, len(states))
	for i, s := range states {
		out[i] = string(s)
	}
	return out
}

// leaveFailures inserts failures that a trigger asks for: the statement goes with a batch that ends executions badly, and with no other.
func leaveFailures(failures []protocol.Failure) statement {
	n := len(failures)
	ids, retries, states, errs, ats := make([]protocol.ID, n), make([]int32, n), make([]string, n), make([][]byte, n), make(times, n)
	for i, f := range failures {
		ids[i], retries[i], states[i], errs[i], ats[i] = f.Execution, int32(f.Retries), string(f.State), encodeFailure(f.Error), at(f.At)
	}
	return statement{`INSERT INTO failures (execution_id, retries, state, error, at)
		SELECT u.id, u.retries, u.state, u.error, u.at FROM unnest($1::uuid[], $2::int[], $3::text[], $4::bytea[], $5::timestamptz[]) AS u (id, retries, state, error, at)
		WHERE EXISTS (SELECT FROM error_triggers t WHERE u.state = ANY (t.states)) ON CONFLICT DO NOTHING`, []any{dbIDs(ids), retries, states, errs, ats}, -1, "failures"}
}

// ErrorTriggers lists the triggers of all published versions.
func (db *DB) ErrorTriggers(ctx context.Context) ([]protocol.ErrorTrigger, error) {
	return list(ctx, db, db.primary, "ErrorTriggers", `SELECT project_id, flow_id, node, names, states FROM error_triggers ORDER BY flow_id`, func(r pgx.Rows, t *protocol.ErrorTrigger) error {
		var states []string
		err := r.Scan((*dbID)(&t.Project), (*dbID)(&t.Flow), &t.Node, &t.Flows, &states)
		for _, s := range states {
			t.States = append(t.States, protocol.State(s))
		}
		return err
	})
}

// PendingFailure is a failure with what its error flows are told. Of an execution that is deleted by now there is nothing more: no trigger asks for it.
type PendingFailure struct {
	protocol.FailureView
	Version             int
	Trigger             string
	Labels              map[string]string
	Created             time.Time
	Parent, Root, Cause protocol.ID // Cause: the execution whose end started the tree that it belongs to
}

// PendingFailures lists failures that nobody has decided on, oldest first, with the database's clock. Above is what its tree's root was started for, and the root's flow.
func (db *DB) PendingFailures(ctx context.Context, limit int) (out []PendingFailure, now time.Time, err error) {
	err = db.read(ctx, db.primary, "PendingFailures", func(c *pgxpool.Conn) error {
		var err error
		now, out, err = withClock(ctx, c, func(r pgx.Rows, f *PendingFailure) error {
			var failure []byte
			var above []string
			err := r.Scan((*dbID)(&f.Execution), &f.Retries, (*string)(&f.State), &failure, dbTime{&f.At}, (*dbID)(&f.Project), (*dbID)(&f.Flow), &f.FlowName, &f.Version, &f.Trigger, &f.Labels, dbTime{&f.Created},
				(*dbID)(&f.Parent), (*dbID)(&f.Root), (*dbID)(&f.Cause), &above)
			if err != nil {
				return err
			}
			for _, s := range above {
				id, err := protocol.ParseID(s)
				if err != nil {
					return err
				}
				f.Above = append(f.Above, id)
			}
			f.Error, err = decodeFailure(failure)
			return err
		}, `SELECT p.execution_id, p.retries, p.state, p.error, p.at, e.project_id, e.flow_id, coalesce(f.name, ''), coalesce(e.flow_version, 0), coalesce(e.trigger, ''), e.labels, e.created_at, e.parent_id, e.root_id, c.execution_id,
			CASE WHEN c.started_id IS NULL THEN '{}' WHEN c.flow_id = e.flow_id THEN c.above::text[] ELSE c.above::text[] || c.flow_id::text END
			FROM (SELECT * FROM failures ORDER BY at, execution_id, retries LIMIT $1) p LEFT JOIN executions e ON e.id = p.execution_id LEFT JOIN flows f ON f.id = e.flow_id
			LEFT JOIN catches c ON c.started_id = coalesce(e.root_id, e.id) ORDER BY p.at, p.execution_id, p.retries`, limit)
		return err
	})
	return out, now, err
}

// CatchTxn runs fn in a transaction that decides on failures; rows are the executions that it may start.
func (db *DB) CatchTxn(ctx context.Context, rows []NewExecution, fn func(protocol.CatchTx) error) error {
	byID := make(map[protocol.ID]*NewExecution, len(rows))
	for i := range rows {
		if err := rows[i].check(); err != nil {
			return err
		}
		byID[rows[i].ID] = &rows[i]
	}
	began := time.Now()
	var keys []string
	err := db.txn(ctx, "catch", func(t *tx) error {
		c := &catchTx{tx: t, rows: byID}
		err := fn(c)
		keys = c.keys
		return err
	})
	if err == nil {
		db.freed(keys)
	}
	db.metrics.txns.WithLabelValues("catch").Observe(time.Since(began).Seconds())
	return err
}

// catchTx implements protocol.CatchTx.
type catchTx struct {
	*tx
	rows map[protocol.ID]*NewExecution
	keys []string // at which what it starts may be let in
}

var _ protocol.CatchTx = (*catchTx)(nil)

func endArgs(ends []protocol.End) (ids []protocol.ID, retries []int32) {
	ids, retries = make([]protocol.ID, len(ends)), make([]int32, len(ends))
	for i, e := range ends {
		ids[i], retries[i] = e.Execution, int32(e.Retries)
	}
	return ids, retries
}

func (t *catchTx) TakeFailures(ctx context.Context, ends []protocol.End) ([]protocol.End, error) {
	ids, retries := endArgs(ends)
	rows, err := t.conn.Query(ctx, `DELETE FROM failures WHERE (execution_id, retries) IN (
		SELECT f.execution_id, f.retries FROM failures f JOIN unnest($1::uuid[], $2::int[]) AS u (id, retries) ON f.execution_id = u.id AND f.retries = u.retries FOR UPDATE OF f SKIP LOCKED)
		RETURNING execution_id, retries`, dbIDs(ids), retries)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r pgx.Rows, e *protocol.End) error { return r.Scan((*dbID)(&e.Execution), &e.Retries) })
}

// Catch inserts catches and their executions. A catch that is there already fails the transaction: somebody has taken the failure twice.
func (t *catchTx) Catch(ctx context.Context, catches []protocol.Catch) error {
	n := len(catches)
	ends, flows, started := make([]protocol.End, n), make([]protocol.ID, n), make([]protocol.ID, n)
	nodes, states, outcomes, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	above := make([][]byte, n)
	var starts []*NewExecution
	for i, c := range catches {
		ends[i], flows[i], started[i], nodes[i], states[i], outcomes[i], reasons[i] = c.End, c.Flow, c.Started, c.Node, string(c.State), c.Outcome, clean(c.Reason)
		var err error
		if above[i], err = json.Marshal(texts(c.Above)); err != nil {
			return err
		}
		if c.Started.IsZero() {
			continue
		}
		row := t.rows[c.Started]
		if row == nil {
			return fmt.Errorf("nobody has made the execution %s", c.Started)
		}
		starts = append(starts, row)
	}
	ids, retries := endArgs(ends)
	_, err := t.conn.Exec(ctx, `INSERT INTO catches (execution_id, retries, flow_id, node, state, started_id, above, outcome, reason, at)
		SELECT u.id, u.retries, u.flow, u.node, u.state, u.started, ARRAY(SELECT json_array_elements_text(convert_from(u.above, 'UTF8')::json)::uuid), u.outcome, u.reason, clock_timestamp()
		FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::bytea[], $8::text[], $9::text[]) AS u (id, retries, flow, node, state, started, above, outcome, reason)`,
		dbIDs(ids), retries, dbIDs(flows), nodes, states, dbIDs(started), above, outcomes, reasons)
	if err != nil || len(starts) == 0 {
		return err
	}
	if t.keys, err = t.deferLimits(ctx, starts); err != nil {
		return err
	}
	sql, args := insertion(starts, false)
	rows, err := t.conn.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	_, err = collect(rows, scanID)
	return err
}

func texts(ids []protocol.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
	}
	return out
}

// StoredCatch is a catch as it is shown.
type StoredCatch struct {
	protocol.Catch
	FlowName     string
	At           time.Time
	StartedState protocol.State // "": nothing was started, or it is gone
}

// CatchesOf lists what became of the bad ends of an execution, in their order, at most limit.
func (db *DB) CatchesOf(ctx context.Context, execution protocol.ID, limit int) ([]StoredCatch, error) {
	return list(ctx, db, db.primary, "CatchesOf", `SELECT c.execution_id, c.retries, c.state, c.flow_id, coalesce(f.name, ''), c.node, c.started_id, c.outcome, c.reason, c.at, coalesce(e.state, '')
		FROM catches c LEFT JOIN flows f ON f.id = c.flow_id LEFT JOIN executions e ON e.id = c.started_id WHERE c.execution_id = $1 ORDER BY c.retries, c.flow_id LIMIT $2`, func(r pgx.Rows, c *StoredCatch) error {
		return r.Scan((*dbID)(&c.Execution), &c.Retries, (*string)(&c.State), (*dbID)(&c.Flow), &c.FlowName, &c.Node, (*dbID)(&c.Started), &c.Outcome, &c.Reason, dbTime{&c.At}, (*string)(&c.StartedState))
	}, dbID(execution), limit)
}

package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// Hook is a path that starts a flow: it exists while the version with its trigger is the published one.
type Hook struct {
	Flow   protocol.ID
	Node   string // the trigger
	Path   string // behind /hooks/; with the method it belongs to one flow of a project
	Method string
	Flows  bool // the flow answers, not the gateway
	// Schedule: it is not a hook but a trigger.schedule, of which only Node counts beside it.
	Schedule *ScheduleSpec
	// Errors: it is a trigger.error, of which only Node counts beside it.
	Errors *ErrorSpec
}

// HookTakenError says that another flow has a path already.
type HookTakenError struct {
	Node, Path, Method string
	Flow               string // name of the other flow
}

func (e *HookTakenError) Error() string {
	return fmt.Sprintf("%s /hooks/%s belongs to the flow %q", e.Method, e.Path, e.Flow)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *HookTakenError) Is(target error) bool { return target == ErrConflict }

// HooksAt lists the hooks at a path, one for each method, on the primary.
func (db *DB) HooksAt(ctx context.Context, path string) ([]Hook, error) {
	return list(ctx, db, db.primary, "HooksAt", `SELECT h.flow_id, h.node, h.path, h.method, h.respond = 'flow' FROM hooks h WHERE h.project_id = $1 AND h.path = $2 ORDER BY h.method`,
		func(r pgx.Rows, h *Hook) error {
			return r.Scan((*dbID)(&h.Flow), &h.Node, &h.Path, &h.Method, &h.Flows)
		}, dbID(DefaultProject), path)
}

// changeFlow runs a statement that changes one flow, and gives it exactly these hooks, all or nothing. *HookTakenError when another flow has one of them.
func (db *DB) changeFlow(ctx context.Context, op, sql string, hooks []Hook, args ...any) ([]Flow, error) {
	var out []Flow
	err := db.txn(ctx, op, func(t *tx) error {
		rows, err := t.conn.Query(ctx, sql, args...)
		if err != nil {
			return explain(op, err)
		}
		if out, err = collect(rows, scanFlow); err != nil {
			return explain(op, err)
		}
		if len(out) == 0 {
			return nil
		}
		if _, err := t.conn.Exec(ctx, `DELETE FROM hooks WHERE flow_id = $1`, dbID(out[0].ID)); err != nil {
			return explain(op, err)
		}
		return t.insertHooks(ctx, op, out[0], hooks)
	})
	if err != nil {
		return nil, explain(op, err)
	}
	return out, nil
}

// insertHooks stores hooks, schedules and the trigger.error: hooks in the order of their paths, so that two flows that want the same ones wait for each other in the same order.
func (t *tx) insertHooks(ctx context.Context, op string, f Flow, hooks []Hook) error {
	specs := map[string]ScheduleSpec{}
	var ends Hook
	for _, h := range hooks {
		if h.Schedule != nil {
			specs[h.Node] = *h.Schedule
		}
		if h.Errors != nil {
			ends = h
		}
	}
	if err := t.replaceSchedules(ctx, f, specs); err != nil {
		return explain(op, err)
	}
	if err := t.replaceErrorTrigger(ctx, f, ends.Node, ends.Errors); err != nil {
		return explain(op, err)
	}
	hooks = slices.DeleteFunc(slices.Clone(hooks), func(h Hook) bool { return h.Schedule != nil || h.Errors != nil })
	slices.SortFunc(hooks, func(a, b Hook) int { return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method) })
	for _, h := range hooks {
		respond := "immediately"
		if h.Flows {
			respond = "flow"
		}
		tag, err := t.conn.Exec(ctx, `INSERT INTO hooks (id, project_id, flow_id, node, path, method, respond) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project_id, path, method) DO NOTHING`,
			dbID(NewID()), dbID(f.Project), dbID(f.ID), h.Node, h.Path, h.Method, respond)
		if err != nil {
			return explain(op, err)
		}
		if tag.RowsAffected() == 1 {
			continue
		}
		taken := &HookTakenError{Node: h.Node, Path: h.Path, Method: h.Method}
		err = t.conn.QueryRow(ctx, `SELECT f.name FROM hooks h JOIN flows f ON f.id = h.flow_id WHERE h.project_id = $1 AND h.path = $2 AND h.method = $3`, dbID(f.Project), h.Path, h.Method).Scan(&taken.Flow)
		if err != nil { // it went away between the two statements: whoever comes again gets the path
			return fmt.Errorf("store.%s: %w", op, ErrStale)
		}
		return taken
	}
	return nil
}

// ReportsAfter asks for what an execution has reported since a report that is known.
type ReportsAfter struct {
	Execution    protocol.ID
	Attempt, Seq int // of the last one known; 0, 0: all
}

// ReportsSince lists the reports of executions since those that are known, at most 1,000, in order: one query for all that wait for an answer.
func (db *DB) ReportsSince(ctx context.Context, since []ReportsAfter) ([]protocol.StoredReport, error) {
	ids := make([]protocol.ID, len(since))
	attempts, seqs := make([]int32, len(since)), make([]int32, len(since))
	for i, s := range since {
		ids[i], attempts[i], seqs[i] = s.Execution, int32(s.Attempt), int32(s.Seq)
	}
	lo, hi := bounds(ids)
	return list(ctx, db, db.primary, "ReportsSince", `SELECT r.execution_id, r.attempt, r.seq, r.events
		FROM unnest($1::uuid[], $2::int[], $3::int[]) AS u (id, attempt, seq) JOIN reports r ON r.execution_id = u.id AND (r.attempt, r.seq) > (u.attempt, u.seq)
		WHERE r.execution_id BETWEEN $4 AND $5 ORDER BY r.execution_id, r.attempt, r.seq LIMIT 1000`, func(r pgx.Rows, s *protocol.StoredReport) error {
		return r.Scan((*dbID)(&s.Execution), &s.Attempt, &s.Seq, (*[]byte)(&s.Events))
	}, dbIDs(ids), attempts, seqs, lo, hi)
}

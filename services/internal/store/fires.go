package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/protocol"
)

// DueSchedule is a schedule that is due soon, with its flow.
type DueSchedule struct {
	Schedule
	Head    Flow
	Deleted bool // the flow is gone
}

// DueSchedules lists schedules that are due within the horizon, soonest first, with the database's clock.
func (db *DB) DueSchedules(ctx context.Context, horizon time.Duration, limit int) (out []DueSchedule, now time.Time, err error) {
	err = db.read(ctx, db.primary, "DueSchedules", func(c *pgxpool.Conn) error {
		var err error
		now, out, err = withClock(ctx, c, func(r pgx.Rows, d *DueSchedule) error {
			f := &d.Head
			return r.Scan(append(scheduleTargets(&d.Schedule), (*dbID)(&f.ID), (*dbID)(&f.Project), &f.Name, &f.Description, &f.Labels, &f.Published, &f.Latest, &f.PausedReason, &f.Revision,
				dbTime{&f.CreatedAt}, dbTime{&f.UpdatedAt}, &d.Deleted)...)
		}, `SELECT `+scheduleColumns+`, `+prefixed("f", flowColumns)+`, f.deleted_at IS NOT NULL FROM schedules s JOIN flows f ON f.id = s.flow_id
			WHERE NOT s.paused AND s.next_due <= now() + $1::interval ORDER BY s.next_due, s.id LIMIT $2`, horizon, limit)
		return err
	})
	return out, now, err
}

// FireTxn is Txn for fires; rows are the executions that it may start.
func (db *DB) FireTxn(ctx context.Context, name string, rows []NewExecution, fn func(protocol.FireTx) error) error {
	began := time.Now()
	byID := make(map[protocol.ID]*NewExecution, len(rows))
	for i := range rows {
		byID[rows[i].ID] = &rows[i]
	}
	var keys []string
	err := db.txn(ctx, name, func(t *tx) error {
		f := &fireTx{tx: t, rows: byID}
		err := fn(f)
		keys = f.keys
		return err
	})
	if err == nil {
		db.freed(keys)
	}
	db.metrics.txns.WithLabelValues(name).Observe(time.Since(began).Seconds())
	return err
}

// fireTx implements protocol.FireTx.
type fireTx struct {
	*tx
	rows map[protocol.ID]*NewExecution
	keys []string // at which what it starts may be let in
}

var _ protocol.FireTx = (*fireTx)(nil)

// HoldTerm gives the newest term and holds off RaiseTerm until the transaction has ended.
func (t *tx) HoldTerm(ctx context.Context) (int64, error) {
	if _, err := t.conn.Exec(ctx, `SELECT pg_advisory_xact_lock_shared(hashtext('flow_terms'))`); err != nil {
		return 0, err
	}
	var newest int64
	err := t.conn.QueryRow(ctx, `SELECT coalesce(max(term), 0) FROM terms`).Scan(&newest)
	return newest, err
}

func (t *fireTx) LockSchedules(ctx context.Context, ids []protocol.ID) ([]protocol.Schedule, error) {
	rows, err := t.conn.Query(ctx, `SELECT id, revision, paused, overlap, next_due FROM schedules WHERE id = ANY($1) ORDER BY id FOR UPDATE`, dbIDs(ids))
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r pgx.Rows, s *protocol.Schedule) error {
		return r.Scan((*dbID)(&s.ID), &s.Revision, &s.Paused, &s.Overlap, dbTime{&s.Due})
	})
}

func fireArgs(fires []protocol.Fire) (schedules []protocol.ID, due times) {
	schedules, due = make([]protocol.ID, len(fires)), make(times, len(fires))
	for i, f := range fires {
		schedules[i], due[i] = f.Schedule, at(f.Due)
	}
	return schedules, due
}

func (t *fireTx) Fired(ctx context.Context, fires []protocol.Fire) ([]protocol.Fire, error) {
	schedules, due := fireArgs(fires)
	rows, err := t.conn.Query(ctx, `SELECT f.schedule_id, f.due_at, f.execution_id FROM fires f JOIN unnest($1::uuid[], $2::timestamptz[]) AS u (id, due) ON f.schedule_id = u.id AND f.due_at = u.due`, dbIDs(schedules), due)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r pgx.Rows, f *protocol.Fire) error {
		return r.Scan((*dbID)(&f.Schedule), dbTime{&f.Due}, (*dbID)(&f.Execution))
	})
}

// maxUnfinished bounds how many of a schedule's latest executions are looked at: as many as a backfill may start.
const maxUnfinished = 1000

func (t *fireTx) Unfinished(ctx context.Context, schedules []protocol.ID) (map[protocol.ID][]protocol.ID, error) {
	rows, err := t.conn.Query(ctx, `
		SELECT u.id, e.id FROM unnest($1::uuid[]) AS u (id)
			CROSS JOIN LATERAL (SELECT f.execution_id FROM fires f WHERE f.schedule_id = u.id AND f.execution_id IS NOT NULL ORDER BY f.due_at DESC LIMIT $2) f
			JOIN executions e ON e.id = f.execution_id
		WHERE e.state IN ('queued', 'running', 'waiting') ORDER BY e.id`, dbIDs(schedules), maxUnfinished)
	if err != nil {
		return nil, err
	}
	type pair struct{ schedule, execution protocol.ID }
	pairs, err := collect(rows, func(r pgx.Rows, p *pair) error { return r.Scan((*dbID)(&p.schedule), (*dbID)(&p.execution)) })
	out := map[protocol.ID][]protocol.ID{}
	for _, p := range pairs {
		out[p.schedule] = append(out[p.schedule], p.execution)
	}
	return out, err
}

// Fire inserts fires and their executions. A fire that has its execution already fails the transaction: whoever came between has not locked the schedule.
func (t *fireTx) Fire(ctx context.Context, fires []protocol.Fire) error {
	schedules, due := fireArgs(fires)
	executions, terms, missed := make([]protocol.ID, len(fires)), make([]int64, len(fires)), make([]int32, len(fires))
	outcomes, reasons := make([]string, len(fires)), make([]string, len(fires))
	var starts []*NewExecution
	for i, f := range fires {
		executions[i], terms[i], missed[i], outcomes[i], reasons[i] = f.Execution, f.Term, int32(f.Missed), f.Outcome, clean(f.Reason)
		if f.Execution.IsZero() {
			continue
		}
		row := t.rows[f.Execution]
		if row == nil {
			return fmt.Errorf("nobody has made the execution %s", f.Execution)
		}
		starts = append(starts, row)
	}
	tag, err := t.conn.Exec(ctx, `INSERT INTO fires AS old (schedule_id, due_at, execution_id, term, outcome, reason, missed, at)
		SELECT u.schedule, u.due, u.execution, u.term, u.outcome, u.reason, u.missed, clock_timestamp()
		FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::int[]) AS u (schedule, due, execution, term, outcome, reason, missed)
		ON CONFLICT (schedule_id, due_at) DO UPDATE SET execution_id = excluded.execution_id, term = excluded.term, outcome = excluded.outcome, reason = excluded.reason, missed = excluded.missed, at = excluded.at
			WHERE old.execution_id IS NULL`,
		dbIDs(schedules), due, dbIDs(executions), terms, outcomes, reasons, missed)
	if err != nil {
		return err
	}
	if n := int(tag.RowsAffected()); n != len(fires) {
		return fmt.Errorf("%d of %d instants have been fired already", len(fires)-n, len(fires))
	}
	if len(starts) == 0 {
		return nil
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

func (t *fireTx) Move(ctx context.Context, schedules []protocol.Schedule) error {
	ids, due := make([]protocol.ID, len(schedules)), make(times, len(schedules))
	for i, s := range schedules {
		ids[i], due[i] = s.ID, at(s.Due)
	}
	_, err := t.conn.Exec(ctx, `UPDATE schedules s SET next_due = u.due FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, due) WHERE s.id = u.id`, dbIDs(ids), due)
	return err
}

// StoredFire is a fire as it is shown.
type StoredFire struct {
	protocol.Fire
	At    time.Time
	State protocol.State // of its execution; "": none, or it is gone
}

// ListFires lists a schedule's fires, those that were due last first.
func (db *DB) ListFires(ctx context.Context, schedule protocol.ID, p Page) ([]StoredFire, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	var before time.Time
	if after != (dbID{}) {
		before = time.UnixMicro(int64(versionIn(after)))
	}
	rows, err := list(ctx, db, db.primary, "ListFires", `SELECT f.schedule_id, f.due_at, f.execution_id, f.outcome, f.reason, f.missed, f.term, f.at, coalesce(e.state, '')
		FROM fires f LEFT JOIN executions e ON e.id = f.execution_id WHERE f.schedule_id = $1 AND ($2::timestamptz IS NULL OR f.due_at < $2) ORDER BY f.due_at DESC LIMIT $3`,
		func(r pgx.Rows, f *StoredFire) error {
			return r.Scan((*dbID)(&f.Schedule), dbTime{&f.Due}, (*dbID)(&f.Execution), &f.Outcome, &f.Reason, &f.Missed, &f.Term, dbTime{&f.At}, (*string)(&f.State))
		}, dbID(schedule), at(before), p.limit()+1)
	rows, next := cut(rows, p, func(f *StoredFire) protocol.ID { return cursorOf(int(f.Due.UnixMicro())) })
	return rows, next, err
}

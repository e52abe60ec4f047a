package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// Schedule is a schedule as it is stored.
type Schedule struct {
	ID         protocol.ID
	Project    protocol.ID
	Flow       protocol.ID
	FlowName   string // read only
	Node       string // the flow's trigger.schedule that it belongs to; "": nobody's but its own
	Name       string // unique within the project
	Cron, Zone string
	Input      json.RawMessage // nil: none
	CatchUp    string          // skip, one, all
	CatchUpMax int
	Overlap    string    // allow, skip, cancel
	StartAt    time.Time // zero: none
	EndAt      time.Time
	Paused     bool
	Due        time.Time // the next instant that nobody has decided on; zero: none
	Revision   int       // raised by every change of a person's: the ETag
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// ScheduleSpec is what a trigger.schedule of a version says.
type ScheduleSpec struct {
	Cron, Zone string
	Next       func(now time.Time) time.Time // the first instant after now; zero: none
}

// ErrOwned says that a schedule belongs to a flow's trigger.schedule: it changes with the flow.
var ErrOwned = errors.New("this schedule belongs to a trigger.schedule of its flow: change it there, and publish")

const scheduleColumns = `s.id, s.project_id, s.flow_id, s.node, s.name, s.cron, s.time_zone, s.input, s.catch_up, s.catch_up_max, s.overlap, s.start_at, s.end_at, s.paused, s.next_due, s.revision, s.created_at, s.updated_at, (SELECT f.name FROM flows f WHERE f.id = s.flow_id)`

func scheduleTargets(s *Schedule) []any {
	return []any{(*dbID)(&s.ID), (*dbID)(&s.Project), (*dbID)(&s.Flow), &s.Node, &s.Name, &s.Cron, &s.Zone, (*[]byte)(&s.Input), &s.CatchUp, &s.CatchUpMax, &s.Overlap, dbTime{&s.StartAt}, dbTime{&s.EndAt}, &s.Paused,
		dbTime{&s.Due}, &s.Revision, dbTime{&s.CreatedAt}, dbTime{&s.UpdatedAt}, &s.FlowName}
}

func scanSchedule(r pgx.Rows, s *Schedule) error { return r.Scan(scheduleTargets(s)...) }

// ScheduleByID finds a schedule.
func (db *DB) ScheduleByID(ctx context.Context, id protocol.ID) (Schedule, error) {
	return one(ctx, db, db.primary, "ScheduleByID", `SELECT `+scheduleColumns+` FROM schedules s WHERE s.id = $1`, scanSchedule, dbID(id))
}

// ScheduleByName finds a schedule of a project (zero: the default one).
func (db *DB) ScheduleByName(ctx context.Context, project protocol.ID, name string) (Schedule, error) {
	return one(ctx, db, db.primary, "ScheduleByName", `SELECT `+scheduleColumns+` FROM schedules s WHERE s.project_id = $1 AND s.name = $2`, scanSchedule, projectOf(project), clean(name))
}

// ListSchedules lists schedules, newest first; flow zero: of all flows.
func (db *DB) ListSchedules(ctx context.Context, flow protocol.ID, p Page) ([]Schedule, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.replica, "ListSchedules", `SELECT `+scheduleColumns+` FROM schedules s WHERE ($1::uuid IS NULL OR s.id < $1) AND ($2::uuid IS NULL OR s.flow_id = $2) ORDER BY s.id DESC LIMIT $3`,
		scanSchedule, after, dbID(flow), p.limit()+1)
	rows, next := cut(rows, p, func(s *Schedule) protocol.ID { return s.ID })
	return rows, next, err
}

// CreateSchedule stores a schedule; next gives its first instant after the database's clock. ErrConflict (field name) when the name is taken; ErrFull when the project has limit of
// them (about: two that come together may both get in).
func (db *DB) CreateSchedule(ctx context.Context, s Schedule, limit int, next func(now time.Time) time.Time) (Schedule, error) {
	const op = "CreateSchedule"
	var out []Schedule
	err := db.txn(ctx, op, func(t *tx) error {
		rows, err := t.conn.Query(ctx, `
			INSERT INTO schedules AS s (id, project_id, flow_id, name, cron, time_zone, input, catch_up, catch_up_max, overlap, start_at, end_at, paused, next_due)
			SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 WHERE (SELECT count(*) FROM schedules WHERE project_id = $2) < $15 RETURNING `+scheduleColumns,
			dbID(s.ID), projectOf(s.Project), dbID(s.Flow), s.Name, s.Cron, s.Zone, nilIfEmpty(s.Input), s.CatchUp, s.CatchUpMax, s.Overlap, at(s.StartAt), at(s.EndAt), s.Paused, at(next(t.now)), limit)
		if err != nil {
			return err
		}
		out, err = collect(rows, scanSchedule)
		return explain(op, err)
	})
	if err != nil {
		return Schedule{}, explain(op, err)
	}
	if len(out) == 0 {
		return Schedule{}, fmt.Errorf("store.%s: %w", op, ErrFull)
	}
	return out[0], nil
}

// ChangeSchedule changes a schedule: change gets it as it is, locked, with the database's clock, and gives it as it shall be (Due too). ifRevision -1: whatever it is; ErrStale when it
// has moved on, ErrNotFound when it is gone, an error of change as it is.
func (db *DB) ChangeSchedule(ctx context.Context, id protocol.ID, ifRevision int, change func(s *Schedule, now time.Time) error) (Schedule, error) {
	const op = "ChangeSchedule"
	var out []Schedule
	err := db.txn(ctx, op, func(t *tx) error {
		s, err := t.schedule(ctx, op, id, ifRevision)
		if err != nil {
			return err
		}
		if err := change(&s, t.now); err != nil {
			return err
		}
		rows, err := t.conn.Query(ctx, `
			UPDATE schedules s SET flow_id = $2, name = $3, cron = $4, time_zone = $5, input = $6, catch_up = $7, catch_up_max = $8, overlap = $9, start_at = $10, end_at = $11, paused = $12, next_due = $13,
				revision = revision + 1, updated_at = clock_timestamp() WHERE id = $1 RETURNING `+scheduleColumns,
			dbID(id), dbID(s.Flow), s.Name, s.Cron, s.Zone, nilIfEmpty(s.Input), s.CatchUp, s.CatchUpMax, s.Overlap, at(s.StartAt), at(s.EndAt), s.Paused, at(s.Due))
		if err != nil {
			return err
		}
		out, err = collect(rows, scanSchedule)
		return explain(op, err)
	})
	if err != nil {
		return Schedule{}, explain(op, err)
	}
	return out[0], nil
}

// schedule locks a schedule.
func (t *tx) schedule(ctx context.Context, op string, id protocol.ID, ifRevision int) (Schedule, error) {
	rows, err := t.conn.Query(ctx, `SELECT `+scheduleColumns+` FROM schedules s WHERE s.id = $1 FOR UPDATE`, dbID(id))
	if err != nil {
		return Schedule{}, err
	}
	found, err := collect(rows, scanSchedule)
	switch {
	case err != nil:
		return Schedule{}, err
	case len(found) == 0:
		return Schedule{}, fmt.Errorf("store.%s: %w", op, ErrNotFound)
	case ifRevision >= 0 && found[0].Revision != ifRevision:
		return Schedule{}, fmt.Errorf("store.%s: %w", op, ErrStale)
	}
	return found[0], nil
}

// DeleteSchedule removes a schedule; its fires stay as long as history does. ErrOwned when it is a flow's.
func (db *DB) DeleteSchedule(ctx context.Context, id protocol.ID, ifRevision int) error {
	const op = "DeleteSchedule"
	err := db.txn(ctx, op, func(t *tx) error {
		s, err := t.schedule(ctx, op, id, ifRevision)
		if err != nil {
			return err
		}
		if s.Node != "" {
			return ErrOwned
		}
		_, err = t.conn.Exec(ctx, `DELETE FROM schedules WHERE id = $1`, dbID(id))
		return err
	})
	if errors.Is(err, ErrOwned) {
		return ErrOwned
	}
	return explain(op, err)
}

// ownedName is the name of a flow's own schedule: no name of people's has a slash.
func ownedName(flow protocol.ID, node string) string { return flow.String() + "/" + node }

// replaceSchedules gives a flow exactly these schedules of its own. One that stays as it was keeps its place and whether it is paused.
func (t *tx) replaceSchedules(ctx context.Context, f Flow, specs map[string]ScheduleSpec) error {
	nodes := make([]string, 0, len(specs))
	for node := range specs {
		nodes = append(nodes, node)
	}
	if _, err := t.conn.Exec(ctx, `DELETE FROM schedules WHERE flow_id = $1 AND node <> '' AND node <> ALL($2)`, dbID(f.ID), nodes); err != nil {
		return err
	}
	for node, spec := range specs {
		if _, err := t.conn.Exec(ctx, `
			INSERT INTO schedules AS s (id, project_id, flow_id, node, name, cron, time_zone, next_due) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (flow_id, node) WHERE node <> '' DO UPDATE SET cron = excluded.cron, time_zone = excluded.time_zone, next_due = excluded.next_due, revision = s.revision + 1, updated_at = clock_timestamp()
			WHERE s.cron <> excluded.cron OR s.time_zone <> excluded.time_zone`,
			dbID(NewID()), dbID(f.Project), dbID(f.ID), node, ownedName(f.ID, node), spec.Cron, spec.Zone, at(spec.Next(t.now))); err != nil {
			return err
		}
	}
	return nil
}

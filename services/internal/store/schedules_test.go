package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
)

// fires of one schedule, for a test.
type fires struct {
	*bundle
	flow     Flow
	gateway  *DB
	orch     *DB
	schedule Schedule
	term     int64
}

func newFires(t *testing.T, overlap string, due time.Time) *fires {
	t.Helper()
	b := setup(t)
	f := &fires{bundle: b, gateway: b.open(t, "flow_gateway"), orch: b.open(t, "flow_orchestrator")}
	var err error
	if f.flow, err = f.gateway.CreateFlow(t.Context(), Flow{Name: "of " + NewID().String()}, []byte(`{"nodes":[]}`), "x", true); err != nil {
		t.Fatal(err)
	}
	f.schedule, err = f.gateway.CreateSchedule(t.Context(), Schedule{ID: NewID(), Flow: f.flow.ID, Name: "s " + NewID().String(), Cron: "* * * * *", Zone: "UTC", CatchUp: "skip", CatchUpMax: 100, Overlap: overlap}, 1000,
		func(now time.Time) time.Time {
			if now.IsZero() {
				t.Error("no clock")
			}
			return due
		})
	if err != nil {
		t.Fatal(err)
	}
	if f.term, err = f.orch.RaiseTerm(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	return f
}

// plan wants to start an execution at each of the instants.
func (f *fires) plan(next time.Time, due ...time.Time) (protocol.FirePlan, []NewExecution) {
	p := protocol.FirePlan{Schedule: f.schedule.ID, Revision: f.schedule.Revision, Due: f.schedule.Due, Next: next}
	var rows []NewExecution
	for _, at := range due {
		row := newExecution(NewID())
		row.Flow = f.flow.ID
		rows = append(rows, row)
		p.Fires = append(p.Fires, protocol.Fire{Schedule: f.schedule.ID, Due: at, Execution: row.ID, Outcome: protocol.FireStarted})
	}
	return p, rows
}

func (f *fires) fire(t *testing.T, term int64, p protocol.FirePlan, rows []NewExecution) (out protocol.Outcome, done []protocol.Fire, dropped int, err error) {
	err = f.orch.FireTxn(t.Context(), "fire", rows, func(tx protocol.FireTx) error {
		var err error
		out, done, dropped, err = protocol.FireDue(t.Context(), tx, term, []protocol.FirePlan{p})
		return err
	})
	return out, done, dropped, err
}

func (f *fires) shown(t *testing.T) string {
	return f.sql(t, fmt.Sprintf(`SELECT string_agg(outcome || CASE WHEN execution_id IS NULL THEN '' ELSE '+' END, ' ' ORDER BY due_at) FROM fires WHERE schedule_id = '%s'`, f.schedule.ID))
}

// An instant is fired once: not by a plan of the past, not by a leader of the past, not by a backfill after it.
func TestFires(t *testing.T) {
	t.Parallel()
	first := time.Now().UTC().Truncate(time.Minute)
	f := newFires(t, protocol.OverlapAllow, first)
	if got, now, err := f.orch.DueSchedules(t.Context(), time.Minute, 1000); err != nil || now.IsZero() {
		t.Fatal(err)
	} else {
		found := false
		for _, d := range got {
			found = found || d.ID == f.schedule.ID && d.Head.Name == f.flow.Name && !d.Deleted && d.Due.Equal(first)
		}
		if !found {
			t.Errorf("it isn't listed: %+v", got)
		}
	}
	p, rows := f.plan(first.Add(time.Minute), first)
	out, done, _, err := f.fire(t, f.term, p, rows)
	if err != nil || len(done) != 1 || len(out.HandOut) != 1 || out.HandOut[0] != rows[0].ID {
		t.Fatalf("%+v %+v %v", out, done, err)
	}
	if e, err := f.gateway.ExecutionByID(t.Context(), rows[0].ID); err != nil || e.State != protocol.Queued {
		t.Errorf("its execution: %+v %v", e.State, err)
	}
	// The same again, with an execution of its own, as a leader does that doesn't know of its commit.
	p, rows = f.plan(first.Add(time.Minute), first)
	if _, done, dropped, err := f.fire(t, f.term, p, rows); err != nil || len(done) != 0 || dropped != 1 {
		t.Errorf("a plan of the past: %v %d %v", done, dropped, err)
	}
	p.Due = first.Add(time.Minute) // even one that fits starts nothing for an instant that was fired
	if _, done, dropped, err := f.fire(t, f.term, p, rows); err != nil || len(done) != 0 || dropped != 0 {
		t.Errorf("an instant of the past: %v %d %v", done, dropped, err)
	}
	if _, err := f.orch.RaiseTerm(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	p, rows = f.plan(first.Add(2*time.Minute), first.Add(time.Minute))
	if _, _, _, err := f.fire(t, f.term, p, rows); !errors.Is(err, ErrFenced) {
		t.Errorf("a leader of the past: %v", err)
	}
	if got := f.shown(t); got != "started+" {
		t.Errorf("fires: %s", got)
	}
	if got := f.sql(t, fmt.Sprintf(`SELECT count(*) FROM executions WHERE flow_id = '%s'`, f.flow.ID)); got != "1" {
		t.Errorf("%s executions", got)
	}

	// A backfill, with the gateway's rights: two instants that nobody fired, and the one that is there.
	past, rows := f.plan(time.Time{}, first.Add(-2*time.Minute), first.Add(-time.Minute), first)
	var filled []protocol.Fire
	if err := f.gateway.FireTxn(t.Context(), "backfill", rows, func(tx protocol.FireTx) error {
		var err error
		_, filled, err = protocol.Backfill(t.Context(), tx, f.schedule.ID, past.Fires)
		return err
	}); err != nil || len(filled) != 2 {
		t.Errorf("%v %v", filled, err)
	}
	page, cursor, err := f.gateway.ListFires(t.Context(), f.schedule.ID, Page{Limit: 2})
	if err != nil || len(page) != 2 || cursor == "" || !page[0].Due.Equal(first) || page[0].State != protocol.Queued || page[0].Outcome != protocol.FireStarted {
		t.Errorf("%+v %q %v", page, cursor, err)
	}
	if rest, cursor, err := f.gateway.ListFires(t.Context(), f.schedule.ID, Page{Limit: 2, Cursor: cursor}); err != nil || len(rest) != 1 || cursor != "" || !rest[0].Due.Equal(first.Add(-2*time.Minute)) {
		t.Errorf("%+v %q %v", rest, cursor, err)
	}
}

// skip starts nothing while an execution of the schedule isn't over; cancel ends it first, in the same transaction.
func TestFiresOverlap(t *testing.T) {
	t.Parallel()
	first := time.Now().UTC().Truncate(time.Minute)
	for policy, want := range map[string]struct{ twice, after, states string }{
		protocol.OverlapAllow:  {"started+ started+", "started+ started+ started+", "queued:2 succeeded:1"},
		protocol.OverlapSkip:   {"started+ skipped", "started+ skipped started+", "queued:1 succeeded:1"},
		protocol.OverlapCancel: {"skipped started+", "skipped started+ started+", "queued:1 succeeded:1"},
	} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			f := newFires(t, policy, first)
			p, rows := f.plan(first.Add(2*time.Minute), first, first.Add(time.Minute))
			out, _, _, err := f.fire(t, f.term, p, rows)
			if err != nil || len(out.HandOut) == 0 {
				t.Fatalf("%+v %v", out, err)
			}
			if got := f.shown(t); got != want.twice {
				t.Errorf("two at once: %s, want %s", got, want.twice)
			}
			f.sql(t, fmt.Sprintf(`UPDATE executions SET state = 'succeeded', finished_at = now() WHERE id = '%s'`, out.HandOut[0]))
			if f.schedule, err = f.gateway.ScheduleByID(t.Context(), f.schedule.ID); err != nil {
				t.Fatal(err)
			}
			p, rows = f.plan(first.Add(3*time.Minute), first.Add(2*time.Minute))
			if out, _, _, err = f.fire(t, f.term, p, rows); err != nil {
				t.Fatal(err)
			}
			if got := f.shown(t); got != want.after {
				t.Errorf("one more: %s, want %s", got, want.after)
			}
			if policy == protocol.OverlapCancel {
				f.schedule, _ = f.gateway.ScheduleByID(t.Context(), f.schedule.ID)
				before := out.HandOut[0]
				p, rows = f.plan(first.Add(4*time.Minute), first.Add(3*time.Minute))
				if out, _, _, err = f.fire(t, f.term, p, rows); err != nil {
					t.Fatal(err)
				}
				if e, err := f.gateway.ExecutionByID(t.Context(), before); err != nil || e.State != protocol.Cancelled || len(out.HandOut) != 1 || out.HandOut[0] != rows[0].ID {
					t.Errorf("the one before: %s %v, handed out %v", e.State, err, out.HandOut)
				}
				return
			}
			if got := f.sql(t, fmt.Sprintf(`SELECT string_agg(state || ':' || n, ' ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM executions WHERE flow_id = '%s' GROUP BY state) x`, f.flow.ID)); got != want.states {
				t.Errorf("executions: %s, want %s", got, want.states)
			}
		})
	}
}

// A schedule's changes: by revision, by the database's clock, and not those of a flow's own.
func TestSchedules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_gateway"), t.Context()
	due := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	next := func(time.Time) time.Time { return due }
	own := Hook{Node: "mornings", Schedule: &ScheduleSpec{Cron: "0 8 * * *", Zone: "UTC", Next: next}}
	flow, err := db.CreateFlow(ctx, Flow{Name: "scheduled"}, []byte(`{}`), "x", true, own)
	if err != nil {
		t.Fatal(err)
	}
	list := func() string {
		return b.sql(t, `SELECT coalesce(string_agg(node || ' ' || cron || ' ' || paused || ' ' || revision, ', ' ORDER BY node), '') FROM schedules`)
	}
	s := Schedule{ID: NewID(), Flow: flow.ID, Name: "mine", Cron: "* * * * *", Zone: "UTC", CatchUp: "skip", CatchUpMax: 100, Overlap: "allow"}
	if s, err = db.CreateSchedule(ctx, s, 2, next); err != nil || !s.Due.Equal(due) || s.Revision != 1 {
		t.Fatalf("%+v %v", s, err)
	}
	other := s
	other.ID = NewID()
	if _, err := db.CreateSchedule(ctx, other, 2, next); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	var conflict *ConflictError
	if _, err := db.CreateSchedule(ctx, other, 9, next); !errors.As(err, &conflict) || conflict.Field != "name" {
		t.Errorf("the same name: %v", err)
	}
	pause := func(s *Schedule, _ time.Time) error { s.Paused = true; return nil }
	if s, err = db.ChangeSchedule(ctx, s.ID, 1, pause); err != nil || !s.Paused || s.Revision != 2 {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := db.ChangeSchedule(ctx, s.ID, 1, pause); !errors.Is(err, ErrStale) {
		t.Errorf("an old revision: %v", err)
	}
	if _, err := db.ChangeSchedule(ctx, NewID(), -1, pause); !errors.Is(err, ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	refused := errors.New("refused")
	if _, err := db.ChangeSchedule(ctx, s.ID, -1, func(*Schedule, time.Time) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("refused: %v", err)
	}
	mine, err := db.ScheduleByName(ctx, DefaultProject, flow.ID.String()+"/mornings")
	if err != nil || mine.Node != "mornings" {
		t.Fatalf("the flow's own: %+v %v", mine, err)
	}
	if err := db.DeleteSchedule(ctx, mine.ID, -1); !errors.Is(err, ErrOwned) {
		t.Errorf("delete the flow's own: %v", err)
	}
	if _, err := db.ChangeSchedule(ctx, mine.ID, -1, pause); err != nil {
		t.Error(err)
	}
	// A version that says the same leaves it as it is, paused too; another one changes it; one without takes it away.
	save := func(hooks ...Hook) {
		t.Helper()
		if _, err := db.SaveFlow(ctx, flow.ID, -1, "scheduled", "", nil, []byte(`{}`), "x", true, hooks...); err != nil {
			t.Fatal(err)
		}
	}
	save(own)
	if got := list(); got != "* * * * * true 2, mornings 0 8 * * * true 2" {
		t.Errorf("the same again: %s", got)
	}
	evening := own
	evening.Schedule = &ScheduleSpec{Cron: "0 20 * * *", Zone: "UTC", Next: next}
	save(evening, Hook{Node: "night", Schedule: own.Schedule})
	if got := list(); got != "* * * * * true 2, mornings 0 20 * * * true 3, night 0 8 * * * false 1" {
		t.Errorf("two now: %s", got)
	}
	save(evening)
	if err := db.DeleteFlow(ctx, flow.ID, -1); err != nil {
		t.Fatal(err)
	}
	if got := list(); got != "* * * * * true 2" {
		t.Errorf("the flow is gone: %s", got)
	}
	if page, _, err := db.ListSchedules(ctx, flow.ID, Page{}); err != nil || len(page) != 1 {
		t.Errorf("%v %v", page, err)
	}
	if err := db.DeleteSchedule(ctx, s.ID, 2); err != nil {
		t.Error(err)
	}
}

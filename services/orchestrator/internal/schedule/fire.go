package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flowplatform/services/internal/cron"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/start"
	"flowplatform/services/internal/store"
)

// batch is what one transaction fires.
type batch struct {
	plans []protocol.FirePlan
	rows  []store.NewExecution
}

// prepare adds what shall become of a schedule that is due. An error is about us: the schedule stays due.
func (t *run) prepare(ctx context.Context, b *batch, d *store.DueSchedule, now time.Time) error {
	p := protocol.FirePlan{Schedule: d.ID, Revision: d.Revision, Due: d.Due}
	e, err := cron.Parse(d.Cron, d.Zone)
	if err != nil { // of another build: never again, and people can see why
		p.Fires = []protocol.Fire{{Schedule: d.ID, Due: d.Due, Outcome: protocol.FireRefused, Reason: err.Error()}}
		b.plans = append(b.plans, p)
		return nil
	}
	instants, next := plan(&d.Schedule, e, now)
	p.Next = next
	var rows []store.NewExecution
	for i := range instants {
		in := &instants[i]
		f := protocol.Fire{Schedule: d.ID, Due: in.due, Outcome: protocol.FireMissed, Reason: in.reason(d.CatchUp), Missed: in.missed}
		if in.starts {
			row, refused, err := t.execution(ctx, d, in.due, now)
			switch {
			case err != nil:
				return fmt.Errorf("schedule %s: %w", d.Name, err)
			case refused != "":
				f.Outcome, f.Reason = protocol.FireRefused, refused
			default:
				f.Outcome, f.Execution = protocol.FireStarted, row.ID
				rows = append(rows, row)
			}
		}
		p.Fires = append(p.Fires, f)
	}
	b.plans, b.rows = append(b.plans, p), append(b.rows, rows...)
	return nil
}

// execution makes the execution of one instant, or says why the flow can't be started.
func (t *run) execution(ctx context.Context, d *store.DueSchedule, due, now time.Time) (store.NewExecution, string, error) {
	if d.Deleted {
		return store.NewExecution{}, fmt.Sprintf("the flow %q was deleted", d.Head.Name), nil
	}
	shards := t.o.Shards()
	if shards < 1 {
		return store.NewExecution{}, "", errors.New("the number of report queues is not known yet")
	}
	row, problems, err := start.Fire(ctx, t.o.Definitions, d.Head, &d.Schedule, due, now, shards)
	var refused *start.RefusedError
	switch {
	case errors.As(err, &refused):
		return row, refused.Error(), nil
	case err != nil:
		return row, "", err
	case len(problems) > 0:
		return row, "the input doesn't fit the flow's inputSchema: " + problemText(problems), nil
	}
	return row, "", nil
}

func problemText(problems []flow.Problem) string {
	first := problems[0]
	text := first.Message
	if first.Pointer != "" {
		text = first.Pointer + ": " + text
	}
	if n := len(problems) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// fire commits a batch, and hands out what it started. A value that the database refuses is found by firing each schedule alone.
func (t *run) fire(ctx context.Context, b batch, clock func() time.Time) error {
	var out protocol.Outcome
	var done []protocol.Fire
	var dropped int
	err := t.o.Store.FireTxn(ctx, "fire", b.rows, func(tx protocol.FireTx) error {
		var err error
		out, done, dropped, err = protocol.FireDue(ctx, tx, t.number, b.plans)
		return err
	})
	switch {
	case errors.Is(err, protocol.ErrUnknown):
		return errors.Join(err, t.readBack(ctx, b.rows))
	case errors.Is(err, protocol.ErrData) && len(b.plans) > 1:
		var all error
		for _, p := range b.plans {
			alone := batch{plans: []protocol.FirePlan{p}, rows: rowsOf(p, b.rows)}
			all = errors.Join(all, t.fire(ctx, alone, clock))
		}
		return all
	case err != nil:
		return err
	}
	t.o.Follow(out)
	now := clock()
	for _, f := range done {
		t.metrics.fires.WithLabelValues(f.Outcome).Inc()
		if late := now.Sub(f.Due); late < grace {
			t.metrics.lateness.Observe(max(0, late.Seconds()))
		}
		if f.Outcome == protocol.FireRefused {
			t.o.Log.Warn("a schedule could not start its flow", "schedule", f.Schedule.String(), "due", f.Due, "reason", f.Reason)
		}
	}
	t.metrics.dropped.Add(float64(dropped))
	return nil
}

// readBack hands out what a commit whose answer was lost has started after all. What it has not done, the next look does.
func (t *run) readBack(ctx context.Context, rows []store.NewExecution) error {
	ids := make([]protocol.ID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	there, err := t.o.Store.ExistingExecutions(ctx, ids)
	var out protocol.Outcome
	for id := range there {
		out.HandOut = append(out.HandOut, id)
	}
	t.o.Follow(out)
	return err
}

func rowsOf(p protocol.FirePlan, rows []store.NewExecution) []store.NewExecution {
	wanted := map[protocol.ID]bool{}
	for _, f := range p.Fires {
		wanted[f.Execution] = true
	}
	var out []store.NewExecution
	for _, r := range rows {
		if wanted[r.ID] {
			out = append(out, r)
		}
	}
	return out
}

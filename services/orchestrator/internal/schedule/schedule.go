// Package schedule is the leader's clockwork: it starts executions when their schedules are due.
//
//	look ─► due? ─► plan (catch-up) ─► executions (package start) ─► one transaction, under the term ─► COMMIT ─► hand out
//	  ▲                                                                    protocol.FireDue
//	  └── sleeps until the next instant that it saw, a second at the most
//
// "Due" is by the database's clock, read with the schedules; no clock of a host decides. A leader that is killed anywhere leaves either nothing or everything of a transaction, and the
// next one looks again: the schedule's next instant stands in its row, and moves on only together with the fires. What a leader of the past still sends is refused by its
// term, and would find its fires there already.
package schedule

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const (
	// step is how often it looks at the least.
	step = time.Second
	// horizon is how far it reads ahead, so that it wakes exactly when something is due.
	horizon = 2 * time.Second
	// bound of one look.
	bound = 20 * time.Second
	// maxLook and maxStarts bound what one transaction fires; when there is more, the next follows at once.
	maxLook   = 200
	maxStarts = 1000
)

// Term of the leader.
type Term interface{ Valid() bool }

// Store is what this package needs of the database.
type Store interface {
	DueSchedules(ctx context.Context, horizon time.Duration, limit int) ([]store.DueSchedule, time.Time, error)
	FireTxn(ctx context.Context, name string, rows []store.NewExecution, fn func(protocol.FireTx) error) error
	ExistingExecutions(ctx context.Context, ids []protocol.ID) (map[protocol.ID]bool, error)
}

// Options of New. All are required.
type Options struct {
	Store       Store
	Definitions *definitions.Definitions
	Shards      func() int
	// Follow takes what a commit leaves to be done. It never waits.
	Follow     func(protocol.Outcome)
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Schedules does this part of the leader's work, one term at a time.
type Schedules struct {
	o       Options
	metrics *metrics
}

// New returns a Schedules.
func New(o Options) *Schedules { return &Schedules{o: o, metrics: newMetrics(o.Registerer)} }

// Work works until ctx ends.
func (s *Schedules) Work(ctx context.Context, number int64, term Term) {
	defer s.metrics.behind.Set(0) // the next leader's to say
	t := &run{Schedules: s, number: number, failing: map[string]bool{}}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		pause := step
		if term.Valid() {
			bounded, cancel := context.WithTimeout(ctx, bound)
			pause = t.look(bounded)
			cancel()
		}
		timer.Reset(pause)
	}
}

// run is what is remembered during one term. One goroutine.
type run struct {
	*Schedules
	number  int64
	failing map[string]bool
}

// look fires what is due, and says how long there is nothing to do.
func (t *run) look(ctx context.Context) time.Duration {
	begun := time.Now()
	rows, now, err := t.o.Store.DueSchedules(ctx, horizon, maxLook)
	if t.note(ctx, "look", err); err != nil {
		return step / 4
	}
	clock := func() time.Time { return now.Add(time.Since(begun)) }
	b := batch{}
	oldest, pause := time.Time{}, step
	for i := range rows {
		d := &rows[i]
		if d.Due.After(now) { // they come soonest first
			pause = min(pause, max(0, d.Due.Sub(clock())))
			break
		}
		if len(b.rows) >= maxStarts {
			pause = 0
			break
		}
		err := t.prepare(ctx, &b, d, now)
		if t.note(ctx, "prepare", err); err != nil && oldest.IsZero() {
			oldest = d.Due
		}
	}
	if len(rows) == maxLook && len(b.plans) > 0 {
		pause = 0
	}
	if len(b.plans) > 0 {
		err := t.fire(ctx, b, clock)
		if t.note(ctx, "fire", err); err != nil {
			pause = step / 4
			if first := b.plans[0].Due; oldest.IsZero() || first.Before(oldest) {
				oldest = first
			}
		}
		for _, p := range b.plans { // what was fired is perhaps due again before the next look
			if !p.Next.IsZero() {
				pause = min(pause, max(0, p.Next.Sub(clock())))
			}
		}
	}
	behind := 0.0
	if !oldest.IsZero() {
		behind = clock().Sub(oldest).Seconds()
	}
	t.metrics.behind.Set(behind)
	return pause
}

// note counts a failure, and logs the first of a row of them and its end.
func (t *run) note(ctx context.Context, name string, err error) {
	was := t.failing[name]
	t.failing[name] = err != nil
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
	case err != nil:
		t.metrics.failed.WithLabelValues(name).Inc()
		if !was {
			t.o.Log.Warn("schedules are not fired as they should be; it goes on trying", "step", name, "error", err)
		}
	case was:
		t.o.Log.Info("a step of firing schedules works again", "step", name)
	}
}

// Package retention is the leader's work on what is old: it makes the partitions of the days ahead, drops those of days whose executions are all final
// and past the longest retention, and deletes in batches what has a shorter one.
//
// An execution is kept for its flow's settings.retention, else for EXECUTION_RETENTION, from its end on: what still runs or waits is never touched,
// however old it is. Everything dies with its execution: reports and logs, payloads, waits, letters. Other tables have bounds of their own.
//
// A drop is cheap and a delete is not, so whole days go by drop. Only where some flows keep longer than others, or an old execution still waits, are the
// rest of that day's executions deleted one batch after the other.
//
// The hot path comes first. A batch is 1,000 rows, and after each follows a pause as long as the batch took: one connection, half busy. A pass has a bound
// of batches and time. The drop of a day waits for its lock 50 ms, then 250, then 900, since everybody else waits behind it; then it is left for the
// next pass.
//
// Everything here may be done twice, by two leaders at once, or by one from the past: times are compared by the database's clock, and what is gone is
// gone. All the same each batch begins by asking whether the term's trust window is open.
package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const (
	// every is the pause between two passes; after one that ended at its bound, soon.
	every = time.Minute
	soon  = time.Second
	// batches and stepTime bound each of the steps of a pass, so that none keeps the others waiting for ever.
	batches  = 50
	stepTime = 10 * time.Second
	// daysAhead is how many days have their partitions before they begin.
	daysAhead = 7
	// lookAgain is how long a day that can't be dropped is left alone after it was looked through.
	lookAgain = time.Hour
	// keepSessions, keepKeys and keepLetters: settled sessions are history for people, keys are repeated within minutes, taken and expired signals tell a
	// story for a while.
	keepSessions = 7 * 24 * time.Hour
	keepKeys     = 24 * time.Hour
	keepLetters  = 7 * 24 * time.Hour
	day          = 24 * time.Hour
)

// patience is how long each attempt to drop a day waits for its lock; others wait behind it.
var patience = []time.Duration{50 * time.Millisecond, 250 * time.Millisecond, 900 * time.Millisecond}

// Valid tells whether the term may act at this moment.
type Valid interface{ Valid() bool }

// Options of New. All are required.
type Options struct {
	Store      *store.DB
	Executions time.Duration // EXECUTION_RETENTION
	History    time.Duration // HISTORY_RETENTION
	Audit      time.Duration // AUDIT_RETENTION
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Retention does the work of a leader. One term at a time.
type Retention struct {
	o       Options
	metrics *metrics
	batches int                     // those that delete something, in one step
	looked  map[time.Time]time.Time // when a day was last looked through to its end, by the database's clock
	locked  bool                    // the last attempt to drop a day met a lock
}

// New returns a Retention.
func New(o Options) *Retention {
	return &Retention{o: o, metrics: newMetrics(o.Registerer), batches: batches}
}

// Work works until ctx ends.
func (r *Retention) Work(ctx context.Context, term Valid) {
	r.looked = map[time.Time]time.Time{} // another leader may have looked since
	defer r.metrics.ahead.Set(0)         // what it says is the leader's to say
	defer r.metrics.oldest.Set(0)
	failing := false
	for {
		next := every
		began := time.Now()
		more, err := r.pass(ctx, term)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.metrics.failed.Inc()
			if !failing {
				r.o.Log.Warn("a pass of retention failed; the next goes on", "error", err)
			}
			next = every / 6
		case failing:
			r.o.Log.Info("retention works again")
		}
		failing = err != nil
		r.metrics.seconds.Observe(time.Since(began).Seconds())
		if more {
			next = soon
		}
		if !sleep(ctx, next) {
			return
		}
	}
}

// errEnough ends a step of a pass at its bound.
var errEnough = errors.New("this step has done enough for one pass")

// run is one pass.
type run struct {
	r     *Retention
	term  Valid
	left  int
	until time.Time
	now   time.Time // the database's clock
	days  []time.Time
	own   []store.FlowRetention
}

// pass goes once over everything. It tells whether there is more to do at once.
func (r *Retention) pass(ctx context.Context, term Valid) (more bool, err error) {
	p := &run{r: r, term: term}
	if err := p.look(ctx); err != nil || !term.Valid() {
		return false, err
	}
	for _, step := range []func(context.Context) error{p.flows, p.wholeDays, p.orphans, p.history} {
		p.left, p.until = r.batches, time.Now().Add(stepTime)
		switch err := step(ctx); {
		case errors.Is(err, errEnough):
			more = true
		case err != nil:
			return false, err
		}
	}
	return more, nil
}

// look makes the partitions ahead, and reads what there is.
func (p *run) look(ctx context.Context) error {
	if !p.term.Valid() {
		return nil // the context ends in a moment
	}
	if made, err := p.r.o.Store.EnsurePartitions(ctx, daysAhead); err != nil {
		return err
	} else if made > 0 {
		p.r.o.Log.Info("partitions were made", "tables", made, "days_ahead", daysAhead)
	}
	var err error
	if p.days, p.now, err = p.r.o.Store.PartitionDays(ctx); err != nil {
		return err
	}
	p.observe()
	p.own, err = p.r.o.Store.FlowRetentions(ctx)
	return err
}

func (p *run) observe() {
	ahead, oldest := 0, 0.0
	today := p.now.UTC().Truncate(day)
	for _, d := range p.days {
		if d.After(today) {
			ahead++
		}
		oldest = max(oldest, today.Sub(d).Hours()/24)
	}
	p.r.metrics.ahead.Set(float64(ahead))
	p.r.metrics.oldest.Set(oldest)
}

// batch does one batch, and pauses for as long as it took.
func (p *run) batch(ctx context.Context, table string, do func() (int, error)) (int, error) {
	if p.left <= 0 || time.Now().After(p.until) || !p.term.Valid() {
		return 0, errEnough
	}
	began := time.Now()
	n, err := do()
	if err != nil {
		return 0, err
	}
	p.r.metrics.deleted.WithLabelValues(table).Add(float64(n))
	if n == 0 {
		return 0, nil
	}
	p.left--
	if !sleep(ctx, max(time.Since(began), time.Millisecond)) {
		return n, ctx.Err()
	}
	return n, nil
}

// delete deletes all that ended and is chosen. It tells how many.
func (p *run) delete(ctx context.Context, e store.Ended) (int, error) {
	total := 0
	for {
		var last protocol.ID
		n, err := p.batch(ctx, "executions", func() (n int, err error) {
			n, last, err = p.r.o.Store.DeleteEnded(ctx, e)
			return n, err
		})
		total += n
		if err != nil || n < store.DeleteBatch {
			return total, err
		}
		e.From = last // it is gone: the next batch begins behind it, and doesn't read what was left standing again
	}
}

// flows deletes what flows with a retention of their own keep no longer.
func (p *run) flows(ctx context.Context) error {
	for _, f := range p.own {
		// An execution's id is older than its end: what began too lately can't have ended long ago.
		n, err := p.delete(ctx, store.Ended{To: store.FirstID(p.now.Add(-f.Keep)), Flow: f.Flow, EndedLast: f.Keep})
		if n > 0 {
			p.r.o.Log.Info("executions past their flow's retention were deleted", "flow", f.Flow, "retention", f.Keep.String(), "executions", n)
		}
		if err != nil {
			return fmt.Errorf("flow %s: %w", f.Flow, err)
		}
	}
	return nil
}

// wholeDays drops the days that are past every retention, and empties those that are past the platform's as far as they may be.
func (p *run) wholeDays(ctx context.Context) error {
	longest := p.r.o.Executions
	flows := make([]protocol.ID, len(p.own))
	for i, f := range p.own {
		longest = max(longest, f.Keep)
		flows[i] = f.Flow
	}
	for _, d := range slices.Clone(p.days) {
		age := p.now.Sub(d.Add(day))
		// Today and yesterday are never dropped: clocks differ, and their ids are still being made.
		if age < p.r.o.Executions || p.now.Sub(p.r.looked[d]) < lookAgain {
			continue
		}
		if age >= longest && age >= day {
			got, err := p.drop(ctx, d, p.now.Add(-longest))
			if err != nil {
				return err
			}
			if got != store.DayInUse { // dropped; or locked, and the next pass tries again
				continue
			}
		}
		n, err := p.delete(ctx, store.Ended{From: store.FirstID(d), To: store.FirstID(d.Add(day)), NotFlows: flows, EndedLast: p.r.o.Executions})
		if n > 0 {
			p.r.o.Log.Info("executions past the retention were deleted from a day that can't be dropped yet", "day", d.Format(time.DateOnly), "executions", n)
		}
		if err != nil {
			return fmt.Errorf("day %s: %w", d.Format(time.DateOnly), err)
		}
		p.r.looked[d] = p.now
	}
	return nil
}

// drop drops a day, with growing patience.
func (p *run) drop(ctx context.Context, d, endedBefore time.Time) (store.Dropped, error) {
	for i, wait := range patience {
		if i > 0 && !sleep(ctx, 2*wait) {
			return store.DayLocked, ctx.Err()
		}
		if !p.term.Valid() {
			return store.DayLocked, errEnough
		}
		got, err := p.r.o.Store.DropPartitions(ctx, d, endedBefore, wait)
		if err != nil {
			return "", err
		}
		if got == store.DayDropped {
			p.r.metrics.dropped.Inc()
			p.r.locked = false
			p.days = slices.DeleteFunc(p.days, d.Equal) // what belonged to it goes in this pass
			p.r.o.Log.Info("the partitions of a day were dropped", "day", d.Format(time.DateOnly))
		}
		if got != store.DayLocked {
			return got, nil
		}
		p.r.metrics.locked.Inc()
	}
	if !p.r.locked {
		p.r.locked = true
		p.r.o.Log.Warn("the partitions of a day can't be dropped while somebody holds a lock on executions; it is tried again every minute (pg_locks and pg_stat_activity tell who)", "day", d.Format(time.DateOnly))
	}
	return store.DayLocked, nil
}

// orphans deletes what belongs to executions of days that were dropped.
func (p *run) orphans(ctx context.Context) error {
	for _, g := range gaps(p.days, p.now) {
		for {
			var rows map[string]int
			n, err := p.batch(ctx, "orphans", func() (int, error) {
				var err error
				rows, err = p.r.o.Store.DeleteOrphans(ctx, g.from, g.to)
				most := 0
				for _, n := range rows {
					most = max(most, n)
				}
				return most, err
			})
			if err != nil {
				return err
			}
			if n < store.DeleteBatch {
				break
			}
		}
	}
	return nil
}

// gap is a range of ids.
type gap struct{ from, to protocol.ID }

// gaps are the ranges of ids without a partition, up to two days ago. Days are in order.
func gaps(days []time.Time, now time.Time) []gap {
	var out []gap
	var from protocol.ID
	limit := now.UTC().Truncate(day).Add(-2 * day)
	for _, d := range days {
		if d.After(limit) {
			break
		}
		if to := store.FirstID(d); from.Less(to) {
			out = append(out, gap{from, to})
		}
		from = store.FirstID(d.Add(day))
	}
	if to := store.FirstID(limit); from.Less(to) {
		out = append(out, gap{from, to})
	}
	return out
}

// history deletes from tables that have bounds of their own.
func (p *run) history(ctx context.Context) error {
	for _, t := range []struct {
		table string
		keep  time.Duration
	}{
		{"idempotency_keys", keepKeys}, {"sessions", keepSessions}, {"letters", keepLetters},
		{"dead_letters", p.r.o.History}, {"decisions", p.r.o.History}, {"fires", p.r.o.History}, {"catches", p.r.o.History}, {"audit", p.r.o.Audit},
	} {
		for {
			n, err := p.batch(ctx, t.table, func() (int, error) { return p.r.o.Store.DeleteOld(ctx, t.table, t.keep) })
			if err != nil {
				return fmt.Errorf("%s: %w", t.table, err)
			}
			if n < store.DeleteBatch {
				break
			}
		}
	}
	return nil
}

// sleep tells whether ctx is still open after the pause.
func sleep(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Package rescue is the leader's part of the promise that an accepted execution always ends: it judges sessions by their lease, takes back what
// dead ones own, hands out what was committed and never handed out, wakes what is due, ends what is past its deadline,
// and moves dead letters from the broker into their table.
//
// Each is a loop of single steps (package protocol has the steps). Everything that they write is compare-and-set, so that two leaders, or one from
// the past, do no harm; all the same each step begins by asking whether the term's trust window is open.
package rescue

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

const (
	// step is how often the loops look.
	step = time.Second
	// horizon is how far the timers read ahead. Waits are longer than a second by construction, so one that is inserted behind a look is seen by the
	// next before it is due.
	horizon = 2 * time.Second
	// stepTimeout bounds one step.
	stepTimeout = 30 * time.Second
	// mailAge is how long letters of ends are left to the follow-up of whoever committed the end.
	mailAge = time.Second
	// deadOwners is how many dead sessions one step names.
	deadOwners = 200
)

// Valid tells whether the term may act at this moment.
type Valid interface{ Valid() bool }

// Options of New. All are required but DeadLetters.
type Options struct {
	Store     protocol.Store
	Publisher protocol.TaskPublisher
	Lease     time.Duration // WORKER_LEASE
	Clock     func() time.Duration
	Sender    *Sender
	// Follow takes what a commit leaves to be done. It never waits.
	Follow func(protocol.Outcome)
	// DeadLetters moves the broker's dead letters into their table, until ctx ends; nil: nobody does.
	DeadLetters func(ctx context.Context)
	// Requeue brings back dead letters that people have asked for, and tells how many; nil: nobody does.
	Requeue    func(ctx context.Context) (int, error)
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Rescue does the work of a leader. One term at a time.
type Rescue struct {
	o       Options
	metrics *metrics
}

// New returns a Rescue.
func New(o Options) *Rescue { return &Rescue{o: o, metrics: newMetrics(o.Registerer)} }

// Work works until ctx ends.
func (r *Rescue) Work(ctx context.Context, term Valid) {
	reconciler := &protocol.Reconciler{Store: r.o.Store, Publisher: r.o.Publisher}
	var loops sync.WaitGroup
	loops.Go(func() { r.judge(ctx, term) })
	loops.Go(func() { r.timers(ctx, term, reconciler) })
	loops.Go(func() { r.every(ctx, term, "take back", step, r.takeBack) })
	loops.Go(func() {
		r.every(ctx, term, "reconcile", step, func(ctx context.Context) error { return r.unhanded(ctx, reconciler) })
	})
	loops.Go(func() {
		r.every(ctx, term, "deadlines", step, func(ctx context.Context) error { return r.overdue(ctx, reconciler) })
	})
	loops.Go(func() {
		r.every(ctx, term, "letters", step, func(ctx context.Context) error { return r.mail(ctx, reconciler) })
	})
	loops.Go(func() {
		r.every(ctx, term, "remote tasks", step, func(ctx context.Context) error { return r.lost(ctx, reconciler) })
	})
	if r.o.Requeue != nil {
		loops.Go(func() {
			r.every(ctx, term, "requeue", step, func(ctx context.Context) error { _, err := r.o.Requeue(ctx); return err })
		})
	}
	if r.o.DeadLetters != nil {
		loops.Go(func() { r.o.DeadLetters(ctx) })
	}
	loops.Wait()
	r.metrics.alive.Set(0) // the next leader's to say
	r.metrics.deadOwners.Set(0)
}

// every does a step now and then again and again, sooner after a failure when the pause is long.
func (r *Rescue) every(ctx context.Context, term Valid, name string, pause time.Duration, do func(context.Context) error) {
	failing := false
	for {
		next := pause
		if term.Valid() {
			bounded, cancel := context.WithTimeout(ctx, stepTimeout)
			err := do(bounded)
			cancel()
			failing = r.note(ctx, name, err, failing)
			if err != nil {
				next = min(pause, 5*time.Second)
			}
		}
		if !sleep(ctx, next) {
			return
		}
	}
}

// note logs the first failure of a row of failures, and its end.
func (r *Rescue) note(ctx context.Context, name string, err error, failing bool) bool {
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.metrics.failed.WithLabelValues(name).Inc()
		if !failing {
			r.o.Log.Warn("a step of the leader failed; it goes on trying", "step", name, "error", err)
		}
	case failing:
		r.o.Log.Info("a step of the leader works again", "step", name)
	}
	return err != nil
}

// takeBack repeats recover for every dead session that still owns something.
func (r *Rescue) takeBack(ctx context.Context) error {
	sessions, err := r.o.Store.DeadOwners(ctx, deadOwners)
	if err != nil {
		return err
	}
	r.metrics.deadOwners.Set(float64(len(sessions)))
	return r.o.Sender.Send(ctx, sessions, time.Time{})
}

// unhanded publishes what was committed as queued and not handed out within two seconds.
func (r *Rescue) unhanded(ctx context.Context, rec *protocol.Reconciler) error {
	n, err := rec.Unhanded(ctx)
	if n > 0 {
		r.metrics.reconciled.Add(float64(n))
		r.o.Log.Warn("executions were queued and not handed out by whoever queued them: handed out now", "executions", n)
	}
	return err
}

// overdue ends what is past its deadline.
func (r *Rescue) overdue(ctx context.Context, rec *protocol.Reconciler) error {
	out, err := rec.Overdue(ctx)
	if err != nil {
		return err
	}
	r.metrics.overdue.Add(float64(len(out.News)))
	r.o.Follow(out)
	return nil
}

// mail acts on letters that ended executions have left and nobody has acted on for a second.
func (r *Rescue) mail(ctx context.Context, rec *protocol.Reconciler) error {
	out, found, err := rec.Mail(ctx, mailAge)
	if err != nil {
		return err
	}
	if found > 0 {
		r.metrics.mail.Add(float64(found))
		r.o.Log.Warn("ended executions had left letters that nobody acted on: done now", "executions", found)
	}
	out.HandOut = nil // Mail has handed them out
	r.o.Follow(out)
	return nil
}

// lost ends remote tasks that were leased again and again in vain.
func (r *Rescue) lost(ctx context.Context, rec *protocol.Reconciler) error {
	out, ended, err := rec.Lost(ctx)
	r.metrics.lost.Add(float64(ended))
	r.o.Follow(protocol.Outcome{News: out.News, Mail: out.Mail}) // Lost has handed them out
	return err
}

// LettersMoved counts dead letters that were moved into their table.
func (r *Rescue) LettersMoved(n int) { r.metrics.letters.Add(float64(n)) }

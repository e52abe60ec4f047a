// Package bulk is the leader's part of bulk jobs: it cancels, retries or replays the executions of a job one batch after the other, no faster than
// the job's rate.
//
// What becomes of an item is written in the transaction that does it, under the lock of the job's row. So nothing is kept here that a next
// leader would miss, an item is done once whoever leads, and a transaction that was not committed has done nothing. An unknown commit is looked at
// again by the next step: it begins where the row says.
package bulk

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const (
	look      = 500 * time.Millisecond // how often for new jobs, when there is nothing to do
	tick      = 100 * time.Millisecond // between steps
	batch     = 250                    // items of one transaction
	replays   = 20                     // of replays: each is made from what its execution recorded
	stepBound = 30 * time.Second
	keep      = 7 * 24 * time.Hour // finished jobs
	purge     = time.Hour
)

// Store is what the leader needs of the database.
type Store interface {
	OpenBulk(ctx context.Context) ([]store.Bulk, error)
	BulkStep(ctx context.Context, id protocol.ID, n int, do func(t *store.BulkTx, executions []protocol.ID) ([]store.BulkItem, error)) (store.Bulk, error)
	BulkItems(ctx context.Context, job protocol.ID, after int, outcome string, limit int) ([]store.BulkItem, error)
	PurgeBulk(ctx context.Context, age time.Duration) (int, error)
}

// Valid tells whether the term may act at this moment.
type Valid interface{ Valid() bool }

// Options of New. All are required.
type Options struct {
	Store Store
	// Replay makes the execution that repeats one; why says why there can't be any.
	Replay     func(ctx context.Context, execution protocol.ID, client string) (r *store.Replay, why string, err error)
	Follow     func(protocol.Outcome) // takes what a commit leaves to be done; never waits
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Bulk works off jobs. One term at a time.
type Bulk struct {
	o       Options
	metrics *metrics
	allowed map[protocol.ID]*allowance
}

// allowance is how many items of a job may be done now.
type allowance struct {
	items float64
	at    time.Time
}

// take gives how many may be done by now, no more than a second's worth and no more than most, and takes them.
func (a *allowance) take(now time.Time, rate, most int) int {
	a.items = min(a.items+now.Sub(a.at).Seconds()*float64(rate), float64(rate))
	a.at = now
	n := min(int(a.items), most)
	a.items -= float64(n)
	return n
}

// New returns one that has nothing to do yet.
func New(o Options) *Bulk { return &Bulk{o: o, metrics: newMetrics(o.Registerer)} }

// Work works until ctx ends.
func (b *Bulk) Work(ctx context.Context, term Valid) {
	b.allowed = map[protocol.ID]*allowance{}
	failing := false
	var purged time.Time
	for ctx.Err() == nil {
		pause := look
		if term.Valid() {
			bounded, cancel := context.WithTimeout(ctx, stepBound)
			open, err := b.step(bounded, term)
			if time.Since(purged) > purge && err == nil {
				purged = time.Now()
				_, err = b.o.Store.PurgeBulk(bounded, keep)
			}
			cancel()
			if err != nil && ctx.Err() == nil && !failing {
				b.o.Log.Warn("bulk jobs can't be worked on now; the next step tries again", "error", err)
			}
			failing = err != nil
			if open && err == nil {
				pause = tick
			}
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// step does what is allowed now of every open job. It tells whether there is one.
func (b *Bulk) step(ctx context.Context, term Valid) (bool, error) {
	jobs, err := b.o.Store.OpenBulk(ctx)
	if err != nil {
		return false, err
	}
	b.metrics.open.Set(float64(len(jobs)))
	known := make(map[protocol.ID]bool, len(jobs))
	for i := range jobs {
		job := &jobs[i]
		known[job.ID] = true
		a := b.allowed[job.ID]
		if a == nil {
			a = &allowance{at: time.Now().Add(-tick)}
			b.allowed[job.ID] = a
		}
		most := batch
		if job.Action == store.BulkReplay {
			most = replays
		}
		n := a.take(time.Now(), job.Rate, most)
		if n == 0 && job.StoppedBy == "" || !term.Valid() {
			continue
		}
		if err := b.work(ctx, job, n); err != nil {
			return true, err
		}
	}
	for id := range b.allowed {
		if !known[id] {
			delete(b.allowed, id)
		}
	}
	return len(jobs) > 0, nil
}

// work does n items of a job.
func (b *Bulk) work(ctx context.Context, job *store.Bulk, n int) error {
	do, err := b.action(ctx, job, n)
	if err != nil {
		return err
	}
	var out protocol.Outcome
	after, err := b.o.Store.BulkStep(ctx, job.ID, n, func(t *store.BulkTx, executions []protocol.ID) ([]store.BulkItem, error) {
		var items []store.BulkItem
		var err error
		out, items, err = do(t, executions)
		return items, err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	b.o.Follow(out)
	for what, n := range map[string]int{"done": after.Done - job.Done, "failed": after.Failed - job.Failed, "skipped": after.Skipped - job.Skipped} {
		b.metrics.items.WithLabelValues(job.Action, what).Add(float64(max(0, n)))
	}
	if !after.FinishedAt.IsZero() {
		b.o.Log.Info("a bulk job is finished", "job", job.ID.String(), "action", job.Action, "by", job.AskedBy, "total", after.Total, "done", after.Done, "failed", after.Failed, "skipped", after.Skipped, "stopped_by", after.StoppedBy)
	}
	return nil
}

// step of an action: what it does to executions in a transaction.
type step func(t *store.BulkTx, executions []protocol.ID) (protocol.Outcome, []store.BulkItem, error)

func (b *Bulk) action(ctx context.Context, job *store.Bulk, n int) (step, error) {
	switch job.Action {
	case store.BulkCancel:
		return steered(func(t *store.BulkTx, ids []protocol.ID) (protocol.Outcome, []protocol.Verdict, error) {
			return protocol.CancelEach(ctx, t, ids, protocol.Cancelled)
		}), nil
	case store.BulkRetry:
		return steered(func(t *store.BulkTx, ids []protocol.ID) (protocol.Outcome, []protocol.Verdict, error) {
			return protocol.Retry(ctx, t, ids)
		}), nil
	}
	return b.replay(ctx, job, n)
}

// steered makes a step of a script.
func steered(script func(*store.BulkTx, []protocol.ID) (protocol.Outcome, []protocol.Verdict, error)) step {
	return func(t *store.BulkTx, executions []protocol.ID) (protocol.Outcome, []store.BulkItem, error) {
		out, verdicts, err := script(t, executions)
		if err != nil {
			return out, nil, err
		}
		items := make([]store.BulkItem, len(verdicts)) // a job has each execution once, so there is one for each
		for i, v := range verdicts {
			items[i] = itemOf(v)
		}
		return out, items, nil
	}
}

func itemOf(v protocol.Verdict) store.BulkItem {
	switch {
	case v.Done:
		return store.BulkItem{Outcome: "done"}
	case v.State == "":
		return store.BulkItem{Outcome: "failed", Reason: v.Reason}
	}
	return store.BulkItem{Outcome: "skipped", Reason: v.Reason}
}

// replay makes the replays of the next items before the transaction that stores them: they take reading, and compiling.
func (b *Bulk) replay(ctx context.Context, job *store.Bulk, n int) (step, error) {
	next, err := b.o.Store.BulkItems(ctx, job.ID, job.Position(), "", n)
	if err != nil {
		return nil, err
	}
	type made struct {
		r   *store.Replay
		why string
	}
	ready := make(map[protocol.ID]made, len(next))
	if job.StoppedBy == "" {
		for _, it := range next {
			r, why, err := b.o.Replay(ctx, it.Execution, job.AskedBy)
			if err != nil {
				return nil, err
			}
			ready[it.Execution] = made{r, why}
		}
	}
	return func(t *store.BulkTx, executions []protocol.ID) (out protocol.Outcome, items []store.BulkItem, err error) {
		for _, id := range executions {
			m, ok := ready[id]
			switch {
			case !ok: // another leader went on meanwhile
				return out, nil, errMoved
			case m.r == nil:
				items = append(items, store.BulkItem{Outcome: "failed", Reason: m.why})
			default:
				if err := t.InsertReplay(ctx, m.r); err != nil {
					return out, nil, err
				}
				items = append(items, store.BulkItem{Outcome: "done", Result: m.r.ID})
				out.HandOut = append(out.HandOut, m.r.ID)
			}
		}
		return out, items, nil
	}, nil
}

var errMoved = errors.New("the job has moved on meanwhile: another leader works on it")

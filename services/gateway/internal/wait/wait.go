// Package wait is ?wait: requests that stay until their execution has ended.
//
// A waiter is registered by id before the execution is committed, so that no end can come before it. It is woken by the live event of the end; without Redis, by one
// SELECT for all waiters together every 100 ms. That SELECT also goes on slowly beside Redis, since a stream may lose events without saying
// so. Woken or not, the caller reads the row on the primary: an event is news, the row is the truth.
package wait

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flowplatform/services/internal/protocol"
)

// Finals tells which of the executions have ended.
type Finals func(ctx context.Context, ids []protocol.ID) (map[protocol.ID]protocol.State, error)

// How often the row is asked: without live events, and as a net beside them.
const (
	askEvery = 100 * time.Millisecond
	netEvery = 2 * time.Second
)

// Max is the longest that a request may wait.
const Max = 60 * time.Second

// MaxWaiters bounds the requests that wait at once in this process.
const MaxWaiters = 20_000

// Registry of those who wait. Safe for concurrent use.
type Registry struct {
	finals Finals
	log    *slog.Logger
	live   atomic.Bool // events come

	mu      sync.Mutex
	waiters map[protocol.ID][]*Waiter

	stop    context.CancelFunc
	stopped chan struct{}
	done    chan struct{}
}

// Waiter is one request that waits.
type Waiter struct {
	r     *Registry
	id    protocol.ID
	ended chan struct{}
	since time.Time
}

// NewRegistry makes one that works until Stop.
func NewRegistry(finals Finals, log *slog.Logger) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{finals: finals, log: log, waiters: map[protocol.ID][]*Waiter{}, stop: cancel, stopped: make(chan struct{}), done: make(chan struct{})}
	go r.run(ctx)
	return r
}

// Add registers somebody who waits for an execution; call Close in the end. false: too many wait already.
func (r *Registry) Add(id protocol.ID) (*Waiter, bool) {
	w := &Waiter{r: r, id: id, ended: make(chan struct{}), since: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiters) >= MaxWaiters {
		return nil, false
	}
	r.waiters[id] = append(r.waiters[id], w)
	return w, true
}

// Len is how many executions are waited for.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiters)
}

// Close ends the wait.
func (w *Waiter) Close() {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	list := w.r.waiters[w.id]
	if i := slices.Index(list, w); i >= 0 {
		if list = slices.Delete(list, i, i+1); len(list) == 0 {
			delete(w.r.waiters, w.id)
		} else {
			w.r.waiters[w.id] = list
		}
	}
}

// Wait waits until the execution has ended, the time is over, ctx ends, or the process stops.
func (w *Waiter) Wait(ctx context.Context, most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-w.ended:
	case <-t.C:
	case <-ctx.Done():
	case <-w.r.stopped:
	}
}

// Ended is closed when the execution has ended.
func (w *Waiter) Ended() <-chan struct{} { return w.ended }

// Stopped is closed when the process stops.
func (w *Waiter) Stopped() <-chan struct{} { return w.r.stopped }

// Ended wakes those who wait for an execution: it has a final state.
func (r *Registry) Ended(id protocol.ID) {
	r.mu.Lock()
	list := r.waiters[id]
	delete(r.waiters, id)
	r.mu.Unlock()
	for _, w := range list {
		close(w.ended)
	}
}

// Live says whether events of all that ends come in now.
func (r *Registry) Live(on bool) { r.live.Store(on) }

// Stop wakes everybody.
func (r *Registry) Stop(ctx context.Context) error {
	close(r.stopped)
	r.stop()
	select {
	case <-r.done:
	case <-ctx.Done():
	}
	return nil
}

func (r *Registry) run(ctx context.Context) {
	defer close(r.done)
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var failed bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ids := r.toAsk()
		if len(ids) == 0 {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
		ended, err := r.finals(bounded, ids)
		cancel()
		if err != nil {
			if !failed && ctx.Err() == nil {
				r.log.Warn("executions that are waited for can't be looked at", "executions", len(ids), "error", err)
			}
			failed = true
			continue
		}
		failed = false
		for id := range ended {
			r.Ended(id)
		}
	}
}

// toAsk lists what is waited for: all of it without events, else only what has been waited for a while.
func (r *Registry) toAsk() []protocol.ID {
	live, now := r.live.Load(), time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []protocol.ID
	for id, list := range r.waiters {
		if !live || now.Sub(list[0].since) > netEvery {
			ids = append(ids, id)
			if live {
				list[0].since = now // asked again in netEvery
			}
		}
	}
	return ids
}

// Package reply brings what a flow answers (flow.respond) to the request that waits for it, in whichever gateway that is.
//
// The report that a worker's answer stands in is the truth: one SELECT for all requests that wait reads what was reported since it last looked. A live event
// of an execution makes it look at once; without Redis it looks every 100 ms, and beside Redis every 2 s, since a stream may lose events without saying so.
package reply

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Reports reads what executions have reported since, in order.
type Reports func(ctx context.Context, since []store.ReportsAfter) ([]protocol.StoredReport, error)

// How often reports are looked for: without live events, and as a net beside them.
const (
	askEvery = 100 * time.Millisecond
	netEvery = 2 * time.Second
)

// maxAsked bounds one SELECT; the others have their turn in the next.
const maxAsked = 2000

// Registry of those who wait. Safe for concurrent use.
type Registry struct {
	reports Reports
	log     *slog.Logger
	live    atomic.Bool  // events come
	waiting atomic.Int64 // spares events of others a lock
	kick    chan struct{}

	mu      sync.Mutex
	waiters map[protocol.ID][]*Waiter

	stop context.CancelFunc
	done chan struct{}
}

// Waiter is one request that waits.
type Waiter struct {
	r       *Registry
	id      protocol.ID
	nodes   []string
	known   store.ReportsAfter
	asked   time.Time
	changed bool
	done    chan struct{}
	answer  Answer
}

// NewRegistry makes one that works until Stop.
func NewRegistry(reports Reports, log *slog.Logger) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{reports: reports, log: log, kick: make(chan struct{}, 1), waiters: map[protocol.ID][]*Waiter{}, stop: cancel, done: make(chan struct{})}
	go r.run(ctx)
	return r
}

// Add registers somebody who waits for the answer that one of the nodes gives; call Close in the end.
func (r *Registry) Add(id protocol.ID, nodes []string) *Waiter {
	w := &Waiter{r: r, id: id, nodes: nodes, known: store.ReportsAfter{Execution: id}, asked: time.Now(), done: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiters[id] = append(r.waiters[id], w)
	r.waiting.Add(1)
	return w
}

// Len is how many requests wait.
func (r *Registry) Len() int { return int(r.waiting.Load()) }

// Close ends the wait.
func (w *Waiter) Close() {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	list := w.r.waiters[w.id]
	i := slices.Index(list, w)
	if i < 0 {
		return
	}
	w.r.waiting.Add(-1)
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(w.r.waiters, w.id)
	} else {
		w.r.waiters[w.id] = list
	}
}

// Done is closed when the flow has answered.
func (w *Waiter) Done() <-chan struct{} { return w.done }

// Answer is what the flow has answered; read it after Done.
func (w *Waiter) Answer() Answer { return w.answer }

// Changed says that an execution may have reported something.
func (r *Registry) Changed(id protocol.ID) {
	if r.waiting.Load() == 0 {
		return
	}
	r.mu.Lock()
	list := r.waiters[id]
	for _, w := range list {
		w.changed = true
	}
	r.mu.Unlock()
	if len(list) > 0 {
		select {
		case r.kick <- struct{}{}:
		default:
		}
	}
}

// Live says whether events of all that is reported come in now.
func (r *Registry) Live(on bool) { r.live.Store(on) }

// Stop ends the looking; who waits has a time limit of their own.
func (r *Registry) Stop(ctx context.Context) error {
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
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.kick:
		}
		since := r.toAsk(time.Now())
		if len(since) == 0 {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
		reports, err := r.reports(bounded, since)
		cancel()
		if err != nil {
			if !failed && ctx.Err() == nil {
				r.log.Warn("the answers of flows can't be looked for", "executions", len(since), "error", err)
			}
			failed = true
			continue
		}
		failed = false
		r.take(reports)
	}
}

// toAsk lists what is looked for now: what has changed, and what was not looked at for a while.
func (r *Registry) toAsk(now time.Time) []store.ReportsAfter {
	every := askEvery
	if r.live.Load() {
		every = netEvery
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []store.ReportsAfter
	for _, list := range r.waiters {
		first := list[0]
		if !first.changed && now.Sub(first.asked) < every-askEvery/2 {
			continue
		}
		known := first.known
		for _, w := range list {
			w.changed, w.asked = false, now
			if older(w.known, known) {
				known = w.known
			}
		}
		if out = append(out, known); len(out) == maxAsked {
			break
		}
	}
	return out
}

func older(a, b store.ReportsAfter) bool {
	return a.Attempt < b.Attempt || a.Attempt == b.Attempt && a.Seq < b.Seq
}

// take gives reports to those who wait for them.
func (r *Registry) take(reports []protocol.StoredReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range reports {
		at := store.ReportsAfter{Execution: s.Execution, Attempt: s.Attempt, Seq: s.Seq}
		for _, w := range r.waiters[s.Execution] {
			if !older(w.known, at) {
				continue
			}
			w.known = at
			select {
			case <-w.done:
				continue
			default:
			}
			answer, ok, err := Find([]json.RawMessage{s.Events}, w.nodes)
			if err != nil {
				r.log.Warn("a report can't be read", "execution", s.Execution.String(), "error", err)
			}
			if ok {
				w.answer = answer
				close(w.done)
			}
		}
	}
}

// Answer is what the node that answered gave: its output, or where that is.
type Answer struct {
	Output any
	Ref    protocol.Value // Ref.Ref is "" when it is in Output
}

// Find looks for the first answer that one of the nodes gave. Large outputs of other steps are left where they are.
func Find(lists []json.RawMessage, nodes []string) (Answer, bool, error) {
	for _, list := range lists {
		var events []struct {
			Type   string          `json:"t"`
			Node   string          `json:"n"`
			Output json.RawMessage `json:"o"`
			Ref    *protocol.Value `json:"r"`
		}
		if err := json.Unmarshal(list, &events); err != nil {
			return Answer{}, false, fmt.Errorf("recorded steps: %w", err)
		}
		for _, e := range events {
			switch {
			case e.Type != flow.EventSucceeded || !slices.Contains(nodes, e.Node):
				continue
			case e.Ref != nil:
				return Answer{Ref: *e.Ref}, true, nil
			case len(e.Output) == 0:
				return Answer{}, true, nil
			}
			v, err := flow.DecodeValue(e.Output)
			return Answer{Output: v}, err == nil, err
		}
	}
	return Answer{}, false, nil
}

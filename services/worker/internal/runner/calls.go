package runner

import (
	"context"
	"errors"
	"sync"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// errCut is the cause of contexts that were ended because the run asked for it.
var errCut = errors.New("the call was cut")

// call is one effect, waiting for its goroutine or in flight.
type call struct {
	t     *run
	cmd   flow.Command
	owner protocol.ID // the session under which it may act

	state  callState               // guarded by effects.mu
	cancel context.CancelCauseFunc // set while it is in flight; guarded by effects.mu
}

type callState uint8

const (
	callQueued callState = iota
	callBegun
	callCut // before it began: nobody executes it any more
)

// effects bounds how many effects are in flight on this worker (MAX_CONCURRENT_NODES).
type effects struct {
	r   *Runner
	max int

	mu      sync.Mutex
	running int
	queue   []*call
}

// call hands an effect over; the window is looked at when it begins, last thing before it.
func (t *run) call(cmd flow.Command) {
	c := &call{t: t, cmd: cmd, owner: t.machine.Owner()}
	if t.calls == nil {
		t.calls = map[flow.Key]*call{}
	}
	t.calls[cmd.Key] = c
	t.r.effects.begin(c)
}

func (e *effects) begin(c *call) {
	e.mu.Lock()
	if e.running >= e.max {
		e.queue = append(e.queue, c)
		e.mu.Unlock()
		return
	}
	e.running++
	e.mu.Unlock()
	go e.loop(c)
}

// loop executes the call and then those that wait, so that a goroutine per waiting call isn't needed.
func (e *effects) loop(c *call) {
	for c != nil {
		e.do(c)
		c = e.next()
	}
}

// step gives up the place of a call that waits for memory, to the next that is queued: the run that may go beyond the budget may be among those.
func (e *effects) step() {
	if c := e.next(); c != nil {
		go e.loop(c)
	}
}

// back takes a place again, one too many if need be: the next call that ends makes up for it.
func (e *effects) back() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running++
}

// next gives the next call for a place that is free, or gives the place up.
func (e *effects) next() *call {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running > e.max {
		e.running--
		return nil
	}
	for len(e.queue) > 0 {
		c := e.queue[0]
		e.queue[0] = nil
		e.queue = e.queue[1:]
		if c.state == callQueued {
			return c
		}
	}
	e.queue = nil
	e.running--
	return nil
}

// cut ends a call. It is true when the call had not begun: then it never will, and the caller must tell the run so.
func (e *effects) cut(c *call) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case c.state == callQueued:
		c.state = callCut
		return true
	case c.cancel != nil:
		c.cancel(errCut)
	}
	return false
}

// do executes a call and tells its run what it came to: a result, or Cut.
func (e *effects) do(c *call) {
	r, t, key := e.r, c.t, c.cmd.Key
	limit := r.limit(c.cmd)
	window, open := r.window.Enter(c.owner)
	if !open {
		r.metrics.held.Inc()
		if e.settle(c) {
			t.tell(news{kind: newsCut, key: key}, true)
		}
		return
	}
	cuttable, cancel := context.WithCancelCause(window)
	defer cancel(nil)
	ctx, timeout := context.WithCancelCause(cuttable)
	defer timeout(nil)
	timer := time.AfterFunc(limit, func() { timeout(context.DeadlineExceeded) })
	defer timer.Stop()
	memory := func(ctx context.Context, n int) error { // the node isn't to blame for the wait: its time begins anew
		if r.memory.tryTake(t, n) {
			return nil
		}
		timer.Stop()
		defer timer.Reset(limit)
		e.step()
		defer e.back()
		return r.memory.take(ctx, t, n)
	}
	e.mu.Lock()
	if c.state != callQueued {
		e.mu.Unlock()
		return
	}
	c.state, c.cancel = callBegun, cancel
	e.mu.Unlock()

	r.metrics.inflight.Inc()
	started := r.now()
	// The window is looked at once more, last thing before the effect: what stands above may have taken any time on a machine under load.
	if ctx.Err() == nil {
		_, open = r.window.Enter(c.owner)
	}
	if !open || ctx.Err() != nil {
		r.metrics.held.Inc()
		r.metrics.inflight.Dec()
		t.tell(news{kind: newsCut, key: key}, true)
		return
	}
	result, err := r.execute(ctx, t, c.cmd, memory)
	r.metrics.inflight.Dec()
	if err != nil && cuttable.Err() != nil { // the window's end or the run's wish: the outcome is unknown
		r.metrics.steps.WithLabelValues(c.cmd.Type, "cut").Inc()
		t.tell(news{kind: newsCut, key: key}, true)
		return
	}
	if err != nil && ctx.Err() != nil {
		err = timeoutError(limit)
	}
	if err == nil && !t.inline(result.Output) {
		t.deliver(c.cmd, started, result, c.owner)
		return
	}
	t.tell(news{kind: newsCompleted, key: key, event: r.event(c.cmd, started, result, err)}, true)
}

// settle takes a call that has not begun out of the hands of cut. It is false when cut was first.
func (e *effects) settle(c *call) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.state != callQueued {
		return false
	}
	c.state = callBegun
	return true
}

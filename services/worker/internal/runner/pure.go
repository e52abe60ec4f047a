package runner

import (
	"context"
	"sync"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// compute executes one pure node here and now, and tells the machine.
func (t *run) compute(cmd flow.Command) {
	limit := t.r.limit(cmd)
	ctx := &lazyContext{deadline: time.Now().Add(limit)}
	t.mu.Lock()
	t.interrupt = ctx.cancel
	waiting := len(t.queue) > 0
	t.mu.Unlock()
	if waiting { // came between: it may be a cancel
		t.mu.Lock()
		t.interrupt = nil
		t.mu.Unlock()
		t.pure = append([]flow.Command{cmd}, t.pure...)
		return
	}
	started := t.r.now()
	result, err := t.r.execute(ctx, t, cmd, nil)
	t.mu.Lock()
	t.interrupt = nil
	t.mu.Unlock()
	if err != nil && ctx.cancelled() {
		t.post(news{kind: newsCut, key: cmd.Key}) // behind the cancel that interrupted it
		return
	}
	if err != nil && ctx.Err() != nil {
		err = timeoutError(limit)
	}
	ctx.release()
	if err == nil && !t.inline(result.Output) { // it is stored first, and nobody is kept waiting for that
		owner := t.machine.Owner()
		go t.deliver(cmd, started, result, owner)
		return
	}
	t.perform(t.completed(cmd.Key, t.r.event(cmd, started, result, err), nil))
}

// lazyContext is a context with a deadline that costs nothing until somebody asks for Done: most pure nodes never do.
type lazyContext struct {
	deadline time.Time

	mu    sync.Mutex
	done  chan struct{}
	timer *time.Timer
	err   error
}

var _ context.Context = (*lazyContext)(nil)

// Deadline is that of the node's timeout.
func (c *lazyContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Value knows none.
func (c *lazyContext) Value(any) any { return nil }

// Done makes the channel, and a timer, when it is asked for first.
func (c *lazyContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		} else {
			c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.end(context.DeadlineExceeded) })
		}
	}
	return c.done
}

// Err looks at the clock too, for nodes that ask now and then.
func (c *lazyContext) Err() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err == nil && !time.Now().Before(c.deadline) {
		c.end(context.DeadlineExceeded)
		return context.DeadlineExceeded
	}
	return err
}

func (c *lazyContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (c *lazyContext) cancel() { c.end(context.Canceled) }

func (c *lazyContext) cancelled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == context.Canceled
}

func (c *lazyContext) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
}

func timeoutError(limit time.Duration) error {
	return &node.Error{Code: "timeout", Retryable: true, Message: "the step took longer than its timeout of " + limit.String() + ": raise the node's timeout, or look at what it waits for"}
}

// Package group is group commit: calls that wait while a transaction runs go together in the next one, and each gets its own answer.
//
// One call costs one transaction; a thousand calls at once cost a few. Nothing is answered before the batch's function has returned, so
// an answer means what the function's return means (here: after COMMIT). A batch that fails gives its error to every call in it.
package group

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrClosed is the answer to calls after Close.
var ErrClosed = errors.New("this process is stopping")

// Config of a Group.
type Config[Q, A any] struct {
	// Run does a batch: one answer for each question, in their order. It may run Parallel times at once.
	Run func(ctx context.Context, batch []Q) ([]A, error)
	// Weigh tells how much of Max a question takes; nil: 1 each.
	Weigh func(Q) int
	// Max is the most that one batch takes (a question that weighs more goes alone).
	Max int
	// Parallel is how many batches may run at once.
	Parallel int
	// Window is how long a batch waits for company before it runs.
	Window time.Duration
	// Eager lets the first call after a pause go without waiting: at low load the window is only delay.
	Eager bool
	// Timeout bounds one batch.
	Timeout time.Duration
	// Observe hears of every batch; nil: nobody does.
	Observe func(size int, took time.Duration, err error)
}

// Group gathers calls into batches. Safe for concurrent use.
type Group[Q, A any] struct {
	cfg Config[Q, A]

	mu        sync.Mutex
	waiting   []*call[Q, A]
	running   int
	gathering bool
	closed    bool
	last      time.Time // end of the last batch
	done      sync.WaitGroup
}

type call[Q, A any] struct {
	ctx    context.Context
	q      Q
	answer A
	err    error
	done   chan struct{}
}

// New returns a group that is ready.
func New[Q, A any](cfg Config[Q, A]) *Group[Q, A] {
	if cfg.Parallel < 1 {
		cfg.Parallel = 1
	}
	if cfg.Max < 1 {
		cfg.Max = 1
	}
	return &Group[Q, A]{cfg: cfg}
}

// Do puts a question into the next batch and waits for its answer. When ctx ends first the call returns, though the batch may still run with it.
func (g *Group[Q, A]) Do(ctx context.Context, q Q) (A, error) {
	c := &call[Q, A]{ctx: ctx, q: q, done: make(chan struct{})}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return c.answer, ErrClosed
	}
	g.waiting = append(g.waiting, c)
	g.startLocked()
	g.mu.Unlock()
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
		var none A
		return none, ctx.Err()
	}
}

// Close refuses new calls and waits until every call that was taken has its answer.
func (g *Group[Q, A]) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.done.Wait()
}

// startLocked starts a worker when one may gather: only one does at a time, or two would split what belongs together.
func (g *Group[Q, A]) startLocked() {
	if len(g.waiting) == 0 || g.gathering || g.running >= g.cfg.Parallel {
		return
	}
	eager := g.cfg.Eager && g.running == 0 && time.Since(g.last) > 10*g.cfg.Window
	g.gathering = true
	g.running++
	g.done.Add(1)
	go g.work(eager)
}

func (g *Group[Q, A]) work(eager bool) {
	defer g.done.Done()
	for {
		if !eager && g.cfg.Window > 0 {
			time.Sleep(g.cfg.Window)
		}
		eager = false
		g.mu.Lock()
		batch := g.takeLocked()
		g.gathering = false
		g.startLocked()
		g.mu.Unlock()
		if len(batch) > 0 {
			g.run(batch)
		}
		g.mu.Lock()
		g.last = time.Now()
		if len(g.waiting) == 0 || g.gathering {
			g.running--
			g.mu.Unlock()
			return
		}
		g.gathering = true
		g.mu.Unlock()
	}
}

// takeLocked takes what fits into one batch, without those whose callers have gone.
func (g *Group[Q, A]) takeLocked() []*call[Q, A] {
	batch := make([]*call[Q, A], 0, len(g.waiting))
	weight, n := 0, 0
	for _, c := range g.waiting {
		w := 1
		if g.cfg.Weigh != nil {
			w = g.cfg.Weigh(c.q)
		}
		if len(batch) > 0 && weight+w > g.cfg.Max {
			break
		}
		n++
		if c.ctx.Err() != nil {
			continue
		}
		weight += w
		batch = append(batch, c)
	}
	rest := copy(g.waiting, g.waiting[n:])
	clear(g.waiting[rest:])
	g.waiting = g.waiting[:rest]
	return batch
}

func (g *Group[Q, A]) run(batch []*call[Q, A]) {
	questions := make([]Q, len(batch))
	for i, c := range batch {
		questions[i] = c.q
	}
	// Of the batch, not of any caller: one that goes away must not take the others' transaction along.
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.Timeout)
	begin := time.Now()
	answers, err := g.cfg.Run(ctx, questions)
	cancel()
	if err == nil && len(answers) != len(batch) {
		err = fmt.Errorf("group: %d answers to %d questions", len(answers), len(batch))
	}
	if g.cfg.Observe != nil {
		g.cfg.Observe(len(batch), time.Since(begin), err)
	}
	for i, c := range batch {
		if c.err = err; err == nil {
			c.answer = answers[i]
		}
		close(c.done)
	}
}

package runner

import (
	"context"
	"slices"
	"sync"
)

// memory is a budget of bytes for what nodes read in and runs then hold: without one, a thousand calls whose answers come together are a thousand answers in memory.
// What a run has taken, and not given back, it holds until it ends. When nothing is left, one run at a time may go beyond: it ends, and gives back what it held. So nobody waits for ever.
type memory struct {
	mu      sync.Mutex
	free    int
	over    *run // goes beyond the budget
	waiters []*memoryWait
}

type memoryWait struct {
	t       *run
	n       int
	granted chan struct{}
}

// tryTake takes n bytes for a run if there is no need to wait. A negative n gives back what was taken too much.
func (m *memory) tryTake(t *run, n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case n <= 0:
		m.hold(t, max(n, -t.held))
		if m.over == t && m.free >= 0 {
			m.over = nil
		}
		m.serve()
	case m.over == t || len(m.waiters) == 0 && m.free >= n:
		m.hold(t, n)
	default:
		return false
	}
	return true
}

// take is tryTake that waits.
func (m *memory) take(ctx context.Context, t *run, n int) error {
	if m.tryTake(t, n) {
		return nil
	}
	m.mu.Lock()
	w := &memoryWait{t, n, make(chan struct{})}
	m.waiters = append(m.waiters, w)
	m.serve()
	m.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.waiters, w); i >= 0 {
		m.waiters = slices.Delete(m.waiters, i, i+1)
	}
	m.serve() // others may have waited behind it
	return ctx.Err()
}

func (m *memory) hold(t *run, n int) {
	m.free -= n
	t.held += n
}

// serve lets in those who wait, in order; where there is no room, the first may go beyond if nobody else does.
func (m *memory) serve() {
	for len(m.waiters) > 0 {
		w := m.waiters[0]
		if m.free < w.n {
			if m.over != nil && m.over != w.t {
				return
			}
			m.over = w.t
		}
		m.hold(w.t, w.n)
		close(w.granted)
		m.waiters[0] = nil // the array lives on, and would keep the run with all that it holds
		m.waiters = m.waiters[1:]
	}
}

// leave gives back what a run held.
func (m *memory) leave(t *run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += t.held
	t.held = 0
	if m.over == t {
		m.over = nil
	}
	m.serve()
}

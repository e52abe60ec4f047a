package app

import (
	"context"
	"maps"
	"sync"
	"time"

	"flowplatform/services/internal/live"
)

// seen knows when the queues of remote workers were polled last: here, and with Redis at the other gateways too. For people; never on the primary.
type seen struct {
	live  *live.Client // nil: only here
	queue chan string
	end   chan struct{}
	done  chan struct{}

	mu    sync.Mutex
	polls map[string]time.Time
}

const (
	seenEvery = 5 * time.Second // a queue is written at most so often
	maxSeen   = 10_000          // queues that are remembered here
)

func newSeen(c *live.Client) *seen {
	s := &seen{live: c, queue: make(chan string, 100), end: make(chan struct{}), done: make(chan struct{}), polls: map[string]time.Time{}}
	go s.run()
	return s
}

// note never waits.
func (s *seen) note(queue string) {
	now := time.Now().UTC()
	s.mu.Lock()
	fresh := now.Sub(s.polls[queue]) < seenEvery
	if !fresh {
		if len(s.polls) >= maxSeen {
			clear(s.polls)
		}
		s.polls[queue] = now
	}
	s.mu.Unlock()
	if fresh || s.live == nil {
		return
	}
	select {
	case s.queue <- queue:
	default: // Redis hangs
	}
}

func (s *seen) run() {
	defer close(s.done)
	for {
		select {
		case <-s.end:
			return
		case q := <-s.queue:
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			_ = s.live.Polled(ctx, q, time.Now()) // the next poll says it again
			cancel()
		}
	}
}

func (s *seen) last(ctx context.Context) map[string]time.Time {
	s.mu.Lock()
	out := maps.Clone(s.polls)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	all, err := s.live.Polls(ctx)
	if err != nil {
		return out
	}
	for q, at := range all {
		if at.After(out[q]) {
			out[q] = at
		}
	}
	return out
}

func (s *seen) stop(context.Context) error {
	close(s.end)
	<-s.done
	return nil
}

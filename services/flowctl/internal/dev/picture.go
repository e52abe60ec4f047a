package dev

import (
	"context"
	"sync"
	"time"

	"flowplatform/services/internal/live"
)

// pictureFor is how long the leader's picture is good for, as in Redis.
const pictureFor = 20 * time.Second

// picture hands the leader's picture of workers and queues to the gateway.
type picture struct {
	mu    sync.Mutex
	fleet live.Fleet
	shown time.Time // zero: never
}

func (p *picture) show(_ context.Context, f live.Fleet) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fleet, p.shown = f, time.Now()
	return nil
}

func (p *picture) see(context.Context) (live.Fleet, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown.IsZero() || time.Since(p.shown) > pictureFor {
		return live.Fleet{}, live.ErrNoFleet
	}
	return p.fleet, nil
}

package main

import (
	"context"
	"fmt"
	"time"

	"flowplatform/scripts/internal/running"
)

// platform is what make up has started on this machine.
type platform struct{ *running.Platform }

// jobs that a drill needs, and leaves healthy.
func jobs() []string {
	return []string{"postgres", "rabbitmq", "redis", "orchestrator", "gateway", "worker", "front-door"}
}

// healthy counts the healthy instances of each job. One without any is an error: a drill on a sick platform proves nothing.
func (p *platform) healthy(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	for _, job := range jobs() {
		var passing []struct{}
		if err := p.Consul(ctx, "/v1/health/service/"+job+"?passing=true", &passing); err != nil {
			return nil, fmt.Errorf("ask Consul: %w; is the platform up?", err)
		}
		if out[job] = len(passing); len(passing) == 0 {
			return nil, fmt.Errorf("no %s is healthy: see make status", job)
		}
	}
	return out, nil
}

// recovered waits until as many instances are healthy as before. Workers may be fewer: their number is the autoscaler's business.
func (p *platform) recovered(ctx context.Context, before map[string]int) error {
	const bound = 2 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		now, err := p.healthy(ctx)
		if err == nil {
			for _, job := range jobs() {
				if want := before[job]; job != "worker" && now[job] < want {
					err = fmt.Errorf("%d of %d %s are healthy", now[job], want, job)
				}
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the platform is not as before, %s after the drill: %w", bound, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

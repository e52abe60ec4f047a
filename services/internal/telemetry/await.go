package telemetry

import (
	"context"
	"fmt"
	"time"
)

// awaitEvery is how often Await looks: it is for the moments of a start.
const awaitEvery = 10 * time.Millisecond

// Await waits until everything that is required is there, past the cache of answers. Its error says what is missing, and ctx's.
func (h *Health) Await(ctx context.Context) error {
	t := time.NewTicker(awaitEvery)
	defer t.Stop()
	for {
		err := h.missing(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

func (h *Health) missing(ctx context.Context) error {
	h.mu.Lock()
	deps := h.deps[:len(h.deps):len(h.deps)]
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, checkBound)
	defer cancel()
	for _, d := range deps {
		if !d.required {
			continue
		}
		if err := d.check(ctx); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

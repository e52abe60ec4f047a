package live

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	pollsKey  = "{flow}:polls"
	keepPolls = 7 * 24 * time.Hour
)

// Polled notes that a remote worker has polled a queue. For people: it may be lost.
func (c *Client) Polled(ctx context.Context, queue string, at time.Time) error {
	if c == nil {
		return nil
	}
	p := c.r.Pipeline()
	p.HSet(ctx, pollsKey, queue, at.UnixMilli())
	p.Expire(ctx, pollsKey, keepPolls)
	if _, err := p.Exec(ctx); err != nil {
		return fmt.Errorf("live: polls: %w", err)
	}
	return nil
}

// Polls tells when each queue was polled last; of queues that are not in it nothing is known.
func (c *Client) Polls(ctx context.Context) (map[string]time.Time, error) {
	out := map[string]time.Time{}
	if c == nil {
		return out, nil
	}
	all, err := c.r.HGetAll(ctx, pollsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("live: polls: %w", err)
	}
	for queue, ms := range all {
		if n, err := strconv.ParseInt(ms, 10, 64); err == nil {
			out[queue] = time.UnixMilli(n).UTC()
		}
	}
	return out, nil
}

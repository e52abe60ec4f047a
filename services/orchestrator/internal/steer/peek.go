package steer

import (
	"context"
	"time"

	"flowplatform/services/internal/broker"
)

// peek is how often it looks at the depth of the task queues alone, between two looks at everything: a backlog that passes its high mark is decided on at once,
// at the price of a passive declare for each queue, and nothing of the database or Nomad.
const peek = step / 4

// peekBound bounds the answers.
const peekBound = 2 * time.Second

// rises tells whether the backlog of a pool has passed its high mark since the last look. What can't be seen hasn't; the next look says why.
func (t *run) rises(ctx context.Context) bool {
	if t.o.Fleet == nil || !t.values.AutoScaling {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, peekBound)
	defer cancel()
	for name, p := range t.pools {
		if p.above { // it is decided on every second anyway
			continue
		}
		ready := 0
		for _, priority := range broker.Priorities {
			state, err := t.o.Inspect(ctx, broker.TaskQueue(name, priority))
			if err != nil {
				if isNoQueue(err) {
					continue
				}
				return false
			}
			ready += state.Ready
		}
		if p.tasks(ready) >= t.values.HighWaterMark {
			return true
		}
	}
	return false
}

// tasks is how many a number of messages carries.
func (p *pool) tasks(messages int) int { return int(float64(messages) * max(1, p.packed)) }

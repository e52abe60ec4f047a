package leader

import (
	"context"
	"math"
	"time"
)

// runAlone leads term after term until ctx ends. A term ends early only if its work returns, or PostgreSQL can't be told of it; then the next is raised. The trust
// window never closes: that nobody else leads is the caller's promise (flowctl dev holds a lock on its directory, and its database runs nowhere else).
func (e *Elector) runAlone(ctx context.Context) {
	e.note(nil)
	for ctx.Err() == nil {
		e.metrics.state.Set(stateCandidate)
		l := &lease{clock: e.o.Clock}
		l.until.Store(math.MaxInt64)
		e.lead(ctx, l)
		sleep(ctx, jitter(200*time.Millisecond))
	}
}

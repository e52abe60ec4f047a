package rescue

import (
	"context"
	"time"

	"flowplatform/services/internal/protocol"
)

// timers wakes executions whose waits are due. It reads ahead once a second and sleeps exactly until the next one that it saw.
func (r *Rescue) timers(ctx context.Context, term Valid, rec *protocol.Reconciler) {
	failing := false
	var aim time.Time // when the next wait was expected to be due, by our monotonic clock
	for {
		pause := step
		if term.Valid() {
			bounded, cancel := context.WithTimeout(ctx, stepTimeout)
			out, next, err := rec.Due(bounded, horizon)
			cancel()
			failing = r.note(ctx, "timers", err, failing)
			if woken := len(out.News); woken > 0 {
				r.metrics.woken.Add(float64(woken))
				if !aim.IsZero() {
					r.metrics.lateness.Observe(max(0, time.Since(aim).Seconds()))
				}
				r.o.Follow(protocol.Outcome{News: out.News}) // Due has handed them out
			}
			pause, aim = plan(len(out.News), next, err, time.Now())
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// plan says how long to sleep and what is expected then.
func plan(woken int, next time.Duration, err error, now time.Time) (pause time.Duration, aim time.Time) {
	switch {
	case err != nil:
		return step / 4, time.Time{}
	case next > 0 && next <= step:
		return next, now.Add(next)
	case next == 0 && woken > 0: // there may be more that is due: a look takes a bounded number
		return 0, time.Time{}
	}
	return step, time.Time{}
}

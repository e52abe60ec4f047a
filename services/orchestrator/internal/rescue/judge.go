package rescue

import (
	"context"
	"time"

	"flowplatform/services/internal/protocol"
)

// judge ends the sessions whose beat stands still for a whole lease, in unbroken sight.
func (r *Rescue) judge(ctx context.Context, term Valid) {
	watched := &sight{Store: r.o.Store, metrics: r.metrics}
	j := &protocol.Judge{Store: watched, Lease: r.o.Lease, Clock: r.o.Clock}
	pause := lookEvery(r.o.Lease)
	failing := false
	for {
		if term.Valid() {
			bounded, cancel := context.WithTimeout(ctx, r.o.Lease/4)
			ended, err := j.Look(bounded)
			cancel()
			failing = r.note(ctx, "judge", err, failing)
			if len(ended) > 0 {
				r.metrics.ended.Add(float64(len(ended)))
				r.o.Log.Warn("sessions without a renewal for a whole lease are over: their executions are taken back", "sessions", ended, "lease", r.o.Lease.String())
				r.o.Sender.Soon(ended)
			}
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// lookEvery is far enough below a quarter of the lease that a slow look doesn't break the sight.
func lookEvery(lease time.Duration) time.Duration { return min(time.Second, lease/10) }

// sight counts what the judge sees.
type sight struct {
	protocol.Store
	metrics *metrics
}

func (s *sight) LiveSessions(ctx context.Context) ([]protocol.Session, error) {
	live, err := s.Store.LiveSessions(ctx)
	if err == nil {
		s.metrics.alive.Set(float64(len(live)))
	}
	return live, err
}

// Package sessions leases workers the right to act: it opens, renews and ends their sessions (PROTOCOL 3 and 10).
//
// Every answer is given after COMMIT; a transaction whose outcome is not known gives no answer, and the worker asks again, elsewhere. The
// renewals that arrive together go as one statement.
package sessions

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/orchestrator/internal/group"
)

// Transactor is the part of protocol.Store that this package needs.
type Transactor interface {
	Txn(ctx context.Context, name string, fn func(protocol.Tx) error) error
}

// Options of New. All are required.
type Options struct {
	Store Transactor
	Lease time.Duration
	// Shards is how many report queues there are, for new executions.
	Shards func() int
	// Recover sends recover entries for sessions that are over, soon and beside the caller's path. It may be called for any session at any time.
	Recover    func(sessions []protocol.ID)
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Service opens, renews and ends sessions. Safe for concurrent use.
type Service struct {
	o       Options
	metrics *metrics
	renew   *group.Group[protocol.RenewRequest, protocol.SessionResponse]
}

// New returns a service that is ready.
func New(o Options) *Service {
	s := &Service{o: o, metrics: newMetrics(o.Registerer)}
	s.renew = group.New(group.Config[protocol.RenewRequest, protocol.SessionResponse]{
		Run:      s.renewBatch,
		Max:      2000,
		Parallel: 1,
		Window:   20 * time.Millisecond,
		Timeout:  o.Lease / 5,
		Observe: func(n int, took time.Duration, err error) {
			s.metrics.renewBatch.Observe(float64(n))
			s.metrics.renewSeconds.Observe(took.Seconds())
			if err != nil {
				s.o.Log.Warn("renewals failed: workers ask again, elsewhere first", "sessions", n, "error", err)
			}
		},
	})
	return s
}

// Close answers what was taken and refuses the rest.
func (s *Service) Close() { s.renew.Close() }

// Open ends the sessions whose death the caller has proven and opens its own.
func (s *Service) Open(ctx context.Context, req protocol.OpenSessionRequest) (protocol.SessionResponse, error) {
	ctx, cancel := s.whole(ctx)
	defer cancel()
	var alive bool
	var ended []protocol.ID
	err := s.o.Store.Txn(ctx, "session.open", func(tx protocol.Tx) error {
		var err error
		alive, ended, err = protocol.OpenSession(ctx, tx, req)
		return err
	})
	if err != nil {
		return protocol.SessionResponse{}, fmt.Errorf("sessions.Open: %w", err)
	}
	s.metrics.ended.WithLabelValues("successor").Add(float64(len(ended)))
	if len(req.Ended) > 0 {
		// For all that were named, not only for those that this transaction ended: the answer to an earlier ask may have been lost with its recover.
		s.o.Recover(req.Ended)
		s.o.Log.Info("a worker has proven the end of its predecessors: their executions are taken back", "worker", req.Worker, "session", req.Session, "named", req.Ended, "ended", ended)
	}
	s.metrics.opened.Inc()
	return s.fill(protocol.SessionResponse{Alive: alive}), nil
}

// Renew renews one session, together with those that are asked for at the same time.
func (s *Service) Renew(ctx context.Context, req protocol.RenewRequest) (protocol.SessionResponse, error) {
	a, err := s.renew.Do(ctx, req)
	if err != nil {
		return a, fmt.Errorf("sessions.Renew: %w", err)
	}
	if !a.Alive {
		s.metrics.refused.Inc()
	}
	return s.fill(a), nil
}

// End ends sessions in which nothing is left. Should one own something all the same, it is taken back.
func (s *Service) End(ctx context.Context, req protocol.EndSessionsRequest) error {
	ctx, cancel := s.whole(ctx)
	defer cancel()
	reason := req.Reason
	if reason == "" {
		reason = "its worker stopped"
	}
	var ended []protocol.ID
	err := s.o.Store.Txn(ctx, "session.end", func(tx protocol.Tx) error {
		var err error
		ended, err = protocol.EndSessions(ctx, tx, req.Sessions, reason)
		return err
	})
	if err != nil {
		return fmt.Errorf("sessions.End: %w", err)
	}
	s.metrics.ended.WithLabelValues("stopped").Add(float64(len(ended)))
	s.o.Recover(req.Sessions)
	return nil
}

func (s *Service) renewBatch(ctx context.Context, asked []protocol.RenewRequest) ([]protocol.SessionResponse, error) {
	renewals := slices.Clone(asked)
	slices.SortStableFunc(renewals, func(a, b protocol.RenewRequest) int { return slices.Compare(a.Session[:], b.Session[:]) })
	var answers map[protocol.ID]protocol.SessionResponse
	err := s.o.Store.Txn(ctx, "session.renew", func(tx protocol.Tx) error {
		var err error
		answers, err = protocol.Renew(ctx, tx, renewals)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]protocol.SessionResponse, len(asked))
	for i, r := range asked {
		out[i] = answers[r.Session]
	}
	return out, nil
}

// whole is a context for a transaction of its own: it outlives the request, since a worker that goes away changes nothing about what it said.
func (s *Service) whole(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.o.Lease/5)
}

func (s *Service) fill(a protocol.SessionResponse) protocol.SessionResponse {
	a.LeaseMS = s.o.Lease.Milliseconds()
	a.Shards = s.o.Shards()
	return a
}

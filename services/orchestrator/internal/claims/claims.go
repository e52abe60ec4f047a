// Package claims grants attempts to runs (PROTOCOL 4): the claims of all workers that wait together are decided in one transaction.
//
// A claim whose transaction failed, or whose commit is unknown, gets no answer at all: the run asks again, with the same session and run,
// and an attempt that was granted is granted again.
package claims

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/orchestrator/internal/group"
)

// Transactor is the part of protocol.Store that this package needs.
type Transactor interface {
	Txn(ctx context.Context, name string, fn func(protocol.Tx) error) error
}

// MaxClaims is the most that one request may hold.
const MaxClaims = 5000

// maxBatch bounds the rows that one transaction locks.
const maxBatch = 1000

// Options of New. All are required.
type Options struct {
	Store      Transactor
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Service grants claims. Safe for concurrent use.
type Service struct {
	o       Options
	metrics *metrics
	group   *group.Group[[]protocol.Claim, []protocol.Answer]
}

// New returns a service that is ready.
func New(o Options) *Service {
	s := &Service{o: o, metrics: newMetrics(o.Registerer)}
	s.group = group.New(group.Config[[]protocol.Claim, []protocol.Answer]{
		Run:      s.batch,
		Weigh:    func(c []protocol.Claim) int { return len(c) },
		Max:      maxBatch,
		Parallel: 2,
		Window:   time.Millisecond,
		Eager:    true,
		Timeout:  5 * time.Second,
		Observe: func(_ int, took time.Duration, err error) {
			s.metrics.seconds.Observe(took.Seconds())
			if err != nil {
				s.metrics.failed.Inc()
				s.o.Log.Warn("claims failed: workers ask again", "error", err)
			}
		},
	})
	return s
}

// Close answers what was taken and refuses the rest.
func (s *Service) Close() { s.group.Close() }

// Grant answers claims in their order. An error is no answer: ask again.
func (s *Service) Grant(ctx context.Context, claims []protocol.Claim) ([]protocol.Answer, error) {
	if len(claims) == 0 {
		return []protocol.Answer{}, nil
	}
	answers, err := s.group.Do(ctx, claims)
	if err != nil {
		return nil, fmt.Errorf("claims.Grant: %w", err)
	}
	return answers, nil
}

func (s *Service) batch(ctx context.Context, requests [][]protocol.Claim) ([][]protocol.Answer, error) {
	all := requests[0]
	if len(requests) > 1 {
		n := 0
		for _, r := range requests {
			n += len(r)
		}
		all = make([]protocol.Claim, 0, n)
		for _, r := range requests {
			all = append(all, r...)
		}
	}
	s.metrics.batch.Observe(float64(len(all)))
	var answers []protocol.Answer
	err := s.o.Store.Txn(ctx, "claims", func(tx protocol.Tx) error {
		var err error
		answers, err = protocol.GrantClaims(ctx, tx, all)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(answers) != len(all) {
		return nil, fmt.Errorf("%d answers to %d claims", len(answers), len(all))
	}
	s.metrics.count(answers)
	out := make([][]protocol.Answer, len(requests))
	for i, r := range requests {
		out[i], answers = answers[:len(r):len(r)], answers[len(r):]
	}
	return out, nil
}

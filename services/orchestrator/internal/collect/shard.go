package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"flowplatform/services/internal/protocol"
)

const (
	// applyTimeout bounds a transaction. Nobody waits for it but the queue; PostgreSQL's own timeouts are shorter.
	applyTimeout = 30 * time.Second
	// readyTimeout bounds the question whether the database answers.
	readyTimeout = 3 * time.Second
	// wellEnough is how long a channel must have stood for its loss not to count as one in a row.
	wellEnough = time.Second
	// newerPause is how long a queue with reports that are too new for this build is left to others.
	newerPause = 5 * time.Second
)

// Why a turn ends.
var (
	errGone     = errors.New("the channel is gone")
	errDatabase = errors.New("the database doesn't take the batch")
)

// shard collects one report queue.
type shard struct {
	number  int
	queue   string
	o       Options
	metrics *metrics
	log     *slog.Logger
}

// run takes the queue, again and again, until ctx ends. Transactions end by txns only: a stop waits for the one in flight.
func (s *shard) run(ctx, txns context.Context) {
	// Lives as long as the loop: it remembers, from one channel to the next, whose reports came with a gap before them.
	collector := &protocol.Collector{Shard: s.number, Store: s.o.Store}
	var b backoff
	for ctx.Err() == nil {
		begun := time.Now()
		applied, err := s.turn(ctx, txns, collector)
		if ctx.Err() != nil {
			return
		}
		if applied || time.Since(begun) > wellEnough {
			b.reset()
		}
		var pause time.Duration
		switch {
		case errors.Is(err, protocol.ErrComeBack):
			s.metrics.reopened.WithLabelValues("behind").Inc()
			s.log.Warn("a confirmed report is missing before one of this batch: taking the queue again", "queue", s.queue)
			pause = jitter(50 * time.Millisecond)
		case errors.Is(err, errNewer):
			s.metrics.reopened.WithLabelValues("newer-schema").Inc()
			s.log.Error("left to another orchestrator", "queue", s.queue, "error", errNewer)
			pause = jitter(newerPause)
		case errors.Is(err, errDatabase):
			s.metrics.reopened.WithLabelValues("database").Inc()
			pause = b.next(2 * time.Second)
			s.log.Warn("reports go back to their queue, in order", "queue", s.queue, "again_in", pause.String(), "error", err)
		default:
			s.metrics.reopened.WithLabelValues("broker").Inc()
			pause = b.next(time.Second)
			s.log.Info("the report queue is not ours at the moment", "queue", s.queue, "again_in", pause.String(), "error", err)
		}
		sleep(ctx, pause)
	}
}

// turn takes the queue once, on a channel of its own, and applies what comes until something ends it. It tells whether anything was applied.
func (s *shard) turn(ctx, txns context.Context, collector *protocol.Collector) (applied bool, err error) {
	ask, cancel := context.WithTimeout(ctx, readyTimeout)
	err = s.o.Ready(ask)
	cancel()
	if err != nil {
		return false, fmt.Errorf("%w: %w", errDatabase, err)
	}
	stream, err := s.o.Source.Consume(ctx, s.number, batchEntries+s.o.Prefetch)
	if err != nil {
		return false, fmt.Errorf("consume: %w", err)
	}
	g := newGatherer(s.queue, stream.Deliveries())
	gathering, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); g.run(gathering) }()
	defer func() {
		stop()
		<-ended
		if cerr := stream.Close(); cerr != nil {
			s.log.Debug("closing the channel", "error", cerr)
		}
	}()
	for {
		select {
		case b, ok := <-g.out:
			if !ok {
				return applied, errGone
			}
			if err := s.commit(txns, collector, b); err != nil {
				return applied, err
			}
			applied = applied || b.messages > 0
			if b.messages > 0 {
				if err := stream.AckThrough(b.last); err != nil {
					return applied, fmt.Errorf("acknowledge: %w", err)
				}
			}
			if b.newer {
				return applied, errNewer
			}
			g.free <- b
		case <-ctx.Done():
			return applied, ctx.Err()
		}
	}
}

// commit writes one batch. Once it has returned nil the batch may be acknowledged.
func (s *shard) commit(ctx context.Context, collector *protocol.Collector, b *batch) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	begin := time.Now()
	if len(b.dead) > 0 {
		if err := s.o.DeadLetters(ctx, b.dead); err != nil {
			return fmt.Errorf("%w: dead letters: %w", errDatabase, err)
		}
		s.metrics.unparseable.Add(float64(len(b.dead)))
		s.log.Error("reports that can't be read went to the dead letters", "queue", s.queue, "count", len(b.dead), "first", b.dead[0].Detail)
	}
	if len(b.entries) == 0 {
		return nil
	}
	out, err := collector.Apply(ctx, b.entries)
	if errors.Is(err, protocol.ErrComeBack) {
		s.metrics.behind.Add(float64(len(out.Behind)))
		return err
	}
	if err != nil {
		if errors.Is(err, protocol.ErrUnknown) {
			s.metrics.unknown.Inc()
		}
		return fmt.Errorf("%w: %w", errDatabase, err)
	}
	s.o.Follow(out)
	s.metrics.applied(b, out, time.Since(begin))
	if out.Parked > 0 {
		s.log.Error("reports were parked in the dead letters", "queue", s.queue, "count", out.Parked, "behind", out.Behind)
	}
	return nil
}

// backoff grows from 50 ms, doubling, with jitter.
type backoff struct{ last time.Duration }

func (b *backoff) reset() { b.last = 0 }

func (b *backoff) next(most time.Duration) time.Duration {
	b.last = min(most, max(50*time.Millisecond, 2*b.last))
	return jitter(b.last)
}

// jitter is between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

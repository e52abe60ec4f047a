package collect

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

// Delivery is a message of a report queue. It belongs to its stream: once that is closed it can't be acknowledged any more.
type Delivery struct {
	Tag  uint64
	Body []byte    // never written to again
	ID   string    // of the message, the same each time it is delivered
	At   time.Time // when it was published
}

// Stream is a consumer of a report queue, on a channel of its own.
type Stream interface {
	// Deliveries are in the queue's order; it is closed when the channel is gone.
	Deliveries() <-chan Delivery
	// AckThrough acknowledges the delivery and all before it.
	AckThrough(d Delivery) error
	// Close closes the channel: what is not acknowledged goes back, in order.
	Close() error
}

// Source opens streams, as a single active consumer, on a connection that publishes nothing.
type Source interface {
	Consume(ctx context.Context, shard, prefetch int) (Stream, error)
}

// Options of New. All are required.
type Options struct {
	Store  protocol.Store
	Source Source
	// Ready tells that the database answers: a queue is taken only then, so that an orchestrator that can't write leaves it to one that can.
	Ready func(ctx context.Context) error
	// DeadLetters stores messages that can't be read.
	DeadLetters func(ctx context.Context, letters []protocol.DeadLetter) error
	// Follow takes what a commit leaves to be done. It never waits.
	Follow func(protocol.Outcome)
	// QueueName names a shard's queue, for people.
	QueueName  func(shard int) string
	Prefetch   int // RABBITMQ_PREFETCH: added to what a full batch takes
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Collectors run one loop for each report queue. Every orchestrator runs them all; the broker activates one consumer for each queue.
type Collectors struct {
	o       Options
	metrics *metrics
	ctx     context.Context
	stop    context.CancelFunc
	abort   context.CancelFunc // ends transactions too
	txns    context.Context
	running sync.WaitGroup

	mu     sync.Mutex
	shards int
}

// New returns collectors that have no queue yet.
func New(o Options) *Collectors {
	c := &Collectors{o: o, metrics: newMetrics(o.Registerer)}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.txns, c.abort = context.WithCancel(context.Background())
	return c
}

// Ensure sees to it that the queues 0 to n-1 are collected. Queues beyond n that were begun go on: executions accepted before report to them.
func (c *Collectors) Ensure(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	for ; c.shards < n; c.shards++ {
		s := &shard{
			number: c.shards, queue: c.o.QueueName(c.shards), o: c.o, metrics: c.metrics,
			log: c.o.Log.With("shard", c.shards),
		}
		c.running.Go(func() { s.run(c.ctx, c.txns) })
	}
}

// Shards is how many queues are collected.
func (c *Collectors) Shards() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shards
}

// Stop lets the commits in flight end, acknowledges them and closes the channels. When ctx ends first, the transactions are given up too.
func (c *Collectors) Stop(ctx context.Context) error {
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	defer c.abort()
	ended := make(chan struct{})
	go func() { c.running.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	c.abort()
	select {
	case <-ended:
		return nil
	case <-time.After(time.Second):
		return fmt.Errorf("collect.Stop: a batch didn't end in time: its reports are delivered again and are old news, if it was committed")
	}
}

package queues

import (
	"context"
	"errors"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/orchestrator/internal/collect"
)

// closeBound is how long the end of a channel may take; after that it goes with its connection.
const closeBound = 3 * time.Second

// Reports opens the report queues on a connection that publishes nothing. It implements collect.Source.
type Reports struct {
	Conn *broker.Conn
}

// Consume begins to consume a shard's queue, as soon as the connection is there.
func (r *Reports) Consume(ctx context.Context, shard, prefetch int) (collect.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &stream{
		consumer: r.Conn.Consume(broker.ConsumeOptions{Queue: broker.ReportQueue(shard), Prefetch: prefetch}),
		held:     make([]broker.Delivery, prefetch+1),
		out:      make(chan collect.Delivery, 64),
		stop:     make(chan struct{}),
		ended:    make(chan struct{}),
	}
	go s.pump()
	return s, nil
}

// stream is a consumer for the life of one channel: broker.Consumer would come back by itself, but a collector has to know where one channel
// ends, since everything after that comes again.
type stream struct {
	consumer *broker.Consumer
	held     []broker.Delivery // by tag; the broker never has more than the prefetch unacknowledged
	acked    uint64
	out      chan collect.Delivery
	stop     chan struct{}
	ended    chan struct{}
}

func (s *stream) pump() {
	defer close(s.ended)
	defer close(s.out)
	epoch := uint64(0)
	for tag := uint64(1); ; tag++ {
		select {
		case d, ok := <-s.consumer.Deliveries():
			if !ok || (epoch != 0 && d.Epoch != epoch) { // of the next channel: what we hold comes again
				return
			}
			epoch = d.Epoch
			s.held[tag%uint64(len(s.held))] = d
			select {
			case s.out <- collect.Delivery{Tag: tag, Body: d.Body, ID: d.MessageID, At: d.At}:
			case <-s.consumer.Lost():
				return
			case <-s.stop:
				return
			}
		case <-s.consumer.Lost():
			return
		case <-s.stop:
			return
		}
	}
}

func (s *stream) Deliveries() <-chan collect.Delivery { return s.out }

var errStale = errors.New("queues: the channel of these reports is gone, they come again")

// AckThrough acknowledges the delivery and all before it. One goroutine.
func (s *stream) AckThrough(d collect.Delivery) error {
	held := &s.held[d.Tag%uint64(len(s.held))]
	if !held.AckMultiple(int(d.Tag - s.acked)) {
		return errStale
	}
	s.acked = d.Tag
	return nil
}

// Close closes the channel: what is not acknowledged goes back to the queue, in order.
func (s *stream) Close() error {
	close(s.stop)
	ctx, cancel := context.WithTimeout(context.Background(), closeBound)
	defer cancel()
	err := s.consumer.Stop(ctx)
	<-s.ended
	return err
}

// Package link ties the runner to the broker: three task queues in, with acknowledgements coalesced; reports, retries, dead letters and
// health reports out.
package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"flowplatform/services/internal/broker"
	"flowplatform/services/worker/internal/runner"
)

// returnsHeader counts how often a task went through the retry ladder.
const returnsHeader = "x-flow-returns"

// Feed consumes the task queues of a pool.
type Feed struct {
	queues []*queue
	wg     sync.WaitGroup

	messages, tasks atomic.Uint64 // received so far
}

// Received is how many messages have come so far, and how many tasks were in them.
func (f *Feed) Received() (messages, tasks uint64) { return f.messages.Load(), f.tasks.Load() }

type queue struct {
	consumer *broker.Consumer
	ledger   *ledger
	offered  chan struct{} // closed when all that was delivered has been offered
}

// NewFeed begins to consume; every delivery goes to offer, which must not block. conn must not be published on.
func NewFeed(conn *broker.Conn, pool string, prefetch int, offer func(runner.Delivery)) *Feed {
	f := &Feed{}
	for i, name := range broker.Priorities {
		q := &queue{consumer: conn.Consume(broker.ConsumeOptions{Queue: broker.TaskQueue(pool, name), Prefetch: prefetch}), ledger: newLedger(), offered: make(chan struct{})}
		f.queues = append(f.queues, q)
		f.wg.Go(func() { f.receive(q, runner.Priority(i), offer) })
		f.wg.Go(q.ledger.run)
	}
	return f
}

func (f *Feed) receive(q *queue, p runner.Priority, offer func(runner.Delivery)) {
	defer close(q.offered)
	for d := range q.consumer.Deliveries() {
		f.messages.Add(1)
		f.tasks.Add(1)
		returns, _ := number(d.Headers[returnsHeader])
		one := runner.Delivery{Body: d.Body, ID: d.MessageID, At: d.At, Redelivered: d.Redelivered, Returns: returns, Priority: p, Receipt: q.ledger.receive(d)}
		if bytes.IndexByte(d.Body, '\n') < 0 {
			offer(one)
			continue
		}
		bodies := slices.Collect(broker.Tasks(d.Body))
		f.tasks.Add(uint64(len(bodies) - 1))
		one.Receipt = share(one.Receipt, len(bodies))
		for i, body := range bodies {
			one.Body = body
			if d.MessageID != "" {
				one.ID = d.MessageID + "#" + strconv.Itoa(i)
			}
			offer(one)
		}
	}
}

// shared is the receipt of a message with several tasks: it is acknowledged when all of them are. Each task acknowledges once.
type shared struct {
	runner.Receipt
	left atomic.Int32
}

func share(r runner.Receipt, tasks int) *shared {
	s := &shared{Receipt: r}
	s.left.Store(int32(tasks))
	return s
}

// Ack acknowledges the message with the last of its tasks.
func (s *shared) Ack() {
	if s.left.Add(-1) == 0 {
		s.Receipt.Ack()
	}
}

// number reads a header, which comes back as whatever integer type the server chose.
func number(v any) (int, bool) {
	switch n := v.(type) {
	case int:
		return n, true
	case int8:
		return int(n), true
	case int16:
		return int(n), true
	case int32:
		return int(n), true
	case int64:
		return int(n), true
	case uint8:
		return int(n), true
	case uint16:
		return int(n), true
	case uint32:
		return int(n), true
	}
	return 0, false
}

// Retune sets how many tasks of each priority are held beyond those that have begun.
func (f *Feed) Retune(prefetch int) {
	for _, q := range f.queues {
		q.consumer.Retune(prefetch)
	}
}

// Ready tells whether all three queues are consumed.
func (f *Feed) Ready() error {
	for i, q := range f.queues {
		if !q.consumer.Ready() {
			return errors.New("the queue of priority " + broker.Priorities[i] + " isn't consumed: it is missing (orchestrators declare it), or RabbitMQ is away")
		}
	}
	return nil
}

// Quiesce ends the consuming; what is in hand can still be acknowledged. When it returns nil all that was delivered has been offered: nothing
// comes after it.
func (f *Feed) Quiesce(ctx context.Context) error {
	return f.each(func(q *queue) error {
		if err := q.consumer.Quiesce(ctx); err != nil {
			return err
		}
		select {
		case <-q.offered:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("link.Quiesce: what was delivered hasn't all come: %w", ctx.Err())
		}
	})
}

// Stop acknowledges what was to be acknowledged and closes the channels: what is left is delivered again.
func (f *Feed) Stop(ctx context.Context) error {
	return f.each(func(q *queue) error {
		q.ledger.flush()
		defer q.ledger.close()
		return q.consumer.Stop(ctx)
	})
}

// Wait waits for the feed's goroutines, after Stop and the end of the connection.
func (f *Feed) Wait() { f.wg.Wait() }

func (f *Feed) each(do func(*queue) error) error {
	errs := make([]error, len(f.queues))
	var wg sync.WaitGroup
	for i, q := range f.queues {
		wg.Go(func() { errs[i] = do(q) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

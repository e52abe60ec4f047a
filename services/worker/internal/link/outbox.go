package link

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/worker/internal/runner"
)

// Outbox publishes what the runner says. It is a runner.Publisher.
type Outbox struct {
	publisher *broker.Publisher
	exchange  string
	pool      string
	newID     func() protocol.ID
}

var _ runner.Publisher = (*Outbox)(nil)

// NewOutbox makes one.
func NewOutbox(p *broker.Publisher, exchange, pool string, newID func() protocol.ID) *Outbox {
	return &Outbox{publisher: p, exchange: exchange, pool: pool, newID: newID}
}

// Ready tells whether messages are taken.
func (o *Outbox) Ready() error { return o.publisher.Ready() }

// Silence is how long the broker has confirmed nothing though messages wait for it.
func (o *Outbox) Silence() time.Duration { return o.publisher.Silence() }

// Report publishes one report message. done is called once, from a goroutine of its own.
func (o *Outbox) Report(_ context.Context, shard int, body []byte, done func(error)) {
	err := o.publisher.Publish(broker.Message{Key: broker.ReportKey(shard), Type: "report", Body: body}, func(out broker.Outcome) {
		go done(outcome(out)) // the publisher's goroutine must go on
	})
	if err != nil {
		go done(fmt.Errorf("link.Report: %w", err))
	}
}

func outcome(o broker.Outcome) error {
	if o == broker.Confirmed {
		return nil
	}
	return fmt.Errorf("link.Report: the broker's outcome is %s", o)
}

// Retry sends a task through the ladder.
func (o *Outbox) Retry(ctx context.Context, d runner.Delivery, returns int) error {
	m := o.task(d, returns)
	m.Exchange = broker.RetryExchange(o.exchange)
	if err := o.publisher.PublishWait(ctx, m); err != nil {
		return fmt.Errorf("link.Retry: %w", err)
	}
	return nil
}

// Return gives a task back to its queue.
func (o *Outbox) Return(ctx context.Context, d runner.Delivery) error {
	if err := o.publisher.PublishWait(ctx, o.task(d, d.Returns)); err != nil {
		return fmt.Errorf("link.Return: %w", err)
	}
	return nil
}

func (o *Outbox) task(d runner.Delivery, returns int) broker.Message {
	m := broker.Message{Key: broker.TaskKey(o.pool, d.Priority.String()), ID: d.ID, At: d.At, Type: "task", Body: d.Body}
	if returns > 0 {
		m.Headers = map[string]any{returnsHeader: int64(returns)}
	}
	return m
}

// Dead parks a dead letter.
func (o *Outbox) Dead(ctx context.Context, l runner.DeadLetter) error {
	if l.ID.IsZero() {
		l.ID = o.newID()
	}
	body, err := json.Marshal(l.DeadLetter)
	if err != nil {
		return fmt.Errorf("link.Dead: %w", err)
	}
	if err := o.publisher.PublishWait(ctx, broker.Message{Key: broker.DeadKey, ID: l.ID.String(), Type: "dead-letter", Body: body}); err != nil {
		return fmt.Errorf("link.Dead: %w", err)
	}
	return nil
}

// Heartbeat sends a health report. It is for speed and for people: what becomes of it doesn't matter.
func (o *Outbox) Heartbeat(h protocol.Heartbeat) error {
	body, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("link.Heartbeat: %w", err)
	}
	if err := o.publisher.Publish(broker.Message{Key: broker.HeartbeatKey(h.Worker), Type: "heartbeat", Body: body}, func(broker.Outcome) {}); err != nil {
		return fmt.Errorf("link.Heartbeat: %w", err)
	}
	return nil
}

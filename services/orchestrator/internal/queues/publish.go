// Package queues is the orchestrator's use of the broker: tasks, recover entries and control messages out; reports and dead letters in.
//
// Publishing and consuming are on separate connections: under an alarm the broker stops every connection that has published, its
// acknowledgements too, and reports could never drain.
package queues

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
)

// Publisher publishes what orchestrators have to say. It implements protocol.TaskPublisher.
type Publisher struct {
	Broker *broker.Publisher
	// Missing hears of pools whose tasks no queue takes: nobody has heard of the pool before, or somebody deleted its queue. It never waits.
	Missing func(pool string)
	Log     *slog.Logger
}

var _ protocol.TaskPublisher = (*Publisher)(nil)

// DefaultPool is that of a task whose row names none.
const DefaultPool = broker.DefaultPool

// PublishTasks publishes tasks, all in flight at once, and tells for each whether the broker has it.
func (p *Publisher) PublishTasks(ctx context.Context, tasks []protocol.Task) []bool {
	w := &waiter{confirmed: make([]bool, len(tasks)), all: make(chan struct{}), left: len(tasks)}
	if len(tasks) == 0 {
		return w.confirmed
	}
	unfit := func(i int, err error) {
		p.Log.Error("a task can't be written", "execution", tasks[i].ID, "error", err)
		w.done([]int{i}, false)
	}
	for _, m := range broker.TaskMessages(tasks, unfit) {
		err := p.Broker.Publish(m.Message, func(o broker.Outcome) {
			if o == broker.Unroutable {
				p.Missing(cmp.Or(tasks[m.Carries[0]].Pool, DefaultPool))
			}
			w.done(m.Carries, o == broker.Confirmed)
		})
		if err != nil {
			w.done(m.Carries, false)
		}
	}
	return w.wait(ctx)
}

// waiter gathers confirms that may come after nobody waits any more.
type waiter struct {
	mu        sync.Mutex
	confirmed []bool
	left      int
	all       chan struct{}
}

func (w *waiter) done(tasks []int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range tasks {
		w.confirmed[i] = ok
	}
	if w.left -= len(tasks); w.left == 0 {
		close(w.all)
	}
}

func (w *waiter) wait(ctx context.Context) []bool {
	select {
	case <-w.all:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]bool(nil), w.confirmed...)
}

// Report publishes a report to a shard's queue and waits for the confirm.
func (p *Publisher) Report(ctx context.Context, shard int, body []byte) error {
	return p.Broker.PublishWait(ctx, broker.Message{Key: broker.ReportKey(shard), Type: "report", Body: body})
}

// Tell sends a control message to all workers. For speed only: renewals carry the same.
func (p *Publisher) Tell(m protocol.Control) error {
	subject := "cancel"
	if len(m.Tune) > 0 {
		subject = "tune"
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("queues.Tell: %w", err)
	}
	// Nobody waits for the confirm: with no worker bound the message comes back unroutable, which is no failure.
	return p.Broker.Publish(broker.Message{Key: broker.ControlKey(subject), Type: "control", Body: body}, func(broker.Outcome) {})
}

// Control tells the owners of executions that they are to end. For speed only: renewals carry the same.
func (p *Publisher) Control(_ context.Context, orders []protocol.CancelOrder) error {
	var errs []error
	for _, o := range orders {
		if err := p.Tell(protocol.Control{V: protocol.SchemaVersion, Cancel: &o}); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

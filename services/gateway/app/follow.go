package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/protocol"
)

// follow tells the live view and the owners of executions what a cancel has done: beside the path, bounded, and never worth a wait. What is lost here
// a client reads in the row, and a worker in the answer to its next renewal.
type follow struct {
	live      *live.Client // nil: nobody to tell
	publisher *broker.Publisher
	log       *slog.Logger
	events    chan []live.Event
	end       chan struct{}
	once      sync.Once
	done      chan struct{}
}

func newFollow(c *live.Client, p *broker.Publisher, log *slog.Logger) *follow {
	f := &follow{live: c, publisher: p, log: log, events: make(chan []live.Event, 1000), end: make(chan struct{}), done: make(chan struct{})}
	go f.run()
	return f
}

func (f *follow) run() {
	defer close(f.done)
	for {
		select {
		case e := <-f.events:
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			if err := f.live.Append(ctx, e); err != nil {
				f.log.Debug("live events dropped", "events", len(e), "error", err)
			}
			cancel()
		case <-f.end:
			return
		}
	}
}

func (f *follow) stop(ctx context.Context) error {
	f.once.Do(func() { close(f.end) })
	select {
	case <-f.done:
	case <-ctx.Done():
	}
	return nil
}

// news tells the live view.
func (f *follow) news(news []protocol.News) {
	if f.live == nil || len(news) == 0 {
		return
	}
	out := make([]live.Event, len(news))
	for i, n := range news {
		out[i] = live.Event{Kind: "execution", Execution: n.Execution.String(), Flow: n.Flow.String(), Status: string(n.State), Attempt: n.Attempt, At: n.At}
		if n.Queue != "" {
			out[i] = live.Event{Kind: live.KindRemote, Execution: n.Execution.String(), Queue: n.Queue, At: n.At}
		}
	}
	select {
	case f.events <- out:
	default: // Redis hangs
	}
}

// told tells the owners of executions that they are to end.
func (f *follow) told(orders []protocol.CancelOrder) {
	for i := range orders {
		f.tell(protocol.Control{V: protocol.SchemaVersion, Cancel: &orders[i]})
	}
}

// tell sends a control message to all workers.
func (f *follow) tell(m protocol.Control) {
	subject := "cancel"
	switch {
	case m.Drain != "":
		subject = "drain"
	case m.Pause != nil:
		subject = "pause"
	}
	body, err := json.Marshal(m)
	if err == nil {
		// With no worker bound it comes back unroutable, which is no failure.
		err = f.publisher.Publish(broker.Message{Key: broker.ControlKey(subject), Type: "control", Body: body}, func(broker.Outcome) {})
	}
	if err != nil {
		f.log.Debug("a control message was not sent: the next renewal carries the same", "subject", subject, "error", err)
	}
}

// ended gives the execution that an event says has ended.
func ended(e *live.Event) (protocol.ID, bool) {
	if e.Kind != "execution" || !protocol.State(e.Status).Final() {
		return protocol.ID{}, false
	}
	id, err := protocol.ParseID(e.Execution)
	return id, err == nil
}

// Package brokertest is what every broker.Server must do: RabbitMQ and the memory that `flowctl dev` runs on pass the same tests, so that what the services rely on
// holds on both.
package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
)

// patience is how long a message may take.
const patience = 20 * time.Second

// exchange of all tests.
const exchange = "flow_orchestration"

// Fixture is a server with nothing in it. Options have no topology yet.
type Fixture struct {
	Options broker.Options
	// Sever cuts every connection from the server's side; what comes after is taken again.
	Sever func(t *testing.T)
}

// Run runs the suite; setup gives each test a server, or a virtual host, of its own.
func Run(t *testing.T, setup func(t *testing.T) Fixture) {
	for _, one := range []struct {
		name string
		do   func(*testing.T, *world)
	}{
		{"messages come in order and are confirmed", inOrder},
		{"what no queue takes is unroutable", unroutable},
		{"tasks go by pool and priority, packed", packed},
		{"a task that can't be processed yet comes back by its key", comesBack},
		{"one consumer of a report queue is active", singleActive},
		{"what a closed channel held comes again, in order, marked", comesAgain},
		{"a lost connection's acknowledgement does nothing", staleAck},
		{"a prefetch is kept, and what is beyond it goes to others", prefetch},
		{"another prefetch keeps what is in hand", retune},
		{"quiescing ends deliveries and keeps what is in hand", quiesce},
		{"each process hears what all are told", broadcast},
		{"a look at queues", inspect},
		{"closing lets everything be confirmed", closeConfirms},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, Fixture: setup(t)}
			w.Options.Exchange, w.Options.Name = exchange, t.Name()
			w.Options.Topology = func(version string) broker.Topology {
				return broker.NewTopology(exchange, []string{"default", "gpu"}, 2, version)
			}
			one.do(t, w)
		})
	}
}

// world is the fixture with helpers.
type world struct {
	t *testing.T
	Fixture
}

func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Since(begun) > patience {
			w.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

func (w *world) publisher() *broker.Publisher {
	w.t.Helper()
	p := broker.NewPublisher(w.Options)
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.Close(ctx)
	})
	w.eventually("the publisher connects", p.Ready)
	return p
}

func (w *world) conn() *broker.Conn {
	c := broker.Dial(w.Options)
	w.t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) consume(c *broker.Conn, o broker.ConsumeOptions) *broker.Consumer {
	w.t.Helper()
	k := c.Consume(o)
	w.eventually("the consumer of "+o.Queue+" is there", func() error {
		if !k.Ready() {
			return errors.New("not yet")
		}
		return nil
	})
	return k
}

func (w *world) send(p *broker.Publisher, key string, bodies ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for _, body := range bodies {
		if err := p.PublishWait(ctx, broker.Message{Key: key, Body: []byte(body)}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) receive(k *broker.Consumer) broker.Delivery {
	w.t.Helper()
	select {
	case d, ok := <-k.Deliveries():
		if !ok {
			w.t.Fatal("the deliveries have ended")
		}
		return d
	case <-time.After(patience):
		w.t.Fatal("no delivery")
	}
	panic("not reached")
}

// post publishes without waiting for confirms: a server may confirm a report no sooner than when it is acknowledged.
func (w *world) post(p *broker.Publisher, key string, bodies ...string) {
	w.t.Helper()
	for _, body := range bodies {
		if err := p.Publish(broker.Message{Key: key, Body: []byte(body)}, func(broker.Outcome) {}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// expect receives the bodies in their order.
func (w *world) expect(k *broker.Consumer, bodies ...string) []broker.Delivery {
	w.t.Helper()
	var out []broker.Delivery
	for _, want := range bodies {
		d := w.receive(k)
		if string(d.Body) != want {
			w.t.Fatalf("got %q, want %q", d.Body, want)
		}
		out = append(out, d)
	}
	return out
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func inOrder(t *testing.T, w *world) {
	p := w.publisher()
	k := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.ReportQueue(0), Prefetch: 100})
	const n = 1000
	var confirmed atomic.Int64
	for i := range n {
		if err := p.Publish(broker.Message{Key: broker.ReportKey(0), ID: fmt.Sprint("id-", i), Type: "report", Headers: map[string]any{"x-n": int64(i)}, Body: fmt.Appendf(nil, "%d", i)}, func(o broker.Outcome) {
			if o == broker.Confirmed {
				confirmed.Add(1)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		d := w.receive(k)
		if string(d.Body) != fmt.Sprint(i) || d.Redelivered || d.MessageID != fmt.Sprint("id-", i) || d.Type != "report" || d.Headers["x-n"] != int64(i) || d.Key != broker.ReportKey(0) || !d.Ack() {
			t.Fatalf("delivery %d: %+v", i, d)
		}
	}
	w.eventually("all are confirmed", func() error {
		if confirmed.Load() != n {
			return fmt.Errorf("%d of %d", confirmed.Load(), n)
		}
		return nil
	})
	if k.Unacked() != 0 {
		t.Errorf("%d are held", k.Unacked())
	}
}

func unroutable(t *testing.T, w *world) {
	p := w.publisher()
	if err := p.PublishWait(t.Context(), broker.Message{Key: broker.TaskKey("nobody", "normal"), Body: []byte("x")}); err == nil || err.Error() != "publish to tasks.nobody.normal: unroutable" {
		t.Errorf("%v", err)
	}
	w.send(p, broker.TaskKey("default", "low"), "the next one is taken")
}

func packed(t *testing.T, w *world) {
	p := w.publisher()
	var tasks []protocol.Task
	for i := range 12 {
		tasks = append(tasks, protocol.Task{V: protocol.SchemaVersion, ID: protocol.ID{byte(i + 1)}, Attempt: 1, Pool: []string{"", "gpu"}[i%2], Priority: broker.Priorities[i%3]})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, m := range broker.TaskMessages(tasks, func(i int, err error) { t.Errorf("task %d: %v", i, err) }) {
		if err := p.PublishWait(ctx, m.Message); err != nil {
			t.Fatal(err)
		}
	}
	conn := w.conn()
	for _, pool := range []string{"default", "gpu"} {
		for _, priority := range broker.Priorities {
			k := w.consume(conn, broker.ConsumeOptions{Queue: broker.TaskQueue(pool, priority), Prefetch: 10})
			for got := 0; got < 2; {
				d := w.receive(k)
				got += len(slices.Collect(broker.Tasks(d.Body)))
				if d.Key != broker.TaskKey(pool, priority) || !d.Ack() {
					t.Errorf("%+v", d)
				}
			}
		}
	}
}

func comesBack(t *testing.T, w *world) {
	p := w.publisher()
	k := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.TaskQueue("default", "low"), Prefetch: 1})
	begun := time.Now()
	if err := p.PublishWait(t.Context(), broker.Message{Exchange: broker.RetryExchange(exchange), Key: broker.TaskKey("default", "low"), Headers: map[string]any{"x-flow-returns": int64(3)}, Body: []byte("later")}); err != nil {
		t.Fatal(err)
	}
	d := w.expect(k, "later")[0]
	if d.Headers["x-flow-returns"] != int64(3) || d.Headers["x-first-death-reason"] != "expired" {
		t.Errorf("headers %v", d.Headers)
	}
	if waited := time.Since(begun); waited < broker.RetryAfterMillis*time.Millisecond*9/10 {
		t.Errorf("it came after %s", waited)
	}
}

func singleActive(t *testing.T, w *world) {
	p := w.publisher()
	first := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.ReportQueue(1), Prefetch: 10})
	second := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.ReportQueue(1), Prefetch: 10})
	w.post(p, broker.ReportKey(1), numbers(0, 20)...)
	held := w.expect(first, numbers(0, 10)...)
	select {
	case d := <-second.Deliveries():
		t.Fatalf("the second consumer was given %q", d.Body)
	default:
	}
	if !held[4].AckMultiple(5) {
		t.Fatal("not acknowledged")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := first.Stop(ctx); err != nil { // it held 5 to 14
		t.Fatal(err)
	}
	for i, d := range w.expect(second, numbers(5, 15)...) {
		if !d.Redelivered || !d.Ack() {
			t.Errorf("%d: %+v", 5+i, d)
		}
	}
	for _, d := range w.expect(second, numbers(15, 20)...) {
		if d.Redelivered || !d.Ack() {
			t.Errorf("%+v", d)
		}
	}
}

func comesAgain(t *testing.T, w *world) {
	p := w.publisher()
	k := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.ReportQueue(0), Prefetch: 6})
	w.post(p, broker.ReportKey(0), numbers(0, 8)...)
	held := w.expect(k, numbers(0, 6)...)
	if !held[1].Ack() || !held[4].Ack() {
		t.Fatal("not acknowledged")
	}
	k.Reset()
	if lost := <-k.Lost(); lost != held[0].Epoch {
		t.Errorf("epoch %d is lost, that of the deliveries is %d", lost, held[0].Epoch)
	}
	var again []broker.Delivery
	for len(again) < 6 { // the old channel's may still be buffered
		if d := w.receive(k); d.Epoch != held[0].Epoch {
			again = append(again, d)
		}
	}
	for i, want := range []string{"0", "2", "3", "5", "6", "7"} {
		if d := again[i]; string(d.Body) != want || i < 4 && !d.Redelivered || !d.Ack() {
			t.Errorf("%d: got %q, redelivered %v, want %q", i, d.Body, d.Redelivered, want)
		}
	}
	if held[0].Ack() || !held[0].Stale() {
		t.Error("the closed channel's delivery was acknowledged")
	}
}

func staleAck(t *testing.T, w *world) {
	p := w.publisher()
	k := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.TaskQueue("default", "high"), Prefetch: 10})
	w.send(p, broker.TaskKey("default", "high"), "once")
	for range 3 {
		d := w.receive(k)
		w.Sever(t)
		select {
		case <-k.Lost():
		case <-time.After(patience):
			t.Fatal("the loss was not told")
		}
		if d.Ack() || !d.Stale() {
			t.Fatal("an acknowledgement on a lost channel was taken")
		}
	}
	if d := w.expect(k, "once")[0]; !d.Redelivered || !d.Ack() {
		t.Errorf("%+v", d)
	}
	w.eventually("the publisher comes back", func() error { // one that hasn't seen the cut yet answers: unknown
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return p.PublishWait(ctx, broker.Message{Key: broker.TaskKey("default", "high"), Body: []byte("after")})
	})
	w.expect(k, "after")
}

func prefetch(t *testing.T, w *world) {
	p := w.publisher()
	o := broker.ConsumeOptions{Queue: broker.TaskQueue("default", "normal"), Prefetch: 5}
	w.send(p, broker.TaskKey("default", "normal"), numbers(0, 60)...)
	early := w.consume(w.conn(), o)
	held := w.expect(early, numbers(0, 5)...)
	late := w.consume(w.conn(), o)
	for range 55 {
		if d := w.receive(late); !d.Ack() {
			t.Fatal("an acknowledgement failed")
		}
	}
	select {
	case d := <-early.Deliveries():
		t.Errorf("the early one was given %s beyond its prefetch", d.Body)
	default:
	}
	if !held[4].AckMultiple(5) {
		t.Error("an acknowledgement failed")
	}
}

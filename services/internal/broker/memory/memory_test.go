package memory

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/broker/brokertest"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t *testing.T) brokertest.Fixture {
		s := New()
		t.Cleanup(s.Close)
		return brokertest.Fixture{
			Options: broker.Options{Server: s, Log: slog.New(slog.NewTextHandler(t.Output(), nil))},
			Sever:   func(*testing.T) { s.Sever() },
		}
	})
}

// TestBounded: a queue of tasks refuses what is too much, and takes again when there is room; reports are always taken.
func TestBounded(t *testing.T) {
	t.Parallel()
	s := New()
	t.Cleanup(s.Close)
	o := broker.Options{Server: s, Exchange: "x", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Topology: func(v string) broker.Topology { return broker.NewTopology("x", []string{"default"}, 1, v) }}
	p := broker.NewPublisher(o)
	conn := broker.Dial(o)
	t.Cleanup(func() { p.Close(context.Background()); conn.Close() })
	big := bytes.Repeat([]byte("x"), maxQueueBytes/4)
	put := func(key string) error { return p.PublishWait(t.Context(), broker.Message{Key: key, Body: big}) }
	reported := make(chan broker.Outcome, 5)
	for range 5 {
		if err := p.Publish(broker.Message{Key: broker.ReportKey(0), Body: big}, func(o broker.Outcome) { reported <- o }); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		if err := put(broker.TaskKey("default", "low")); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(broker.TaskKey("default", "low")); err == nil || err.Error() != "publish to tasks.default.low: refused" {
		t.Fatalf("a full queue: %v", err)
	}
	if err := put(broker.TaskKey("default", "high")); err != nil {
		t.Fatalf("beside a full queue: %v", err)
	}
	k := conn.Consume(broker.ConsumeOptions{Queue: broker.TaskQueue("default", "low"), Prefetch: 4})
	d := <-k.Deliveries()
	if err := put(broker.TaskKey("default", "low")); err == nil {
		t.Fatal("what is delivered and not acknowledged needs its room")
	}
	if !d.Ack() {
		t.Fatal("not acknowledged")
	}
	if err := put(broker.TaskKey("default", "low")); err != nil {
		t.Fatalf("after an acknowledgement: %v", err)
	}
	reports := conn.Consume(broker.ConsumeOptions{Queue: broker.ReportQueue(0), Prefetch: 5})
	for range 5 {
		d := <-reports.Deliveries()
		d.Ack()
		if o := <-reported; o != broker.Confirmed {
			t.Errorf("a report beyond the bound of tasks: %s", o)
		}
	}
}

// TestReportsAreConfirmedLate: whoever is told that a report is confirmed may rely on it after this process is killed, so it is the consumer's acknowledgement that confirms.
func TestReportsAreConfirmedLate(t *testing.T) {
	t.Parallel()
	s := New()
	t.Cleanup(s.Close)
	o := broker.Options{Server: s, Exchange: "x", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Topology: func(v string) broker.Topology { return broker.NewTopology("x", []string{"default"}, 1, v) }}
	p := broker.NewPublisher(o)
	conn := broker.Dial(o)
	t.Cleanup(func() { conn.Close(); p.Close(context.Background()) })
	got := make(chan broker.Outcome, 3)
	for _, key := range []string{broker.ReportKey(0), broker.ReportKey(0), broker.DeadKey} {
		if err := p.Publish(broker.Message{Key: key}, func(o broker.Outcome) { got <- o }); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.PublishWait(t.Context(), broker.Message{Key: broker.TaskKey("default", "low")}); err != nil { // published later, confirmed before them
		t.Fatal(err)
	}
	k := conn.Consume(broker.ConsumeOptions{Queue: broker.ReportQueue(0), Prefetch: 2})
	<-k.Deliveries()
	<-k.Deliveries()
	k.Reset() // what goes back is not confirmed by that
	<-k.Lost()
	if len(got) != 0 {
		t.Fatalf("%s without an acknowledgement", <-got)
	}
	<-k.Deliveries()
	if second := <-k.Deliveries(); !second.AckMultiple(2) {
		t.Fatal("not acknowledged")
	}
	for range 2 {
		if o := <-got; o != broker.Confirmed {
			t.Error(o)
		}
	}
	dead := conn.Consume(broker.ConsumeOptions{Queue: broker.DeadQueue, Prefetch: 1})
	d := <-dead.Deliveries()
	if len(got) != 0 || !d.Ack() || <-got != broker.Confirmed {
		t.Error("a dead letter")
	}
}

// TestClosed: nobody connects to a broker that was closed, and its clients end all the same.
func TestClosed(t *testing.T) {
	t.Parallel()
	s := New()
	o := broker.Options{Server: s, Exchange: "x", Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Topology: func(v string) broker.Topology { return broker.NewTopology("x", nil, 1, v) }}
	conn := broker.Dial(o)
	k := conn.Consume(broker.ConsumeOptions{Queue: broker.ReportQueue(0), Prefetch: 1})
	s.Close()
	conn.Close()
	if _, open := <-k.Deliveries(); open {
		t.Error("a delivery")
	}
	if err := conn.Ready(); !errors.Is(err, broker.ErrAway) {
		t.Error(err)
	}
}

func TestTopicMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"tasks.default.low", "tasks.default.low", true}, {"tasks.default.low", "tasks.default", false}, {"#", "", true}, {"#", "a.b", true},
		{"control.#", "control", true}, {"control.#", "control.cancel", true}, {"control.#", "control.a.b", true}, {"control.#", "controls.a", false},
		{"a.*", "a.b", true}, {"a.*", "a", false}, {"a.*", "a.b.c", false}, {"#.c", "a.b.c", true}, {"a.#.c", "a.c", true}, {"a.#.c", "a.b", false}, {"*.#", "a", true}, {"*", "", true},
	} {
		if got := topicMatch(c.pattern, c.key); got != c.want {
			t.Errorf("%q, %q: %v", c.pattern, c.key, got)
		}
	}
}

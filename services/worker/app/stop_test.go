package app

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/testkit"
)

// TestGO4_StopRedeliversNothing: SIGTERM with 100 executions in flight and 400 tasks more, delivered or waiting. What was begun ends here, once; the rest goes back
// as if it had never been delivered.
func TestGO4_StopRedeliversNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, 15*time.Second)
	flow := w.flow(t, "a", "set", "b")
	w.outside.shut("a")
	metrics := testkit.FreePort(t)
	p := w.process(t, "stopping", "MAX_CONCURRENT_FLOWS=100", "RABBITMQ_PREFETCH=50", fmt.Sprintf("METRICS_PORT=%d", metrics))
	w.accept(t, flow, 500, "normal")
	w.outside.called(t, 30*time.Second, "a", 100)
	// All that the prefetch allows (a quarter of the slots, and 50) has come: a delivery that meets the end of the consuming on its way is returned by RabbitMQ itself, and counted.
	testkit.Eventually(t, 20*time.Second, "75 tasks are held", func() error {
		if held := metric(t, metrics, "worker_buffered"); held != 75 {
			return fmt.Errorf("%v are", held)
		}
		return nil
	})
	ended := make(chan bool, 1)
	go func() { ended <- p.Terminate(30 * time.Second) }()
	testkit.Eventually(t, 10*time.Second, "it stops consuming", func() error { return notReady(p.base) })
	w.outside.open("a")
	if !<-ended || p.Err() != nil {
		t.Fatalf("it did not stop well: %v\n%s", p.Err(), p.Output())
	}
	w.outside.once(t, "a", 100)
	w.outside.once(t, "b", 100)
	w.states(t, 20*time.Second, "queued|400 succeeded|100")
	k, _ := w.consume(t, broker.ConsumeOptions{Queue: broker.TaskQueue("default", "normal"), Prefetch: 1000})
	for i := range 400 {
		if d := receive(t, k); d.Redelivered {
			t.Fatalf("task %d is redelivered", i)
		}
	}
}

func notReady(base string) error {
	if err := ready(base); err == nil {
		return fmt.Errorf("it is ready")
	}
	return nil
}

// A second SIGTERM ends the patience: calls are cut, and handed back in order.
func TestSecondSignalCuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, 15*time.Second)
	flow := w.flow(t, "a")
	w.outside.shut("a")
	p := w.process(t, "hurried", "STOP_GRACE=5m", "STOP_PATIENCE=5m")
	w.accept(t, flow, 20, "normal")
	w.outside.called(t, 30*time.Second, "a", 20)
	p.Signal(syscall.SIGTERM)
	testkit.Eventually(t, 10*time.Second, "it stops", func() error { return notReady(p.base) })
	select {
	case <-p.Done():
		t.Fatal("it cut after the first signal")
	default:
	}
	if !p.Terminate(10*time.Second) || p.Err() != nil {
		t.Fatalf("after the second signal: %v\n%s", p.Err(), p.Output())
	}
	w.states(t, 10*time.Second, "queued|20")
	if n := w.sql(t, "SELECT max(deaths) FROM executions"); n != "0" {
		t.Errorf("handing back counted as %s deaths", n)
	}
	w.outside.openAll()
}

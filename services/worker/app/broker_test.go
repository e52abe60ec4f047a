package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// TestMQ2_StopWithoutABroker: the broker answers nothing any more while TCP lives, with 50 calls in flight and tasks held. The worker is out in less than 5 s whether
// the calls come back or not, and its successor ends what it left.
func TestMQ2_StopWithoutABroker(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		answers bool // the calls in flight come back
	}{{"answers that can't be reported", true}, {"calls that hang", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil, 15*time.Second)
			proxy := w.throughProxy(t)
			flow := w.flow(t, "a", "b")
			w.outside.shut("a")
			dir := t.TempDir()
			p := w.process(t, "cut off", "WORKER_STATE_DIR="+dir, "MAX_CONCURRENT_FLOWS=50")
			w.accept(t, flow, 60, "normal")
			w.outside.called(t, 30*time.Second, "a", 50)
			proxy.DropToClient(true)
			proxy.DropToServer(true)
			if c.answers {
				w.outside.open("a")
			}
			began := time.Now()
			if !p.Terminate(5 * time.Second) {
				t.Fatalf("it still runs after 5 s\n%s", p.Output())
			}
			t.Logf("out after %s", time.Since(began).Round(time.Millisecond))
			if p.Err() != nil {
				t.Errorf("it ended with %v\n%s", p.Err(), p.Output())
			}
			w.outside.openAll()
			proxy.DropToClient(false)
			proxy.DropToServer(false)
			w.process(t, "successor", "WORKER_STATE_DIR="+dir)
			w.states(t, 60*time.Second, "succeeded|60")
			w.outside.once(t, "b", 60)
		})
	}
}

// TestMQ1_NothingBeginsUnderAnAlarm: RabbitMQ's memory alarm while calls are in flight, and tasks are held for which there are slots. The worker begins none of them, its
// session lives on for two leases, and everything ends once the alarm is over, each call made once.
func TestMQ1_NothingBeginsUnderAnAlarm(t *testing.T) {
	t.Parallel()
	rabbit := testkit.NewRabbitMQ(t)
	const lease = 3 * time.Second
	w := newWorld(t, rabbit, lease)
	flow := w.flow(t, "a", "b")
	w.outside.shut("a")
	a := w.worker(t, "alarmed", func(o *Options) { o.HealthReportInterval = time.Second })
	w.accept(t, flow, 20, "normal")
	w.outside.called(t, 30*time.Second, "a", 20)
	session := w.sql(t, "SELECT id FROM sessions WHERE alive")
	a.runner.Pause("test") // until the alarm does it
	w.accept(t, flow, 30, "normal")
	testkit.Eventually(t, 10*time.Second, "tasks are held", func() error {
		if _, _, held := a.runner.Load(); held != 30 {
			return fmt.Errorf("%d", held)
		}
		return nil
	})
	rabbit.MustCtl(t, "set_vm_memory_high_watermark", "0.00001")
	a.until(t, 20*time.Second, 1, "worker_paused", "reason", "alarm")
	a.runner.Resume("test")
	beats := w.beat(t)
	testkit.Eventually(t, 30*time.Second, "renewals go on for two leases", func() error {
		if now := w.beat(t); now < beats+6 {
			return fmt.Errorf("%d renewals", now-beats)
		}
		return nil
	})
	if n := len(w.outside.visits("a")); n != 20 {
		t.Errorf("%d executions began during the alarm", n-20)
	}
	w.outside.open("a") // what ends now can't be reported either
	if got := a.metric(t, "worker_window_closings_total"); got > 0 {
		t.Errorf("the trust window closed %v times", got)
	}
	rabbit.MustCtl(t, "set_vm_memory_high_watermark", "0.4")
	w.states(t, 60*time.Second, "succeeded|50")
	w.outside.once(t, "a", 50)
	w.outside.once(t, "b", 50)
	if now := w.sql(t, "SELECT id FROM sessions WHERE alive"); now != session {
		t.Errorf("the session was %s and is %s", session, now)
	}
}

// TestMQ2_StopUnderAnAlarm: SIGTERM while the broker has an alarm: out in less than 5 s, and the successor ends what is left.
func TestMQ2_StopUnderAnAlarm(t *testing.T) {
	t.Parallel()
	rabbit := testkit.NewRabbitMQ(t)
	w := newWorld(t, rabbit, 15*time.Second)
	flow := w.flow(t, "a", "b")
	w.outside.shut("a")
	dir := t.TempDir()
	p := w.process(t, "alarmed", "WORKER_STATE_DIR="+dir)
	w.accept(t, flow, 50, "normal")
	w.outside.called(t, 30*time.Second, "a", 50)
	rabbit.MustCtl(t, "set_vm_memory_high_watermark", "0.00001")
	testkit.Eventually(t, 20*time.Second, "the alarm is seen", func() error {
		if err := ready(p.base); err == nil || !strings.Contains(err.Error(), "alarm") {
			return fmt.Errorf("readyz: %v", err)
		}
		return nil
	})
	w.outside.open("a")
	if !p.Terminate(5*time.Second) || p.Err() != nil {
		t.Fatalf("it did not end in 5 s, or not well: %v\n%s", p.Err(), p.Output())
	}
	rabbit.MustCtl(t, "set_vm_memory_high_watermark", "0.4")
	w.process(t, "successor", "WORKER_STATE_DIR="+dir)
	w.states(t, 60*time.Second, "succeeded|50")
	w.outside.once(t, "b", 50)
}

// throughProxy lets the workers that start from now on reach the broker through a proxy.
func (w *world) throughProxy(t *testing.T) *testkit.CutProxy {
	t.Helper()
	host := strings.Split(strings.SplitN(w.amqp, "@", 2)[1], "/")[0]
	proxy := testkit.NewCutProxy(t, host)
	w.amqp = strings.Replace(w.amqp, host, proxy.Address(), 1)
	return proxy
}

// beat is how often the session that lives was renewed.
func (w *world) beat(t *testing.T) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(w.sql(t, "SELECT beat FROM sessions WHERE alive"), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

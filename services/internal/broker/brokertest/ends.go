package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"flowplatform/services/internal/broker"
)

// retune: another prefetch takes effect while deliveries are in hand: they stay in hand, can still be acknowledged, and don't come again.
func retune(t *testing.T, w *world) {
	p := w.publisher()
	k := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.TaskQueue("default", "normal"), Prefetch: 2})
	const n = 20
	w.send(p, broker.TaskKey("default", "normal"), numbers(0, n)...)
	seen := map[string]bool{}
	take := func(count int) (got []broker.Delivery) {
		t.Helper()
		for range count {
			d := w.receive(k)
			if seen[string(d.Body)] { // redelivered it may be: what is on its way to a consumer that is withdrawn turns back
				t.Fatalf("%q comes again", d.Body)
			}
			seen[string(d.Body)] = true
			got = append(got, d)
		}
		return got
	}
	first := take(2)
	k.Retune(5)
	k.Retune(7) // at once: the last counts
	second := take(7)
	if k.Unacked() < 9 || second[0].Epoch != first[0].Epoch {
		t.Errorf("%d are held, epochs %d and %d", k.Unacked(), first[0].Epoch, second[0].Epoch)
	}
	k.Retune(1)
	for _, d := range append(first, second...) {
		if !d.Ack() {
			t.Error("what was in hand can't be acknowledged")
		}
	}
	for range n - 9 {
		if d := take(1)[0]; !d.Ack() {
			t.Error("not acknowledged")
		}
	}
	if k.Unacked() != 0 {
		t.Errorf("%d are held", k.Unacked())
	}
	k.Retune(3)
	w.ends(k)
}

// ends quiesces the consumer, and sees that nothing comes any more.
func (w *world) ends(k *broker.Consumer) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := k.Quiesce(ctx); err != nil {
		w.t.Fatal(err)
	}
	select {
	case d, open := <-k.Deliveries():
		if open {
			w.t.Errorf("a delivery after the last: %q", d.Body)
		}
	case <-ctx.Done():
		w.t.Error("deliveries don't end")
	}
}

func quiesce(t *testing.T, w *world) {
	p := w.publisher()
	k := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.TaskQueue("default", "low"), Prefetch: 3})
	w.send(p, broker.TaskKey("default", "low"), numbers(0, 5)...)
	held := w.expect(k, numbers(0, 3)...)
	w.ends(k)
	if !held[0].Ack() || !held[1].Ack() {
		t.Error("what is in hand can't be acknowledged any more")
	}
	other := w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.TaskQueue("default", "low"), Prefetch: 10})
	w.expect(other, "3", "4") // what was acknowledged has not made room for more
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := k.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if d := w.expect(other, "2")[0]; !d.Redelivered {
		t.Error("not marked")
	}
}

func broadcast(t *testing.T, w *world) {
	p := w.publisher()
	var all []*broker.Consumer
	var conns []*broker.Conn
	for i := range 2 {
		conns = append(conns, w.conn())
		all = append(all, w.consume(conns[i], broker.ConsumeOptions{Queue: broker.ControlQueue(fmt.Sprint(i)), Prefetch: 10, Bindings: []string{broker.ControlBinding}}))
	}
	w.send(p, broker.ControlKey("cancel"), "stop")
	for _, k := range all {
		if d := w.expect(k, "stop")[0]; !d.Ack() {
			t.Error("not acknowledged")
		}
	}
	for _, c := range conns {
		c.Close()
	}
	w.eventually("the queues have gone with their connections", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err := p.PublishWait(ctx, broker.Message{Key: broker.ControlKey("cancel"), Body: []byte("x")})
		if err == nil || err.Error() != "publish to control.cancel: unroutable" {
			return fmt.Errorf("publishing says %v", err)
		}
		return nil
	})
}

func inspect(t *testing.T, w *world) {
	p := w.publisher()
	conn := w.conn()
	w.send(p, broker.TaskKey("gpu", "low"), "a", "b", "c")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w.eventually("three are ready", func() error {
		s, err := conn.Inspect(ctx, broker.TaskQueue("gpu", "low"))
		if err != nil || s.Ready != 3 || s.Consumers != 0 {
			return fmt.Errorf("%+v, %w", s, errors.Join(err, errors.New("not yet")))
		}
		return nil
	})
	w.expect(w.consume(w.conn(), broker.ConsumeOptions{Queue: broker.TaskQueue("gpu", "low"), Prefetch: 2}), "a", "b")
	w.eventually("one is ready, two are held", func() error {
		s, err := conn.Inspect(ctx, broker.TaskQueue("gpu", "low"))
		if err != nil || s.Ready != 1 || s.Consumers != 1 {
			return fmt.Errorf("%+v, %w", s, errors.Join(err, errors.New("not yet")))
		}
		return nil
	})
	if _, err := conn.Inspect(ctx, broker.TaskQueue("nobody", "low")); !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("%v", err)
	}
	if conn.Connects() != 1 {
		t.Errorf("looking took %d connections", conn.Connects())
	}
}

func closeConfirms(t *testing.T, w *world) {
	p := w.publisher()
	const n = 500
	var confirmed atomic.Int64
	for range n {
		if err := p.Publish(broker.Message{Key: broker.TaskKey("default", "high"), Body: []byte("x")}, func(o broker.Outcome) {
			if o == broker.Confirmed {
				confirmed.Add(1)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if confirmed.Load() != n {
		t.Errorf("%d of %d were confirmed", confirmed.Load(), n)
	}
	if err := p.Publish(broker.Message{Key: broker.TaskKey("default", "high")}, func(broker.Outcome) { t.Error("answered") }); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("after closing: %v", err)
	}
}

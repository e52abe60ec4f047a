package broker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// Another prefetch takes effect while deliveries are in hand: they stay in hand, can still be acknowledged, and don't come again.
func TestMQ18_RetuneKeepsWhatIsInHand(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	p := publisher(t, b.o)
	k := consumer(t, b.o, ConsumeOptions{Queue: TaskQueue("default", "normal"), Prefetch: 2})
	const n = 20
	for i := range n {
		if err := p.PublishWait(t.Context(), Message{Key: TaskKey("default", "normal"), Body: fmt.Appendf(nil, "%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	take := func(count int) (got []Delivery) {
		t.Helper()
		for range count {
			d := receive(t, k)
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
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := k.Quiesce(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case _, open := <-k.Deliveries():
		if open {
			t.Error("a delivery after the last")
		}
	case <-ctx.Done():
		t.Error("deliveries don't end")
	}
}

package broker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Rows of FAILURES that the broker itself provokes: what it may do to us, seen at a real one.

// raw is a channel without anything of ours.
func raw(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// viaProxy puts a proxy before the server.
func (b *bundle) viaProxy(t *testing.T) (Options, *testkit.CutProxy) {
	proxy := testkit.NewCutProxy(t, fmt.Sprintf("127.0.0.1:%d", b.server.Port))
	o := b.o
	o.URL = fmt.Sprintf("amqp://guest:guest@%s/%s", proxy.Address(), b.vhost)
	return o, proxy
}

// TestMQ5_ManyReturnsLoseNothing: a report that comes back more often than the broker's own limit (20 on 4.x, unless told otherwise) is still there.
func TestMQ5_ManyReturnsLoseNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	p := publisher(t, b.o)
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		ch := raw(t, b.o.URL)
		in, err := ch.Consume(ReportQueue(0), "", false, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := <-in; string(d.Body) != "kept" || d.Redelivered != (i > 0) {
			t.Fatalf("return %d: %q, redelivered %v", i, d.Body, d.Redelivered)
		}
		ch.Close()
	}
	k := consumer(t, b.o, ConsumeOptions{Queue: ReportQueue(0), Prefetch: 10})
	if d := receive(t, k); !d.Redelivered || !d.Ack() {
		t.Error("the 26th delivery can't be acknowledged")
	}
}

// TestMQ8_DeadLettersWaitForTheirQueue: what is rejected while the dead letters' queue is away is not lost: at-least-once needs two arguments, and has them.
func TestMQ8_DeadLettersWaitForTheirQueue(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	// How long a message without a route waits for the next try; three minutes unless told otherwise.
	b.server.MustCtl(t, "eval", "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).")
	p := publisher(t, b.o)
	const n = 20
	for i := range n {
		if err := p.PublishWait(t.Context(), Message{Key: TaskKey("default", "low"), ID: fmt.Sprint(i), Body: fmt.Appendf(nil, "%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	b.server.MustCtl(t, "--vhost", b.vhost, "delete_queue", DeadQueue)
	ch := raw(t, b.o.URL)
	deliveries, err := ch.Consume(TaskQueue("default", "low"), "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := (<-deliveries).Reject(false); err != nil {
			t.Fatal(err)
		}
	}
	conn := Dial(b.o) // declares what is missing
	t.Cleanup(func() { conn.Close() })
	dead := conn.Consume(ConsumeOptions{Queue: DeadQueue, Prefetch: n})
	seen := map[string]bool{}
	for len(seen) < n { // some may come twice
		d := receiveWithin(t, dead, 60*time.Second)
		seen[string(d.Body)] = true
		d.Ack()
	}
}

func receiveWithin(t *testing.T, k *Consumer, bound time.Duration) Delivery {
	t.Helper()
	select {
	case d := <-k.Deliveries():
		return d
	case <-time.After(bound):
		t.Fatal("no delivery")
		return Delivery{}
	}
}

// TestMQ9_ConsumerTimeout: the broker takes back what is held too long. The holder hears so, its late acknowledgement does nothing, and the delivery comes again.
func TestMQ9_ConsumerTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.NewRabbitMQ(t))
	b.server.MustCtl(t, "eval", "application:set_env(rabbit, consumer_timeout, 1000), application:set_env(rabbit, channel_tick_interval, 500).")
	p := publisher(t, b.o)
	k := consumer(t, b.o, ConsumeOptions{Queue: ReportQueue(0), Prefetch: 10})
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("held")}); err != nil {
		t.Fatal(err)
	}
	d := receive(t, k)
	select {
	case <-k.Lost():
	case <-time.After(20 * time.Second):
		t.Fatal("the broker didn't take it back")
	}
	if !d.Stale() || d.Ack() {
		t.Error("a late acknowledgement was taken")
	}
	if again := receive(t, k); !again.Redelivered || string(again.Body) != "held" || !again.Ack() {
		t.Errorf("%+v", again)
	}
}

// TestMQ15_OtherArguments: a queue that another build made with other arguments is taken as it is: no 406, no crash loop.
func TestMQ15_OtherArguments(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	if _, err := raw(t, b.o.URL).QueueDeclare(RetryQueue, true, false, false, false, amqp.Table{"x-queue-type": "quorum", "x-message-ttl": int32(7777)}); err != nil {
		t.Fatal(err)
	}
	p := publisher(t, b.o)
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("x")}); err != nil {
		t.Error(err)
	}
	if dials := p.conn.dials; dials != 1 {
		t.Errorf("%d connections were made", dials)
	}
}

// TestMQ18_ALateConsumerGetsItsShare: with a small prefetch the backlog stays in the queue, for whoever comes.
func TestMQ18_ALateConsumerGetsItsShare(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	p := publisher(t, b.o)
	const n = 100
	for i := range n {
		if err := p.PublishWait(t.Context(), Message{Key: TaskKey("default", "normal"), Body: fmt.Appendf(nil, "%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	o := ConsumeOptions{Queue: TaskQueue("default", "normal"), Prefetch: 5}
	early := consumer(t, b.o, o)
	var held []Delivery
	for range 5 {
		held = append(held, receive(t, early))
	}
	late := consumer(t, b.o, o)
	for range n - 5 {
		if d := receive(t, late); !d.Ack() {
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

// TestMQ19_DiskAlarm: with the disk full by the broker's own measure nothing is published and nothing lost, and all goes on when there is room.
func TestMQ19_DiskAlarm(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.NewRabbitMQ(t))
	p := publisher(t, b.o)
	b.server.MustCtl(t, "set_disk_free_limit", "100000GB")
	got := make(chan Outcome, 1)
	testkit.Eventually(t, 20*time.Second, "the alarm is seen", func() error {
		if err := p.Ready(); err == ErrBlocked {
			return nil
		}
		p.Publish(Message{Key: TaskKey("default", "low"), Body: []byte("probe")}, func(Outcome) {}) // the server tells those who publish
		return fmt.Errorf("not yet")
	})
	if err := p.Publish(Message{Key: ReportKey(0), Body: []byte("during")}, func(o Outcome) { got <- o }); err != nil {
		t.Fatal(err)
	}
	b.server.MustCtl(t, "set_disk_free_limit", "50MB")
	if o := <-got; o != Confirmed {
		t.Errorf("what waited for the alarm's end: %s", o)
	}
	testkit.Eventually(t, 10*time.Second, "it is ready", p.Ready)
}

// TestMQ20_ControlQueueComesBack: a process's own queue dies with its connection and what was sent meanwhile is lost (the session's renewal brings it: see
// the store's suite, "what a session owns, and must cancel"); it is declared again by itself.
func TestMQ20_ControlQueueComesBack(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	o, proxy := b.viaProxy(t)
	p := publisher(t, b.o)
	k := consumer(t, o, ConsumeOptions{Queue: ControlQueue("me"), Prefetch: 10, Bindings: []string{ControlBinding}})
	for range 3 {
		proxy.Sever()
		<-k.Lost()
		testkit.Eventually(t, 20*time.Second, "messages come again", func() error { // those to the dying queue are lost
			p.PublishWait(t.Context(), Message{Key: ControlKey("x"), Body: []byte("cancel")})
			select {
			case d := <-k.Deliveries():
				if !d.Ack() {
					return fmt.Errorf("of a lost channel")
				}
				return nil
			case <-time.After(200 * time.Millisecond):
				return fmt.Errorf("nothing")
			}
		})
	}
}

// TestMQ21_ServerThatStopsConfirming: the connection looks well and no confirm comes. The outcome is unknown within the bound, the connection goes, and the next
// message is confirmed on another one.
func TestMQ21_ServerThatStopsConfirming(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	o, proxy := b.viaProxy(t)
	o.ConfirmTimeout = time.Second
	p := publisher(t, o)
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("first")}); err != nil {
		t.Fatal(err)
	}
	proxy.DropToClient(true)
	got, begun := make(chan Outcome, 1), time.Now()
	if err := p.Publish(Message{Key: ReportKey(0), Body: []byte("silence")}, func(o Outcome) { got <- o }); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 2*time.Second, "the silence is seen before that", func() error {
		if s := p.Silence(); s < 300*time.Millisecond || p.Ready() != nil {
			return fmt.Errorf("%s, %v", s, p.Ready())
		}
		return nil
	})
	if out := <-got; out != Unknown || time.Since(begun) > 4*time.Second {
		t.Errorf("%s after %s", out, time.Since(begun))
	}
	proxy.DropToClient(false)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.PublishWait(ctx, Message{Key: ReportKey(0), Body: []byte("after")}); err != nil || p.Silence() != 0 {
		t.Errorf("%v, %s of silence with nothing in flight", err, p.Silence())
	}
}

package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMQ5_MQ8_MQ14_TopologyByVersion(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3.10", "4.0", "4.3"} {
		got, err := json.MarshalIndent(NewTopology("flow_orchestration", []string{"default"}, 2, version), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "topology-"+version+".json")
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytes.TrimSpace(want), got) {
			t.Errorf("%s has changed: arguments are frozen for a name; a change is a new queue. If it is one: go test ./services/internal/broker -update", path)
		}
	}
}

type bundle struct {
	server *testkit.RabbitServer
	o      Options
	vhost  string
}

func setup(t *testing.T, server *testkit.RabbitServer) bundle {
	t.Helper()
	url, vhost := server.VHost(t)
	return bundle{server: server, vhost: vhost, o: optionsFor(t, url)}
}

func optionsFor(t *testing.T, url string) Options {
	return Options{URL: url, Exchange: "flow_orchestration", Name: t.Name(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Topology: func(v string) Topology { return NewTopology("flow_orchestration", []string{"default"}, 1, v) }}
}

func publisher(t *testing.T, o Options) *Publisher {
	t.Helper()
	p := NewPublisher(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.Close(ctx)
	})
	testkit.Eventually(t, 20*time.Second, "the publisher connects", p.Ready)
	return p
}

func consumer(t *testing.T, o Options, c ConsumeOptions) *Consumer {
	t.Helper()
	conn := Dial(o)
	t.Cleanup(func() { conn.Close() })
	k := conn.Consume(c)
	testkit.Eventually(t, 20*time.Second, "the consumer is registered", func() error {
		if !k.Ready() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	return k
}

func receive(t *testing.T, k *Consumer) Delivery {
	t.Helper()
	select {
	case d := <-k.Deliveries():
		return d
	case <-time.After(20 * time.Second):
		t.Fatal("no delivery")
		return Delivery{}
	}
}

func TestMQ4_UnroutableIsNotConfirmed(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	p := publisher(t, b.o)
	if err := p.PublishWait(t.Context(), Message{Key: "tasks.nobody.normal", Body: []byte("x")}); err == nil || err.Error() != "publish to tasks.nobody.normal: unroutable" {
		t.Errorf("%v", err)
	}
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("x")}); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// TestMQ3_LostConfirmIsUnknown cuts the connection when the server's confirm comes by.
func TestMQ3_LostConfirmIsUnknown(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.RabbitMQ(t))
	proxy := testkit.NewCutProxy(t, fmt.Sprintf("127.0.0.1:%d", b.server.Port))
	o := b.o
	o.URL = fmt.Sprintf("amqp://guest:guest@%s/%s", proxy.Address(), b.vhost)
	p := publisher(t, o)
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("first")}); err != nil {
		t.Fatal(err)
	}
	proxy.OnServer(func(frame []byte) bool { return !bytes.Contains(frame, []byte{0, 60, 0, 80}) }) // class basic, method ack
	got := make(chan Outcome, 1)
	if err := p.Publish(Message{Key: ReportKey(0), Body: []byte("cut")}, func(o Outcome) { got <- o }); err != nil {
		t.Fatal(err)
	}
	if out := <-got; out != Unknown {
		t.Errorf("a cut connection was reported as %s", out)
	}
	proxy.OnServer(nil)
	testkit.Eventually(t, 10*time.Second, "it comes back", p.Ready)
	k := consumer(t, b.o, ConsumeOptions{Queue: ReportQueue(0), Prefetch: 10})
	for _, want := range []string{"first", "cut"} { // it was there, though nobody heard so
		if d := receive(t, k); string(d.Body) != want {
			t.Errorf("got %q, want %q", d.Body, want)
		}
	}
}

// TestMQ17_GO3_AckOfALostChannelDoesNothing closes every connection again and again under deliveries.
func TestMQ17_GO3_AckOfALostChannelDoesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.NewRabbitMQ(t))
	p := publisher(t, b.o)
	k := consumer(t, b.o, ConsumeOptions{Queue: ReportQueue(0), Prefetch: 50})
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("once")}); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for range 5 {
		d := receive(t, k)
		b.server.MustCtl(t, "close_all_connections", "--vhost", b.vhost, "test")
		select {
		case <-k.Lost():
		case <-time.After(20 * time.Second):
			t.Fatal("the loss was not told")
		}
		if d.Ack() || !d.Stale() {
			t.Fatal("an acknowledgement on a lost channel was taken")
		}
	}
	d := receive(t, k)
	if string(d.Body) != "once" || !d.Redelivered || !d.Ack() {
		t.Errorf("%+v", d)
	}
	testkit.Eventually(t, 10*time.Second, "GO-3: the goroutines of lost connections end", func() error {
		if n := runtime.NumGoroutine(); n > before+5 {
			return fmt.Errorf("%d, %d before", n, before)
		}
		return nil
	})
}

// TestMQ1_MQ2_Alarm: under an alarm nothing is published and nothing is lost, acknowledgements go on, and closing takes no time.
func TestMQ1_MQ2_Alarm(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.NewRabbitMQ(t))
	p := publisher(t, b.o)
	k := consumer(t, b.o, ConsumeOptions{Queue: ReportQueue(0), Prefetch: 10})
	for range 3 {
		if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("before")}); err != nil {
			t.Fatal(err)
		}
	}
	b.server.MustCtl(t, "set_vm_memory_high_watermark", "0.00001")
	var wg sync.WaitGroup
	wg.Add(1)
	if err := p.Publish(Message{Key: ReportKey(0), Body: []byte("during")}, func(o Outcome) {
		if o != Confirmed {
			t.Errorf("during the alarm: %s", o)
		}
		wg.Done()
	}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 10*time.Second, "the alarm is seen", func() error {
		if err := p.Ready(); err != ErrBlocked {
			return fmt.Errorf("ready says %v", err)
		}
		return nil
	})
	for range 3 {
		if d := receive(t, k); !d.Ack() {
			t.Error("an acknowledgement failed under an alarm")
		}
	}
	other := NewPublisher(b.o) // its declarations hang in the server
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	other.Publish(Message{Key: ReportKey(0), Body: []byte("x")}, func(Outcome) {})
	other.Close(ctx)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("closing under an alarm took %s", took)
	}
	b.server.MustCtl(t, "set_vm_memory_high_watermark", "0.4")
	wg.Wait()
	if d := receive(t, k); string(d.Body) != "during" && string(d.Body) != "x" {
		t.Errorf("%q", d.Body)
	}
}

func TestRestartedServer(t *testing.T) {
	t.Parallel()
	b := setup(t, testkit.NewRabbitMQ(t))
	p := publisher(t, b.o)
	k := consumer(t, b.o, ConsumeOptions{Queue: ReportQueue(0), Prefetch: 10})
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	b.server.Kill()
	if err := p.Ready(); err == nil {
		testkit.Eventually(t, 10*time.Second, "the loss is seen", func() error {
			if p.Ready() == nil {
				return fmt.Errorf("still ready")
			}
			return nil
		})
	}
	b.server.Start(t)
	testkit.Eventually(t, 30*time.Second, "the publisher comes back", p.Ready)
	seen := map[string]bool{}
	if err := p.PublishWait(t.Context(), Message{Key: ReportKey(0), Body: []byte("after")}); err != nil {
		t.Fatal(err)
	}
	for !seen["kept"] || !seen["after"] {
		d := receive(t, k)
		seen[string(d.Body)] = d.Ack() || seen[string(d.Body)]
	}
}

func BenchmarkPublish1KB(b *testing.B) {
	server := testkit.RabbitMQ(b)
	url := server.URL("/")
	o := Options{URL: url, Exchange: "flow_orchestration", Name: "bench", Log: slog.New(slog.DiscardHandler), Topology: func(v string) Topology { return NewTopology("flow_orchestration", []string{"default"}, 1, v) }}
	p := NewPublisher(o)
	defer p.Close(context.Background())
	testkit.Eventually(b, 20*time.Second, "connected", p.Ready)
	body := bytes.Repeat([]byte("x"), 1024)
	var wg sync.WaitGroup
	for b.Loop() {
		wg.Add(1)
		for p.Publish(Message{Key: ReportKey(0), Body: body}, func(Outcome) { wg.Done() }) == ErrBusy {
			time.Sleep(time.Millisecond)
		}
	}
	wg.Wait()
}

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"testing"
	"time"

	"flowplatform/services/e2e/chaos"
	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// killer is an outside world in which a call of /poison kills the worker that makes it. All other calls are answered at once.
func killer(t *testing.T, p *platform) *target {
	t.Helper()
	w := &target{gate: map[string]chan struct{}{}}
	var err error
	w.Target, err = chaos.NewTarget(func(r *http.Request) {
		if r.URL.Path != "/poison" {
			return
		}
		p.workers[0].process().Kill()
		<-r.Context().Done()
	})
	if err != nil {
		t.Fatal(err)
	}
	w.url = w.URL
	t.Cleanup(func() { w.Close() })
	return w
}

// Poison of every kind among 1,000 innocents: each ends in the dead letters with its reason, and nothing else stops. A node that panics is no poison: its step
// fails (TestFailuresOfNodes of the runner), and the worker lives.
func TestMQ7_PoisonAmongInnocents(t *testing.T) {
	p := newPlatform(t, size{orchestrators: 2, workers: 1, slots: 20})
	w := killer(t, p)
	innocents := p.createFlow(w.chain("Innocents", "one"))
	deadly := p.createFlow(w.chain("Kills its worker", "poison"))

	const half, kinds = 500, 25
	begun := time.Now()
	p.acceptAll(innocents, half)
	poison := p.accept(deadly, map[string]any{"i": 0})
	if poison == "" {
		t.Fatal("the poison was not accepted")
	}
	wrong := publisher(t, p)
	for i := range kinds {
		wrong.task(t, `{"v":1,"id":`, 0)                                                                                                                     // broken JSON
		wrong.task(t, fmt.Sprintf(`{"v":0,"id":%q,"attempt":1}`, store.NewID()), 0)                                                                          // no schema version that there is
		wrong.task(t, fmt.Sprintf(`{"id":%q}`+"\nnot even JSON", store.NewID()), 0)                                                                          // two in one message, both wrong
		wrong.task(t, fmt.Sprintf(`{"v":1,"id":%q,"attempt":1,"flow":%q,"version":1,"createdAt":"2026-01-01T00:00:00Z"}`, store.NewID(), store.NewID()), 20) // of a flow that nobody knows, for the last time
		if i%5 == 0 {
			p.acceptAll(innocents, half/5)
		}
	}
	p.allSucceed(innocents, 2*half, 50*time.Second)
	took := time.Since(begun)
	testkit.Eventually(t, 50*time.Second, "the poison is given up", func() error {
		var e execution
		if p.api("GET", "/executions/"+poison, nil, &e); e.Status != "failed" {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	// Counted to the last, though the worker dies between parking a message and acknowledging it: parked again it is the same letter.
	// A task whose flow is unknown ends its execution, which nobody knows either: that report is parked too.
	want := map[string]int{"task unparseable": 4 * kinds, "task version-not-found": kinds, "report unknown-execution": kinds, "execution poison": 1}
	testkit.Eventually(t, 20*time.Second, "all poison is in the dead letters", func() error {
		got := map[string]int{}
		var list struct {
			Groups []struct {
				Kind, Reason string
				Count        int
			}
		}
		p.api("GET", "/dead-letters?group=reason", nil, &list)
		for _, g := range list.Groups {
			got[g.Kind+" "+g.Reason] += g.Count
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
	if n := len(w.Visits(poison, "poison")); n != 5 {
		t.Errorf("the poison killed %d workers, it is given up after 5", n)
	}
	t.Logf("1,000 innocents succeeded within %s, among %d tasks that are none and one that killed its worker 5 times", took.Round(time.Millisecond), 5*kinds)
}

// tasks publishes into the task queue what no service of ours would.
type tasks struct{ *broker.Publisher }

func publisher(t *testing.T, p *platform) tasks {
	t.Helper()
	b := broker.NewPublisher(broker.Options{URL: p.rabbit.URL("%2F"), Exchange: "flow_orchestration", Name: "test", Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		b.Close(ctx)
	})
	return tasks{b}
}

// task publishes one; returns is how often it went through the retry ladder.
func (p tasks) task(t *testing.T, body string, returns int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m := broker.Message{Key: broker.TaskKey(broker.DefaultPool, broker.DefaultPriority), Type: "task", Body: []byte(body), Headers: map[string]any{"x-flow-returns": int32(returns)}}
	if err := p.PublishWait(ctx, m); err != nil {
		t.Fatal(err)
	}
}

package app

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// term is what PostgreSQL says: "number holder".
func (w *world) term(t *testing.T) (number int, holder string) {
	t.Helper()
	out := w.sql(t, "SELECT term, holder FROM terms ORDER BY term DESC LIMIT 1")
	if out == "" {
		return 0, ""
	}
	if _, err := fmt.Sscanf(strings.Replace(out, "|", " ", 1), "%d %s", &number, &holder); err != nil {
		t.Fatal(err)
	}
	return number, holder
}

// leads waits for a term above the one given.
func (w *world) leads(t *testing.T, above int, within time.Duration) (number int, holder string) {
	t.Helper()
	testkit.Eventually(t, within, fmt.Sprintf("a term above %d", above), func() error {
		if number, holder = w.term(t); number <= above {
			return fmt.Errorf("term %d", number)
		}
		return nil
	})
	return number, holder
}

// A leader is killed: another leads in less than three seconds. Then it is frozen: what thaws writes nothing.
func TestLeadersThatAreKilledAndFrozen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	all := map[string]*process{}
	for _, name := range []string{"a", "b", "c"} {
		all[name] = w.process(t, name, func(o *Options) { o.WorkerLease = 2 * time.Second })
	}
	first, holder := w.leads(t, 0, 15*time.Second)
	begin := time.Now()
	all[holder].Kill()
	delete(all, holder)
	second, holder := w.leads(t, first, 6*time.Second)
	t.Logf("killed: the next leads after %v", time.Since(begin))
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("a takeover took %v, want less than 3 s", took)
	}

	frozen := all[holder]
	begin = time.Now()
	frozen.Freeze()
	third, next := w.leads(t, second, 6*time.Second)
	t.Logf("frozen: the next leads after %v", time.Since(begin))
	if next == holder {
		t.Fatal("the frozen one leads")
	}
	frozen.Thaw()
	testkit.Eventually(t, 10*time.Second, "the thawed one sees that its term is over", func() error {
		if s := metric(t, frozen.metrics, "flow_leader_state"); s == 2 {
			return fmt.Errorf("state %v", s)
		}
		return nil
	})
	if n, h := w.term(t); n != third || h != next {
		t.Errorf("term %d of %s after the thaw, want %d of %s", n, h, third, next)
	}
	// Its clock, or the lock that another holds: whichever it looks at first.
	ended := metric(t, frozen.metrics, `flow_leader_terms_ended_total{reason="window"}`) + metric(t, frozen.metrics, `flow_leader_terms_ended_total{reason="lost"}`)
	if ended != 1 {
		t.Errorf("the thawed one ended %v terms by itself, want 1", ended)
	}
	begin = time.Now()
	if !all[next].Terminate(5 * time.Second) {
		t.Error("a leader did not stop on SIGTERM")
	}
	stopped := time.Since(begin)
	w.leads(t, third, 3*time.Second)
	t.Logf("stopped: out after %v, the next leads after %v", stopped, time.Since(begin))
	if took := time.Since(begin); took > 1500*time.Millisecond {
		t.Errorf("a hand-over took %v, want less than a second", took)
	}
}

// CO-1: the lock's key is deleted.
func TestADeletedLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	a, b := w.orchestrator(t, "a"), w.orchestrator(t, "b")
	c, err := api.NewClient(&api.Config{Address: w.consul})
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for range 4 {
		last, _ = w.leads(t, last, 5*time.Second)
		if _, err := c.KV().Delete("flow/orchestrator/leader", nil); err != nil {
			t.Fatal(err)
		}
	}
	w.leads(t, last, 5*time.Second)
	testkit.Eventually(t, 5*time.Second, "one leads", func() error {
		if (a.Term() == 0) == (b.Term() == 0) {
			return fmt.Errorf("terms %d and %d", a.Term(), b.Term())
		}
		return nil
	})
}

// Consul away: nobody leads, and all else goes on. It comes back: somebody leads, without a restart.
func TestConsulAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	consul := testkit.Consul(t)
	w.consul = consul.Address()
	a := w.orchestrator(t, "a")
	first, _ := w.leads(t, 0, 15*time.Second)
	consul.Kill()
	testkit.Eventually(t, 5*time.Second, "the leader steps down", func() error {
		if n := a.Term(); n != 0 {
			return fmt.Errorf("it leads in term %d", n)
		}
		return nil
	})
	h := w.hand(t, base(a)...)
	id := w.insert(t, 1)[0]
	if got := h.claim(t.Context(), protocol.Claim{Session: h.session, Execution: id, Attempt: 1, Run: 1}); got[0] != protocol.Granted {
		t.Errorf("claim: %v", got)
	}
	if r := h.renew(t.Context()); !r.Alive {
		t.Error("not alive")
	}
	if err := w.report(t.Context(), 0, protocol.Entry{Kind: protocol.EntryFinal, Execution: id, Attempt: 1, Session: h.session, Run: 1, Seq: 1, State: protocol.Succeeded}); err != nil {
		t.Fatal(err)
	}
	w.states(t, 10*time.Second, "succeeded|1")
	res, err := http.Get("http://" + a.Addr() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("readyz says %d for want of Consul", res.StatusCode)
	}
	consul.Start(t)
	w.leads(t, first, 15*time.Second)
}

// The lease alone: nobody proves the death. A session that renews lives on.
func TestTheLeaseEndsASilentSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	const lease = 2 * time.Second
	a := w.orchestrator(t, "a", func(o *Options) { o.WorkerLease = lease })
	w.orchestrator(t, "b", func(o *Options) { o.WorkerLease = lease })
	w.leads(t, 0, 15*time.Second)
	tasks := w.tasks(t)
	silent, lively := w.hand(t, base(a)...), w.hand(t, base(a)...)
	ids := w.insert(t, 40)
	for i, id := range ids {
		h := silent
		if i%2 == 1 {
			h = lively
		}
		if got := h.claim(t.Context(), protocol.Claim{Session: h.session, Execution: id, Attempt: 1, Run: int64(i + 1)}); got[0] != protocol.Granted {
			t.Fatal(got)
		}
	}
	begin := time.Now()
	if r := silent.renew(t.Context()); !r.Alive {
		t.Fatal("not alive")
	}
	var taken []protocol.ID
	for i := 0; i < len(ids); i += 2 {
		taken = append(taken, ids[i])
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for time.Since(begin) < 3*lease {
			if r := lively.renew(t.Context()); !r.Alive {
				t.Error("a session that renews was ended")
			}
			time.Sleep(lease / 5)
		}
	}()
	tasks.wait(t, 4*lease, 2, taken...)
	took := time.Since(begin)
	t.Logf("taken back %v after its last renewal, with a lease of %v", took, lease)
	if took < lease {
		t.Errorf("judged after %v, before a whole lease", took)
	}
	<-done
	w.states(t, time.Second, "queued|20 running|20")
	if got := silent.renew(t.Context()); got.Alive {
		t.Error("alive after its end")
	}
}

// Delays are exact, deadlines end, what nobody handed out is handed out, dead letters come into their table.
func TestWhatTheLeaderLooksAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	a := w.orchestrator(t, "a")
	w.leads(t, 0, 15*time.Second)
	tasks := w.tasks(t)

	// Never published by a gateway that died: two seconds later it is.
	begin := time.Now()
	lost := w.insert(t, 20)
	tasks.wait(t, 8*time.Second, 1, lost...)
	t.Logf("handed out by the leader after %v", time.Since(begin))

	// A delay.
	h := w.hand(t, base(a)...)
	ids := w.insert(t, 30)
	due := time.Now().Add(3 * time.Second)
	for i, id := range ids {
		e := protocol.Entry{Kind: protocol.EntrySuspend, Execution: id, Attempt: 1, Seq: 1,
			Waits: []protocol.WaitEntry{{Node: "n", Kind: "timer", Reason: "test", Due: due.Add(time.Duration(i) * 10 * time.Millisecond)}}}
		if err := w.report(t.Context(), i%w.shards, e); err != nil {
			t.Fatal(err)
		}
	}
	tasks.wait(t, 10*time.Second, 2, ids...)
	tasks.mu.Lock()
	var late, early time.Duration
	for i, id := range ids {
		d := tasks.at[id].Sub(due.Add(time.Duration(i) * 10 * time.Millisecond))
		late, early = max(late, d), min(early, d)
	}
	tasks.mu.Unlock()
	t.Logf("timers: at the most %v late", late)
	if early < -2*time.Millisecond || late > time.Second {
		t.Errorf("timers fired from %v to %v after they were due", early, late)
	}

	// A deadline: one that is queued, one that runs.
	past := w.insert(t, 2, func(_ int, n *store.NewExecution) { n.Deadline = time.Now().Add(2 * time.Second) })
	if got := h.claim(t.Context(), protocol.Claim{Session: h.session, Execution: past[1], Attempt: 1, Run: 1}); got[0] != protocol.Granted {
		t.Fatal(got)
	}
	testkit.Eventually(t, 10*time.Second, "deadlines", func() error {
		if got := w.sql(t, fmt.Sprintf("SELECT state FROM executions WHERE id = '%s'", past[0])); got != "timed_out" {
			return fmt.Errorf("%s", got)
		}
		if r := h.renew(t.Context()); len(r.Cancels) != 1 || r.Cancels[0].As != protocol.TimedOut {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})

	// Dead letters: one of ours, one that the broker gave up.
	id := store.NewID()
	for range 2 {
		body := fmt.Sprintf(`{"id":%q,"kind":"task","reason":"schema","detail":"d","origin":"o","count":3,"at":"2026-01-01T00:00:00Z"}`, id)
		if err := w.pub.PublishWait(t.Context(), broker.Message{Key: broker.DeadKey, ID: id.String(), Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.pub.PublishWait(t.Context(), broker.Message{Key: broker.DeadKey, Body: []byte("odd")}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 10*time.Second, "dead letters", func() error {
		if got := strings.ReplaceAll(w.sql(t, "SELECT reason, count FROM dead_letters ORDER BY reason"), "\n", " "); got != "schema|3 unknown|1" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// MQ-4: tasks that no queue takes are not lost: an orchestrator declares the queue, and they follow.
func TestMQ4_QueuesThatAreMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	w.orchestrator(t, "a")
	w.leads(t, 0, 15*time.Second)
	conn := broker.Dial(broker.Options{URL: w.amqp, Exchange: "flow_orchestration", Name: "test", Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { _ = conn.Close() })
	w.rabbit.MustCtl(t, "--vhost", w.vhost, "delete_queue", broker.TaskQueue("default", "normal"))
	w.insert(t, 10, func(_ int, n *store.NewExecution) { n.Pool = "gpu" })
	w.insert(t, 20)
	for pool, want := range map[string]int{"gpu": 10, "default": 20} {
		k := conn.Consume(broker.ConsumeOptions{Queue: broker.TaskQueue(pool, "normal"), Prefetch: 100})
		seen := map[protocol.ID]bool{}
		for late := time.After(15 * time.Second); len(seen) < want; {
			select {
			case d := <-k.Deliveries():
				for body := range broker.Tasks(d.Body) {
					var task protocol.Task
					if err := json.Unmarshal(body, &task); err != nil {
						t.Fatal(err)
					}
					seen[task.ID] = true
				}
				d.Ack()
			case <-late:
				t.Fatalf("%d of the %d tasks of %s are in their queue", len(seen), want, pool)
			}
		}
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// TestPlatform runs all of it once and breaks one part after the other.
func TestPlatform(t *testing.T) {
	p := newPlatform(t, size{orchestrators: 2, workers: 2, slots: 1000})
	w := newTarget(t)
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *platform, *target)
	}{
		{"BothBranches", bothBranches},
		{"DelayAndCancel", delayAndCancel},
		{"LeaderKilled", leaderKilled},
		{"GatewayKilledBetweenCommitAndPublish", gatewayKilled},
		{"BrokerConnectionsClosed20Times", connectionsClosed},
		{"RabbitMQRestarted", rabbitRestarted},
		{"PostgreSQLRestarted", postgresRestarted},
		{"WorkerFrozenPastItsLease", workerFrozen},
		{"ConsulAndRedisAway", consulAndRedisAway},
		{"RemoteWorkers", remoteWorkers},
		{"LimitsOverKills", limitsOverKills},
		{"Verify", verified},
	} {
		ok := t.Run(tc.name, func(t *testing.T) {
			q := *p
			q.t = t
			tc.run(t, &q, w)
		})
		if !ok {
			t.Fatal("the platform is not as the next test expects it")
		}
	}
}

// bothBranches is CONTRACT's example, with data.set in place of amqp.publish.
func bothBranches(t *testing.T, p *platform, w *target) {
	flow := p.createFlow(map[string]any{
		"name": "Large orders",
		"nodes": []any{
			map[string]any{"id": "start", "type": "trigger.manual"},
			map[string]any{"id": "fetch", "type": "http.request", "config": map[string]any{"method": "GET", "url": w.url + "/orders/{{ input.orderId }}"}, "timeout": "30s",
				"retry": map[string]any{"maxAttempts": 3, "backoff": "exponential", "initialDelay": "1s", "maxDelay": "30s", "jitter": true}},
			map[string]any{"id": "large", "type": "logic.if", "config": map[string]any{"condition": "{{ steps.fetch.output.body.path == '/orders/7' }}"}},
			map[string]any{"id": "notify", "type": "data.set", "config": map[string]any{"values": map[string]any{"order": "{{ steps.fetch.output.body }}"}}},
			map[string]any{"id": "result", "type": "data.set", "config": map[string]any{"values": map[string]any{"large": "{{ steps.large.port == 'true' }}", "exact": "{{ input.big }}"}}},
		},
		"edges": []any{
			map[string]any{"from": "start", "to": "fetch"}, map[string]any{"from": "fetch", "to": "large"}, map[string]any{"from": "large", "port": "true", "to": "notify"},
			map[string]any{"from": "notify", "to": "result"}, map[string]any{"from": "large", "port": "false", "to": "result"},
		},
		"settings":    map[string]any{"timeout": "10m", "priority": "normal"},
		"inputSchema": map[string]any{"type": "object", "required": []any{"orderId"}, "properties": map[string]any{"orderId": map[string]any{"type": "integer"}}},
	})
	for order, want := range map[int]string{7: `{"exact":9007199254740993,"large":true}`, 8: `{"exact":9007199254740993,"large":false}`} {
		var e execution
		status := p.api("POST", "/flows/"+flow+"/executions?wait=20s", map[string]any{"input": map[string]any{"orderId": order, "big": json.Number("9007199254740993")}}, &e)
		if status != 200 || e.Status != "succeeded" || string(e.Output) != want {
			t.Errorf("order %d: %d %s %s %s, want %s", order, status, e.Status, e.Output, e.Error, want)
		}
	}
	if status := p.api("POST", "/flows/"+flow+"/executions", map[string]any{"input": map[string]any{"orderId": "seven"}}, nil); status != 422 {
		t.Errorf("an input that breaks the schema: %d", status)
	}
}

func delayAndCancel(t *testing.T, p *platform, _ *target) {
	flow := p.createFlow(map[string]any{
		"name": "Delay", "nodes": []any{map[string]any{"id": "start", "type": "trigger.manual"}, map[string]any{"id": "wait", "type": "flow.delay", "config": map[string]any{"duration": "{{ input.for }}"}}},
		"edges": []any{map[string]any{"from": "start", "to": "wait"}},
	})
	begun := time.Now()
	var e execution
	if status := p.api("POST", "/flows/"+flow+"/executions?wait=20s", map[string]any{"input": map[string]any{"for": "2s"}}, &e); status != 200 || e.Status != "succeeded" {
		t.Fatalf("%d %+v", status, e)
	}
	took := time.Since(begun)
	t.Logf("a delay of 2 s took %s", took.Round(time.Millisecond))
	if took < 2*time.Second || took > 4*time.Second {
		t.Errorf("a delay of 2 s took %s", took)
	}
	id := p.accept(flow, map[string]any{"for": "1h"})
	testkit.Eventually(t, 10*time.Second, "it waits", func() error { return p.is(id, "waiting") })
	if status := p.api("POST", "/executions/"+id+"/cancel", nil, nil); status >= 300 {
		t.Fatalf("cancel: %d", status)
	}
	testkit.Eventually(t, 5*time.Second, "it is cancelled", func() error { return p.is(id, "cancelled") })
}

func (p *platform) is(id, status string) error {
	var e execution
	if code := p.api("GET", "/executions/"+id, nil, &e); code != 200 || e.Status != status {
		return fmt.Errorf("%d %s", code, e.Status)
	}
	return nil
}

// leader finds the orchestrator that leads, by the lock in Consul.
func (p *platform) leader() *service {
	p.t.Helper()
	var found *service
	testkit.Eventually(p.t, 20*time.Second, "somebody leads", func() error {
		status, b := p.request("GET", "http://"+p.consul.Address()+"/v1/kv/flow/orchestrator/leader", "", nil)
		var entries []struct {
			Session string
			Value   []byte
		}
		if status != 200 || json.Unmarshal(b, &entries) != nil || len(entries) == 0 || entries[0].Session == "" {
			return fmt.Errorf("%d %s", status, b)
		}
		for _, o := range p.orchestrators {
			if strings.Contains(string(entries[0].Value), o.o.Name) {
				found = o
				return nil
			}
		}
		return fmt.Errorf("the lock is held by %q", entries[0].Value)
	})
	return found
}

func leaderKilled(t *testing.T, p *platform, w *target) {
	flow := p.createFlow(map[string]any{
		"name": "Over a leader's death", "nodes": []any{map[string]any{"id": "start", "type": "trigger.manual"}, map[string]any{"id": "wait", "type": "flow.delay", "config": map[string]any{"duration": "3s"}},
			map[string]any{"id": "after", "type": "http.request", "config": map[string]any{"url": w.url + "/after"}}},
		"edges": []any{map[string]any{"from": "start", "to": "wait"}, map[string]any{"from": "wait", "to": "after"}},
	})
	ids := p.acceptAll(flow, 100)
	testkit.Eventually(t, 10*time.Second, "all wait", func() error {
		if c := p.counts(flow); c["waiting"] != 100 {
			return fmt.Errorf("%v", c)
		}
		return nil
	})
	old := p.leader()
	old.process().Kill()
	begun := time.Now()
	p.allSucceed(flow, 100, 30*time.Second)
	t.Logf("all timers had fired %s after the leader's death", time.Since(begun).Round(time.Millisecond))
	calls, repeated := w.check(t, p, ids, "after")
	if calls != 100 || repeated != 0 {
		t.Errorf("%d calls, %d repeated", calls, repeated)
	}
	old.waitReady()
}

func gatewayKilled(t *testing.T, p *platform, w *target) {
	flow := p.createFlow(w.chain("Over a gateway's death", "one"))
	p.rabbit.Freeze() // what is committed now can't be published
	ids := make([]string, 50)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = p.accept(flow, map[string]any{"i": i}) })
	}
	wg.Wait()
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == "" })
	if len(ids) == 0 {
		t.Error("nothing was accepted while the broker stood still")
	}
	p.gateway.process().Kill()
	p.rabbit.Thaw()
	p.gateway.waitReady()
	p.allSucceed(flow, len(ids), 60*time.Second)
	w.check(t, p, ids, "one")
}

// underLoad accepts executions of three calls until the disturbance is over, and then sees that all that was accepted succeeds.
func underLoad(t *testing.T, p *platform, w *target, name string, disturb func()) {
	t.Helper()
	flow := p.createFlow(w.chain(name, "a", "b", "c"))
	var mu sync.Mutex
	var ids []string
	var refused atomic.Int64
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(10 * time.Millisecond):
				}
				id := p.accept(flow, map[string]any{"i": 1})
				if id == "" {
					refused.Add(1)
					continue
				}
				mu.Lock()
				ids = append(ids, id)
				mu.Unlock()
			}
		})
	}
	begun := time.Now()
	disturb()
	disturbed := time.Since(begun)
	close(over)
	wg.Wait()
	testkit.Eventually(t, 120*time.Second, "all that was accepted succeeds", func() error {
		c := p.counts(flow)
		open := 0
		for state, n := range c {
			if state != "succeeded" {
				open += n
			}
		}
		if open > 0 || c["succeeded"] < len(ids) {
			return fmt.Errorf("%d accepted, %v", len(ids), c)
		}
		return nil
	})
	calls, repeated := w.check(t, p, ids, "a", "b", "c")
	t.Logf("%d accepted, %d not accepted, in %s; %d calls, %d repeated (in flight); settled %s after", len(ids), refused.Load(), disturbed.Round(time.Millisecond), calls, repeated, (time.Since(begun) - disturbed).Round(time.Millisecond))
	if len(ids) < 50 {
		t.Errorf("%d were accepted: no load", len(ids))
	}
}

func connectionsClosed(t *testing.T, p *platform, w *target) {
	underLoad(t, p, w, "Closed connections", func() {
		for range 20 {
			p.rabbit.MustCtl(t, "close_all_connections", "--global", "test")
		}
	})
}

func rabbitRestarted(t *testing.T, p *platform, w *target) {
	underLoad(t, p, w, "RabbitMQ restarted", func() {
		time.Sleep(500 * time.Millisecond)
		p.rabbit.Kill()
		p.rabbit.Start(t)
		time.Sleep(time.Second)
	})
}

func postgresRestarted(t *testing.T, p *platform, w *target) {
	underLoad(t, p, w, "PostgreSQL restarted", func() {
		time.Sleep(500 * time.Millisecond)
		p.pg.Kill()
		p.pg.Start(t)
		time.Sleep(time.Second)
	})
}

// workerFrozen stops a worker in its calls until its session is over and others have done its work; when it goes on it must not act.
func workerFrozen(t *testing.T, p *platform, w *target) {
	flow := p.createFlow(w.chain("Frozen worker", "first", "held", "last"))
	w.shut("held")
	ids := p.acceptAll(flow, 40)
	testkit.Eventually(t, 20*time.Second, "all are in the second call", func() error { return w.all(ids, "held", 1) })
	frozen := p.workers[0]
	frozen.process().Freeze()
	begun := time.Now()
	w.open("held")
	p.allSucceed(flow, len(ids), 60*time.Second)
	t.Logf("the last ended %s after one of two workers was frozen (lease %s)", time.Since(begun).Round(time.Millisecond), lease)
	before := w.Total()
	frozen.process().Thaw()
	frozen.waitReady()
	// It has heard by now that its session is over: it is ready under a new one.
	if after := w.Total(); after != before {
		t.Errorf("the thawed worker made %d calls", after-before)
	}
	_, repeated := w.check(t, p, ids, "first", "held", "last")
	t.Logf("%d calls repeated: those that were in flight", repeated)
}

func consulAndRedisAway(t *testing.T, p *platform, w *target) {
	underLoad(t, p, w, "Consul and Redis away", func() {
		p.consul.Process().Freeze()
		p.redis.Process().Freeze()
		time.Sleep(5 * time.Second)
		p.redis.Process().Thaw()
		p.consul.Process().Thaw()
	})
}

func (w *target) all(ids []string, node string, n int) error {
	missing := 0
	for _, id := range ids {
		if len(w.Visits(id, node)) < n {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d are not", missing, len(ids))
	}
	return nil
}

// TestWorkerKilled kills the only worker, with SIGKILL, while it owns executions that are all in their second call. Their next steps must begin
// within a second: the successor in the same place proves the death by the lock of its file.
func TestWorkerKilled(t *testing.T) {
	p := newPlatform(t, size{orchestrators: 2, workers: 1, slots: 1000})
	w := newTarget(t)
	flow := p.createFlow(w.chain("Killed worker", "first", "held", "last"))
	for _, n := range []int{50, 200} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			q := *p
			q.t = t
			killedWith(t, &q, w, flow, n)
		})
	}
}

func killedWith(t *testing.T, p *platform, w *target, flow string, n int) {
	w.shut("held")
	done := p.counts(flow)["succeeded"]
	ids := p.acceptAll(flow, n)
	testkit.Eventually(t, 20*time.Second, "all are in the second call", func() error { return w.all(ids, "held", 1) })
	killed := time.Now()
	p.workers[0].process().Kill()
	testkit.Eventually(t, 30*time.Second, "all go on", func() error { return w.all(ids, "held", 2) })
	var took []time.Duration
	for _, id := range ids {
		took = append(took, w.Visits(id, "held")[1].At.Sub(killed))
	}
	slices.Sort(took)
	t.Logf("%d executions owned: the next step of the first began after %s, of half after %s, of the last after %s", n, took[0].Round(time.Millisecond), took[n/2].Round(time.Millisecond), took[n-1].Round(time.Millisecond))
	if testing.Verbose() {
		t.Logf("killed at %s; the successor printed:\n%s", killed.UTC().Format("15:04:05.000"), tailOf(p.workers[0].process().Output()))
	}
	if took[n-1] > time.Second {
		t.Errorf("the last began %s after the kill, more than a second", took[n-1])
	}
	w.open("held")
	p.allSucceed(flow, done+n, 30*time.Second)
	calls, repeated := w.check(t, p, ids, "first", "held", "last")
	if calls != 4*n || repeated != n {
		t.Errorf("%d calls, %d repeated; want %d and %d: only the held ones were in flight", calls, repeated, 4*n, n)
	}
}

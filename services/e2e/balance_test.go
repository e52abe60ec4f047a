package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

type workerView struct {
	ID    string
	State string
	Slots int
	Load  *struct {
		Running, Buffered, MemoryMB, MemoryLimitMB int
		Ended                                      uint64
		ReportedAt                                 time.Time
	}
}

func (p *platform) workerViews() map[string]workerView {
	var list struct{ Items []workerView }
	p.api("GET", "/workers", nil, &list)
	out := map[string]workerView{}
	for _, w := range list.Items {
		out[w.ID] = w
	}
	return out
}

// set changes settings as an administrator.
func (p *platform) set(values map[string]any) {
	p.t.Helper()
	testkit.Eventually(p.t, 20*time.Second, "settings are taken", func() error {
		if status, b := p.request("PUT", p.base()+"/api/v1/settings", p.admin, map[string]any{"values": values}); status != 200 {
			return fmt.Errorf("%d %s", status, b)
		}
		return nil
	})
}

// With work waiting, each of three unequal workers takes the share that the strategy gives it; the strategy is switched while they run. Then the
// busiest is drained, and nothing is lost.
func TestSharesOfThreeUnequalWorkers(t *testing.T) {
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(100 * time.Millisecond): // what the call takes
		case <-r.Context().Done():
		}
	}))
	defer outside.Close()
	p := newPlatform(t, size{orchestrators: 1})
	p.addWorker(0, size{slots: 8, env: []string{"WORKER_WEIGHT=1"}})
	p.addWorker(1, size{slots: 16, env: []string{"WORKER_WEIGHT=2"}})
	p.addWorker(2, size{slots: 24, env: []string{"WORKER_WEIGHT=4", "MEMORY_LIMIT_MB=64"}}) // half of its memory is in use from the beginning
	flow := p.createFlow(map[string]any{"name": "slow call", "nodes": []any{
		map[string]any{"id": "start", "type": "trigger.manual"},
		map[string]any{"id": "call", "type": "http.request", "config": map[string]any{"method": "GET", "url": outside.URL}},
	}, "edges": []any{map[string]any{"from": "start", "to": "call"}}})
	accepted := 0
	feed := func() {
		inputs := make([]json.RawMessage, 1000)
		for i := range inputs {
			inputs[i] = json.RawMessage("{}")
		}
		for range 6 {
			if p.api("POST", "/flows/"+flow+"/executions/batch", map[string]any{"inputs": inputs}, nil) == 202 {
				accepted += len(inputs)
			}
		}
	}
	for _, c := range []struct {
		strategy string
		want     func(map[string]workerView) map[string]float64
	}{
		{"round_robin", func(map[string]workerView) map[string]float64 {
			return map[string]float64{"worker-0": 1. / 3, "worker-1": 1. / 3, "worker-2": 1. / 3}
		}},
		{"weighted", func(map[string]workerView) map[string]float64 {
			return map[string]float64{"worker-0": 1. / 7, "worker-1": 2. / 7, "worker-2": 4. / 7}
		}},
		{"least_busy", func(views map[string]workerView) map[string]float64 {
			free := map[string]float64{}
			for id, own := range map[string]float64{"worker-0": 8, "worker-1": 16, "worker-2": 24} {
				l := views[id].Load
				free[id] = own * (1 - float64(l.MemoryMB)/float64(l.MemoryLimitMB))
			}
			total := free["worker-0"] + free["worker-1"] + free["worker-2"]
			for id := range free {
				free[id] /= total
			}
			return free
		}},
	} {
		feed()
		p.set(map[string]any{"LOAD_BALANCE_STRATEGY": c.strategy})
		slots := map[string]int{}
		calm := 0
		testkit.Eventually(t, 60*time.Second, "all are at work, as "+c.strategy+" says", func() error { // slots stand still, and are in use
			views := p.workerViews()
			same := len(views) == 3
			for id, w := range views {
				same = same && w.Load != nil && w.Load.Running == w.Slots && slots[id] == w.Slots
				slots[id] = w.Slots
			}
			if calm++; !same {
				calm = 0
			}
			if calm < 5 {
				time.Sleep(300 * time.Millisecond) // the picture is renewed every second
				return fmt.Errorf("%+v", views)
			}
			return nil
		})
		before := p.workerViews()
		time.Sleep(6 * time.Second) // what is measured is a rate
		after := p.workerViews()
		total, rate := 0.0, map[string]float64{}
		for id, b := range before {
			a := after[id]
			rate[id] = float64(a.Load.Ended-b.Load.Ended) / a.Load.ReportedAt.Sub(b.Load.ReportedAt).Seconds()
			total += rate[id]
		}
		for id, want := range c.want(after) {
			got := rate[id] / total
			t.Logf("%-12s %s: %2d slots, %5.1f/s, %4.1f %% of the work; it should be %4.1f %%", c.strategy, id, after[id].Slots, rate[id], 100*got, 100*want)
			if math.Abs(got-want) > 0.06 {
				t.Errorf("%s: %s takes %.2f, it should be %.2f", c.strategy, id, got, want)
			}
		}
	}
	var decided struct{ Items []struct{ Name string } }
	p.api("GET", "/settings", nil, &decided)
	if status, b := p.request("PUT", p.base()+"/api/v1/settings", p.admin, map[string]any{"values": map[string]any{"LOAD_BALANCE_STRATEGY": "random"}}); status != 422 {
		t.Errorf("a strategy that there isn't: %d %s", status, b)
	}
	if status, b := p.request("POST", p.base()+"/api/v1/workers/worker-2/drain", p.admin, nil); status != 202 {
		t.Fatalf("drain: %d %s", status, b)
	}
	old := p.workers[2].process()
	select {
	case <-old.Done():
	case <-time.After(90 * time.Second):
		t.Fatal("a drained worker doesn't end")
	}
	p.allSucceed(flow, accepted, 3*time.Minute)
	if n, err := p.pg.Exec(p.database, "SELECT count(*) FROM executions WHERE attempt > 1 AND deaths > 0"); err != nil || n != "0" {
		t.Errorf("%s executions saw a death, %v", n, err)
	}
}

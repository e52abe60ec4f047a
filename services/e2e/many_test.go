package e2e

import (
	"bufio"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// TestManyWait: how much memory executions that wait take in the processes, and how long ten executions of one tenant take beside a flood of another.
// FLOW_MANY=full is the size that issue 5 names, 100,000 of each, and prints the figures of docs/performance.md (about ten minutes).
func TestManyWait(t *testing.T) {
	p := newPlatform(t, size{orchestrators: 1, workers: 1, slots: 20})
	full := os.Getenv("FLOW_MANY") == "full"
	t.Run("Fairness", func(t *testing.T) {
		q := *p
		q.t = t
		flood := 1500
		if full {
			flood = 100_000
		}
		besideAFlood(t, &q, flood, full)
	})
	if full {
		t.Run("Memory", func(t *testing.T) {
			q := newPlatform(t, size{orchestrators: 1, workers: 1, slots: 1000})
			memoryOfWaiting(t, q)
		})
	}
}

func (p *platform) acceptMany(flow string, n int, input any) []string {
	p.t.Helper()
	var ids []string
	for left := n; left > 0; left -= min(left, 1000) {
		inputs := make([]any, min(left, 1000))
		for i := range inputs {
			inputs[i] = input
		}
		var out struct{ Items []execution }
		p.must(202, "POST", "/flows/"+flow+"/executions/batch", obj{"inputs": inputs}, &out)
		for _, e := range out.Items {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// besideAFlood begins ten executions of a tenant alone, and ten behind a flood of another's. With fairness they must not wait for the flood: when the last of them
// has ended, most of the flood is still there. Without it they come last, which shows that the test can tell.
func besideAFlood(t *testing.T, p *platform, flood int, full bool) {
	const ten, taken = 10, 50 * time.Millisecond
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(taken): // what the call takes: the work must be bound by slots, not by the machine
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(outside.Close)
	doc := func(name string, settings obj) obj {
		return obj{"name": name, "settings": settings, "nodes": []any{manual, obj{"id": "call", "type": "http.request", "config": obj{"url": outside.URL}}}, "edges": []any{edge("start", "call")}}
	}
	fair := p.createFlow(doc("Fair", obj{"fairness": obj{"key": "{{ input.tenant }}"}}))
	unfair := p.createFlow(doc("First come, first served", obj{}))
	// small gives how long the ten took, and how many of all others of their flow had not ended by then.
	small := func(flow string) (took time.Duration, left int) {
		t.Helper()
		begun := time.Now()
		ids := p.acceptMany(flow, ten, obj{"tenant": "small"})
		where := "id IN ('" + strings.Join(ids, "','") + "')"
		testkit.Eventually(t, 10*time.Minute, "the ten have succeeded", func() error {
			n, err := p.pg.Exec(p.database, "SELECT count(*) FROM executions WHERE state = 'succeeded' AND "+where)
			if err != nil || strings.TrimSpace(n) != fmt.Sprint(ten) {
				return fmt.Errorf("%s of %d, %v", n, ten, err)
			}
			return nil
		})
		took = time.Since(begun)
		c := p.counts(flow)
		return took, c["queued"] + c["running"] + c["waiting"]
	}
	alone, _ := small(fair)
	p.acceptMany(fair, flood, obj{"tenant": "large"})
	before := p.counts(fair)
	took, left := small(fair)
	t.Logf("ten alone: %s; behind %d of another tenant (%d accepted, %d of them had ended): %s, and %d were still left", alone.Round(time.Millisecond), before["queued"]+before["running"], flood, before["succeeded"]-ten,
		took.Round(time.Millisecond), left)
	if left < flood/2 {
		t.Errorf("when the last of the ten ended, %d of %d of the other tenant were left: they have waited for it", left, flood)
	}
	if full {
		p.must(202, "POST", "/executions/cancel", obj{"filter": obj{"flowId": fair}, "rate": 2500}, nil)
		testkit.Eventually(t, 10*time.Minute, "the flood is cancelled", func() error {
			if c := p.counts(fair); c["queued"]+c["running"] > 0 {
				return fmt.Errorf("%v", c)
			}
			return nil
		})
		flood = 4000
	} else {
		p.allSucceed(fair, 2*ten+flood, 3*time.Minute)
		flood = 400
	}
	p.acceptMany(unfair, flood, obj{"tenant": "large"})
	took, left = small(unfair)
	t.Logf("without fairness, behind %d: %s, and %d were still left", flood, took.Round(time.Millisecond), left)
	if left > flood/2 {
		t.Errorf("without fairness %d of %d were left: the test can't tell", left, flood)
	}
}

// memoryOfWaiting reads what the processes hold with 0, 10,000 and 100,000 executions that wait for a signal, each after a collection of garbage.
func memoryOfWaiting(t *testing.T, p *platform) {
	flow := p.createFlow(obj{"name": "Waits", "nodes": []any{manual, obj{"id": "wait", "type": "flow.signal", "config": obj{"name": "go", "key": "{{ execution.id }}"}}}, "edges": []any{edge("start", "wait")}})
	for _, n := range []int{0, 10_000, 100_000} {
		p.acceptMany(flow, n-p.counts(flow)["waiting"], obj{"customer": "somebody", "sum": 12.5})
		testkit.Eventually(t, 10*time.Minute, "all wait", func() error {
			if c := p.counts(flow); c["waiting"] != n {
				return fmt.Errorf("%v of %d", c, n)
			}
			return nil
		})
		at := float64(time.Now().Unix())
		for _, s := range []*service{p.gateway, p.orchestrators[0], p.workers[0]} {
			// Twice: what the first one finds is what the work of getting there has left.
			var m map[string]float64
			least, collected := math.MaxFloat64, map[float64]bool{}
			testkit.Eventually(t, 6*time.Minute, s.o.Name+" has collected its garbage", func() error { // the runtime does so every two minutes
				m = s.metrics(t)
				if last := m["go_memstats_last_gc_time_seconds"]; last > at {
					collected[last] = true
				}
				if len(collected) > 1 {
					least = min(least, m["go_memstats_heap_alloc_bytes"])
				}
				if len(collected) < 3 {
					return fmt.Errorf("%d times", len(collected))
				}
				return nil
			})
			t.Logf("%6d wait: %-15s heap %6.1f MiB, resident %6.1f MiB, %4.0f goroutines", n, s.o.Name, least/(1<<20), m["process_resident_memory_bytes"]/(1<<20), m["go_goroutines"])
		}
	}
}

// metrics reads those without labels.
func (s *service) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	port := ""
	for _, v := range s.o.Env {
		if after, is := strings.CutPrefix(v, "METRICS_PORT="); is {
			port = after
		}
	}
	res, err := http.Get("http://127.0.0.1:" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	m := map[string]float64{}
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			m[name] = v
		}
	}
	return m
}

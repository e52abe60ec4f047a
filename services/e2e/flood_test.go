package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// arrivals is an outside world that keeps the order in which calls come, by their path, and answers none before it is opened.
type arrivals struct {
	*httptest.Server
	gate chan struct{}

	mu    sync.Mutex
	order []string
}

func newArrivals(t *testing.T) *arrivals {
	t.Helper()
	a := &arrivals{gate: make(chan struct{})}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.order = append(a.order, strings.TrimPrefix(r.URL.Path, "/"))
		a.mu.Unlock()
		select {
		case <-a.gate:
		case <-r.Context().Done():
			return
		}
		time.Sleep(50 * time.Millisecond) // what the call takes: the work must be bound by slots, not by the machine
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *arrivals) came() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.order...)
}

// A flood of high does not starve low: while all three queues hold something, a worker begins their tasks 8 : 3 : 1, whatever came first.
func TestAFloodOfHighDoesNotStarveLow(t *testing.T) {
	const slots = 12
	p := newPlatform(t, size{orchestrators: 1, workers: 1, slots: slots})
	outside := newArrivals(t)
	backlog := map[string]int{"high": 1200, "normal": 600, "low": 300}
	flows := map[string]string{}
	for _, priority := range []string{"high", "normal", "low"} { // the flood comes first
		flows[priority] = p.createFlow(map[string]any{"name": "Calls of " + priority, "settings": map[string]any{"priority": priority}, "nodes": []any{
			map[string]any{"id": "start", "type": "trigger.manual"},
			map[string]any{"id": "call", "type": "http.request", "config": map[string]any{"method": "GET", "url": outside.URL + "/" + priority}},
		}, "edges": []any{map[string]any{"from": "start", "to": "call"}}})
		for left := backlog[priority]; left > 0; left -= min(left, 1000) {
			inputs := make([]json.RawMessage, min(left, 1000))
			for i := range inputs {
				inputs[i] = json.RawMessage("{}")
			}
			if status := p.api("POST", "/flows/"+flows[priority]+"/executions/batch", map[string]any{"inputs": inputs}, nil); status != 202 {
				t.Fatalf("accept %s: %d", priority, status)
			}
		}
	}
	// Each queue has been delivered from: the worker's three buffers are full, and all slots wait at the gate.
	testkit.Eventually(t, 30*time.Second, "all slots are taken, and all tasks handed out", func() error {
		unhanded, err := p.pg.Exec(p.database, "SELECT count(*) FROM executions WHERE state = 'queued' AND handed < attempt")
		if n := len(outside.came()); err != nil || n < slots || unhanded != "0" {
			return fmt.Errorf("%d calls, %s not handed out, %v", n, unhanded, err)
		}
		return nil
	})
	held := len(outside.came()) // begun before the others were there
	close(outside.gate)
	for priority, n := range backlog {
		p.allSucceed(flows[priority], n, 90*time.Second)
	}

	// Up to where high has nothing left but what its last deliveries brought, all three held something.
	var began []string
	high := 0
	for i, priority := range outside.came() {
		if priority == "high" {
			high++
		}
		if high > backlog["high"]-100 {
			break
		}
		if i >= held {
			began = append(began, priority)
		}
	}
	share := map[string]float64{}
	for _, priority := range began {
		share[priority] += 1 / float64(len(began))
	}
	t.Logf("of %d tasks begun while all three waited: high %.1f %%, normal %.1f %%, low %.1f %% (8 : 3 : 1 is 66.7, 25.0, 8.3)", len(began), 100*share["high"], 100*share["normal"], 100*share["low"])
	for priority, want := range map[string]float64{"high": 8. / 12, "normal": 3. / 12, "low": 1. / 12} {
		if math.Abs(share[priority]-want) > 0.05 {
			t.Errorf("%s has a share of %.3f, it should be %.3f", priority, share[priority], want)
		}
	}
	if share["low"] < 0.05 {
		t.Errorf("low starves: %.3f", share["low"])
	}
}

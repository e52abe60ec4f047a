package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// crowd is an outside server that counts which executions are with it at once, by key. A call that is cut leaves when the server notices.
type crowd struct {
	mu   sync.Mutex
	in   map[string]map[string]int // key, execution: calls
	over []string
	most int
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/")
	execution, _, _ := strings.Cut(r.Header.Get("Idempotency-Key"), "/")
	c.mu.Lock()
	if c.in[key] == nil {
		c.in[key] = map[string]int{}
	}
	c.in[key][execution]++
	if n := len(c.in[key]); n > c.most {
		c.most = n
	}
	if n := len(c.in[key]); n > 2 {
		c.over = append(c.over, fmt.Sprintf("%d of key %s: %v", n, key, c.in[key]))
	}
	c.mu.Unlock()
	select {
	case <-time.After(20 * time.Millisecond):
	case <-r.Context().Done():
	}
	c.mu.Lock()
	if c.in[key][execution]--; c.in[key][execution] == 0 {
		delete(c.in[key], execution)
	}
	c.mu.Unlock()
}

// limitsOverKills runs executions of many keys that may run twice at once, while workers are killed, and counts from outside. FLOW_LIMITS=full (or keys,executions,kills) is the size that issue 5
// names: 200 keys, 20,000 executions, 50 kills; it also tells what the limit costs.
func limitsOverKills(t *testing.T, p *platform, _ *target) {
	keys, n, kills := 20, 600, 3
	full := os.Getenv("FLOW_LIMITS") == "full"
	if full {
		keys, n, kills = 200, 20_000, 50
	} else if v := os.Getenv("FLOW_LIMITS"); v != "" {
		if _, err := fmt.Sscanf(v, "%d,%d,%d", &keys, &n, &kills); err != nil {
			t.Fatalf("FLOW_LIMITS is %q: full, or keys,executions,kills", v)
		}
	}
	outside := &crowd{in: map[string]map[string]int{}}
	srv := httptest.NewServer(outside)
	t.Cleanup(srv.Close)
	doc := func(name string, settings map[string]any) map[string]any {
		return map[string]any{
			"name": name, "settings": settings,
			"nodes": []any{map[string]any{"id": "start", "type": "trigger.manual"}, map[string]any{"id": "call", "type": "http.request", "config": map[string]any{"url": srv.URL + "/{{ input.key }}"}}},
			"edges": []any{map[string]any{"from": "start", "to": "call"}},
		}
	}
	begin := func(flow string) {
		inputs := make([]any, n)
		for i := range inputs {
			inputs[i] = map[string]any{"key": i % keys}
		}
		for at := 0; at < n; at += 500 {
			if status := p.api("POST", "/flows/"+flow+"/executions/batch", map[string]any{"inputs": inputs[at:min(n, at+500)]}, nil); status != 202 {
				t.Fatalf("batch: %d", status)
			}
		}
	}
	limited := p.createFlow(doc("Two of a key", map[string]any{"concurrency": []any{map[string]any{"key": "{{ input.key }}", "limit": 2}}}))
	begin(limited)
	begun := time.Now()
	for k := range kills {
		testkit.Eventually(t, 5*time.Minute, "some have ended", func() error {
			if done := p.counts(limited)["succeeded"]; done < n*(k+1)/(kills+2) {
				return fmt.Errorf("%d of %d", done, n)
			}
			return nil
		})
		p.workers[k%len(p.workers)].process().Kill()
	}
	p.allSucceed(limited, n, 10*time.Minute)
	took := time.Since(begun)
	suspects, err := p.pg.Exec(p.database, "SELECT count(*) FILTER (WHERE deaths > 0) || ' were in flight when their worker was killed, ' || count(*) FILTER (WHERE deaths >= 2) || ' of them twice or more' FROM executions WHERE flow_id = '"+limited+"'")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range p.workers {
		w.waitReady()
	}
	outside.mu.Lock()
	for _, s := range outside.over[:min(5, len(outside.over))] {
		t.Errorf("over the limit: %s", s)
	}
	if outside.most != 2 {
		t.Errorf("at most %d of a key at once, 2 expected", outside.most)
	}
	outside.mu.Unlock()
	if left, err := p.pg.Exec(p.database, "SELECT count(*) FROM slots WHERE state <> 'free'"); err != nil || strings.TrimSpace(left) != "0" {
		t.Errorf("slots left: %s %v", left, err)
	}
	t.Logf("%d executions of %d keys, %d kills in %s (%.1f s a kill): at most %d of a key at once; %s", n, keys, kills, took.Round(time.Second), took.Seconds()/float64(kills), outside.most, strings.TrimSpace(suspects))
	if full {
		ratio(t, p, n, begin, doc)
	}
}

// ratio measures what a limit costs against none: one that never holds anything, and the one of the test.
func ratio(t *testing.T, p *platform, n int, begin func(string), doc func(string, map[string]any) map[string]any) {
	took := map[string]time.Duration{}
	concurrency := func(limit int) map[string]any {
		return map[string]any{"concurrency": []any{map[string]any{"key": "{{ input.key }}", "limit": limit}}}
	}
	for name, settings := range map[string]map[string]any{"none": nil, "wide": concurrency(1000), "two": concurrency(2)} {
		flow := p.createFlow(doc("Limit "+name, settings))
		begun := time.Now()
		begin(flow)
		p.allSucceed(flow, n, 10*time.Minute)
		took[name] = time.Since(begun)
	}
	t.Logf("%d executions without a limit %s; with one that holds nothing %s: %.2f; with two of a key at once %s", n, took["none"].Round(time.Millisecond),
		took["wide"].Round(time.Millisecond), took["wide"].Seconds()/took["none"].Seconds(), took["two"].Round(time.Millisecond))
}

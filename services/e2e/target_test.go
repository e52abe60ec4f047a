package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// target is the outside world: an HTTP server that remembers every call by its idempotency key.
type target struct {
	url  string
	mu   sync.Mutex
	keys map[string][]visit
	gate map[string]chan struct{} // calls to /<name> wait here until it is opened
}

type visit struct {
	attempt  int
	at       time.Time
	answered bool
}

func newTarget(t *testing.T) *target {
	w := &target{keys: map[string][]visit{}, gate: map[string]chan struct{}{}}
	s := httptest.NewServer(http.HandlerFunc(w.serve))
	w.url = s.URL
	t.Cleanup(func() {
		w.mu.Lock()
		for name := range w.gate {
			w.openLocked(name)
		}
		w.mu.Unlock()
		s.CloseClientConnections()
		s.Close()
	})
	return w
}

// shut makes calls to /<name> wait.
func (w *target) shut(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gate[name] = make(chan struct{})
}

// open lets them go on.
func (w *target) open(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.openLocked(name)
}

func (w *target) openLocked(name string) {
	if g := w.gate[name]; g != nil {
		close(g)
		w.gate[name] = nil
	}
}

func (w *target) serve(res http.ResponseWriter, req *http.Request) {
	key := req.Header.Get("Idempotency-Key")
	attempt, _ := strconv.Atoi(req.Header.Get("X-Flow-Attempt"))
	w.mu.Lock()
	n := len(w.keys[key])
	w.keys[key] = append(w.keys[key], visit{attempt: attempt, at: time.Now()})
	gate := w.gate[strings.TrimPrefix(req.URL.Path, "/")]
	w.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-req.Context().Done():
			return
		}
	}
	res.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(res, `{"ok":true,"path":%q}`, req.URL.Path)
	w.mu.Lock()
	w.keys[key][n].answered = true
	w.mu.Unlock()
}

// visits copies what is known of a step of an execution.
func (w *target) visits(execution, node string) []visit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]visit(nil), w.keys[execution+"/"+node+"/-"]...)
}

// step is one step as the API shows it.
type step struct {
	Node    string `json:"node"`
	Status  string `json:"status"`
	Attempt int    `json:"attempt"`
}

func (p *platform) steps(id string) []step {
	p.t.Helper()
	var out struct {
		Items []step `json:"items"`
	}
	if status := p.api("GET", "/executions/"+id+"/steps", nil, &out); status != 200 {
		p.t.Fatalf("steps of %s: %d", id, status)
	}
	return out.Items
}

// check sees that no step was called again by an attempt later than the one whose report says that it was done: what is confirmed never runs again.
func (w *target) check(t *testing.T, p *platform, ids []string, nodes ...string) (calls, repeated int) {
	t.Helper()
	for _, id := range ids {
		recorded := map[string]int{}
		for _, s := range p.steps(id) {
			if s.Status == "succeeded" {
				recorded[s.Node] = s.Attempt
			}
		}
		for _, n := range nodes {
			vs := w.visits(id, n)
			calls += len(vs)
			if len(vs) == 0 {
				t.Errorf("%s: step %s was never called", id, n)
			}
			if recorded[n] == 0 {
				t.Errorf("%s: step %s is not recorded", id, n)
				continue
			}
			for _, v := range vs {
				if v.attempt > recorded[n] {
					t.Errorf("%s: step %s was confirmed in attempt %d and called again in attempt %d", id, n, recorded[n], v.attempt)
				}
			}
			if len(vs) > 1 {
				repeated += len(vs) - 1 // in flight when its worker went: the one that is promised to be possible
			}
		}
	}
	return calls, repeated
}

// chain is a flow of HTTP calls in a row.
func (w *target) chain(name string, nodes ...string) map[string]any {
	doc := map[string]any{"name": name}
	list := []any{map[string]any{"id": "start", "type": "trigger.manual"}}
	var edges []any
	from := "start"
	for _, n := range nodes {
		list = append(list, map[string]any{"id": n, "type": "http.request", "timeout": "100s", "config": map[string]any{"method": "POST", "url": w.url + "/" + n, "body": map[string]any{"i": "{{ input.i }}"}}})
		edges = append(edges, map[string]any{"from": from, "to": n})
		from = n
	}
	doc["nodes"], doc["edges"] = list, edges
	return doc
}

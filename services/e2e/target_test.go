package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
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

// recorded gives, for each step that succeeded, the attempts whose confirmed reports say so.
func (p *platform) recorded(ids []string) map[string]map[string][]int {
	p.t.Helper()
	out := map[string]map[string][]int{}
	for chunk := range slices.Chunk(ids, 500) {
		rows, err := p.pg.Exec(p.database, "SELECT json_build_array(execution_id, attempt, convert_from(events, 'UTF8')) FROM reports WHERE execution_id IN ('"+strings.Join(chunk, "','")+"') AND codec = ''")
		if err != nil {
			p.t.Fatal(err)
		}
		for line := range strings.Lines(rows) {
			var id, events string
			var attempt int
			if err := json.Unmarshal([]byte(line), &[]any{&id, &attempt, &events}); err != nil {
				p.t.Fatalf("%v in %s", err, line)
			}
			list, err := protocol.DecodeEvents([]json.RawMessage{json.RawMessage(events)})
			if err != nil {
				p.t.Fatal(err)
			}
			if out[id] == nil {
				out[id] = map[string][]int{}
			}
			for _, e := range list {
				if e.Type == flow.EventSucceeded {
					out[id][e.Node] = append(out[id][e.Node], attempt)
				}
			}
		}
	}
	return out
}

// check sees that no step was called again by an attempt later than the one whose report says that it was done: what is confirmed never runs again.
func (w *target) check(t *testing.T, p *platform, ids []string, nodes ...string) (calls, repeated int) {
	t.Helper()
	all := p.recorded(ids)
	for _, id := range ids {
		recorded := all[id]
		for _, n := range nodes {
			vs := w.visits(id, n)
			calls += len(vs)
			if len(vs) == 0 {
				t.Errorf("%s: step %s was never called", id, n)
			}
			if len(recorded[n]) != 1 {
				t.Errorf("%s: step %s is recorded in attempts %v, want one", id, n, recorded[n])
				continue
			}
			for _, v := range vs {
				if v.attempt > recorded[n][0] {
					t.Errorf("%s: step %s was confirmed in attempt %d and called again in attempt %d", id, n, recorded[n][0], v.attempt)
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

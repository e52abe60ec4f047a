package e2e

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"flowplatform/services/e2e/chaos"
)

// target is the outside world, with gates: calls to a shut one wait.
type target struct {
	*chaos.Target
	url  string
	mu   sync.Mutex
	gate map[string]chan struct{} // calls to /<name> wait here until it is opened
}

func newTarget(t *testing.T) *target {
	t.Helper()
	w := &target{gate: map[string]chan struct{}{}}
	var err error
	if w.Target, err = chaos.NewTarget(w.hold); err != nil {
		t.Fatal(err)
	}
	w.url = w.URL
	t.Cleanup(func() { w.Close() })
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
	if g := w.gate[name]; g != nil {
		close(g)
		w.gate[name] = nil
	}
}

func (w *target) hold(r *http.Request) {
	w.mu.Lock()
	gate := w.gate[strings.TrimPrefix(r.URL.Path, "/")]
	w.mu.Unlock()
	if gate == nil {
		return
	}
	select {
	case <-gate:
	case <-r.Context().Done():
	}
}

// check sees that all ended well, and that no step was called again once its report was confirmed. It gives the calls, and how many of them
// repeated one that was in flight when its worker went: that is promised to be possible.
func (w *target) check(t *testing.T, p *platform, ids []string, nodes ...string) (calls, repeated int) {
	t.Helper()
	c, err := chaos.Count(t.Context(), p.pg.URL("flow_orchestrator", p.database), w.Target, ids, nodes)
	if err != nil {
		t.Fatal(err)
	}
	if broken := c.Broken(); len(broken) > 0 {
		t.Errorf("%s:\n%s", strings.Join(broken, "; "), strings.Join(c.Examples, "\n"))
	}
	return c.Calls, c.Repeated
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

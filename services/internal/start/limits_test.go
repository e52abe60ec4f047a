package start

import (
	"os"
	"strings"
	"testing"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/nodes"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// The settings that docs/flows.md shows are taken, and make the keys that it says.
func TestLimitsOfTheDocs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/flows.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "## Limits")
	_, rest, _ = strings.Cut(rest, "```json\n")
	settings, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/flows.md shows no settings of limits")
	}
	catalogue, err := nodes.Catalogue(nodes.Options{})
	if err != nil {
		t.Fatal(err)
	}
	doc := `{"name": "x", "nodes": [{"id": "s", "type": "trigger.manual"}], ` + settings + `}`
	_, program, problems := flow.Load([]byte(doc), flow.FlowView{}, catalogue, expr.New())
	if len(problems) > 0 {
		t.Fatalf("%+v", problems)
	}
	p := &Plan{Head: store.Flow{ID: store.NewID()}, Version: &definitions.Version{Program: program}, priority: "normal", shards: 1}
	limits := func(input string) []protocol.Limit {
		t.Helper()
		v, err := flow.DecodeValue([]byte(input))
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.limits(v)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	a := limits(`{"customer": "a", "tenant": "t", "paid": true, "document": 1}`)
	kinds := ""
	for _, l := range a {
		kinds += l.Kind + " " + l.Value + ", "
	}
	if kinds != "debounce 1, rate a, concurrency a, concurrency , fairness t, " || a[4].Weight != 4 {
		t.Fatalf("%s weight %v", kinds, a[4].Weight)
	}
	b := limits(`{"customer": "b", "tenant": "u", "paid": false, "document": "1"}`)
	for i, same := range []bool{true, false, false, true, true} {
		if (a[i].Key == b[i].Key) != same {
			t.Errorf("%s and %s: the same key is wanted: %v", a[i].Key, b[i].Key, same)
		}
	}
	if long := limits(`{"customer": "` + strings.Repeat("ä", 500) + `", "tenant": 1, "paid": true, "document": 1}`); len(long[1].Key) > 250 {
		t.Errorf("a key of %d bytes", len(long[1].Key))
	}
	if _, err := p.limits(map[string]any{}); err == nil || !strings.Contains(err.Error(), "customer") {
		t.Errorf("an input without what the keys need: %v", err)
	}
}

package nodes

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

var update = flag.Bool("update", false, "write docs/nodes anew")

func catalogue(t testing.TB) *node.Catalogue {
	t.Helper()
	c, err := Catalogue(Options{Scripts: scripts})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestExamples runs every example of every node in a flow of its own: trigger, node, end.
func TestExamples(t *testing.T) {
	t.Parallel()
	c := catalogue(t)
	for _, typ := range c.List() {
		if len(typ.Examples) == 0 {
			t.Errorf("%s has no example", typ.Spec.Type)
		}
		for _, x := range typ.Examples {
			t.Run(typ.Spec.Type+"/"+x.Title, func(t *testing.T) {
				t.Parallel()
				n := flow.Node{ID: "n", Type: typ.Spec.Type, Config: x.Config}
				def := &flow.Definition{Name: "example", Nodes: []flow.Node{n}}
				if typ.Kind != flow.KindTrigger {
					def.Nodes = append(def.Nodes, flow.Node{ID: "start", Type: "trigger.manual"})
					def.Edges = []flow.Edge{{From: "start", To: "n"}}
				}
				for _, inner := range x.Inside {
					inner.Parent = "n"
					def.Nodes = append(def.Nodes, inner)
				}
				def.Edges = append(def.Edges, x.InsideEdges...)
				if typ.Container == flow.Try {
					def.Nodes = append(def.Nodes, flow.Node{ID: "last", Type: "flow.stop", Config: map[string]any{"output": "{{ steps.n.output }}"}})
					def.Edges = append(def.Edges, flow.Edge{From: "n", Port: flow.PortFinally, To: "last"})
				}
				p, problems := flow.Compile(def, flow.FlowView{Name: "example", Version: 1}, c, expr.New())
				if len(problems) > 0 {
					t.Fatalf("%+v", problems)
				}
				st := p.Start(flow.Record{Input: x.Input, Execution: flow.ExecutionView{ID: "e", CreatedAt: time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC), Trigger: "manual"}})
				if typ.Kind == flow.KindContainer {
					container(t, c, st)
					if port := st.Steps()[0].Port; port != cmp.Or(x.Port, flow.PortMain) {
						t.Errorf("it left by %q, the example says %q", port, x.Port)
					}
				}
				for _, cmd := range st.Next() {
					if typ.Kind == flow.KindEffect {
						return // depends on the outside; its configuration was evaluated
					}
					r, err := typ.Executor.Execute(t.Context(), node.Call{Config: cmd.Config, Now: cmd.Now, Seed: cmd.Seed, Scope: cmd.Scope, Inputs: cmd.Inputs})
					if x.Error != "" {
						var ne *node.Error
						if !errors.As(err, &ne) || ne.Code != x.Error {
							t.Errorf("%v, the example says that it fails with %q", err, x.Error)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if typ.Kind == flow.KindWait {
						if r.Wait == nil || r.Wait.Kind == flow.WaitTimer && r.Wait.Due.IsZero() {
							t.Fatalf("%+v", r)
						}
						return
					}
					if err := st.Apply(flow.Event{Type: flow.EventSucceeded, Node: "n", Try: 1, Port: r.Port, Output: r.Output, Stop: r.Stop, Pure: true}); err != nil {
						t.Fatal(err)
					}
					if r.Port != x.Port {
						t.Errorf("it left by %q, the example says %q", r.Port, x.Port)
					}
				}
				if st.Outcome() != flow.Succeeded || !reflect.DeepEqual(st.Output(), x.Output) {
					t.Errorf("%s %v %v, the example says %v", st.Outcome(), st.Failure(), st.Output(), x.Output)
				}
			})
		}
	}
}

// container runs the nodes inside of one.
func container(t *testing.T, c *node.Catalogue, st *flow.State) {
	t.Helper()
	for commands := st.Next(); len(commands) > 0; commands = st.Next() {
		for _, cmd := range commands {
			e := flow.Event{Type: flow.EventSucceeded, Node: cmd.Key.Node, Iteration: cmd.Key.Iteration, Try: 1, Pure: true}
			executor, _ := c.Executor(cmd.Type, cmd.Version)
			r, err := executor.Execute(t.Context(), node.Call{Config: cmd.Config, Now: cmd.Now, Seed: cmd.Seed, Scope: cmd.Scope, Inputs: cmd.Inputs})
			e.Port, e.Output, e.Stop = r.Port, r.Output, r.Stop
			var ne *node.Error
			if errors.As(err, &ne) {
				e.Type, e.Error = flow.EventFailed, &flow.Failure{Code: ne.Code, Message: ne.Message}
			}
			if err := st.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWrongConfigurations(t *testing.T) {
	t.Parallel()
	c := catalogue(t)
	for typ, tc := range map[string]map[string]string{ // configuration → pointers of its problems
		"data.set": {`{}`: "/values", `{"values": 1}`: "/values", `{"values": {}, "vals": 1}`: "/vals", `{"values": "{{ input }}"}`: ""},
		"logic.switch": {`{"cases": []}`: "/cases", `{"cases": [{"port": "a", "condition": true}, {"port": "a", "condition": "{{ input.b }}"}, {"port": "default", "condition": true}]}`: "/cases/1/port /cases/2/port",
			`{"cases": [{"port": "{{ input.p }}", "condition": true}]}`: "/cases/0/port", `{"cases": [{"port": "no port", "condition": "x"}]}`: "/cases/0/condition /cases/0/port"},
		"logic.filter": {`{"items": "x", "condition": "item.a"}`: "/condition /items", `{"items": "{{ input }}", "condition": "{{ item.a }}"}`: ""},
		"data.aggregate": {`{"items": [], "fields": {"n": {"op": "median"}, "m": {}}}`: "/fields/m/op /fields/n/op", `{"items": [], "groupBy": "n", "fields": {"n": {"op": "count"}}}`: "/fields/n",
			`{"items": [], "groupBy": {"a": "b"}, "fields": {"n": {"op": "count"}}}`: "", `{"items": [], "fields": {}}`: "/fields"},
		"flow.fail":       {`{}`: "/message", `{"message": "m", "code": "a b"}`: "/code"},
		"logic.if":        {`{"condition": "yes"}`: "/condition", `{"condition": "{{ input.a }}"}`: "", `{"condition": true}`: ""},
		"http.request":    {`{"url": "", "method": "FETCH"}`: "/method /url", `{"url": "{{ input.u }}", "method": "{{ input.m }}"}`: "", `{}`: "/url"},
		"trigger.webhook": {`{}`: "/path", `{"path": "/a"}`: "/path", `{"path": "a", "method": "TRACE", "respond": "later", "tokenSha256": "abc", "headers": ["X Y"]}`: "/headers/0 /method /respond /tokenSha256"},
		"flow.respond":    {`{"status": 99}`: "/status", `{"status": "{{ input.s }}"}`: ""},
	} {
		for config, want := range tc {
			v, err := flow.DecodeValue([]byte(config))
			if err != nil {
				t.Fatal(err)
			}
			nt, _ := c.Lookup(typ, 0)
			var got []string
			for _, p := range nt.Check(v.(map[string]any)) {
				got = append(got, p.Pointer)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s %s: problems at %q, want %q", typ, config, got, want)
			}
		}
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		config map[string]any
		due    time.Time
		bad    string
	}{
		"text":         {map[string]any{"duration": "90s"}, now.Add(90 * time.Second), ""},
		"milliseconds": {map[string]any{"duration": 1500}, now.Add(1500 * time.Millisecond), ""},
		"until":        {map[string]any{"until": "2030-01-01T14:00:00+01:00"}, now.Add(time.Hour), ""},
		"past":         {map[string]any{"until": "2001-01-01T00:00:00Z"}, now, ""},
		"negative":     {map[string]any{"duration": "-5s"}, now, ""},
		"no duration":  {map[string]any{"duration": "soon"}, time.Time{}, "duration is"},
		"too long":     {map[string]any{"duration": "9000h"}, time.Time{}, "the longest"},
		"too many ms":  {map[string]any{"duration": 1 << 62}, time.Time{}, "8760h"},
		"no time":      {map[string]any{"until": "tomorrow"}, time.Time{}, "until is"},
	} {
		r, err := delay{}.Execute(t.Context(), node.Call{Config: tc.config, Now: now})
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || r.Wait == nil || !r.Wait.Due.Equal(tc.due) {
			t.Errorf("%s: %+v %v", name, r.Wait, err)
		}
	}
}

func TestFlowSchemaTakesAFlowAndRefusesAnother(t *testing.T) {
	t.Parallel()
	b, err := catalogue(t).FlowSchema()
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil || doc["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("%s %v", b, err)
	}
}

// TestPages compares docs/nodes with the specs.
func TestPages(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "..", "docs", "nodes")
	for _, typ := range catalogue(t).List() {
		path := filepath.Join(dir, typ.Spec.Type+".md")
		want := page(t, typ.Spec)
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s is not what the spec says (%v): go test ./services/internal/nodes -update", path, err)
		}
	}
}

func page(t *testing.T, s node.Spec) string {
	t.Helper()
	v := s.View()
	var b strings.Builder
	fmt.Fprintf(&b, "# %s (`%s`)\n\n%s\n\n", s.Title, s.Type, s.Description)
	fmt.Fprintf(&b, "- Kind: %s. Ports: `%s`.\n", s.Kind, strings.Join(v.Ports, "`, `"))
	if v.PortsFrom != "" {
		fmt.Fprintf(&b, "- Before them, the ports that the configuration names at `%s`.\n", v.PortsFrom)
	}
	if len(v.PerItem) > 0 {
		fmt.Fprintf(&b, "- Evaluated once for each item, with `item` and `index`: `%s`.\n", strings.Join(v.PerItem, "`, `"))
	}
	if v.Timeout != "" {
		fmt.Fprintf(&b, "- Timeout of a try, unless the node says otherwise: %s.\n", v.Timeout)
	}
	shape := func(title, text string) {
		var doc any
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		pretty, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n## %s\n\n```json\n%s\n```\n", title, pretty)
	}
	shape("Configuration", s.Config)
	shape("Output", s.Output)
	b.WriteString("\n## Examples\n")
	for _, x := range v.Examples {
		title := x.Title
		x.Title = ""
		shown := map[string]any{"config": x.Config, "input": x.Input, "output": x.Output, "port": x.Port}
		if x.Error != "" {
			shown["error"] = x.Error
		}
		pretty, err := json.MarshalIndent(shown, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n%s:\n\n```json\n%s\n```\n", title, pretty)
	}
	return b.String()
}

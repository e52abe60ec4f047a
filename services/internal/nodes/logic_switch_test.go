package nodes

import (
	"testing"

	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func TestSwitch(t *testing.T) {
	t.Parallel()
	const cases = `{"cases": [{"port": "a", "condition": "{{ input.x > 2 }}"}, {"port": "b", "condition": "{{ input.x > 1 }}"}]}`
	for input, want := range map[string]string{`{"x": 3}`: "port: a", `{"x": 2}`: "port: b", `{"x": 1}`: "port: default"} {
		if got := compute(t, "logic.switch", cases, input); got != want {
			t.Errorf("%s: %s, want %s", input, got, want)
		}
	}
	if got := compute(t, "logic.switch", `{"cases": [{"port": "a", "condition": "{{ input }}"}]}`, `"yes"`); got != `config: cases[0].condition is "yes", it must be true or false: compare, as in {{ input.total > 100 }}` {
		t.Error(got)
	}
}

// TestSwitchPorts: edges lead from the ports that the configuration names, and from no others.
func TestSwitchPorts(t *testing.T) {
	t.Parallel()
	def := func(port string) *flow.Definition {
		return &flow.Definition{Name: "ports", Nodes: []flow.Node{{ID: "start", Type: "trigger.manual"}, {ID: "s", Type: "logic.switch", Config: switchExample}, {ID: "end", Type: "data.set", Config: map[string]any{"values": map[string]any{}}}},
			Edges: []flow.Edge{{From: "start", To: "s"}, {From: "s", Port: port, To: "end"}}}
	}
	for _, port := range []string{"large", "medium", "default"} {
		if _, problems := flow.Compile(def(port), flow.FlowView{}, catalogue(t), expr.New()); len(problems) > 0 {
			t.Errorf("%s: %+v", port, problems)
		}
	}
	for _, port := range []string{"huge", "main", ""} {
		if _, problems := flow.Compile(def(port), flow.FlowView{}, catalogue(t), expr.New()); len(problems) != 1 || problems[0].Pointer != "/edges/1/port" {
			t.Errorf("%s: %+v", port, problems)
		}
	}
}

func TestFail(t *testing.T) {
	t.Parallel()
	if got := compute(t, "flow.fail", `{"message": "no {{ input }}"}`, `"stock"`); got != "failed: no stock" {
		t.Error(got)
	}
	if got := compute(t, "flow.fail", `{"message": "{{ input }}"}`, `5`); got != "config: message is 5, it must be a text" {
		t.Error(got)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	object := func(k string, v any) map[string]any { return map[string]any{k: v} }
	inputs := []flow.Input{{From: "b", Output: object("x", 1)}, {From: "a", Output: map[string]any{"x": 2, "y": 3}}, {From: "c"}}
	for mode, want := range map[string]string{"": `{"a":{"x":2,"y":3},"b":{"x":1},"c":null}`, "all": `{"a":{"x":2,"y":3},"b":{"x":1},"c":null}`, "first": `{"x":1}`, "combine": `{"x":2,"y":3}`} {
		config := map[string]any{}
		if mode != "" {
			config["mode"] = mode
		}
		r, err := merge{}.Execute(t.Context(), node.Call{Config: config, Inputs: inputs})
		if err != nil || encode(t, r.Output) != want {
			t.Errorf("%s: %v %v", mode, r.Output, err)
		}
	}
	if _, err := (merge{}).Execute(t.Context(), node.Call{Config: object("mode", "combine"), Inputs: []flow.Input{{From: "a", Output: 1}}}); err == nil {
		t.Error("a number has no fields")
	}
}

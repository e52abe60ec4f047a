package flow_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
)

// fakeTypes is a tiny catalogue with the shapes of the first nodes.
type fakeTypes map[string]flow.NodeType

func (f fakeTypes) Lookup(typ string, version int) (flow.NodeType, bool) {
	n, ok := f[typ]
	return n, ok && (version == 0 || version == n.Version)
}

func (f fakeTypes) Names() []string {
	var names []string
	for n := range f {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func types() fakeTypes {
	needs := func(keys ...string) func(map[string]any) []flow.Problem {
		return func(config map[string]any) (out []flow.Problem) {
			for _, k := range keys {
				if _, ok := config[k]; !ok {
					out = append(out, flow.Problem{Pointer: "/" + k, Code: "required", Message: k + " is needed"})
				}
			}
			for k := range config {
				if !slices.Contains(keys, k) && k != "method" && k != "cases" && k != "name" {
					out = append(out, flow.Problem{Pointer: "/" + k, Code: "unknown-field", Message: k + " is unknown"})
				}
			}
			return out
		}
	}
	list := []flow.NodeType{
		{Type: "trigger.manual", Version: 1, Kind: flow.KindTrigger},
		{Type: "trigger.webhook", Version: 1, Kind: flow.KindTrigger, Check: needs("path")},
		{Type: "data.set", Version: 2, Kind: flow.KindPure, Check: needs("values")},
		{Type: "logic.if", Version: 1, Kind: flow.KindPure, Check: needs("condition"), Ports: func(map[string]any) []string { return []string{"true", "false"} }},
		{Type: "logic.switch", Version: 1, Kind: flow.KindPure, Check: needs("cases"), Ports: func(config map[string]any) []string {
			ports := []string{}
			cases, _ := config["cases"].([]any)
			for _, c := range cases {
				m, _ := c.(map[string]any)
				if p, ok := m["port"].(string); ok {
					ports = append(ports, p)
				}
			}
			return append(ports, "default")
		}},
		{Type: "logic.merge", Version: 1, Kind: flow.KindPure, Inputs: true},
		{Type: "logic.foreach", Version: 1, Kind: flow.KindContainer, Container: flow.Foreach},
		{Type: "logic.while", Version: 1, Kind: flow.KindContainer, Container: flow.While, PerItem: []string{"/condition"}},
		{Type: "logic.try", Version: 1, Kind: flow.KindContainer, Container: flow.Try, Ports: func(map[string]any) []string { return []string{"main", "error", "finally"} }},
		{Type: "flow.stop", Version: 1, Kind: flow.KindPure, Check: needs("output")},
		{Type: "http.request", Version: 1, Kind: flow.KindEffect, Check: needs("url"), Timeout: 30 * time.Second},
		{Type: "flow.delay", Version: 1, Kind: flow.KindWait, Check: needs("duration")},
		{Type: "flow.signal", Version: 1, Kind: flow.KindWait, Check: needs("name"), Ports: func(map[string]any) []string { return []string{"main", "expired"} }},
		{Type: "test.flaky", Version: 1, Kind: flow.KindEffect, Retry: &flow.Retry{MaxAttempts: 3, InitialDelay: flow.Duration(100 * time.Millisecond)}},
	}
	out := fakeTypes{}
	for _, n := range list {
		out[n.Type] = n
	}
	return out
}

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func record(input any) flow.Record {
	return flow.Record{Execution: flow.ExecutionView{ID: "exec-1", CreatedAt: epoch, Trigger: "manual", Priority: "normal"}, Input: input}
}

func mustCompile(t testing.TB, document string) *flow.Program {
	t.Helper()
	def, problems := flow.Parse([]byte(document))
	if len(problems) > 0 {
		t.Fatalf("parse: %v", problems)
	}
	p, problems := flow.Compile(def, flow.FlowView{ID: "flow-1", Name: def.Name, Version: 1}, types(), expr.New())
	if len(problems) > 0 {
		t.Fatalf("compile: %v", problems)
	}
	return p
}

// chart makes a document of lines: "id type {config}" with optional "| field: value" parts, and "a -> b" or "a.port -> b" for edges.
func chart(lines string) string {
	var nodes, edges []string
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if from, to, ok := strings.Cut(line, " -> "); ok {
			from, port, _ := strings.Cut(from, ".")
			edge := fmt.Sprintf(`{"from": %q, "to": %q}`, from, to)
			if port != "" {
				edge = fmt.Sprintf(`{"from": %q, "port": %q, "to": %q}`, from, port, to)
			}
			edges = append(edges, edge)
			continue
		}
		node, more, _ := strings.Cut(line, " | ")
		parts := strings.SplitN(node, " ", 3)
		text := fmt.Sprintf(`{"id": %q, "type": %q`, parts[0], parts[1])
		if len(parts) == 3 {
			text += `, "config": ` + parts[2]
		}
		if more != "" {
			text += ", " + more
		}
		nodes = append(nodes, text+"}")
	}
	return fmt.Sprintf(`{"name": "test", "nodes": [%s], "edges": [%s]}`, strings.Join(nodes, ","), strings.Join(edges, ","))
}

// pure computes a pure command as the real nodes would.
func pure(cmd flow.Command) flow.Event {
	e := flow.Event{Type: flow.EventSucceeded, Node: cmd.Key.Node, Iteration: cmd.Key.Iteration, Try: cmd.Try, Pure: true, At: cmd.Now}
	switch cmd.Type {
	case "data.set":
		e.Output = cmd.Config["values"]
	case "logic.merge":
		list := []any{}
		for _, in := range cmd.Inputs {
			list = append(list, []any{in.From, in.Port, in.Output})
		}
		e.Output = list
	case "flow.stop":
		e.Output, e.Stop = cmd.Config["output"], true
	case "logic.if":
		b, ok := cmd.Config["condition"].(bool)
		if !ok {
			e.Type, e.Error = flow.EventFailed, &flow.Failure{Code: "condition", Message: fmt.Sprintf("the condition gives %v", cmd.Config["condition"])}
			return e
		}
		e.Port = fmt.Sprint(b)
	case "logic.switch":
		e.Port = "default"
		for _, c := range cmd.Config["cases"].([]any) {
			if c.(map[string]any)["condition"] == true {
				e.Port = c.(map[string]any)["port"].(string)
				break
			}
		}
	}
	return e
}

func apply(t testing.TB, s *flow.State, e flow.Event) {
	t.Helper()
	if err := s.Apply(e); err != nil {
		t.Fatalf("apply %+v: %v", e, err)
	}
}

// settle runs pure commands until none is left, and gives the others.
func settle(t testing.TB, s *flow.State) (rest []flow.Command) {
	t.Helper()
	for {
		again := false
		for _, cmd := range s.Next() {
			if cmd.Kind == flow.KindPure && cmd.Op == flow.OpRun {
				apply(t, s, pure(cmd))
				again = true
			} else {
				rest = append(rest, cmd)
			}
		}
		if !again {
			return rest
		}
	}
}

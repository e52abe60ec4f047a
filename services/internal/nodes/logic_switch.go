package nodes

import (
	"context"
	"fmt"
	"slices"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// portDefault is where logic.switch leaves by when no case holds.
const portDefault = "default"

func logicSwitch() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "logic.switch", Version: 1, Kind: flow.KindPure, Category: "logic", PortsFrom: "/cases/*/port", Ports: []string{portDefault},
			Title: "Switch", Description: "Leaves by the port of the first case whose condition holds, else by the port default.",
			Config: `{"type": "object", "required": ["cases"], "additionalProperties": false,
				"properties": {"cases": {"type": "array", "minItems": 1, "maxItems": 100, "title": "Cases", "description": "looked at in this order; the first that holds wins",
					"items": {"type": "object", "required": ["port", "condition"], "additionalProperties": false, "properties": {
						"port": {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$", "maxLength": 100, "title": "Port", "description": "name of the port that edges lead from; letters, digits and _"},
						"condition": {"type": "boolean", "title": "Condition", "description": "an expression that gives true or false"}}}}}}`,
			Output: `{"type": "null"}`,
			Check:  checkSwitch,
			Examples: []node.Example{
				{Title: "The first that holds", Config: switchExample, Input: map[string]any{"total": 5000}, Port: "large"},
				{Title: "None holds", Config: switchExample, Input: map[string]any{"total": 5}, Port: portDefault},
			},
		},
		Executor: choose{},
	}
}

var switchExample = map[string]any{"cases": []any{
	map[string]any{"port": "large", "condition": "{{ input.total >= 1000 }}"},
	map[string]any{"port": "medium", "condition": "{{ input.total >= 100 }}"},
}}

func checkSwitch(config map[string]any) []flow.Problem {
	var out []flow.Problem
	var seen []string
	cases, _ := config["cases"].([]any)
	for i, c := range cases {
		m, _ := c.(map[string]any)
		port, _ := m["port"].(string)
		ptr := fmt.Sprintf("/cases/%d/port", i)
		switch {
		case port == portDefault || port == flow.PortError:
			out = append(out, flow.Problem{Pointer: ptr, Code: "port", Message: fmt.Sprintf("the port %q has a meaning of its own: default is for when no case holds, error for when the node fails; choose another name", port)})
		case slices.Contains(seen, port):
			out = append(out, flow.Problem{Pointer: ptr, Code: "duplicate", Message: fmt.Sprintf("another case has the port %q already: join their conditions by or", port)})
		}
		seen = append(seen, port)
	}
	return out
}

type choose struct{}

func (choose) Execute(_ context.Context, c node.Call) (node.Result, error) {
	cases, ok := c.Config["cases"].([]any)
	if !ok {
		return node.Result{}, wrong("cases", c.Config["cases"], "a list of ports with their conditions")
	}
	for i, v := range cases {
		m, _ := v.(map[string]any)
		port, _ := m["port"].(string)
		holds, ok := m["condition"].(bool)
		if !ok || port == "" {
			return node.Result{}, wrong(fmt.Sprintf("cases[%d].condition", i), m["condition"], "true or false: compare, as in {{ input.total > 100 }}")
		}
		if holds {
			return node.Result{Port: port}, nil
		}
	}
	return node.Result{Port: portDefault}, nil
}

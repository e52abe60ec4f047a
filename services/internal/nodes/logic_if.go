package nodes

import (
	"context"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func logicIf() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "logic.if", Version: 1, Kind: flow.KindPure, Category: "logic", Ports: []string{"true", "false"},
			Title: "If", Description: "Leaves by the port true or false, as its condition says.",
			Config: `{"type": "object", "required": ["condition"], "additionalProperties": false,
				"properties": {"condition": {"type": "boolean", "title": "Condition", "description": "an expression that gives true or false"}}}`,
			Output: `{"type": "null"}`,
			Examples: []node.Example{
				{Title: "Holds", Config: map[string]any{"condition": "{{ input.total > 100 }}"}, Input: map[string]any{"total": 150}, Port: "true"},
				{Title: "Does not hold", Config: map[string]any{"condition": "{{ input.total > 100 }}"}, Input: map[string]any{"total": 50}, Port: "false"},
			},
		},
		Executor: branch{},
	}
}

type branch struct{}

func (branch) Execute(_ context.Context, c node.Call) (node.Result, error) {
	switch v := c.Config["condition"].(type) {
	case bool:
		if v {
			return node.Result{Port: "true"}, nil
		}
		return node.Result{Port: "false"}, nil
	default:
		return node.Result{}, wrong("condition", v, "true or false: compare, as in {{ input.total > 100 }}")
	}
}

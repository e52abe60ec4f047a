package nodes

import (
	"context"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func dataSet() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "data.set", Version: 1, Kind: flow.KindPure, Category: "data",
			Title: "Set values", Description: "Makes an object of values and expressions.",
			Config: `{"type": "object", "required": ["values"], "additionalProperties": false,
				"properties": {"values": {"type": "object", "title": "Values", "description": "name and value of each; a value may be anything, with expressions anywhere in it"}}}`,
			Output: `{"type": "object", "description": "the values"}`,
			Examples: []node.Example{
				{Title: "A constant and an expression", Config: map[string]any{"values": map[string]any{"currency": "EUR", "double": "{{ input.n * 2 }}"}}, Input: map[string]any{"n": 21}, Output: map[string]any{"currency": "EUR", "double": 42}},
				{Title: "Nested, with text around", Config: map[string]any{"values": map[string]any{"greeting": map[string]any{"text": "Hello {{ input.name }}!"}}}, Input: map[string]any{"name": "Ana"}, Output: map[string]any{"greeting": map[string]any{"text": "Hello Ana!"}}},
			},
		},
		Executor: set{},
	}
}

type set struct{}

func (set) Execute(_ context.Context, c node.Call) (node.Result, error) {
	values, ok := c.Config["values"].(map[string]any)
	if !ok {
		return node.Result{}, wrong("values", c.Config["values"], "an object")
	}
	return node.Result{Output: values}, nil
}

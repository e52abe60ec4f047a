package nodes

import (
	"context"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func flowStop() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "flow.stop", Version: 1, Kind: flow.KindPure, Category: "flow",
			Title:       "Stop",
			Description: "Ends the whole execution at once as succeeded, with its output, from inside containers too: nothing new starts, calls in flight end and are recorded, waits are forgotten.",
			Config: `{"type": "object", "additionalProperties": false,
				"properties": {"output": {"title": "Output", "description": "of the execution; null when it isn't given"}}}`,
			Output: `{"description": "what was given as output"}`,
			Examples: []node.Example{
				{Title: "Nothing to do", Config: map[string]any{"output": map[string]any{"skipped": true, "why": "{{ input.reason }}"}}, Input: map[string]any{"reason": "no orders"},
					Output: map[string]any{"skipped": true, "why": "no orders"}},
				{Title: "Without an output", Config: map[string]any{}},
			},
		},
		Executor: stop{},
	}
}

type stop struct{}

func (stop) Execute(_ context.Context, c node.Call) (node.Result, error) {
	return node.Result{Output: c.Config["output"], Stop: true}, nil
}

package nodes

import (
	"context"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func triggerManual() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "trigger.manual", Version: 1, Kind: flow.KindTrigger, Category: "trigger",
			Title: "Manual start", Description: "Starts the flow when a person or a program asks for it. Its output is the input.",
			Config:   `{"type": "object", "additionalProperties": false}`,
			Output:   `{"description": "the input"}`,
			Examples: []node.Example{{Title: "The input comes out", Input: map[string]any{"orderId": 7}, Output: map[string]any{"orderId": 7}}},
		},
		Executor: trigger{},
	}
}

// trigger is never executed: the engine gives triggers the input as their output. It serves the examples.
type trigger struct{}

func (trigger) Execute(_ context.Context, c node.Call) (node.Result, error) {
	return node.Result{Output: c.Scope.Input}, nil
}

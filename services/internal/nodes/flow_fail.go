package nodes

import (
	"context"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// codeFailed is the code of a flow.fail that names none.
const codeFailed = "failed"

func flowFail() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "flow.fail", Version: 1, Kind: flow.KindPure, Category: "flow",
			Title: "Fail", Description: "Fails on purpose, with a message and a code of your own: outside of a container the execution fails, inside of logic.try the error is caught. It is never tried again.",
			Config: `{"type": "object", "required": ["message"], "additionalProperties": false,
				"properties": {
					"message": {"type": "string", "minLength": 1, "maxLength": 4000, "title": "Message", "description": "what happened, for the person who looks at the execution"},
					"code": {"type": "string", "pattern": "^[a-zA-Z0-9][a-zA-Z0-9._-]*$", "maxLength": 100, "default": "failed", "title": "Code", "description": "for programs: stands in the execution's error, and in steps.<id>.error.code"}}}`,
			Output: `{"type": "null", "description": "there is none"}`,
			Examples: []node.Example{
				{Title: "Refuse an order", Config: map[string]any{"message": "Order {{ input.id }} has no items", "code": "empty-order"}, Input: map[string]any{"id": 7}, Error: "empty-order"},
			},
		},
		Executor: fail{},
	}
}

type fail struct{}

func (fail) Execute(_ context.Context, c node.Call) (node.Result, error) {
	message, problem := text(c.Config, "message")
	if problem != nil {
		return node.Result{}, problem
	}
	code, problem := text(c.Config, "code")
	if problem != nil {
		return node.Result{}, problem
	}
	if code == "" {
		code = codeFailed
	}
	if message == "" {
		message = "the flow failed on purpose and gives no reason (flow.fail with an empty message)"
	}
	return node.Result{}, &node.Error{Code: code, Message: message}
}

package nodes

import (
	"fmt"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// The containers. The engine settles them itself (package flow, rounds.go): they have no executor and cost no message.

func logicForeach() node.Type {
	return node.Type{Spec: node.Spec{
		Type: "logic.foreach", Version: 1, Kind: flow.KindContainer, Container: flow.Foreach, Category: "logic",
		Title: "For each",
		Description: "Runs the nodes whose parent it is once for each item of a list, as a small flow with item and index in scope. Its output is the list of what the rounds gave (the output of a round's only end, or a map by " +
			"node id of several), in the order of the items, whichever finished first. The list may have 4 MiB: end each round with what later steps need. A failed item stops the loop, leaves null in the list (continue) " +
			"or an object with its error (collect).",
		Config: fmt.Sprintf(`{"type": "object", "required": ["items"], "additionalProperties": false,
			"properties": {
				"items": {"type": "array", "maxItems": %d, "title": "Items", "description": "the list; an expression mostly"},
				"concurrency": {"type": "integer", "minimum": 1, "maximum": %d, "default": 1, "title": "Concurrency", "description": "how many items at once; 1: one after the other"},
				"onItemError": {"enum": ["fail", "continue", "collect"], "default": "fail", "title": "When an item fails",
					"description": "fail: the loop fails, what is in flight ends first; continue: its place in the list is null; collect: its place is {\"error\": {code, message, node}}"}}}`, flow.MaxRounds, flow.MaxConcurrency),
		Output: `{"type": "array", "description": "what the rounds gave, in the order of the items"}`,
		Examples: []node.Example{
			{
				Title: "Names of customers", Config: map[string]any{"items": "{{ input.customers }}", "concurrency": 4},
				Inside: []flow.Node{{ID: "name", Type: "data.set", Config: map[string]any{"values": map[string]any{"name": "{{ upper(item.name) }}", "place": "{{ index + 1 }}"}}}},
				Input:  map[string]any{"customers": []any{map[string]any{"name": "Ada"}, map[string]any{"name": "Bo"}}},
				Output: []any{map[string]any{"name": "ADA", "place": 1}, map[string]any{"name": "BO", "place": 2}},
			},
			{
				Title: "Errors as results", Config: map[string]any{"items": []any{1, 0}, "onItemError": "collect"},
				Inside: []flow.Node{
					{ID: "check", Type: "logic.if", Config: map[string]any{"condition": "{{ item > 0 }}"}},
					{ID: "good", Type: "data.set", Config: map[string]any{"values": map[string]any{"n": "{{ item }}"}}},
					{ID: "bad", Type: "flow.fail", Config: map[string]any{"message": "nothing left", "code": "empty"}},
				},
				InsideEdges: []flow.Edge{{From: "check", Port: "true", To: "good"}, {From: "check", Port: "false", To: "bad"}},
				Output:      []any{map[string]any{"n": 1}, map[string]any{"error": map[string]any{"code": "empty", "message": "nothing left", "node": "bad"}}},
			},
		},
	}}
}

package nodes

import (
	"fmt"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func logicWhile() node.Type {
	return node.Type{Spec: node.Spec{
		Type: "logic.while", Version: 1, Kind: flow.KindContainer, Container: flow.While, Category: "logic", PerItem: []string{"/condition"},
		Title: "While",
		Description: "Runs the nodes whose parent it is as long as its condition holds, one round after the other. The condition is looked at before each round; in it and inside, item is the output of the round before (null at " +
			"first) and index the round's number from 0. Its output is the list of what the rounds gave. When the condition still holds after maxRounds it fails with the code max-rounds.",
		Config: fmt.Sprintf(`{"type": "object", "required": ["condition"], "additionalProperties": false,
			"properties": {
				"condition": {"type": "boolean", "title": "Condition", "description": "an expression over item and index that gives true or false"},
				"maxRounds": {"type": "integer", "minimum": 1, "maximum": %d, "default": 1000, "title": "Most rounds"}}}`, flow.MaxRounds),
		Output: `{"type": "array", "description": "what the rounds gave"}`,
		Examples: []node.Example{
			{
				Title: "Until it is large enough", Config: map[string]any{"condition": "{{ index == 0 or item.n < input.most }}", "maxRounds": 50},
				Inside: []flow.Node{{ID: "double", Type: "data.set", Config: map[string]any{"values": map[string]any{"n": "{{ index == 0 ? 1 : item.n * 2 }}"}}}},
				Input:  map[string]any{"most": 4}, Output: []any{map[string]any{"n": 1}, map[string]any{"n": 2}, map[string]any{"n": 4}},
			},
			{
				Title: "Three times", Config: map[string]any{"condition": "{{ index < 3 }}"},
				Inside: []flow.Node{{ID: "count", Type: "data.set", Config: map[string]any{"values": map[string]any{"round": "{{ index }}"}}}},
				Output: []any{map[string]any{"round": 0}, map[string]any{"round": 1}, map[string]any{"round": 2}},
			},
		},
	}}
}

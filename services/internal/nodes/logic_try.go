package nodes

import (
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func logicTry() node.Type {
	return node.Type{Spec: node.Spec{
		Type: "logic.try", Version: 1, Kind: flow.KindContainer, Container: flow.Try, Category: "logic", Ports: []string{flow.PortMain, flow.PortError, flow.PortFinally},
		Title: "Try",
		Description: "Runs the nodes whose parent it is once. It leaves by main with what they gave, or by error when one of them fails, with the error as its output. What follows by finally runs always, and last: when all that " +
			"follows by main or error, and not by finally, has ended. A node that fails behind the port error fails the flow as anywhere else: nothing new starts then, finally neither. item and index are those of the loop around it.",
		Config: `{"type": "object", "additionalProperties": false, "properties": {}}`,
		Output: `{"description": "what the nodes gave; by the port error {code, message, node}, and data where the node's error has some, like the answer that http.request got"}`,
		Examples: []node.Example{
			{
				Title: "Nothing fails", Inside: []flow.Node{{ID: "greet", Type: "data.set", Config: map[string]any{"values": map[string]any{"text": "Hello {{ input.name }}"}}}},
				Input: map[string]any{"name": "Ada"}, Output: map[string]any{"text": "Hello Ada"},
			},
			{
				Title: "A node fails", Port: flow.PortError, Inside: []flow.Node{{ID: "refuse", Type: "flow.fail", Config: map[string]any{"message": "{{ input.name }} is unknown", "code": "unknown"}}},
				Input: map[string]any{"name": "Ada"}, Output: map[string]any{"code": "unknown", "message": "Ada is unknown", "node": "refuse"},
			},
		},
	}}
}

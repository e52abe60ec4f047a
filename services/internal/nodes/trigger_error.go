package nodes

import (
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// triggerError is a start by the bad end of another flow's execution: while the version with this node is published, the leader starts it once for each (package catch of the
// orchestrator).
func triggerError() node.Type {
	failed := map[string]any{
		"execution": map[string]any{"id": "01980000-0000-7000-8000-000000000007", "flowId": "01980000-0000-7000-8000-000000000001", "flow": "Large orders", "flowVersion": 3, "status": "failed", "trigger": "manual", "retries": 0,
			"labels": map[string]any{"team": "sales"}, "createdAt": "2026-03-30T06:00:00Z", "endedAt": "2026-03-30T06:00:02Z", "url": "/api/v1/executions/01980000-0000-7000-8000-000000000007"},
		"error": map[string]any{"code": "http-status", "message": "the server answered 503", "node": "fetch"}}
	return node.Type{
		Spec: node.Spec{
			Type: "trigger.error", Version: 1, Kind: flow.KindTrigger, Category: "trigger",
			Title: "Error", Description: "Starts the flow when an execution of another flow ends badly, once for each end, as long as the version with this node is published. A flow never gets its own failures, nor those that it has led to.",
			Config: `{"type": "object", "additionalProperties": false,
				"properties": {
					"flows": {"type": "array", "maxItems": 100, "uniqueItems": true, "items": {"type": "string", "minLength": 1, "maxLength": 400}, "title": "Flows", "description": "names or ids of the flows whose failures start this one; none: all others. A name may be one of a flow that comes later"},
					"on": {"type": "array", "minItems": 1, "uniqueItems": true, "items": {"enum": ["failed", "timed_out", "cancelled"]}, "default": ["failed", "timed_out"], "title": "Ends", "description": "which ends count"}}}`,
			Output: `{"type": "object", "required": ["execution", "error"], "properties": {
					"execution": {"type": "object", "description": "what has ended", "required": ["id", "flowId", "flow", "flowVersion", "status", "trigger", "retries", "labels", "createdAt", "endedAt", "url"], "properties": {
						"id": {"type": "string"}, "flowId": {"type": "string"}, "flow": {"type": "string", "description": "name of the flow"}, "flowVersion": {"type": "integer"},
						"status": {"enum": ["failed", "timed_out", "cancelled"]}, "trigger": {"type": "string"}, "retries": {"type": "integer", "description": "by users; retried and failed again, it starts this flow again"},
						"labels": {"type": "object", "additionalProperties": {"type": "string"}}, "createdAt": {"type": "string", "format": "date-time"}, "endedAt": {"type": "string", "format": "date-time"},
						"parentId": {"type": "string", "description": "of one that was called: who waits for it"}, "url": {"type": "string", "description": "path of the API at which it is read"}}},
					"error": {"type": "object", "required": ["code", "message"], "properties": {
						"code": {"type": "string"}, "message": {"type": "string"}, "node": {"type": "string", "description": "id of the step that failed"}, "data": {"description": "more of it, where the step gave more; left out over 64 KiB"}}}}}`,
			Examples: []node.Example{{Title: "Orders and refunds that fail", Config: map[string]any{"flows": []any{"Large orders", "Refunds"}}, Input: failed, Output: failed}},
		},
		Executor: trigger{},
	}
}

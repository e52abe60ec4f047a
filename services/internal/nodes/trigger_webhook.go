package nodes

import (
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// triggerWebhook is a start from outside: the gateway answers /hooks/{path} once the version with this node is published (gateway/internal/definitions reads the
// configuration). There are no expressions in it: nothing has been computed when it is read.
func triggerWebhook() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "trigger.webhook", Version: 1, Kind: flow.KindTrigger, Category: "trigger",
			Title: "Webhook", Description: "Starts the flow when /hooks/{path} is called. Answers at once with 202 and the execution's id, or waits for the flow's own answer (flow.respond).",
			Config: `{"type": "object", "required": ["path"], "additionalProperties": false,
				"properties": {
					"path": {"type": "string", "title": "Path", "maxLength": 200, "pattern": "^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*$", "description": "behind /hooks/, like shop/orders; with the method it belongs to one flow only. Whoever knows it may call it: make it long and random, or set tokenSha256"},
					"method": {"enum": ["GET", "POST", "PUT", "PATCH", "DELETE"], "default": "POST", "title": "Method", "description": "HEAD and OPTIONS are answered and never start anything"},
					"respond": {"enum": ["immediately", "flow"], "default": "immediately", "title": "Answer", "description": "immediately: 202 with the execution's id. flow: what the first flow.respond says; without one, 200 with the output when the flow succeeds and 500 when it fails"},
					"wait": {"type": ["string", "integer"], "default": "30s", "title": "Longest wait", "description": "with respond: flow, at most 60s; then 202 with the execution's id, and the flow goes on"},
					"headers": {"type": "array", "maxItems": 32, "uniqueItems": true, "items": {"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[A-Za-z0-9_-]+$"}, "title": "Headers", "description": "names of the request headers that the flow needs; others are not stored. Content-Type and User-Agent come anyway; Authorization, Cookie, Proxy-Authorization and X-Hook-Token never do"},
					"tokenSha256": {"type": "string", "pattern": "^[0-9a-f]{64}$", "title": "SHA-256 of the token", "description": "callers must send the token that has this SHA-256 (hex), as Authorization: Bearer or X-Hook-Token; others get 401. Take 16 random bytes or more: printf %s TOKEN | sha256sum"}}}`,
			Output: `{"type": "object", "required": ["method", "path", "query", "rawQuery", "headers", "address", "bodyType", "body"], "properties": {
					"method": {"type": "string"}, "path": {"type": "string", "description": "behind /hooks/"},
					"query": {"type": "object", "additionalProperties": {"type": "string"}, "description": "the first value of each name"}, "rawQuery": {"type": "string", "description": "the whole query, as it was sent"},
					"headers": {"type": "object", "additionalProperties": {"type": "string"}, "description": "by name in lower case; several of a name are joined by a comma"},
					"address": {"type": "string", "description": "of the caller"},
					"bodyType": {"enum": ["none", "json", "form", "text", "base64"]},
					"body": {"description": "json: the value; form: an object with the first value of each name; text: the text; base64: anything else, as base64; none: null"}}}`,
			Examples: []node.Example{{Title: "An order comes in", Config: map[string]any{"path": "shop/orders", "headers": []any{"X-Shop-Event"}},
				Input:  map[string]any{"method": "POST", "path": "shop/orders", "body": map[string]any{"orderId": 7}},
				Output: map[string]any{"method": "POST", "path": "shop/orders", "body": map[string]any{"orderId": 7}}}},
		},
		Executor: trigger{},
	}
}

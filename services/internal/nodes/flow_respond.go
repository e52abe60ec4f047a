package nodes

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// maxResponseHeaders bounds what a flow may add to an answer.
const maxResponseHeaders = 50

// flowRespond is an effect, though it touches nothing itself: an effect is reported before the flow goes on, so the caller has its answer while the
// steps behind it still run. A pure node's event would ride on the next report, however late that is.
func flowRespond() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "flow.respond", Version: 1, Kind: flow.KindEffect, Category: "flow",
			Title: "Respond", Description: "Answers the webhook call that started the flow (trigger.webhook with respond: flow), and the flow goes on. The first answer counts; without a caller that waits, nothing happens.",
			Config: `{"type": "object", "additionalProperties": false,
				"properties": {
					"status": {"type": "integer", "minimum": 200, "maximum": 599, "default": 200, "title": "Status"},
					"headers": {"type": "object", "maxProperties": 50, "title": "Headers", "description": "name and value of each. Set-Cookie and headers of the connection are not allowed"},
					"body": {"title": "Body", "description": "a text is sent as it is (text/plain, unless headers say otherwise), any other value as JSON; absent: no body"}}}`,
			Output:   `{"type": "object", "required": ["status", "headers", "body"], "properties": {"status": {"type": "integer"}, "headers": {"type": "object"}, "body": {}}}`,
			Examples: []node.Example{{Title: "Created", Config: map[string]any{"status": 201, "headers": map[string]any{"X-Order": "{{ string(input.body.orderId) }}"}, "body": map[string]any{"ok": true}}, Input: map[string]any{"body": map[string]any{"orderId": 7}}}},
		},
		Executor: respond{},
	}
}

// maxResponse keeps the answer in the report itself, where the gateway that waits reads it.
const maxResponse = 256 << 10

type respond struct{}

// Execute checks the answer and gives it: the gateway that waits reads it from the report.
func (respond) Execute(_ context.Context, c node.Call) (node.Result, error) {
	status := 200
	if v, ok := c.Config["status"]; ok {
		n, ok := v.(int)
		if !ok || n < 200 || n > 599 {
			return node.Result{}, wrong("status", v, "a whole number from 200 to 599")
		}
		status = n
	}
	headers := map[string]any{}
	if v, ok := c.Config["headers"]; ok && v != nil {
		m, ok := v.(map[string]any)
		if !ok || len(m) > maxResponseHeaders {
			return node.Result{}, wrong("headers", v, fmt.Sprintf("an object of at most %d headers", maxResponseHeaders))
		}
		for name, value := range m {
			text, ok := literal(value)
			if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(text) {
				return node.Result{}, wrong("headers."+name, value, "a text without line breaks, under a name of letters, digits and dashes")
			}
			if ownHeader(name) {
				return node.Result{}, &node.Error{Code: "config", Message: fmt.Sprintf("headers.%s can't be set by a flow: it belongs to the connection, or would reach into the platform's own pages", name)}
			}
			headers[name] = text
		}
	}
	out := map[string]any{"status": status, "headers": headers, "body": c.Config["body"]}
	if b, err := flow.EncodeValue(out); err == nil && len(b) > maxResponse {
		return node.Result{}, &node.Error{Code: "value-too-large", Message: fmt.Sprintf("the answer has %d bytes as JSON, %d are allowed: answer with less, or with where it can be read", len(b), maxResponse)}
	}
	return node.Result{Output: out}, nil
}

// ownHeader tells headers that a flow's answer must not set. Hooks share their origin with the API and the web interface.
func ownHeader(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "content-encoding", "date",
		"set-cookie", "set-cookie2", "clear-site-data", "service-worker-allowed", "strict-transport-security", "content-security-policy", "x-content-type-options",
		"access-control-allow-credentials", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "x-accel-redirect", "x-accel-buffering", "x-accel-charset", "x-accel-expires", "x-accel-limit-rate":
		return true
	}
	return false
}

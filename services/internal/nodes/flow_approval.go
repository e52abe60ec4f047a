package nodes

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
)

// Ports of flow.approval.
const (
	portApproved = "approved"
	portRejected = "rejected"
)

// maxForm bounds what an approval says to those who decide, as JSON.
const maxForm = 64 << 10

func flowApproval() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "flow.approval", Version: 1, Kind: flow.KindWait, Category: "flow", Ports: []string{portApproved, portRejected, protocol.PortExpired},
			Title: "Approval", Description: "Waits until somebody approves or rejects. Only one decision counts, and the audit has who made it. Waiting costs a row, no memory and no slot.",
			Config: `{"type": "object", "additionalProperties": false,
				"properties": {
					"title": {"type": "string", "title": "Title", "maxLength": 500, "description": "what is to be decided, for those who decide"},
					"approvers": {"type": "array", "title": "Approvers", "maxItems": 50, "items": {"type": "string", "minLength": 1, "maxLength": 200}, "description": "who may decide: e-mail addresses, or roles (viewer, editor, operator, admin: those and above); without it every operator may"},
					"fields": {"type": "object", "title": "Fields", "maxProperties": 50, "description": "what is asked beside the decision: a JSON Schema for each field by its name; title, description, enum, minimum, maxLength, … and \"required\": true"},
					"expires": {"type": ["string", "integer"], "title": "Expires", "description": "like 48h; then it leaves by the port expired; without it waits as long as the execution may take"}}}`,
			Output: `{"type": ["object", "null"], "description": "null when it expired", "properties": {
				"decision": {"enum": ["approve", "reject"]}, "by": {"type": "string", "description": "who decided"}, "at": {"type": "string", "format": "date-time"}, "data": {"description": "the fields"}}}`,
			Check: checkApproval,
			Examples: []node.Example{
				{Title: "Any operator, within two days", Config: map[string]any{"title": "Refund {{ input.sum }} EUR?", "expires": "48h"}, Input: map[string]any{"sum": 120}},
				{Title: "One of two people, with a reason", Config: map[string]any{"approvers": []any{"cfo@shop.example", "admin"}, "fields": map[string]any{"reason": map[string]any{"type": "string", "minLength": 3, "required": true}}}},
			},
		},
		Executor: approval{},
	}
}

// checkApproval finds fields that are no schemas, as far as they are no expressions.
func checkApproval(config map[string]any) []flow.Problem {
	fields, _ := config["fields"].(map[string]any)
	var out []flow.Problem
	for name, v := range fields {
		if _, ok := v.(map[string]any); !ok {
			out = append(out, flow.Problem{Pointer: "/fields/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name), Code: "type", Message: "a field is an object: a JSON Schema, like {\"type\": \"string\", \"required\": true}"})
		}
	}
	return out
}

type approval struct{}

func (approval) Execute(_ context.Context, c node.Call) (node.Result, error) {
	due, problem := expiry(c, "expires")
	if problem != nil {
		return node.Result{}, problem
	}
	a := protocol.Approval{Approvers: []string{}}
	if a.Title, problem = text(c.Config, "title"); problem != nil {
		return node.Result{}, problem
	}
	switch list := c.Config["approvers"].(type) {
	case nil:
	case []any:
		for i, v := range list {
			s, ok := v.(string)
			if !ok || strings.TrimSpace(s) == "" || len(s) > 200 {
				return node.Result{}, wrong(fmt.Sprintf("approvers/%d", i), v, "an e-mail address or a role")
			}
			a.Approvers = append(a.Approvers, strings.ToLower(strings.TrimSpace(s)))
		}
	default:
		return node.Result{}, wrong("approvers", list, "a list of e-mail addresses and roles")
	}
	if _, there := c.Config["approvers"]; there && len(a.Approvers) == 0 { // an expression that came to nothing must not open it to everybody
		return node.Result{}, wrong("approvers", c.Config["approvers"], "a list with at least one e-mail address or role; leave it away for any operator")
	}
	if f, ok := c.Config["fields"]; ok {
		fields, err := flow.EncodeValue(f)
		if err != nil || f == nil {
			return node.Result{}, wrong("fields", f, "an object of JSON Schemas by name")
		}
		a.Fields = fields
	}
	open, err := json.Marshal(a)
	if err != nil || len(open) > maxForm || !utf8.Valid(open) || strings.Contains(strings.Join(a.Approvers, "")+a.Title, "\x00") {
		return node.Result{}, &node.Error{Code: "config", Message: fmt.Sprintf("title, approvers and fields must be texts without NUL and have at most %d KiB together", maxForm>>10)}
	}
	reason := "waits for an approval"
	if a.Title != "" {
		reason += ": " + a.Title
	}
	return node.Result{Wait: &flow.Wait{Kind: flow.WaitApproval, Key: protocol.ApprovalKey(c.Node, c.Iteration), Due: due, Reason: reason, Open: open}}, nil
}

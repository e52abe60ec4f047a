package node

import (
	"encoding/json"
	"fmt"
)

// FlowSchema gives the JSON Schema (2020-12) of a whole flow document with the catalogue's types. It says what a document looks like; what only a
// graph shows (cycles, ports, references) is for POST /flows/validate.
func (c *Catalogue) FlowSchema() (json.RawMessage, error) {
	type object = map[string]any
	duration := object{"type": []string{"string", "integer"}, "description": "a duration like 1m30s; a bare number means milliseconds"}
	var names []string
	var configs []object
	for _, t := range c.sorted {
		if len(names) > 0 && names[len(names)-1] == t.Spec.Type {
			continue
		}
		names = append(names, t.Spec.Type)
		newest, _ := c.find(t.Spec.Type, 0)
		configs = append(configs, object{
			"if":   object{"properties": object{"type": object{"const": t.Spec.Type}}},
			"then": object{"properties": object{"config": expressionsAllowed(newest.Config)}},
		})
	}
	node := object{
		"type": "object", "required": []string{"id", "type"}, "additionalProperties": false,
		"properties": object{
			"id":   object{"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"},
			"type": object{"enum": names}, "typeVersion": object{"type": "integer", "minimum": 1},
			"name": object{"type": "string"}, "config": object{"type": "object"}, "timeout": duration,
			"retry": object{"type": "object", "required": []string{"maxAttempts"}, "additionalProperties": false, "properties": object{
				"maxAttempts": object{"type": "integer", "minimum": 1, "maximum": 100}, "backoff": object{"enum": []string{"fixed", "exponential"}},
				"initialDelay": duration, "maxDelay": duration, "jitter": object{"type": "boolean"}}},
			"onError": object{"enum": []string{"fail", "continue", "route"}}, "pool": object{"type": "string"}, "parent": object{"type": "string"}, "compensate": object{"type": "string"},
			"position": object{"type": "object", "required": []string{"x", "y"}, "properties": object{"x": object{"type": "number"}, "y": object{"type": "number"}}},
			"notes":    object{"type": "string"},
		},
		"allOf": configs,
	}
	b, err := json.Marshal(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Flow", "type": "object", "required": []string{"name", "nodes"}, "additionalProperties": false,
		"properties": object{
			"name": object{"type": "string", "minLength": 1}, "description": object{"type": "string"},
			"nodes": object{"type": "array", "minItems": 1, "items": node},
			"edges": object{"type": "array", "items": object{"type": "object", "required": []string{"from", "to"}, "additionalProperties": false,
				"properties": object{"from": object{"type": "string"}, "port": object{"type": "string"}, "to": object{"type": "string"}}}},
			"settings": object{"type": "object"}, "labels": object{"type": "object", "additionalProperties": object{"type": "string"}}, "inputSchema": object{"type": []string{"object", "boolean"}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("flow schema: %w", err)
	}
	return b, nil
}

// expressionsAllowed lets an expression stand wherever the value of a property or an element does.
func expressionsAllowed(schema string) any {
	var s any
	if json.Unmarshal([]byte(schema), &s) != nil {
		return true // NewCatalogue has seen it compile
	}
	allowWithin(s)
	return s
}

func allowWithin(schema any) {
	s, ok := schema.(map[string]any)
	if !ok {
		return
	}
	either := func(p any) any {
		allowWithin(p)
		return map[string]any{"anyOf": []any{p, map[string]any{"type": "string", "pattern": `\{\{`}}}
	}
	if props, ok := s["properties"].(map[string]any); ok {
		for name, p := range props {
			props[name] = either(p)
		}
	}
	for _, name := range []string{"items", "additionalProperties"} {
		if p, ok := s[name].(map[string]any); ok {
			s[name] = either(p)
		}
	}
	for _, name := range []string{"anyOf", "oneOf", "allOf"} {
		if list, ok := s[name].([]any); ok {
			for _, p := range list {
				allowWithin(p)
			}
		}
	}
}

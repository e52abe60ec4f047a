package credential

import "encoding/json"

// View is a type as GET /catalog/credentials shows it.
type View struct {
	Type        string          `json:"type"`
	Title       string          `json:"title"`
	Description string          `json:"description"`
	Public      json.RawMessage `json:"public" doc:"JSON Schema (2020-12) of the fields that may be shown"`
	Secret      json.RawMessage `json:"secret" doc:"JSON Schema (2020-12) of the fields that never come back"`
}

// Views gives all types as the API shows them.
func Views() []View {
	types := Types()
	out := make([]View, len(types))
	for i, t := range types {
		out[i] = View{Type: t.Name, Title: t.Title, Description: t.Description, Public: t.Schema(false), Secret: t.Schema(true)}
	}
	return out
}

// Schema is the JSON Schema of the public or of the secret fields. Their order in a form is x-order.
func (t Type) Schema(secret bool) json.RawMessage {
	type object = map[string]any
	properties, required, order := object{}, []string{}, []string{}
	for _, f := range t.Fields {
		if f.Secret != secret {
			continue
		}
		p := object{"type": f.kind(), "title": f.Title}
		if f.Description != "" {
			p["description"] = f.Description
		}
		switch f.kind() {
		case Text:
			p["maxLength"] = f.maxLength()
			if f.Required {
				p["minLength"] = 1
			}
		case Integer:
			p["minimum"], p["maximum"] = f.Min, f.Max
		}
		if len(f.OneOf) > 0 {
			p["enum"] = f.OneOf
		}
		if f.Default != nil {
			p["default"] = f.Default
		}
		if f.Example != "" {
			p["examples"] = []string{f.Example}
		}
		if f.Secret {
			p["writeOnly"], p["format"] = true, "password"
		}
		if f.Target {
			p["x-target"] = true // changing it needs the secret anew
		}
		if f.Required {
			required = append(required, f.Name)
		}
		properties[f.Name], order = p, append(order, f.Name)
	}
	b, err := json.Marshal(object{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false, "properties": properties, "required": required, "x-order": order})
	if err != nil {
		panic(err) // a table of plain values
	}
	return b
}

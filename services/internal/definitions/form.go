package definitions

import (
	"encoding/json"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"flowplatform/services/internal/flow"
)

const formURL = "flow:fields"

// FormSchema makes a schema of the fields of an approval: a JSON Schema for each by its name, which may also say "required": true. Other fields are refused. No
// fields take everything.
func FormSchema(fields json.RawMessage) (*InputSchema, error) {
	if len(fields) == 0 {
		return nil, nil
	}
	value, err := flow.DecodeValue(fields)
	if err != nil {
		return nil, fmt.Errorf("the fields of the approval: %w", err)
	}
	properties, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the fields of the approval are no object of schemas by name")
	}
	required := []any{}
	plain := make(map[string]any, len(properties))
	for name, v := range properties {
		field, ok := v.(map[string]any)
		if !ok {
			plain[name] = v
			continue
		}
		own := make(map[string]any, len(field))
		for k, x := range field {
			own[k] = x
		}
		if must, ok := own["required"].(bool); ok {
			delete(own, "required")
			if must {
				required = append(required, name)
			}
		}
		plain[name] = own
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(formURL, map[string]any{"type": "object", "properties": plain, "required": required, "additionalProperties": false}); err != nil {
		return nil, fmt.Errorf("the fields of the approval: %w", err)
	}
	s, err := c.Compile(formURL)
	if err != nil {
		return nil, fmt.Errorf("the fields of the approval are no JSON Schemas (2020-12): %w", err)
	}
	return &InputSchema{s}, nil
}

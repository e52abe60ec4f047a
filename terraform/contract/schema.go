package contract

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Schema is what a provider takes, of the resources that a platform uses.
type Schema struct {
	Provider string           `json:"provider"` // its address, for example hashicorp/aws
	Version  string           `json:"version"`  // of the provider; empty where the source doesn't say
	Source   string           `json:"source"`   // where it was read
	Types    map[string]*Type `json:"types"`    // by name; data sources begin with "data."; "provider" is its own configuration
}

// Type is a resource, a data source, or a block in one.
type Type struct {
	Attributes map[string]Attribute `json:"attributes,omitempty"`
	Blocks     map[string]*Type     `json:"blocks,omitempty"`
	Required   bool                 `json:"required,omitempty"` // of a block: at least one
	Single     bool                 `json:"single,omitempty"`   // of a block: at most one
}

// Attribute is one argument or one result. In a file it is a word or two: "string", "list(string) required", "bool read-only".
type Attribute struct {
	Type     string // string, number, bool, list(string) and the like (also for a set), map(string) and the like, or any where the source doesn't say
	Required bool
	ReadOnly bool
}

// MarshalText writes an attribute in a line.
func (a Attribute) MarshalText() ([]byte, error) {
	switch {
	case a.Required:
		return []byte(a.Type + " required"), nil
	case a.ReadOnly:
		return []byte(a.Type + " read-only"), nil
	}
	return []byte(a.Type), nil
}

// UnmarshalText reads what MarshalText has written.
func (a *Attribute) UnmarshalText(text []byte) error {
	kind, more, _ := strings.Cut(string(text), " ")
	if kind == "" || !slices.Contains([]string{"", "required", "read-only"}, more) {
		return fmt.Errorf("%q is no attribute: a type, and at most required or read-only", text)
	}
	*a = Attribute{Type: kind, Required: more == "required", ReadOnly: more == "read-only"}
	return nil
}

// schemaFile is where a platform's schema is.
func (p *Platform) schemaFile() string {
	return filepath.Join(filepath.Dir(filepath.Dir(p.Dir)), "schemas", p.Name+".json")
}

// Schema reads the platform's schema.
func (p *Platform) Schema() (*Schema, error) { return LoadSchema(p.schemaFile()) }

// LoadSchema reads a file of terraform/schemas.
func LoadSchema(file string) (*Schema, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("contract.LoadSchema: %w", err)
	}
	var s Schema
	if err := json.Unmarshal(content, &s); err != nil {
		return nil, fmt.Errorf("contract.LoadSchema %s: %w", file, err)
	}
	return &s, nil
}

// Write writes a schema as terraform/schemas has it: the same schema gives the same bytes.
func (s *Schema) Write(file string) error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("contract.Schema.Write: %w", err)
	}
	if err := os.WriteFile(file, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("contract.Schema.Write: %w", err)
	}
	return nil
}

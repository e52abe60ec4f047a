package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"flowplatform/terraform/contract"
)

// What `terraform providers schema -json` prints, as far as we read it.
type printed struct {
	Providers map[string]struct {
		Provider  struct{ Block printedBlock }            `json:"provider"`
		Resources map[string]struct{ Block printedBlock } `json:"resource_schemas"`
		Data      map[string]struct{ Block printedBlock } `json:"data_source_schemas"`
	} `json:"provider_schemas"`
}

type printedBlock struct {
	Attributes map[string]struct {
		Type     json.RawMessage `json:"type"`
		Nested   json.RawMessage `json:"nested_type"`
		Required bool            `json:"required"`
		Optional bool            `json:"optional"`
	} `json:"attributes"`
	Blocks map[string]struct {
		Block printedBlock `json:"block"`
		Min   int          `json:"min_items"`
		Max   int          `json:"max_items"`
		Mode  string       `json:"nesting_mode"`
	} `json:"block_types"`
}

// fromProvider asks the provider that was built.
func fromProvider(ctx context.Context, of string, types []string) (*contract.Schema, error) {
	program := contract.Program()
	if program == "" {
		return nil, errors.New("no terraform here: run `go run ./scripts/providers build` first")
	}
	pin, err := readPin(of)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "flow-providers-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	variables, err := contract.Configuration(dir, contract.Mirror())
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("terraform {\n  required_providers {\n    it = {\n      source  = %q\n      version = %q\n    }\n  }\n}\n", pin.address, pin.version)
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	var out []byte
	for _, args := range [][]string{{"init", "-input=false"}, {"providers", "schema", "-json"}} {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir, cmd.Stderr, cmd.Env = dir, os.Stderr, append(os.Environ(), variables...)
		if out, err = cmd.Output(); err != nil {
			return nil, fmt.Errorf("%s %s: %w", program, args[0], err)
		}
	}
	var all printed
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("providers schema: %w", err)
	}
	s := &contract.Schema{Version: pin.version, Source: "the provider itself, built from " + pin.module, Types: map[string]*contract.Type{}}
	for _, provider := range all.Providers {
		s.Types["provider"] = provider.Provider.Block.convert()
		for _, name := range types {
			if r, has := provider.Resources[name]; has {
				s.Types[name] = r.Block.convert()
			} else if r, has := provider.Data[trimData(name)]; has && trimData(name) != name {
				s.Types[name] = r.Block.convert()
			} else {
				return nil, fmt.Errorf("%s %s has no %s", pin.address, pin.version, name)
			}
		}
	}
	return s, nil
}

func (b printedBlock) convert() *contract.Type {
	t := &contract.Type{Attributes: map[string]contract.Attribute{}, Blocks: map[string]*contract.Type{}}
	for name, a := range b.Attributes {
		t.Attributes[name] = contract.Attribute{Type: kindOf(a.Type), Required: a.Required, ReadOnly: !a.Required && !a.Optional}
	}
	for name, inner := range b.Blocks {
		nested := inner.Block.convert()
		nested.Required, nested.Single = inner.Min > 0, inner.Max == 1 || inner.Mode == "single"
		t.Blocks[name] = nested
	}
	return t
}

// kindOf reads a type: "string", or ["list", …].
func kindOf(raw json.RawMessage) string {
	var word string
	if json.Unmarshal(raw, &word) == nil && word != "" {
		return word
	}
	var composed []json.RawMessage
	if json.Unmarshal(raw, &composed) != nil || len(composed) == 0 {
		return "any"
	}
	switch kind := kindOf(composed[0]); {
	case len(composed) == 2 && (kind == "list" || kind == "set"):
		return "list(" + kindOf(composed[1]) + ")"
	case len(composed) == 2 && kind == "map":
		return "map(" + kindOf(composed[1]) + ")"
	}
	return "any"
}

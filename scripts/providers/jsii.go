package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"flowplatform/terraform/contract"
)

// An assembly of jsii, as far as we read it. Each resource is a class and an interface <Class>Config; each block is an interface. Documentation names the
// resource and each argument as Terraform does.
type assembly struct {
	Types map[string]*jsiiType `json:"types"`
}

type jsiiType struct {
	Docs       jsiiDocs       `json:"docs"`
	Properties []jsiiProperty `json:"properties"`
	Interfaces []string       `json:"interfaces"`
}

type jsiiDocs struct {
	Summary string `json:"summary"`
	Remarks string `json:"remarks"`
}

type jsiiProperty struct {
	Name     string   `json:"name"`
	Docs     jsiiDocs `json:"docs"`
	Optional bool     `json:"optional"`
	Static   bool     `json:"static"`
	Type     jsiiRef  `json:"type"`
}

type jsiiRef struct {
	Primitive  string `json:"primitive"`
	FQN        string `json:"fqn"`
	Collection *struct {
		Kind string  `json:"kind"`
		Of   jsiiRef `json:"elementtype"`
	} `json:"collection"`
	Union *struct {
		Types []jsiiRef `json:"types"`
	} `json:"union"`
}

var (
	settings   = regexp.MustCompile(`\.provider\.\w+ProviderConfig$`)
	represents = regexp.MustCompile(`Represents an? \{@link https://registry\.terraform\.io/providers/[^/]+/[^/]+/([^/]+)/docs/(resources|data-sources)/\S+ ([a-z0-9_]+)\}`)
	argument   = regexp.MustCompile(`#([a-z0-9_]+) \w+#`)
)

// fromJsii reads a package of CDK for Terraform.
func fromJsii(ctx context.Context, of string, types []string) (*contract.Schema, error) {
	files, err := npmFiles(ctx, of, func(path string) bool { return path == ".jsii" })
	if err != nil {
		return nil, err
	}
	var a assembly
	if err := json.Unmarshal(files[".jsii"], &a); err != nil {
		return nil, fmt.Errorf("%s: .jsii: %w", of, err)
	}
	s := &contract.Schema{Source: "npm " + of + ", jsii assembly", Types: map[string]*contract.Type{}}
	wanted := map[string]bool{}
	for _, t := range types {
		wanted[t] = true
	}
	for fqn, class := range a.Types {
		if settings.MatchString(fqn) {
			s.Types["provider"] = a.block(class)
		}
		match := represents.FindStringSubmatch(class.Docs.Summary)
		if match == nil {
			continue
		}
		name := match[3]
		if match[2] == "data-sources" {
			name = "data." + name
		}
		if !wanted[name] {
			continue
		}
		s.Version = match[1]
		config := a.Types[fqn+"Config"]
		if config == nil {
			return nil, fmt.Errorf("%s: %s has no %sConfig", of, name, fqn)
		}
		t := a.block(config)
		a.results(class, t)
		s.Types[name] = t
	}
	for _, t := range append(types, "provider") {
		if s.Types[t] == nil {
			return nil, fmt.Errorf("%s has no %s", of, t)
		}
	}
	return s, nil
}

func (a assembly) block(from *jsiiType) *contract.Type {
	t := &contract.Type{Attributes: map[string]contract.Attribute{}, Blocks: map[string]*contract.Type{}}
	for _, p := range from.Properties {
		match := argument.FindStringSubmatch(p.Docs.Summary + " " + p.Docs.Remarks)
		if match == nil {
			continue // jsii's own: connection, count, …
		}
		name := match[1]
		if inner := a.Types[p.Type.structure()]; inner != nil && strings.Contains(p.Docs.Summary, name+" block") {
			nested := a.block(inner)
			nested.Required, nested.Single = !p.Optional, p.Type.FQN != ""
			t.Blocks[name] = nested
			continue
		}
		t.Attributes[name] = contract.Attribute{Type: p.Type.kind(), Required: !p.Optional}
	}
	return t
}

// results adds what a resource has and doesn't take. Only here a name has to be spelt back: its documentation doesn't say it.
func (a assembly) results(class *jsiiType, t *contract.Type) {
	for _, p := range class.Properties {
		name := snake(p.Name)
		if _, taken := t.Attributes[name]; p.Static || taken || t.Blocks[name] != nil || p.Name == "internalValue" || strings.HasSuffix(p.Name, "Input") {
			continue
		}
		t.Attributes[name] = contract.Attribute{Type: p.Type.kind(), ReadOnly: true}
	}
	// What a block returns beyond what it takes is in its reference class.
	for name, nested := range t.Blocks {
		for _, p := range class.Properties {
			if snake(p.Name) != name {
				continue
			}
			fqn := strings.TrimSuffix(p.Type.FQN, "List")
			if fqn != p.Type.FQN {
				fqn += "OutputReference"
			}
			if reference := a.Types[fqn]; reference != nil {
				a.results(reference, nested)
			}
		}
	}
}

// structure is the interface of a block, single or in a list; empty if it is none.
func (r jsiiRef) structure() string {
	switch {
	case r.FQN != "":
		return r.FQN
	case r.Collection != nil && r.Collection.Kind == "array":
		return r.Collection.Of.structure()
	case r.Union != nil:
		for _, one := range r.Union.Types {
			if s := one.structure(); s != "" && s != "cdktf.IResolvable" {
				return s
			}
		}
	}
	return ""
}

func (r jsiiRef) kind() string {
	switch {
	case r.Primitive == "boolean":
		return "bool"
	case r.Primitive == "string", r.Primitive == "number":
		return r.Primitive
	case r.FQN == "cdktf.StringMap":
		return "map(string)"
	case r.FQN == "cdktf.NumberMap":
		return "map(number)"
	case r.FQN == "cdktf.BooleanMap":
		return "map(bool)"
	case r.Collection != nil && r.Collection.Kind == "array":
		return "list(" + r.Collection.Of.kind() + ")"
	case r.Collection != nil:
		return "map(" + r.Collection.Of.kind() + ")"
	case r.Union != nil:
		for _, one := range r.Union.Types {
			if one.FQN != "cdktf.IResolvable" {
				return one.kind()
			}
		}
	}
	return "any"
}

// snake spells a name as Terraform does: ipv4AddressPrivate is ipv4_address_private.
func snake(name string) string {
	var out strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) {
			if i > 0 {
				out.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		out.WriteRune(r)
	}
	return out.String()
}

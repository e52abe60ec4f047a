// Package contract says what every folder of terraform/platforms has to be, so that one who knows one platform knows all of them: the same files, the
// same inputs and outputs, hosts of the same shape, a README that claims no more than was done. It reads HCL and needs no Terraform and no provider.
//
// Where a provider can't be had, its schema can: Check holds the resources of a platform against terraform/schemas/<platform>.json, which
// `go run ./scripts/providers schemas` writes.
package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Platform is one folder, read.
type Platform struct {
	Name string
	Dir  string

	files  map[string][]byte          // every file of the folder, by its path in it
	bodies map[string]*hclsyntax.Body // the .tf files
}

// Object is a resource or a data source as it is written.
type Object struct {
	Data bool
	Type string
	Name string
	Body *hclsyntax.Body
	At   hcl.Range
}

func (o Object) String() string {
	if o.Data {
		return "data." + o.Type + "." + o.Name
	}
	return o.Type + "." + o.Name
}

// Load reads a platform's folder.
func Load(dir string) (*Platform, error) {
	p := &Platform{Name: filepath.Base(dir), Dir: dir, files: map[string][]byte{}, bodies: map[string]*hclsyntax.Body{}}
	parser := hclparse.NewParser()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if strings.HasPrefix(entry.Name(), ".") && path != dir { // .terraform
				return filepath.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || strings.HasPrefix(filepath.Base(name), ".") || strings.Contains(name, ".tfstate") {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		p.files[name] = content
		if filepath.Ext(name) != ".tf" {
			return nil
		}
		file, problems := parser.ParseHCL(content, path)
		if problems.HasErrors() {
			return problems
		}
		p.bodies[name] = file.Body.(*hclsyntax.Body)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("contract.Load %s: %w", dir, err)
	}
	return p, nil
}

// LoadAll reads every platform below terraform/platforms.
func LoadAll(root string) ([]*Platform, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("contract.LoadAll: %w", err)
	}
	var all []*Platform
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		p, err := Load(filepath.Join(root, entry.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Has says whether the folder has a file.
func (p *Platform) Has(file string) bool { return p.files[file] != nil }

// MakesMachines says whether the platform makes machines, or takes a list of them.
func (p *Platform) MakesMachines() bool { return p.Has("machines.tf") }

// Providers are the addresses of the providers that the platform needs, for example hashicorp/aws.
func (p *Platform) Providers() []string {
	var found []string
	for _, terraform := range p.blocks("terraform") {
		for _, required := range terraform.Body.Blocks {
			if required.Type != "required_providers" {
				continue
			}
			for _, attribute := range required.Body.Attributes {
				if source := stringIn(attribute.Expr, "source"); source != "" {
					found = append(found, source)
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

var versionNumber = regexp.MustCompile(`[0-9]+(\.[0-9]+)*`)

// Oldest is the oldest version of its provider that the platform takes: the first number in its constraint, with three parts.
func (p *Platform) Oldest() string {
	for _, terraform := range p.blocks("terraform") {
		for _, required := range terraform.Body.Blocks {
			for _, attribute := range required.Body.Attributes {
				if version := versionNumber.FindString(stringIn(attribute.Expr, "version")); version != "" {
					return version + strings.Repeat(".0", max(0, 2-strings.Count(version, ".")))
				}
			}
		}
	}
	return ""
}

// Objects are the resources and data sources of providers, in the order in which they are written. Terraform's own terraform_data isn't among them.
func (p *Platform) Objects() []Object {
	var found []Object
	for _, kind := range []string{"data", "resource"} {
		for _, b := range p.blocks(kind) {
			if len(b.Labels) == 2 && b.Labels[0] != "terraform_data" {
				found = append(found, Object{Data: kind == "data", Type: b.Labels[0], Name: b.Labels[1], Body: b.Body, At: b.DefRange()})
			}
		}
	}
	return found
}

// blocks are the blocks of a kind in all files, by file, in the order in which they are written.
func (p *Platform) blocks(kind string) []*hclsyntax.Block {
	var found []*hclsyntax.Block
	for _, file := range sortedKeys(p.bodies) {
		for _, b := range p.bodies[file].Blocks {
			if b.Type == kind {
				found = append(found, b)
			}
		}
	}
	return found
}

// local finds the expression of a local value.
func (p *Platform) local(name string) hclsyntax.Expression {
	for _, b := range p.blocks("locals") {
		if attribute := b.Body.Attributes[name]; attribute != nil {
			return attribute.Expr
		}
	}
	return nil
}

// text is what stands in a file at a place.
func (p *Platform) text(at hcl.Range) string {
	name, err := filepath.Rel(p.Dir, at.Filename)
	if err != nil {
		return ""
	}
	return string(at.SliceBytes(p.files[name]))
}

// literal is the value of an expression that needs nothing else to be known.
func literal(e hclsyntax.Expression) (cty.Value, bool) {
	if len(e.Variables()) > 0 {
		return cty.NilVal, false
	}
	value, problems := e.Value(nil)
	return value, !problems.HasErrors() && value.IsWhollyKnown() && !value.IsNull()
}

func stringOf(e hclsyntax.Expression) string {
	if value, known := literal(e); known && value.Type() == cty.String {
		return value.AsString()
	}
	return ""
}

// stringIn is a string in an object that is written out, for example source in { source = "hashicorp/aws" }.
func stringIn(e hclsyntax.Expression, key string) string {
	object, is := e.(*hclsyntax.ObjectConsExpr)
	if !is {
		return ""
	}
	for _, item := range object.Items {
		if hcl.ExprAsKeyword(item.KeyExpr) == key {
			return stringOf(item.ValueExpr)
		}
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

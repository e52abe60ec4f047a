package contract

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Check holds every resource and data source of a platform, and every reference to one, against its provider's schema: types, arguments, blocks, what
// is required, and of values that are written out whether they fit. It returns what is wrong.
func (p *Platform) Check(s *Schema) []string {
	c := checker{platform: p, schema: s}
	if providers := p.Providers(); !slices.Equal(providers, []string{s.Provider}) {
		c.say(hcl.Range{}, "it uses the providers %v; its schema is that of %s", providers, s.Provider)
	}
	for _, o := range p.Objects() {
		at, name := o.At, o.Type
		if o.Data {
			name = "data." + name
		}
		t := s.Types[name]
		if t == nil {
			c.say(at, "%s has no type %s (or the schema wasn't written again: go run ./scripts/providers schemas)", s.Provider, name)
			continue
		}
		c.body(o.Body, t, o.String(), true)
	}
	for _, b := range p.blocks("provider") {
		if settings := s.Types["provider"]; settings != nil {
			c.body(b.Body, settings.optional(), "provider "+b.Labels[0], true)
		}
	}
	for _, file := range sortedKeys(p.bodies) {
		_ = hclsyntax.VisitAll(p.bodies[file], func(n hclsyntax.Node) hcl.Diagnostics { c.reference(n); return nil })
	}
	return c.wrong
}

// optional is the type with nothing required: what a provider asks for may come from the environment.
func (t *Type) optional() *Type {
	free := &Type{Attributes: map[string]Attribute{}, Blocks: t.Blocks}
	for name, a := range t.Attributes {
		a.Required = false
		free.Attributes[name] = a
	}
	return free
}

type checker struct {
	platform *Platform
	schema   *Schema
	wrong    []string
}

func (c *checker) say(at hcl.Range, format string, args ...any) {
	place := c.platform.Name
	if at.Filename != "" {
		place = fmt.Sprintf("%s/%s:%d", c.platform.Name, strings.TrimPrefix(at.Filename, c.platform.Dir+"/"), at.Start.Line)
	}
	c.wrong = append(c.wrong, place+": "+fmt.Sprintf(format, args...))
}

// What Terraform itself takes in every resource.
var (
	metaArguments = []string{"count", "for_each", "depends_on", "provider"}
	metaBlocks    = []string{"lifecycle", "connection", "provisioner"}
)

func (c *checker) body(body *hclsyntax.Body, t *Type, where string, top bool) {
	for _, name := range sortedKeys(body.Attributes) {
		a := body.Attributes[name]
		if top && slices.Contains(metaArguments, name) {
			continue
		}
		want, known := t.Attributes[name]
		switch {
		case !known && t.Blocks[name] != nil:
			c.say(a.NameRange, "%s: %s is a block, not an argument", where, name)
		case !known:
			c.say(a.NameRange, "%s: there is no argument %s", where, name)
		case want.ReadOnly:
			c.say(a.NameRange, "%s: %s can't be set", where, name)
		default:
			c.value(a, want, where)
		}
	}
	written := map[string]bool{}
	for _, b := range body.Blocks {
		name, inner := b.Type, b.Body
		if top && slices.Contains(metaBlocks, name) {
			continue
		}
		if name == "dynamic" && len(b.Labels) == 1 {
			name = b.Labels[0]
			for _, content := range b.Body.Blocks {
				if content.Type == "content" {
					inner = content.Body
				}
			}
		}
		written[name] = true
		want := t.Blocks[name]
		if want == nil {
			c.say(b.DefRange(), "%s: there is no block %s", where, name)
			continue
		}
		c.body(inner, want, where+" "+name, false)
	}
	for _, name := range sortedKeys(t.Attributes) {
		if t.Attributes[name].Required && body.Attributes[name] == nil {
			c.say(body.SrcRange, "%s: %s is required", where, name)
		}
	}
	for _, name := range sortedKeys(t.Blocks) {
		if t.Blocks[name].Required && !written[name] {
			c.say(body.SrcRange, "%s: a block %s is required", where, name)
		}
	}
}

// value: what is written out must fit; what is known only when Terraform runs, can't be said anything of.
func (c *checker) value(a *hclsyntax.Attribute, want Attribute, where string) {
	var shape string
	switch a.Expr.(type) {
	case *hclsyntax.TupleConsExpr:
		shape = "list"
	case *hclsyntax.ObjectConsExpr:
		shape = "map"
	default:
		value, known := literal(a.Expr)
		if !known || !value.Type().IsPrimitiveType() {
			return
		}
		shape = "single value"
		if target, primitive := map[string]cty.Type{"string": cty.String, "number": cty.Number, "bool": cty.Bool}[want.Type]; primitive {
			if _, err := convert.Convert(value, target); err == nil {
				return
			}
		}
	}
	kind, _, _ := strings.Cut(want.Type, "(")
	fits := kind == "any" || kind == shape || shape == "map" && kind == "object"
	if !fits {
		c.say(a.NameRange, "%s: %s takes a %s, not a %s", where, a.Name, want.Type, shape)
	}
}

// reference: aws_instance.host.private_ip, aws_instance.host[name].private_ip, data.aws_ami.debian.id.
func (c *checker) reference(n hclsyntax.Node) {
	var object hcl.Traversal
	var rest []string
	switch e := n.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		object, rest = e.Traversal, attributesOf(e.Traversal)
	case *hclsyntax.RelativeTraversalExpr:
		index, is := e.Source.(*hclsyntax.IndexExpr)
		if !is {
			return
		}
		of, is := index.Collection.(*hclsyntax.ScopeTraversalExpr)
		if !is {
			return
		}
		object, rest = of.Traversal, append(attributesOf(of.Traversal), attributesOf(e.Traversal)...)
	default:
		return
	}
	name := object.RootName()
	if name == "data" && len(rest) > 0 {
		name, rest = "data."+rest[0], rest[1:]
	}
	t := c.schema.Types[name]
	if t == nil || len(rest) < 2 { // rest[0] is the object's own name
		return
	}
	if _, attribute := t.Attributes[rest[1]]; !attribute && t.Blocks[rest[1]] == nil {
		c.say(object.SourceRange(), "%s has no attribute %s", name, rest[1])
	}
	if nested := t.Blocks[rest[1]]; nested != nil && len(rest) > 2 {
		if _, attribute := nested.Attributes[rest[2]]; !attribute && nested.Blocks[rest[2]] == nil {
			c.say(object.SourceRange(), "%s has no attribute %s in %s", name, rest[2], rest[1])
		}
	}
}

// attributesOf are the names in a traversal after its root; indices are left out.
func attributesOf(t hcl.Traversal) []string {
	var names []string
	for _, step := range t {
		if attribute, is := step.(hcl.TraverseAttr); is {
			names = append(names, attribute.Name)
		}
	}
	return names
}

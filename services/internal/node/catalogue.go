package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"flowplatform/services/internal/flow"
)

// Catalogue is a set of node types: what the engine looks types up in, and what the API shows. It is a value; it never changes.
type Catalogue struct {
	types  map[string][]entry // by type, ascending by version
	sorted []Type
}

type entry struct {
	Type
	config *jsonschema.Schema
	engine flow.NodeType
}

// CredentialSetting is the setting that names a credential, in every node type that takes one.
const CredentialSetting = "credential"

var typeName = regexp.MustCompile(`^[a-z][a-z0-9]*\.[a-z][A-Za-z0-9]*$`)

// NewCatalogue checks the specs: schemas compile, names and versions are right and unique, examples fit.
func NewCatalogue(types ...Type) (*Catalogue, error) {
	c := &Catalogue{types: map[string][]entry{}}
	var errs []error
	for _, t := range types {
		e, err := newEntry(t)
		if err != nil {
			errs = append(errs, fmt.Errorf("node type %q: %w", t.Type, err))
			continue
		}
		if slices.ContainsFunc(c.types[t.Type], func(o entry) bool { return o.Version == t.Version }) {
			errs = append(errs, fmt.Errorf("node type %q: version %d is there twice", t.Type, t.Version))
			continue
		}
		c.types[t.Type] = append(c.types[t.Type], e)
		c.sorted = append(c.sorted, t)
	}
	for _, versions := range c.types {
		slices.SortFunc(versions, func(a, b entry) int { return a.Version - b.Version })
	}
	slices.SortFunc(c.sorted, func(a, b Type) int {
		if a.Spec.Type != b.Spec.Type {
			return strings.Compare(a.Spec.Type, b.Spec.Type)
		}
		return a.Version - b.Version
	})
	return c, errors.Join(errs...)
}

func newEntry(t Type) (entry, error) {
	switch {
	case !typeName.MatchString(t.Type):
		return entry{}, errors.New("a type is called like http.request")
	case t.Version < 1:
		return entry{}, errors.New("versions begin with 1")
	case (t.Executor == nil) != (t.Kind == flow.KindContainer) || (t.Container != "") != (t.Kind == flow.KindContainer):
		return entry{}, errors.New("every type but a container has an executor, and a container says how it makes its rounds")
	case t.Title == "" || t.Description == "" || t.Category == "":
		return entry{}, errors.New("title, description and category are needed")
	}
	config, err := compileSchema(t.Config)
	if err != nil {
		return entry{}, fmt.Errorf("config schema: %w", err)
	}
	if _, err := compileSchema(t.Output); err != nil {
		return entry{}, fmt.Errorf("output schema: %w", err)
	}
	if _, has := config.Properties[CredentialSetting]; has != (len(t.Credentials) > 0) {
		return entry{}, errors.New("what takes credentials has the setting credential, and nothing else has it")
	}
	e := entry{Type: t, config: config}
	e.engine = flow.NodeType{Type: t.Type, Version: t.Version, Kind: t.Kind, Container: t.Container, Inputs: t.Inputs, PerItem: t.PerItem, Literal: t.Literal, Timeout: t.Timeout, Retry: t.Retry, Check: e.check}
	switch ports := t.Ports; {
	case t.PortsFrom != "":
		e.engine.Ports = func(config map[string]any) []string {
			var out []string
			each(config, t.PortsFrom, func(_ string, v any) {
				if name, ok := v.(string); ok && name != "" {
					out = append(out, name)
				}
			})
			return append(out, ports...)
		}
	case len(ports) > 0:
		e.engine.Ports = func(map[string]any) []string { return ports }
	}
	for _, x := range t.Examples {
		if problems := e.check(x.Config); len(problems) > 0 {
			return entry{}, fmt.Errorf("example %q: %s: %s", x.Title, problems[0].Pointer, problems[0].Message)
		}
	}
	return e, nil
}

func compileSchema(text string) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("schema.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("schema.json")
}

// Lookup finds a type for the engine; version 0 is the newest.
func (c *Catalogue) Lookup(typ string, version int) (flow.NodeType, bool) {
	e, ok := c.find(typ, version)
	return e.engine, ok
}

// Find finds a type with its executor; version 0 is the newest.
func (c *Catalogue) Find(typ string, version int) (Type, bool) {
	e, ok := c.find(typ, version)
	return e.Type, ok
}

// Executor finds what runs a type; version 0 is the newest.
func (c *Catalogue) Executor(typ string, version int) (Executor, bool) {
	e, ok := c.find(typ, version)
	return e.Executor, ok
}

// List gives all types, by name and version.
func (c *Catalogue) List() []Type { return slices.Clone(c.sorted) }

func (c *Catalogue) find(typ string, version int) (entry, bool) {
	versions := c.types[typ]
	if len(versions) == 0 {
		return entry{}, false
	}
	if version == 0 {
		return versions[len(versions)-1], true
	}
	for _, e := range versions {
		if e.Version == version {
			return e, true
		}
	}
	return entry{}, false
}

// check lists every problem of a configuration. Where a value is, or contains, an expression, any schema is content: what it
// becomes is known only when it runs.
func (e entry) check(config map[string]any) []flow.Problem {
	if config == nil {
		config = map[string]any{}
	}
	var out []flow.Problem
	if len(e.Credentials) > 0 && hasExpression(config[CredentialSetting]) {
		out = append(out, flow.Problem{Pointer: pointer([]string{CredentialSetting}), Code: "constant",
			Message: "a credential is named, not computed: which secrets a flow uses must be seen by who reads it, and not be chosen by its input"})
	}
	if e.PortsFrom != "" {
		each(config, e.PortsFrom, func(ptr string, v any) {
			if hasExpression(v) {
				out = append(out, flow.Problem{Pointer: ptr, Code: "constant", Message: "a port is named, not computed: edges lead from it"})
			}
		})
	}
	err := e.config.Validate(config)
	var ve *jsonschema.ValidationError
	if errors.As(err, &ve) {
		leaves(ve, func(leaf *jsonschema.ValidationError) {
			if hasExpression(at(config, leaf.InstanceLocation)) && !slices.Contains(e.Literal, pointer(leaf.InstanceLocation)) {
				return
			}
			out = append(out, problems(leaf)...)
		})
	}
	if len(out) == 0 && e.Check != nil {
		out = e.Check(config)
	}
	slices.SortFunc(out, func(a, b flow.Problem) int { return strings.Compare(a.Pointer+a.Message, b.Pointer+b.Message) })
	return slices.Compact(out)
}

func leaves(e *jsonschema.ValidationError, do func(*jsonschema.ValidationError)) {
	if len(e.Causes) == 0 {
		do(e)
		return
	}
	for _, c := range e.Causes {
		leaves(c, do)
	}
}

var english = message.NewPrinter(language.English)

func problems(leaf *jsonschema.ValidationError) []flow.Problem {
	ptr := pointer(leaf.InstanceLocation)
	switch k := leaf.ErrorKind.(type) {
	case *kind.Required:
		var out []flow.Problem
		for _, name := range k.Missing {
			out = append(out, flow.Problem{Pointer: ptr + pointer([]string{name}), Code: "required", Message: fmt.Sprintf("%q is needed here", name)})
		}
		return out
	case *kind.AdditionalProperties:
		var out []flow.Problem
		for _, name := range k.Properties {
			out = append(out, flow.Problem{Pointer: ptr + pointer([]string{name}), Code: "unknown-field", Message: fmt.Sprintf("this node has no setting %q", name)})
		}
		return out
	}
	return []flow.Problem{{Pointer: ptr, Code: "config", Message: leaf.ErrorKind.LocalizedString(english)}}
}

func pointer(path []string) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	return b.String()
}

func at(v any, path []string) any {
	for _, p := range path {
		switch t := v.(type) {
		case map[string]any:
			v = t[p]
		case []any:
			i := 0
			if _, err := fmt.Sscan(p, &i); err != nil || i < 0 || i >= len(t) {
				return nil
			}
			v = t[i]
		default:
			return nil
		}
	}
	return v
}

// each visits what a pointer leads to whose * stands for any key or index.
func each(v any, pattern string, do func(ptr string, v any)) {
	visit(v, strings.Split(pattern, "/")[1:], "", do)
}

func visit(v any, path []string, ptr string, do func(string, any)) {
	if len(path) == 0 {
		do(ptr, v)
		return
	}
	switch t := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(t)) {
			if path[0] == k || path[0] == "*" {
				visit(t[k], path[1:], ptr+pointer([]string{k}), do)
			}
		}
	case []any:
		for i, e := range t {
			if path[0] == "*" {
				visit(e, path[1:], ptr+"/"+strconv.Itoa(i), do)
			}
		}
	}
}

func hasExpression(v any) bool {
	s, ok := v.(string)
	return ok && strings.Contains(s, "{{")
}

// View is a type as GET /catalog/nodes shows it.
type View struct {
	Type        string          `json:"type"`
	Version     int             `json:"version"`
	Title       string          `json:"title"`
	Description string          `json:"description"`
	Category    string          `json:"category"`
	Kind        flow.Kind       `json:"kind" enum:"trigger,pure,effect,wait,container"`
	Ports       []string        `json:"ports"`
	PortsFrom   string          `json:"portsFrom,omitempty" doc:"JSON pointer into the config, * for any key or index, of texts that name further ports, before the fixed ones"`
	PerItem     []string        `json:"perItem,omitempty" doc:"JSON pointers into the config, likewise, of expressions that are evaluated once for each item, with item and index"`
	Literal     []string        `json:"literal,omitempty" doc:"JSON pointers into the config, likewise, of texts in another language, in which {{ }} is no expression"`
	Config      json.RawMessage `json:"config"`
	Output      json.RawMessage `json:"output"`
	Credentials []string        `json:"credentials,omitempty" doc:"Types of credential that the setting credential may name"`
	Timeout     string          `json:"timeout,omitempty"`
	Retry       *flow.Retry     `json:"retry,omitempty"`
	Examples    []ExampleView   `json:"examples"`
}

// ExampleView is an example as the catalogue shows it.
type ExampleView struct {
	Title       string         `json:"title"`
	Config      map[string]any `json:"config,omitempty"`
	Input       any            `json:"input,omitempty"`
	Output      any            `json:"output,omitempty"`
	Port        string         `json:"port,omitempty"`
	Error       string         `json:"error,omitempty" doc:"Code of the error that it ends with"`
	Inside      []flow.Node    `json:"inside,omitempty" doc:"Of a container: the nodes inside it"`
	InsideEdges []flow.Edge    `json:"insideEdges,omitempty" doc:"Their edges"`
}

// View gives the type as the API shows it.
func (s Spec) View() View {
	v := View{Type: s.Type, Version: s.Version, Title: s.Title, Description: s.Description, Category: s.Category, Kind: s.Kind, Ports: s.Ports, PortsFrom: s.PortsFrom, PerItem: s.PerItem, Literal: s.Literal, Config: compact(s.Config), Output: compact(s.Output),
		Credentials: s.Credentials, Retry: s.Retry, Examples: []ExampleView{}}
	if len(v.Ports) == 0 {
		v.Ports = []string{flow.PortMain}
	}
	if s.Timeout > 0 {
		v.Timeout = flow.Duration(s.Timeout).String()
	}
	for _, x := range s.Examples {
		v.Examples = append(v.Examples, ExampleView(x))
	}
	return v
}

func compact(text string) json.RawMessage {
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		return json.RawMessage("{}") // NewCatalogue has seen it compile
	}
	return b.Bytes()
}

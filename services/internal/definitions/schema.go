package definitions

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"flowplatform/services/internal/flow"
)

// noLoader refuses every reference out of the schema: a flow must not make the gateway fetch anything, nor read its files.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is outside of the document: only #… can be referred to; put it under $defs", url)
}

const schemaURL = "flow:inputSchema"

// InputSchema checks inputs; nil takes everything.
type InputSchema struct{ s *jsonschema.Schema }

// compileSchema makes one; problems have pointers into the flow document.
func compileSchema(raw []byte) (*InputSchema, []flow.Problem) {
	if len(raw) == 0 {
		return nil, nil
	}
	bad := func(err error) []flow.Problem {
		return []flow.Problem{{Pointer: "/inputSchema", Code: "schema", Message: "this is not a JSON Schema (2020-12): " + strings.ReplaceAll(err.Error(), schemaURL, "")}}
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, bad(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, bad(err)
	}
	s, err := c.Compile(schemaURL)
	if err == nil {
		return &InputSchema{s}, nil
	}
	var se *jsonschema.SchemaValidationError
	var ve *jsonschema.ValidationError
	if errors.As(err, &se) && errors.As(se.Err, &ve) {
		var out []flow.Problem
		leaves(ve, "/inputSchema", &out)
		return nil, out
	}
	return nil, bad(err)
}

// Check gives every problem of an input, as flow.DecodeValue gives it; pointers begin with at.
func (s *InputSchema) Check(input any, at string) []flow.Problem {
	if s == nil {
		return nil
	}
	err := s.s.Validate(input)
	if err == nil {
		return nil
	}
	var ve *jsonschema.ValidationError
	if !errors.As(err, &ve) {
		return []flow.Problem{{Pointer: at, Code: "schema", Message: err.Error()}}
	}
	var out []flow.Problem
	leaves(ve, at, &out)
	return out
}

// maxProblems bounds what one answer lists.
const maxProblems = 100

var escape = strings.NewReplacer("~", "~0", "/", "~1")

// leaves gathers the innermost errors: those above only say that something below is wrong.
func leaves(e *jsonschema.ValidationError, at string, out *[]flow.Problem) {
	if len(*out) >= maxProblems {
		return
	}
	if len(e.Causes) > 0 {
		for _, c := range e.Causes {
			leaves(c, at, out)
		}
		return
	}
	for _, key := range e.InstanceLocation {
		at += "/" + escape.Replace(key)
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			*out = append(*out, flow.Problem{Pointer: at + "/" + escape.Replace(name), Code: "required", Message: fmt.Sprintf("%q is required and missing", name)})
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			*out = append(*out, flow.Problem{Pointer: at + "/" + escape.Replace(name), Code: "unknown-field", Message: fmt.Sprintf("%q is not a known property", name)})
		}
	default:
		*out = append(*out, flow.Problem{Pointer: at, Code: codeOf(e.ErrorKind), Message: e.ErrorKind.LocalizedString(message.NewPrinter(language.English))})
	}
}

// codeOf is the schema's keyword, in kebab case.
func codeOf(k jsonschema.ErrorKind) string {
	path := k.KeywordPath()
	if len(path) == 0 {
		return "schema"
	}
	var b strings.Builder
	for _, r := range path[len(path)-1] {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
			r += 'a' - 'A'
		}
		if r >= 'a' && r <= 'z' || r == '-' {
			b.WriteRune(r)
		}
	}
	return b.String()
}

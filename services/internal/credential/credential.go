// Package credential says what kinds of credentials there are: a table of types, each with its public and its secret fields. Validation, JSON Schema, the
// editor's form and what a worker gets are made from it. To add a type: write a line in Types (and, where it can be tried out, a probe in the gateway).
//
// Public fields are shown to whoever may list credentials; secret ones never leave the platform again but to a worker that runs a node. A field that is a
// target says where the secret is sent: it can only be changed by who gives the secret anew, so that nobody can have a secret that he doesn't know sent
// to a server of his own.
package credential

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is what a field's value is.
type Kind string

// The kinds.
const (
	Text    Kind = "string"
	Integer Kind = "integer"
	Boolean Kind = "boolean"
)

// Field is one value of a credential.
type Field struct {
	Name        string
	Title       string
	Description string
	Kind        Kind // "" is Text
	Secret      bool
	Target      bool // it says where the secret goes
	Required    bool
	Default     any // shown in the form; what reads the fields applies it
	OneOf       []string
	Min, Max    int // of an Integer
	MaxLength   int // of a Text, in bytes; 0: 1,024
	Example     string
}

// Type is a kind of credential.
type Type struct {
	Name        string
	Title       string
	Description string
	Fields      []Field

	check func(fields map[string]string) []Problem // what a single field doesn't show; nil: nothing
}

// Problem is one thing that is wrong with a credential. It never holds a value.
type Problem struct {
	Pointer string // into {name, type, public, secret}
	Code    string
	Message string
}

// Limits of a credential.
const (
	MaxName     = 100
	MaxField    = 1 << 10
	MaxSecret   = 16 << 10
	MaxInAll    = 1000 // credentials of a project
	maxProblems = 50
)

// Find finds a type by name.
func Find(name string) (Type, bool) {
	for _, t := range Types() {
		if t.Name == name {
			return t, true
		}
	}
	return Type{}, false
}

// CheckName says what is wrong with a name; "" is nothing. Names stand in flows and in URLs, and must not look like an id or an expression.
func CheckName(name string) string {
	switch {
	case name == "":
		return "a name is needed"
	case len(name) > MaxName:
		return fmt.Sprintf("a name has at most %d bytes", MaxName)
	case !utf8.ValidString(name) || strings.TrimSpace(name) != name:
		return "a name is valid UTF-8 and doesn't begin or end with a space"
	case len(name) == 36 && strings.Count(name, "-") == 4:
		return "a name must not look like an id"
	}
	for i, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && (i == 0 || !strings.ContainsRune(" ._-", r)) {
			return "a name has letters, digits, spaces and . _ - only, and begins with a letter or a digit"
		}
	}
	return ""
}

// Values are a credential's fields as they were given: texts, whole numbers, true or false.
type Values = map[string]any

// Check lists everything that is wrong with the values of a credential of this type. secret nil: the old ones stay, and are given as kept.
func (t Type) Check(public, secret Values, kept map[string]string) []Problem {
	var out []Problem
	all := maps.Clone(kept)
	if all == nil {
		all = map[string]string{}
	}
	for _, f := range t.Fields {
		part, values := "/public/", public
		if f.Secret {
			if secret == nil {
				continue
			}
			part, values = "/secret/", secret
			delete(all, f.Name)
		}
		text, why := f.read(values[f.Name])
		switch {
		case why != "":
			out = append(out, Problem{part + f.Name, "type", why})
		case text == "" && f.Required:
			out = append(out, Problem{part + f.Name, "required", fmt.Sprintf("%q is needed for a credential of type %s", f.Name, t.Name)})
		case text != "":
			all[f.Name] = text
		}
	}
	out = append(out, t.unknown("/public/", public, false)...)
	out = append(out, t.unknown("/secret/", secret, true)...)
	if len(out) == 0 && t.check != nil {
		out = t.check(all)
	}
	return out[:min(len(out), maxProblems)]
}

func (t Type) unknown(part string, values Values, secret bool) []Problem {
	var out []Problem
	for _, name := range slices.Sorted(maps.Keys(values)) {
		f, known := t.field(name)
		switch {
		case known && f.Secret == secret:
		case known:
			where := "public"
			if f.Secret {
				where = "secret"
			}
			out = append(out, Problem{part + escape(name), "misplaced", fmt.Sprintf("%q belongs under %q", name, where)})
		default:
			out = append(out, Problem{part + escape(name), "unknown-field", "a credential of type " + t.Name + " has no such field"})
		}
	}
	return out
}

func escape(name string) string {
	if len(name) > MaxName {
		name = name[:MaxName]
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(strings.ToValidUTF8(name, "\uFFFD"))
}

func (t Type) field(name string) (Field, bool) {
	i := slices.IndexFunc(t.Fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return t.Fields[i], true
}

// read gives a value as a text, "" for none; or what is wrong with it, without showing it.
func (f Field) read(v any) (text, why string) {
	switch v := v.(type) {
	case nil:
		return "", ""
	case string:
		if f.kind() == Text {
			return v, f.checkText(v)
		}
	case bool:
		if f.kind() == Boolean {
			return strconv.FormatBool(v), ""
		}
	case json.Number:
		if n, err := v.Int64(); err == nil && f.kind() == Integer {
			return f.integer(n)
		}
	case float64:
		if f.kind() == Integer && v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return f.integer(int64(v))
		}
	}
	return "", "it must be " + map[Kind]string{Text: "a text", Integer: "a whole number", Boolean: "true or false"}[f.kind()]
}

func (f Field) integer(n int64) (text, why string) {
	if n < int64(f.Min) || n > int64(f.Max) {
		return "", fmt.Sprintf("it must be from %d to %d", f.Min, f.Max)
	}
	return strconv.FormatInt(n, 10), ""
}

func (f Field) checkText(s string) string {
	switch {
	case len(s) > f.maxLength():
		return fmt.Sprintf("it has at most %d bytes", f.maxLength())
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "it must be one line of valid UTF-8, without control characters"
	case s != "" && len(f.OneOf) > 0 && !slices.Contains(f.OneOf, s):
		return "it must be one of " + strings.Join(f.OneOf, ", ")
	}
	return ""
}

func (f Field) kind() Kind {
	if f.Kind == "" {
		return Text
	}
	return f.Kind
}

func (f Field) maxLength() int {
	switch {
	case f.MaxLength > 0:
		return f.MaxLength
	case f.Secret:
		return MaxSecret
	}
	return MaxField
}

// Flat gives values that were checked as texts by name: what nodes read. Defaults are not among them.
func (t Type) Flat(values ...Values) map[string]string {
	out := map[string]string{}
	for _, f := range t.Fields {
		for _, v := range values {
			if text, why := f.read(v[f.Name]); why == "" && text != "" {
				out[f.Name] = text
			}
		}
	}
	return out
}

// Moved names the public fields that say where the secret goes and that differ; none: the secret goes where it went.
func (t Type) Moved(before, after Values) []string {
	a, b := t.Flat(before), t.Flat(after)
	var out []string
	for _, f := range t.Fields {
		if f.Target && a[f.Name] != b[f.Name] {
			out = append(out, f.Name)
		}
	}
	return out
}

// SecretFields names the secret fields.
func (t Type) SecretFields() []string {
	var out []string
	for _, f := range t.Fields {
		if f.Secret {
			out = append(out, f.Name)
		}
	}
	return out
}

// Opened is a credential as a gateway gives it to a worker (POST /internal/v1/credentials/{id}/open). It is never stored, and never logged.
type Opened struct {
	ID     string            `json:"id"`
	Name   string            `json:"name"`
	Type   string            `json:"type"`
	Public map[string]string `json:"public"`
	Secret map[string]string `json:"secret"`
}

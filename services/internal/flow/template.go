package flow

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxJoined is how long the text may become that a template with several parts makes.
const maxJoined = 16 << 20

// template is a compiled value whose strings may hold expressions.
type template struct {
	constant any // when nothing below is dynamic
	dynamic  bool
	expr     Expression  // a string that is exactly one expression
	parts    []part      // a string of several parts
	keys     []string    // of an object, sorted
	fields   []*template // of an object or a list
	list     bool
	pointer  string // within the config
	place    uint64 // tells this expression's random numbers from those of others
}

// part is a piece of text or an expression between pieces.
type part struct {
	text  string
	expr  Expression
	place uint64
}

// templates compiles the templates of one config.
type templates struct {
	language Language
	cache    map[string]Expression // by source, shared by a whole Compile
	failed   map[string]*SyntaxError
	problem  func(ptr, code string, column int, message string)
	use      func(ptr string, column int, e Expression) // called for each expression
	count    uint64
	perItem  []string            // patterns of NodeType.PerItem
	literal  []string            // and of NodeType.Literal
	formulas map[string]*Formula // what they matched
}

func (c *templates) compile(v any, ptr string) *template {
	if slices.ContainsFunc(c.perItem, func(pattern string) bool { return matchPointer(pattern, ptr) }) {
		return c.formula(v, ptr)
	}
	if slices.ContainsFunc(c.literal, func(pattern string) bool { return matchPointer(pattern, ptr) }) {
		return &template{constant: v, pointer: ptr}
	}
	switch x := v.(type) {
	case string:
		return c.text(x, ptr)
	case map[string]any:
		t := &template{pointer: ptr, keys: sortedKeys(x)}
		for _, k := range t.keys {
			f := c.compile(x[k], ptr+pointer(k))
			t.dynamic = t.dynamic || f.dynamic
			t.fields = append(t.fields, f)
		}
		return t.close(v)
	case []any:
		t := &template{pointer: ptr, list: true}
		for i, e := range x {
			f := c.compile(e, ptr+"/"+strconv.Itoa(i))
			t.dynamic = t.dynamic || f.dynamic
			t.fields = append(t.fields, f)
		}
		return t.close(v)
	}
	return &template{constant: v, pointer: ptr}
}

// close drops what a template without expressions doesn't need.
func (t *template) close(v any) *template {
	if t.dynamic {
		return t
	}
	return &template{constant: v, pointer: t.pointer}
}

func (c *templates) text(s, ptr string) *template {
	if !strings.Contains(s, "{{") {
		return &template{constant: s, pointer: ptr}
	}
	pieces, at, err := splitTemplate(s)
	if err != nil {
		c.problem(ptr, "expression-syntax", utf8.RuneCountInString(s[:at])+1, err.Error())
		return &template{constant: s, pointer: ptr}
	}
	t := &template{pointer: ptr, dynamic: true}
	for _, p := range pieces {
		if !p.code {
			t.parts = append(t.parts, part{text: p.text})
			continue
		}
		before := utf8.RuneCountInString(s[:p.at])
		c.count++
		e, bad := c.expression(p.text)
		if bad != nil {
			code := bad.Code
			if code == "" {
				code = "expression-syntax"
			}
			c.problem(ptr, code, before+bad.Offset+1, bad.Message)
			continue
		}
		c.use(ptr, before+1, e)
		t.parts = append(t.parts, part{expr: e, place: c.count})
	}
	if len(pieces) == 1 && len(t.parts) == 1 {
		t.expr, t.place, t.parts = t.parts[0].expr, t.parts[0].place, nil
	}
	return t
}

func (c *templates) expression(source string) (Expression, *SyntaxError) {
	if e, ok := c.cache[source]; ok {
		return e, nil
	}
	if bad, ok := c.failed[source]; ok {
		return nil, bad
	}
	e, err := c.language.Compile(source)
	if err == nil {
		c.cache[source] = e
		return e, nil
	}
	bad := &SyntaxError{}
	if !errors.As(err, &bad) {
		bad = &SyntaxError{Message: err.Error()}
	}
	c.failed[source] = bad
	return nil, bad
}

// piece is a part of a template's text.
type piece struct {
	text string
	code bool
	at   int // of text, in bytes
}

// splitTemplate cuts a string into text and expressions. An expression ends at the first }} outside of its own strings and braces.
func splitTemplate(s string) (pieces []piece, at int, err error) {
	pos := 0
	for {
		open := strings.Index(s[pos:], "{{")
		if open < 0 {
			if pos < len(s) {
				pieces = append(pieces, piece{text: s[pos:], at: pos})
			}
			return pieces, 0, nil
		}
		open += pos
		if open > pos {
			pieces = append(pieces, piece{text: s[pos:open], at: pos})
		}
		end := templateEnd(s, open+2)
		if end < 0 {
			return nil, open, errors.New(`{{ has no }}; literal braces are written as {{ "{{" }}`)
		}
		if strings.TrimSpace(s[open+2:end]) == "" {
			return nil, open, errors.New("there is nothing between {{ and }}")
		}
		pieces = append(pieces, piece{text: s[open+2 : end], code: true, at: open + 2})
		pos = end + 2
	}
}

// templateEnd finds the }} that ends the expression beginning at i; -1: none.
func templateEnd(s string, i int) int {
	braces := 0
	for ; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\'', '`':
			for i++; i < len(s) && s[i] != c; i++ {
				if s[i] == '\\' && c != '`' {
					i++
				}
			}
		case '{':
			braces++
		case '}':
			if braces > 0 {
				braces--
			} else if i+1 < len(s) && s[i+1] == '}' {
				return i
			}
		}
	}
	return -1
}

// evalError is an error with the place of the expression.
type evalError struct {
	pointer string
	err     error
}

func (e *evalError) Error() string { return e.pointer + ": " + e.err.Error() }
func (e *evalError) Unwrap() error { return e.err }

// eval computes the value. It moves scope's Seed.
func (t *template) eval(s *Scope, seed uint64) (any, error) {
	switch {
	case !t.dynamic:
		return t.constant, nil
	case t.expr != nil:
		s.Seed = mix(seed + t.place)
		v, err := t.expr.Eval(s)
		if err != nil {
			return nil, &evalError{t.pointer, err}
		}
		return v, nil
	case t.parts != nil:
		return t.join(s, seed)
	case t.list:
		out := make([]any, len(t.fields))
		for i, f := range t.fields {
			v, err := f.eval(s, seed)
			if err != nil {
				return nil, err
			}
			out[i] = v
		}
		return out, nil
	}
	out := make(map[string]any, len(t.keys))
	for i, k := range t.keys {
		v, err := t.fields[i].eval(s, seed)
		if err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, nil
}

func (t *template) join(s *Scope, seed uint64) (any, error) {
	var room [128]byte
	out := room[:0]
	for _, p := range t.parts {
		if p.expr == nil {
			out = append(out, p.text...)
			continue
		}
		s.Seed = mix(seed + p.place)
		v, err := p.expr.Eval(s)
		if err == nil {
			out, err = appendText(out, v)
		}
		if err == nil && len(out) > maxJoined {
			err = fmt.Errorf("the text is longer than %d MiB", maxJoined>>20)
		}
		if err != nil {
			return nil, &evalError{t.pointer, err}
		}
	}
	return string(out), nil
}

// appendText shows a value within a text: strings as they are, null as nothing, others as JSON.
func appendText(dst []byte, v any) ([]byte, error) {
	switch x := v.(type) {
	case nil:
		return dst, nil
	case string:
		return append(dst, x...), nil
	case json.Number:
		return append(dst, x...), nil
	}
	return AppendValue(dst, v)
}

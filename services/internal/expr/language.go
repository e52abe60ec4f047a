package expr

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	"flowplatform/services/internal/flow"
)

// Limits of an expression and of one evaluation.
const (
	MaxSource = 10_000  // bytes; also bounds how deep the parser can go
	MaxNodes  = 2_000   // of the syntax tree
	MaxSteps  = 500_000 // nodes evaluated, elements and 64 byte pieces of text looked at: some 20 ms
	MaxMemory = 16 << 20
)

// Language compiles expressions. It is immutable and safe for concurrent use.
type Language struct {
	functions map[string]*function
	forms     map[string]form
	names     []string // of functions, sorted
	config    *conf.Config
	frames    *sync.Pool
}

// New makes the language with all functions.
func New() *Language {
	l := &Language{functions: map[string]*function{}, forms: forms(), config: conf.CreateNew(), frames: &sync.Pool{New: func() any { return &frame{} }}}
	l.config.MaxNodes = MaxNodes
	for _, f := range functions() {
		l.functions[f.name] = f
		l.names = append(l.names, f.name)
	}
	for name := range l.forms {
		l.names = append(l.names, name)
	}
	slices.Sort(l.names)
	return l
}

// Compile implements flow.Language. Its errors are *flow.SyntaxError.
func (l *Language) Compile(source string) (flow.Expression, error) {
	if len(source) > MaxSource {
		return nil, &flow.SyntaxError{Code: "expression-too-long", Message: fmt.Sprintf("the expression has %d bytes, the most is %d: use data.code or several steps", len(source), MaxSource)}
	}
	tree, err := parse(source, l.config)
	if err != nil {
		return nil, err
	}
	c := &compiler{l: l, source: source}
	eval := c.compile(tree)
	if c.err != nil {
		return nil, c.err
	}
	return &expression{eval: eval, steps: c.steps, variables: c.most, frames: l.frames}, nil
}

// parse calls the library's parser and turns its errors, and panics should there be any, into ours.
func parse(source string, config *conf.Config) (node ast.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			node, err = nil, &flow.SyntaxError{Message: fmt.Sprintf("the parser gave up: %v", r)}
		}
	}()
	tree, err := parser.ParseWithConfig(source, config)
	if err == nil {
		return tree.Node, nil
	}
	var at *file.Error
	if !errors.As(err, &at) {
		return nil, &flow.SyntaxError{Message: err.Error()}
	}
	return nil, &flow.SyntaxError{Message: fmt.Sprintf("%s, at line %d, column %d of the expression", readable(at.Message), at.Line, at.Column+1), Offset: at.From}
}

// The parser shows tokens as Kind("text"), and strconv's errors with their function.
var (
	tokens  = regexp.MustCompile(`[A-Z][a-z]+\(("(?:[^"\\]|\\.)*")\)`)
	parsing = regexp.MustCompile(`strconv\.\w+: parsing `)
)

func readable(message string) string {
	if message == "unexpected token EOF" {
		return "the expression ends too early"
	}
	return parsing.ReplaceAllString(tokens.ReplaceAllString(message, "$1"), "")
}

// expression is a compiled source.
type expression struct {
	eval      evaluator
	steps     []string
	variables int
	frames    *sync.Pool
}

// Steps implements flow.Expression.
func (e *expression) Steps() []string { return e.steps }

// Eval implements flow.Expression. It is safe for concurrent use.
func (e *expression) Eval(s *flow.Scope) (v any, err error) {
	defer func() { // a mistake of ours fails one step, not the process
		if r := recover(); r != nil {
			v, err = nil, fmt.Errorf("the expression could not be evaluated, which is a fault of the platform: %v", r)
		}
	}()
	f := e.frames.Get().(*frame)
	f.scope, f.steps, f.memory, f.random, f.foreign = s, MaxSteps, MaxMemory, s.Seed, false
	if cap(f.variables) < e.variables {
		f.variables = make([]any, e.variables)
	}
	f.variables = f.variables[:cap(f.variables)]
	v, err = e.eval(f)
	foreign := f.foreign
	f.clear()
	e.frames.Put(f)
	if err != nil {
		return nil, err
	}
	if foreign {
		return leave(v)
	}
	return v, nil
}

// leave turns times and durations into what the outside knows.
func leave(v any) (any, error) {
	switch x := v.(type) {
	case time.Time:
		return formatTime(x), nil
	case nil, bool, int, float64, string:
		return v, nil
	}
	return flow.Canonical(v)
}

func formatTime(t time.Time) string { return t.Format(time.RFC3339Nano) }

// evaluator is a compiled node of the syntax tree.
type evaluator func(f *frame) (any, error)

// frame is the state of one evaluation.
type frame struct {
	scope     *flow.Scope
	steps     int
	memory    int
	random    uint64
	foreign   bool // a time or a duration was made
	variables []any
	stack     []any   // arguments of calls
	rounds    []round // of predicates
}

// round is one turn of a predicate.
type round struct {
	item  any
	index int
	acc   any
}

func (f *frame) clear() {
	f.scope = nil
	clear(f.variables)
	clear(f.stack[:cap(f.stack)])
	clear(f.rounds[:cap(f.rounds)])
	f.stack, f.rounds = f.stack[:0], f.rounds[:0]
	if cap(f.stack) > 1024 {
		f.stack = nil
	}
}

var (
	errSteps  = errors.New("the expression takes too many steps: do this in data.transform or data.code, or over fewer elements")
	errMemory = fmt.Errorf("the expression makes more than %d MiB of values", MaxMemory>>20)
)

// spend takes n steps from the budget.
func (f *frame) spend(n int) error {
	if f.steps -= n; f.steps < 0 {
		return errSteps
	}
	return nil
}

// grow takes n bytes from the budget.
func (f *frame) grow(n int) error {
	if f.memory -= n; f.memory < 0 {
		return errMemory
	}
	return nil
}

// missing is the error that ?? and has() forgive.
type missing struct {
	what string // source of what was looked into
	key  any
	in   any
}

func (m *missing) Error() string {
	what := m.what
	if what == "" {
		what = "the value"
	}
	switch x := m.in.(type) {
	case nil:
		return fmt.Sprintf("%s is null, so it has no %s; use ?. or ?? if it may be null", what, show(m.key))
	case map[string]any:
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		has := "it is empty"
		name, _ := m.key.(string)
		if len(keys) > 0 {
			more := ""
			if len(keys) > 20 {
				keys, more = keys[:20], ", …"
			}
			has = "it has: " + strings.Join(keys, ", ") + more
		}
		return fmt.Sprintf("there is no key %s in %s (%s)%s; use ?. or ?? if it may be missing", show(m.key), what, has, flow.DidYouMean(name, keys))
	case []any:
		return fmt.Sprintf("there is no element %s in %s, which has %d; use ?. or ?? if it may be missing", show(m.key), what, len(x))
	case string:
		return fmt.Sprintf("there is no character %s in %s, which has %d", show(m.key), what, len([]rune(x)))
	}
	return fmt.Sprintf("there is no %s in %s", show(m.key), what)
}

// show writes a value for people, shortly.
func show(v any) string {
	b, err := flow.EncodeValue(v)
	if err != nil {
		return kind(v)
	}
	if len(b) > 60 {
		b = append(b[:57:57], "…"...)
	}
	return string(b)
}

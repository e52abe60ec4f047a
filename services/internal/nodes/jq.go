package nodes

import (
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"sync"

	"github.com/itchyny/gojq"

	"flowplatform/services/internal/flow"
)

// maxPath bounds how deep jq's path functions go: they recurse, and a stack that overflows ends the process.
const maxPath = 1000

// prelude shadows what would tell one computation of a pure node from the next.
const prelude = `def now: $__now; def localtime: gmtime; def strflocaltime(f): strftime(f);`

// hungry are the functions that walk a whole value in one step. Values share parts, so a few steps make one that would take years to walk
// (reduce range(99) as $i (1; [., .]) | tojson), and a step can't be interrupted: its size is looked at first.
var hungry = []string{"tojson", "tostring", "sort", "sort_by", "group_by", "unique", "unique_by", "min", "max", "min_by", "max_by", "index", "rindex", "indices", "inside", "contains", "flatten", "join",
	"add", "implode", "ascii", "del", "delpaths", "setpath", "getpath", "to_entries", "from_entries", "with_entries", "tostream", "fromstream", "walk", "transpose", "ltrimstr", "rtrimstr", "split", "splits", "ascii_downcase",
	"ascii_upcase", "explode", "error", "halt_error", "env", "bsearch", "combinations", "any", "all", "IN", "INDEX", "GROUP_BY", "ascii_downcase", "test", "match", "capture", "scan", "sub", "gsub", "utf8bytelength", "length"}

// compileQuery compiles a query with its dangers taken out. Its errors are for people.
func compileQuery(source string) (compiled *gojq.Code, err error) {
	defer func() { // a fault of the library, or of ours, refuses one query
		if r := recover(); r != nil {
			compiled, err = nil, fmt.Errorf("the query can't be compiled: %v", r)
		}
	}()
	if len(source) > maxProgram {
		return nil, fmt.Errorf("the query has %d bytes, the most is %d", len(source), maxProgram)
	}
	q, err := gojq.Parse(source)
	if err != nil {
		var at *gojq.ParseError
		if errors.As(err, &at) && at.Token != "" {
			return nil, fmt.Errorf("the query can't be read: %v, at byte %d", err, at.Offset)
		}
		return nil, fmt.Errorf("the query can't be read: %w", err)
	}
	if q.Meta != nil || len(q.Imports) > 0 {
		return nil, errors.New("the query can't be compiled: there are no modules to import")
	}
	guard(reflect.ValueOf(q))
	before, err := gojq.Parse(prelude + ".")
	if err != nil {
		return nil, err
	}
	q.FuncDefs = append(slices.Clone(before.FuncDefs), q.FuncDefs...)
	code, err := gojq.Compile(q, gojq.WithVariables([]string{"$__now"}),
		gojq.WithFunction("_within", 0, 0, func(v any, _ []any) any {
			if err := within(v, flow.MaxValueBytes); err != nil {
				return err
			}
			return v
		}),
		gojq.WithFunction("_path", 0, 0, func(v any, _ []any) any {
			if list, ok := v.([]any); ok && len(list) > maxPath {
				return fmt.Errorf("a path has at most %d steps", maxPath)
			}
			return v
		}),
		gojq.WithFunction("_times", 2, 2, func(_ any, args []any) any { return multiply(args[0], args[1]) }))
	if err != nil {
		return nil, fmt.Errorf("the query can't be compiled: %w", err)
	}
	return code, nil
}

func step(name string) *gojq.Query {
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: name}}}
}

func pipe(l, r *gojq.Query) *gojq.Query { return &gojq.Query{Left: l, Op: gojq.OpPipe, Right: r} }

// guard puts a look at the size before whatever walks a whole value in one step.
func guard(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		guard(v.Elem())
		switch x := v.Interface().(type) {
		case *gojq.Query:
			guardOperator(x)
		case *gojq.Term:
			guardTerm(x)
		case *gojq.String:
			for i, q := range x.Queries {
				if q.Term != nil && q.Term.Str == nil { // not the text between
					x.Queries[i] = &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeQuery, Query: pipe(q, step("_within"))}}
				}
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			guard(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			guard(v.Field(i))
		}
	}
}

func guardOperator(q *gojq.Query) {
	switch q.Op {
	case gojq.OpEq, gojq.OpNe, gojq.OpGt, gojq.OpLt, gojq.OpGe, gojq.OpLe, gojq.OpSub, gojq.OpDiv, gojq.OpAdd:
		q.Left, q.Right = pipe(q.Left, step("_within")), pipe(q.Right, step("_within"))
	case gojq.OpMul: // "x" * 1000000000
		*q = gojq.Query{FuncDefs: q.FuncDefs, Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: "_times", Args: []*gojq.Query{q.Left, q.Right}}}}
	case gojq.OpUpdateMul:
		update, err := gojq.Parse("_right as $__right | _left |= _times(.; $__right)")
		if err != nil {
			return // it is a constant
		}
		fill(reflect.ValueOf(update), map[string]*gojq.Query{"_left": q.Left, "_right": q.Right})
		update.FuncDefs = q.FuncDefs
		*q = *update
	}
}

// fill puts queries in place of calls.
func fill(v reflect.Value, with map[string]*gojq.Query) {
	switch v.Kind() {
	case reflect.Pointer:
		if q, ok := v.Interface().(*gojq.Query); ok && q != nil && q.Term != nil && q.Term.Func != nil && with[q.Term.Func.Name] != nil {
			*q = gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeQuery, Query: with[q.Term.Func.Name]}}
			return
		}
		if !v.IsNil() {
			fill(v.Elem(), with)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), with)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), with)
		}
	}
}

func guardTerm(t *gojq.Term) {
	switch {
	case t.Func != nil && slices.Contains(hungry, t.Func.Name):
		f := *t.Func
		if f.Name == "setpath" || f.Name == "getpath" {
			f.Args = slices.Clone(f.Args)
			f.Args[0] = pipe(f.Args[0], step("_path"))
		}
		t.Type, t.Func = gojq.TermTypeQuery, nil
		t.Query = pipe(step("_within"), &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &f}})
	case t.Format != "":
		format, str := t.Format, t.Str
		t.Type, t.Format, t.Str = gojq.TermTypeQuery, "", nil
		t.Query = pipe(step("_within"), &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFormat, Format: format, Str: str}})
	}
}

// product multiplies as jq does.
var product = sync.OnceValues(func() (*gojq.Code, error) {
	q, err := gojq.Parse(".[0] * .[1]")
	if err != nil {
		return nil, err
	}
	return gojq.Compile(q)
})

// multiply is jq's *, which repeats texts too, within limits.
func multiply(a, b any) any {
	for _, v := range []any{a, b} {
		if err := within(v, flow.MaxValueBytes); err != nil {
			return err
		}
	}
	s, isText := a.(string)
	n, isNumber := gojq.ToFloat64(b)
	if !isText {
		s, isText = b.(string)
		n, isNumber = gojq.ToFloat64(a)
	}
	if isText && isNumber && n*float64(len(s)) > flow.MaxValueBytes {
		return fmt.Errorf("a text of %d bytes can't be repeated %v times: the most is %d MiB", len(s), n, flow.MaxValueBytes>>20)
	}
	code, err := product()
	if err != nil {
		return err
	}
	v, _ := code.Run([]any{a, b}).Next()
	return v
}

// within tells whether a value has about limit bytes at most as JSON, counting what is shared as often as it is there.
func within(v any, limit int) error {
	left := limit
	return spendOn(v, &left, 0, limit)
}

func spendOn(v any, left *int, depth, limit int) error {
	n := 8
	switch x := v.(type) {
	case string:
		n = len(x)
	case *big.Int:
		n = x.BitLen()/3 + 1
	case []any:
		if depth++; depth > flow.MaxDepth {
			return fmt.Errorf("a value is nested deeper than %d", flow.MaxDepth)
		}
		for _, e := range x {
			if err := spendOn(e, left, depth, limit); err != nil {
				return err
			}
		}
	case map[string]any:
		if depth++; depth > flow.MaxDepth {
			return fmt.Errorf("a value is nested deeper than %d", flow.MaxDepth)
		}
		for k, e := range x {
			*left -= len(k)
			if err := spendOn(e, left, depth, limit); err != nil {
				return err
			}
		}
	}
	if *left -= n; *left < 0 {
		return fmt.Errorf("a value has more than %d KiB: select what is needed first", limit>>10)
	}
	return nil
}

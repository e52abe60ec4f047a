package expr

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"

	"flowplatform/services/internal/flow"
)

// function is a function whose arguments are evaluated first.
type function struct {
	name        string
	least, most int // number of arguments; most -1: any
	doc         string
	// run must not keep args, nor change what is in them.
	run func(f *frame, args []any) (any, error)
}

func (fn *function) count() string {
	switch {
	case fn.most < 0:
		return fmt.Sprintf("at least %d arguments", fn.least)
	case fn.least == fn.most && fn.least == 1:
		return "1 argument"
	case fn.least == fn.most:
		return fmt.Sprintf("%d arguments", fn.least)
	}
	return fmt.Sprintf("%d to %d arguments", fn.least, fn.most)
}

// Function documents a function for catalogues, editors and guides.
type Function struct {
	Name string `json:"name"`
	Doc  string `json:"doc"` // the call, then what it gives
}

// Functions documents every function, by name.
func Functions() []Function {
	var out []Function
	for _, f := range functions() {
		out = append(out, Function{f.name, f.doc})
	}
	for name, doc := range formDocs() {
		out = append(out, Function{name, doc})
	}
	slices.SortFunc(out, func(a, b Function) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

func functions() []*function {
	return slices.Concat(generalFunctions(), textFunctions(), numberFunctions(), listFunctions(), objectFunctions(), timeFunctions(), codecFunctions(), hashFunctions())
}

func formDocs() map[string]string {
	return map[string]string{
		"has":           "has(input.a.b): whether that path exists, also with null at its end",
		"all":           "all(list, predicate): whether it holds for all",
		"none":          "none(list, predicate): whether it holds for none",
		"any":           "any(list, predicate): whether it holds for one or more",
		"one":           "one(list, predicate): whether it holds for exactly one",
		"filter":        "filter(list, .price > 10): the elements for which it holds",
		"map":           "map(list, .name): what the predicate gives for each element",
		"count":         "count(list, predicate): for how many it holds",
		"sum":           "sum(list), sum(list, .price): the exact sum",
		"find":          "find(list, predicate): the first element for which it holds, or null",
		"findIndex":     "findIndex(list, predicate): its index, or -1",
		"findLast":      "findLast(list, predicate): the last element for which it holds, or null",
		"findLastIndex": "findLastIndex(list, predicate): its index, or -1",
		"groupBy":       "groupBy(list, .city): an object of lists",
		"sortBy":        `sortBy(list, .price, "desc"): sorted stably; "asc" is the default`,
		"reduce":        "reduce(list, #acc + .price, 0): #acc is what came of the elements before",
	}
}

// wrong is the error about an argument of the wrong kind.
func wrong(i int, want string, v any) error {
	return fmt.Errorf("argument %d is %s, not %s", i+1, kind(v), want)
}

func str(args []any, i int) (string, error) {
	s, ok := args[i].(string)
	if !ok {
		return "", wrong(i, "a string", args[i])
	}
	return s, nil
}

func integer(args []any, i int) (int, error) {
	n, ok := asInt(args[i])
	if !ok {
		return 0, wrong(i, "a whole number", args[i])
	}
	return n, nil
}

func list(args []any, i int) ([]any, error) {
	l, ok := args[i].([]any)
	if !ok {
		return nil, wrong(i, "a list", args[i])
	}
	return l, nil
}

func object(args []any, i int) (map[string]any, error) {
	m, ok := args[i].(map[string]any)
	if !ok {
		return nil, wrong(i, "an object", args[i])
	}
	return m, nil
}

// text writes a value as string() and templates do.
func text(v any) (string, error) {
	switch x := v.(type) {
	case nil:
		return "", nil
	case string:
		return x, nil
	case int:
		return strconv.Itoa(x), nil
	}
	if v, err := leave(v); err != nil {
		return "", err
	} else if s, ok := v.(string); ok {
		return s, nil
	}
	v, err := flow.CanonicalWithin(v, MaxMemory)
	if err != nil {
		return "", err
	}
	b, err := flow.EncodeValue(v)
	return string(b), err
}

var errPattern = errors.New("a pattern has at most 1,000 characters")

// matcher is a regular expression (RE2: no back references, linear time) and what it costs: time goes with the text times the size of its program.
type matcher struct {
	*regexp.Regexp
	size int
}

func pattern(s string) (matcher, error) {
	if len(s) > 1000 {
		return matcher{}, errPattern
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return matcher{}, fmt.Errorf("the pattern %s is no regular expression: %w", show(s), err)
	}
	size := len(s)
	if tree, err := syntax.Parse(s, syntax.Perl); err == nil {
		if program, err := syntax.Compile(tree.Simplify()); err == nil {
			size = len(program.Inst)
		}
	}
	return matcher{re, size}, nil
}

// over charges for one look at a text.
func (m matcher) over(f *frame, s string) error { return f.spend(1 + len(s)*m.size/256) }

// dynamicPattern compiles a pattern that is only known now.
func (f *frame) dynamicPattern(v any) (matcher, error) {
	s, ok := v.(string)
	if !ok {
		return matcher{}, fmt.Errorf("a pattern is a string, not %s", kind(v))
	}
	if err := f.spend(100 + 20*len(s)); err != nil {
		return matcher{}, err
	}
	return pattern(s)
}

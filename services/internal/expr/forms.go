package expr

import (
	"errors"
	"fmt"
	"sort"

	"github.com/expr-lang/expr/ast"

	"flowplatform/services/internal/flow"
)

// form compiles a call whose arguments aren't simply evaluated first.
type form func(c *compiler, n ast.Node, arguments []ast.Node) evaluator

// forms gives all forms by name.
func forms() map[string]form {
	return map[string]form{
		"has":           has,
		"all":           predicate(allOf),
		"none":          predicate(noneOf),
		"any":           predicate(anyOf),
		"one":           predicate(oneOf),
		"filter":        predicate(filter),
		"map":           predicate(mapped),
		"count":         predicate(count),
		"sum":           predicate(sum),
		"find":          predicate(find(false, false)),
		"findIndex":     predicate(find(false, true)),
		"findLast":      predicate(find(true, false)),
		"findLastIndex": predicate(find(true, true)),
		"groupBy":       predicate(groupBy),
		"sortBy":        sortBy,
		"reduce":        reduce,
	}
}

// has compiles has(path): whether it exists, null included.
func has(c *compiler, n ast.Node, arguments []ast.Node) evaluator {
	if len(arguments) != 1 {
		return c.fail(n, "arguments", "has takes one path, like has(input.order.id)")
	}
	inner := arguments[0]
	if chain, ok := inner.(*ast.ChainNode); ok {
		inner = chain.Node
	}
	if _, ok := inner.(*ast.MemberNode); !ok {
		return c.fail(n, "arguments", "has takes a path, like has(input.order.id), not %s", inner.String())
	}
	path := c.compile(inner)
	return func(f *frame) (any, error) {
		depth, rounds := len(f.stack), len(f.rounds)
		_, err := path(f)
		var gone *missing
		if err == errChain || errors.As(err, &gone) { //nolint:errorlint // never wrapped
			f.stack, f.rounds = f.stack[:depth], f.rounds[:rounds]
			return false, nil
		}
		return err == nil, err
	}
}

// loop is what a form over a list and a predicate does.
type loop func(f *frame, list []any, test func(i int) (any, error)) (any, error)

// predicate compiles name(list, predicate); without a predicate the element itself is taken.
func predicate(run loop) form {
	return func(c *compiler, n ast.Node, arguments []ast.Node) evaluator {
		if len(arguments) == 0 || len(arguments) > 2 {
			return c.fail(n, "arguments", "a list and a predicate are needed, like filter(input.items, .price > 10)")
		}
		list := c.compile(arguments[0])
		var body evaluator
		if len(arguments) == 2 {
			body = c.predicate(arguments[1])
		}
		return func(f *frame) (any, error) {
			items, err := f.list(list)
			if err != nil {
				return nil, err
			}
			return f.loop(items, body, func(test func(int) (any, error)) (any, error) { return run(f, items, test) })
		}
	}
}

func (c *compiler) predicate(n ast.Node) evaluator {
	if p, ok := n.(*ast.PredicateNode); ok {
		n = p.Node
	}
	c.rounds++
	body := c.compile(n)
	c.rounds--
	return body
}

// list evaluates what has to be a list.
func (f *frame) list(e evaluator) ([]any, error) {
	v, err := e(f)
	if err != nil {
		return nil, err
	}
	items, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("a list is needed, not %s", kind(v))
	}
	return items, nil
}

// loop runs something that calls body for elements of a list, in a round of its own.
func (f *frame) loop(items []any, body evaluator, run func(test func(int) (any, error)) (any, error)) (any, error) {
	depth := len(f.rounds)
	f.rounds = append(f.rounds, round{})
	v, err := run(func(i int) (any, error) {
		if err := f.spend(1); err != nil {
			return nil, err
		}
		if body == nil {
			return items[i], nil
		}
		r := &f.rounds[depth]
		r.item, r.index = items[i], i
		return body(f)
	})
	f.rounds = f.rounds[:depth]
	return v, err
}

// until calls test on every element and stops when stop says so.
func until(list []any, test func(int) (any, error), stop func(i int, holds bool) bool) error {
	for i := range list {
		v, err := test(i)
		if err != nil {
			return err
		}
		b, err := truth(v, "predicate")
		if err != nil {
			return err
		}
		if stop(i, b) {
			return nil
		}
	}
	return nil
}

func allOf(_ *frame, list []any, test func(int) (any, error)) (any, error) {
	all := true
	err := until(list, test, func(_ int, holds bool) bool { all = holds; return !holds })
	return all, err
}

func noneOf(_ *frame, list []any, test func(int) (any, error)) (any, error) {
	none := true
	err := until(list, test, func(_ int, holds bool) bool { none = !holds; return holds })
	return none, err
}

func anyOf(_ *frame, list []any, test func(int) (any, error)) (any, error) {
	found := false
	err := until(list, test, func(_ int, holds bool) bool { found = holds; return holds })
	return found, err
}

func oneOf(_ *frame, list []any, test func(int) (any, error)) (any, error) {
	n := 0
	err := until(list, test, func(_ int, holds bool) bool {
		if holds {
			n++
		}
		return n > 1
	})
	return n == 1, err
}

func filter(f *frame, list []any, test func(int) (any, error)) (any, error) {
	out := []any{}
	err := until(list, test, func(i int, holds bool) bool {
		if holds {
			out = append(out, list[i])
		}
		return false
	})
	if err == nil {
		err = f.grow(16 * len(out))
	}
	return out, err
}

func mapped(f *frame, list []any, test func(int) (any, error)) (any, error) {
	if err := f.grow(24 + 16*len(list)); err != nil {
		return nil, err
	}
	out := make([]any, len(list))
	for i := range list {
		v, err := test(i)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func count(_ *frame, list []any, test func(int) (any, error)) (any, error) {
	n := 0
	err := until(list, test, func(_ int, holds bool) bool {
		if holds {
			n++
		}
		return false
	})
	return n, err
}

func sum(f *frame, list []any, test func(int) (any, error)) (any, error) {
	var total any = 0
	for i := range list {
		v, err := test(i)
		if err != nil {
			return nil, err
		}
		if !isNumber(v) {
			return nil, fmt.Errorf("sum adds numbers, but element %d gives %s", i, kind(v))
		}
		if total, err = add(f, total, v); err != nil {
			return nil, err
		}
	}
	return total, nil
}

func find(last, index bool) loop {
	return func(_ *frame, list []any, test func(int) (any, error)) (any, error) {
		for k := range list {
			i := k
			if last {
				i = len(list) - 1 - k
			}
			v, err := test(i)
			if err != nil {
				return nil, err
			}
			if b, err := truth(v, "predicate"); err != nil || !b {
				if err != nil {
					return nil, err
				}
				continue
			}
			if index {
				return i, nil
			}
			return list[i], nil
		}
		if index {
			return -1, nil
		}
		return nil, nil
	}
}

func groupBy(f *frame, list []any, test func(int) (any, error)) (any, error) {
	if err := f.grow(64 * len(list)); err != nil {
		return nil, err
	}
	out := map[string]any{}
	for i := range list {
		v, err := test(i)
		if err != nil {
			return nil, err
		}
		key, err := keyText(v)
		if err != nil {
			return nil, err
		}
		group, _ := out[key].([]any)
		out[key] = append(group, list[i])
	}
	return out, nil
}

// sortBy compiles sortBy(list, predicate, order?).
func sortBy(c *compiler, n ast.Node, arguments []ast.Node) evaluator {
	if len(arguments) < 2 || len(arguments) > 3 {
		return c.fail(n, "arguments", `sortBy takes a list, what to sort by, and "asc" or "desc": sortBy(input.items, .price, "desc")`)
	}
	list, body := c.compile(arguments[0]), c.predicate(arguments[1])
	direction := constant("asc")
	if len(arguments) == 3 {
		direction = c.compile(arguments[2])
	}
	return func(f *frame) (any, error) {
		items, err := f.list(list)
		if err != nil {
			return nil, err
		}
		dir, err := direction(f)
		if err != nil {
			return nil, err
		}
		keys, err := f.loop(items, body, func(test func(int) (any, error)) (any, error) { return mapped(f, items, test) })
		if err != nil {
			return nil, err
		}
		return f.sorted(items, keys.([]any), dir)
	}
}

// sorted sorts items by their keys, stably.
func (f *frame) sorted(items, keys []any, direction any) (any, error) {
	if direction != "asc" && direction != "desc" {
		return nil, fmt.Errorf(`the order is "asc" or "desc", not %s`, show(direction))
	}
	if err := f.grow(40 * len(items)); err != nil {
		return nil, err
	}
	index := make([]int, len(items))
	for i := range index {
		index[i] = i
	}
	var failed error
	sort.SliceStable(index, func(i, j int) bool {
		if failed != nil {
			return false
		}
		if failed = f.spend(1); failed != nil {
			return false
		}
		a, b := keys[index[i]], keys[index[j]]
		if direction == "desc" {
			a, b = b, a
		}
		c, err := compare(a, "<", b)
		failed = err
		return c < 0
	})
	if failed != nil {
		return nil, failed
	}
	out := make([]any, len(items))
	for i, k := range index {
		out[i] = items[k]
	}
	return out, nil
}

// reduce compiles reduce(list, predicate, initial?).
func reduce(c *compiler, n ast.Node, arguments []ast.Node) evaluator {
	if len(arguments) < 2 || len(arguments) > 3 {
		return c.fail(n, "arguments", "reduce takes a list, a predicate with #acc, and the first #acc: reduce(input.items, #acc + .price, 0)")
	}
	list, body := c.compile(arguments[0]), c.predicate(arguments[1])
	var initial evaluator
	if len(arguments) == 3 {
		initial = c.compile(arguments[2])
	}
	return func(f *frame) (any, error) {
		items, err := f.list(list)
		if err != nil {
			return nil, err
		}
		var acc any
		from := 0
		switch {
		case initial != nil:
			if acc, err = initial(f); err != nil {
				return nil, err
			}
		case len(items) == 0:
			return nil, errors.New("reduce over an empty list needs a first value as third argument")
		default:
			acc, from = items[0], 1
		}
		depth := len(f.rounds)
		return f.loop(items, body, func(test func(int) (any, error)) (any, error) {
			for i := from; i < len(items); i++ {
				f.rounds[depth].acc = acc
				if acc, err = test(i); err != nil {
					return nil, err
				}
			}
			return acc, nil
		})
	}
}

func clean(s string) string {
	v, _ := flow.Canonical(s)
	return v.(string)
}

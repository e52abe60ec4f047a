package flow

import "strings"

// Formula is a part of a config that its node evaluates itself, once for each item of a list, with item and index in scope. Compile has checked it like
// every other expression. It is immutable.
type Formula struct{ t *template }

// Eval computes the formula for an item. s is the scope of the node's call, which it doesn't change.
func (f *Formula) Eval(s *Scope, item any, index int) (any, error) {
	in := *s
	in.Item, in.Index, in.InRound = item, index, true
	return f.t.eval(&in, mix(s.Seed^mix(uint64(index))))
}

// formula keeps a value's template apart, and leaves its text in the config.
func (c *templates) formula(v any, ptr string) *template {
	patterns := c.perItem
	c.perItem = nil
	t := c.compile(v, ptr)
	c.perItem = patterns
	if c.formulas == nil {
		c.formulas = map[string]*Formula{}
	}
	c.formulas[ptr] = &Formula{t}
	return &template{constant: v, pointer: ptr}
}

// matchPointer tells whether a pointer is the pattern, whose * stands for any one key or index.
func matchPointer(pattern, ptr string) bool {
	for pattern != "" && ptr != "" {
		want, restWant := cutToken(pattern)
		got, restGot := cutToken(ptr)
		if want != got && want != "*" {
			return false
		}
		pattern, ptr = restWant, restGot
	}
	return pattern == ptr
}

// cutToken gives the first token of a pointer and what follows it.
func cutToken(ptr string) (token, rest string) {
	ptr = ptr[1:]
	if i := strings.IndexByte(ptr, '/'); i >= 0 {
		return ptr[:i], ptr[i:]
	}
	return ptr, ""
}

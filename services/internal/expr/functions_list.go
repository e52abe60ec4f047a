package expr

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

func listFunctions() []*function {
	return []*function{
		{"first", 1, 1, "first(list): its first element, or null", func(_ *frame, args []any) (any, error) { return end(args, true) }},
		{"last", 1, 1, "last(list): its last element, or null", func(_ *frame, args []any) (any, error) { return end(args, false) }},
		{"take", 2, 2, "take(list, n): its first n elements", func(f *frame, args []any) (any, error) {
			if _, err := list(args, 0); err != nil {
				return nil, err
			}
			if n, err := integer(args, 1); err != nil || n < 0 {
				return []any{}, err
			}
			return f.cut(args[0], nil, args[1])
		}},
		{"get", 2, 2, "get(x, key): that member or element, or null", func(_ *frame, args []any) (any, error) {
			v, err := access(args[0], args[1], "", true)
			if err == errChain { //nolint:errorlint // never wrapped
				return nil, nil
			}
			return v, err
		}},
		{"reverse", 1, 1, "reverse(list)", func(f *frame, args []any) (any, error) {
			l, err := list(args, 0)
			if err != nil {
				return nil, err
			}
			out := slices.Clone(l)
			slices.Reverse(out)
			return out, f.grow(16 * len(l))
		}},
		{"concat", 1, -1, "concat(list, list, …): all their elements", func(f *frame, args []any) (any, error) {
			out := []any{}
			for i := range args {
				l, err := list(args, i)
				if err != nil {
					return nil, err
				}
				if err := f.grow(16 * len(l)); err != nil {
					return nil, err
				}
				out = append(out, l...)
			}
			return out, nil
		}},
		{"flatten", 1, 1, "flatten(list): lists in it replaced by their elements, at any depth", func(f *frame, args []any) (any, error) {
			l, err := list(args, 0)
			if err != nil {
				return nil, err
			}
			out := []any{}
			return flatten(f, &out, l)
		}},
		{"uniq", 1, 1, "uniq(list): without repeated elements", uniq},
		{"sort", 1, 2, `sort(list), sort(list, "desc"): numbers, strings or times`, func(f *frame, args []any) (any, error) {
			l, err := list(args, 0)
			if err != nil {
				return nil, err
			}
			var direction any = "asc"
			if len(args) == 2 {
				direction = args[1]
			}
			return f.sorted(l, l, direction)
		}},
		{"chunk", 2, 2, "chunk(list, n): lists of n elements each", chunk},
	}
}

func generalFunctions() []*function {
	return []*function{
		{"len", 1, 1, "len(x): how many elements, keys or characters", length},
		{"type", 1, 1, `type(x): "null", "bool", "int", "float", "number", "string", "list", "object", "time", "duration"`, func(_ *frame, args []any) (any, error) { return typeName(args[0]), nil }},
		{"string", 1, 1, "string(x): as text; null is empty, lists and objects are JSON", func(f *frame, args []any) (any, error) {
			s, err := text(args[0])
			if err != nil {
				return nil, err
			}
			return s, f.grow(len(s))
		}},
	}
}

func objectFunctions() []*function {
	return []*function{
		{"keys", 1, 1, "keys(object): its keys, sorted", func(f *frame, args []any) (any, error) {
			return pairs(f, args, func(k string, _ any) any { return k })
		}},
		{"values", 1, 1, "values(object): its values, in the order of the keys", func(f *frame, args []any) (any, error) {
			return pairs(f, args, func(_ string, v any) any { return v })
		}},
		{"toPairs", 1, 1, "toPairs(object): a list of [key, value], sorted", func(f *frame, args []any) (any, error) {
			return pairs(f, args, func(k string, v any) any { return []any{k, v} })
		}},
		{"fromPairs", 1, 1, "fromPairs(list): an object of [key, value]", fromPairs},
		{"merge", 1, -1, "merge(object, object, …): all their keys; the last wins", func(f *frame, args []any) (any, error) {
			out := map[string]any{}
			for i := range args {
				m, err := object(args, i)
				if err != nil {
					return nil, err
				}
				if err := f.entries(m); err != nil {
					return nil, err
				}
				maps.Copy(out, m)
			}
			return out, nil
		}},
		{"pick", 2, -1, `pick(object, "a", "b"): only these keys, where they exist`, func(f *frame, args []any) (any, error) { return choose(f, args, true) }},
		{"omit", 2, -1, `omit(object, "a", "b"): all but these keys`, func(f *frame, args []any) (any, error) { return choose(f, args, false) }},
	}
}

// entries charges for a copy of an object.
func (f *frame) entries(m map[string]any) error {
	if err := f.spend(len(m)); err != nil {
		return err
	}
	return f.grow(48 + 40*len(m))
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case int:
		return "int"
	case float64:
		return "float"
	case json.Number:
		return "number"
	case string:
		return "string"
	case []any:
		return "list"
	case map[string]any:
		return "object"
	case time.Time:
		return "time"
	}
	return "duration"
}

func length(_ *frame, args []any) (any, error) {
	switch x := args[0].(type) {
	case string:
		return utf8.RuneCountInString(x), nil
	case []any:
		return len(x), nil
	case map[string]any:
		return len(x), nil
	}
	return nil, wrong(0, "a list, an object or a string", args[0])
}

func end(args []any, first bool) (any, error) {
	l, err := list(args, 0)
	if err != nil || len(l) == 0 {
		return nil, err
	}
	if first {
		return l[0], nil
	}
	return l[len(l)-1], nil
}

func flatten(f *frame, out *[]any, l []any) (any, error) {
	for _, v := range l {
		if err := f.spend(1); err != nil {
			return nil, err
		}
		if inner, ok := v.([]any); ok {
			if _, err := flatten(f, out, inner); err != nil {
				return nil, err
			}
			continue
		}
		if err := f.grow(16); err != nil {
			return nil, err
		}
		*out = append(*out, v)
	}
	return *out, nil
}

func uniq(f *frame, args []any) (any, error) {
	l, err := list(args, 0)
	if err != nil {
		return nil, err
	}
	out := []any{}
	seen := map[any]bool{} // what is equal exactly when it is the same in Go; the rest is compared
	for _, v := range l {
		switch v.(type) {
		case string, bool, nil:
			if !seen[v] {
				seen[v] = true
				out = append(out, v)
			}
			continue
		}
		found, err := in(f, v, out)
		if err != nil {
			return nil, err
		}
		if found == false {
			out = append(out, v)
		}
	}
	return out, f.grow(32 * len(out))
}

func chunk(f *frame, args []any) (any, error) {
	l, err := list(args, 0)
	if err != nil {
		return nil, err
	}
	n, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, fmt.Errorf("a chunk has 1 element or more, not %d", n)
	}
	if err := f.grow(64 * (len(l)/n + 1)); err != nil {
		return nil, err
	}
	out := []any{}
	for part := range slices.Chunk(l, n) {
		out = append(out, part)
	}
	return out, nil
}

func sortedNames(m map[string]any) []string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

func pairs(f *frame, args []any, of func(k string, v any) any) (any, error) {
	m, err := object(args, 0)
	if err != nil {
		return nil, err
	}
	if err := f.entries(m); err != nil {
		return nil, err
	}
	out := make([]any, 0, len(m))
	for _, k := range sortedNames(m) {
		out = append(out, of(k, m[k]))
	}
	return out, nil
}

func fromPairs(f *frame, args []any) (any, error) {
	l, err := list(args, 0)
	if err != nil {
		return nil, err
	}
	if err := f.grow(48 * len(l)); err != nil {
		return nil, err
	}
	out := make(map[string]any, len(l))
	for i, v := range l {
		pair, ok := v.([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("element %d is no [key, value]", i)
		}
		key, err := keyText(pair[0])
		if err != nil {
			return nil, err
		}
		out[key] = pair[1]
	}
	return out, nil
}

func choose(f *frame, args []any, keep bool) (any, error) {
	m, err := object(args, 0)
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for i := range args[1:] {
		names := []any{args[i+1]}
		if l, ok := args[i+1].([]any); ok {
			names = l
		}
		for _, n := range names {
			s, ok := n.(string)
			if !ok {
				return nil, wrong(i+1, "a key", n)
			}
			named[s] = true
		}
	}
	if err := f.entries(m); err != nil {
		return nil, err
	}
	out := map[string]any{}
	for k, v := range m {
		if named[k] == keep {
			out[k] = v
		}
	}
	return out, nil
}

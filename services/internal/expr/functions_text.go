package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

func textFunctions() []*function {
	one := func(name, doc string, run func(string) string) *function {
		return &function{name, 1, 1, doc, func(f *frame, args []any) (any, error) {
			s, err := str(args, 0)
			if err != nil {
				return nil, err
			}
			return run(s), f.grow(len(s))
		}}
	}
	two := func(name, doc string, run func(s, t string) any) *function {
		return &function{name, 2, 2, doc, func(f *frame, args []any) (any, error) {
			s, err := str(args, 0)
			if err != nil {
				return nil, err
			}
			t, err := str(args, 1)
			if err != nil {
				return nil, err
			}
			return run(s, t), nil
		}}
	}
	trim := func(name, doc string, spaces func(string) string, cutset func(s, cut string) string) *function {
		return &function{name, 1, 2, doc, func(_ *frame, args []any) (any, error) {
			s, err := str(args, 0)
			if err != nil || len(args) == 1 {
				return spaces(s), err
			}
			cut, err := str(args, 1)
			return cutset(s, cut), err
		}}
	}
	same := func(s string) string { return s }
	return []*function{
		one("upper", "upper(text): in capitals", strings.ToUpper),
		one("lower", "lower(text): in small letters", strings.ToLower),
		trim("trim", `trim(text), trim(text, "_-"): without blanks, or these characters, at both ends`, strings.TrimSpace, strings.Trim),
		trim("trimPrefix", `trimPrefix(text, "v"): without that beginning`, same, strings.TrimPrefix),
		trim("trimSuffix", `trimSuffix(text, ".txt"): without that end`, same, strings.TrimSuffix),
		two("hasPrefix", "hasPrefix(text, beginning)", func(s, t string) any { return strings.HasPrefix(s, t) }),
		two("hasSuffix", "hasSuffix(text, end)", func(s, t string) any { return strings.HasSuffix(s, t) }),
		two("indexOf", "indexOf(text, part): where it first is, in characters, or -1", func(s, t string) any { return runeIndex(s, strings.Index(s, t)) }),
		two("lastIndexOf", "lastIndexOf(text, part): where it last is, in characters, or -1", func(s, t string) any { return runeIndex(s, strings.LastIndex(s, t)) }),
		{"split", 2, 3, `split(text, ","), split(text, ",", 2): the parts, at most so many`, func(f *frame, args []any) (any, error) { return split(f, args, strings.SplitN) }},
		{"splitAfter", 2, 3, "splitAfter(text, separator): the parts, each with its separator", func(f *frame, args []any) (any, error) { return split(f, args, strings.SplitAfterN) }},
		{"join", 1, 2, `join(list, ", "): its elements as one text`, join},
		{"replace", 3, 4, "replace(text, old, new), replace(text, old, new, n): all, or the first n, replaced", replace},
		{"repeat", 2, 2, "repeat(text, n)", repeat},
		{"padStart", 2, 3, `padStart(text, 5, "0"): filled up at its beginning to so many characters`, func(f *frame, args []any) (any, error) { return pad(f, args, true) }},
		{"padEnd", 2, 3, "padEnd(text, 20): filled up at its end", func(f *frame, args []any) (any, error) { return pad(f, args, false) }},
		{"regexFind", 2, 2, `regexFind(text, "(\\d+)-(\\d+)"): the first match and its groups as a list, or null (RE2 syntax)`, regexFind},
		{"regexReplace", 3, 3, `regexReplace(text, "\\s+", " "): every match replaced; $1 stands for a group`, regexReplace},
	}
}

func runeIndex(s string, at int) int {
	if at <= 0 {
		return at
	}
	return utf8.RuneCountInString(s[:at])
}

func split(f *frame, args []any, cut func(s, sep string, n int) []string) (any, error) {
	s, err := str(args, 0)
	if err != nil {
		return nil, err
	}
	sep, err := str(args, 1)
	if err != nil {
		return nil, err
	}
	n := -1
	if len(args) == 3 {
		if n, err = integer(args, 2); err != nil {
			return nil, err
		}
	}
	count := len(s) + 1
	if sep != "" {
		count = strings.Count(s, sep) + 1
	}
	if err := f.grow(32 * count); err != nil {
		return nil, err
	}
	parts := cut(s, sep, n)
	out := make([]any, len(parts))
	for i, p := range parts {
		out[i] = p
	}
	return out, f.spend(len(out))
}

func join(f *frame, args []any) (any, error) {
	items, err := list(args, 0)
	if err != nil {
		return nil, err
	}
	sep := ""
	if len(args) == 2 {
		if sep, err = str(args, 1); err != nil {
			return nil, err
		}
	}
	var b strings.Builder
	for i, v := range items {
		if i > 0 {
			b.WriteString(sep)
		}
		switch v.(type) {
		case []any, map[string]any:
			return nil, fmt.Errorf("element %d is %s: only texts, numbers and booleans are joined", i, kind(v))
		}
		t, err := text(v)
		if err != nil {
			return nil, err
		}
		if err := f.grow(len(t) + len(sep)); err != nil {
			return nil, err
		}
		b.WriteString(t)
	}
	return b.String(), nil
}

func replace(f *frame, args []any) (any, error) {
	var part [3]string
	for i := range part {
		var err error
		if part[i], err = str(args, i); err != nil {
			return nil, err
		}
	}
	s, old, with := part[0], part[1], part[2]
	n := -1
	if len(args) == 4 {
		var err error
		if n, err = integer(args, 3); err != nil {
			return nil, err
		}
	}
	count := strings.Count(s, old)
	if n >= 0 {
		count = min(count, n)
	}
	if len(with) > 0 && count > MaxMemory/len(with) {
		return nil, errMemory
	}
	if err := f.grow(len(s) + count*len(with)); err != nil {
		return nil, err
	}
	return strings.Replace(s, old, with, n), nil
}

func repeat(f *frame, args []any) (any, error) {
	s, err := str(args, 0)
	if err != nil {
		return nil, err
	}
	n, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, fmt.Errorf("%d times is not possible", n)
	}
	if n > 0 && len(s) > MaxMemory/n {
		return nil, errMemory
	}
	if err := f.grow(len(s) * n); err != nil {
		return nil, err
	}
	return strings.Repeat(s, n), nil
}

func pad(f *frame, args []any, start bool) (any, error) {
	s, err := text(args[0])
	if err != nil {
		return nil, err
	}
	n, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	fill := " "
	if len(args) == 3 {
		if fill, err = str(args, 2); err != nil {
			return nil, err
		}
	}
	if utf8.RuneCountInString(fill) != 1 {
		return nil, fmt.Errorf("it is filled up with one character, not with %s", show(fill))
	}
	missing := n - utf8.RuneCountInString(s)
	if missing <= 0 {
		return s, nil
	}
	if missing > MaxMemory/4 {
		return nil, errMemory
	}
	if err := f.grow(len(s) + missing*len(fill)); err != nil {
		return nil, err
	}
	if start {
		return strings.Repeat(fill, missing) + s, nil
	}
	return s + strings.Repeat(fill, missing), nil
}

func regexFind(f *frame, args []any) (any, error) {
	s, err := str(args, 0)
	if err != nil {
		return nil, err
	}
	re, err := f.dynamicPattern(args[1])
	if err != nil {
		return nil, err
	}
	if err := re.over(f, s); err != nil {
		return nil, err
	}
	groups := re.FindStringSubmatch(s)
	if groups == nil {
		return nil, nil
	}
	out := make([]any, len(groups))
	for i, g := range groups {
		out[i] = g
	}
	return out, nil
}

func regexReplace(f *frame, args []any) (any, error) {
	s, err := str(args, 0)
	if err != nil {
		return nil, err
	}
	re, err := f.dynamicPattern(args[1])
	if err != nil {
		return nil, err
	}
	with, err := str(args, 2)
	if err != nil {
		return nil, err
	}
	if err := re.over(f, s); err != nil {
		return nil, err
	}
	matches := re.FindAllStringSubmatchIndex(s, -1)
	var out []byte
	last := 0
	for _, m := range matches {
		before := len(out)
		out = append(out, s[last:m[0]]...)
		out = re.ExpandString(out, with, s, m)
		last = m[1]
		if err := f.grow(len(out) - before); err != nil {
			return nil, err
		}
	}
	return string(append(out, s[last:]...)), f.grow(len(s) - last)
}

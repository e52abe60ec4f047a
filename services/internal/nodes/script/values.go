package script

import (
	"encoding/json"
	"strings"

	"flowplatform/services/internal/flow"
)

// exactInt is the largest whole number that JavaScript's numbers hold without a gap.
const exactInt = 1<<53 - 1

// Encode writes what a script sees as JSON. Whole numbers that JavaScript would round become marked texts, which the child turns into BigInt: "\x00n123"; a text that
// begins with a NUL itself gets the mark "\x00s". marked tells whether there is any.
func Encode(v map[string]any) (data string, marked bool, err error) {
	if needsMarks(v) {
		marked = true
		v, _ = mark(v).(map[string]any)
	}
	b, err := flow.EncodeValue(v)
	return string(b), marked, err
}

// Decode reads what a script returned.
func Decode(output string) (any, error) {
	v, err := flow.DecodeValue([]byte(output))
	if err != nil || !strings.Contains(output, `\u0000`) {
		return v, err
	}
	return unmark(v)
}

func isLarge(v any) bool {
	switch n := v.(type) {
	case int:
		return n > exactInt || n < -exactInt
	case json.Number:
		return !strings.ContainsAny(string(n), ".eE")
	}
	return false
}

func needsMarks(v any) bool {
	switch x := v.(type) {
	case string:
		return strings.HasPrefix(x, "\x00")
	case []any:
		for _, e := range x {
			if needsMarks(e) {
				return true
			}
		}
	case map[string]any:
		for _, e := range x {
			if needsMarks(e) {
				return true
			}
		}
	}
	return isLarge(v)
}

func mark(v any) any {
	switch x := v.(type) {
	case string:
		if strings.HasPrefix(x, "\x00") {
			return "\x00s" + x
		}
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = mark(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = mark(e)
		}
		return out
	}
	if isLarge(v) {
		b, err := flow.EncodeValue(v)
		if err == nil {
			return "\x00n" + string(b)
		}
	}
	return v
}

func unmark(v any) (any, error) {
	switch x := v.(type) {
	case string:
		if rest, ok := strings.CutPrefix(x, "\x00n"); ok {
			return flow.DecodeValue([]byte(rest))
		}
		return strings.TrimPrefix(x, "\x00s"), nil
	case []any:
		for i, e := range x {
			n, err := unmark(e)
			if err != nil {
				return nil, err
			}
			x[i] = n
		}
	case map[string]any:
		for k, e := range x {
			n, err := unmark(e)
			if err != nil {
				return nil, err
			}
			x[k] = n
		}
	}
	return v, nil
}

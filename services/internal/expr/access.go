package expr

import (
	"fmt"
	"time"
	"unicode/utf8"

	"flowplatform/services/internal/flow"
)

var stepMembers = []string{"output", "port", "error", "status"}

var executionMembers = map[string]evaluator{
	"id": func(f *frame) (any, error) { return f.scope.Execution.ID, nil },
	"createdAt": func(f *frame) (any, error) {
		f.foreign = true
		return f.scope.Execution.CreatedAt.UTC(), nil
	},
	"trigger":  func(f *frame) (any, error) { return f.scope.Execution.Trigger, nil },
	"labels":   func(f *frame) (any, error) { return labels(f.scope.Execution.Labels), nil },
	"priority": func(f *frame) (any, error) { return f.scope.Execution.Priority, nil },
}

var flowMembers = map[string]evaluator{
	"id":      func(f *frame) (any, error) { return f.scope.Flow.ID, nil },
	"name":    func(f *frame) (any, error) { return f.scope.Flow.Name, nil },
	"version": func(f *frame) (any, error) { return f.scope.Flow.Version, nil },
}

func executionObject(f *frame) any {
	f.foreign = true
	e := &f.scope.Execution
	return map[string]any{"id": e.ID, "createdAt": e.CreatedAt.UTC(), "trigger": e.Trigger, "labels": labels(e.Labels), "priority": e.Priority}
}

func flowObject(s *flow.Scope) any {
	return map[string]any{"id": s.Flow.ID, "name": s.Flow.Name, "version": s.Flow.Version}
}

func labels(m map[string]string) any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func failureObject(e *flow.Failure) any {
	if e == nil {
		return nil
	}
	return map[string]any{"code": e.Code, "message": e.Message, "node": e.Node, "retryable": e.Retryable, "data": e.Data}
}

// access gives a member, an element or a character. With optional, null and what is missing give null.
func access(v, key any, what string, optional bool) (any, error) {
	switch x := v.(type) {
	case nil:
		if optional {
			return nil, errChain
		}
		return nil, &missing{what, key, nil}
	case map[string]any:
		name, err := keyText(key)
		if err != nil {
			return nil, err
		}
		got, ok := x[name]
		if !ok && !optional {
			return nil, &missing{what, name, v}
		}
		return got, nil
	case []any:
		i, ok := asInt(key)
		if !ok {
			return nil, fmt.Errorf("%s is a list, so %s is no element of it: use [0], first(), map() or len()", what, show(key))
		}
		if i < 0 {
			i += len(x)
		}
		if i < 0 || i >= len(x) {
			if optional {
				return nil, nil
			}
			return nil, &missing{what, key, v}
		}
		return x[i], nil
	case string:
		i, ok := asInt(key)
		if !ok {
			return nil, fmt.Errorf("%s is a string, so it has no %s (it may be JSON that was not read: fromJSON())", what, show(key))
		}
		runes := []rune(x)
		if i < 0 {
			i += len(runes)
		}
		if i < 0 || i >= len(runes) {
			if optional {
				return nil, nil
			}
			return nil, &missing{what, key, v}
		}
		return string(runes[i]), nil
	case time.Time, time.Duration:
		return timeMember(v, key)
	}
	return nil, fmt.Errorf("%s is %s, so it has no %s", what, kind(v), show(key))
}

func timeMember(v, key any) (any, error) {
	switch x := v.(type) {
	case time.Time:
		switch key {
		case "year":
			return x.Year(), nil
		case "month":
			return int(x.Month()), nil
		case "day":
			return x.Day(), nil
		case "hour":
			return x.Hour(), nil
		case "minute":
			return x.Minute(), nil
		case "second":
			return x.Second(), nil
		case "weekday":
			return int(x.Weekday()), nil
		case "yearDay":
			return x.YearDay(), nil
		case "unix":
			return int(x.Unix()), nil
		case "unixMilli":
			return int(x.UnixMilli()), nil
		}
		return nil, fmt.Errorf("a time has no %s; it has year, month, day, hour, minute, second, weekday (0 is Sunday), yearDay, unix, unixMilli", show(key))
	case time.Duration:
		switch key {
		case "hours":
			return x.Hours(), nil
		case "minutes":
			return x.Minutes(), nil
		case "seconds":
			return x.Seconds(), nil
		case "milliseconds":
			return int(x.Milliseconds()), nil
		}
		return nil, fmt.Errorf("a duration has no %s; it has hours, minutes, seconds, milliseconds", show(key))
	}
	return nil, nil
}

// cut gives v[from:to]; nil bounds are the ends, negative ones count from the end, and what is outside is cut off.
func (f *frame) cut(v, from, to any) (any, error) {
	bounds := func(length int) (int, int, error) {
		a, b := 0, length
		ok := true
		if from != nil {
			if a, ok = asInt(from); !ok {
				return 0, 0, fmt.Errorf("a slice begins at a whole number, not at %s", show(from))
			}
		}
		if to != nil {
			if b, ok = asInt(to); !ok {
				return 0, 0, fmt.Errorf("a slice ends at a whole number, not at %s", show(to))
			}
		}
		if a < 0 {
			a += length
		}
		if b < 0 {
			b += length
		}
		b = min(max(b, 0), length)
		return min(max(a, 0), b), b, nil
	}
	switch x := v.(type) {
	case []any:
		a, b, err := bounds(len(x))
		if err != nil {
			return nil, err
		}
		return x[a:b:b], nil
	case string:
		if err := f.spend(len(x) / 16); err != nil {
			return nil, err
		}
		a, b, err := bounds(utf8.RuneCountInString(x))
		if err != nil {
			return nil, err
		}
		return runeSlice(x, a, b), nil
	}
	return nil, fmt.Errorf("lists and strings can be sliced, not %s", kind(v))
}

// runeSlice cuts by characters.
func runeSlice(s string, from, to int) string {
	start, end, n := len(s), len(s), 0
	for i := range s {
		if n == from {
			start = i
		}
		if n == to {
			end = i
			break
		}
		n++
	}
	return s[min(start, end):end]
}

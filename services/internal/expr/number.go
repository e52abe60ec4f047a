package expr

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"

	"flowplatform/services/internal/flow"
)

// operators of two operands that are both evaluated.
var operators = map[string]func(f *frame, a, b any) (any, error){
	"+": add, "-": subtract, "*": multiply, "/": divide, "%": modulo, "**": power, "^": power,
	"==": func(f *frame, a, b any) (any, error) { return equal(f, a, b) },
	"!=": func(f *frame, a, b any) (any, error) { same, err := equal(f, a, b); return !same, err },
	"<":  order("<", func(c int) bool { return c < 0 }),
	"<=": order("<=", func(c int) bool { return c <= 0 }),
	">":  order(">", func(c int) bool { return c > 0 }),
	">=": order(">=", func(c int) bool { return c >= 0 }),
	"in": in, "..": span,
	"contains": texts("contains", strings.Contains), "startsWith": texts("startsWith", strings.HasPrefix), "endsWith": texts("endsWith", strings.HasSuffix),
}

func isNumber(v any) bool {
	switch v.(type) {
	case int, float64, json.Number:
		return true
	}
	return false
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case int, float64, json.Number:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	case time.Time:
		return "a time"
	case time.Duration:
		return "a duration"
	}
	return fmt.Sprintf("a %T", v)
}

// limit of the integers that float64 holds without a gap.
const exactFloat = 1 << 53

func overflow(a any, operator string, b any) error {
	return fmt.Errorf("%s %s %s doesn't fit a 64-bit integer", show(a), operator, show(b))
}

// floats gives both operands as float64 when that loses nothing.
func floats(a any, operator string, b any) (x, y float64, err error) {
	if x, err = asFloat(a, operator, b, a); err == nil {
		y, err = asFloat(a, operator, b, b)
	}
	return x, y, err
}

func asFloat(a any, operator string, b, v any) (float64, error) {
	switch n := v.(type) {
	case float64:
		return n, nil
	case int:
		if n > exactFloat || n < -exactFloat {
			return 0, fmt.Errorf("%s %s %s: %d has no exact place among the floating-point numbers; use whole numbers, or float() to round it", show(a), operator, show(b), n)
		}
		return float64(n), nil
	case json.Number:
		return 0, fmt.Errorf("%s %s %s: %s has more digits than arithmetic can keep; it can be compared and passed on only, or rounded with float()", show(a), operator, show(b), show(n))
	}
	hint := ""
	if a == nil || b == nil {
		hint = "; use ?? to say what stands for null"
	} else if _, ok := v.(string); ok {
		hint = "; int() and float() read a number from a string, string() makes a string"
	}
	return 0, fmt.Errorf("%q can't be used between %s and %s%s", operator, kind(a), kind(b), hint)
}

func finite(v float64, a any, operator string, b any) (any, error) {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return nil, fmt.Errorf("%s %s %s is no finite number", show(a), operator, show(b))
	}
	return v, nil
}

func add(f *frame, a, b any) (any, error) {
	switch x := a.(type) {
	case int:
		if y, ok := b.(int); ok {
			sum := x + y
			if (sum > x) != (y > 0) && y != 0 {
				return nil, overflow(a, "+", b)
			}
			return sum, nil
		}
	case string:
		if y, ok := b.(string); ok {
			return x + y, f.grow(len(x) + len(y))
		}
	case time.Time:
		if y, ok := b.(time.Duration); ok {
			return moment(x.Add(y))
		}
	case time.Duration:
		switch y := b.(type) {
		case time.Duration:
			sum := x + y
			if (sum > x) != (y > 0) && y != 0 {
				return nil, overflow(a, "+", b)
			}
			return sum, nil
		case time.Time:
			return moment(y.Add(x))
		}
	}
	x, y, err := floats(a, "+", b)
	if err != nil {
		return nil, err
	}
	return finite(x+y, a, "+", b)
}

func subtract(_ *frame, a, b any) (any, error) {
	switch x := a.(type) {
	case int:
		if y, ok := b.(int); ok {
			d := x - y
			if (d < x) != (y > 0) && y != 0 {
				return nil, overflow(a, "-", b)
			}
			return d, nil
		}
	case time.Time:
		switch y := b.(type) {
		case time.Time:
			return x.Sub(y), nil
		case time.Duration:
			return moment(x.Add(-y))
		}
	case time.Duration:
		if y, ok := b.(time.Duration); ok {
			d := x - y
			if (d < x) != (y > 0) && y != 0 {
				return nil, overflow(a, "-", b)
			}
			return d, nil
		}
	}
	x, y, err := floats(a, "-", b)
	if err != nil {
		return nil, err
	}
	return finite(x-y, a, "-", b)
}

func multiply(_ *frame, a, b any) (any, error) {
	switch x := a.(type) {
	case int:
		switch y := b.(type) {
		case int:
			p, ok := product(x, y)
			if !ok {
				return nil, overflow(a, "*", b)
			}
			return p, nil
		case time.Duration:
			return multiply(nil, b, a)
		}
	case time.Duration:
		if y, ok := b.(int); ok {
			p, ok := product(int(x), y)
			if !ok {
				return nil, overflow(a, "*", b)
			}
			return time.Duration(p), nil
		}
	}
	x, y, err := floats(a, "*", b)
	if err != nil {
		return nil, err
	}
	return finite(x*y, a, "*", b)
}

func product(x, y int) (int, bool) {
	high, low := bits.Mul64(magnitude(x), magnitude(y))
	if high != 0 {
		return 0, false
	}
	if (x < 0) != (y < 0) {
		if low > 1<<63 {
			return 0, false
		}
		return int(-low), true
	}
	return int(low), low < 1<<63
}

func magnitude(x int) uint64 {
	if x < 0 {
		return -uint64(x)
	}
	return uint64(x)
}

func divide(_ *frame, a, b any) (any, error) {
	if x, ok := a.(int); ok {
		if y, ok := b.(int); ok && y != 0 && !(x == math.MinInt && y == -1) && x%y == 0 {
			return x / y, nil
		}
	}
	x, y, err := floats(a, "/", b)
	if err != nil {
		return nil, err
	}
	if y == 0 {
		return nil, fmt.Errorf("%s / 0: division by zero", show(a))
	}
	return finite(x/y, a, "/", b)
}

// whole gives both operands as integers.
func whole(a any, operator string, b any) (x, y int, err error) {
	if _, _, err := floats(a, operator, b); err != nil && (!isNumber(a) || !isNumber(b)) {
		return 0, 0, err
	}
	x, okX := asInt(a)
	y, okY := asInt(b)
	if !okX || !okY {
		return 0, 0, fmt.Errorf("%s %s %s: whole numbers are needed", show(a), operator, show(b))
	}
	if y == 0 {
		return 0, 0, fmt.Errorf("%s %s 0: division by zero", show(a), operator)
	}
	return x, y, nil
}

// asInt takes an integer, also one written as a decimal.
func asInt(v any) (int, bool) {
	switch x := v.(type) {
	case int:
		return x, true
	case float64:
		if x == math.Trunc(x) && math.Abs(x) <= exactFloat {
			return int(x), true
		}
	}
	return 0, false
}

func modulo(_ *frame, a, b any) (any, error) {
	x, y, err := whole(a, "%", b)
	if err != nil {
		return nil, err
	}
	if y == -1 {
		return 0, nil
	}
	return x % y, nil
}

func power(_ *frame, a, b any) (any, error) {
	base, okBase := a.(int)
	exponent, okExponent := b.(int)
	if okBase && okExponent && exponent >= 0 {
		result, ok := 1, true
		switch {
		case base == 0 && exponent > 0, base == 1, base == -1:
			if exponent%2 == 0 && base == -1 {
				base = 1
			}
			if exponent == 0 {
				base = 1
			}
			return base, nil
		}
		for range min(exponent, 64) {
			if result, ok = product(result, base); !ok {
				return nil, overflow(a, "**", b)
			}
		}
		return result, nil
	}
	x, y, err := floats(a, "**", b)
	if err != nil {
		return nil, err
	}
	return finite(math.Pow(x, y), a, "**", b)
}

func negate(v any) (any, error) {
	switch x := v.(type) {
	case int:
		if x == math.MinInt {
			return nil, fmt.Errorf("-(%d) doesn't fit a 64-bit integer", x)
		}
		return -x, nil
	case float64:
		return -x, nil
	case json.Number:
		if rest, ok := strings.CutPrefix(string(x), "-"); ok {
			return flow.DecodeValue([]byte(rest))
		}
		return flow.DecodeValue([]byte("-" + string(x)))
	case time.Duration:
		return -x, nil
	}
	return nil, fmt.Errorf("- stands before a number, not %s", kind(v))
}

// compare orders two numbers, strings, times or durations.
func compare(a any, operator string, b any) (int, error) {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), nil
		}
	case time.Time:
		if y, ok := b.(time.Time); ok {
			return x.Compare(y), nil
		}
	case time.Duration:
		if y, ok := b.(time.Duration); ok {
			switch {
			case x < y:
				return -1, nil
			case x > y:
				return 1, nil
			}
			return 0, nil
		}
	}
	if c, ok := flow.CompareNumbers(a, b); ok {
		return c, nil
	}
	hint := ""
	_, timeA := a.(time.Time)
	_, timeB := b.(time.Time)
	switch {
	case a == nil || b == nil:
		hint = "; use ?? to say what stands for null"
	case timeA || timeB:
		hint = "; date() reads a time from a string"
	case isNumber(a) || isNumber(b):
		hint = "; int() and float() read a number from a string"
	}
	return 0, fmt.Errorf("%q can't compare %s with %s%s", operator, kind(a), kind(b), hint)
}

func order(operator string, holds func(int) bool) func(*frame, any, any) (any, error) {
	return func(f *frame, a, b any) (any, error) {
		if x, ok := a.(int); ok {
			if y, ok := b.(int); ok {
				switch {
				case x < y:
					return holds(-1), nil
				case x > y:
					return holds(1), nil
				}
				return holds(0), nil
			}
		}
		if x, ok := a.(string); ok {
			if err := f.spend(len(x) / 64); err != nil {
				return nil, err
			}
		}
		c, err := compare(a, operator, b)
		return holds(c) && err == nil, err
	}
}

// equal compares any two values; values of different kinds differ. Only a time beside a string is an error, since it is never what was meant.
func equal(f *frame, a, b any) (bool, error) {
	if err := f.spend(1); err != nil {
		return false, err
	}
	switch x := a.(type) {
	case nil:
		return b == nil, nil
	case bool:
		y, ok := b.(bool)
		return ok && x == y, nil
	case string:
		switch y := b.(type) {
		case string:
			return x == y, f.spend(len(x) / 64)
		case time.Time:
			return equal(f, b, a)
		}
		return false, nil
	case int, float64, json.Number:
		c, ok := flow.CompareNumbers(a, b)
		return ok && c == 0, nil
	case time.Time:
		switch y := b.(type) {
		case time.Time:
			return x.Equal(y), nil
		case string:
			return false, fmt.Errorf("a time is compared with the string %s: date() reads a time from a string", show(y))
		}
		return false, nil
	case time.Duration:
		y, ok := b.(time.Duration)
		return ok && x == y, nil
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		for i := range x {
			if same, err := equal(f, x[i], y[i]); err != nil || !same {
				return false, err
			}
		}
		return true, nil
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		for k, v := range x {
			other, ok := y[k]
			if !ok {
				return false, f.spend(1)
			}
			if same, err := equal(f, v, other); err != nil || !same {
				return false, err
			}
		}
		return true, nil
	}
	return false, nil
}

func in(f *frame, a, b any) (any, error) {
	switch x := b.(type) {
	case nil:
		return false, nil
	case []any:
		for _, v := range x {
			if same, err := equal(f, v, a); err != nil || same {
				return same, err
			}
		}
		return false, nil
	case map[string]any:
		key, ok := a.(string)
		if !ok {
			return false, nil
		}
		_, ok = x[key]
		return ok, nil
	}
	return nil, fmt.Errorf(`"in" looks into a list or an object, not %s; for strings there is contains`, kind(b))
}

func span(f *frame, a, b any) (any, error) {
	low, okLow := asInt(a)
	high, okHigh := asInt(b)
	if !okLow || !okHigh {
		return nil, fmt.Errorf("%s..%s: a range goes from a whole number to another", show(a), show(b))
	}
	if high < low {
		return []any{}, nil
	}
	count := uint64(high) - uint64(low) + 1
	if count > MaxSteps || count == 0 {
		return nil, errSteps
	}
	if err := f.spend(int(count)); err != nil {
		return nil, err
	}
	if err := f.grow(24 * int(count)); err != nil {
		return nil, err
	}
	out := make([]any, count)
	for i := range out {
		out[i] = low + i
	}
	return out, nil
}

func texts(name string, test func(string, string) bool) func(*frame, any, any) (any, error) {
	return func(f *frame, a, b any) (any, error) {
		if a == nil || b == nil {
			return false, nil
		}
		x, okX := a.(string)
		y, okY := b.(string)
		if !okX || !okY {
			return nil, fmt.Errorf("%s is for two strings, not %s and %s; for lists there is in", name, kind(a), kind(b))
		}
		return test(x, y), f.spend(len(x) / 64)
	}
}

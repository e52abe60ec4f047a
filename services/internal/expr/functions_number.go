package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"flowplatform/services/internal/flow"
)

func numberFunctions() []*function {
	return []*function{
		{"int", 1, 1, `int(x): a number cut to a whole one, or one read from a text like "42"`, toInt},
		{"float", 1, 1, "float(x): the nearest floating-point number, also of a text or of a number with too many digits", toFloat},
		{"abs", 1, 1, "abs(x): without its sign", abs},
		{"ceil", 1, 1, "ceil(x): the next whole number above", rounding(math.Ceil)},
		{"floor", 1, 1, "floor(x): the next whole number below", rounding(math.Floor)},
		{"round", 1, 2, "round(x), round(x, 2): the nearest whole number, or with so many places; halves away from zero", roundTo},
		{"div", 2, 2, "div(a, b): whole-number division, cut towards zero", func(_ *frame, args []any) (any, error) {
			a, b, err := whole(args[0], "div", args[1])
			if err != nil {
				return nil, err
			}
			if a == math.MinInt && b == -1 {
				return nil, overflow(a, "div", b)
			}
			return a / b, nil
		}},
		{"max", 1, -1, "max(a, b, …), max(list): the greatest number", extreme(1)},
		{"min", 1, -1, "min(a, b, …), min(list): the least number", extreme(-1)},
		{"mean", 1, -1, "mean(list): the average", mean},
		{"median", 1, -1, "median(list): the middle one of the sorted numbers", median},
		{"random", 0, 1, "random(): a number from 0 up to 1; random(6): a whole number from 0 to 5. The same when computed again", random},
		{"uuid", 0, 0, "uuid(): a random UUID (version 4), the same when computed again", func(f *frame, _ []any) (any, error) {
			a, b := f.draw(), f.draw()
			return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff), nil
		}},
	}
}

func toInt(_ *frame, args []any) (any, error) {
	switch x := args[0].(type) {
	case int:
		return x, nil
	case float64:
		if cut := math.Trunc(x); cut >= -1<<63 && cut < 1<<63 {
			return int(cut), nil
		}
		return nil, fmt.Errorf("%s doesn't fit a 64-bit integer", show(x))
	case bool:
		if x {
			return 1, nil
		}
		return 0, nil
	case json.Number:
		return nil, fmt.Errorf("%s doesn't fit a 64-bit integer; float() rounds it", show(x))
	case string:
		n, err := strconv.Atoi(strings.TrimSpace(x))
		if err != nil {
			return nil, fmt.Errorf("%s is no whole number that fits 64 bits", show(x))
		}
		return n, nil
	}
	return nil, wrong(0, "a number, or a text that is one", args[0])
}

func toFloat(_ *frame, args []any) (any, error) {
	switch x := args[0].(type) {
	case int:
		return float64(x), nil
	case float64:
		return x, nil
	case json.Number, string:
		f, err := strconv.ParseFloat(strings.TrimSpace(fmt.Sprint(x)), 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%s is no finite number", show(x))
		}
		return f, nil
	}
	return nil, wrong(0, "a number, or a text that is one", args[0])
}

func abs(_ *frame, args []any) (any, error) {
	c, ok := flow.CompareNumbers(args[0], 0)
	switch {
	case !ok:
		return nil, wrong(0, "a number", args[0])
	case c < 0:
		return negate(args[0])
	}
	return args[0], nil
}

// rounding gives a whole number as int where it fits.
func rounding(to func(float64) float64) func(*frame, []any) (any, error) {
	return func(_ *frame, args []any) (any, error) {
		switch x := args[0].(type) {
		case int:
			return x, nil
		case float64:
			r := to(x)
			if math.Abs(r) <= exactFloat {
				return int(r), nil
			}
			return r, nil
		case json.Number:
			return nil, fmt.Errorf("%s has more digits than arithmetic can keep; float() rounds it", show(x))
		}
		return nil, wrong(0, "a number", args[0])
	}
}

func roundTo(f *frame, args []any) (any, error) {
	if len(args) == 1 {
		return rounding(math.Round)(f, args)
	}
	places, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	if places < 0 || places > 15 {
		return nil, fmt.Errorf("%d places are not possible: 0 to 15", places)
	}
	x, ok := args[0].(float64)
	if !ok {
		return rounding(math.Round)(f, args)
	}
	// by the decimal that people see, so that 1.005 becomes 1.01
	shifted, err := shift(x, places)
	if err != nil || math.Abs(shifted) > exactFloat {
		return x, nil //nolint:nilerr // so large that it has no such places
	}
	return shift(math.Round(shifted), -places)
}

// shift multiplies by a power of ten through the decimal notation, without a rounding error of its own.
func shift(x float64, places int) (float64, error) {
	s := strconv.FormatFloat(x, 'e', -1, 64)
	mantissa, exponent, _ := strings.Cut(s, "e")
	e, err := strconv.Atoi(exponent)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(mantissa+"e"+strconv.Itoa(e+places), 64)
}

// numbers gives the arguments, or the elements of the only argument.
func numbers(args []any) ([]any, error) {
	all := args
	if l, ok := args[0].([]any); ok && len(args) == 1 {
		all = l
	}
	if len(all) == 0 {
		return nil, errors.New("the list is empty")
	}
	for i, v := range all {
		if !isNumber(v) {
			return nil, wrong(i, "a number", v)
		}
	}
	return all, nil
}

func extreme(sign int) func(*frame, []any) (any, error) {
	return func(_ *frame, args []any) (any, error) {
		all, err := numbers(args)
		if err != nil {
			return nil, err
		}
		best := all[0]
		for _, v := range all[1:] {
			if c, _ := flow.CompareNumbers(v, best); c*sign > 0 {
				best = v
			}
		}
		return best, nil
	}
}

func mean(f *frame, args []any) (any, error) {
	all, err := numbers(args)
	if err != nil {
		return nil, err
	}
	var total any = 0
	for _, v := range all {
		if total, err = add(f, total, v); err != nil {
			return nil, err
		}
	}
	return divide(f, total, len(all))
}

func median(f *frame, args []any) (any, error) {
	all, err := numbers(args)
	if err != nil {
		return nil, err
	}
	v, err := f.sorted(all, all, "asc")
	if err != nil {
		return nil, err
	}
	sorted := v.([]any)
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half], nil
	}
	two, err := add(f, sorted[half-1], sorted[half])
	if err != nil {
		return nil, err
	}
	return divide(f, two, 2)
}

// draw gives the next 64 random bits (splitmix64). Recorded executions rely on it: don't change it.
func (f *frame) draw() uint64 {
	f.random += 0x9e3779b97f4a7c15
	x := f.random
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func random(f *frame, args []any) (any, error) {
	if len(args) == 0 {
		return float64(f.draw()>>11) / (1 << 53), nil
	}
	n, err := integer(args, 0)
	if err != nil {
		return nil, err
	}
	if n <= 0 {
		return nil, fmt.Errorf("random(n) gives 0 to n-1, so n is 1 or more, not %d", n)
	}
	return int(f.draw() % uint64(n)), nil
}

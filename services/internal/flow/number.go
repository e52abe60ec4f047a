package flow

import (
	"cmp"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// CompareNumbers compares two numbers of any of the three kinds exactly, a float64 standing for the decimal that it shows. false: one of them is no number.
func CompareNumbers(a, b any) (int, bool) {
	switch x := a.(type) {
	case int:
		switch y := b.(type) {
		case int:
			return cmp.Compare(x, y), true
		case float64:
			return compareIntFloat(x, y), true
		}
	case float64:
		switch y := b.(type) {
		case float64:
			return cmp.Compare(x, y), true
		case int:
			return -compareIntFloat(y, x), true
		}
	}
	x, okX := decimalOf(a)
	y, okY := decimalOf(b)
	if !okX || !okY {
		return 0, false
	}
	return x.compare(y), true
}

func compareIntFloat(i int, f float64) int {
	switch {
	case f >= 1<<63:
		return -1
	case f < -1<<63:
		return 1
	}
	whole := math.Trunc(f)
	if c := cmp.Compare(i, int(whole)); c != 0 {
		return c
	}
	return cmp.Compare(0, f-whole)
}

// decimal is sign × 0.digits × 10^exponent.
type decimal struct {
	negative bool
	digits   string
	exponent int
}

func decimalOf(v any) (decimal, bool) {
	var s string
	switch x := v.(type) {
	case int:
		s = strconv.Itoa(x)
	case float64:
		s = strconv.FormatFloat(x, 'e', -1, 64)
	case json.Number:
		s = string(x)
	}
	if end, _, ok := scanNumber(s, 0); !ok || end != len(s) {
		return decimal{}, false
	}
	digits, exponent := significant(s)
	return decimal{negative: strings.HasPrefix(s, "-") && digits != "", digits: digits, exponent: exponent}, true
}

func (d decimal) compare(o decimal) int {
	if d.negative != o.negative {
		if d.negative {
			return -1
		}
		return 1
	}
	var c int
	switch {
	case d.digits == "" || o.digits == "":
		c = cmp.Compare(len(d.digits), len(o.digits))
	case d.exponent != o.exponent:
		c = cmp.Compare(d.exponent, o.exponent)
	default:
		c = cmp.Compare(d.digits, o.digits)
	}
	if d.negative {
		return -c
	}
	return c
}

package nodes

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"flowplatform/services/internal/flow"
)

// accumulator computes one field of one group.
type accumulator interface {
	add(v any) error
	result() any
}

// operations of data.aggregate, by name.
var operations = map[string]func() accumulator{
	"count":         func() accumulator { return &counter{} },
	"sum":           func() accumulator { return &sum{} },
	"avg":           func() accumulator { return &sum{mean: true} },
	"min":           func() accumulator { return &extreme{want: -1} },
	"max":           func() accumulator { return &extreme{want: 1} },
	"first":         func() accumulator { return &edge{} },
	"last":          func() accumulator { return &edge{last: true} },
	"list":          func() accumulator { return &gather{all: []any{}} },
	"distinct":      func() accumulator { return &distinct{} },
	"countDistinct": func() accumulator { return &distinct{count: true} },
}

type counter struct{ n int }

func (a *counter) add(v any) error {
	if v != nil {
		a.n++
	}
	return nil
}

func (a *counter) result() any { return a.n }

// sum is exact: in 64 bits as long as that holds, in fractions then.
type sum struct {
	mean  bool
	n     int
	small int64
	large *big.Rat // nil: nothing but small
}

func (a *sum) add(v any) error {
	if v == nil {
		return nil
	}
	a.n++
	if i, ok := v.(int); ok {
		total := a.small + int64(i)
		if (total > a.small) == (i > 0) {
			a.small = total
			return nil
		}
		if i == 0 {
			return nil
		}
	}
	r, err := fraction(v)
	if err != nil {
		return err
	}
	if a.large == nil {
		a.large = new(big.Rat)
	}
	a.large.Add(a.large, r)
	return nil
}

func (a *sum) result() any {
	total := new(big.Rat).SetInt64(a.small)
	if a.large != nil {
		total.Add(total, a.large)
	}
	if !a.mean {
		return decimal(total)
	}
	if a.n == 0 {
		return nil
	}
	total.Quo(total, new(big.Rat).SetInt64(int64(a.n)))
	if digits, exact := total.FloatPrec(); exact && digits <= meanDigits {
		return decimal(total)
	}
	f, _ := total.Float64()
	return f
}

const (
	meanDigits  = 15   // an average with more of them after the point is rounded
	maxExponent = 1000 // numbers beyond 10^±1000 would make fractions of any size
	maxDigits   = 2000
)

// fraction gives a number exactly, a float64 as the decimal that it shows.
func fraction(v any) (*big.Rat, error) {
	var s string
	switch n := v.(type) {
	case int:
		return new(big.Rat).SetInt64(int64(n)), nil
	case float64:
		s = strconv.FormatFloat(n, 'e', -1, 64)
	case json.Number:
		s = string(n)
	default:
		return nil, fmt.Errorf("%s is no number; in an expression, int() and float() read one from a text", shown(v))
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if e, err := strconv.Atoi(s[i+1:]); err != nil || e > maxExponent || e < -maxExponent {
			return nil, fmt.Errorf("%s is too far from 1 to be added exactly: the exponent may be within ±%d", shown(v), maxExponent)
		}
	}
	r, ok := new(big.Rat), len(s) <= maxDigits
	if ok {
		r, ok = r.SetString(s)
	}
	if !ok {
		return nil, errors.New("it is no number that can be added: it has too many digits")
	}
	return r, nil
}

// decimal gives a fraction whose decimal ends as the value that DecodeValue would make of it.
func decimal(r *big.Rat) any {
	digits, exact := r.FloatPrec()
	if !exact { // no sum of decimals gets here
		f, _ := r.Float64()
		return f
	}
	v, err := flow.DecodeValue([]byte(r.FloatString(digits)))
	if err != nil {
		return nil // a decimal is JSON
	}
	return v
}

// extreme keeps the least or the greatest.
type extreme struct {
	want int
	best any
}

func (a *extreme) add(v any) error {
	if v == nil {
		return nil
	}
	if a.best == nil {
		if _, isText := v.(string); !isText {
			if _, isNumber := flow.CompareNumbers(v, v); !isNumber {
				return fmt.Errorf("%s is neither a number nor a text", shown(v))
			}
		}
		a.best = v
		return nil
	}
	c, ok := flow.CompareNumbers(v, a.best)
	if !ok {
		x, isText := v.(string)
		y, bothTexts := a.best.(string)
		if !isText || !bothTexts {
			return fmt.Errorf("%s can't be compared with %s", shown(v), shown(a.best))
		}
		c = strings.Compare(x, y)
	}
	if c == a.want {
		a.best = v
	}
	return nil
}

func (a *extreme) result() any { return a.best }

// edge keeps the first or the last.
type edge struct {
	last, has bool
	v         any
}

func (a *edge) add(v any) error {
	if a.last || !a.has {
		a.v, a.has = v, true
	}
	return nil
}

func (a *edge) result() any { return a.v }

type gather struct{ all []any }

func (a *gather) add(v any) error { a.all = append(a.all, v); return nil }
func (a *gather) result() any     { return a.all }

// distinct keeps one of each value, in the order in which they first appear.
type distinct struct {
	count bool
	seen  map[string]bool
	all   []any
}

func (a *distinct) add(v any) error {
	if v == nil {
		return nil
	}
	key, err := sameness(v)
	if err != nil {
		return err
	}
	if a.seen == nil {
		a.seen = map[string]bool{}
	}
	if !a.seen[key] {
		a.seen[key] = true
		a.all = append(a.all, v)
	}
	return nil
}

func (a *distinct) result() any {
	if a.count {
		return len(a.all)
	}
	if a.all == nil {
		return []any{}
	}
	return a.all
}

// identity tells groups apart.
func identity(columns []column, values map[string]any) (string, error) {
	var b strings.Builder
	for _, c := range columns {
		key, err := sameness(values[c.name])
		if err != nil {
			return "", err
		}
		b.WriteString(key)
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// sameness is equal for values that are: 1 and 1.0 are one number. Text in it has no line breaks.
func sameness(v any) (string, error) {
	switch x := v.(type) {
	case float64, json.Number:
		if r, err := fraction(x); err == nil {
			v = decimal(r)
		}
	}
	b, err := flow.EncodeValue(v)
	return string(b), err
}

func shown(v any) string {
	b, err := flow.EncodeValue(v)
	if err != nil || len(b) > 60 {
		return fmt.Sprintf("a %T", v)
	}
	return string(b)
}

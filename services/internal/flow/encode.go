package flow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// EncodeValue writes a value as JSON: compact, keys in byte order, nothing escaped that needn't be, so that equal values have equal bytes. It is
// the inverse of DecodeValue: a float64 always keeps a point or an exponent. Go values beyond those of DecodeValue are
// written as encoding/json would. NaN, infinities and nesting beyond MaxDepth are errors.
func EncodeValue(v any) ([]byte, error) { return AppendValue(nil, v) }

// AppendValue appends what EncodeValue gives to dst.
func AppendValue(dst []byte, v any) ([]byte, error) { return appendValue(dst, v, 0) }

func appendValue(dst []byte, v any, depth int) ([]byte, error) {
	switch x := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case string:
		return appendString(dst, x), nil
	case int:
		return strconv.AppendInt(dst, int64(x), 10), nil
	case bool:
		return strconv.AppendBool(dst, x), nil
	case float64:
		return appendFloat(dst, x)
	case map[string]any:
		return appendObject(dst, x, depth+1)
	case []any:
		return appendList(dst, x, depth+1)
	case json.Number:
		end, _, ok := scanNumber(string(x), 0)
		if !ok || end != len(x) {
			return nil, fmt.Errorf("%q is no number", string(x))
		}
		return append(dst, x...), nil
	}
	clean, err := convert(v, depth)
	if err != nil {
		return nil, err
	}
	return appendValue(dst, clean, depth)
}

func appendFloat(dst []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%v can't be written as JSON", f)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if n := len(dst); format == 'e' {
		if dst[n-2] == '0' && n >= 4 && dst[n-4] == 'e' { // 1e-07 is written 1e-7, as encoding/json does
			dst = append(dst[:n-2], dst[n-1])
		}
		return dst, nil
	}
	if bytes.IndexByte(dst[start:], '.') < 0 {
		dst = append(dst, ".0"...)
	}
	return dst, nil
}

func appendList(dst []byte, list []any, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, errTooDeep()
	}
	var err error
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendValue(dst, v, depth); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendObject(dst []byte, m map[string]any, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, errTooDeep()
	}
	var room [16]string
	keys := room[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var err error
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, k), ':')
		if dst, err = appendValue(dst, m[k], depth); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func errTooDeep() error {
	return fmt.Errorf("the value is nested deeper than %d (or contains itself)", MaxDepth)
}

const hexDigits = "0123456789abcdef"

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				i++
				start = i
				continue
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// Canonical gives the value that v would be after EncodeValue and DecodeValue. A value that already is one is given back as it is, without a copy.
func Canonical(v any) (any, error) { return CanonicalWithin(v, math.MaxInt) }

// ErrTooLarge says that a value is larger than it may be.
var ErrTooLarge = errors.New("the value is too large")

// CanonicalWithin is Canonical for a value whose JSON has about limit bytes at most; else it is ErrTooLarge. Values share parts, so a small one in memory may be huge when written.
func CanonicalWithin(v any, limit int) (any, error) {
	c := canonizer{left: limit}
	out, err := c.value(v, 0)
	if errors.Is(err, ErrTooLarge) {
		return nil, fmt.Errorf("%w: the most is %d bytes", err, limit)
	}
	return out, err
}

type canonizer struct{ left int }

func (c *canonizer) spend(n int) error {
	if c.left -= n; c.left < 0 {
		return ErrTooLarge
	}
	return nil
}

func (c *canonizer) value(v any, depth int) (any, error) {
	switch x := v.(type) {
	case nil, bool, int:
		return v, c.spend(4)
	case string:
		if utf8.ValidString(x) {
			return v, c.spend(len(x) + 2)
		}
		return cleanString(x), c.spend(len(x) + 2)
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("%v can't be written as JSON", x)
		}
		return v, c.spend(4)
	case map[string]any:
		return c.object(x, depth+1)
	case []any:
		return c.list(x, v, depth+1)
	case json.Number:
		end, integer, ok := scanNumber(string(x), 0)
		if !ok || end != len(x) {
			return nil, fmt.Errorf("%q is no number", string(x))
		}
		return numberOf(string(x), integer), c.spend(len(x))
	}
	out, err := convert(v, depth)
	if err != nil {
		return nil, err
	}
	return c.value(out, depth)
}

func (c *canonizer) object(m map[string]any, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, errTooDeep()
	}
	if m == nil {
		return map[string]any{}, nil
	}
	var changed map[string]any
	clean := true
	for k, v := range m {
		if err := c.spend(len(k) + 4); err != nil {
			return nil, err
		}
		clean = clean && utf8.ValidString(k)
		got, err := c.value(v, depth)
		if err != nil {
			return nil, err
		}
		if !same(got, v) {
			if changed == nil {
				changed = map[string]any{}
			}
			changed[k] = got
		}
	}
	if changed == nil && clean {
		return m, nil
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		if got, ok := changed[k]; ok {
			v = got
		}
		out[cleanString(k)] = v
	}
	return out, nil
}

// list takes the list and itself as any: to box it again would cost an allocation.
func (c *canonizer) list(list []any, self any, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, errTooDeep()
	}
	if list == nil {
		return []any{}, nil
	}
	out, copied := list, false
	for i, v := range list {
		if err := c.spend(1); err != nil {
			return nil, err
		}
		got, err := c.value(v, depth)
		if err != nil {
			return nil, err
		}
		if !copied && !same(got, v) {
			out, copied = slices.Clone(list), true
		}
		if copied {
			out[i] = got
		}
	}
	if !copied {
		return self, nil
	}
	return out, nil
}

// same tells whether canonizer.value gave back what it got.
func same(c, v any) bool {
	switch x := v.(type) {
	case nil, bool, int, float64:
		return true
	case string:
		s, ok := c.(string)
		return ok && len(s) == len(x)
	case json.Number:
		n, ok := c.(json.Number)
		return ok && n == x
	case map[string]any:
		m, ok := c.(map[string]any)
		return ok && sameMap(m, x)
	case []any:
		l, ok := c.([]any)
		return ok && x != nil && len(l) == len(x) && (len(l) == 0 || &l[0] == &x[0])
	}
	return false
}

// convert makes a value of what has another Go type.
func convert(v any, depth int) (any, error) {
	switch x := v.(type) {
	case int64:
		return int(x), nil
	case int32:
		return int(x), nil
	case uint64:
		return numberOf(strconv.FormatUint(x, 10), true), nil
	case float32:
		return numberOf(strconv.FormatFloat(float64(x), 'e', -1, 32), false), nil
	case time.Time:
		return x.Format(time.RFC3339Nano), nil
	case time.Duration:
		return Duration(x).String(), nil
	case []string:
		out := make([]any, len(x))
		for i, s := range x {
			out[i] = cleanString(s)
		}
		return out, nil
	case []map[string]any:
		out := make([]any, len(x))
		for i, m := range x {
			out[i] = m
		}
		return out, nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("a %T can't be written as JSON: %w", v, err)
	}
	d := decoder{src: string(raw), depth: depth}
	return d.document()
}

// kindOf names what a value is, for people.
func kindOf(v any) string {
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
	}
	return fmt.Sprintf("a %T", v)
}

func sameMap(a, b map[string]any) bool {
	return b != nil && reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

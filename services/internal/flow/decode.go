package flow

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep lists and objects of a value may be nested.
const MaxDepth = 500

// MaxValueBytes is about how large a step's config or output may be as JSON.
const MaxValueBytes = 16 << 20

// DecodeValue reads one JSON value exactly: integers that fit 64 bits become int, decimals that a float64 shows as they were written become float64, and every other
// number stays a json.Number. Of a key that comes twice the last wins. Invalid UTF-8 and lone surrogates become U+FFFD. Deeper than MaxDepth is an error.
//
// The strings of the value share one copy of data.
func DecodeValue(data []byte) (any, error) {
	d := decoder{src: string(data)}
	return d.document()
}

// decoder reads JSON by hand: encoding/json with UseNumber costs three times as much, and this is where the worker spends its time.
type decoder struct {
	src    string
	pos    int
	depth  int
	strict *strictness
}

// strictness is what reading a flow document asks for beyond reading a value.
type strictness struct {
	path       []string
	duplicates []Problem
	raw        map[string]string
}

func (d *decoder) document() (any, error) {
	v, err := d.value()
	if err != nil {
		return nil, err
	}
	d.space()
	if d.pos < len(d.src) {
		return nil, d.fail("more text after the value")
	}
	return v, nil
}

func (d *decoder) fail(what string) error {
	if d.pos >= len(d.src) {
		return fmt.Errorf("JSON ends too early: %s", what)
	}
	line := 1 + strings.Count(d.src[:d.pos], "\n")
	column := d.pos - strings.LastIndexByte(d.src[:d.pos], '\n')
	return fmt.Errorf("line %d, column %d of the JSON: %s", line, column, what)
}

func (d *decoder) space() {
	for d.pos < len(d.src) {
		switch d.src[d.pos] {
		case ' ', '\n', '\t', '\r':
			d.pos++
		default:
			return
		}
	}
}

func (d *decoder) value() (any, error) {
	d.space()
	if d.pos >= len(d.src) {
		return nil, d.fail("a value is missing")
	}
	switch c := d.src[d.pos]; c {
	case '"':
		return d.text()
	case '{':
		return d.object()
	case '[':
		return d.list()
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return d.number()
		}
		return nil, d.fail(fmt.Sprintf("%q can't begin a value", rune(c)))
	}
}

func (d *decoder) word(w string) error {
	if !strings.HasPrefix(d.src[d.pos:], w) {
		return d.fail("unknown word; only true, false and null have no quotes")
	}
	d.pos += len(w)
	return nil
}

func (d *decoder) enter() error {
	d.pos++
	d.depth++
	if d.depth > MaxDepth {
		return d.fail(fmt.Sprintf("nested deeper than %d", MaxDepth))
	}
	return nil
}

func (d *decoder) list() (any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	out := []any{}
	d.space()
	if d.pos < len(d.src) && d.src[d.pos] == ']' {
		d.pos++
		d.depth--
		return out, nil
	}
	for {
		if d.strict != nil {
			d.strict.path = append(d.strict.path, strconv.Itoa(len(out)))
		}
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		if d.strict != nil {
			d.strict.path = d.strict.path[:len(d.strict.path)-1]
		}
		if out = append(out, v); len(out) == 1 {
			out = append(make([]any, 0, 4), v)
		}
		d.space()
		switch c := d.next(); c {
		case ',':
		case ']':
			d.depth--
			return out, nil
		default:
			d.back(c)
			return nil, d.fail("a list goes on with , or ends with ]")
		}
	}
}

// next gives the next byte, 0 at the end.
func (d *decoder) next() byte {
	if d.pos >= len(d.src) {
		return 0
	}
	d.pos++
	return d.src[d.pos-1]
}

func (d *decoder) back(c byte) {
	if c != 0 {
		d.pos--
	}
}

func (d *decoder) object() (any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	out := map[string]any{}
	d.space()
	if d.pos < len(d.src) && d.src[d.pos] == '}' {
		d.pos++
		d.depth--
		return out, nil
	}
	for {
		d.space()
		if d.pos >= len(d.src) || d.src[d.pos] != '"' {
			return nil, d.fail("a key in quotes is missing")
		}
		key, err := d.string()
		if err != nil {
			return nil, err
		}
		d.space()
		if c := d.next(); c != ':' {
			d.back(c)
			return nil, d.fail("a : is missing after the key")
		}
		if d.strict != nil {
			d.member(out, key)
		}
		d.space()
		start := d.pos
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		if d.strict != nil {
			d.strict.path = d.strict.path[:len(d.strict.path)-1]
			if d.depth == 1 {
				d.strict.raw[key] = d.src[start:d.pos]
			}
		}
		out[key] = v
		d.space()
		switch c := d.next(); c {
		case ',':
		case '}':
			d.depth--
			return out, nil
		default:
			d.back(c)
			return nil, d.fail("an object goes on with , or ends with }")
		}
	}
}

func (d *decoder) member(seen map[string]any, key string) {
	d.strict.path = append(d.strict.path, key)
	if _, twice := seen[key]; twice {
		d.strict.duplicates = append(d.strict.duplicates, Problem{Pointer: pointer(d.strict.path...), Code: "duplicate-key",
			Message: fmt.Sprintf("the key %s comes twice; readers of JSON would silently take the last one", describe(key))})
	}
}

func (d *decoder) text() (any, error) {
	s, err := d.string()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// string reads a string that begins here.
func (d *decoder) string() (string, error) {
	start := d.pos + 1
	ascii := true
	for i := start; i < len(d.src); i++ {
		switch c := d.src[i]; {
		case c == '"':
			d.pos = i + 1
			s := d.src[start:i]
			if !ascii {
				s = cleanString(s)
			}
			return s, nil
		case c == '\\':
			return d.escaped(start, i)
		case c < ' ':
			d.pos = i
			return "", d.fail("a control character stands in a string; write it as an escape")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	d.pos = len(d.src)
	return "", d.fail("the string has no closing quote")
}

// escaped goes on with a string whose first escape is at i.
func (d *decoder) escaped(start, i int) (string, error) {
	out := make([]byte, 0, len(d.src[start:i])+32)
	out = append(out, d.src[start:i]...)
	for i < len(d.src) {
		c := d.src[i]
		switch {
		case c == '"':
			d.pos = i + 1
			return cleanString(string(out)), nil
		case c < ' ':
			d.pos = i
			return "", d.fail("a control character stands in a string; write it as an escape")
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		if i+1 >= len(d.src) {
			break
		}
		i++
		switch d.src[i] {
		case '"', '\\', '/':
			out = append(out, d.src[i])
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := d.hex(i + 1)
			if !ok {
				d.pos = i
				return "", d.fail(`\u needs four hexadecimal digits`)
			}
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if i+2 < len(d.src) && d.src[i+1] == '\\' && d.src[i+2] == 'u' {
					if low, ok := d.hex(i + 3); ok {
						pair = utf16.DecodeRune(r, low)
					}
				}
				if pair != utf8.RuneError {
					i += 6
				}
				r = pair
			}
			out = utf8.AppendRune(out, r)
		default:
			d.pos = i
			return "", d.fail(fmt.Sprintf(`\%c is no escape`, d.src[i]))
		}
		i++
	}
	d.pos = len(d.src)
	return "", d.fail("the string has no closing quote")
}

func (d *decoder) hex(at int) (rune, bool) {
	if at+4 > len(d.src) {
		return 0, false
	}
	var r rune
	for _, c := range []byte(d.src[at : at+4]) {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// cleanString replaces each byte that is no UTF-8 with U+FFFD.
func cleanString(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	out := make([]byte, 0, len(s)+8)
	for _, r := range s {
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

func (d *decoder) number() (any, error) {
	start := d.pos
	end, integer, ok := scanNumber(d.src, start)
	if !ok {
		d.pos = end
		return nil, d.fail("this is no JSON number")
	}
	d.pos = end
	return numberOf(d.src[start:end], integer), nil
}

// scanNumber gives the end of the JSON number that begins at i, and whether it is written without fraction and exponent.
func scanNumber(s string, i int) (end int, integer, ok bool) {
	if i < len(s) && s[i] == '-' {
		i++
	}
	first := i
	if i = digits(s, i); i == first || s[first] == '0' && i > first+1 {
		return i, false, false
	}
	integer = true
	if i < len(s) && s[i] == '.' {
		integer = false
		from := i + 1
		if i = digits(s, from); i == from {
			return i, false, false
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		integer = false
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		from := i
		if i = digits(s, from); i == from {
			return i, false, false
		}
	}
	return i, integer, true
}

func digits(s string, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}

// numberOf gives the value of a number that scanNumber accepted.
func numberOf(s string, integer bool) any {
	if integer {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return int(n)
		}
		return json.Number(s)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !shownBy(s, f) {
		return json.Number(s)
	}
	return f
}

// shownBy tells whether f, printed in the shortest way that reads back as f, is the number that s writes.
func shownBy(s string, f float64) bool {
	digits, exponent := significant(s)
	if len(digits) <= 15 && exponent > -290 && exponent < 290 {
		return true // 15 digits always survive
	}
	var buf [32]byte
	shown, shownExponent := significant(string(strconv.AppendFloat(buf[:0], f, 'e', -1, 64)))
	return digits == shown && exponent == shownExponent
}

// significant gives a number's digits without leading and trailing zeros, and the exponent that makes its value 0.digits × 10^exponent. Zero has no digits.
func significant(s string) (string, int) {
	s = strings.TrimPrefix(s, "-")
	exponent := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		n, err := strconv.Atoi(strings.TrimPrefix(s[i+1:], "+"))
		if err != nil {
			n = 1 << 40
			if s[i+1] == '-' {
				n = -n
			}
		}
		exponent, s = n, s[:i]
	}
	point := len(s)
	if i := strings.IndexByte(s, '.'); i >= 0 {
		point = i
		if strings.Trim(s[:i], "0") == "" { // 0.00123, the usual case, without a copy
			s = s[i+1:]
			point = 0
		} else {
			s = s[:i] + s[i+1:]
		}
	}
	trimmed := strings.TrimLeft(s, "0")
	point -= len(s) - len(trimmed)
	trimmed = strings.TrimRight(trimmed, "0")
	if trimmed == "" {
		return "", 0
	}
	return trimmed, point + exponent
}

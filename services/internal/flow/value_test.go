package flow_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

func decode(t testing.TB, s string) any {
	t.Helper()
	v, err := flow.DecodeValue([]byte(s))
	if err != nil {
		t.Fatalf("decode %.200s: %v", s, err)
	}
	return v
}

func encode(t testing.TB, v any) string {
	t.Helper()
	b, err := flow.EncodeValue(v)
	if err != nil {
		t.Fatalf("encode %v: %v", v, err)
	}
	return string(b)
}

func TestDecodeValue(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]any{
		`null`: nil, ` true `: true, `false`: false, `""`: "", `"a"`: "a", `[]`: []any{}, `{}`: map[string]any{},
		`0`: 0, `-0`: 0, `7`: 7, `9007199254740993`: 9007199254740993, `9223372036854775807`: math.MaxInt, `-9223372036854775808`: math.MinInt,
		`9223372036854775808`: json.Number("9223372036854775808"), `10000000000000000000`: json.Number("10000000000000000000"),
		`1.5`: 1.5, `1.0`: 1.0, `1e2`: 100.0, `0.1`: 0.1, `0.10`: 0.1, `-0.25E-3`: -0.00025, `123456789012345.6`: 123456789012345.6,
		`0.1000000000000000055`: json.Number("0.1000000000000000055"), `9007199254740993.0`: json.Number("9007199254740993.0"), `9007199254740992.0`: 9007199254740992.0,
		`1e400`: json.Number("1e400"), `1e-400`: json.Number("1e-400"), `1e400000`: json.Number("1e400000"), `1e99999999999999999999`: json.Number("1e99999999999999999999"),
		`5e-324`: 5e-324, `4.9e-324`: json.Number("4.9e-324"), `1.7976931348623157e308`: math.MaxFloat64, `0e999`: 0.0, `0.000`: 0.0,
		`"\u0000"`: "\x00", `"\ud800"`: "\ufffd", `"\ud83d\ude00"`: "😀", `"\ud83dx"`: "\ufffdx", `"\ud800\u0041"`: "\ufffdA", `"\udc00"`: "\ufffd", `"\ud800\ud83d\ude00"`: "\ufffd😀",
		"\"a\xffb\"": "a\ufffdb", "\"\xed\xa0\x80\"": "\ufffd\ufffd\ufffd", `"\"\\\/\b\f\n\r\t\u00e9"`: "\"\\/\b\f\n\r\té",
		`[1,[2,{"a":null}]]`: []any{1, []any{2, map[string]any{"a": nil}}}, `{"a":1,"a":2}`: map[string]any{"a": 2},
	} {
		got, err := flow.DecodeValue([]byte(in))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v (%v), want %#v", in, got, err, want)
		}
	}
	for _, in := range []string{"", " ", "nul", "01", "-", "+1", ".5", "1.", "1e", "1e+", "[1,]", "[1 2]", "[", "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `"`, `"\`, `"\x"`, `"\u12"`, "\"\n\"", "1 2", "NaN", "'a'", `{"a":1`, strings.Repeat("[", 501) + strings.Repeat("]", 501)} {
		if v, err := flow.DecodeValue([]byte(in)); err == nil {
			t.Errorf("%.20q decodes to %v", in, v)
		} else if json.Valid([]byte(in)) && len(in) < 500 {
			t.Errorf("%q is refused: %v", in, err)
		}
	}
	if _, err := flow.DecodeValue([]byte(strings.Repeat("[", 500) + strings.Repeat("]", 500))); err != nil {
		t.Errorf("500 deep: %v", err)
	}
	if _, err := flow.DecodeValue([]byte("{\n  \"a\": x}")); err == nil || !strings.Contains(err.Error(), "line 2, column 8") {
		t.Errorf("the error gives no place: %v", err)
	}
}

func TestEncodeValue(t *testing.T) {
	t.Parallel()
	type odd struct {
		A int `json:"a"`
	}
	for want, in := range map[string]any{
		`{"a":1,"b":[true,null,"x"]}`: map[string]any{"b": []any{true, nil, "x"}, "a": 1},
		`"<a href=\"x\">&\u2028"`:     nil, // replaced below: nothing is escaped for HTML
		`1.0`:                         1.0, `-0.0`: math.Copysign(0, -1), `1e+21`: 1e21, `100000000000000000000.0`: 1e20, `1e-7`: 1e-7, `0.000001`: 1e-6,
		`"a�b"`: "a\xffb", `"\u0000\u001f\n\t\r"`: "\x00\x1f\n\t\r", `123456789012345678901`: json.Number("123456789012345678901"),
		`["a"]`: []string{"a"}, `{"a":5}`: odd{5}, `18446744073709551615`: uint64(math.MaxUint64), `"2026-03-01T00:00:00Z"`: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), `"1m30s"`: 90 * time.Second,
		`3`: int64(3), `0.1`: float32(0.1), `[{"a":1}]`: []map[string]any{{"a": 1}}, `"AQ=="`: []byte{1},
	} {
		if in == nil && strings.Contains(want, "href") {
			in, want = "<a href=\"x\">&\u2028", "\"<a href=\\\"x\\\">&\u2028\""
		}
		if got := encode(t, in); got != want {
			t.Errorf("%#v: got %s, want %s", in, got, want)
		}
	}
	loop := map[string]any{}
	loop["self"] = loop
	for _, in := range []any{math.NaN(), math.Inf(1), json.Number("x"), json.Number(""), json.Number("1x"), loop, []any{loop}, func() {}, map[string]any{"a": math.NaN()}} {
		if b, err := flow.EncodeValue(in); err == nil {
			t.Errorf("%T encodes to %s", in, b)
		}
		if v, err := flow.Canonical(in); err == nil {
			t.Errorf("%T is canonical as %v", in, v)
		}
	}
}

func TestCanonical(t *testing.T) { // counts allocations, so it can't be parallel
	clean := decode(t, `{"a":[1,2.5,"x",null,true,{"b":1234567890123456789}],"c":{},"d":[]}`)
	got, err := flow.Canonical(clean)
	if err != nil || reflect.ValueOf(got).Pointer() != reflect.ValueOf(clean).Pointer() {
		t.Errorf("a canonical value was copied (%v)", err)
	}
	if n := testing.AllocsPerRun(10, func() { _, _ = flow.Canonical(clean) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	in := map[string]any{"keep": clean, "list": []any{1, int64(2), []string{"\xff"}}, "n": json.Number("5"), "nil": []any(nil), "bad\xff": map[string]any(nil)}
	before := fmt.Sprintf("%#v", in["list"])
	got, err = flow.Canonical(in)
	if err != nil || !reflect.DeepEqual(got, decode(t, encode(t, in))) {
		t.Errorf("got %#v (%v), want %#v", got, err, decode(t, encode(t, in)))
	}
	if fmt.Sprintf("%#v", in["list"]) != before {
		t.Error("the value itself was changed")
	}
	var bomb any = "0123456789"
	for range 60 {
		bomb = []any{bomb, bomb}
	}
	if _, err := flow.CanonicalWithin(bomb, 1<<20); !errors.Is(err, flow.ErrTooLarge) {
		t.Errorf("a value that would have 2^60 parts: %v", err)
	}
}

func TestCompareNumbers(t *testing.T) {
	t.Parallel()
	sorted := []string{"-1e400", "-9223372036854775809", "-9223372036854775808", "-1.5", "-1", "-1e-400", "0", "1e-400", "0.1", "0.1000000000000000055", "1", "9007199254740992", "9007199254740992.5", "9007199254740993", "9223372036854775807", "9223372036854775808", "12345678901234567890", "1e20", "1e400"}
	for i, a := range sorted {
		for j, b := range sorted {
			got, ok := flow.CompareNumbers(decode(t, a), decode(t, b))
			if want := map[bool]int{true: 1, false: 0}[i > j] - map[bool]int{true: 1, false: 0}[i < j]; !ok || got != want {
				t.Errorf("%s ? %s: %d, want %d", a, b, got, want)
			}
		}
	}
	for _, pair := range [][2]string{{"1", "1.0"}, {"100", "1e2"}, {"0", "-0.0"}, {"9223372036854775808", "9223372036854775808.0"}} {
		if c, ok := flow.CompareNumbers(decode(t, pair[0]), decode(t, pair[1])); !ok || c != 0 {
			t.Errorf("%v differ", pair)
		}
	}
	if _, ok := flow.CompareNumbers(1, "1"); ok {
		t.Error("a string is compared as a number")
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`"1m30s"`: `"1m30s"`, `1500`: `"1.5s"`, `"10m"`: `"10m"`, `"2h"`: `"2h"`, `"1h30m"`: `"1h30m"`, `0`: `"0s"`, `0.5`: `"500µs"`, `"1h0m5s"`: `"1h0m5s"`} {
		var d flow.Duration
		if err := json.Unmarshal([]byte(in), &d); err != nil {
			t.Errorf("%s: %v", in, err)
		}
		out, err := json.Marshal(d)
		if err != nil || string(out) != want {
			t.Errorf("%s: got %s, want %s", in, out, want)
		}
	}
	for _, in := range []string{`"soon"`, `true`, `1e300`, `9223372036854775807`, `99999999999999999999`} {
		var d flow.Duration
		if err := json.Unmarshal([]byte(in), &d); err == nil {
			t.Errorf("%s is %s", in, d)
		}
	}
}

// What was read and written once stays as it is: bytes, value and meaning.
func FuzzDecodeValue(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.50,"x\u00e9\ud800",null,true],"b":{}}`, `1e400`, `0.1000000000000000055`, `"\ud83d\ude00"`, `-0.0`, "\"\xff\"", `123456789012345678901234567890`, `[[[]]]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := flow.DecodeValue(data)
		if err != nil {
			if json.Valid(data) && !strings.Contains(err.Error(), "deeper") {
				t.Fatalf("valid JSON is refused: %v", err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatalf("invalid JSON is taken as %v", v)
		}
		one := encode(t, v)
		again := decode(t, one)
		if !reflect.DeepEqual(v, again) && !strings.Contains(one, "-0") {
			t.Fatalf("%#v became %#v", v, again)
		}
		if two := encode(t, again); one != two {
			t.Fatalf("%s became %s", one, two)
		}
		if c, err := flow.Canonical(v); err != nil || encode(t, c) != one {
			t.Fatalf("not canonical: %v", err)
		}
	})
}

func sample() []byte {
	var b bytes.Buffer
	b.WriteString(`{"orderId": 9007199254740993, "total": 150.25, "customer": {"name": "Ada Lovelace", "email": "ada@example.org", "vip": true, "tags": ["a", "b", "c"]}, "items": [`)
	for i := range 10 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"sku": "SKU-%d", "price": %d.5, "quantity": %d, "note": null}`, i, i*3, i)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func BenchmarkDecodeValue(b *testing.B) {
	data := sample()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := flow.DecodeValue(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeValueStandardLibrary(b *testing.B) {
	data := sample()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeValue(b *testing.B) {
	v := decode(b, string(sample()))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = flow.AppendValue(buf[:0], v); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkEncodeValueStandardLibrary(b *testing.B) {
	v := decode(b, string(sample()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(v); err != nil {
			b.Fatal(err)
		}
	}
}

package nodes

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/node"
)

// run does one try under a timeout and tells how it ended: the output as JSON, or "code: message".
func run(t testing.TB, typ, config, input string, timeout time.Duration) string {
	t.Helper()
	x, c := prepared(t, typ, config, input)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	r, err := x.Execute(ctx, c)
	var ne *node.Error
	switch {
	case errors.As(err, &ne):
		return ne.Code + ": " + ne.Message
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case err != nil:
		return "error: " + err.Error()
	}
	return encode(t, r.Output)
}

func query(t testing.TB, q string) string {
	return `{"query": ` + encode(t, q) + `, "input": "{{ input }}"}`
}

func TestTransform(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ query, input, want string }{
		{`.a + 1`, `{"a": 9007199254740993}`, `9007199254740994`},
		{`. + 1`, `9223372036854775807`, `9223372036854775808`},
		{`.`, `[123456789012345678901234567890, 1.50, 0.12345678901234567890123]`, `[123456789012345678901234567890,1.5,0.12345678901234567890123]`},
		{`[.[] * 2]`, `[9223372036854775807, 0.5, "ab"]`, `[18446744073709551614,1,"abab"]`},
		{`. * {"b": {"c": 2}}`, `{"b": {"d": 1}}`, `{"b":{"c":2,"d":1}}`},
		{`.a *= 3 | .b *= 2`, `{"a": 2, "b": "x"}`, `{"a":6,"b":"xx"}`},
		{`def f(x): x * x; [f(.[0], .[1])]`, `[2, 3]`, `[4,6,6,9]`},
		{`[.[] | select(. > 1)] | length`, `[1, 2, 3]`, `2`},
		{`now`, `null`, `1861920000`},
		{`[env, $ENV]`, `null`, `[{},{}]`},
		{`"\(.a)-\(.b | @base64)" | ascii_downcase`, `{"a": [1], "b": "X"}`, `"[1]-wa=="`},
		{`@json "v: \(.)"`, `{"a": 1}`, `"v: {\"a\":1}"`},
		{`localtime | mktime`, `86400`, `86400`},
		{`group_by(.k) | map({k: .[0].k, n: length})`, `[{"k": 2}, {"k": 1}, {"k": 2}]`, `[{"k":1,"n":1},{"k":2,"n":2}]`},
		{`empty`, `1`, `jq-results: the query gave no result: write … // null if that may happen`},
		{`., .`, `1`, `jq-results: the query gave more than one result: gather them with [ … ], or take one with first(…)`},
		{`repeat(1)`, `1`, `jq-results: the query gave more than one result: gather them with [ … ], or take one with first(…)`},
		{`error("no")`, `1`, `jq: jq: error: no`},
		{`.a`, `[1]`, `jq: jq: expected an object but got: array ([1])`},
		{`nan`, `1`, `jq: the query's result can't be written as JSON: NaN can't be written as JSON`},
		{`"x" * 100000000`, `1`, `jq: jq: a text of 1 bytes can't be repeated 1e+08 times: the most is 16 MiB`},
		{`.a *= 100000000`, `{"a": "x"}`, `jq: jq: a text of 1 bytes can't be repeated 1e+08 times: the most is 16 MiB`},
		{`halt`, `1`, `jq: jq: halt error: null`},
	} {
		if got := run(t, "data.transform", query(t, tc.query), tc.input, time.Minute); got != tc.want {
			t.Errorf("%s of %s:\n got %s\nwant %s", tc.query, tc.input, got, tc.want)
		}
	}
}

func TestTransformIsCheckedAtSave(t *testing.T) {
	t.Parallel()
	for q, want := range map[string]string{
		`.a |`: "unexpected EOF", `import "a" as a; .`: "no modules", `include "a"; .`: "no modules", `nosuch`: "nosuch", `input`: "input", `$x`: "$x",
		`{{ input.a }}`: "can't be read", `debug`: "debug", `input_filename`: "input_filename", `$__prog_args`: "$__prog_args", `"\(1)"`: "",
	} {
		_, problems := compiled(t, "data.transform", query(t, q))
		switch {
		case want == "" && len(problems) > 0:
			t.Errorf("%s: %+v", q, problems)
		case want != "" && (len(problems) != 1 || problems[0].Pointer != "/nodes/1/config/query" || !strings.Contains(problems[0].Message, want)):
			t.Errorf("%s: %+v, want %q", q, problems, want)
		}
	}
}

// TestTransformEnds: what never ends, or takes any memory, ends at the timeout or with an error.
func TestTransformEnds(t *testing.T) { // not parallel: it watches the heap
	const bomb = `reduce range(99) as $i (1; [., .])`
	for q, want := range map[string]string{
		`last(repeat(1))`: "timeout", `def f: f; f`: "timeout", `[limit(1; repeat(1) | select(. > 1))]`: "timeout", `until(false; .)`: "timeout",
		`try last(repeat(1)) catch "caught"`:      "timeout",
		`[repeat(1)]`:                             "memory timeout",
		`last("x" | recurse(. + "yyyyyyyyyyyy"))`: "memory jq timeout",
		`[range(1000000000) | "x" * 100000]`:      "memory",
		`reduce range(99) as $i ("x"; . + .)`:     "jq",
		`reduce range(99) as $i ([1]; . + .)`:     "jq",
		bomb:                                      "value-too-large",
		bomb + ` | tojson`:                        "jq",
		bomb + ` | "\(.)"`:                        "jq",
		bomb + ` | @json`:                         "jq",
		`(` + bomb + `) == (` + bomb + `)`:        "jq",
		`[reduce range(99) as $i (1; {a: ., b: .})] | unique | length`: "jq",
		`reduce range(1000000) as $i (1; [.])`:                         "value-too-large memory timeout",
		`getpath([range(100000) | 0]) |= 1`:                            "jq",
		`setpath([range(100000) | 0]; 1)`:                              "jq",
		`last(limit(5000000; recurse(.[0]))) |= 1`:                     "memory jq timeout",
		`[range(1000000000)] | length`:                                 "memory timeout",
	} {
		began := time.Now()
		got, _, _ := strings.Cut(run(t, "data.transform", query(t, q), `null`, 2*time.Second), ":")
		if !strings.Contains(" "+want+" ", " "+got+" ") {
			t.Errorf("%s: %s, want %s", q, got, want)
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("%s took %s", q, d)
		}
	}
}

func BenchmarkTransform(b *testing.B) {
	x, c := prepared(b, "data.transform", query(b, `[.orders[] | select(.total > 100) | {id, t: (.total * 2)}]`), `{"orders": [{"id": 1, "total": 50}, {"id": 2, "total": 150}]}`)
	for b.Loop() {
		if _, err := x.Execute(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

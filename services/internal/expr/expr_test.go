package expr_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
)

func decode(t testing.TB, s string) any {
	t.Helper()
	v, err := flow.DecodeValue([]byte(s))
	if err != nil {
		t.Fatalf("decode %s: %v", s, err)
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

func scope(t testing.TB) *flow.Scope {
	t.Helper()
	steps := map[string]flow.StepView{
		"fetch":  {Output: decode(t, `{"status": 200, "body": {"total": 150, "items": [{"sku": "a", "price": 2.5, "n": 2}, {"sku": "b", "price": 10, "n": 1}, {"sku": "c", "price": 0.1, "n": 3}]}}`), Port: "main", Status: "succeeded"},
		"gone":   {Status: "skipped"},
		"broken": {Status: "failed", Port: "error", Error: &flow.Failure{Code: "timeout", Message: "too slow", Retryable: true}},
	}
	return &flow.Scope{
		Input: decode(t, `{"orderId": 7, "name": "Ada", "big": 9007199254740993, "max": 9223372036854775807, "huge": 123456789012345678901234567890, "pi": 3.25, "null": null,
			"list": [3, 1, 2], "deep": {"a": {"b": [10, 20]}}, "text": "Grüße", "f": 2.0, "precise": 0.1000000000000000055511151231257827}`),
		Steps:     func(id string) (flow.StepView, bool) { v, ok := steps[id]; return v, ok },
		Execution: flow.ExecutionView{ID: "e1", CreatedAt: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), Trigger: "manual", Labels: map[string]string{"team": "sales"}, Priority: "normal"},
		Flow:      flow.FlowView{ID: "f1", Name: "Orders", Version: 3},
		Now:       time.Date(2026, 3, 1, 10, 0, 5, 0, time.UTC),
		Seed:      42,
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		// paths
		`input.orderId`: `7`, `input["name"]`: `"Ada"`, `input.deep.a.b[1]`: `20`, `input.deep.a.b[-1]`: `20`, `input.null`: `null`,
		`steps.fetch.output.body.total > 100`: `true`, `steps.gone.status`: `"skipped"`, `steps.gone.output`: `null`, `steps.broken.error.code`: `"timeout"`,
		`steps.broken`:        `{"error":{"code":"timeout","data":null,"message":"too slow","node":"","retryable":true},"output":null,"port":"error","status":"failed"}`,
		`steps["fetch"].port`: `"main"`, `execution.id`: `"e1"`, `execution.labels.team`: `"sales"`, `execution.createdAt`: `"2026-03-01T10:00:00Z"`,
		`execution`:    `{"createdAt":"2026-03-01T10:00:00Z","id":"e1","labels":{"team":"sales"},"priority":"normal","trigger":"manual"}`,
		`flow.version`: `3`, `flow`: `{"id":"f1","name":"Orders","version":3}`,
		// missing things that may be missing
		`input?.nope`: `null`, `input.nope ?? 5`: `5`, `input.deep.x.y.z ?? "d"`: `"d"`, `input.null?.a.b.c`: `null`, `input.null ?? 1`: `1`, `input.list[9] ?? 0`: `0`,
		`has(input.nope)`: `false`, `has(input.deep.a.b)`: `true`, `has(input.deep.q.b)`: `false`, `has(input.null)`: `true`, `has(input.null.x)`: `false`, `has(input.list[2])`: `true`,
		`has(input.null?.x)`: `false`, `get(input, "nope")`: `null`, `get(null, "x")`: `null`, `input.list?.[7]`: `null`,
		// exact numbers
		`input.big`: `9007199254740993`, `input.big + 1`: `9007199254740994`, `input.huge`: `123456789012345678901234567890`, `input.max - 1`: `9223372036854775806`,
		`input.big == 9007199254740992.0`: `false`, `input.big > 9007199254740992.0`: `true`, `input.huge > input.max`: `true`, `input.huge == input.huge`: `true`,
		`input.precise > 0.1`: `true`, `input.precise == 0.1`: `false`, `-input.huge`: `-123456789012345678901234567890`, `input.f == 2`: `true`, `input.huge in [1, input.huge]`: `true`,
		`6 / 3`: `2`, `7 / 2`: `3.5`, `div(7, 2)`: `3`, `-7 % 3`: `-1`, `2 ** 10`: `1024`, `2 ** 62`: `4611686018427387904`, `(-2) ** 63`: `-9223372036854775808`, `2 ** -1`: `0.5`, `0.1 + 0.2`: `0.30000000000000004`,
		`input.big * 1 / 1`: `9007199254740993`, `max(input.big, 9007199254740992.0)`: `9007199254740993`, `abs(-3)`: `3`, `round(1.005, 2)`: `1.01`, `round(2.5)`: `3`, `floor(-1.5)`: `-2`, `ceil(1.2)`: `2`,
		`int("9007199254740993")`: `9007199254740993`, `float("1.5")`: `1.5`, `float(input.huge)`: `1.2345678901234568e+29`, `int(3.9)`: `3`,
		`sum([9007199254740993, 1])`: `9007199254740994`, `mean([1, 2])`: `1.5`, `median([5, 1, 3])`: `3`, `median([4, 1, 3, 2])`: `2.5`, `min(input.list)`: `1`,
		// logic
		`1 < 2 and not (2 < 1)`: `true`, `false && input.nope`: `false`, `true || input.nope`: `true`, `1 < 2 < 3`: `true`, `input.orderId > 5 ? "big" : "small"`: `"big"`, `if true { 1 } else { 2 }`: `1`,
		`[1, 2.0] == [1.0, 2]`: `true`, `{a: 1} == {a: 1}`: `true`, `{a: 1} != {b: 1}`: `true`, `1 == "1"`: `false`, `null == nil`: `true`,
		`"a" in {a: 1}`: `true`, `2 in [1, 2]`: `true`, `5 not in [1]`: `true`, `"Grüße" contains "üß"`: `true`, `"abc" startsWith "ab"`: `true`, `"abc" matches "^a.c$"`: `true`, `"abc" matches input.name`: `false`,
		// lists
		`filter(steps.fetch.output.body.items, .price > 1) | map(.sku)`: `["a","b"]`, `sum(steps.fetch.output.body.items, .price * .n)`: `15.3`,
		`sortBy(steps.fetch.output.body.items, .price, "desc") | map(.sku)`: `["b","a","c"]`, `groupBy([1, 2, 3], # % 2 == 0 ? "even" : "odd")`: `{"even":[2],"odd":[1,3]}`,
		`reduce([1, 2, 3], #acc + #, 0)`: `6`, `reduce([1, 2, 3], #acc * #)`: `6`, `map([5, 6], #index)`: `[0,1]`, `map([1, 2], map([10, 20], # + 1))`: `[[11,21],[11,21]]`, `count([1, 5, 9], # > 2)`: `2`,
		`all([], false)`: `true`, `any([1, 2], # == 2)`: `true`, `none([1], # == 2)`: `true`, `one([1, 1], # == 1)`: `false`, `find([1, 2, 3], # > 1)`: `2`, `findLast([1, 2, 3], # > 1)`: `3`, `findIndex([1], # == 9)`: `-1`, `findLastIndex([1, 1], # == 1)`: `1`,
		`sort(input.list)`: `[1,2,3]`, `sort(["b", "a"], "desc")`: `["b","a"]`, `input.list[1:]`: `[1,2]`, `input.list[:-1]`: `[3,1]`, `1..3`: `[1,2,3]`, `3..1`: `[]`, `first([])`: `null`, `last(input.list)`: `2`, `take([1, 2, 3], 2)`: `[1,2]`,
		`reverse([1, 2])`: `[2,1]`, `uniq([1, 1.0, "a", "a", [1], [1]])`: `[1,"a",[1]]`, `concat([1], [2])`: `[1,2]`, `flatten([1, [2, [3]]])`: `[1,2,3]`, `chunk([1, 2, 3], 2)`: `[[1,2],[3]]`,
		`keys({b: 1, a: 2})`: `["a","b"]`, `values({b: 1, a: 2})`: `[2,1]`, `toPairs({a: 1})`: `[["a",1]]`, `fromPairs([["a", 1]])`: `{"a":1}`, `merge({a: 1, b: 1}, {b: 2})`: `{"a":1,"b":2}`, `pick({a: 1, b: 2}, "a", "z")`: `{"a":1}`, `omit({a: 1, b: 2}, ["a"])`: `{"b":2}`,
		`len("Grüße")`: `5`, `len([1])`: `1`, `let x = 2; let y = x * 3; x + y`: `8`, `{"a b": 1, c: [2]}`: `{"a b":1,"c":[2]}`, `{(input.name): 1}`: `{"Ada":1}`,
		// strings
		`upper(input.name) + "!"`: `"ADA!"`, `input.text[2]`: `"ü"`, `input.text[1:3]`: `"rü"`, `split("a,b", ",")`: `["a","b"]`, `join([1, "b", true], "-")`: `"1-b-true"`, `replace("aXa", "a", "b")`: `"bXb"`, `repeat("ab", 2)`: `"abab"`,
		`trim("  a ")`: `"a"`, `trimPrefix("v1", "v")`: `"1"`, `indexOf("üa", "a")`: `1`, `padStart(7, 3, "0")`: `"007"`, `regexFind("ab-12", "([a-z]+)-(\\d+)")`: `["ab-12","ab","12"]`, `regexReplace("a  b", "\\s+", "_")`: `"a_b"`,
		`string(null)`: `""`, `string([1])`: `"[1]"`, `string(2.0)`: `"2.0"`, `type(1)`: `"int"`, `type(input.huge)`: `"number"`,
		// times
		`now()`: `"2026-03-01T10:00:05Z"`, `now() + duration("1h")`: `"2026-03-01T11:00:05Z"`, `now() - execution.createdAt`: `"5s"`, `(now() - execution.createdAt).seconds`: `5.0`, `date("2026-02-28").weekday`: `6`,
		`now() > date("2026-01-01")`: `true`, `formatTime(now(), "02.01.2006 15:04", "Europe/Berlin")`: `"01.03.2026 11:00"`, `inZone(now(), "America/New_York").hour`: `5`, `fromUnix(0)`: `"1970-01-01T00:00:00Z"`, `[now()]`: `["2026-03-01T10:00:05Z"]`,
		`addMonths(date("2026-01-31"), 1)`: `"2026-02-28T00:00:00Z"`, `duration("90m")`: `"1h30m"`, `toJSON({t: now()})`: `"{\"t\":\"2026-03-01T10:00:05Z\"}"`, `string(now())`: `"2026-03-01T10:00:05Z"`, `duration("1m") * 2 == duration(120000)`: `true`,
		// codecs
		`toJSON({b: input.big, a: "<"})`: `"{\"a\":\"<\",\"b\":9007199254740993}"`, `fromJSON("{\"x\": 9007199254740993}").x`: `9007199254740993`, `fromBase64(toBase64("hä"))`: `"hä"`, `urlEncode("a b/c")`: `"a%20b%2Fc"`, `urlDecode("a%20b")`: `"a b"`,
		`sha256("")`: `"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`, `md5("a")`: `"0cc175b9c0f1b6a831c399e269772661"`, `hmacSha256("key", "The quick brown fox jumps over the lazy dog")`: `"f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"`,
	} {
		e, err := expr.New().Compile(source)
		if err != nil {
			t.Errorf("%s: compile: %v", source, err)
			continue
		}
		v, err := e.Eval(scope(t))
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got := encode(t, v); got != want {
			t.Errorf("%s = %s, want %s", source, got, want)
		}
		if clean, err := flow.Canonical(v); err != nil || encode(t, clean) != want || fmt.Sprintf("%T", clean) != fmt.Sprintf("%T", v) {
			t.Errorf("%s: the result %T is not canonical (%v)", source, v, err)
		}
	}
}

func TestEvalErrors(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		`input.ordreId`:           `there is no key "ordreId" in input (it has: big, deep, f, huge, list, max, name, null, orderId, pi, precise, text); did you mean "orderId"?; use ?. or ??`,
		`input.deep.a.c.d`:        `there is no key "c" in input.deep.a (it has: b)`,
		`input.null.x`:            `input.null is null, so it has no "x"`,
		`input.list[5]`:           `there is no element 5 in input.list, which has 3`,
		`input.list.x`:            `is a list`,
		`input.name.first`:        `is a string`,
		`input.max + 1`:           `doesn't fit a 64-bit integer`,
		`input.max * 2`:           `doesn't fit`,
		`-input.max - 2`:          `doesn't fit`,
		`10 ** 19`:                `doesn't fit`,
		`input.big + 0.5`:         `no exact place`,
		`input.big / 2`:           `no exact place`,
		`input.huge + 1`:          `more digits than arithmetic can keep`,
		`1e308 * 10`:              `no finite number`,
		`1 / 0`:                   `division by zero`,
		`1 % 0`:                   `division by zero`,
		`"a" + 1`:                 `can't be used between a string and a number`,
		`input.null + 1`:          `use ?? to say`,
		`1 < "2"`:                 `can't compare a number with a string`,
		`input.name and true`:     `needs true or false, not a string`,
		`input.orderId ? 1 : 2`:   `needs true or false`,
		`now() == "2026-01-01"`:   `date() reads a time`,
		`item.x`:                  `only inside of a container`,
		`steps.nobody.output`:     `doesn't come before`,
		`filter(input.name, #)`:   `a list is needed, not a string`,
		`filter(input.list, #)`:   `needs true or false, not a number`,
		`upper(1)`:                `upper: argument 1 is a number, not a string`,
		`fromJSON("{")`:           `fromJSON: JSON ends too early`,
		`repeat("x", 1000000000)`: `more than 16 MiB`,
		`1..100000000`:            `too many steps`,
		`all(1..5000, all(1..5000, all(1..5000, true)))`:                  `too many steps`,
		`reduce(1..64, #acc + #acc, "x")`:                                 `more than 16 MiB`,
		`let a = 1..9999; toJSON(map(a, map(a, a)))`:                      `budget`,
		`let a = repeat("x", 100000); let b = map(1..1000, a); toJSON(b)`: `too large`,
		`"x" matches "` + strings.Repeat("a", 995) + `(" + input.name`:    `no regular expression`,
		`repeat("a", 1000000) matches "((a?){500})(a{500})$"`:             `too many steps`,
		`sort([1, "a"])`:        `can't compare`,
		`addMonths(now(), "x")`: `argument 2 is a string`,
		`date("2026-13-01")`:    `is no time`,
		`round(1.5, 99)`:        `99 places`,
	} {
		e, err := expr.New().Compile(source)
		if err == nil {
			var v any
			if v, err = e.Eval(scope(t)); err == nil {
				t.Errorf("%s = %.80v, want an error", source, v)
				continue
			}
		}
		if want == "budget" {
			if !strings.Contains(err.Error(), "too many steps") && !strings.Contains(err.Error(), "MiB") {
				t.Errorf("%s: %v, want a budget error", source, err)
			}
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", source, err, want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]struct {
		code, message string
		offset        int
	}{
		`inptu.x`:              {"unknown-name", `there is no name "inptu"; did you mean "input"?`, 0},
		`1 + uper("a")`:        {"unknown-function", `did you mean "upper"?`, 4},
		`steps[input.x]`:       {"expression-syntax", "steps needs the name", 0},
		`steps`:                {"expression-syntax", "steps needs the name", 0},
		`steps.fetch.outputs`:  {"unknown-name", `did you mean "output"?`, 12},
		`execution.number`:     {"unknown-name", "execution has no", 10},
		`flow.versoin`:         {"unknown-name", `did you mean "version"?`, 5},
		`input.x +`:            {"", "ends too early", 8},
		`now().Year()`:         {"expression-syntax", "values have no methods", 6},
		`input.a.Foo(1)`:       {"expression-syntax", "values have no methods", 8},
		`#`:                    {"", "unexpected token", 0},
		`upper()`:              {"arguments", "upper takes 1 argument", 0},
		`has(1)`:               {"arguments", "has takes a path", 0},
		`b"raw"`:               {"expression-syntax", "can't be used", 0},
		`let input = 1; input`: {"expression-syntax", "taken already", 4},
		`upper`:                {"unknown-name", "is a function", 0},
		`"a" matches "("`:      {"expression-syntax", "no regular expression", 12},
		`9223372036854775808`:  {"", `invalid integer literal: "9223372036854775808": value out of range`, 18},
	} {
		_, err := expr.New().Compile(source)
		var bad *flow.SyntaxError
		if !errors.As(err, &bad) {
			t.Errorf("%s: got %v, want a SyntaxError", source, err)
			continue
		}
		if bad.Code != want.code || !strings.Contains(bad.Message, want.message) || bad.Offset != want.offset {
			t.Errorf("%s: got %q at %d: %s; want %q at %d: %s", source, bad.Code, bad.Offset, bad.Message, want.code, want.offset, want.message)
		}
	}
	for _, source := range []string{strings.Repeat("(", 9000), strings.Repeat("x", 20_000), strings.Repeat("[", 5000), strings.Repeat("-", 9000) + "1", "1" + strings.Repeat("+1", 4900), "", "\x00", "\xff"} {
		if _, err := expr.New().Compile(source); err == nil {
			t.Errorf("%.10s… compiles", source)
		}
	}
}

func TestStepsAreListed(t *testing.T) {
	t.Parallel()
	e, err := expr.New().Compile(`steps.a.output.x + steps["b"].output + filter(steps.c.output, # in steps.a.output)`)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(e.Steps()); got != "[a b c]" {
		t.Errorf("steps %s", got)
	}
}

// random() follows from the seed and the place in the evaluation alone.
func TestRandomIsSeeded(t *testing.T) {
	t.Parallel()
	e, err := expr.New().Compile(`[random(), random(), random(6), uuid()]`)
	if err != nil {
		t.Fatal(err)
	}
	s := scope(t)
	first, _ := e.Eval(s)
	again, _ := e.Eval(s)
	s.Seed++
	other, _ := e.Eval(s)
	const want = `[0.7415648787718233,0.1599103928769201,0,"581ce1ff-0e4a-4394-89bc-585a244823f2"]`
	if encode(t, first) != encode(t, again) {
		t.Error("two evaluations with one seed differ")
	}
	if encode(t, first) == encode(t, other) {
		t.Error("another seed gives the same")
	}
	draws := first.([]any)
	if draws[0] == draws[1] {
		t.Error("two draws are equal")
	}
	if got := encode(t, first); got != want {
		t.Errorf("the generator changed: recorded executions would come out otherwise\n got %s\nwant %s", got, want)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	e, err := expr.New().Compile(`let total = sum(map(input.list, # * input.orderId)); total + len(uniq(input.list))`)
	if err != nil {
		t.Fatal(err)
	}
	s := scope(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			own := *s
			for range 500 {
				if v, err := e.Eval(&own); err != nil || v != 45 {
					t.Errorf("%v %v", v, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A failed evaluation must leave nothing behind in the frames that evaluations share.
func TestFailedEvaluationLeavesNoTrace(t *testing.T) {
	t.Parallel()
	l := expr.New()
	bad, err := l.Compile(`map(input.list, concat([#], upper(map(input.list, #.x))))`)
	if err != nil {
		t.Fatal(err)
	}
	good, err := l.Compile(`map(input.list, (#.x ?? concat([#], [#index])))`)
	if err == nil {
		t.Log("compiled")
	}
	caught, err2 := l.Compile(`map(input.deep.a.b, (concat([1], [input.nope]) ?? #))`)
	if err2 != nil {
		t.Fatal(err2)
	}
	for range 100 {
		if _, err := bad.Eval(scope(t)); err == nil {
			t.Fatal("no error")
		}
		if _, err := good.Eval(scope(t)); err == nil {
			t.Fatal("a number has no .x, and that is not forgiven")
		}
		v, err := caught.Eval(scope(t))
		if err != nil || encode(t, v) != `[10,20]` {
			t.Fatalf("%v %v", v, err)
		}
	}
}

func TestFunctionsAreDocumented(t *testing.T) {
	t.Parallel()
	for _, f := range expr.Functions() {
		if !strings.HasPrefix(f.Doc, f.Name+"(") {
			t.Errorf("%s: its line of documentation begins with the call: %q", f.Name, f.Doc)
		}
	}
	if b, err := json.Marshal(expr.Functions()); err != nil || len(expr.Functions()) < 80 {
		t.Errorf("%d functions, %v, %s", len(expr.Functions()), err, b)
	}
}

func FuzzCompileAndEval(f *testing.F) {
	for _, s := range []string{`input.a.b ?? 1`, `filter(input.list, # > 1)`, `1 + 2 * "x"`, `let x = 1; x`, `now() + duration("1h")`, `steps.fetch.output?.[0]`, `{a: [1, {b: 2}]}`, `"\u00e9"[0]`, `reduce(1..9, #acc*#, 1)`} {
		f.Add(s)
	}
	l := expr.New()
	f.Fuzz(func(t *testing.T, source string) {
		e, err := l.Compile(source)
		if err != nil {
			return
		}
		a, errA := e.Eval(scope(t))
		b, errB := e.Eval(scope(t))
		if (errA == nil) != (errB == nil) {
			t.Fatalf("%q: %v, then %v", source, errA, errB)
		}
		if errA != nil {
			return
		}
		if v, err := flow.CanonicalWithin(a, 1<<20); err == nil {
			if one, two := encode(t, v), encode(t, b); one != two {
				t.Fatalf("%q gives %s, then %s", source, one, two)
			}
		} else if !errors.Is(err, flow.ErrTooLarge) {
			t.Fatalf("%q: %v", source, err)
		}
	})
}

func BenchmarkPath(b *testing.B) {
	run(b, `steps.fetch.output.body.total`)
}

func BenchmarkCompare(b *testing.B) { run(b, `steps.fetch.output.body.total > 100`) }

func BenchmarkFilter(b *testing.B) {
	run(b, `filter(steps.fetch.output.body.items, .price > 1) | map(.sku)`)
}

func run(b *testing.B, source string) {
	e, err := expr.New().Compile(source)
	if err != nil {
		b.Fatal(err)
	}
	s := scope(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Eval(s); err != nil {
			b.Fatal(err)
		}
	}
}

package nodes

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func script64(t testing.TB, code string) string { return `{"code": ` + encode(t, code) + `}` }

func TestCode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ code, input, want string }{
		{`return input.a + 1`, `{"a": 1}`, `2`},
		{`return [input, typeof input, input + 1n]`, `9007199254740993`, `[9007199254740993,"bigint",9007199254740994]`},
		{`return input`, `[123456789012345678901234567890, -9007199254740993, 9007199254740991, 0.1, "\u0000n5", "\u0000", {"__proto__": 1}]`, `[123456789012345678901234567890,-9007199254740993,9007199254740991,0.1,"\u0000n5","\u0000",{"__proto__":1}]`},
		{`return 0.1 + 0.2`, `null`, `0.30000000000000004`},
		{`return undefined`, `null`, `null`},
		{`` + "\n" + `// nothing`, `null`, `null`},
		{`return steps.start.output.a + steps['start'].status`, `{"a": "x-"}`, `"x-succeeded"`},
		{`const { start } = steps; return start.output`, `7`, `7`},
		{`return [Date.now(), new Date().toISOString(), new Date(0).getTime(), new Date(2020, 0, 1).getTimezoneOffset(), typeof Date(), new Date() instanceof Date, new (class extends Date {})().getTime()]`, `null`,
			`[1861920000000,"2029-01-01T00:00:00.000Z",0,0,"string",true,1861920000000]`},
		{`return [typeof require, typeof process, typeof fetch, typeof setTimeout, typeof std, typeof os, typeof Atomics, typeof performance, typeof WeakRef, typeof print, typeof __run]`, `null`,
			`["undefined","undefined","undefined","undefined","undefined","undefined","undefined","undefined","undefined","undefined","undefined"]`},
		{`return new Date().constructor.now() === Date.now()`, `null`, `true`},
		{`return this === undefined`, `null`, `true`},
		{`return "{{ input }}"`, `5`, `"{{ input }}"`},
		{`console.log("seen", input); return 1`, `null`, `1`},
		{`throw new TypeError("not " + input)`, `"so"`, `code: TypeError: not so`},
		{`throw "plain"`, `null`, `code: plain`},
		{`return input.a.b`, `{}`, `code: TypeError: cannot read property 'b' of undefined`},
		{`return (async () => 1)()`, `null`, `code: TypeError: the script returned a Promise`},
		{`const a = {}; a.a = a; return a`, `null`, `code: TypeError: circular reference`},
	} {
		got := run(t, "data.code", script64(t, tc.code), tc.input, time.Minute)
		if got != tc.want && !(strings.HasPrefix(tc.want, "code: ") && strings.HasPrefix(got, tc.want)) {
			t.Errorf("%s of %s:\n got %s\nwant %s", tc.code, tc.input, got, tc.want)
		}
	}
}

func TestCodeIsCheckedAtSave(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{`return (`, `let a = 1; let a = 2`, `import x from "y"`, strings.Repeat("(", 60000), `await 1`} {
		if _, problems := compiled(t, "data.code", script64(t, bad)); len(problems) != 1 || problems[0].Pointer != "/nodes/1/config/code" || problems[0].Code != "javascript" {
			t.Errorf("%.20s: %+v", bad, problems)
		}
	}
	for _, config := range []string{`{"code": "return 1", "memoryMB": 4}`, `{"code": "return 1", "memoryMB": 4096}`, `{"code": ""}`, `{}`} {
		if _, problems := compiled(t, "data.code", config); len(problems) != 1 {
			t.Errorf("%s: %+v", config, problems)
		}
	}
}

// TestCodeIsDeterministic: a pure node computed again, by another process, gives the same.
func TestCodeIsDeterministic(t *testing.T) {
	t.Parallel()
	const source = `return [Math.random(), Math.random(), Date.now(), Object.keys({b: 1, a: 2}), [3, 1, 2].sort(() => Math.random() - 0.5)]`
	first := run(t, "data.code", script64(t, source), `null`, time.Minute)
	for range 3 {
		scripts.Close()
		if again := run(t, "data.code", script64(t, source), `null`, time.Minute); again != first {
			t.Errorf("%s, then %s", first, again)
		}
	}
	if strings.Contains(first, "code") {
		t.Error(first)
	}
}

// TestCodeLeavesNothingBehind: every script has a machine of its own.
func TestCodeLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for range 5 {
		if got := run(t, "data.code", script64(t, `const seen = globalThis.left ?? Array.prototype.left ?? JSON.left ?? 0; globalThis.left = Array.prototype.left = JSON.left = 1; JSON.stringify = () => "9"; return seen`), `null`, time.Minute); got != "0" {
			t.Fatal(got)
		}
	}
}

// bad are scripts that would never end, or take everything, with how each may end.
var bad = map[string]string{
	`while (true) {}`: "timeout",
	`const o = { get a() { while (true) {} } }; return o.a`:                               "timeout",
	`while (true) { try { while (true) {} } catch (e) {} finally { } }`:                   "timeout",
	`try { while (true) {} } catch (e) { return "caught" }`:                               "timeout",
	`return { toJSON() { while (true) {} } }`:                                             "timeout",
	`const a = []; while (true) a.push("x" + a.length)`:                                   "memory timeout",
	`let x = "a"; while (true) x += x`:                                                    "memory code",
	`return "x".repeat(1 << 30)`:                                                          "code memory",
	`return new ArrayBuffer(1 << 30)`:                                                     "memory code",
	`new Array(1e9).fill(0)`:                                                              "memory timeout",
	`function f() { f() } f()`:                                                            "stack",
	`function f() { try { f() } finally { f() } } f()`:                                    "timeout stack",
	`return "x".repeat(300 << 10)`:                                                        "value-too-large",
	`return /(a+)+b/.test("a".repeat(60))`:                                                "timeout",
	`let a = []; for (let i = 0; i < 60; i++) a = [a, a]; return a`:                       "timeout memory",
	`let a = []; for (let i = 0; i < 60; i++) a = [a, a]; return a.flat(Infinity).length`: "timeout memory",
	`return [].indexOf.call({ length: 2 ** 53 - 1 }, 1)`:                                  "timeout",
	`return "a".repeat(4e6).indexOf("a".repeat(2e6) + "b")`:                               "timeout",
	`const a = []; a.length = 4e9; return a.includes(1)`:                                  "timeout",
	`return JSON.parse("[".repeat(1e6))`:                                                  "stack code",
	`return eval("(".repeat(1e5))`:                                                        "stack code",
	`return 10n ** 1000000000n`:                                                           "code memory timeout",
}

// TestCodeEnds: whatever a script does, it ends in time with an error that says what it was, and the next one runs.
func TestCodeEnds(t *testing.T) {
	t.Parallel()
	for source, want := range bad {
		began := time.Now()
		got, _, _ := strings.Cut(run(t, "data.code", script64(t, source), `null`, 2*time.Second), ":")
		if !strings.Contains(" "+want+" ", " "+got+" ") {
			t.Errorf("%s: %s, want %s", source, got, want)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s took %s", source, d)
		}
	}
	if got := run(t, "data.code", script64(t, `return 1`), `null`, time.Minute); got != "1" {
		t.Error(got)
	}
}

// TestCodeGivesMemoryBack: after 200 bad scripts this process has what it had.
func TestCodeGivesMemoryBack(t *testing.T) {
	before := residentBytes(t)
	for i := range 200 {
		source := []string{`const a = []; while (true) a.push("x" + a.length)`, `let x = "a"; while (true) x += x`, `while (true) {}`, `function f() { f() } f()`, `return "x".repeat(300 << 10)`}[i%5]
		run(t, "data.code", script64(t, source), `null`, 300*time.Millisecond)
	}
	if after := residentBytes(t); after > before+64<<20 {
		t.Errorf("from %d to %d MiB", before>>20, after>>20)
	}
}

func residentBytes(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc here")
	}
	var size, pages int
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestCodeIsCancelled(t *testing.T) {
	t.Parallel()
	x, c := prepared(t, "data.code", script64(t, `while (true) {}`), `null`)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := x.Execute(ctx, c); err == nil || ctx.Err() == nil {
		t.Error(err)
	}
}

func BenchmarkCode(b *testing.B) {
	x, c := prepared(b, "data.code", script64(b, `return { total: input.items.reduce((s, i) => s + i.price, 0) }`), `{"items": [{"price": 3}, {"price": 4}]}`)
	for b.Loop() {
		if _, err := x.Execute(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

package flowtest

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/nodes"
)

const examplesDir = "../../../../docs/examples"

// TestPinnedIsValid pins every node of every example, one after the other, in every way that is allowed: what comes out must compile.
func TestPinnedIsValid(t *testing.T) {
	t.Parallel()
	catalogue, err := nodes.Catalogue(nodes.Options{})
	if err != nil {
		t.Fatal(err)
	}
	language := expr.New()
	files, err := filepath.Glob(examplesDir + "/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	pinned := 0
	for _, file := range files {
		document, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		def, problems := flow.Parse(document)
		if len(problems) > 0 {
			t.Fatalf("%s: %v", file, problems)
		}
		for _, n := range def.Nodes {
			pins := map[string]Pin{"nothing": {}, "an output": {Output: Value(`{"body": {"{{ x }}": [1, "\\(.)\n"]}}`)}, "an error": {Error: &Error{Code: "pinned", Message: "{{ braces }}"}}}
			for _, e := range def.Edges {
				if e.From == n.ID && e.Port != "error" {
					pins["port "+e.Port], pins["output and port "+e.Port] = Pin{Port: e.Port}, Pin{Port: e.Port, Output: Value(`{"by": "ada"}`)}
				}
			}
			for what, p := range pins {
				out, err := pin(document, "a test", map[string]Pin{n.ID: p})
				if err != nil {
					if strings.HasPrefix(n.Type, "trigger.") || n.Type == "logic.try" && p.Error != nil {
						continue
					}
					t.Errorf("%s, %s, %s: %v", file, n.ID, what, err)
					continue
				}
				pinned++
				changed, problems := flow.Parse(out)
				if len(problems) == 0 {
					_, problems = flow.Compile(changed, flow.FlowView{Name: "a test"}, catalogue, language)
				}
				for _, problem := range problems { // what was in a pinned container, or a removed port's output, may be missed elsewhere
					t.Errorf("%s, %s pinned with %s: %s %s", filepath.Base(file), n.ID, what, problem.Pointer, problem.Message)
				}
			}
		}
	}
	if pinned < 100 {
		t.Errorf("only %d documents were made", pinned)
	}
}

// TestPinned shows what becomes of a document.
func TestPinned(t *testing.T) {
	t.Parallel()
	out, err := pin([]byte(`{"name": "x", "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "ask", "type": "flow.approval", "name": "Ask", "retry": {"maxAttempts": 3}, "config": {}},
		{"id": "pay", "type": "http.request", "compensate": "refund"}, {"id": "refund", "type": "http.request"}, {"id": "no", "type": "data.set"}, {"id": "loop", "type": "logic.foreach"}, {"id": "in", "parent": "loop", "type": "data.set"}],
		"edges": [{"from": "start", "to": "ask"}, {"from": "ask", "port": "approved", "to": "pay"}, {"from": "ask", "port": "rejected", "to": "no"}, {"from": "ask", "port": "expired", "to": "no"}, {"from": "pay", "to": "loop"}]}`),
		"y", map[string]Pin{"ask": {Port: "approved", Output: Value(`{"by": "ada"}`)}, "pay": {Error: &Error{Code: "declined"}}, "loop": {Output: Value(`[1]`)}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"edges":[{"from":"start","to":"ask"},{"from":"ask","to":"pay"},{"from":"ask","port":"error","to":"no"},{"from":"pay","to":"loop"}],"name":"y","nodes":[{"id":"start","type":"trigger.manual"},` +
		`{"config":{"input":null,"query":"{\"by\": \"ada\"}"},"id":"ask","name":"Ask","onError":"route","type":"data.transform"},` +
		`{"config":{"code":"declined","message":"pinned"},"id":"pay","type":"flow.fail"},{"id":"no","type":"data.set"},{"config":{"input":null,"query":"[1]"},"id":"loop","type":"data.transform"}]}`
	if string(out) != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

func TestPinRefuses(t *testing.T) {
	t.Parallel()
	document := []byte(`{"name": "x", "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "try", "type": "logic.try"},
		{"id": "if", "type": "logic.if", "onError": "continue"}, {"id": "end", "type": "data.set"}], "edges": [{"from": "if", "port": "true", "to": "end"}]}`)
	for _, c := range []struct {
		node string
		pin  Pin
		want string
	}{
		{"nobody", Pin{}, "no node of this id"},
		{"start", Pin{}, "a trigger's output is the input"},
		{"end", Pin{Port: "error"}, "pin an error"},
		{"try", Pin{Error: &Error{Code: "x"}}, "pin the step in it"},
		{"if", Pin{Error: &Error{Code: "x"}}, "can't be pinned"},
		{"end", Pin{Output: Value(`"` + strings.Repeat("x", maxPin) + `"`)}, "the most is"},
	} {
		if _, err := pin(document, "y", map[string]Pin{c.node: c.pin}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.node, err, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	f, err := parse([]byte("cases:\n- name: a\n  input: {big: 9007199254740993, none: null}\n  pins: {x: {output: null}, y: {}}\n  expect: {output: null}\n- {name: b, expect: {path: []}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := f.Cases[0], f.Cases[1]
	var input bytes.Buffer
	if err := json.Compact(&input, a.Input); err != nil || input.String() != `{"big":9007199254740993,"none":null}` {
		t.Errorf("%s %v", input.String(), err)
	}
	if a.Expect.Output == nil || a.Pins["x"].Output == nil || a.Pins["y"].Output != nil || b.Expect.Output != nil || b.Input != nil || b.Expect.Path == nil {
		t.Errorf("null and nothing are taken for one another: %+v", f)
	}
	for text, want := range map[string]string{
		"cases: []":                                                    "it has 0 cases",
		"cases: [{expect: {}}]":                                        "a name of its own",
		"cases: [{name: a}, {name: a}]":                                "a name of its own",
		"cases: [{name: a, expcet: {}}]":                               "expcet",
		"cases: [{name: a, timeout: soon}]":                            "timeout",
		"cases: [{name: a, timeout: 100h}]":                            "up to 1h",
		"cases: [{name: a, expect: {status: done}}]":                   "expect.status",
		"cases: [{name: a, pins: {x: {output: 1, error: {code: y}}}}]": "keep one of them",
		"cases: [{name: a, pins: {x: {error: {message: y}}}}]":         "needs a code",
		"cases: [{name: a, pins: {x: {error: {code: 7}}}}]\nx: 1":      "x",
		"cases: {": "it can't be read",
		"":         "it has 0 cases",
	} {
		if _, err := parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("cases:\n- name: a\n  input: {x: [1, 2.5, null]}\n  pins: {y: {error: {code: z}}}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := parse(b)
		if err != nil {
			return
		}
		for _, c := range file.Cases { // what was read can be used
			if c.Input != nil && !json.Valid(c.Input) {
				t.Errorf("input %q", c.Input)
			}
			_ = c.Expect.check(&Got{})
		}
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	got := &Got{Status: "succeeded", Output: json.RawMessage(`{"a": 1.0, "b": [1, {"c": "x"}], "big": 9007199254740993}`), Steps: []GotStep{
		{Node: "start", Status: "succeeded"}, {Node: "loop", Status: "failed", Error: &Error{Code: "first"}}, {Node: "loop", Status: "succeeded", Port: "done", Output: json.RawMessage(`2`)}, {Node: "other", Status: "skipped"},
	}}
	for _, c := range []struct{ expect, want string }{
		{`{}`, ``},
		{`{"output": {"a": 1, "b": [1, {"c": "x"}], "big": 9007199254740993}}`, ``},
		{`{"output": {"a": 2, "b": [1, {"c": "y"}], "d": null}}`, `output.a: is 1.0, want 2|output.b[1].c: is "x", want "y"|output.d: is missing, want null|output.big: is 9007199254740993, want none`},
		{`{"contains": {"b": [1, {}]}}`, ``},
		{`{"contains": {"b": [1]}}`, `output.b: is [1,{"c":"x"}], want [1]`},
		{`{"contains": {"big": 9007199254740992}}`, `output.big: is 9007199254740993, want 9007199254740992`},
		{`{"output": null}`, `output: is {"a":1.0,"b":[1,{"c":"x"}],"big":9007199254740993}, want null`},
		{`{"status": "failed"}`, `status: is succeeded, want failed`},
		{`{"error": {"code": "x"}}`, `status: is succeeded, want failed|error: there is none, want x: `},
		{`{"path": ["loop", "start"]}`, ``},
		{`{"path": ["start", "end"]}`, `path: did not run: end; should not have run: loop (what ran: start, loop)`},
		{`{"path": []}`, `path: should not have run: start, loop (what ran: start, loop)`},
		{`{"includes": ["loop"], "excludes": ["other"]}`, ``},
		{`{"includes": ["other"], "excludes": ["loop"]}`, `path: did not run: other; should not have run: loop (what ran: start, loop)`},
		{`{"steps": {"loop": {"status": "succeeded", "port": "done", "output": 2}, "start": {"port": "main"}}}`, ``},
		{`{"steps": {"loop": {"status": "failed", "port": "x", "output": 3, "error": {"code": "y"}}, "nobody": {}}}`,
			`steps.loop.status: is succeeded, want failed|steps.loop.port: is "done", want "x"|steps.loop.error: there is none, want y: |steps.loop.output: is 2, want 3|steps.nobody: there is no such step`},
	} {
		var x Expect
		if err := json.Unmarshal([]byte(c.expect), &x); err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(x.check(got), "|"); said != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.expect, said, c.want)
		}
	}
	failed := &Got{Status: "failed", Error: &Error{Code: "http-status", Message: "answered 500", Node: "fetch"}}
	x := Expect{}
	if said := strings.Join(x.check(failed), "|"); said != "status: is failed, want succeeded (http-status: answered 500, node fetch)" {
		t.Error(said)
	}
	x = Expect{Error: &Error{Code: "timeout", Node: "fetch"}}
	if said := strings.Join(x.check(failed), "|"); said != `error.code: is "http-status", want "timeout"` {
		t.Error(said)
	}
}

func TestReports(t *testing.T) {
	t.Parallel()
	all := []Result{{File: "a/b.test.yaml", Case: "good", Passed: true, Seconds: 0.1}, {File: "a/b.test.yaml", Case: "<bad>", Problems: []string{"output: is 1, want 2", "two\nlines"}}}
	if got := all[1].Text(); got != "FAIL  b: <bad> (0.00 s)\n      output: is 1, want 2\n      two\n      lines\n" {
		t.Errorf("%q", got)
	}
	var b bytes.Buffer
	if err := JUnit(&b, all); err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
			} `xml:"failure"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(b.Bytes(), &suite); err != nil || suite.Tests != 2 || suite.Failures != 1 || suite.Cases[1].Name != "<bad>" || suite.Cases[1].Failure.Message != "output: is 1, want 2" || suite.Cases[0].Failure != nil {
		t.Errorf("%v %s", err, b.Bytes())
	}
}

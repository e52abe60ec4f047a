package flow_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
)

var update = flag.Bool("update", false, "write the golden files anew")

func judge(data []byte) (*flow.Definition, []flow.Problem) {
	def, _, problems := flow.Load(data, flow.FlowView{}, types(), expr.New())
	return def, problems
}

func documents(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata/corpus", dir, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no documents in %s: %v", dir, err)
	}
	out := map[string][]byte{}
	for _, p := range paths {
		if strings.HasSuffix(p, ".problems.json") {
			continue
		}
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		out[p] = data
	}
	return out
}

func TestCorpusValid(t *testing.T) {
	t.Parallel()
	for path, data := range documents(t, "valid") {
		def, problems := judge(data)
		if len(problems) > 0 {
			t.Errorf("%s: %+v", path, problems)
			continue
		}
		roundTrip(t, path, def)
	}
}

// roundTrip: a definition, written and read, is the same.
func roundTrip(t *testing.T, path string, def *flow.Definition) {
	t.Helper()
	out, err := json.Marshal(def)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	again, problems := flow.Parse(out)
	twice, err := json.Marshal(again)
	if err != nil || len(problems) > 0 || string(twice) != string(out) {
		t.Errorf("%s: %v %v\n got %s\nwant %s", path, problems, err, twice, out)
	}
}

func TestCorpusInvalid(t *testing.T) {
	t.Parallel()
	for path, data := range documents(t, "invalid") {
		_, problems := judge(data)
		if len(problems) == 0 {
			t.Errorf("%s: no problem found", path)
		}
		golden(t, strings.TrimSuffix(path, ".json")+".problems.json", problems)
	}
}

func golden(t *testing.T, path string, v any) {
	t.Helper()
	got, ok := v.(string)
	if !ok {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		got = b.String()
	}
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s (%v): go test -update writes it anew\n got %s\nwant %s", path, err, got, want)
	}
}

// Flow control survives being read and written, also in a document that is refused.
func TestFlowControlSurvives(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/corpus/invalid/settings-and-parent.json")
	if err != nil {
		t.Fatal(err)
	}
	def, problems := flow.Parse(data)
	if len(problems) > 0 || len(def.Settings.Concurrency) != 1 || len(def.Settings.Rate) != 1 || def.Settings.Fairness.Weight != 2 || !def.Settings.Debounce.Collect || def.Nodes[1].Parent != "s" {
		t.Fatalf("%v %+v", problems, def)
	}
	roundTrip(t, "settings-and-parent", def)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	big := func(nodes, edges int) string {
		var n, e []string
		for i := range nodes {
			n = append(n, fmt.Sprintf(`{"id":"n%d","type":"data.set"}`, i))
		}
		for i := range edges {
			e = append(e, fmt.Sprintf(`{"from":"n%d","to":"n%d"}`, i%10, i%100))
		}
		return fmt.Sprintf(`{"name":"x","nodes":[%s],"edges":[%s]}`, strings.Join(n, ","), strings.Join(e, ","))
	}
	for want, doc := range map[string]string{
		"/nodes too-many": big(2001, 0), "/edges too-many": big(1, 10_001), " too-large": `{"name": "` + strings.Repeat("x", 1<<20) + `"}`,
		"/name too-long": `{"name": "` + strings.Repeat("x", 201) + `", "nodes": [{"id":"a","type":"b"}]}`, " json": strings.Repeat("[", 1000),
	} {
		_, problems := flow.Parse([]byte(doc))
		if len(problems) != 1 || problems[0].Pointer+" "+problems[0].Code != want {
			t.Errorf("want %s, got %+v", want, problems)
		}
	}
	if _, problems := flow.Parse([]byte(big(2000, 10_000))); len(problems) > 0 {
		t.Errorf("%+v", problems)
	}
}

// The largest flow compiles and runs, as a chain (deep) and as a fan (wide).
func TestLargestFlows(t *testing.T) {
	t.Parallel()
	chain, fan := "n0 trigger.manual\n", "n0 trigger.manual\n"
	for i := 1; i < 2000; i++ {
		chain += fmt.Sprintf("n%d data.set {\"values\": \"{{ steps.n%d.output + 1 }}\"}\nn%d -> n%d\n", i, i-1, i-1, i)
		if i < 1999 {
			fan += fmt.Sprintf("n%d data.set {\"values\": 1}\nn0 -> n%d\nn%d -> n1999\n", i, i, i)
		}
	}
	fan += `n1999 data.set {"values": "{{ steps.n1.output + steps.n1998.output }}"}`
	for want, c := range map[int]string{1999: chain, 2: fan} {
		s := mustCompile(t, chart(c)).Start(record(0))
		settle(t, s)
		if s.Outcome() != flow.Succeeded || s.Output() != want {
			t.Errorf("%s %v, want %d", s.Outcome(), s.Output(), want)
		}
	}
}

func TestTypeVersionIsFilledIn(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("a trigger.manual\nb data.set {\"values\": 1}\na -> b"))
	if v := p.Definition().Nodes[1].TypeVersion; v != 2 {
		t.Errorf("version %d", v)
	}
	s := p.Start(record(nil))
	if cmd := s.Next()[0]; cmd.Version != 2 || cmd.Type != "data.set" {
		t.Errorf("%+v", cmd)
	}
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"valid", "invalid"} {
		for _, data := range documents(f, dir) {
			f.Add(data)
		}
	}
	lang, catalogue := expr.New(), types()
	f.Fuzz(func(t *testing.T, data []byte) {
		def, problems := flow.Parse(data)
		if def == nil {
			t.Fatal("no definition")
		}
		if len(problems) > 0 {
			return
		}
		roundTrip(t, "fuzz", def)
		p, problems := flow.Compile(def, flow.FlowView{}, catalogue, lang)
		if (p == nil) == (len(problems) == 0) {
			t.Fatalf("program %v, problems %v", p, problems)
		}
		for _, problem := range problems {
			if problem.Code == "" || problem.Message == "" {
				t.Fatalf("%+v", problem)
			}
		}
		if p != nil {
			s := p.Start(record(map[string]any{"a": 1}))
			settle(t, s)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{{ input }}", "a {{ input.x }} b {{ now() }}", "{{ '}}' }}", "{{ {a: {b: 1}} }}", "{{", "}}", "{{ `", "{{ \"\\\" }}"} {
		f.Add(s)
	}
	lang, catalogue := expr.New(), types()
	f.Fuzz(func(t *testing.T, text string) {
		def := &flow.Definition{Name: "x", Nodes: []flow.Node{{ID: "a", Type: "trigger.manual"}, {ID: "b", Type: "data.set", Config: map[string]any{"values": text}}}, Edges: []flow.Edge{{From: "a", To: "b"}}}
		p, problems := flow.Compile(def, flow.FlowView{}, catalogue, lang)
		if len(problems) > 0 {
			for _, problem := range problems {
				if problem.Column < 1 || problem.Column > len([]rune(text))+2 {
					t.Fatalf("%q: column %d of %q", text, problem.Column, problem.Message)
				}
			}
			return
		}
		run := func() string {
			s := p.Start(record(map[string]any{"x": 1}))
			settle(t, s)
			if s.Failure() != nil {
				return s.Failure().Message
			}
			return encode(t, s.Output())
		}
		one := run()
		if two := run(); one != two {
			t.Fatalf("%q gives %s, then %s", text, one, two)
		}
		if !strings.Contains(text, "{{") && one != encode(t, text) {
			t.Fatalf("%q became %s", text, one)
		}
	})
}

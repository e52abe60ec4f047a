package flow_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

const orders = `
	start trigger.manual
	fetch http.request {"url": "https://shop.example/orders/{{ input.orderId }}"}
	large logic.if {"condition": "{{ steps.fetch.output.body.total > 100 }}"}
	notify http.request {"url": "https://hook.example", "method": "{{ steps.fetch.output.body }}"}
	result data.set {"values": {"large": "{{ steps.large.port == 'true' }}", "notified": "{{ steps.notify.status }}"}}
	start -> fetch
	fetch -> large
	large.true -> notify
	notify -> result
	large.false -> result`

func TestBothWaysOfABranch(t *testing.T) {
	t.Parallel()
	for total, want := range map[int]string{150: `{"large":true,"notified":"succeeded"}`, 50: `{"large":false,"notified":"skipped"}`} {
		s := mustCompile(t, chart(orders)).Start(record(map[string]any{"orderId": 7}))
		cmds := settle(t, s)
		if len(cmds) != 1 || cmds[0].Key.Node != "fetch" || cmds[0].Config["url"] != "https://shop.example/orders/7" || cmds[0].Timeout != 30*time.Second || cmds[0].Try != 1 {
			t.Fatalf("commands %+v", cmds)
		}
		if s.Outcome() != flow.Running || s.InFlight() != 1 {
			t.Errorf("outcome %q, %d in flight", s.Outcome(), s.InFlight())
		}
		apply(t, s, flow.Event{Type: flow.EventSucceeded, Node: "fetch", Try: 1, At: epoch.Add(time.Second), Output: map[string]any{"body": map[string]any{"total": total}}})
		for _, cmd := range settle(t, s) {
			if m := cmd.Config["method"].(map[string]any); m["total"] != total {
				t.Errorf("one expression must keep its type: %#v", cmd.Config)
			}
			apply(t, s, flow.Event{Type: flow.EventSucceeded, Node: cmd.Key.Node, At: epoch.Add(2 * time.Second)})
			settle(t, s)
		}
		if s.Outcome() != flow.Succeeded || encode(t, s.Output()) != want {
			t.Errorf("total %d: %s %s, want %s", total, s.Outcome(), encode(t, s.Output()), want)
		}
	}
}

func TestOutputs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ chart, want string }{
		"trigger alone":  {`a trigger.manual`, `{"x":1}`},
		"one end":        {"a trigger.manual\nb data.set {\"values\": {\"y\": \"{{ input.x }}\"}}\na -> b", `{"y":1}`},
		"several ends":   {"a trigger.manual\nb data.set {\"values\": 1}\nc data.set {\"values\": 2}\nd data.set {\"values\": 3}\na -> b\na -> c\na -> d", `{"b":1,"c":2,"d":3}`},
		"dead branch":    {"a trigger.manual\nb logic.if {\"condition\": true}\nc data.set {\"values\": 2}\na -> b\nb.false -> c", `null`},
		"other triggers": {"a trigger.manual\nw trigger.webhook {\"path\": \"x\"}\nb data.set {\"values\": 1}\nc data.set {\"values\": \"{{ steps.w.status }}\"}\na -> b\nw -> b\nw -> c\na -> c", `{"b":1,"c":"skipped"}`},
		"only skipped":   {"a trigger.manual\nw trigger.webhook {\"path\": \"x\"}\nb data.set {\"values\": 1}\nw -> b", `{"x":1}`},
		"diamond":        {"a trigger.manual\nb data.set {\"values\": 1}\nc data.set {\"values\": 2}\nd data.set {\"values\": [\"{{ steps.b.output + steps.c.output }}\"]}\na -> b\na -> c\nb -> d\nc -> d", `[3]`},
		"templates":      {"a trigger.manual\nb data.set {\"values\": [\"n={{ input.x }}, {{ null }}{{ [1] }}{{ 'a}}b' }} {{ {a: {b: 1}} }}\", \"{{ now() }}\", \"{{ '{{' }}\"]}\na -> b", `["n=1, [1]a}}b {\"a\":{\"b\":1}}","2026-03-01T10:00:00Z","{{"]`},
	} {
		s := mustCompile(t, chart(c.chart)).Start(record(map[string]any{"x": 1}))
		if rest := settle(t, s); len(rest) > 0 {
			t.Errorf("%s: commands %v", name, rest)
		}
		if s.Outcome() != flow.Succeeded || encode(t, s.Output()) != c.want {
			t.Errorf("%s: %s %s (%v), want %s", name, s.Outcome(), encode(t, s.Output()), s.Failure(), c.want)
		}
	}
}

func TestEntry(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("a trigger.webhook {\"path\": \"x\"}\nb trigger.webhook {\"path\": \"y\"}\nm trigger.manual\nz data.set {\"values\": 1}\na -> z\nb -> z\nm -> z"))
	for trigger, want := range map[string]string{"manual": "m", "b": "b", "webhook": "a", "m": "m", "cron": "", "z": ""} {
		if got, _ := p.Entry(trigger); got != want {
			t.Errorf("%s enters at %q, want %q", trigger, got, want)
		}
	}
	rec := record(nil)
	rec.Execution.Trigger = "cron"
	if s := p.Start(rec); s.Outcome() != flow.Failed || s.Failure().Code != "no-trigger" || s.Next() != nil {
		t.Errorf("%s %v", s.Outcome(), s.Failure())
	}
	if got, ok := mustCompile(t, chart(`only trigger.webhook {"path": "x"}`)).Entry("manual"); !ok || got != "only" {
		t.Errorf("a manual start enters at the only trigger, not at %q", got)
	}
}

func failed(node string, try int, retryable bool, after time.Duration) flow.Event {
	return flow.Event{Type: flow.EventFailed, Node: node, Try: try, At: epoch.Add(after), Error: &flow.Failure{Code: "http-status", Message: "503", Retryable: retryable}}
}

func TestOnError(t *testing.T) {
	t.Parallel()
	base := "s trigger.manual\nx http.request {\"url\": \"u\"}%s\nok data.set {\"values\": \"{{ [steps.x.status, steps.x.output, steps.x.error?.code] }}\"}\ns -> x\nx -> ok\n"
	for onError, c := range map[string]struct {
		chart   string
		outcome flow.Outcome
		output  string
	}{
		"fail":     {fmt.Sprintf(base, ""), flow.Failed, `null`},
		"continue": {fmt.Sprintf(base, ` | "onError": "continue"`), flow.Succeeded, `["failed",null,"http-status"]`},
		"route":    {fmt.Sprintf(base, ` | "onError": "route"`) + "err data.set {\"values\": \"{{ steps.x.error.message + steps.x.port }}\"}\nx.error -> err", flow.Succeeded, `"503error"`},
	} {
		s := mustCompile(t, chart(c.chart)).Start(record(nil))
		settle(t, s)
		apply(t, s, failed("x", 1, true, time.Second))
		settle(t, s)
		if s.Outcome() != c.outcome || s.Outcome() == flow.Succeeded && encode(t, s.Output()) != c.output {
			t.Errorf("%s: %s %s", onError, s.Outcome(), encode(t, s.Output()))
		}
		if f := s.Failure(); (f != nil) != (onError == "fail") || f != nil && (f.Node != "x" || f.Code != "http-status") {
			t.Errorf("%s: failure %+v", onError, f)
		}
	}
}

// When a node fails the execution nothing new starts, and what is in flight ends first.
func TestFailureWaitsForWhatIsInFlight(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\na http.request {\"url\": \"u\"}\nb http.request {\"url\": \"u\"} | \"retry\": {\"maxAttempts\": 5}\nc http.request {\"url\": \"u\"}\ns -> a\ns -> b\nb -> c"))
	for _, second := range []flow.Event{{Type: flow.EventSucceeded, Node: "b", At: epoch}, failed("b", 1, true, 0), {Type: flow.EventWaiting, Node: "b", At: epoch, Wait: &flow.Wait{Kind: flow.WaitSignal}}} {
		s := p.Start(record(nil))
		if n := len(s.Next()); n != 2 {
			t.Fatalf("%d commands", n)
		}
		apply(t, s, failed("a", 1, false, 0))
		if s.Outcome() != flow.Running || s.Failure() == nil || s.InFlight() != 1 || s.Next() != nil {
			t.Errorf("after the failure: %s, %d in flight", s.Outcome(), s.InFlight())
		}
		apply(t, s, second)
		if s.Outcome() != flow.Failed || s.Next() != nil || s.Failure().Node != "a" || s.InFlight() != 0 {
			t.Errorf("after the end: %s, %v", s.Outcome(), s.Failure())
		}
	}
}

func TestExpressionFailsItsStep(t *testing.T) {
	t.Parallel()
	text := "s trigger.manual\nx http.request {\"url\": \"{{ input.id }}\"} | \"retry\": {\"maxAttempts\": 5}%s\ny data.set {\"values\": \"{{ steps.x.error.code }}\"}\ns -> x\nx -> y"
	s := mustCompile(t, chart(fmt.Sprintf(text, ""))).Start(record(map[string]any{"Id": 1}))
	if s.Next() != nil || s.Outcome() != flow.Failed {
		t.Fatalf("outcome %q", s.Outcome())
	}
	f := s.Failure()
	if f.Code != "expression" || f.Node != "x" || f.Retryable || !strings.HasPrefix(f.Message, `config/url: there is no key "id" in input (it has: Id)`) {
		t.Errorf("%+v", f)
	}
	s = mustCompile(t, chart(fmt.Sprintf(text, `, "onError": "continue"`))).Start(record(map[string]any{"Id": 1}))
	settle(t, s)
	if s.Outcome() != flow.Succeeded || s.Output() != "expression" {
		t.Errorf("%s %v %v", s.Outcome(), s.Output(), s.Failure())
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\nx http.request {\"url\": \"{{ now() }}\"} | \"retry\": {\"maxAttempts\": 3, \"initialDelay\": \"800ms\"}\ns -> x"))
	s := p.Start(record(nil))
	first := s.Next()[0]
	apply(t, s, failed("x", 1, true, time.Second))
	cmds := s.Next()
	if len(cmds) != 1 || cmds[0].Op != flow.OpSleep || !cmds[0].Until.Equal(epoch.Add(1800*time.Millisecond)) || s.InFlight() != 1 || s.Outcome() != flow.Running {
		t.Fatalf("after the first try: %+v", cmds)
	}
	apply(t, s, flow.Event{Type: flow.EventMet, Node: "x", At: cmds[0].Until})
	cmds = s.Next()
	if len(cmds) != 1 || cmds[0].Op != flow.OpRun || cmds[0].Try != 2 || cmds[0].Seed != first.Seed || !reflect.DeepEqual(cmds[0].Config, first.Config) {
		t.Fatalf("the second try must be as the first: %+v, %+v", cmds, first)
	}
	apply(t, s, failed("x", 2, true, 2*time.Second))
	if s.Next() != nil || s.Outcome() != flow.Suspended || s.InFlight() != 0 {
		t.Fatalf("a back-off of 1.6 s suspends, not %q", s.Outcome())
	}
	waits := s.OpenWaits()
	if len(waits) != 1 || waits[0].Key.Node != "x" || waits[0].Wait.Kind != flow.WaitRetry || !waits[0].Wait.Due.Equal(epoch.Add(3600*time.Millisecond)) || !waits[0].Since.Equal(epoch.Add(2*time.Second)) || waits[0].Wait.Reason != "try 2 of 3 failed: 503" {
		t.Errorf("waits %+v", waits)
	}
	apply(t, s, flow.Event{Type: flow.EventMet, Node: "x", At: epoch.Add(4 * time.Second)})
	if cmds = s.Next(); len(cmds) != 1 || cmds[0].Try != 3 {
		t.Fatalf("%+v", cmds)
	}
	apply(t, s, failed("x", 3, true, 5*time.Second))
	if s.Outcome() != flow.Failed || !s.Clock().Equal(epoch.Add(5*time.Second)) {
		t.Errorf("%s at %s", s.Outcome(), s.Clock())
	}

	s = p.Start(record(nil))
	s.Next()
	apply(t, s, failed("x", 1, false, 0))
	if s.Outcome() != flow.Failed {
		t.Error("what can't be tried again was")
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	r := flow.Retry{MaxAttempts: 9, InitialDelay: flow.Duration(time.Second), MaxDelay: flow.Duration(30 * time.Second)}
	var got []string
	for try := range 7 {
		got = append(got, r.Delay(try+1, 1).String())
	}
	if fmt.Sprint(got) != "[1s 2s 4s 8s 16s 30s 30s]" {
		t.Errorf("exponential: %v", got)
	}
	if d := (&flow.Retry{MaxAttempts: 100}).Delay(100, 1); d != time.Minute {
		t.Errorf("by default at most a minute, not %s", d)
	}
	if d := (&flow.Retry{Backoff: flow.BackoffFixed, InitialDelay: flow.Duration(5 * time.Minute)}).Delay(9, 1); d != 5*time.Minute {
		t.Errorf("fixed: %s", d)
	}
	r.Jitter = true
	seen := map[time.Duration]bool{}
	for seed := range uint64(200) {
		d := r.Delay(3, seed)
		if d < 2*time.Second || d > 4*time.Second || d != r.Delay(3, seed) {
			t.Fatalf("jitter %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 190 {
		t.Errorf("jitter gives only %d delays", len(seen))
	}
}

func TestWaits(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\nd flow.delay {\"duration\": 1}\ng flow.signal {\"name\": \"n\"}\nr data.set {\"values\": \"{{ [steps.g.output, steps.g.port] }}\"}\nx data.set {\"values\": \"late\"}\ns -> d\nd -> g\ng -> r\ng.expired -> x"))
	waiting := func(node, kind string, due time.Time) flow.Event {
		return flow.Event{Type: flow.EventWaiting, Node: node, Try: 1, At: epoch, Wait: &flow.Wait{Kind: kind, Due: due, Key: "k", Reason: "why"}}
	}
	delayed := func(due time.Duration) *flow.State {
		s := p.Start(record(nil))
		s.Next()
		apply(t, s, waiting("d", flow.WaitTimer, epoch.Add(due)))
		return s
	}
	if s := delayed(0); s.Next()[0].Key.Node != "g" {
		t.Error("a delay that is over already must not wait")
	}
	s := delayed(900 * time.Millisecond)
	if cmds := s.Next(); len(cmds) != 1 || cmds[0].Op != flow.OpSleep || cmds[0].Kind != flow.KindWait {
		t.Errorf("a short delay sleeps: %+v", cmds)
	}
	s = delayed(2 * time.Second)
	if s.Next() != nil || s.Outcome() != flow.Suspended {
		t.Errorf("a long delay suspends, not %q", s.Outcome())
	}
	apply(t, s, flow.Event{Type: flow.EventMet, Node: "d", At: epoch.Add(2 * time.Second)})
	s.Next()
	apply(t, s, waiting("g", flow.WaitSignal, epoch.Add(time.Millisecond)))
	if s.Next() != nil || s.Outcome() != flow.Suspended {
		t.Errorf("a signal's timeout is never slept: %q", s.Outcome())
	}
	apply(t, s, flow.Event{Type: flow.EventMet, Node: "g", At: epoch.Add(3 * time.Second), Output: map[string]any{"yes": true}})
	settle(t, s)
	if s.Outcome() != flow.Succeeded || encode(t, s.Output()) != `[{"yes":true},"main"]` {
		t.Errorf("%s %s", s.Outcome(), encode(t, s.Output()))
	}
	for _, met := range []flow.Event{{Port: "expired"}, {Error: &flow.Failure{Code: "child", Message: "failed"}}} {
		s := delayed(0)
		s.Next()
		apply(t, s, waiting("g", flow.WaitSignal, time.Time{}))
		met.Type, met.Node, met.At = flow.EventMet, "g", epoch
		apply(t, s, met)
		settle(t, s)
		if met.Port != "" && s.Output() != "late" || met.Error != nil && (s.Outcome() != flow.Failed || s.Failure().Code != "child") {
			t.Errorf("%+v: %s %v", met, s.Outcome(), s.Output())
		}
	}
}

func TestBadResultsFailTheStep(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\nx http.request {\"url\": \"u\"}\ns -> x"))
	for code, e := range map[string]flow.Event{
		"unknown-port": {Type: flow.EventSucceeded, Port: "nowhere"},
		"output":       {Type: flow.EventSucceeded, Output: func() {}},
		"error":        {Type: flow.EventFailed},
	} {
		s := p.Start(record(nil))
		s.Next()
		e.Node, e.At = "x", epoch
		apply(t, s, e)
		if s.Outcome() != flow.Failed || s.Failure().Code != code {
			t.Errorf("%s: %s %+v", code, s.Outcome(), s.Failure())
		}
	}
	if s := p.Start(record(func() {})); s.Outcome() != flow.Failed || s.Failure().Code != "input" {
		t.Errorf("input: %s", s.Outcome())
	}
}

// An event that doesn't fit is an error and changes nothing.
func TestMisfits(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart(orders))
	s := p.Start(record(map[string]any{"orderId": 7}))
	s.Next()
	before := fmt.Sprintf("%+v %v %v", s.Steps(), s.Clock(), s.InFlight())
	at := epoch.Add(time.Hour)
	for _, e := range []flow.Event{
		{Type: flow.EventSucceeded, Node: "nobody", At: at}, {Type: flow.EventSucceeded, Node: "fetch", Iteration: "0", At: at}, {Type: flow.EventSucceeded, Node: "start", At: at},
		{Type: flow.EventSucceeded, Node: "result", At: at}, {Type: flow.EventSucceeded, Node: "fetch", Try: 2, At: at}, {Type: flow.EventMet, Node: "fetch", At: at},
		{Type: flow.EventWaiting, Node: "fetch", At: at}, {Type: "other", Node: "fetch", At: at},
	} {
		if err := s.Apply(e); !errors.Is(err, flow.ErrMisfit) {
			t.Errorf("%+v: %v", e, err)
		}
		if after := fmt.Sprintf("%+v %v %v", s.Steps(), s.Clock(), s.InFlight()); after != before {
			t.Errorf("%+v changed the state:\n%s\n%s", e, before, after)
		}
	}
	if _, err := flow.Restore(p, record(nil), []flow.Event{{Type: flow.EventSucceeded, Node: "start"}}); !errors.Is(err, flow.ErrMisfit) {
		t.Errorf("restore: %v", err)
	}
}

// A step sees what is upstream of it and nothing else, also through the scope that nodes get.
func TestScopeEndsUpstream(t *testing.T) {
	t.Parallel()
	s := mustCompile(t, chart("s trigger.manual\na data.set {\"values\": 1}\nb http.request {\"url\": \"u\"}\ns -> a\ns -> b")).Start(record(5))
	rest := settle(t, s)
	scope := rest[0].Scope
	if v, ok := scope.Steps("s"); !ok || v.Output != 5 || v.Status != "succeeded" {
		t.Errorf("s: %+v %v", v, ok)
	}
	for _, id := range []string{"a", "b", "nobody"} {
		if _, ok := scope.Steps(id); ok {
			t.Errorf("b sees %s", id)
		}
	}
}

// now() is the time of the last recorded event upstream: neither pure steps nor parallel branches move it.
func TestClock(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\na http.request {\"url\": \"u\"}\nb http.request {\"url\": \"u\"}\npa data.set {\"values\": \"{{ now().unix }}\"}\npb data.set {\"values\": \"{{ now().unix }}\"}\nj data.set {\"values\": \"{{ [steps.pa.output, steps.pb.output, now().unix, random()] }}\"}\ns -> a\ns -> b\na -> pa\nb -> pb\npa -> j\npb -> j"))
	var outputs []string
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		s := p.Start(record(nil))
		settle(t, s)
		for _, node := range order {
			apply(t, s, flow.Event{Type: flow.EventSucceeded, Node: node, At: epoch.Add(map[string]time.Duration{"a": 10 * time.Second, "b": 20 * time.Second}[node])})
			settle(t, s)
		}
		outputs = append(outputs, encode(t, s.Output()))
		if !s.Clock().Equal(epoch.Add(20 * time.Second)) {
			t.Errorf("clock %s", s.Clock())
		}
	}
	if u := epoch.Unix(); outputs[0] != outputs[1] || !strings.HasPrefix(outputs[0], fmt.Sprintf("[%d,%d,%d,", u+10, u+20, u+20)) {
		t.Errorf("%v", outputs)
	}
}

// Places of a config draw different random numbers, nodes and executions too.
func TestRandomDiffersByPlace(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\na data.set {\"values\": [\"{{ random() }}\", \"{{ random() }}\", \"x{{ random() }}{{ random() }}\"]}\nb data.set {\"values\": \"{{ random() }}\"}\ns -> a\ns -> b"))
	run := func(id string) string {
		rec := record(nil)
		rec.Execution.ID = id
		s := p.Start(rec)
		settle(t, s)
		return encode(t, s.Output())
	}
	if first, again, other := run("one"), run("one"), run("two"); first != again || first == other {
		t.Errorf("%s, again %s, another execution %s", first, again, other)
	}
	seen := map[string]bool{}
	for _, n := range strings.FieldsFunc(run("one"), func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) {
		if seen[n] {
			t.Errorf("%s twice in %s", n, run("one"))
		}
		seen[n] = true
	}
}

// Which failure came first must come out the same when restored, also when the first one is an expression's and so no event.
func TestTheFirstFailureStaysTheFirst(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\na http.request {\"url\": \"u\"}\np data.set {\"values\": 1}\nx http.request {\"url\": \"{{ input.nope }}\"}\ns -> a\ns -> p\np -> x"))
	s := p.Start(record(map[string]any{}))
	settle(t, s)
	apply(t, s, failed("a", 1, false, time.Second))
	events := []flow.Event{{Type: flow.EventSucceeded, Node: "p", Pure: true, At: epoch}, failed("a", 1, false, time.Second)}
	restored, err := flow.Restore(p, record(map[string]any{}), events)
	if err != nil {
		t.Fatal(err)
	}
	if s.Failure().Node != "x" || restored.Failure().Node != "x" || s.Outcome() != flow.Failed || restored.Outcome() != flow.Failed {
		t.Errorf("live %+v, restored %+v", s.Failure(), restored.Failure())
	}
}

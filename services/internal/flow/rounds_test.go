package flow_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

// finish runs a flow whose effects answer with what do gives, oldest first.
func finish(t testing.TB, s *flow.State, do func(cmd flow.Command) flow.Event) {
	t.Helper()
	var open []flow.Command
	for s.Outcome() == flow.Running {
		open = append(open, settle(t, s)...)
		if len(open) == 0 {
			break
		}
		cmd := open[0]
		open = open[1:]
		e := do(cmd)
		e.Node, e.Iteration, e.Try = cmd.Key.Node, cmd.Key.Iteration, cmd.Try
		apply(t, s, e)
	}
}

func ok(output any) flow.Event {
	return flow.Event{Type: flow.EventSucceeded, Output: output, At: epoch.Add(time.Second)}
}

func bad(code string) flow.Event {
	return flow.Event{Type: flow.EventFailed, Error: &flow.Failure{Code: code, Message: code}, At: epoch.Add(time.Second)}
}

func TestContainers(t *testing.T) {
	t.Parallel()
	const call = "\nx http.request {\"url\": \"{{ item }}\"} | \"parent\": \"loop\""
	for name, tc := range map[string]struct{ lines, want string }{
		"foreach":            {"s trigger.manual\nloop logic.foreach {\"items\": \"{{ input }}\"}\na data.set {\"values\": \"{{ [index, item, steps.s.output[0]] }}\"} | \"parent\": \"loop\"\ns -> loop", `[[0,5,5],[1,-1,5],[2,7,5]]`},
		"order of items":     {"s trigger.manual\nloop logic.foreach {\"items\": \"{{ input }}\", \"concurrency\": 3}" + call + "\ns -> loop", `failed round 1: no`},
		"continue":           {"s trigger.manual\nloop logic.foreach {\"items\": \"{{ input }}\", \"onItemError\": \"continue\"}" + call + "\ns -> loop", `[5,null,7]`},
		"collect":            {"s trigger.manual\nloop logic.foreach {\"items\": \"{{ input }}\", \"concurrency\": 2, \"onItemError\": \"collect\"}" + call + "\ns -> loop", `[5,{"error":{"code":"no","message":"no","node":"x"}},7]`},
		"fail is routed":     {"s trigger.manual\nloop logic.foreach {\"items\": \"{{ input }}\"} | \"onError\": \"route\"" + call + "\nr data.set {\"values\": \"{{ steps.loop.error.node }}\"}\ns -> loop\nloop.error -> r", `"x"`},
		"no items":           {"s trigger.manual\nloop logic.foreach {\"items\": []}" + call + "\ns -> loop", `[]`},
		"items is no list":   {"s trigger.manual\nloop logic.foreach {\"items\": \"{{ 7 }}\"}" + call + "\ns -> loop", `failed items is a number, it must be a list`},
		"while":              {"s trigger.manual\nloop logic.while {\"condition\": \"{{ index < 3 }}\"}\na data.set {\"values\": \"{{ (item ?? 100) + index }}\"} | \"parent\": \"loop\"\ns -> loop", `[100,101,103]`},
		"while by its last":  {"s trigger.manual\nloop logic.while {\"condition\": \"{{ index == 0 or item < 103 }}\"}\na data.set {\"values\": \"{{ (item ?? 100) + 1 }}\"} | \"parent\": \"loop\"\ns -> loop", `[101,102,103]`},
		"max rounds":         {"s trigger.manual\nloop logic.while {\"condition\": true, \"maxRounds\": 3}\na data.set {\"values\": 1} | \"parent\": \"loop\"\ns -> loop", `failed the condition still holds after 3 rounds, the most that maxRounds allows: raise it, or look at why the loop doesn't come to an end`},
		"no condition":       {"s trigger.manual\nloop logic.while {\"condition\": \"{{ 1 }}\"}\na data.set {\"values\": 1} | \"parent\": \"loop\"\ns -> loop", `failed condition is a number, it must be true or false: compare, as in {{ index < 3 }}`},
		"try":                {"s trigger.manual\nloop logic.try\na data.set {\"values\": 1} | \"parent\": \"loop\"\ne data.set {\"values\": 2}\ns -> loop\nloop.error -> e", `1`},
		"try catches":        {"s trigger.manual\nloop logic.try\na http.request {\"url\": -1} | \"parent\": \"loop\"\nb data.set {\"values\": 3} | \"parent\": \"loop\"\na -> b\ne data.set {\"values\": \"{{ [steps.loop.output.code, steps.loop.error.node, steps.loop.port] }}\"}\nm data.set {\"values\": 2}\ns -> loop\nloop.error -> e\nloop -> m", `["no","a","error"]`},
		"finally is last":    {"s trigger.manual\nloop logic.try\na http.request {\"url\": -1} | \"parent\": \"loop\"\ne http.request {\"url\": 4}\nf data.set {\"values\": \"{{ [steps.e.output, steps.loop.error.code] }}\"}\ns -> loop\nloop.error -> e\nloop.finally -> f", `{"e":4,"f":[4,"no"]}`},
		"finally and a join": {"s trigger.manual\nloop logic.try\na data.set {\"values\": 1} | \"parent\": \"loop\"\nm http.request {\"url\": 6}\nf http.request {\"url\": \"{{ steps.m.output + 1 }}\"}\nj data.set {\"values\": \"{{ [steps.m.output, steps.f.output] }}\"}\ns -> loop\nloop -> m\nloop.finally -> f\nm -> j\nf -> j", `[6,7]`},
		"try inside a loop":  {"s trigger.manual\nloop logic.foreach {\"items\": \"{{ input }}\", \"concurrency\": 2}\nt logic.try | \"parent\": \"loop\"\nx http.request {\"url\": \"{{ item }}\"} | \"parent\": \"t\"\ne data.set {\"values\": \"{{ [item, steps.t.error.code] }}\"} | \"parent\": \"loop\"\ns -> loop\nt.error -> e", `[5,[-1,"no"],7]`},
		"nested":             {"s trigger.manual\nloop logic.foreach {\"items\": [[1, 2], [], [3]]}\nin logic.foreach {\"items\": \"{{ item }}\"} | \"parent\": \"loop\"\nx http.request {\"url\": \"{{ item * 10 }}\"} | \"parent\": \"in\"\ns -> loop", `[[10,20],[],[30]]`},
		"stop inside":        {"s trigger.manual\nloop logic.foreach {\"items\": \"{{ input }}\", \"concurrency\": 2}\nif logic.if {\"condition\": \"{{ item < 0 }}\"} | \"parent\": \"loop\"\nstop flow.stop {\"output\": \"{{ index }}\"} | \"parent\": \"loop\"\nx http.request {\"url\": 1} | \"parent\": \"loop\"\nif.true -> stop\nif.false -> x\ns -> loop", `1`},
		"several ends":       {"s trigger.manual\nloop logic.foreach {\"items\": [1]}\na data.set {\"values\": 1} | \"parent\": \"loop\"\nb data.set {\"values\": \"{{ item }}\"} | \"parent\": \"loop\"\ns -> loop", `[{"a":1,"b":1}]`},
	} {
		p := mustCompile(t, chart(tc.lines))
		s := p.Start(record([]any{5, -1, 7}))
		finish(t, s, func(cmd flow.Command) flow.Event {
			if cmd.Config["url"] == -1 {
				return bad("no")
			}
			return ok(cmd.Config["url"])
		})
		got := encode(t, s.Output())
		if s.Failure() != nil {
			got = "failed " + s.Failure().Message
		}
		if got != tc.want || s.InFlight() > 0 {
			t.Errorf("%s: %s %s with %d in flight, want %s", name, s.Outcome(), got, s.InFlight(), tc.want)
		}
	}
}

// A round that fails lets what is in flight end and be recorded, and takes back what hasn't begun; waits and pauses in it are forgotten.
func TestAFailedRoundIsGivenUp(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart(`
		s trigger.manual
		loop logic.foreach {"items": [0, 1], "concurrency": 2, "onItemError": "continue"}
		bad http.request {"url": "bad"} | "parent": "loop"
		slow http.request {"url": "slow"} | "parent": "loop"
		late http.request {"url": "late"} | "parent": "loop"
		wait flow.signal {"name": "x"} | "parent": "loop"
		s -> loop`))
	s := p.Start(record(nil))
	if n := len(settle(t, s)); n != 8 {
		t.Fatalf("%d commands", n)
	}
	event := func(e flow.Event, node, round string) {
		e.Node, e.Iteration, e.Try = node, round, 1
		apply(t, s, e)
	}
	event(flow.Event{Type: flow.EventWaiting, Wait: &flow.Wait{Kind: flow.WaitSignal}, At: epoch}, "wait", "0")
	event(bad("no"), "bad", "0")
	if !s.Void(flow.Key{Node: "slow", Iteration: "0"}) || s.Void(flow.Key{Node: "slow", Iteration: "1"}) || s.Voids() != 1 {
		t.Fatal("the failed round isn't void, or the other is")
	}
	s.Withdraw(flow.Key{Node: "late", Iteration: "0"})
	event(ok(1), "slow", "0")
	for _, step := range s.Steps() {
		if step.Key.Iteration == "0" && (step.Status == "running" || step.Status == "waiting") {
			t.Errorf("%+v", step)
		}
	}
	if len(s.OpenWaits()) != 0 || s.InFlight() != 4 || s.Outcome() != flow.Running {
		t.Errorf("waits %v, %d in flight, %s", s.OpenWaits(), s.InFlight(), s.Outcome())
	}
	if err := s.Apply(flow.Event{Type: flow.EventMet, Node: "wait", Iteration: "0", At: epoch}); err == nil {
		t.Error("a wait of a round that was given up was met")
	}
}

// A delay in a round counts from when the round begins, also when it had to wait for its turn.
func TestClockOfRounds(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\nloop logic.foreach {\"items\": [0, 1], \"concurrency\": 1}\nx http.request {\"url\": \"{{ now() }}\"} | \"parent\": \"loop\"\ns -> loop"))
	s := p.Start(record(nil))
	at := epoch
	finish(t, s, func(cmd flow.Command) flow.Event {
		at = at.Add(time.Minute)
		return flow.Event{Type: flow.EventSucceeded, Output: cmd.Config["url"], At: at}
	})
	if got := encode(t, s.Output()); got != `["2026-03-01T10:00:00Z","2026-03-01T10:01:00Z"]` {
		t.Error(got)
	}
}

const loop = `
	s trigger.manual
	loop logic.while {"condition": "{{ index < input }}", "maxRounds": 1000000}
	a data.set {"values": "{{ index }}"} | "parent": "loop"
	b http.request {"url": "{{ steps.a.output }}"} | "parent": "loop"
	if logic.if {"condition": "{{ true }}"} | "parent": "loop"
	end data.set {"values": "{{ len(steps.loop.output) }}"}
	a -> KIND
	KIND -> if
	s -> loop
	loop -> end`

// 100,000 rounds take time in proportion, keep their results only, and make a checkpoint of their results only.
func TestLongLoops(t *testing.T) {
	t.Parallel()
	const rounds = 100_000
	for name, lines := range map[string]string{
		"effects": strings.ReplaceAll(loop, "KIND", "b"),
		"pure":    strings.ReplaceAll(strings.ReplaceAll(loop, "KIND", "b"), "http.request {\"url\":", "data.set {\"values\":"),
	} {
		p := mustCompile(t, chart(lines))
		s := p.Start(record(rounds))
		done := 0
		finish(t, s, func(cmd flow.Command) flow.Event {
			done++
			return ok(nil)
		})
		if s.Outcome() != flow.Succeeded || s.Output() != rounds {
			t.Fatalf("%s: %s %v %v", name, s.Outcome(), s.Output(), s.Failure())
		}
		if n := len(s.Steps()); n > 200 {
			t.Errorf("%s: %d steps are shown", name, n)
		}
		sum := s.Sum()
		if len(sum) > 200 {
			t.Errorf("%s: a checkpoint has %d events", name, len(sum))
		}
		again, err := flow.Restore(p, record(rounds), sum)
		if err != nil || again.Outcome() != flow.Succeeded || again.Output() != rounds {
			t.Errorf("%s: %v %v", name, err, again.Outcome())
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		t.Logf("%s: %d effects, heap %d MiB", name, done, m.HeapAlloc>>20)
		runtime.KeepAlive(s)
	}
}

// The list of a container has a limit.
func TestListsAreLimited(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\nloop logic.while {\"condition\": true, \"maxRounds\": 1000}\na data.set {\"values\": \"{{ input }}\"} | \"parent\": \"loop\"\ns -> loop"))
	s := p.Start(record(strings.Repeat("x", 100_000)))
	settle(t, s)
	if f := s.Failure(); f == nil || f.Code != "output" || !strings.Contains(f.Message, "4 MiB") {
		t.Errorf("%s %+v", s.Outcome(), f)
	}
}

// Rounds that all fail before anything is asked for don't pile up.
func TestRoundsThatFailAtOnce(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\nloop logic.foreach {\"items\": \"{{ 1..50000 }}\", \"onItemError\": \"continue\", \"concurrency\": 10}\na data.set {\"values\": \"{{ item.x }}\"} | \"parent\": \"loop\"\ns -> loop"))
	s := p.Start(record(nil))
	settle(t, s)
	if list, _ := s.Output().([]any); len(list) != 50_000 || s.Outcome() != flow.Succeeded {
		t.Errorf("%s %d %v", s.Outcome(), len(list), s.Failure())
	}
}

func BenchmarkLoop(b *testing.B) {
	p := mustCompile(b, chart("s trigger.manual\nloop logic.foreach {\"items\": \"{{ 1..1000 }}\"}\na data.set {\"values\": \"{{ item }}\"} | \"parent\": \"loop\"\nb data.set {\"values\": \"{{ steps.a.output }}\"} | \"parent\": \"loop\"\na -> b\ns -> loop"))
	b.ReportAllocs()
	for b.Loop() {
		s := p.Start(record(nil))
		settle(b, s)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/round")
}

func BenchmarkLargestFlow(b *testing.B) {
	chain := "n0 trigger.manual\n"
	for i := 1; i < 2000; i++ {
		chain += fmt.Sprintf("n%d data.set {\"values\": \"{{ steps.n%d.output + 1 }}\"}\nn%d -> n%d\n", i, i-1, i-1, i)
	}
	document := chart(chain)
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			mustCompile(b, document)
		}
	})
	p := mustCompile(b, document)
	b.Run("run", func(b *testing.B) {
		for b.Loop() {
			s := p.Start(record(0))
			settle(b, s)
		}
	})
}

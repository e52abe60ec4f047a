package flow_test

import (
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

var retryEvent = flow.Event{Type: flow.EventRetry, At: epoch.Add(time.Hour)}

// broken names the steps of effects whose failure fails the execution, by what was recorded: all of whose tries are used up and that nothing around takes.
func broken(p *flow.Program, s *flow.State) (out []flow.Key) {
	nodes := map[string]flow.Node{}
	for _, n := range p.Definition().Nodes {
		nodes[n.ID] = n
	}
	for _, st := range s.Steps() {
		caught := false
		for n := nodes[st.Key.Node]; n.ID != ""; n = nodes[n.Parent] {
			mode, _ := nodes[n.Parent].Config["onItemError"].(string)
			caught = caught || n.OnError == "continue" || n.OnError == "route" || nodes[n.Parent].Type == "logic.try" || mode == "continue" || mode == "collect"
		}
		spent := func() bool { return !st.Error.Retryable || st.Try >= nodes[st.Key.Node].Retry.Tries() } // else its tries go on after the retry
		if !caught && st.Status == "failed" && st.Type == "http.request" && spent() {
			out = append(out, st.Key)
		}
	}
	return out
}

// After a retry an execution ends as one would in which the steps that had failed it don't fail, whatever else failed and was caught; what had succeeded
// doesn't run again. So it does from a checkpoint taken anywhere before, and with pure steps missing.
func TestARetryEndsAsIfNothingHadFailed(t *testing.T) {
	t.Parallel()
	retried, inside, exact := 0, 0, 0
	caught := regexp.MustCompile(`logic.try|logic.*"onError": "(route|continue)"|"onItemError": "(continue|collect)"`)
	for seed := range uint64(*turns) {
		r := rand.New(rand.NewPCG(seed, 6))
		document := randomFlow(r, true)
		p := mustCompile(t, document)
		rec := record(map[string]any{"n": 4})
		w := world{failures: true, unlucky: true, healed: map[flow.Key]bool{}}
		s := p.Start(rec)
		var events []flow.Event
		for round := 0; ; round++ {
			at, sum := r.IntN(8), []flow.Event(nil)
			cut := len(events)
			before := len(events)
			w.watch = func(k int) {
				if k == at {
					sum, cut = throughJSON(t, s.Sum()), before+k
				}
			}
			done := map[flow.Key]bool{}
			for _, e := range events {
				if e.Type == flow.EventSucceeded && !e.Pure {
					done[flow.Key{Node: e.Node, Iteration: e.Iteration}] = true
				}
			}
			w.begun = func(cmd flow.Command) {
				if done[cmd.Key] && cmd.Kind == flow.KindEffect {
					t.Fatalf("seed %d: %v has succeeded, and is run again after retry %d", seed, cmd.Key, round)
				}
			}
			events = append(events, throughJSON(t, w.run(t, s, r))...)
			w.watch, w.begun = nil, nil
			if s.Outcome() != flow.Failed || s.Failure().Code != "flaky" || round > 50 {
				break
			}
			retried++
			if strings.Contains(s.Failure().Message, "round") {
				inside++
			}
			for _, key := range broken(p, s) {
				w.healed[key] = true
			}
			kept := events
			switch r.IntN(4) {
			case 0: // a checkpoint on the way
				if sum != nil {
					kept = slices.Concat(events[:cut], sum, events[cut:])
				}
			case 1: // one of the end
				kept = throughJSON(t, s.Sum())
			case 2:
				kept = slices.DeleteFunc(slices.Clone(events), func(e flow.Event) bool { return e.Pure && r.IntN(3) == 0 })
			}
			again, err := flow.Restore(p, rec, append(slices.Clone(kept), retryEvent))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if r.IntN(3) == 0 { // a checkpoint of what has just been retried
				if again, err = flow.Restore(p, rec, throughJSON(t, again.Sum())); err != nil {
					t.Fatalf("seed %d: checkpoint after a retry: %v", seed, err)
				}
			}
			if f := again.Failure(); f != nil && f.Code == "flaky" {
				t.Fatalf("seed %d: retried and still failed: %+v", seed, f)
			}
			s, events = again, append(slices.Clone(events), retryEvent)
		}
		fresh := p.Start(rec)
		w.run(t, fresh, r)
		got, want := result(t, s), result(t, fresh)
		if caught.MatchString(document) { // which of several fails first in a round is chance, and shows where it is caught
			got, want = string(s.Outcome()), string(fresh.Outcome())
		} else if s.Outcome() == flow.Succeeded && len(w.healed) > 0 {
			exact++
		}
		if got != want {
			t.Fatalf("seed %d: retried: %s %v\nfrom the beginning: %s %v", seed, got, s.Failure(), want, fresh.Failure())
		}
	}
	if retried < *turns/10 || inside < *turns/50 || exact < *turns/50 {
		t.Errorf("%d retries, %d of failures in rounds, %d outputs compared: too few to show anything", retried, inside, exact)
	}
}

// With pinned outputs and from any node on, a replay runs what it must and keeps the rest; with nothing changed it ends as the old execution did.
func TestReplayRunsWhatItMust(t *testing.T) {
	t.Parallel()
	kept, pinned := 0, 0
	clock := regexp.MustCompile(`2026-03-01T1\d:\d\d:\d\d(\.\d+)?Z`)
	for seed := range uint64(*turns) {
		r := rand.New(rand.NewPCG(seed, 7))
		p := mustCompile(t, randomFlow(r, seed%2 == 0))
		rec := record(map[string]any{"n": 4})
		old := p.Start(rec)
		events := throughJSON(t, world{failures: seed%2 == 0}.run(t, old, r))
		var top []flow.Node
		for _, n := range p.Definition().Nodes {
			if n.Parent == "" && n.ID != "n0" {
				top = append(top, n)
			}
		}
		from := top[r.IntN(len(top))].ID
		outputs := map[string]any{}
		was := map[string]flow.Step{}
		for _, st := range old.Steps() {
			if st.Key.Iteration == "" {
				was[st.Key.Node] = st
			}
		}
		if n := top[r.IntN(len(top))]; r.IntN(2) == 0 && was[n.ID].Status == "succeeded" && was[n.ID].Error == nil { // the same as before
			outputs[n.ID] = map[string]any{"output": was[n.ID].Output, "port": was[n.ID].Port}
			pinned++
		}
		begins, problems := flow.Replay(p, rec, events, from, outputs)
		if len(problems) > 0 {
			t.Fatalf("seed %d: %v", seed, problems)
		}
		s, err := flow.Restore(p, rec, throughJSON(t, begins))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if r.IntN(2) == 0 {
			if s, err = flow.Restore(p, rec, throughJSON(t, s.Sum())); err != nil {
				t.Fatalf("seed %d: checkpoint: %v", seed, err)
			}
		}
		after := downstream(p, from)
		finally := slices.ContainsFunc(p.Definition().Edges, func(e flow.Edge) bool { return e.Port == flow.PortFinally })
		ran := map[string]bool{}
		w := world{failures: seed%2 == 0, begun: func(cmd flow.Command) { ran[cmd.Key.Node] = true }}
		w.run(t, s, r)
		for _, n := range top {
			_, pin := outputs[n.ID]
			settled := was[n.ID].Status == "succeeded" && !after[n.ID] && !finally // what follows by finally comes after more than its edges say
			if ran[n.ID] && (pin || settled) {
				t.Fatalf("seed %d: from %s: %s is run, pinned %v, kept %v", seed, from, n.ID, pin, settled)
			}
			if settled && n.Type != "logic.merge" {
				kept++
			}
		}
		got, want := result(t, s), result(t, old)
		if len(outputs) > 0 { // a pin has no time
			got, want = clock.ReplaceAllString(got, ""), clock.ReplaceAllString(want, "")
		}
		if got != want && old.Outcome() == flow.Succeeded {
			t.Fatalf("seed %d: replayed from %s with %v: %s %v\nwant %s", seed, from, outputs, got, s.Failure(), want)
		}
	}
	if kept < *turns || pinned < *turns/10 {
		t.Errorf("%d steps kept, %d pinned: too few to show anything", kept, pinned)
	}
}

// downstream names a node and what comes after it, over edges.
func downstream(p *flow.Program, from string) map[string]bool {
	out := map[string]bool{from: true}
	for grown := true; grown; {
		grown = false
		for _, e := range p.Definition().Edges {
			if out[e.From] && !out[e.To] {
				out[e.To], grown = true, true
			}
		}
	}
	return out
}

func TestReplayRefuses(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart(`
		s trigger.manual
		if logic.if {"condition": true}
		loop logic.foreach {"items": [1]}
		in logic.try | "parent": "loop"
		x http.request {"url": 1} | "parent": "in"
		e data.set {"values": 1} | "parent": "loop"
		in.error -> e
		s -> if
		if.true -> loop`))
	for name, tc := range map[string]struct {
		from    string
		outputs map[string]any
		want    string
	}{
		"unknown node":        {from: "lop", want: "/fromNode unknown-node"},
		"inside a container":  {from: "x", want: "/fromNode inside-container"},
		"unknown pin":         {outputs: map[string]any{"a/b": 1}, want: "/outputs/a~1b unknown-node"},
		"empty pin":           {outputs: map[string]any{"": 1}, want: "/outputs/ unknown-node"},
		"pin of a trigger":    {outputs: map[string]any{"s": 1}, want: "/outputs/s trigger"},
		"pin inside":          {outputs: map[string]any{"x": 1}, want: "/outputs/x inside-container"},
		"no port":             {outputs: map[string]any{"if": true}, want: "/outputs/if unknown-port"},
		"wrong port":          {outputs: map[string]any{"if": map[string]any{"port": "maybe"}}, want: "/outputs/if unknown-port"},
		"a port":              {outputs: map[string]any{"if": map[string]any{"port": "false"}}},
		"a container":         {outputs: map[string]any{"loop": []any{1}}},
		"output with a field": {outputs: map[string]any{"loop": map[string]any{"port": "x", "more": 1}}},
	} {
		_, problems := flow.Replay(p, record(nil), nil, tc.from, tc.outputs)
		got := ""
		for _, p := range problems {
			got += p.Pointer + " " + p.Code
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// What is recorded of rounds that run beside the one that failed stays, also when it came in after the failure.
func TestRetryInALoop(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart(`
		s trigger.manual
		loop logic.foreach {"items": [0, 1, 2, 3], "concurrency": 3}
		a http.request {"url": "{{ item }}"} | "parent": "loop"
		b http.request {"url": "{{ steps.a.output }}"} | "parent": "loop"
		a -> b
		s -> loop`))
	rec := record(nil)
	s := p.Start(rec)
	var events []flow.Event
	event := func(e flow.Event, node, round string) {
		e.Node, e.Iteration, e.Try = node, round, 1
		apply(t, s, e)
		events = append(events, e)
	}
	if n := len(settle(t, s)); n != 3 {
		t.Fatalf("%d commands", n)
	}
	event(ok(10), "a", "0")
	settle(t, s)
	event(bad("no"), "a", "1")
	event(ok(12), "a", "2")    // in flight when it failed
	event(bad("no"), "b", "0") // likewise
	if s.Outcome() != flow.Failed || s.Failure().Message != "round 1: no" || s.Failure().Node != "a" {
		t.Fatalf("%s %+v", s.Outcome(), s.Failure())
	}
	for _, events := range [][]flow.Event{events, throughJSON(t, s.Sum())} {
		again, err := flow.Restore(p, rec, append(slices.Clone(events), retryEvent))
		if err != nil {
			t.Fatal(err)
		}
		asked := map[flow.Key]int{}
		finish(t, again, func(cmd flow.Command) flow.Event {
			if cmd.Retries != 1 || cmd.Try != 1 {
				t.Errorf("%v: retries %d, try %d", cmd.Key, cmd.Retries, cmd.Try)
			}
			asked[cmd.Key]++
			return ok(cmd.Config["url"])
		})
		want := map[flow.Key]int{{Node: "a", Iteration: "1"}: 1, {Node: "a", Iteration: "3"}: 1, {Node: "b", Iteration: "0"}: 1, {Node: "b", Iteration: "1"}: 1, {Node: "b", Iteration: "2"}: 1, {Node: "b", Iteration: "3"}: 1}
		if !maps.Equal(asked, want) || again.Outcome() != flow.Succeeded || encode(t, again.Output()) != "[10,1,12,3]" {
			t.Errorf("asked for %v; %s %s", asked, again.Outcome(), encode(t, again.Output()))
		}
	}
}

// What waits for the outside when an execution ends is opened anew by a retry; a timer keeps its time.
func TestRetryOpensWaitsAnew(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart(`
		s trigger.manual
		sig flow.signal {"name": "x"}
		d flow.delay {"duration": 1}
		x http.request {"url": 1}
		s -> sig
		s -> d
		s -> x`))
	s := p.Start(record(nil))
	settle(t, s)
	events := []flow.Event{
		{Type: flow.EventWaiting, Node: "sig", Try: 1, Wait: &flow.Wait{Kind: flow.WaitSignal, Key: "x"}, At: epoch},
		{Type: flow.EventWaiting, Node: "d", Try: 1, Wait: &flow.Wait{Kind: flow.WaitTimer, Due: epoch.Add(time.Hour)}, At: epoch},
		bad("no"),
	}
	events[2].Node, events[2].Try = "x", 1
	again, err := flow.Restore(p, record(nil), append(events, retryEvent))
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for _, cmd := range again.Next() {
		nodes = append(nodes, cmd.Key.Node)
	}
	slices.Sort(nodes)
	if waits := again.OpenWaits(); len(waits) != 1 || waits[0].Key.Node != "d" || strings.Join(nodes, " ") != "sig x" {
		t.Errorf("waits %v, asked for %v", waits, nodes)
	}
}

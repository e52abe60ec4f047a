package flow_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

// withUndo gives each call of a chart's document a compensation.
func withUndo(document string) string {
	def, problems := flow.Parse([]byte(document))
	if len(problems) > 0 {
		panic(fmt.Sprint(problems))
	}
	var lines strings.Builder
	for _, n := range def.Nodes {
		if n.Type == "http.request" {
			fmt.Fprintf(&lines, `, {"id": "u%s", "type": "http.request", "parent": %q, "config": {"url": "{{ steps.%s.output.n }}"}}`, n.ID, n.Parent, n.ID)
			document = strings.Replace(document, fmt.Sprintf(`{"id": %q,`, n.ID), fmt.Sprintf(`{"id": %q, "compensate": "u%s",`, n.ID, n.ID), 1)
		}
	}
	return strings.Replace(document, `], "edges"`, lines.String()+`], "edges"`, 1)
}

// undoing splits what was recorded: the steps that succeeded and have something to undo, and those that undo.
func undoing(events []flow.Event) (done, undone []string) {
	for _, e := range events {
		name := e.Node + "/" + e.Iteration
		switch {
		case e.Type == flow.EventFailed && e.Node[0] == 'u': // it has one try
			undone = append(undone, name[1:])
		case e.Type != flow.EventSucceeded || e.Pure:
		case e.Node[0] == 'u':
			undone = append(undone, name[1:])
		case e.Output != nil:
			done = append(done, name)
		}
	}
	return done, undone
}

// Whatever fails an execution, in whatever order its steps ended: what they did is undone in the reverse order, each once, after all else has ended; so it is
// when it goes on from any prefix of what was recorded, or from a checkpoint.
func TestEveryStepIsUndoneInReverse(t *testing.T) {
	t.Parallel()
	undone := 0
	for seed := range uint64(*turns) {
		r := rand.New(rand.NewPCG(seed, 8))
		p := mustCompile(t, withUndo(randomFlow(r, true)))
		rec := record(map[string]any{"n": 4})
		w := world{failures: true, unlucky: seed%2 == 0}
		s := p.Start(rec)
		check := func(what string, s *flow.State, events []flow.Event) {
			t.Helper()
			done, back := undoing(events)
			if s.Outcome() == flow.Succeeded {
				done = nil
			}
			slices.Reverse(done)
			if !slices.Equal(done, back) {
				t.Fatalf("seed %d, %s: %s: to be undone %v\nwas undone %v\n%v", seed, what, s.Outcome(), done, back, s.Failure())
			}
			undone += len(back)
		}
		sums := map[int][]flow.Event{}
		w.watch = func(k int) { sums[k] = throughJSON(t, s.Sum()) }
		events := throughJSON(t, w.run(t, s, r))
		w.watch = nil
		check("run", s, events)
		if s.Outcome() == flow.Succeeded {
			continue
		}
		for cut := range len(events) + 1 {
			kept := slices.Clone(events[:cut])
			if sum := sums[cut]; sum != nil && r.IntN(2) == 0 {
				kept = slices.Concat(kept, sum)
			}
			again, err := flow.Restore(p, rec, kept)
			if err != nil {
				t.Fatalf("seed %d: restore %d of %d: %v", seed, cut, len(events), err)
			}
			more := w.run(t, again, r)
			check(fmt.Sprintf("after %d of %d, %d of a checkpoint", cut, len(events), len(kept)-cut), again, slices.Concat(events[:cut], throughJSON(t, more)))
		}
	}
	if undone < *turns {
		t.Errorf("%d steps undone: too few to show anything", undone)
	}
}

// A cancelled execution is undone from where it stands; what it was waiting for is given up, and a second time changes nothing.
func TestACancelledExecutionIsUndone(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart(`
		s trigger.manual
		a http.request {"url": 1} | "compensate": "ua"
		ua http.request {"url": "{{ steps.a.output }}"} | "retry": {"maxAttempts": 2, "initialDelay": "1m"}
		b http.request {"url": 2} | "compensate": "ub"
		ub http.request {"url": "{{ steps.a.output + steps.b.output }}"}
		sig flow.signal {"name": "x"}
		s -> a
		a -> b
		b -> sig`))
	rec := record(nil)
	s := p.Start(rec)
	var events []flow.Event
	event := func(e flow.Event, node string) {
		t.Helper()
		e.Node, e.Try = node, max(1, e.Try)
		if e.Type == flow.EventMet || e.Type == flow.EventUndo {
			e.Try = 0
		}
		apply(t, s, e)
		events = append(events, e)
		again, err := flow.Restore(p, rec, throughJSON(t, events))
		if err != nil {
			t.Fatal(err)
		}
		if sum, err := flow.Restore(p, rec, throughJSON(t, again.Sum())); err != nil {
			t.Fatal(err)
		} else if s = sum; len(events)%2 == 0 {
			s = again
		}
	}
	asked := func(want string) {
		t.Helper()
		got := ""
		for _, cmd := range s.Next() {
			got += fmt.Sprintf("%s %v try %d undo %v", cmd.Key.Node, cmd.Config["url"], cmd.Try, cmd.Undo)
		}
		if got != want {
			t.Fatalf("asked for %q, want %q", got, want)
		}
	}
	asked("a 1 try 1 undo false")
	event(ok(10), "a")
	asked("b 2 try 1 undo false")
	event(ok(20), "b")
	s.Next()
	event(flow.Event{Type: flow.EventWaiting, Wait: &flow.Wait{Kind: flow.WaitSignal, Key: "x"}, At: epoch}, "sig")
	if !s.Undoes() || s.Undoing() || s.Outcome() != flow.Suspended {
		t.Fatalf("undoes %v, undoing %v, %s", s.Undoes(), s.Undoing(), s.Outcome())
	}
	event(flow.Event{Type: flow.EventUndo, At: epoch}, "")
	asked("ub 30 try 1 undo true")
	event(ok(nil), "ub")
	asked("ua 10 try 1 undo true")
	failed := bad("later")
	failed.Error.Retryable = true
	event(failed, "ua")
	if waits := s.OpenWaits(); s.Outcome() != flow.Suspended || len(waits) != 1 || waits[0].Key.Node != "ua" {
		t.Fatalf("%s, waits %v", s.Outcome(), waits)
	}
	event(flow.Event{Type: flow.EventMet, At: epoch.Add(time.Minute)}, "ua")
	asked("ua 10 try 2 undo true")
	failed.Try = 2
	event(failed, "ua")
	if s.Undoing() || s.Undone() != "undoing failed: ua: later" || s.Outcome() != flow.Failed || s.Failure() != nil {
		t.Fatalf("undoing %v, %q, %s %v", s.Undoing(), s.Undone(), s.Outcome(), s.Failure())
	}
	// Retried, it begins anew: what was undone has to be done again.
	again, err := flow.Restore(p, rec, append(events, retryEvent))
	if err != nil {
		t.Fatal(err)
	}
	s = again
	asked("a 1 try 1 undo false")
}

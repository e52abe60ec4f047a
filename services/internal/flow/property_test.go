package flow_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

// world answers commands deterministically by step and try, so that two runs of a flow meet the same outside.
type world struct {
	failures bool // steps may fail the execution
}

func (w world) hash(parts ...any) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(fmt.Sprint(parts...)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h ^ h>>29
}

func (w world) answer(cmd flow.Command) flow.Event {
	if cmd.Op == flow.OpSleep {
		return flow.Event{Type: flow.EventMet, Node: cmd.Key.Node, At: cmd.Until}
	}
	if cmd.Kind == flow.KindPure {
		return pure(cmd)
	}
	h := w.hash(cmd.Key.Node, cmd.Try)
	e := flow.Event{Type: flow.EventSucceeded, Node: cmd.Key.Node, Try: cmd.Try, At: epoch.Add(time.Duration(h%1000) * time.Second)}
	switch {
	case cmd.Kind == flow.KindWait:
		due := []time.Duration{0, 300 * time.Millisecond, time.Hour}[h%3]
		e.Type, e.Wait = flow.EventWaiting, &flow.Wait{Kind: flow.WaitTimer, Due: e.At.Add(due), Reason: "test"}
		if cmd.Type == "flow.signal" {
			e.Wait = &flow.Wait{Kind: flow.WaitSignal, Key: "k", Reason: "test"}
		}
	case h%5 == 0:
		e.Type, e.Error = flow.EventFailed, &flow.Failure{Code: "flaky", Message: "no luck", Retryable: h%2 == 0}
	default:
		e.Output = map[string]any{"node": cmd.Key.Node, "n": int(h % 7), "config": cmd.Config}
	}
	return e
}

func (w world) meet(o flow.OpenWait) flow.Event {
	h := w.hash(o.Key.Node, o.Wait.Kind)
	e := flow.Event{Type: flow.EventMet, Node: o.Key.Node, At: epoch.Add(time.Duration(2000+h%1000) * time.Second)}
	if o.Wait.Kind == flow.WaitSignal {
		e.Output = int(h % 100)
		if h%3 == 0 {
			e.Port = "expired"
		}
	}
	return e
}

// run drives a state to its end in an order drawn from r, and gives what was recorded on the way.
func (w world) run(t *testing.T, s *flow.State, r *rand.Rand) (events []flow.Event) {
	t.Helper()
	var open []flow.Event
	for range 10_000 {
		for _, cmd := range s.Next() {
			open = append(open, w.answer(cmd))
		}
		switch s.Outcome() {
		case flow.Succeeded, flow.Failed:
			if len(open) > 0 && s.InFlight() > 0 && s.Failure() == nil {
				t.Fatalf("over with %d in flight", s.InFlight())
			}
			return events
		case flow.Suspended:
			if s.InFlight() > 0 || len(s.OpenWaits()) == 0 {
				t.Fatalf("suspended with %d in flight and %d waits", s.InFlight(), len(s.OpenWaits()))
			}
			waits := s.OpenWaits()
			open = append(open, w.meet(waits[r.IntN(len(waits))]))
		}
		if len(open) == 0 {
			t.Fatalf("nothing to do, nothing in flight, no wait, yet %q", s.Outcome())
		}
		k := r.IntN(len(open))
		e := open[k]
		open = slices.Delete(open, k, k+1)
		if s.Failure() != nil && e.Type == flow.EventMet {
			continue // pauses end with the execution
		}
		apply(t, s, e)
		events = append(events, e)
	}
	t.Fatal("no end in 10,000 turns")
	return nil
}

// randomFlow draws a flow of 2 to 14 nodes in which edges lead forward.
func randomFlow(r *rand.Rand, failures bool) string {
	var b strings.Builder
	b.WriteString("n0 trigger.manual\n")
	count := 2 + r.IntN(13)
	ports := [][]string{{"main"}}
	var edges []string
	route := map[int]bool{}
	for i := 1; i < count; i++ {
		var before []int
		for range 1 + r.IntN(3) {
			from := r.IntN(i)
			if r.IntN(2) == 0 {
				from = max(0, i-1-r.IntN(2))
			}
			if slices.Contains(before, from) {
				continue
			}
			before = append(before, from)
			port := ports[from][r.IntN(len(ports[from]))]
			edges = append(edges, fmt.Sprintf("n%d.%s -> n%d", from, port, i))
			if port == "error" {
				route[from] = false
			}
		}
		up := before[r.IntN(len(before))]
		onError := []string{`"onError": "continue"`, `"onError": "route"`, `"onError": "fail"`, `"onError": "fail"`, `"onError": "fail"`}[r.IntN(map[bool]int{true: 5, false: 2}[failures])]
		retry := fmt.Sprintf(`"retry": {"maxAttempts": %d, "initialDelay": "%dms", "jitter": %v}`, 1+r.IntN(3), 200+r.IntN(2000), r.IntN(2) == 0)
		mine := []string{"main"}
		if strings.Contains(onError, "route") {
			mine, route[i] = append(mine, "error"), true
		}
		switch r.IntN(8) {
		case 0, 1:
			fmt.Fprintf(&b, `n%d data.set {"values": {"a": "{{ steps.n%d.output }}", "s": "{{ steps.n%d.status }} {{ random() }}", "t": "{{ now() }}"}}`, i, up, up)
			mine, onError = []string{"main"}, ""
			delete(route, i)
		case 2:
			fmt.Fprintf(&b, `n%d logic.if {"condition": "{{ steps.n%d.status == 'succeeded' and random() > 0.4 }}"}`, i, up)
			mine, onError = []string{"true", "false"}, ""
			delete(route, i)
		case 3:
			fmt.Fprintf(&b, `n%d data.set {"values": "{{ steps.n%d.output.n }}"} | %s`, i, up, onError) // often an expression error
		case 4:
			fmt.Fprintf(&b, `n%d flow.delay {"duration": 1} | %s`, i, onError)
		case 5:
			fmt.Fprintf(&b, `n%d flow.signal {"name": "x"} | %s`, i, onError)
			mine = append(mine, "expired")
		default:
			fmt.Fprintf(&b, `n%d http.request {"url": "{{ toJSON(steps.n%d) }}{{ now() }}"} | %s, %s`, i, up, onError, retry)
		}
		if onError == "" {
			if r.IntN(2) == 0 && failures {
				onError = `"onError": "fail"`
			} else if mine[0] == "main" {
				onError = `"onError": "continue"`
			}
			if onError != "" {
				b.WriteString(" | " + onError)
			}
		}
		ports = append(ports, mine)
		b.WriteByte('\n')
	}
	for i, missing := range route { // a route needs an edge
		if missing {
			fmt.Fprintf(&b, "e%d data.set {\"values\": \"{{ steps.n%d.error }}\"}\n", i, i)
			edges = append(edges, fmt.Sprintf("n%d.error -> e%d", i, i))
		}
	}
	return chart(b.String() + strings.Join(edges, "\n"))
}

// result is what must not depend on how an execution was computed.
func result(t *testing.T, s *flow.State) string {
	t.Helper()
	if s.Outcome() == flow.Failed {
		return "failed"
	}
	return string(s.Outcome()) + " " + encode(t, s.Output())
}

// Without failures of the whole execution, the order in which parallel steps end changes nothing.
func TestEveryInterleavingGivesTheSame(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := mustCompile(t, randomFlow(r, false))
		want := ""
		for range 6 {
			s := p.Start(record(map[string]any{"n": 4}))
			world{}.run(t, s, r)
			if got := result(t, s); want == "" {
				want = got
			} else if got != want {
				t.Fatalf("seed %d: %s\nthen %s", seed, want, got)
			}
		}
		if strings.HasPrefix(want, "failed") {
			t.Fatalf("seed %d fails", seed)
		}
	}
}

// Whoever has a prefix of what was recorded goes on to the same end; of the last pure steps some may be missing, and their
// absence may even show within the list.
func TestEveryPrefixResumesToTheSame(t *testing.T) {
	t.Parallel()
	outcomes := map[flow.Outcome]int{}
	for seed := range uint64(1000) {
		failures := seed%2 == 0
		w := world{failures}
		r := rand.New(rand.NewPCG(seed, 2))
		p := mustCompile(t, randomFlow(r, failures))
		rec := record(map[string]any{"n": 4})
		whole := p.Start(rec)
		events := throughJSON(t, w.run(t, whole, r))
		outcomes[whole.Outcome()]++
		for cut := range len(events) + 1 {
			kept := slices.DeleteFunc(slices.Clone(events[:cut]), func(e flow.Event) bool { return e.Pure && r.IntN(3) == 0 })
			s, err := flow.Restore(p, rec, kept)
			if err != nil {
				t.Fatalf("seed %d: restore %d of %d: %v", seed, cut, len(events), err)
			}
			w.run(t, s, r)
			if got, want := result(t, s), result(t, whole); got != want {
				t.Fatalf("seed %d: resumed after %d of %d events\n got %s %v\nwant %s %v", seed, cut, len(events), got, s.Failure(), want, whole.Failure())
			}
		}
	}
	if outcomes[flow.Failed] < 50 || outcomes[flow.Succeeded] < 100 {
		t.Errorf("the flows drawn are dull: %v", outcomes)
	}
}

// The state is the fold of its events: Restore of all of them gives what Apply gave, one by one.
func TestRestoreIsTheFold(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		p := mustCompile(t, randomFlow(r, true))
		rec := record(map[string]any{"n": 4})
		live := p.Start(rec)
		events := world{true}.run(t, live, r)
		again := p.Start(rec)
		for k, e := range throughJSON(t, events) {
			again.Next()
			apply(t, again, e)
			restored, err := flow.Restore(p, rec, events[:k+1])
			if err != nil {
				t.Fatal(err)
			}
			restored.Next()
			again.Next()
			a, b := again.Steps(), restored.Steps()
			for i := range a { // what is in flight when the execution fails was begun here, and is begun nowhere there
				if again.Failure() != nil && a[i].Status == "running" {
					a[i].Status = "queued"
				}
			}
			if !reflect.DeepEqual(a, b) || !again.Clock().Equal(restored.Clock()) || again.Failure() == nil && again.Outcome() != restored.Outcome() || !reflect.DeepEqual(again.OpenWaits(), restored.OpenWaits()) || !reflect.DeepEqual(again.Failure(), restored.Failure()) {
				t.Fatalf("seed %d, after event %d %+v:\napplied  %+v\nrestored %+v", seed, k, e, a, b)
			}
		}
	}
}

// throughJSON writes outputs and reads them again, as recording does.
func throughJSON(t *testing.T, events []flow.Event) []flow.Event {
	t.Helper()
	out := slices.Clone(events)
	for i := range out {
		out[i].Output = decode(t, encode(t, out[i].Output))
	}
	return out
}

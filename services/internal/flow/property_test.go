package flow_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

var turns = flag.Int("turns", 500, "random flows of the larger property tests")

// world answers commands deterministically by step and try, so that two runs of a flow meet the same outside.
type world struct {
	failures bool               // steps may fail the execution
	watch    func(recorded int) // called at every turn
	begun    func(flow.Command) // called for every command
	healed   map[flow.Key]bool  // these steps don't fail
	unlucky  bool               // every other try fails
}

func (w world) hash(parts ...any) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(fmt.Sprint(parts...)) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h ^ h>>29
}

func (w world) answer(cmd flow.Command) flow.Event {
	id := cmd.Key.Node + cmd.Key.Iteration
	if cmd.Op == flow.OpSleep {
		return flow.Event{Type: flow.EventMet, Node: cmd.Key.Node, Iteration: cmd.Key.Iteration, At: cmd.Until}
	}
	if cmd.Kind == flow.KindPure {
		return pure(cmd)
	}
	h := w.hash(id, cmd.Try)
	e := flow.Event{Type: flow.EventSucceeded, Node: cmd.Key.Node, Iteration: cmd.Key.Iteration, Try: cmd.Try, At: epoch.Add(time.Duration(h%1000) * time.Second)}
	switch {
	case cmd.Kind == flow.KindWait:
		due := []time.Duration{0, 300 * time.Millisecond, time.Hour}[h%3]
		e.Type, e.Wait = flow.EventWaiting, &flow.Wait{Kind: flow.WaitTimer, Due: e.At.Add(due), Reason: "test"}
		if cmd.Type == "flow.signal" {
			e.Wait = &flow.Wait{Kind: flow.WaitSignal, Key: "k", Reason: "test"}
		}
	case (h%5 == 0 || w.unlucky && h%3 == 0) && !w.healed[cmd.Key]:
		e.Type, e.Error = flow.EventFailed, &flow.Failure{Code: "flaky", Message: "no luck", Retryable: h%2 == 0}
	default:
		e.Output = map[string]any{"node": cmd.Key.Node, "n": int(h % 7), "config": cmd.Config}
	}
	return e
}

func (w world) meet(o flow.OpenWait) flow.Event {
	h := w.hash(o.Key.Node+o.Key.Iteration, o.Wait.Kind)
	e := flow.Event{Type: flow.EventMet, Node: o.Key.Node, Iteration: o.Key.Iteration, At: epoch.Add(time.Duration(2000+h%1000) * time.Second)}
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
		if w.watch != nil {
			w.watch(len(events))
		}
		for _, cmd := range s.Next() {
			if w.begun != nil {
				w.begun(cmd)
			}
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
			open = append(open[:0], w.meet(waits[r.IntN(len(waits))]))
		}
		if len(open) == 0 {
			t.Fatalf("nothing to do, nothing in flight, no wait, yet %q", s.Outcome())
		}
		k := r.IntN(len(open))
		e := open[k]
		open = slices.Delete(open, k, k+1)
		void := s.Void(flow.Key{Node: e.Node, Iteration: e.Iteration})
		if (s.Failure() != nil || void) && e.Type == flow.EventMet {
			continue // pauses end with the execution, or with their round
		}
		if void && r.IntN(2) == 0 { // it had not begun
			s.Withdraw(flow.Key{Node: e.Node, Iteration: e.Iteration})
			continue
		}
		apply(t, s, e)
		events = append(events, e)
	}
	t.Fatal("no end in 10,000 turns")
	return nil
}

// randomFlow draws a flow of 2 to 14 nodes at the top, containers among them with up to four inside, in which edges lead forward.
func randomFlow(r *rand.Rand, failures bool) string {
	d := drawing{r: r, failures: failures}
	d.line("n0 trigger.manual")
	d.scope("", 2+r.IntN(13), nil)
	return chart(d.nodes.String() + strings.Join(d.edges, "\n"))
}

type drawing struct {
	r        *rand.Rand
	failures bool
	nodes    strings.Builder
	edges    []string
	count    int
}

func (d *drawing) line(format string, args ...any) { fmt.Fprintf(&d.nodes, format+"\n", args...) }

// drawn is a node of a scope, with the ports that it may leave by.
type drawn struct {
	id    string
	ports []string
	open  bool // it routes errors and has no edge for them yet
}

// scope draws a top (the trigger is there already) or what is inside a container. outside are nodes that all in it may name.
func (d *drawing) scope(parent string, count int, outside []string) {
	r := d.r
	var all []drawn
	more := ""
	if parent == "" {
		all = append(all, drawn{id: "n0", ports: []string{"main"}})
	} else {
		more = fmt.Sprintf(`, "parent": %q`, parent)
	}
	for len(all) < count {
		d.count++
		n := drawn{id: fmt.Sprintf("n%d", d.count), ports: []string{"main"}}
		var before []int
		for range 1 + r.IntN(3) {
			if len(all) == 0 || parent != "" && r.IntN(4) == 0 {
				break
			}
			from := r.IntN(len(all))
			if r.IntN(2) == 0 {
				from = max(0, len(all)-1-r.IntN(2))
			}
			if slices.Contains(before, from) {
				continue
			}
			before = append(before, from)
			port := all[from].ports[r.IntN(len(all[from].ports))]
			d.edges = append(d.edges, fmt.Sprintf("%s.%s -> %s", all[from].id, port, n.id))
			if port == "error" || port == "finally" {
				all[from].open = false
			}
		}
		up := slices.Clone(outside)
		for _, i := range before {
			up = append(up, all[i].id, all[i].id)
		}
		d.node(&n, up, more)
		all = append(all, n)
	}
	for _, n := range all { // a route needs an edge
		if n.open {
			d.line("e%s data.set {\"values\": \"{{ steps.%s.error }}\"} | \"onError\": \"continue\"%s", n.id, n.id, more)
			d.edges = append(d.edges, fmt.Sprintf("%s.error -> e%s", n.id, n.id))
		}
	}
}

func (d *drawing) node(n *drawn, up []string, more string) {
	r := d.r
	seen := "input"
	if len(up) > 0 {
		seen = "steps." + up[r.IntN(len(up))]
	}
	item := ""
	if more != "" {
		item = "{{ index }} {{ toJSON(item) }}"
	}
	onError := "fail"
	if !d.failures || r.IntN(2) == 0 {
		onError = []string{"continue", "route"}[r.IntN(2)]
	}
	route := func() string {
		if onError == "route" {
			n.ports, n.open = append(n.ports, "error"), true
		}
		return fmt.Sprintf(`"onError": %q%s`, onError, more)
	}
	kind := r.IntN(10)
	if kind >= 8 && strings.Count(more, "parent")+d.depth(more) > 2 {
		kind = 7
	}
	switch kind {
	case 0, 1:
		if onError == "route" {
			onError = "continue"
		}
		d.line(`%s data.set {"values": {"a": "{{ %s }}", "s": "%s {{ random() }}", "t": "{{ now() }}"}} | %s`, n.id, seen, item, route())
	case 2:
		if n.ports = []string{"true", "false"}; onError == "route" || onError == "continue" {
			onError = "fail"
		}
		d.line(`%s logic.if {"condition": "{{ random() > 0.4 }}"} | %s`, n.id, route())
	case 3:
		d.line(`%s data.set {"values": "{{ %s.output.n }}"} | %s`, n.id, seen, route()) // often an expression error
	case 4:
		d.line(`%s flow.delay {"duration": 1} | %s`, n.id, route())
	case 5:
		d.line(`%s flow.signal {"name": "x"} | %s`, n.id, route())
		n.ports = append(n.ports, "expired")
	case 8, 9:
		d.container(n, up, item, route, more)
	default:
		retry := fmt.Sprintf(`"retry": {"maxAttempts": %d, "initialDelay": "%dms", "jitter": %v}`, 1+r.IntN(3), 200+r.IntN(2000), r.IntN(2) == 0)
		d.line(`%s http.request {"url": "{{ toJSON(%s) }}{{ now() }}%s"} | %s, %s`, n.id, seen, item, route(), retry)
	}
}

// depth of what is inside the container that more names: one more than its own line's.
func (d *drawing) depth(more string) int {
	depth := 0
	for more != "" {
		depth++
		id := more[strings.LastIndex(more, " ")+2 : len(more)-1]
		more = ""
		for line := range strings.Lines(d.nodes.String()) {
			if strings.HasPrefix(line, id+" ") && strings.Contains(line, `"parent"`) {
				more = strings.TrimSpace(line[strings.Index(line, `, "parent"`):])
			}
		}
	}
	return depth
}

func (d *drawing) container(n *drawn, up []string, item string, route func() string, more string) {
	r := d.r
	switch r.IntN(4) {
	case 0, 1:
		mode := []string{"continue", "collect", "fail"}[r.IntN(3)]
		if !d.failures && mode == "fail" && r.IntN(2) == 0 {
			mode = "collect"
		}
		limit := 1 + r.IntN(3)
		if mode == "fail" { // which of several fails first is chance
			limit = 1
		}
		d.line(`%s logic.foreach {"items": "{{ [3, 'b', null, {}, 1.5][:%d] }}", "concurrency": %d, "onItemError": %q} | %s`, n.id, r.IntN(6), limit, mode, route())
	case 2:
		d.line(`%s logic.while {"condition": "{{ index < %d %s }}", "maxRounds": 4} | %s`, n.id, r.IntN(6), []string{"", "and item == item", "and random() > 0.2"}[r.IntN(3)], route())
	default:
		n.ports, n.open = []string{"main", "error", "finally", "error"}, true
		d.line(`%s logic.try {} | "notes": ""%s`, n.id, more)
	}
	d.scope(n.id, 1+r.IntN(4), up)
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
	for seed := range uint64(*turns) {
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
	}
}

// Whoever has a prefix of what was recorded goes on to the same end; of the last pure steps some may be missing, and their
// absence may even show within the list.
// No step begins before all edges that lead to it are settled and one of them was taken; and when a flow has succeeded, every step has run or was
// skipped, skipped just where no edge was taken.
func TestStepsRunOnTheirInputs(t *testing.T) {
	t.Parallel()
	begun, skipped := 0, 0
	for seed := range uint64(*turns) {
		r := rand.New(rand.NewPCG(seed, 5))
		p := mustCompile(t, randomFlow(r, false))
		s := p.Start(record(map[string]any{"n": 3}))
		// taken counts the edges into a node of a round that were taken; settled tells whether all are.
		taken := func(node, iteration string) (taken int, settled bool) {
			steps := map[flow.Key]flow.Step{}
			for _, st := range s.Steps() {
				steps[st.Key] = st
			}
			settled = true
			for _, e := range p.Definition().Edges {
				if e.To != node {
					continue
				}
				from := steps[flow.Key{Node: e.From, Iteration: iteration}]
				port := e.Port
				if port == "" {
					port = flow.PortMain
				}
				switch from.Status {
				case "succeeded", "failed":
					if from.Port == port || port == "finally" { // finally is taken too, after the other
						taken++
					}
				case "skipped":
				default:
					settled = false
				}
			}
			return taken, settled
		}
		entered := func(node string) bool { // by an edge: triggers and first nodes of a container have none
			return slices.ContainsFunc(p.Definition().Edges, func(e flow.Edge) bool { return e.To == node })
		}
		w := world{begun: func(cmd flow.Command) {
			if !entered(cmd.Key.Node) {
				return
			}
			begun++
			if n, settled := taken(cmd.Key.Node, cmd.Key.Iteration); n == 0 || !settled {
				t.Fatalf("seed %d: %v begins with %d edges taken, all settled: %v", seed, cmd.Key, n, settled)
			}
		}}
		w.run(t, s, r)
		if s.Outcome() != flow.Succeeded {
			continue
		}
		for _, st := range s.Steps() {
			if st.Key.Iteration != "" || !entered(st.Key.Node) {
				continue
			}
			n, settled := taken(st.Key.Node, "")
			if inside := slices.ContainsFunc(p.Definition().Nodes, func(x flow.Node) bool { return x.ID == st.Key.Node && x.Parent != "" }); inside {
				continue // of no round: it shows that the container never ran
			}
			if !settled || (st.Status == "skipped") != (n == 0) || st.Status != "succeeded" && st.Status != "failed" && st.Status != "skipped" {
				t.Fatalf("seed %d: at the end %s is %s, with %d edges taken, all settled: %v", seed, st.Key.Node, st.Status, n, settled)
			}
			if st.Status == "skipped" {
				skipped++
			}
		}
	}
	if begun < *turns || skipped < *turns/4 {
		t.Errorf("%d steps begun, %d skipped: too few to show anything", begun, skipped)
	}
}

func TestEveryPrefixResumesToTheSame(t *testing.T) {
	t.Parallel()
	outcomes := map[flow.Outcome]int{}
	for seed := range uint64(*turns) {
		failures := seed%2 == 0
		w := world{failures: failures}
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
	if outcomes[flow.Failed] < *turns/20 || outcomes[flow.Succeeded] < *turns/10 {
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
		events := world{failures: true}.run(t, live, r)
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
			if again.Voids() > 0 {
				break // a round is given up: here what is in flight in it is awaited, there nothing of it is in flight; the other tests see to what comes of it
			}
			a, b := again.Steps(), restored.Steps()
			for i := range a { // what is in flight when the execution fails was begun here, and is begun nowhere there
				if again.Failure() != nil && a[i].Status == "running" {
					a[i].Status = "queued"
				}
				if again.Failure() != nil && b[i].Status == "running" {
					b[i].Status = "queued"
				}
			}
			if !reflect.DeepEqual(a, b) || !again.Clock().Equal(restored.Clock()) || again.Failure() == nil && again.Outcome() != restored.Outcome() || !reflect.DeepEqual(again.OpenWaits(), restored.OpenWaits()) || !reflect.DeepEqual(again.Failure(), restored.Failure()) {
				for i := range a {
					if i >= len(b) || !reflect.DeepEqual(a[i], b[i]) {
						t.Errorf("applied  %+v", a[i])
						if i < len(b) {
							t.Errorf("restored %+v", b[i])
						}
					}
				}
				t.Fatalf("seed %d, after event %d %+v: %d and %d steps, %s and %s, clocks %s and %s, waits %v and %v, failures %v and %v", seed, k, e, len(a), len(b), again.Outcome(), restored.Outcome(),
					again.Clock(), restored.Clock(), again.OpenWaits(), restored.OpenWaits(), again.Failure(), restored.Failure())
			}
		}
	}
}

// A checkpoint taken anywhere, and what is recorded after it, leads to the same end; of its pure events some may be missing.
func TestEveryCheckpointResumesToTheSame(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*turns / 5) {
		failures := seed%2 == 0
		w := world{failures: failures}
		r := rand.New(rand.NewPCG(seed, 4))
		p := mustCompile(t, randomFlow(r, failures))
		rec := record(map[string]any{"n": 4})
		whole := p.Start(rec)
		sums := map[int][]flow.Event{}
		w.watch = func(k int) {
			if k%3 == 0 {
				whole.Forget()
			}
			sums[k] = throughJSON(t, whole.Sum())
		}
		events := throughJSON(t, w.run(t, whole, r))
		w.watch = nil
		want := result(t, whole)
		for k := range len(events) + 1 {
			sum := sums[k]
			if r.IntN(2) == 0 {
				sum = slices.DeleteFunc(sum, func(e flow.Event) bool { return e.Pure && r.IntN(3) == 0 })
			}
			rest := k + r.IntN(len(events)-k+1) // some of what was recorded behind it is there, too
			s, err := flow.Restore(p, rec, slices.Concat(events[:k], sum, events[k:rest]))
			if err != nil {
				t.Fatalf("seed %d: checkpoint after %d, with %d of %d: %v", seed, k, rest, len(events), err)
			}
			if again, err := flow.Restore(p, rec, throughJSON(t, s.Sum())); err != nil {
				t.Fatalf("seed %d: checkpoint of a checkpoint: %v", seed, err)
			} else if w.run(t, again, r); result(t, again) != want {
				t.Fatalf("seed %d: checkpoint of a checkpoint after %d of %d events\n got %s %v\nwant %s", seed, rest, len(events), result(t, again), again.Failure(), want)
			}
			w.run(t, s, r)
			if got := result(t, s); got != want {
				t.Fatalf("seed %d: checkpoint after %d, with %d of %d events\n got %s %v\nwant %s %v", seed, k, rest, len(events), got, s.Failure(), want, whole.Failure())
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

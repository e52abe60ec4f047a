package protocol

import (
	"encoding/json"
	"slices"
	"testing"

	"flowplatform/services/internal/flow"
)

// branches makes a flow in which these types follow the trigger side by side, as a, b, …
func branches(t *testing.T, types ...string) *flow.Program {
	t.Helper()
	def := &flow.Definition{Name: "x", Nodes: []flow.Node{{ID: "s", Type: "trigger.manual"}}}
	for i, typ := range types {
		id := string(rune('a' + i))
		def.Nodes = append(def.Nodes, flow.Node{ID: id, Type: typ})
		def.Edges = append(def.Edges, flow.Edge{From: "s", To: id})
	}
	p, problems := flow.Compile(def, flow.FlowView{}, logTypes{}, noExpressions{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return p
}

func completed(t *testing.T, r *Run, node string, e flow.Event) []Action {
	t.Helper()
	actions, err := r.Completed(flow.Key{Node: node}, e)
	if err != nil {
		t.Fatal(err)
	}
	return actions
}

// An approval beside a long call is told of when it opens, not when the call has ended; so is what an effect opens. A pause is nobody's business outside.
func TestWaitsAreReportedWhenTheyOpen(t *testing.T) {
	open := flow.Event{Type: flow.EventWaiting, At: t0, Wait: &flow.Wait{Kind: flow.WaitApproval, Key: "k", Reason: "r", Open: json.RawMessage(`{"q":1}`)}}
	r := newTestRun(t, branches(t, "effect", "wait", "effect", "wait"), nil)
	actions := r.Start(t0, ID{1}, true)
	for _, a := range actions {
		if a.Op == DoClaim {
			r.Claimed(a.Claim, Granted)
		}
	}
	actions = completed(t, r, "b", open)
	if len(actions) != 1 || actions[0].Op != DoReport || actions[0].Entry.Kind != EntryStep || len(actions[0].Entry.Waits) != 1 || string(actions[0].Entry.Waits[0].Open) != `{"q":1}` {
		t.Fatalf("%+v", actions)
	}
	if more := completed(t, r, "d", flow.Event{Type: flow.EventWaiting, At: t0, Wait: &flow.Wait{Kind: flow.WaitTimer, Due: t0.Add(1e12)}}); len(more) > 0 {
		t.Fatalf("a report beside an unconfirmed one: %+v", more)
	}
	if more := r.Confirmed(1); len(more) > 0 {
		t.Fatalf("a timer alone is reported: %+v", more)
	}
	actions = completed(t, r, "c", open)
	if len(actions) != 1 || len(actions[0].Entry.Waits) != 1 || actions[0].Entry.Waits[0].Node != "c" {
		t.Fatalf("%+v", actions)
	}
	r.Confirmed(2)
	actions = completed(t, r, "a", flow.Event{Type: flow.EventSucceeded, At: t0})
	if len(actions) != 1 || actions[0].Entry.Kind != EntrySuspend || len(actions[0].Entry.Waits) != 3 {
		t.Fatalf("the suspend doesn't tell of all: %+v", actions)
	}
}

// Effects of another pool are held until nothing of this one is left to do; then the execution is handed over, and there it is the other way round.
func TestARunBelongsToOnePool(t *testing.T) {
	def := &flow.Definition{Name: "x", Nodes: []flow.Node{{ID: "s", Type: "trigger.manual"}, {ID: "far", Type: "effect", Pool: "gpu"}, {ID: "near", Type: "effect"}, {ID: "pure", Type: "pure", Pool: "gpu"}, {ID: "last", Type: "effect", Pool: DefaultPool}},
		Edges: []flow.Edge{{From: "s", To: "far"}, {From: "s", To: "near"}, {From: "s", To: "pure"}, {From: "far", To: "last"}}}
	p, problems := flow.Compile(def, flow.FlowView{}, logTypes{}, noExpressions{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var steps []json.RawMessage
	for _, want := range []struct {
		pool, goes string
		runs       []string
	}{{"", "gpu", []string{"pure", "near"}}, {"gpu", DefaultPool, []string{"far"}}, {DefaultPool, "", []string{"last"}}} {
		r := newTestRun(t, p, steps)
		r.task.Pool = want.pool
		var ran []string
		var last *Entry
		todo := r.Start(t0, ID{1}, true)
		for len(todo) > 0 {
			a := todo[0]
			todo = todo[1:]
			switch a.Op {
			case DoClaim:
				todo = append(todo, r.Claimed(a.Claim, Granted)...)
			case DoExecute:
				ran = append(ran, a.Key.Node)
				todo = append(todo, completed(t, r, a.Key.Node, succeed(a.Command))...)
			case DoReport:
				last, steps = a.Entry, append(steps, a.Entry.Events)
				todo = append(todo, r.Confirmed(a.Entry.Seq)...)
			}
		}
		if !slices.Equal(ran, want.runs) || last.Pool != want.goes || (last.Kind == EntryYield) != (want.goes != "") || !r.Done() {
			t.Errorf("in the pool %q: %v run, %s to %q", want.pool, ran, last.Kind, last.Pool)
		}
	}
}

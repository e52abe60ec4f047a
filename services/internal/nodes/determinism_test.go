package nodes

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
)

// TestGO5_TheOtherBranchNeverRuns: a branch is chosen by random(), the worker dies after the first call of it, and the next attempt goes the same way, whether the
// choice was reported (the death came after the report) or is made again (before it).
func TestGO5_TheOtherBranchNeverRuns(t *testing.T) {
	t.Parallel()
	c := catalogue(t)
	post := map[string]any{"method": "POST", "url": "http://example.com/"}
	def := &flow.Definition{Name: "coin", Nodes: []flow.Node{
		{ID: "start", Type: "trigger.manual"},
		{ID: "coin", Type: "logic.if", Config: map[string]any{"condition": "{{ random() > 0.5 }}"}},
		{ID: "heads", Type: "http.request", Config: post}, {ID: "heads2", Type: "http.request", Config: post},
		{ID: "tails", Type: "http.request", Config: post}, {ID: "tails2", Type: "http.request", Config: post},
	}, Edges: []flow.Edge{
		{From: "start", To: "coin"}, {From: "coin", Port: "true", To: "heads"}, {From: "coin", Port: "false", To: "tails"}, {From: "heads", To: "heads2"}, {From: "tails", To: "tails2"},
	}}
	program, problems := flow.Compile(def, flow.FlowView{Name: "coin", Version: 1}, c, expr.New())
	if len(problems) > 0 {
		t.Fatalf("%+v", problems)
	}
	sides := map[string]int{}
	for i := range 100 {
		task := protocol.Task{V: 1, ID: protocol.ID{0: 1, 14: byte(i), 15: 7}, Attempt: 1}
		first := attempt(t, c, program, task, 1) // one call, then it dies
		sides[first.calls[0]]++
		for reported := range 2 {
			again := task
			again.Attempt = 2
			if reported == 1 {
				again.Steps = []json.RawMessage{first.step.Events}
			}
			second := attempt(t, c, program, again, 2)
			want := []string{first.calls[0], first.calls[0] + "2"}[reported:]
			if fmt.Sprint(second.calls) != fmt.Sprint(want) {
				t.Fatalf("execution %d called %s and died; the next attempt (reported: %v) called %v, want %v", i, first.calls[0], reported == 1, second.calls, want)
			}
		}
	}
	if sides["heads"] < 20 || sides["tails"] < 20 {
		t.Errorf("the coin isn't fair, so this shows nothing: %v", sides)
	}
}

type attempted struct {
	calls []string
	step  *protocol.Entry // the first step report
}

// attempt runs one attempt as a worker does, on a clock and in a process of its own, until so many calls were made or nothing is left.
func attempt(t *testing.T, c *node.Catalogue, p *flow.Program, task protocol.Task, calls int) (out attempted) {
	t.Helper()
	events, err := protocol.DecodeEvents(task.Steps)
	if err != nil {
		t.Fatal(err)
	}
	record := flow.Record{Execution: flow.ExecutionView{ID: task.ID.String(), CreatedAt: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}}
	run, err := protocol.NewRun(task, p, record, events, int64(task.Attempt), false)
	if err != nil {
		t.Fatal(err)
	}
	todo := run.Start(time.Now(), protocol.ID{1}, true)
	for len(todo) > 0 {
		a := todo[0]
		todo = todo[1:]
		switch a.Op {
		case protocol.DoClaim:
			todo = append(todo, run.Claimed(a.Claim, protocol.Granted)...)
		case protocol.DoReport:
			if a.Entry.Kind == protocol.EntryStep && out.step == nil {
				out.step = a.Entry
			}
			if len(out.calls) < calls {
				todo = append(todo, run.Confirmed(a.Entry.Seq)...)
			}
		case protocol.DoExecute:
			e := flow.Event{Type: flow.EventSucceeded, At: time.Now()}
			if a.Command.Kind == flow.KindEffect {
				out.calls = append(out.calls, a.Key.Node)
			} else {
				typ, ok := c.Find(a.Command.Type, a.Command.Version)
				if !ok {
					t.Fatalf("no node %s", a.Command.Type)
				}
				r, err := typ.Executor.Execute(t.Context(), node.Call{Config: a.Command.Config, Now: a.Command.Now, Seed: a.Command.Seed, Scope: a.Command.Scope})
				if err != nil {
					t.Fatal(err)
				}
				e.Port, e.Output = r.Port, r.Output
			}
			more, err := run.Completed(a.Key, e)
			if err != nil {
				t.Fatal(err)
			}
			todo = append(todo, more...)
		}
	}
	return out
}

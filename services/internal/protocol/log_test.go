package protocol

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"flowplatform/services/internal/flow"
)

type logTypes struct{}

func (logTypes) Lookup(typ string, _ int) (flow.NodeType, bool) {
	t := flow.NodeType{Type: typ, Version: 1, Kind: map[string]flow.Kind{"trigger.manual": flow.KindTrigger, "pure": flow.KindPure, "effect": flow.KindEffect, "each": flow.KindContainer, "wait": flow.KindWait}[typ]}
	if typ == "each" {
		t.Container = flow.Foreach
	}
	return t, t.Kind != ""
}

type noExpressions struct{}

func (noExpressions) Compile(string) (flow.Expression, error) { return nil, errors.New("none here") }

// looping makes a flow whose loop runs nodes of these types one after the other.
func looping(t *testing.T, rounds, concurrency int, types ...string) *flow.Program {
	t.Helper()
	def := &flow.Definition{Name: "x", Nodes: []flow.Node{{ID: "s", Type: "trigger.manual"},
		{ID: "loop", Type: "each", Config: map[string]any{"items": make([]any, rounds), "concurrency": concurrency, "onItemError": flow.OnItemContinue}}}, Edges: []flow.Edge{{From: "s", To: "loop"}}}
	for i, typ := range types {
		id := string(rune('a' + i))
		def.Nodes = append(def.Nodes, flow.Node{ID: id, Type: typ, Parent: "loop"})
		if i > 0 {
			def.Edges = append(def.Edges, flow.Edge{From: string(rune('a' + i - 1)), To: id})
		}
	}
	p, problems := flow.Compile(def, flow.FlowView{}, logTypes{}, noExpressions{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return p
}

// drive does what a run asks for, at once, and keeps what would be stored.
func drive(t *testing.T, r *Run, do func(flow.Command) flow.Event) (kept []json.RawMessage, written int, final *Entry) {
	t.Helper()
	todo := r.Start(t0, ID{1}, true)
	for len(todo) > 0 {
		a := todo[0]
		todo = todo[1:]
		switch a.Op {
		case DoClaim:
			todo = append(todo, r.Claimed(a.Claim, Granted)...)
		case DoExecute:
			more, err := r.Completed(a.Key, do(a.Command))
			if err != nil {
				t.Fatal(err)
			}
			todo = append(todo, more...)
		case DoReport:
			if len(a.Entry.Events) > 4<<20 || len(r.pending) > logPending {
				t.Fatalf("a report of %d bytes, %d events pending", len(a.Entry.Events), len(r.pending))
			}
			if a.Entry.Whole {
				kept = nil
			}
			if len(a.Entry.Events) > 0 {
				kept = append(kept, a.Entry.Events)
			}
			written += len(a.Entry.Events)
			if a.Entry.Kind == EntryFinal {
				final = a.Entry
			}
			todo = append(todo, r.Confirmed(a.Entry.Seq)...)
		}
	}
	return kept, written, final
}

func newTestRun(t *testing.T, p *flow.Program, steps []json.RawMessage) *Run {
	t.Helper()
	events, err := DecodeEvents(steps)
	if err != nil {
		t.Fatal(err)
	}
	rec := flow.Record{Execution: flow.ExecutionView{ID: "e", CreatedAt: t0, Trigger: "manual"}}
	r, err := NewRun(Task{ID: ID{2}, Attempt: 1, Steps: steps}, p, rec, events, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func succeed(flow.Command) flow.Event { return flow.Event{Type: flow.EventSucceeded, At: t0} }

// What is recorded of a loop stays within what has to be kept, however many rounds it makes, and what is written is in proportion to the rounds.
func TestLogsOfLoopsAreBounded(t *testing.T) {
	const rounds = 100_000
	for _, typ := range []string{"pure", "effect"} {
		p := looping(t, rounds, 4, typ, "pure")
		kept, written, final := drive(t, newTestRun(t, p, nil), succeed)
		if final == nil || final.State != Succeeded {
			t.Fatalf("%s: %+v", typ, final)
		}
		size := 0
		for _, list := range kept {
			size += len(list)
		}
		t.Logf("%s: %d bytes are kept in %d reports, %d were written", typ, size, len(kept), written)
		if size > 2<<20 || written > 300*rounds {
			t.Errorf("%s: %d bytes are kept, %d were written", typ, size, written)
		}
		again := newTestRun(t, p, kept) // whoever had what is kept would end in the same way
		if _, _, f := drive(t, again, func(flow.Command) flow.Event { t.Fatal("something runs again"); return flow.Event{} }); f == nil || string(f.Output) != string(final.Output) {
			t.Errorf("%s: what is kept doesn't lead to the same end", typ)
		}
	}
}

// A round that fails takes back what waits for its claim, and the loop goes on.
func TestAFailedRoundIsWithdrawn(t *testing.T) {
	p := looping(t, 6, 3, "effect", "effect")
	calls := map[flow.Key]int{}
	_, _, final := drive(t, newTestRun(t, p, nil), func(cmd flow.Command) flow.Event {
		calls[cmd.Key]++
		if cmd.Key.Iteration == "1" || cmd.Key.Iteration == "4" {
			return flow.Event{Type: flow.EventFailed, Error: &flow.Failure{Code: "no"}, At: t0}
		}
		return succeed(cmd)
	})
	if final == nil || final.State != Succeeded || string(final.Output) != "[null,null,null,null,null,null]" {
		t.Fatalf("%+v", final)
	}
	if len(calls) != 10 || calls[flow.Key{Node: "b", Iteration: "1"}] != 0 {
		t.Errorf("%v", calls)
	}
}

// A report takes as much as goes into one message; the rest follows, and what ends the execution comes last.
func TestReportsAreBounded(t *testing.T) {
	p := looping(t, 12, 12, "effect")
	text := strings.Repeat("x", 200<<10)
	var sizes []int
	r := newTestRun(t, p, nil)
	actions := r.Start(t0, ID{1}, true)
	actions = r.Claimed(actions[0].Claim, Granted)
	var reports []*Entry
	for _, a := range actions {
		if a.Op == DoExecute {
			more, err := r.Completed(a.Key, flow.Event{Type: flow.EventSucceeded, Output: text, At: t0})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range more {
				if m.Op == DoReport {
					reports = append(reports, m.Entry)
				}
			}
		}
	}
	for k := 0; k < len(reports); k++ {
		sizes = append(sizes, len(reports[k].Events))
		for _, m := range r.Confirmed(reports[k].Seq) {
			if m.Op == DoReport {
				reports = append(reports, m.Entry)
			}
		}
	}
	last := reports[len(reports)-1]
	if last.Kind != EntryFinal || last.State != Succeeded || len(reports) < 3 || !r.Done() {
		t.Fatalf("%d reports of %v bytes, the last %s", len(reports), sizes, last.Kind)
	}
	for i, n := range sizes {
		if n > entryBytes && !(i == len(sizes)-1 && last.Whole && n < 13*len(text)) { // a checkpoint holds what the loop gave, once
			t.Errorf("reports of %v bytes", sizes)
		}
	}
}

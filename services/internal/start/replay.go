package start

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// ErrFlowGone says that the flow of an execution was deleted: nothing of it can be started any more.
var ErrFlowGone = errors.New("its flow was deleted")

// ErrNoEntry says that the version has no trigger like the one that had started the execution.
var ErrNoEntry = errors.New("this version of the flow has no such trigger")

// ReplayRequest is what whoever replays may change.
type ReplayRequest struct {
	FromNode string                     // "": from the beginning
	Input    json.RawMessage            // nil: that of the old one
	Version  int                        // 0: that of the old one
	Outputs  map[string]json.RawMessage // nodes that don't run but give this
	Client   string
	Now      time.Time
	Shards   int
}

// Recorded reads what an execution left.
type Recorded interface {
	ReportsOf(ctx context.Context, id protocol.ID) ([]protocol.StoredReport, error)
	Value(ctx context.Context, execution protocol.ID, ref string) (json.RawMessage, error)
}

// Replay makes the execution that repeats an old one, not stored yet. What is wrong with the request is in the problems, with pointers into it.
func Replay(ctx context.Context, defs *definitions.Definitions, db Recorded, old *store.Execution, r ReplayRequest) (*store.Replay, []flow.Problem, error) {
	head, err := defs.Head(ctx, old.Flow.String())
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, ErrFlowGone
	}
	if err != nil {
		return nil, nil, err
	}
	if r.Version == 0 {
		r.Version = old.Version
	}
	plan, err := Prepare(ctx, defs, head, Request{Version: r.Version, Priority: old.Priority, Labels: old.Labels, Trigger: old.Trigger, Client: r.Client, Now: r.Now, Shards: r.Shards})
	if err != nil {
		return nil, nil, err
	}
	if _, ok := plan.Version.Program.Entry(old.Trigger); !ok {
		return nil, nil, fmt.Errorf("%w: %s, version %d", ErrNoEntry, old.Trigger, r.Version)
	}
	fetch := func(v protocol.Value) (json.RawMessage, error) { return db.Value(ctx, old.ID, v.Ref) }
	before := old.Input
	if old.InputRef.Ref != "" {
		if before, err = fetch(old.InputRef); err != nil {
			return nil, nil, err
		}
	}
	input := r.Input
	if input == nil {
		input = before
	}
	row, problems := plan.Execution(input, "/input")
	if len(problems) > 0 {
		return nil, problems, nil
	}
	row.ReplayOf = old.ID
	out := &store.Replay{NewExecution: row}
	if r.FromNode == "" && len(r.Outputs) == 0 {
		return out, nil, nil
	}
	events, problems, err := seed(ctx, db, plan.Version.Program, old, before, fetch, &r)
	if err != nil || len(problems) > 0 {
		return nil, problems, err
	}
	out.Events, out.Large, err = protocol.SeedEvents(events, func(raw json.RawMessage) string { return payload.Ref(raw) })
	return out, nil, err
}

// seed gives the events with which a replay begins.
func seed(ctx context.Context, db Recorded, p *flow.Program, old *store.Execution, input json.RawMessage, fetch func(protocol.Value) (json.RawMessage, error), r *ReplayRequest) ([]flow.Event, []flow.Problem, error) {
	outputs := make(map[string]any, len(r.Outputs))
	for id, raw := range r.Outputs {
		v, err := flow.DecodeValue(raw)
		if err != nil {
			return nil, []flow.Problem{{Pointer: "/outputs", Code: "json", Message: fmt.Sprintf("the output of %q: %v", id, err)}}, nil
		}
		outputs[id] = v
	}
	rec := flow.Record{
		Execution: flow.ExecutionView{ID: old.ID.String(), CreatedAt: old.CreatedAt, Trigger: old.Trigger, Labels: old.Labels, Priority: old.Priority},
		Flow:      p.Flow(), Deadline: old.Deadline,
	}
	var events []flow.Event
	if r.FromNode != "" {
		reports, err := db.ReportsOf(ctx, old.ID)
		if err != nil {
			return nil, nil, err
		}
		lists := make([]json.RawMessage, len(reports))
		for i := range reports {
			lists[i] = reports[i].Events
		}
		if events, err = protocol.ResolveEvents(lists, fetch); err != nil {
			return nil, nil, err
		}
		if len(input) > 0 {
			if rec.Input, err = flow.DecodeValue(input); err != nil {
				return nil, nil, err
			}
		}
	}
	seeds, problems := flow.Replay(p, rec, events, r.FromNode, outputs)
	return seeds, problems, nil
}

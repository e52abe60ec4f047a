package protocol

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"flowplatform/services/internal/flow"
)

// wireEvent is a flow event as it stands in messages and rows: its output goes through the exact codec of flow, not through encoding/json's.
type wireEvent struct {
	flow.Event
	Output json.RawMessage `json:"o,omitempty"`
	Ref    *Value          `json:"r,omitempty"` // where the output is, when it isn't here
	Letter ID              `json:"m,omitzero"`  // that met the wait, for people
}

// recorded is an event, and where its output is stored when it doesn't stand in the event.
type recorded struct {
	flow.Event
	ref *Value
}

// EncodeEvents gives the JSON list of events that reports carry and rows keep.
func EncodeEvents(events []flow.Event) (json.RawMessage, error) {
	list := make([]recorded, len(events))
	for i, e := range events {
		list[i].Event = e
	}
	return encodeRecorded(list)
}

func encodeRecorded(events []recorded) (json.RawMessage, error) {
	wire := make([]wireEvent, len(events))
	for i, e := range events {
		wire[i].Event, wire[i].Ref = e.Event, e.ref
		if e.Output == nil || e.ref != nil {
			continue
		}
		out, err := flow.EncodeValue(e.Output)
		if err != nil {
			return nil, fmt.Errorf("output of step %s: %w", e.Node, err)
		}
		wire[i].Output = out
	}
	return json.Marshal(wire)
}

// DecodeEvents reads the lists that EncodeEvents made, in their order. One that holds a reference is an error.
func DecodeEvents(lists []json.RawMessage) ([]flow.Event, error) { return ResolveEvents(lists, nil) }

// ResolveEvents is DecodeEvents with outputs by reference put in: fetch gives the JSON behind one.
func ResolveEvents(lists []json.RawMessage, fetch func(Value) (json.RawMessage, error)) ([]flow.Event, error) {
	var out []flow.Event
	for _, list := range lists {
		var wire []wireEvent
		if err := json.Unmarshal(list, &wire); err != nil {
			return nil, fmt.Errorf("recorded steps: %w", err)
		}
		for _, w := range wire {
			e := w.Event
			if w.Ref != nil {
				if fetch == nil {
					return nil, fmt.Errorf("recorded output of step %s is a reference, and nobody can follow it here", e.Node)
				}
				out, err := fetch(*w.Ref)
				if err != nil {
					return nil, fmt.Errorf("recorded output of step %s: %w", e.Node, err)
				}
				w.Output = out
			}
			if len(w.Output) > 0 {
				v, err := flow.DecodeValue(w.Output)
				if err != nil {
					return nil, fmt.Errorf("recorded output of step %s: %w", e.Node, err)
				}
				e.Output = v
			}
			if e.Type == flow.EventSum { // what came before is in what follows
				out = out[:0]
			}
			out = append(out, e)
		}
	}
	return out, nil
}

// mustEncode encodes what a run has collected. Its outputs were checked by the runner before Completed; should one be
// unfit all the same, the events go without outputs rather than not at all.
func mustEncode(events []recorded) json.RawMessage {
	b, err := encodeRecorded(events)
	if err == nil {
		return b
	}
	bare := slices.Clone(events)
	for i := range bare {
		if _, err := flow.EncodeValue(bare[i].Output); err != nil {
			bare[i].Output = nil
		}
	}
	b, _ = encodeRecorded(bare)
	return b
}

func sortCuts(cuts []Action) {
	slices.SortFunc(cuts, func(a, b Action) int {
		return cmp.Or(cmp.Compare(a.Key.Node, b.Key.Node), cmp.Compare(a.Key.Iteration, b.Key.Iteration))
	})
}

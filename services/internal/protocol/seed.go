package protocol

import (
	"encoding/json"
	"fmt"

	"flowplatform/services/internal/flow"
)

// SeedEvents gives the events with which an execution begins (flow.Replay), as its first report, (attempt 1, seq 0), has them. Outputs that are too large to
// stand there are kept apart, by the name that nameOf gives them.
func SeedEvents(events []flow.Event, nameOf func(json.RawMessage) string) (report json.RawMessage, large map[string]json.RawMessage, err error) {
	list := make([]recorded, len(events))
	total := 0
	for i, e := range events {
		list[i].Event = e
		if e.Output == nil {
			continue
		}
		raw, err := flow.EncodeValue(e.Output)
		if err != nil {
			return nil, nil, fmt.Errorf("output of step %s: %w", e.Node, err)
		}
		if len(raw) <= MaxInline && total+len(raw) <= entryBytes {
			total += len(raw)
			continue
		}
		name := nameOf(raw)
		if large == nil {
			large = map[string]json.RawMessage{}
		}
		large[name] = raw
		list[i].ref = &Value{Ref: name, Size: len(raw)}
	}
	report, err = encodeRecorded(list)
	return report, large, err
}

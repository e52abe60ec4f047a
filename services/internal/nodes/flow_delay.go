package nodes

import (
	"context"
	"fmt"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// maxDelay is the longest wait of flow.delay.
const maxDelay = 365 * 24 * time.Hour

func flowDelay() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "flow.delay", Version: 1, Kind: flow.KindWait, Category: "flow",
			Title: "Delay", Description: "Waits for a duration or until a time. Waiting costs a row, no memory and no slot; one second or less is waited in place.",
			Config: `{"type": "object", "additionalProperties": false,
				"properties": {
					"duration": {"type": ["string", "integer"], "title": "Duration", "description": "like 90s, 5m or 1h30m; a bare number means milliseconds; at most 8760h"},
					"until": {"type": "string", "title": "Until", "description": "a time like 2030-01-31T09:00:00Z; one that has passed doesn't wait"}},
				"oneOf": [{"required": ["duration"]}, {"required": ["until"]}]}`,
			Output:   `{"type": "null"}`,
			Examples: []node.Example{{Title: "Five minutes", Config: map[string]any{"duration": "5m"}}, {Title: "Until a time from the input", Config: map[string]any{"until": "{{ input.at }}"}, Input: map[string]any{"at": "2029-06-30T09:00:00Z"}}},
		},
		Executor: delay{},
	}
}

type delay struct{}

func (delay) Execute(_ context.Context, c node.Call) (node.Result, error) {
	due, problem := dueAt(c)
	if problem != nil {
		return node.Result{}, problem
	}
	if due.Sub(c.Now) > maxDelay {
		return node.Result{}, &node.Error{Code: "config", Message: fmt.Sprintf("the delay ends at %s, more than %d days from now: that is the longest", due.Format(time.RFC3339), int(maxDelay.Hours()/24))}
	}
	if due.Before(c.Now) {
		due = c.Now
	}
	return node.Result{Wait: &flow.Wait{Kind: flow.WaitTimer, Due: due.UTC(), Reason: "waits until " + due.UTC().Format(time.RFC3339)}}, nil
}

func dueAt(c node.Call) (time.Time, *node.Error) {
	if v, ok := c.Config["until"]; ok {
		s, ok := v.(string)
		at, err := time.Parse(time.RFC3339, s)
		if !ok || err != nil {
			return time.Time{}, wrong("until", v, "a time like 2030-01-31T09:00:00Z, with its zone")
		}
		return at, nil
	}
	const want = "a duration like 90s, 5m or 1h30m, or a number of milliseconds"
	switch v := c.Config["duration"].(type) {
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			return time.Time{}, wrong("duration", v, want)
		}
		return c.Now.Add(d), nil
	case int:
		if int64(v) > int64(maxDelay/time.Millisecond) {
			return time.Time{}, wrong("duration", v, "8760h at the most")
		}
		return c.Now.Add(time.Duration(v) * time.Millisecond), nil
	default:
		return time.Time{}, wrong("duration", v, want)
	}
}

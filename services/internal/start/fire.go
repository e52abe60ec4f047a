package start

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/store"
)

// Labels that every execution of a schedule carries, so that flows know for which instant they run and people find them.
const (
	LabelSchedule    = "schedule"
	LabelScheduledAt = "scheduledAt"
)

// RefusedError says why a flow can't be started by a schedule.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// Fire makes the execution that a schedule starts for an instant, not stored yet. Problems are those of its input. *RefusedError when the flow can't be started at all.
func Fire(ctx context.Context, defs *definitions.Definitions, head store.Flow, s *store.Schedule, due, now time.Time, shards int) (store.NewExecution, []flow.Problem, error) {
	at := due.UTC().Format(time.RFC3339)
	name := s.Name
	if s.Node != "" {
		name = s.Node
	}
	plan, err := Prepare(ctx, defs, head, Request{Labels: map[string]string{LabelSchedule: name, LabelScheduledAt: at}, Client: "schedule:" + s.ID.String(), Now: now, Shards: shards})
	var unusable *definitions.UnusableError
	switch {
	case errors.Is(err, ErrNoVersion), errors.As(err, &unusable):
		return store.NewExecution{}, nil, &RefusedError{err.Error()}
	case err != nil:
		return store.NewExecution{}, nil, err
	}
	if plan.Trigger, err = trigger(plan.Version, s.Node); err != nil {
		return store.NewExecution{}, nil, err
	}
	input := s.Input
	if len(input) == 0 {
		if input, err = json.Marshal(map[string]string{LabelSchedule: name, LabelScheduledAt: at}); err != nil {
			return store.NewExecution{}, nil, err
		}
	}
	row, problems := plan.Execution(input, "/input")
	return row, problems, nil
}

// trigger is where a schedule enters a flow: at its own node, or at a trigger.schedule, or at trigger.manual.
func trigger(v *definitions.Version, node string) (string, error) {
	for _, t := range []string{"schedule", "manual"} {
		id, ok := v.Program.Entry(t)
		switch {
		case node == "" && ok:
			return t, nil
		case node != "" && ok && id == node:
			return t, nil
		case node != "":
			if _, ok := v.Program.Entry(node); ok {
				return node, nil // several triggers, or a node with that name: its id tells which
			}
		}
	}
	return "", &RefusedError{fmt.Sprintf("version %d of the flow has several triggers, and none of them is a trigger.schedule or trigger.manual", v.Number)}
}

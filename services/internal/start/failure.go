package start

import (
	"context"
	"errors"
	"fmt"
	"time"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Labels that every execution carries which the end of another has started.
const (
	LabelFailedFlow      = "failedFlow"
	LabelFailedExecution = "failedExecution"
)

// maxFailureData is how much of an error's data an error flow is given: the rest stands in the execution that failed.
const maxFailureData = 64 << 10

// Failure makes the execution that a trigger.error starts for the bad end of another, not stored yet. Problems are those of its input. *RefusedError when the flow can't be started at all.
func Failure(ctx context.Context, defs *definitions.Definitions, head store.Flow, node string, f *store.PendingFailure, now time.Time, shards int) (store.NewExecution, []flow.Problem, error) {
	labels := map[string]string{LabelFailedFlow: f.FlowName, LabelFailedExecution: f.Execution.String()}
	plan, err := Prepare(ctx, defs, head, Request{Labels: labels, Client: "execution:" + f.Execution.String(), Now: now, Shards: shards})
	var unusable *definitions.UnusableError
	switch {
	case errors.Is(err, ErrNoVersion), errors.As(err, &unusable):
		return store.NewExecution{}, nil, &RefusedError{err.Error()}
	case err != nil:
		return store.NewExecution{}, nil, err
	}
	if plan.Trigger = errorEntry(plan.Version, node); plan.Trigger == "" {
		return store.NewExecution{}, nil, &RefusedError{fmt.Sprintf("version %d of the flow has no trigger.error %q any more", plan.Version.Number, node)}
	}
	input, err := flow.EncodeValue(failureInput(f))
	if err != nil {
		return store.NewExecution{}, nil, &RefusedError{"what is known of the failure is no JSON: " + err.Error()}
	}
	row, problems := plan.Execution(input, "/input")
	return row, problems, nil
}

// errorEntry is where a failure enters a version; "": it has no such trigger.
func errorEntry(v *definitions.Version, node string) string {
	if v.Errors == nil || v.Errors.Node != node {
		return ""
	}
	if id, ok := v.Program.Entry("error"); ok && id == node {
		return "error"
	}
	return node
}

func failureInput(f *store.PendingFailure) map[string]any {
	labels := make(map[string]any, len(f.Labels))
	for k, v := range f.Labels {
		labels[k] = v
	}
	ended := map[string]any{
		"id": f.Execution.String(), "flowId": f.Flow.String(), "flow": f.FlowName, "flowVersion": f.Version, "status": string(f.State), "trigger": f.Trigger, "retries": f.Retries, "labels": labels,
		"createdAt": stamp(f.Created), "endedAt": stamp(f.At), "url": "/api/v1/executions/" + f.Execution.String(),
	}
	if f.Parent != (protocol.ID{}) {
		ended["parentId"] = f.Parent.String()
	}
	why := map[string]any{"code": string(f.State), "message": "without saying why"}
	if e := f.Error; e != nil {
		why["code"], why["message"] = e.Code, e.Message
		if e.Node != "" {
			why["node"] = e.Node
		}
		if data, err := flow.EncodeValue(e.Data); e.Data != nil && err == nil && len(data) <= maxFailureData {
			why["data"] = e.Data
		}
	}
	return map[string]any{"execution": ended, "error": why}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/start"
	"flowplatform/services/internal/store"
)

// ReplayAsk is the body of a replay: what is left out is as it was.
type ReplayAsk struct {
	FromNode string                     `json:"fromNode,omitempty" maxLength:"64" doc:"This node and all that comes after it run again, the others keep what they gave; absent: everything runs again"`
	Input    json.RawMessage            `json:"input,omitempty" doc:"Any JSON; absent: the old one's"`
	Version  int                        `json:"version,omitempty" minimum:"1" doc:"Of the flow; absent: the one that the old one ran"`
	Outputs  map[string]json.RawMessage `json:"outputs,omitempty" doc:"By node: it doesn't run, and counts as succeeded with this output. {\"port\": …, \"output\": …} names the port by which it leaves, too"`
}

type replayInput struct {
	IDRef
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"The same key with the same body gives the same execution, for a day at least; with another body 422"`
	Body           ReplayAsk
}

func (a *API) replayRoute() {
	route(a, auth.Operator, huma.Operation{OperationID: "replayExecution", Method: http.MethodPost, Path: "/executions/{id}/replay", Tags: []string{tagExecutions}, Summary: "Repeat an execution as a new one", DefaultStatus: http.StatusAccepted, MaxBodyBytes: maxStartBody,
		Description: "The new one has replayOf. With another input, another version, from a node on, or with outputs that people give in place of nodes'. {} repeats it as it was."}, a.replayExecution)
}

func (a *API) replayExecution(ctx context.Context, in *replayInput) (*startOutput, error) {
	x, err := a.execution(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	shards := a.o.Shards()
	if shards == 0 {
		return nil, problem.New(http.StatusServiceUnavailable, "this gateway is starting: it waits for the database").RetryAfter(1)
	}
	if a.o.Full() {
		return nil, errFull()
	}
	who := principal(ctx)
	r, problems, err := start.Replay(ctx, a.o.Definitions, recordedBy{a}, &x, start.ReplayRequest{
		FromNode: in.Body.FromNode, Input: in.Body.Input, Version: in.Body.Version, Outputs: in.Body.Outputs, Client: who.Key(), Now: a.o.Now(), Shards: shards})
	var unusable *definitions.UnusableError
	switch {
	case errors.Is(err, start.ErrNoVersion):
		return nil, problem.Invalid("it can't be replayed", problem.Body("/version", "unknown", "the flow has no such version"))
	case errors.Is(err, start.ErrNoEntry):
		return nil, problem.Invalid("it can't be replayed", problem.Body("/version", "trigger", "the version has no trigger like the one that started the execution (%s)", x.Trigger))
	case errors.Is(err, start.ErrFlowGone):
		return nil, problem.New(http.StatusConflict, "it can't be replayed: %s", err.Error())
	case errors.As(err, &unusable):
		return nil, problem.New(http.StatusConflict, "%s", unusable.Error())
	case err != nil:
		return nil, err
	case len(problems) > 0:
		return nil, problem.Invalid("it can't be replayed like that; nothing was started", fieldsOf(problems)...)
	}
	body, err := json.Marshal(in.Body)
	if err != nil {
		return nil, err
	}
	if r.IdempotencyKey, err = idempotencyKey(&http.Request{Header: http.Header{"Idempotency-Key": {in.IdempotencyKey}}}, who.Key()+" replay "+in.ID, body); err != nil {
		return nil, err
	}
	done, err := a.o.DB.InsertReplay(context.WithoutCancel(ctx), r)
	switch {
	case errors.Is(err, store.ErrPayloads):
		return nil, problem.Invalid("nothing was started", problem.Body("/outputs", "too-large", "%s", store.ErrPayloads.Error()))
	case err != nil:
		return nil, err
	case done.Err != nil:
		return nil, done.Err
	case done.Conflict:
		return nil, problem.Invalid("nothing was started", problem.Parameter("header", "Idempotency-Key", "this key was used before with another body: take a new one for a new request"))
	}
	out := &startOutput{Location: Base + "/executions/" + done.ID.String(), Body: Accepted{ID: done.ID.String(), Status: string(protocol.Queued)}}
	if done.Duplicate {
		out.Replayed = "true"
		return out, nil
	}
	a.follow(protocol.Outcome{HandOut: []protocol.ID{done.ID}})
	a.note(ctx, "replay", "execution", in.ID, map[string]any{"replay": done.ID.String(), "fromNode": in.Body.FromNode, "version": in.Body.Version})
	return out, nil
}

// recordedBy reads what an execution left, few large values at a time.
type recordedBy struct{ a *API }

// ReportsOf implements start.Recorded.
func (r recordedBy) ReportsOf(ctx context.Context, id protocol.ID) ([]protocol.StoredReport, error) {
	return r.a.o.DB.ReportsOf(ctx, id)
}

// Value implements start.Recorded.
func (r recordedBy) Value(ctx context.Context, execution protocol.ID, ref string) (json.RawMessage, error) {
	fetch, leave := r.a.fetcher(ctx, execution)
	defer leave()
	return fetch(protocol.Value{Ref: ref})
}

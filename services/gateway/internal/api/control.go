package api

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// PauseReason is the body of a pause.
type PauseReason struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"For all who wonder why nothing moves"`
}

// FlowPause is whether a flow is paused.
type FlowPause struct {
	FlowID string `json:"flowId" format:"uuid"`
	Paused bool   `json:"paused"`
	Reason string `json:"reason,omitempty" doc:"Who, and why"`
	Held   int    `json:"held" doc:"Executions that are paused now, 100,000 at the most. It grows for a while after a pause, and goes down to those that people paused one by one after a resume"`
}

// PauseView is a node type or a pool that is paused.
type PauseView struct {
	Kind   string    `json:"kind" enum:"node-type,pool"`
	Name   string    `json:"name"`
	Reason string    `json:"reason"`
	SetBy  string    `json:"setBy"`
	SetAt  time.Time `json:"setAt"`
}

type pauseExecutionInput struct {
	IDRef
	Body PauseReason
}

type pauseFlowInput struct {
	FlowRef
	Body PauseReason
}

type flowPauseOutput struct{ Body FlowPause }

// PauseRef names a pause in a path.
type PauseRef struct {
	Kind string `path:"kind" maxLength:"40" doc:"node-type or pool"`
	Name string `path:"name" maxLength:"100" doc:"The type of a node, or the name of a pool"`
}

type setPauseInput struct {
	PauseRef
	Body PauseReason
}

type pauseOutput struct{ Body PauseView }

func (a *API) controlRoutes() {
	paused := also[Execution](a, http.StatusOK, "It is paused")
	route(a, auth.Operator, huma.Operation{OperationID: "pauseExecution", Method: http.MethodPost, Path: "/executions/{id}/pause", Tags: []string{tagExecutions}, Summary: "Pause an execution", DefaultStatus: http.StatusAccepted, Responses: paused,
		Description: "200: nothing of it runs, and nothing will until it is resumed. 202: a worker has it: steps in flight end and are recorded, then it hands the execution back. What waits goes on waiting, and is held when it is woken. Its deadline goes on. 409: it has ended, or is paused already."}, a.pauseExecution)
	route(a, auth.Operator, huma.Operation{OperationID: "retryExecution", Method: http.MethodPost, Path: "/executions/{id}/retry", Tags: []string{tagExecutions}, Summary: "Retry an execution from the step that failed", DefaultStatus: http.StatusAccepted,
		Description: "One that failed, timed out or was cancelled. What has succeeded isn't done again; its deadline begins anew. 409: it has succeeded, or hasn't ended."}, a.retryExecution)
	route(a, auth.Operator, huma.Operation{OperationID: "resumeExecution", Method: http.MethodPost, Path: "/executions/{id}/resume", Tags: []string{tagExecutions}, Summary: "Let a paused execution go on",
		Description: "409: it isn't paused, or it is its flow or a node type that is: resume that."}, a.resumeExecution)
	route(a, auth.Viewer, huma.Operation{OperationID: "getFlowPause", Method: http.MethodGet, Path: "/flows/{id}/pause", Tags: []string{tagFlows}, Summary: "Say whether a flow is paused, and how many executions are"},
		func(ctx context.Context, in *FlowRef) (*flowPauseOutput, error) {
			f, err := a.flow(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return a.flowPause(ctx, &f)
		})
	route(a, auth.Operator, huma.Operation{OperationID: "pauseFlow", Method: http.MethodPost, Path: "/flows/{id}/pause", Tags: []string{tagFlows}, Summary: "Pause a flow",
		Description: "New executions are accepted and wait; those that are not final are paused one after the other by the leader, as if each had been paused."}, a.pauseFlow)
	route(a, auth.Operator, huma.Operation{OperationID: "resumeFlow", Method: http.MethodPost, Path: "/flows/{id}/resume", Tags: []string{tagFlows}, Summary: "Let a paused flow go on",
		Description: "The leader lets its executions go on in batches, the oldest first; GET /flows/{id}/pause shows how many are left."}, a.resumeFlow)
	route(a, auth.Viewer, huma.Operation{OperationID: "listPauses", Method: http.MethodGet, Path: "/pauses", Tags: []string{tagOperations}, Summary: "List the node types and pools that are paused",
		Description: "All on one page."},
		func(ctx context.Context, _ *struct{}) (*listOutput[PauseView], error) {
			rows, err := a.o.DB.ListPauses(ctx)
			if err != nil {
				return nil, err
			}
			return listOf(rows, "", viewPause), nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getPause", Method: http.MethodGet, Path: "/pauses/{kind}/{name}", Tags: []string{tagOperations}, Summary: "Show the pause of a node type or a pool"},
		func(ctx context.Context, in *PauseRef) (*pauseOutput, error) {
			rows, err := a.o.DB.ListPauses(ctx)
			for i := range rows {
				if rows[i].Kind == in.Kind && rows[i].Name == in.Name {
					return &pauseOutput{viewPause(&rows[i])}, nil
				}
			}
			if err == nil {
				err = noPause(in.text())
			}
			return nil, err
		})
	route(a, auth.Operator, huma.Operation{OperationID: "setPause", Method: http.MethodPut, Path: "/pauses/{kind}/{name}", Tags: []string{tagOperations}, Summary: "Pause a node type or a pool",
		Description: "node-type: no step of the type begins anywhere; an execution that comes to one waits, without a slot, until the type is resumed. pool: its workers take nothing more; what they run goes on. Workers hear of it with the next renewal of their session, within a fifth of WORKER_LEASE."}, a.setPause)
	route(a, auth.Operator, huma.Operation{OperationID: "clearPause", Method: http.MethodDelete, Path: "/pauses/{kind}/{name}", Tags: []string{tagOperations}, Summary: "Resume a node type or a pool", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *PauseRef) (*nothing, error) {
			err := a.o.DB.ClearPause(ctx, in.Kind, in.Name)
			if errors.Is(err, store.ErrNotFound) {
				return nil, noPause(in.text())
			}
			if err == nil {
				a.note(ctx, "resume", in.Kind, in.Name, nil)
			}
			return nil, err
		})
}

// poolNames are those that a pool may have.
var poolNames = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

func (p *PauseRef) text() string { return p.Kind + " " + p.Name }

func noPause(what string) error {
	return problem.New(http.StatusNotFound, "the %s isn't paused", what)
}

func viewPause(p *store.PauseRow) PauseView {
	return PauseView{Kind: p.Kind, Name: p.Name, Reason: p.Reason, SetBy: p.SetBy, SetAt: p.SetAt}
}

// steer runs a script on one execution and shows the execution as it is then. script is run in a transaction that outlives the request.
func (a *API) steer(ctx context.Context, ref, action string, detail map[string]any, script func(context.Context, protocol.Tx, []protocol.ID) (protocol.Outcome, []protocol.Verdict, error)) (*store.Execution, error) {
	id, err := pathID(ref, "execution")
	if err != nil {
		return nil, err
	}
	var out protocol.Outcome
	var verdicts []protocol.Verdict
	whole := context.WithoutCancel(ctx)
	err = a.o.DB.Txn(whole, action, func(tx protocol.Tx) error {
		var err error
		out, verdicts, err = script(whole, tx, []protocol.ID{id})
		return err
	})
	if err != nil {
		return nil, err
	}
	if v := verdicts[0]; !v.Done {
		if v.State == "" {
			return nil, problem.New(http.StatusNotFound, "there is no execution with the id %q", ref)
		}
		return nil, problem.New(http.StatusConflict, "%s", v.Reason)
	}
	a.follow(out)
	a.note(ctx, action, "execution", ref, detail)
	x, err := a.execution(ctx, ref)
	if err == nil {
		a.showValues(ctx, &x)
	}
	return &x, err
}

// follow does what a commit leaves to be done: all of it is done by others too, a little later.
func (a *API) follow(out protocol.Outcome) {
	a.o.Follow(out)
	for i := range out.Hushed {
		a.o.Tell(protocol.Control{V: protocol.SchemaVersion, Pause: &out.Hushed[i]})
	}
}

func (a *API) pauseExecution(ctx context.Context, in *pauseExecutionInput) (*executionOutput, error) {
	text := protocol.PausedBy(principal(ctx).Actor(), in.Body.Reason)
	x, err := a.steer(ctx, in.ID, "pause", map[string]any{"reason": in.Body.Reason}, func(ctx context.Context, tx protocol.Tx, ids []protocol.ID) (protocol.Outcome, []protocol.Verdict, error) {
		return protocol.Pause(ctx, tx, ids, text)
	})
	if err != nil {
		return nil, err
	}
	out := &executionOutput{Status: http.StatusOK, Body: viewExecution(x)}
	if x.State == protocol.Running {
		out.Status = http.StatusAccepted
	}
	return out, nil
}

func (a *API) retryExecution(ctx context.Context, in *IDRef) (*executionOutput, error) {
	x, err := a.steer(ctx, in.ID, "retry", nil, func(ctx context.Context, tx protocol.Tx, ids []protocol.ID) (protocol.Outcome, []protocol.Verdict, error) {
		return protocol.Retry(ctx, tx, ids)
	})
	if err != nil {
		return nil, err
	}
	return &executionOutput{Status: http.StatusAccepted, Body: viewExecution(x)}, nil
}

func (a *API) resumeExecution(ctx context.Context, in *IDRef) (*executionOutput, error) {
	x, err := a.steer(ctx, in.ID, "resume", nil, func(ctx context.Context, tx protocol.Tx, ids []protocol.ID) (protocol.Outcome, []protocol.Verdict, error) {
		return protocol.Resume(ctx, tx, ids, true)
	})
	if err != nil {
		return nil, err
	}
	return &executionOutput{Status: http.StatusOK, Body: viewExecution(x)}, nil
}

func (a *API) flowPause(ctx context.Context, f *store.Flow) (*flowPauseOutput, error) {
	n, err := a.o.DB.HeldByPause(ctx, f.ID)
	return &flowPauseOutput{FlowPause{FlowID: f.ID.String(), Paused: f.PausedReason != "", Reason: f.PausedReason, Held: n}}, err
}

func (a *API) pauseFlow(ctx context.Context, in *pauseFlowInput) (*flowPauseOutput, error) {
	return a.switchFlow(ctx, in.ID, "pause", protocol.FlowPaused(principal(ctx).Actor(), in.Body.Reason))
}

func (a *API) resumeFlow(ctx context.Context, in *FlowRef) (*flowPauseOutput, error) {
	return a.switchFlow(ctx, in.ID, "resume", "")
}

// switchFlow writes down what holds from now on; the leader carries it out.
func (a *API) switchFlow(ctx context.Context, ref, action, text string) (*flowPauseOutput, error) {
	f, err := a.flow(ctx, ref)
	if err != nil {
		return nil, err
	}
	f, changed, err := a.o.DB.SetFlowPause(ctx, f.ID, text)
	switch {
	case err != nil:
		return nil, noFlow(err, ref)
	case !changed && text != "":
		return nil, problem.New(http.StatusConflict, "the flow %q is paused already (%s)", f.Name, f.PausedReason)
	case !changed:
		return nil, problem.New(http.StatusConflict, "the flow %q isn't paused", f.Name)
	}
	a.o.Definitions.Settle(ctx)
	a.note(ctx, action, "flow", f.ID.String(), map[string]any{"name": f.Name, "reason": text})
	return a.flowPause(ctx, &f)
}

func (a *API) setPause(ctx context.Context, in *setPauseInput) (*pauseOutput, error) {
	switch in.Kind {
	case store.PauseNodeType:
		if _, ok := a.o.Catalogue.Lookup(in.Name, 0); !ok {
			return nil, problem.New(http.StatusNotFound, "there is no node type %q; GET /catalog/nodes lists them", in.Name)
		}
	case store.PausePool:
		if !poolNames.MatchString(in.Name) {
			return nil, problem.New(http.StatusNotFound, "%q is no name of a pool", in.Name)
		}
	default:
		return nil, problem.New(http.StatusNotFound, "%q can't be paused: node-type and pool can, and flows and executions by their own calls", in.Kind)
	}
	p, err := a.o.DB.SetPause(ctx, store.PauseRow{Kind: in.Kind, Name: in.Name, Reason: in.Body.Reason, SetBy: principal(ctx).Actor()})
	if errors.Is(err, store.ErrFull) {
		return nil, problem.New(http.StatusConflict, "too much is paused already: resume something first")
	}
	if err != nil {
		return nil, err
	}
	a.note(ctx, "pause", in.Kind, in.Name, map[string]any{"reason": in.Body.Reason})
	return &pauseOutput{viewPause(&p)}, nil
}

// whyPool says that a pool is paused, if it is.
func (a *API) whyPool(ctx context.Context, pool string, add func(code, format string, args ...any)) error {
	rows, err := a.o.DB.ListPauses(ctx)
	for _, p := range rows {
		if p.Kind == store.PausePool && p.Name == poolName(pool) {
			add("pool-paused", "the pool %q is paused by %s: %s", p.Name, p.SetBy, p.Reason)
		}
	}
	return err
}

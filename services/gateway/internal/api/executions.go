package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Execution is an execution; lists go without input and output.
type Execution struct {
	ID          string            `json:"id" format:"uuid"`
	FlowID      string            `json:"flowId" format:"uuid"`
	FlowVersion int               `json:"flowVersion"`
	Status      string            `json:"status" enum:"queued,running,waiting,succeeded,failed,cancelled,timed_out"`
	Input       json.RawMessage   `json:"input,omitempty"`
	InputRef    *ValueRef         `json:"inputRef,omitempty" doc:"In place of an input over 1 MiB"`
	Output      json.RawMessage   `json:"output,omitempty" doc:"Once it has succeeded"`
	OutputRef   *ValueRef         `json:"outputRef,omitempty" doc:"In place of an output over 1 MiB"`
	Error       *flow.Failure     `json:"error,omitempty" doc:"Why it failed, or was ended"`
	Attempt     int               `json:"attempt" doc:"How often it was handed out"`
	Retries     int               `json:"retries" doc:"By users"`
	Trigger     string            `json:"trigger"`
	Priority    string            `json:"priority"`
	Pool        string            `json:"pool,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Hold        string            `json:"hold,omitempty" doc:"What of flow control it waits for"`
	Paused      string            `json:"paused,omitempty" doc:"Who paused it, and why"`
	Cancelling  bool              `json:"cancelling,omitempty" doc:"It was asked to end, and its worker hasn't let go yet"`
	CreatedAt   time.Time         `json:"createdAt"`
	StartedAt   time.Time         `json:"startedAt,omitzero"`
	FinishedAt  time.Time         `json:"finishedAt,omitzero"`
	Deadline    time.Time         `json:"deadline,omitzero"`
	ParentID    string            `json:"parentId,omitempty"`
	ReplayOf    string            `json:"replayOf,omitempty"`
}

// Step is one turn of a node in an execution.
type Step struct {
	Node       string          `json:"node"`
	Type       string          `json:"type"`
	Iteration  string          `json:"iteration,omitempty"`
	Status     string          `json:"status" enum:"pending,queued,running,sleeping,waiting,succeeded,failed,skipped"`
	Port       string          `json:"port,omitempty" doc:"By which it left"`
	Output     json.RawMessage `json:"output,omitempty"`
	OutputRef  *ValueRef       `json:"outputRef,omitempty" doc:"In place of an output over 1 MiB, or over 256 KiB once the outputs of the steps before have 8 MiB"`
	Error      *flow.Failure   `json:"error,omitempty" doc:"Also of the last try of a step that is tried again"`
	Try        int             `json:"try" doc:"1 is the first; 0: it hasn't begun"`
	StartedAt  time.Time       `json:"startedAt,omitzero"`
	FinishedAt time.Time       `json:"finishedAt,omitzero"`
}

// Wait is a wait of an execution, also after it was met.
type Wait struct {
	Node      string          `json:"node" doc:"Empty: the execution as a whole waits"`
	Iteration string          `json:"iteration,omitempty"`
	Kind      string          `json:"kind" enum:"timer,retry,signal,approval,children,remote,paused"`
	Key       string          `json:"key,omitempty"`
	Reason    string          `json:"reason"`
	Since     time.Time       `json:"since"`
	Due       time.Time       `json:"due,omitzero"`
	Met       time.Time       `json:"met,omitzero" doc:"Absent while it is open"`
	Seconds   float64         `json:"seconds" doc:"How long it has lasted"`
	Progress  json.RawMessage `json:"progress,omitempty" doc:"Of a remote task: what its worker said last"`
}

type executionOutput struct {
	Status int
	Body   Execution
}

type listExecutionsInput struct {
	Page
	Flow   string    `query:"flowId" doc:"Id or name of the flow"`
	Parent string    `query:"parent" doc:"Id of the execution that has called them and waits for them"`
	Status []string  `query:"status" enum:"queued,running,waiting,succeeded,failed,cancelled,timed_out" doc:"One or more, by comma"`
	Since  time.Time `query:"since" doc:"Accepted then or later"`
	Label  []string  `query:"label,explode" maxItems:"16" doc:"key=value; several: all of them"`
	Query  string    `query:"q" maxLength:"200" doc:"In the id, the trigger, the labels or the flow's name"`
}

func (a *API) executionRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "listExecutions", Method: http.MethodGet, Path: "/executions", Tags: []string{tagExecutions}, Summary: "List executions, the newest first"}, a.listExecutions)
	route(a, auth.Viewer, huma.Operation{OperationID: "getExecution", Method: http.MethodGet, Path: "/executions/{id}", Tags: []string{tagExecutions}, Summary: "Show an execution"},
		func(ctx context.Context, in *IDRef) (*executionOutput, error) {
			x, err := a.execution(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			a.showValues(ctx, &x)
			return &executionOutput{Status: http.StatusOK, Body: viewExecution(&x)}, nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getSteps", Method: http.MethodGet, Path: "/executions/{id}/steps", Tags: []string{tagExecutions}, Summary: "Show what an execution's steps did"}, a.steps)
	route(a, auth.Viewer, huma.Operation{OperationID: "getWaits", Method: http.MethodGet, Path: "/executions/{id}/waits", Tags: []string{tagExecutions}, Summary: "Show what an execution waits for, or has waited for"}, a.waits)
	route(a, auth.Editor, huma.Operation{OperationID: "cancelExecution", Method: http.MethodPost, Path: "/executions/{id}/cancel", Tags: []string{tagExecutions}, Summary: "Cancel an execution", DefaultStatus: http.StatusAccepted, Responses: also[Execution](a, http.StatusOK, "It is cancelled"),
		Description: "200: it is cancelled. 202: a worker has it and lets it end; calls in flight end first and are recorded. 409: it has ended otherwise."}, a.cancel)
}

func text(id protocol.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func viewListed(x *store.Execution) Execution {
	return Execution{
		ID: x.ID.String(), FlowID: x.Flow.String(), FlowVersion: x.Version, Status: string(x.State), Error: x.Error, Attempt: x.Attempt, Retries: x.Retries, Trigger: x.Trigger,
		Priority: x.Priority, Pool: x.Pool, Labels: x.Labels, Hold: x.Hold, Paused: x.Paused, Cancelling: x.Cancel != "" && !x.State.Final(), CreatedAt: x.CreatedAt, StartedAt: x.StartedAt,
		FinishedAt: x.FinishedAt, Deadline: x.Deadline, ParentID: text(x.Parent), ReplayOf: text(x.ReplayOf),
	}
}

var null = json.RawMessage("null")

func viewExecution(x *store.Execution) Execution {
	v := viewListed(x)
	if v.Input = x.Input; v.Input == nil {
		v.Input = null
	}
	if v.Output = x.Output; v.Output == nil {
		v.Output = null
	}
	if x.Input == nil {
		v.InputRef = valueRef(x.ID, x.InputRef)
	}
	if x.Output == nil {
		v.OutputRef = valueRef(x.ID, x.OutputRef)
	}
	return v
}

// execution reads one from the primary: no 404 after a 202.
func (a *API) execution(ctx context.Context, s string) (store.Execution, error) {
	id, err := pathID(s, "execution")
	if err != nil {
		return store.Execution{}, err
	}
	x, err := a.o.DB.ExecutionByID(ctx, id)
	return x, missing(err, "execution", s)
}

func (a *API) listExecutions(ctx context.Context, in *listExecutionsInput) (*listOutput[Execution], error) {
	f := store.ExecutionFilter{Since: in.Since, Query: in.Query}
	for _, s := range in.Status {
		f.States = append(f.States, protocol.State(s))
	}
	var err error
	if f.Label, err = labelsOf(in.Label); err != nil {
		return nil, err
	}
	if in.Parent != "" {
		if f.Parent, err = protocol.ParseID(in.Parent); err != nil {
			return nil, problem.Invalid("parent is wrong", problem.Parameter("query", "parent", "%q is no id", in.Parent))
		}
	}
	if in.Flow != "" {
		if f.Flow, err = protocol.ParseID(in.Flow); err != nil {
			of, err := a.flow(ctx, in.Flow)
			if err != nil {
				return nil, err
			}
			f.Flow = of.ID
		}
	}
	rows, next, err := a.o.DB.ListExecutions(ctx, f, in.page())
	if err != nil {
		return nil, err
	}
	return listOf(rows, next, viewListed), nil
}

func (a *API) steps(ctx context.Context, in *IDRef) (*struct{ Body List[Step] }, error) {
	x, err := a.execution(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	reports, err := a.o.DB.ReportsOf(ctx, x.ID)
	if err != nil {
		return nil, err
	}
	lists := make([]json.RawMessage, len(reports))
	for i := range reports {
		lists[i] = reports[i].Events
	}
	fetch, leave := a.fetcher(ctx, x.ID)
	defer leave()
	events, err := protocol.ResolveEvents(lists, fetch)
	if err != nil {
		return nil, err
	}
	if x.InputRef.Ref != "" {
		if x.Input, err = fetch(x.InputRef); err != nil {
			return nil, err
		}
	}
	steps, err := a.replay(ctx, &x, events)
	if err != nil {
		return nil, err
	}
	return &struct{ Body List[Step] }{List[Step]{Items: steps}}, nil
}

// replay folds what was recorded over the flow: the steps are not stored, the reports are.
func (a *API) replay(ctx context.Context, x *store.Execution, events []flow.Event) ([]Step, error) {
	v, err := a.o.Definitions.Version(ctx, store.Flow{ID: x.Flow, Name: x.Flow.String()}, x.Version)
	if err != nil {
		return nil, err
	}
	rec := flow.Record{
		Execution: flow.ExecutionView{ID: x.ID.String(), CreatedAt: x.CreatedAt, Trigger: x.Trigger, Labels: x.Labels, Priority: x.Priority},
		Flow:      v.Program.Flow(), Deadline: x.Deadline,
	}
	if len(x.Input) > 0 {
		if rec.Input, err = flow.DecodeValue(x.Input); err != nil {
			return nil, err
		}
	}
	state, err := flow.Restore(v.Program, rec, events)
	if err != nil {
		return nil, err
	}
	all := state.Steps()
	out := make([]Step, len(all))
	shown := 0
	for i, s := range all {
		out[i] = Step{Node: s.Key.Node, Type: s.Type, Iteration: s.Key.Iteration, Status: s.Status, Port: s.Port, Error: s.Error, Try: s.Try, StartedAt: s.Started, FinishedAt: s.Finished}
		if s.Status == "succeeded" {
			raw, err := flow.EncodeValue(s.Output)
			if err != nil {
				return nil, err
			}
			if n := len(raw); n > maxShown || n > protocol.MaxInline && shown+n > maxShownSteps {
				out[i].OutputRef = valueRef(x.ID, protocol.Value{Ref: payload.Ref(raw), Size: n})
				continue
			}
			shown += len(raw)
			out[i].Output = raw
		}
	}
	return out, nil
}

func viewWait(w *protocol.OpenWait, now time.Time) Wait {
	end := w.Met
	if end.IsZero() {
		end = now
	}
	iteration := w.Iteration
	if w.Node == "" { // of the execution itself
		iteration = ""
	}
	return Wait{Node: w.Node, Iteration: iteration, Kind: w.Kind, Key: w.Key, Reason: w.Reason, Since: w.Since, Due: w.Due, Met: w.Met, Seconds: max(0, end.Sub(w.Since).Seconds())}
}

func (a *API) waits(ctx context.Context, in *IDRef) (*struct{ Body List[Wait] }, error) {
	x, err := a.execution(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	rows, err := a.o.DB.WaitsOf(ctx, x.ID)
	if err != nil {
		return nil, err
	}
	out := make([]Wait, len(rows))
	for i := range rows {
		if rows[i].Met.IsZero() && x.State.Final() { // a pause that the end was faster than
			rows[i].Met = x.FinishedAt
		}
		out[i] = viewWait(&rows[i], a.o.Now().UTC())
	}
	if err := a.remoteWaits(ctx, x.ID, out); err != nil {
		return nil, err
	}
	return &struct{ Body List[Wait] }{List[Wait]{Items: out}}, nil
}

func (a *API) cancel(ctx context.Context, in *IDRef) (*executionOutput, error) {
	id, err := pathID(in.ID, "execution")
	if err != nil {
		return nil, err
	}
	var out protocol.Outcome
	err = a.o.DB.Txn(context.WithoutCancel(ctx), "cancel", func(tx protocol.Tx) error {
		var err error
		out, err = protocol.Cancel(ctx, tx, []protocol.ID{id}, protocol.Cancelled)
		return err
	})
	if err != nil && !errors.Is(err, protocol.ErrUnknown) { // unknown: the row tells, below
		return nil, err
	}
	a.follow(out)
	x, err := a.execution(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if len(out.News) > 0 {
		a.note(ctx, "cancel", "execution", in.ID, nil)
	}
	a.showValues(ctx, &x)
	answer := &executionOutput{Status: http.StatusOK, Body: viewExecution(&x)}
	switch {
	case x.State == protocol.Cancelled:
	case x.State.Final():
		return nil, problem.New(http.StatusConflict, "the execution has ended already: it %s", strings.ReplaceAll(string(x.State), "_", " "))
	default:
		answer.Status = http.StatusAccepted
	}
	return answer, nil
}

// answerWaited reads the row on the primary at the end of a wait: 200 if it is final, else 202.
func (a *API) answerWaited(w http.ResponseWriter, r *http.Request, id protocol.ID) {
	// The client may be gone: then nobody reads this. The context only ends the query.
	x, err := a.o.DB.ExecutionByID(r.Context(), id)
	if err != nil { // it is accepted, and that is what must be said
		a.log.Warn("an execution that was waited for can't be read", "execution", id.String(), "error", err)
		writeAccepted(w, id, "queued")
		return
	}
	a.showValues(r.Context(), &x)
	a.writeExecution(w, &x)
}

func (a *API) writeExecution(w http.ResponseWriter, x *store.Execution) {
	if !x.State.Final() {
		writeAccepted(w, x.ID, string(x.State))
		return
	}
	body, err := json.Marshal(viewExecution(x))
	if err != nil {
		a.refuse(w, "startExecution", err)
		return
	}
	w.Header()["Location"] = []string{Base + "/executions/" + x.ID.String()}
	writeJSON(w, http.StatusOK, append(body, nl...))
}

// replayed answers a start whose key was used before, with that execution.
func (a *API) replayed(w http.ResponseWriter, r *http.Request, id protocol.ID, patience time.Duration) {
	if patience > 0 {
		waiter, ok := a.o.Waits.Add(id)
		x, err := a.o.DB.ExecutionByID(r.Context(), id) // after Add: an end from now on wakes us
		if ok {
			defer waiter.Close()
			if err == nil && !x.State.Final() {
				waiter.Wait(r.Context(), patience)
			}
		}
		a.answerWaited(w, r, id)
		return
	}
	x, err := a.o.DB.ExecutionByID(r.Context(), id)
	if err != nil {
		writeAccepted(w, id, "queued")
		return
	}
	writeAccepted(w, id, string(x.State))
}

func pathUnescape(s string) (string, error) { return url.PathUnescape(s) }

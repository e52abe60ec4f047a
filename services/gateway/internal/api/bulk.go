package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// defaultRate is how many executions a second a bulk job does when nobody says.
const defaultRate = 500

// BulkAsk says which executions are meant, and how fast.
type BulkAsk struct {
	IDs    []string    `json:"ids,omitempty" maxItems:"10000" doc:"Ids of executions"`
	Filter *BulkFilter `json:"filter,omitempty" doc:"Those that the list of executions would show now, 100,000 at the most; {} is all"`
	Rate   int         `json:"rate,omitempty" minimum:"1" maximum:"10000" default:"500" doc:"Executions a second"`
}

// BulkFilter chooses executions as the list does.
type BulkFilter struct {
	FlowID string            `json:"flowId,omitempty" doc:"Id or name of the flow"`
	Status []string          `json:"status,omitempty" maxItems:"7" enum:"queued,running,waiting,succeeded,failed,cancelled,timed_out" doc:"Absent: any that the action can be done to: of retry failed and timed_out, of cancel those that haven't ended, of replay all that have"`
	Since  time.Time         `json:"since,omitzero" doc:"Accepted then or later"`
	Label  map[string]string `json:"label,omitempty" doc:"All of them"`
	Query  string            `json:"q,omitempty" maxLength:"200" doc:"In the id, the trigger, the labels or the flow's name"`
}

// BulkJob is one action over many executions.
type BulkJob struct {
	ID         string    `json:"id" format:"uuid"`
	Action     string    `json:"action" enum:"cancel,retry,replay"`
	Status     string    `json:"status" enum:"queued,running,stopping,finished"`
	AskedBy    string    `json:"askedBy"`
	Rate       int       `json:"rate" doc:"Executions a second at the most"`
	Total      int       `json:"total"`
	Done       int       `json:"done"`
	Failed     int       `json:"failed" doc:"It couldn't be done: GET /bulk/{id}/results says why"`
	Skipped    int       `json:"skipped" doc:"There was nothing to do, as with the retry of an execution that has succeeded; or the job was cancelled before"`
	CreatedAt  time.Time `json:"createdAt"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	StoppedBy  string    `json:"stoppedBy,omitempty" doc:"Who cancelled the job"`
}

// BulkResult is what became of one execution.
type BulkResult struct {
	ExecutionID string    `json:"executionId" format:"uuid"`
	Outcome     string    `json:"outcome" enum:"pending,done,failed,skipped"`
	Reason      string    `json:"reason,omitempty"`
	ReplayID    string    `json:"replayId,omitempty" format:"uuid" doc:"The new execution"`
	At          time.Time `json:"at,omitzero"`
}

type bulkInput struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"The same key with the same body gives the same job, as long as it is kept"`
	Body           BulkAsk
}

type bulkOutput struct {
	Replayed string `header:"Idempotency-Replayed" doc:"true: the key was used before, this is that job"`
	Body     BulkJob
}

type bulkResultsInput struct {
	IDRef
	Page
	Outcome string `query:"outcome" enum:"done,failed,skipped"`
}

func (a *API) bulkRoutes() {
	for action, summary := range map[string]string{store.BulkCancel: "Cancel many executions", store.BulkRetry: "Retry many executions from the steps that failed", store.BulkReplay: "Replay many executions from their beginning"} {
		route(a, auth.Operator, huma.Operation{OperationID: action + "Executions", Method: http.MethodPost, Path: "/executions/" + action, Tags: []string{tagExecutions}, Summary: summary, DefaultStatus: http.StatusAccepted, MaxBodyBytes: 512 << 10,
			Description: fmt.Sprintf("By ids or by filter. The answer is a job that the leader works off, no faster than its rate and each execution once, whatever breaks meanwhile. 409: %d jobs are open already.", store.MaxBulkOpen)},
			func(ctx context.Context, in *bulkInput) (*bulkOutput, error) { return a.startBulk(ctx, action, in) })
	}
	route(a, auth.Viewer, huma.Operation{OperationID: "listBulk", Method: http.MethodGet, Path: "/bulk", Tags: []string{tagExecutions}, Summary: "List bulk jobs, the newest first", Description: "Finished ones are kept for a week."},
		func(ctx context.Context, in *Page) (*listOutput[BulkJob], error) {
			rows, next, err := a.o.DB.ListBulk(ctx, in.page())
			if err != nil {
				return nil, err
			}
			return listOf(rows, next, viewBulk), nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getBulk", Method: http.MethodGet, Path: "/bulk/{id}", Tags: []string{tagExecutions}, Summary: "Show how far a bulk job is"},
		func(ctx context.Context, in *IDRef) (*bulkOutput, error) {
			b, err := a.bulk(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return &bulkOutput{Body: viewBulk(&b)}, nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getBulkResults", Method: http.MethodGet, Path: "/bulk/{id}/results", Tags: []string{tagExecutions}, Summary: "Show what became of each execution of a bulk job"}, a.bulkResults)
	route(a, auth.Operator, huma.Operation{OperationID: "cancelBulk", Method: http.MethodPost, Path: "/bulk/{id}/cancel", Tags: []string{tagExecutions}, Summary: "End a bulk job", DefaultStatus: http.StatusAccepted,
		Description: "What was done stays done, the rest is skipped."}, a.cancelBulk)
}

func viewBulk(b *store.Bulk) BulkJob {
	out := BulkJob{ID: b.ID.String(), Action: b.Action, Status: "queued", AskedBy: b.AskedBy, Rate: b.Rate, Total: b.Total, Done: b.Done, Failed: b.Failed, Skipped: b.Skipped,
		CreatedAt: b.CreatedAt, StartedAt: b.StartedAt, FinishedAt: b.FinishedAt, StoppedBy: b.StoppedBy}
	switch {
	case !b.FinishedAt.IsZero():
		out.Status = "finished"
	case b.StoppedBy != "":
		out.Status = "stopping"
	case !b.StartedAt.IsZero():
		out.Status = "running"
	}
	return out
}

func (a *API) bulk(ctx context.Context, ref string) (store.Bulk, error) {
	id, err := pathID(ref, "bulk job")
	if err != nil {
		return store.Bulk{}, err
	}
	b, err := a.o.DB.BulkByID(ctx, id)
	return b, missing(err, "bulk job", ref)
}

// possible are the states in which an action has something to do.
var possible = map[string][]protocol.State{
	store.BulkRetry:  {protocol.Failed, protocol.TimedOut},
	store.BulkCancel: {protocol.Queued, protocol.Running, protocol.Waiting},
	store.BulkReplay: {protocol.Succeeded, protocol.Failed, protocol.Cancelled, protocol.TimedOut},
}

// chosen says which executions a caller means: never all by leaving everything out.
func (a *API) chosen(ctx context.Context, action string, ask *BulkAsk) (ids []protocol.ID, f *store.ExecutionFilter, err error) {
	if (len(ask.IDs) == 0) == (ask.Filter == nil) {
		return nil, nil, problem.Invalid("which executions?", problem.Body("", "choice", "give either ids or a filter; the filter {} is all that the action can be done to"))
	}
	for i, s := range ask.IDs {
		id, err := protocol.ParseID(s)
		if err != nil {
			return nil, nil, problem.Invalid("an id is wrong", problem.Body("/ids/"+strconv.Itoa(i), "id", "%q is no id", s))
		}
		ids = append(ids, id)
	}
	if ask.Filter == nil {
		return ids, nil, nil
	}
	in := ask.Filter
	f = &store.ExecutionFilter{Since: in.Since, Label: in.Label, Query: in.Query, States: possible[action]}
	if len(in.Status) > 0 {
		f.States = nil
		for _, s := range in.Status {
			f.States = append(f.States, protocol.State(s))
		}
	}
	if in.FlowID != "" {
		of, err := a.flow(ctx, in.FlowID)
		if err != nil {
			return nil, nil, problem.Invalid("the filter is wrong", problem.Body("/filter/flowId", "unknown", "there is no flow with the id or name %q", in.FlowID))
		}
		f.Flow = of.ID
	}
	return nil, f, nil
}

func (a *API) startBulk(ctx context.Context, action string, in *bulkInput) (*bulkOutput, error) {
	ids, f, err := a.chosen(ctx, action, &in.Body)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(in.Body)
	if err != nil {
		return nil, err
	}
	who := principal(ctx)
	key, err := idempotencyKey(&http.Request{Header: http.Header{"Idempotency-Key": {in.IdempotencyKey}}}, who.Key()+" bulk "+action, body)
	if err != nil {
		return nil, err
	}
	rate := in.Body.Rate
	if rate == 0 {
		rate = defaultRate
	}
	b, again, err := a.o.DB.CreateBulk(ctx, store.Bulk{ID: store.NewID(), Action: action, AskedBy: who.Actor(), Rate: rate}, ids, f, key)
	switch {
	case errors.Is(err, store.ErrFull):
		return nil, problem.New(http.StatusConflict, "%d bulk jobs are open: wait until one is finished, or cancel one", store.MaxBulkOpen)
	case errors.Is(err, store.ErrTooMany):
		return nil, problem.Invalid("the filter meets too much", problem.Body("/filter", "too-many", "the filter meets %s: narrow it", store.ErrTooMany.Error()))
	case errors.Is(err, store.ErrKeyReused):
		return nil, problem.Invalid("nothing was started", problem.Parameter("header", "Idempotency-Key", "this key was used before with another body: take a new one for a new request"))
	case err != nil:
		return nil, err
	}
	out := &bulkOutput{Body: viewBulk(&b)}
	if again {
		out.Replayed = "true"
		return out, nil
	}
	a.note(ctx, "bulk "+action, "executions", b.ID.String(), map[string]any{"ids": len(ids), "filter": in.Body.Filter, "rate": rate, "total": b.Total})
	return out, nil
}

func (a *API) bulkResults(ctx context.Context, in *bulkResultsInput) (*listOutput[BulkResult], error) {
	b, err := a.bulk(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	after := 0
	if in.Cursor != "" {
		if after, err = strconv.Atoi(in.Cursor); err != nil || after < 0 {
			return nil, store.ErrCursor
		}
	}
	rows, err := a.o.DB.BulkItems(ctx, b.ID, after, in.Outcome, in.Limit+1)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(rows) > in.Limit {
		rows = rows[:in.Limit]
		next = strconv.Itoa(rows[in.Limit-1].N)
	}
	return listOf(rows, next, func(i *store.BulkItem) BulkResult {
		out := BulkResult{ExecutionID: i.Execution.String(), Outcome: i.Outcome, Reason: i.Reason, ReplayID: text(i.Result), At: i.At}
		if out.Outcome == "" {
			out.Outcome = "pending"
		}
		return out
	}), nil
}

func (a *API) cancelBulk(ctx context.Context, in *IDRef) (*bulkOutput, error) {
	b, err := a.bulk(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	changed, err := a.o.DB.StopBulk(ctx, b.ID, principal(ctx).Actor())
	if err != nil {
		return nil, err
	}
	if b, err = a.bulk(ctx, in.ID); err != nil {
		return nil, err
	}
	if !changed && !b.FinishedAt.IsZero() {
		return nil, problem.New(http.StatusConflict, "the job is finished already")
	}
	if changed {
		a.note(ctx, "cancel", "bulk job", in.ID, nil)
	}
	return &bulkOutput{Body: viewBulk(&b)}, nil
}

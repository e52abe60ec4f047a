package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
)

// maxCatches is how many catches of one execution are shown: its error flows, times its retries.
const maxCatches = 1000

// Catch is what became of a bad end of an execution at a flow with a trigger.error.
type Catch struct {
	FlowID      string    `json:"flowId" format:"uuid" doc:"The flow with the trigger.error"`
	FlowName    string    `json:"flowName"`
	Node        string    `json:"node" doc:"Its trigger"`
	Ended       string    `json:"ended" enum:"failed,timed_out,cancelled" doc:"How the execution ended"`
	Retries     int       `json:"retries" doc:"How often users had retried it by then: each end has its own"`
	Outcome     string    `json:"outcome" enum:"started,skipped,refused" doc:"skipped: it would go in a circle. refused: the flow could not be started"`
	Reason      string    `json:"reason,omitempty"`
	ExecutionID string    `json:"executionId,omitempty" doc:"That was started"`
	Status      string    `json:"status,omitempty" doc:"Of what was started, unless it is deleted"`
	At          time.Time `json:"at"`
}

func (a *API) catchRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "getCatches", Method: http.MethodGet, Path: "/executions/{id}/catches", Tags: []string{tagExecutions}, Summary: "Show which flows were started by the bad end of an execution (trigger.error)",
		Description: "The first 1,000, by retries. Nothing yet: flows are started within a second after the end. What such a flow starts has the label failedExecution, so GET /executions?label=failedExecution=ID finds it too."}, a.catches)
}

func (a *API) catches(ctx context.Context, in *IDRef) (*struct{ Body List[Catch] }, error) {
	x, err := a.execution(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	rows, err := a.o.DB.CatchesOf(ctx, x.ID, maxCatches)
	if err != nil {
		return nil, err
	}
	out := make([]Catch, len(rows))
	for i := range rows {
		c := &rows[i]
		out[i] = Catch{FlowID: c.Flow.String(), FlowName: c.FlowName, Node: c.Node, Ended: string(c.State), Retries: c.Retries, Outcome: c.Outcome, Reason: c.Reason, ExecutionID: text(c.Started), Status: string(c.StartedState), At: c.At}
	}
	return &struct{ Body List[Catch] }{List[Catch]{Items: out}}, nil
}

package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/internal/store"
)

// Scaling is how many workers there are, how many there should be, and why.
type Scaling struct {
	At         time.Time   `json:"at,omitzero" doc:"When the leader looked; absent when none has within 20 seconds"`
	Leader     string      `json:"leader,omitempty"`
	Term       int64       `json:"term,omitempty"`
	Pools      []PoolScale `json:"pools" nullable:"false"`
	Decisions  []Decision  `json:"decisions" nullable:"false" doc:"The newest first"`
	NextCursor string      `json:"nextCursor,omitempty" doc:"For older decisions"`
}

// PoolScale is how a pool stands.
type PoolScale struct {
	Pool        string  `json:"pool"`
	Job         string  `json:"job,omitempty" doc:"In Nomad"`
	Desired     int     `json:"desired" doc:"Workers that Nomad shall run"`
	Wanted      int     `json:"wanted" doc:"Workers that there should be; differs from desired while something stands in the way"`
	Placed      int     `json:"placed" doc:"Workers that run or are about to, by Nomad"`
	Reporting   int     `json:"reporting" doc:"Workers that have a session and report"`
	Backlog     int     `json:"backlog" doc:"Tasks that wait"`
	Running     int     `json:"running"`
	Slots       int     `json:"slots"`
	Arrival     float64 `json:"arrival" doc:"Executions a second that come"`
	Completion  float64 `json:"completion" doc:"Executions a second that end"`
	Utilisation float64 `json:"utilisation" doc:"Share of slots in use, 0 to 1"`
	Code        string  `json:"code" doc:"up, down, steady, off, missing-data, deployment, no-room, at-max, between-marks, down-window"`
	Reason      string  `json:"reason"`
}

// Decision is what a leader decided.
type Decision struct {
	ID      string          `json:"id" format:"uuid"`
	Term    int64           `json:"term" doc:"Of the leader; PostgreSQL takes decisions of the newest term only"`
	Pool    string          `json:"pool"`
	Reason  string          `json:"reason"`
	Detail  json.RawMessage `json:"detail,omitempty" doc:"What was seen: from, to, wanted, code, backlog, running, slots, arrival, completion"`
	At      time.Time       `json:"at"`
	DoneAt  time.Time       `json:"doneAt,omitzero"`
	Outcome string          `json:"outcome" doc:"done; held: something stood in the way; refused or failed: by Nomad, with its reason; empty: not known"`
}

type scalingOutput struct{ Body Scaling }

func (a *API) scalingRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "getScaling", Method: http.MethodGet, Path: "/scaling", Tags: []string{tagOperations}, Summary: "Show how many workers there are, how many there should be, and why",
		Description: "limit and cursor are for the decisions."}, a.getScaling)
}

func (a *API) getScaling(ctx context.Context, in *struct{ Page }) (*scalingOutput, error) {
	rows, next, err := a.o.DB.ListDecisions(ctx, "scale", in.page())
	if err != nil {
		return nil, err
	}
	out := Scaling{Pools: []PoolScale{}, Decisions: make([]Decision, len(rows)), NextCursor: next}
	for i := range rows {
		out.Decisions[i] = viewDecision(&rows[i])
	}
	if f, err := a.o.Fleet(ctx); err == nil {
		out.At, out.Leader, out.Term = f.At, f.Leader, f.Term
		for _, s := range f.Scaling {
			out.Pools = append(out.Pools, PoolScale{Pool: s.Pool, Job: s.Job, Desired: s.Desired, Wanted: s.Wanted, Placed: s.Placed, Reporting: s.Reporting, Backlog: s.Backlog, Running: s.Running, Slots: s.Slots,
				Arrival: s.Arrival, Completion: s.Completion, Utilisation: s.Utilisation, Code: s.Code, Reason: s.Reason})
		}
	}
	return &scalingOutput{out}, nil
}

func viewDecision(d *store.Decision) Decision {
	return Decision{ID: d.ID.String(), Term: d.Term, Pool: d.Subject, Reason: d.Reason, Detail: d.Detail, At: d.At, DoneAt: d.DoneAt, Outcome: d.Outcome}
}

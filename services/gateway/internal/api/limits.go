package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/store"
)

// maxWaitsSince bounds how far back the waits of a flow are added up.
const maxWaitsSince = 31 * 24 * time.Hour

// WaitSum is what the executions of a flow have waited for one kind of reason.
type WaitSum struct {
	Kind    string  `json:"kind" doc:"debounce, rate, concurrency, fairness, paused, or what steps wait for" example:"concurrency"`
	Count   int     `json:"count"`
	Open    int     `json:"open" doc:"Of them: still waiting"`
	Seconds float64 `json:"seconds" doc:"All together"`
	P50     float64 `json:"p50" doc:"Seconds"`
	P95     float64 `json:"p95" doc:"Seconds"`
}

type flowWaitsInput struct {
	FlowRef
	Since time.Time `query:"since" doc:"Of executions accepted since then, 31 days at most; a day if absent"`
}

func (a *API) limitRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "flowWaits", Method: http.MethodGet, Path: "/flows/{id}/waits", Tags: []string{tagExecutions}, Summary: "Add up what a flow's executions have waited for",
		Description: "By kind: how often, how long, and half and 95 % of them no longer than. Waits that are not over count up to now."}, a.flowWaits)
}

func (a *API) flowWaits(ctx context.Context, in *flowWaitsInput) (*struct{ Body List[WaitSum] }, error) {
	of, err := a.flow(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	now := a.o.Now()
	if in.Since.IsZero() {
		in.Since = now.Add(-24 * time.Hour)
	}
	if now.Sub(in.Since) > maxWaitsSince {
		return nil, problem.Invalid("the request is wrong", problem.Parameter("query", "since", "at most 31 days ago"))
	}
	rows, err := a.o.DB.WaitSums(ctx, of.ID, in.Since)
	if err != nil {
		return nil, err
	}
	out := make([]WaitSum, len(rows))
	for i, r := range rows {
		out[i] = WaitSum(r)
	}
	return &struct{ Body List[WaitSum] }{List[WaitSum]{Items: out}}, nil
}

// whyHeld says what of flow control an execution waits for: its place, who is in the way, until when.
func (a *API) whyHeld(ctx context.Context, x *store.Execution, add func(code, format string, args ...any)) error {
	waits, err := a.o.DB.WaitsOf(ctx, x.ID)
	if err != nil {
		return err
	}
	known := false
	for i := range waits {
		w := &waits[i]
		if w.Node != "" || !w.Met.IsZero() || w.Kind != x.Hold {
			continue
		}
		until := ""
		if !w.Due.IsZero() {
			until = "; it goes on at " + w.Due.UTC().Format(time.RFC3339Nano)
		}
		known = true
		add("held", "it is held by %s since %s: %s%s", w.Kind, w.Since.UTC().Format(time.RFC3339), w.Reason, until)
	}
	slots, err := a.o.DB.WaitingSlots(ctx, x.ID)
	if err != nil {
		return err
	}
	if !known && len(slots) == 0 { // it is on its way out of the hold, or into it
		add("held", "it is held by %s", x.Hold)
	}
	for _, s := range slots {
		holders := make([]string, len(s.Holders))
		for i, id := range s.Holders {
			holders[i] = id.String()
		}
		more := ""
		if s.Held > len(holders) {
			more = ", …"
		}
		switch {
		case s.Most == 0:
			add("held", "fairness: %d of its flow and priority are queued or running, and %d wait before it, for now", s.Held, s.Before)
		case s.Held == 0:
			add("held", "concurrency, key %q: nobody holds it and %d wait before it; it is let in within seconds, unless another of its keys has no room", s.Value, s.Before)
		default:
			add("held", "concurrency, key %q: %d of %d hold it (%s%s), and %d wait before it", s.Value, s.Held, s.Most, strings.Join(holders, ", "), more, s.Before)
		}
	}
	return nil
}

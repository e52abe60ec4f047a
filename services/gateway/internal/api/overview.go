package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/singleflight"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/store"
)

const tagOverview = "Overview"

// Summary is what happened lately, for a dashboard.
type Summary struct {
	From        time.Time      `json:"from" doc:"What was accepted from then on is counted"`
	To          time.Time      `json:"to"`
	Sampled     bool           `json:"sampled" doc:"So much was accepted that only the newest executions were looked at: from tells since when"`
	Accepted    int            `json:"accepted"`
	PerSecond   float64        `json:"perSecond" doc:"Accepted"`
	ByStatus    map[string]int `json:"byStatus" doc:"Of those that were accepted in this time, by their status now"`
	FailureRate float64        `json:"failureRate" doc:"Failed and timed out, of those that have ended"`
	Start       Percentiles    `json:"start" doc:"Seconds from accept until a worker begins"`
	Duration    Percentiles    `json:"duration" doc:"Seconds from accept to the end"`
	Flows       int            `json:"flows" doc:"All there are"`
	Workers     int            `json:"workers" doc:"Sessions that are alive"`
}

// Percentiles of times, in seconds; 0 when there is nothing to measure.
type Percentiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// AuditEntry says who changed what.
type AuditEntry struct {
	ID       string          `json:"id" format:"uuid"`
	At       time.Time       `json:"at"`
	Actor    string          `json:"actor" doc:"E-mail address, with the name of the API token that was used; or a service"`
	Action   string          `json:"action" example:"create"`
	Object   string          `json:"object" example:"flow"`
	ObjectID string          `json:"objectId,omitempty"`
	Detail   json.RawMessage `json:"detail,omitempty"`
}

// summaryFresh is how long a summary is good: dashboards ask often, and many at once.
const summaryFresh = time.Second

// overview keeps the last summary of each window.
type overview struct {
	flight singleflight.Group
	mu     sync.Mutex
	last   map[time.Duration]Summary
}

func (a *API) overviewRoutes() {
	o := &overview{last: map[time.Duration]Summary{}}
	route(a, auth.Viewer, huma.Operation{OperationID: "getSummary", Method: http.MethodGet, Path: "/metrics/summary", Tags: []string{tagOverview}, Summary: "Counters and percentiles of the last minutes",
		Description: "At most the newest " + strconv.Itoa(store.MaxSummary) + " executions are looked at; a summary may be a second old."},
		func(ctx context.Context, in *struct {
			Window string `query:"window" enum:"1m,5m,15m,1h,24h" default:"5m" doc:"How far back"`
		}) (*struct{ Body Summary }, error) {
			d, err := time.ParseDuration(in.Window)
			if err != nil {
				return nil, problem.Invalid("the window is wrong", problem.Parameter("query", "window", "%q is not a duration", in.Window))
			}
			s, err := a.summary(ctx, o, d)
			return &struct{ Body Summary }{s}, err
		})
	route(a, auth.Admin, huma.Operation{OperationID: "listAudit", Method: http.MethodGet, Path: "/audit", Tags: []string{tagOverview}, Summary: "Who changed what, the newest first"},
		func(ctx context.Context, in *struct{ Page }) (*listOutput[AuditEntry], error) {
			rows, next, err := a.o.DB.ListAudit(ctx, in.page())
			if err != nil {
				return nil, err
			}
			return listOf(rows, next, func(e *store.AuditEntry) AuditEntry {
				return AuditEntry{ID: e.ID.String(), At: e.At, Actor: e.Actor, Action: e.Action, Object: e.Object, ObjectID: e.ObjectID, Detail: e.Detail}
			}), nil
		})
}

func (a *API) summary(ctx context.Context, o *overview, window time.Duration) (Summary, error) {
	now := a.o.Now().UTC()
	o.mu.Lock()
	s, ok := o.last[window]
	o.mu.Unlock()
	if ok && now.Sub(s.To) < summaryFresh {
		return s, nil
	}
	v, err, _ := o.flight.Do(window.String(), func() (any, error) {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		now := a.o.Now().UTC()
		got, err := a.o.DB.Summarize(bounded, now.Add(-window))
		if err != nil {
			return nil, err
		}
		s := viewSummary(&got, now.Add(-window), now)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.last[window] = s
		return s, nil
	})
	if err != nil {
		return Summary{}, err
	}
	return v.(Summary), nil
}

func viewSummary(got *store.Summary, from, to time.Time) Summary {
	s := Summary{From: from, To: to, Accepted: got.Accepted, ByStatus: map[string]int{}, Flows: got.Flows, Workers: got.Workers,
		Start: Percentiles(got.Start), Duration: Percentiles(got.Duration)}
	if got.Accepted >= store.MaxSummary && got.Oldest.After(from) {
		s.Sampled, s.From = true, got.Oldest
	}
	for state, n := range got.States {
		s.ByStatus[string(state)] = n
	}
	if seconds := to.Sub(s.From).Seconds(); seconds > 0 {
		s.PerSecond = float64(s.Accepted) / seconds
	}
	bad := s.ByStatus["failed"] + s.ByStatus["timed_out"]
	if ended := bad + s.ByStatus["succeeded"] + s.ByStatus["cancelled"]; ended > 0 {
		s.FailureRate = float64(bad) / float64(ended)
	}
	return s
}

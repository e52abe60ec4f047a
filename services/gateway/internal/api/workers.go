package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const tagOperations = "Operations"

// Worker is a worker with a session: what it is (from its session's row), and how it is (from the leader's picture of the last second).
type Worker struct {
	ID         string      `json:"id" doc:"WORKER_ID"`
	Session    string      `json:"session" format:"uuid"`
	Pool       string      `json:"pool"`
	Host       string      `json:"host"`
	Version    string      `json:"version"`
	Allocation string      `json:"allocation,omitempty" doc:"Under Nomad"`
	State      string      `json:"state" enum:"ready,holding,draining,unknown" doc:"holding: its session is not renewed, so it begins no effect; unknown: it has not reported lately"`
	Limit      int         `json:"limit" doc:"Executions that it may run at once, by its own environment"`
	Slots      int         `json:"slots" doc:"Executions that it shall run at once, as the leader has tuned it"`
	Weight     int         `json:"weight"`
	Drain      string      `json:"drain,omitempty" doc:"Who asked it to stop"`
	Load       *WorkerLoad `json:"load,omitempty" doc:"Absent when it has not reported lately, or the leader's picture is not there"`
	OpenedAt   time.Time   `json:"openedAt"`
	RenewedAt  time.Time   `json:"renewedAt"`
}

// WorkerLoad is how a worker is.
type WorkerLoad struct {
	Running       int       `json:"running" doc:"Executions that run"`
	Buffered      int       `json:"buffered" doc:"Tasks that it holds and has not begun"`
	Ended         uint64    `json:"ended" doc:"Executions that left it since it began"`
	CPU           float64   `json:"cpu" doc:"Processors in use"`
	CPULimit      float64   `json:"cpuLimit"`
	MemoryMB      int       `json:"memoryMb"`
	MemoryLimitMB int       `json:"memoryLimitMb"`
	ReportedAt    time.Time `json:"reportedAt"`
}

type drainOutput struct{ Body Worker }

func (a *API) workerRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "listWorkers", Method: http.MethodGet, Path: "/workers", Tags: []string{tagOperations}, Summary: "List the workers",
		Description: "Those with a session that is alive. All on one page."}, a.listWorkers)
	route(a, auth.Operator, huma.Operation{OperationID: "drainWorker", Method: http.MethodPost, Path: "/workers/{id}/drain", Tags: []string{tagOperations}, Summary: "Ask a worker to stop in order", DefaultStatus: http.StatusAccepted,
		Description: "It takes no more, finishes what ends soon, hands the rest back, and its process ends. Under Nomad another one begins in its place: for fewer workers, change MAX_WORKERS or the count."}, a.drainWorker)
}

func (a *API) listWorkers(ctx context.Context, _ *struct{}) (*listOutput[Worker], error) {
	sessions, err := a.o.DB.AliveSessions(ctx)
	if err != nil {
		return nil, err
	}
	loads := map[string]live.WorkerLoad{}
	if f, err := a.o.Fleet(ctx); err == nil { // without the picture the facts are worth showing
		for _, w := range f.Workers {
			loads[w.Session] = w
		}
	}
	return listOf(sessions, "", func(s *store.WorkerSession) Worker { return viewWorker(s, loads) }), nil
}

func viewWorker(s *store.WorkerSession, loads map[string]live.WorkerLoad) Worker {
	w := Worker{ID: s.Worker, Session: s.ID.String(), Pool: s.Pool, Host: s.Host, Version: s.Version, Allocation: s.Allocation, State: "unknown", Limit: s.Slots, Slots: s.Slots, Weight: s.Weight,
		Drain: s.Drain, OpenedAt: s.OpenedAt, RenewedAt: s.BeatAt}
	if s.Tuned > 0 {
		w.Slots = min(s.Tuned, s.Slots)
	}
	if l, ok := loads[w.Session]; ok {
		w.State = l.State
		w.Load = &WorkerLoad{Running: l.Running, Buffered: l.Buffered, Ended: l.Ended, CPU: l.CPU, CPULimit: l.CPULimit, MemoryMB: l.MemoryMB, MemoryLimitMB: l.MemoryLimitMB, ReportedAt: l.Heard}
	}
	if s.Drain != "" {
		w.State = "draining"
	}
	return w
}

func (a *API) drainWorker(ctx context.Context, in *IDRef) (*drainOutput, error) {
	if len(in.ID) > 255 {
		return nil, problem.New(http.StatusNotFound, "there is no worker with so long an id")
	}
	drained, err := a.o.DB.DrainWorker(ctx, in.ID, principal(ctx).Actor())
	if err != nil {
		return nil, missing(err, "worker", in.ID)
	}
	a.note(ctx, "drain", "worker", in.ID, nil)
	a.o.Tell(protocol.Control{V: protocol.SchemaVersion, Drain: in.ID}) // for speed: the renewal's answer carries the same
	sessions, err := a.o.DB.AliveSessions(ctx)
	if err != nil {
		return nil, err
	}
	for i := range sessions {
		if sessions[i].ID == drained[0] {
			return &drainOutput{viewWorker(&sessions[i], nil)}, nil
		}
	}
	return &drainOutput{Worker{ID: in.ID, Session: drained[0].String(), State: "draining"}}, nil // it was fast
}

package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/live"
)

// Queues is the state of all queues, as the leader saw them in the last second.
type Queues struct {
	At    time.Time    `json:"at" doc:"When the leader looked"`
	Pools []PoolQueues `json:"pools" nullable:"false"`
	Other []QueueState `json:"other" nullable:"false" doc:"Reports, tasks that are tried again in a second, dead letters on their way into their table"`
}

// PoolQueues are the queues of a pool.
type PoolQueues struct {
	Pool     string       `json:"pool"`
	Backlog  int          `json:"backlog" doc:"Tasks that wait: ready in the queues, or held by workers and not begun"`
	Buffered int          `json:"buffered" doc:"Of these, held by workers"`
	Queues   []QueueState `json:"queues" nullable:"false"`
}

// QueueState is the state of one queue.
type QueueState struct {
	Name      string `json:"name"`
	Kind      string `json:"kind" enum:"tasks,reports,retry,dead"`
	Priority  string `json:"priority,omitempty"`
	Ready     int    `json:"ready" doc:"Messages that no consumer holds"`
	Consumers int    `json:"consumers"`
	Error     string `json:"error,omitempty" doc:"Why it could not be seen"`
}

type queuesOutput struct{ Body Queues }

func (a *API) queueRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "getQueues", Method: http.MethodGet, Path: "/queues", Tags: []string{tagOperations}, Summary: "Show the queues: depth, consumers",
		Description: "503 when no leader has looked within 20 seconds."}, a.getQueues)
}

func (a *API) getQueues(ctx context.Context, _ *struct{}) (*queuesOutput, error) {
	f, err := a.picture(ctx)
	if err != nil {
		return nil, err
	}
	out := Queues{At: f.At, Pools: []PoolQueues{}, Other: []QueueState{}}
	for _, s := range f.Scaling {
		p := PoolQueues{Pool: s.Pool, Backlog: s.Backlog, Buffered: s.Buffered, Queues: []QueueState{}}
		for _, q := range f.Queues {
			if q.Kind == "tasks" && q.Pool == s.Pool {
				p.Queues = append(p.Queues, viewQueue(q))
			}
		}
		out.Pools = append(out.Pools, p)
	}
	for _, q := range f.Queues {
		if q.Kind != "tasks" {
			out.Other = append(out.Other, viewQueue(q))
		}
	}
	return &queuesOutput{out}, nil
}

func viewQueue(q live.Queue) QueueState {
	return QueueState{Name: q.Name, Kind: q.Kind, Priority: q.Priority, Ready: q.Ready, Consumers: q.Consumers, Error: q.Error}
}

// picture is what the leader has shown last.
func (a *API) picture(ctx context.Context) (live.Fleet, error) {
	f, err := a.o.Fleet(ctx)
	if errors.Is(err, live.ErrNoFleet) {
		return f, problem.New(http.StatusServiceUnavailable, "%s", live.ErrNoFleet).RetryAfter(2 * time.Second).Wrap(err)
	}
	return f, err
}

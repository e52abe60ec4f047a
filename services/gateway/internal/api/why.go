package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Why says why an execution is where it is: only what is known, from its row, its waits and the sessions of workers.
type Why struct {
	Status  string     `json:"status" enum:"queued,running,waiting,succeeded,failed,cancelled,timed_out"`
	Since   time.Time  `json:"since" doc:"Queued: since it was queued last. Running: since it first began. Ended: since then"`
	Attempt int        `json:"attempt" doc:"How often it was handed out"`
	Deaths  int        `json:"deaths" doc:"Workers that died while they ran it"`
	Reasons []Reason   `json:"reasons" nullable:"false" doc:"The most important first"`
	Waits   []Wait     `json:"waits" nullable:"false" doc:"What is waited for now"`
	Worker  *WhyWorker `json:"worker,omitempty" doc:"Who runs it"`
	Pool    *WhyPool   `json:"pool,omitempty" doc:"Queued and not held: how the pool stands whose workers it waits for"`
}

// Reason is one thing that is known.
type Reason struct {
	Code    string `json:"code" enum:"ended,cancelling,held,paused,pausing,pool-paused,not-handed,in-queue,queue,no-worker,scaling,not-seen,suspect,waiting,running,worker-silent,worker-dead" doc:"Stable"`
	Message string `json:"message"`
}

// WhyWorker is the worker that owns an execution.
type WhyWorker struct {
	Worker  string    `json:"worker"`
	Session string    `json:"session" format:"uuid"`
	Host    string    `json:"host,omitempty"`
	Alive   bool      `json:"alive" doc:"As its lease says"`
	BeatAt  time.Time `json:"beatAt" doc:"When it last renewed its session"`
}

// silentAfter is when a worker that should renew every 3 s is worth a word.
const silentAfter = 10 * time.Second

func (a *API) whyRoute() {
	route(a, auth.Viewer, huma.Operation{OperationID: "whyExecution", Method: http.MethodGet, Path: "/executions/{id}/why", Tags: []string{tagExecutions}, Summary: "Say why an execution hasn't moved",
		Description: "What is known: whether it is held, what it waits for, whether its task was handed to the broker, how long the queue of its pool is, how many workers there are and why not more, and who runs it. The exact place in the queue isn't known: the broker doesn't tell."}, a.why)
}

func (a *API) why(ctx context.Context, in *IDRef) (*struct{ Body Why }, error) {
	x, err := a.execution(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := Why{Status: string(x.State), Attempt: x.Attempt, Deaths: x.Deaths, Reasons: []Reason{}, Waits: []Wait{}}
	add := func(code, format string, args ...any) {
		out.Reasons = append(out.Reasons, Reason{Code: code, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case x.State.Final():
		out.Since = x.FinishedAt
		add("ended", "it has ended: %s", x.State)
		return &struct{ Body Why }{out}, nil
	case x.Cancel != "":
		add("cancelling", "it was asked to end (%s): its worker lets the calls in flight end first", x.Cancel)
	}
	if x.Paused != "" && x.State != protocol.Queued {
		add("pausing", "it is paused (%s): a worker that has it hands it back when its steps in flight have ended, and one that waits is held when it is woken", x.Paused)
	}
	switch x.State {
	case protocol.Queued:
		out.Since = x.QueuedAt
		out.Pool, err = a.whyQueued(ctx, &x, add)
	case protocol.Running:
		out.Since = x.StartedAt
		out.Worker, err = a.whyRunning(ctx, &x, add)
	case protocol.Waiting:
		out.Since = x.QueuedAt
		var waits []protocol.OpenWait
		if waits, err = a.o.DB.WaitsOf(ctx, x.ID); err == nil {
			now := a.o.Now().UTC()
			for i := range waits {
				if waits[i].Met.IsZero() && waits[i].Node != "" {
					out.Waits = append(out.Waits, viewWait(&waits[i], now))
					out.Since = waits[i].Since
				}
			}
			err = a.remoteWaits(ctx, x.ID, out.Waits)
			for i := range out.Waits {
				add("waiting", "the step %s %s", out.Waits[i].Node, out.Waits[i].Reason)
			}
		}
	}
	if x.Deaths >= protocol.SuspectDeaths {
		add("suspect", "%d workers died while they ran it, so it runs alone on its worker; at %d it is given up", x.Deaths, protocol.PoisonDeaths)
	}
	return &struct{ Body Why }{out}, err
}

// whyQueued tells the steps on the way to a worker apart.
func (a *API) whyQueued(ctx context.Context, x *store.Execution, add func(code, format string, args ...any)) (*WhyPool, error) {
	if x.Hold != "" {
		if err := a.whyHeld(ctx, x, add); err != nil || x.Paused == "" {
			return nil, err
		}
	}
	if x.Paused != "" {
		add("paused", "it is paused: %s", x.Paused)
		return nil, nil
	}
	if err := a.whyPool(ctx, x.Pool, add); err != nil {
		return nil, err
	}
	if x.Handed < x.Attempt {
		add("not-handed", "it is accepted, and the broker hasn't confirmed its task yet: if that lasts, RabbitMQ is away or has an alarm")
	} else {
		add("in-queue", "its task is in the queue of the pool %q (priority %s) or with a worker that is about to begin; its exact place isn't known", poolName(x.Pool), x.Priority)
	}
	switch lives, err := a.alive(ctx, x.Pool); {
	case err != nil:
		return nil, err
	case !lives:
		add("no-worker", "no worker of the pool %q is alive: look at its job in Nomad", poolName(x.Pool))
	}
	return a.whyWorkers(ctx, x, add)
}

func (a *API) whyRunning(ctx context.Context, x *store.Execution, add func(code, format string, args ...any)) (*WhyWorker, error) {
	s, err := a.o.DB.SessionByID(ctx, x.Owner)
	if errors.Is(err, store.ErrNotFound) {
		add("running", "a worker runs it")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w := &WhyWorker{Worker: s.Worker, Session: s.ID.String(), Host: s.Host, Alive: s.Alive, BeatAt: s.BeatAt}
	switch silent := a.o.Now().Sub(s.BeatAt); {
	case !s.Alive:
		add("worker-dead", "the worker %s that ran it is dead: it is handed to another one as soon as what the dead one reported is read", s.Worker)
	case silent > silentAfter:
		add("worker-silent", "the worker %s that runs it hasn't renewed its session for %s: should it be dead, its lease ends soon", s.Worker, silent.Round(time.Second))
	default:
		add("running", "the worker %s runs it; GET /executions/%s/steps shows the steps whose reports have come", s.Worker, x.ID)
	}
	return w, nil
}

func poolName(pool string) string {
	if pool == "" {
		return "default"
	}
	return pool
}

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/gateway/internal/wait"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const tagRemote = "Remote workers"

// Limits of what remote workers send.
const (
	maxPolled   = 100 // tasks at once
	maxComplete = protocol.MaxValue + maxLetterHeader
	maxFail     = 300 << 10
)

// RemoteTask is a task as a worker gets it.
type RemoteTask struct {
	ID               string          `json:"id" format:"uuid"`
	Lease            int             `json:"lease" doc:"Number of this lease: send it with heartbeats and the end. Who has an older one is told that the task is taken"`
	Input            json.RawMessage `json:"input" doc:"Any JSON"`
	ExecutionID      string          `json:"executionId" format:"uuid"`
	Node             string          `json:"node"`
	Iteration        string          `json:"iteration,omitempty" doc:"Numbers of the rounds, inside containers"`
	IdempotencyKey   string          `json:"idempotencyKey" doc:"The same for every try and lease of this step: give it to what you call, so that nothing is done twice"`
	Try              int             `json:"try" doc:"Of the node's retry, from 1"`
	HeartbeatSeconds float64         `json:"heartbeatSeconds" doc:"Send a heartbeat this often: a third of the time after which another worker gets the task"`
	Due              time.Time       `json:"due,omitzero" doc:"The node's timeout"`
}

// RemoteTasks is the answer to a poll.
type RemoteTasks struct {
	Tasks []RemoteTask `json:"tasks" nullable:"false" doc:"Empty: there were none until the wait ended. Poll again"`
}

// RemoteStatus is a task as people see it.
type RemoteStatus struct {
	ID          string          `json:"id" format:"uuid"`
	Queue       string          `json:"queue"`
	ExecutionID string          `json:"executionId" format:"uuid"`
	Node        string          `json:"node"`
	Iteration   string          `json:"iteration,omitempty"`
	Try         int             `json:"try"`
	Priority    string          `json:"priority"`
	CreatedAt   time.Time       `json:"createdAt"`
	Due         time.Time       `json:"due,omitzero"`
	Leases      int             `json:"leases" doc:"How often workers have taken it; after 5 that nobody ended the step fails with remote-lost"`
	Worker      string          `json:"worker,omitempty" doc:"Who took it last"`
	SeenAt      time.Time       `json:"seenAt,omitzero" doc:"Last sign of life"`
	LeasedUntil time.Time       `json:"leasedUntil,omitzero" doc:"Past: another worker gets it with the next poll"`
	Progress    json.RawMessage `json:"progress,omitempty" doc:"What the worker said of it last"`
}

// RemoteQueue is a queue that holds tasks, or was polled in the last days.
type RemoteQueue struct {
	Queue    string    `json:"queue"`
	Waiting  int       `json:"waiting"`
	Leased   int       `json:"leased"`
	Oldest   time.Time `json:"oldest,omitzero" doc:"When the oldest waiting task was made"`
	LastPoll time.Time `json:"lastPoll,omitzero" doc:"To five seconds. Absent: nobody has polled it for a week, or it isn't known"`
}

// RemoteBeat is the answer to a heartbeat.
type RemoteBeat struct {
	Cancel bool   `json:"cancel" doc:"Stop: the task has ended, and nobody waits for its output"`
	Reason string `json:"reason,omitempty" doc:"cancelled, expired, lost, completed or failed"`
}

type pollInput struct {
	Queue string `path:"queue" maxLength:"64" pattern:"^[a-zA-Z0-9][a-zA-Z0-9._-]*$" doc:"As task.remote names it"`
	Body  struct {
		Worker string `json:"worker" minLength:"1" maxLength:"100" doc:"Name of the worker, for people"`
		Max    int    `json:"max,omitempty" minimum:"1" maximum:"100" doc:"Tasks at once, 1 if absent: no more than you begin at once, their leases run"`
		Wait   string `json:"wait,omitempty" doc:"How long to wait for a task, up to 60s; 30s if absent"`
	}
}

type beatInput struct {
	IDRef
	Body struct {
		Lease    int             `json:"lease" minimum:"1"`
		Progress json.RawMessage `json:"progress,omitempty" doc:"Any JSON of at most 4 KiB, for people"`
	}
}

type completeInput struct {
	IDRef
	Body RemoteCompletion
}

// RemoteCompletion ends a task well.
type RemoteCompletion struct {
	Lease  int             `json:"lease" minimum:"1"`
	Output json.RawMessage `json:"output,omitempty" doc:"Any JSON of at most 16 MiB: the step's output; null if absent"`
}

type failInput struct {
	IDRef
	Body struct {
		Lease int `json:"lease" minimum:"1"`
		Error struct {
			Code    string          `json:"code" maxLength:"64" pattern:"^[a-z0-9][a-z0-9-]*$" doc:"Stable, like out-of-paper"`
			Message string          `json:"message" minLength:"1" maxLength:"4096"`
			Data    json.RawMessage `json:"data,omitempty" doc:"Any JSON of at most 256 KiB"`
		} `json:"error"`
		Retryable bool `json:"retryable,omitempty" doc:"The node's retry may try again"`
	}
}

type remoteListInput struct {
	Page
	Queue string `query:"queue" maxLength:"64" doc:"Only this one's"`
}

func (a *API) remoteRoutes() {
	route(a, auth.Worker, huma.Operation{OperationID: "pollRemote", Method: http.MethodPost, Path: "/remote/{queue}/poll", Tags: []string{tagRemote}, Summary: "Take tasks of a queue, or wait for some",
		Description: "Tasks come by the priority of their execution, then by age. A task is leased: without a heartbeat or an end in time the next poll gets it. For tokens of the role worker, operators and administrators."}, a.pollRemote)
	route(a, auth.Worker, huma.Operation{OperationID: "beatRemote", Method: http.MethodPost, Path: "/remote/tasks/{id}/heartbeat", Tags: []string{tagRemote}, Summary: "Keep a task",
		Description: "409: another worker has it since; stop."}, a.beatRemote)
	a.plain["completeRemote"] = a.completeRemote
	route(a, auth.Worker, huma.Operation{OperationID: "completeRemote", Method: http.MethodPost, Path: "/remote/tasks/{id}/complete", Tags: []string{tagRemote}, Summary: "End a task with its output", MaxBodyBytes: maxComplete, DefaultStatus: http.StatusNoContent,
		Description: "204 means that it is committed, and stays so: nobody gets the task again. The same call again is 204 too. 409: another worker has it since, or it has ended otherwise; the output is not taken."},
		func(context.Context, *completeInput) (*nothing, error) {
			return nil, errors.New("served by a plain handler")
		})
	route(a, auth.Worker, huma.Operation{OperationID: "failRemote", Method: http.MethodPost, Path: "/remote/tasks/{id}/fail", Tags: []string{tagRemote}, Summary: "End a task with an error", MaxBodyBytes: maxFail, DefaultStatus: http.StatusNoContent,
		Description: "The step fails with it; where retryable, the node's retry may make another task. Otherwise as complete."}, a.failRemote)
	route(a, auth.Viewer, huma.Operation{OperationID: "listRemoteQueues", Method: http.MethodGet, Path: "/remote/queues", Tags: []string{tagRemote}, Summary: "List the queues of remote tasks", Description: "All on one page."}, a.remoteQueues)
	route(a, auth.Viewer, huma.Operation{OperationID: "listRemoteTasks", Method: http.MethodGet, Path: "/remote/tasks", Tags: []string{tagRemote}, Summary: "List remote tasks that have not ended"},
		func(ctx context.Context, in *remoteListInput) (*listOutput[RemoteStatus], error) {
			rows, next, err := a.o.DB.ListRemote(ctx, in.Queue, in.page())
			if err != nil {
				return nil, err
			}
			return listOf(rows, next, viewRemote), nil
		})
}

// mayWork tells whether the caller may work on a queue.
func mayWork(who *auth.Principal, queue string) error {
	if who.Role == auth.Worker && who.Queues != nil && !slices.Contains(who.Queues, queue) {
		return problem.New(http.StatusForbidden, "this token is for the queues %s", strings.Join(who.Queues, ", "))
	}
	return nil
}

func (a *API) pollRemote(ctx context.Context, in *pollInput) (*struct{ Body RemoteTasks }, error) {
	if err := mayWork(principal(ctx), in.Queue); err != nil {
		return nil, err
	}
	if !printable(in.Body.Worker) {
		return nil, problem.Invalid("nothing was taken", problem.Body("/worker", "text", "a name has no control characters"))
	}
	patience := 30 * time.Second
	if in.Body.Wait != "" {
		d, err := time.ParseDuration(in.Body.Wait)
		if err != nil || d < 0 || d > wait.Max {
			return nil, problem.Invalid("nothing was taken", problem.Body("/wait", "duration", "%q is not a duration from 0s to %s, like 30s", in.Body.Wait, wait.Max))
		}
		patience = d
	}
	limit := max(1, min(in.Body.Max, maxPolled))
	w, ok := a.o.Polls.Add(in.Queue) // before the first look: no event can come between
	if !ok {
		return nil, problem.New(http.StatusServiceUnavailable, "too many workers poll this gateway already").RetryAfter(5)
	}
	defer w.Close()
	a.o.Polled(in.Queue)
	over := time.NewTimer(patience)
	defer over.Stop()
	for {
		var got []protocol.RemoteTask
		err := a.o.DB.Txn(ctx, "poll", func(tx protocol.Tx) (err error) {
			got, err = protocol.PollRemote(ctx, tx, store.DefaultProject, in.Queue, in.Body.Worker, limit)
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(got) > 0 {
			a.o.Polls.Wake(in.Queue) // there may be more
			return &struct{ Body RemoteTasks }{a.viewPolled(ctx, got)}, nil
		}
		select {
		case <-w.Look():
		case <-over.C:
			return &struct{ Body RemoteTasks }{RemoteTasks{Tasks: []RemoteTask{}}}, nil
		case <-w.Ended():
			return &struct{ Body RemoteTasks }{RemoteTasks{Tasks: []RemoteTask{}}}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// viewPolled gives tasks with their inputs. One whose input can't be read now is left out: its lease ends, and somebody gets it again.
func (a *API) viewPolled(ctx context.Context, got []protocol.RemoteTask) RemoteTasks {
	out := RemoteTasks{Tasks: []RemoteTask{}}
	for i := range got {
		t := &got[i]
		input := t.Input
		if t.InputRef != nil {
			fetch, leave := a.fetcher(ctx, t.Execution)
			raw, err := fetch(*t.InputRef)
			leave()
			if err != nil {
				a.log.Warn("the input of a remote task can't be read: it is given out again when its lease is over", "task", t.ID.String(), "error", err)
				continue
			}
			input = raw
		}
		if len(input) == 0 {
			input = null
		}
		iteration := t.Iteration
		if iteration == "" {
			iteration = "-"
		}
		out.Tasks = append(out.Tasks, RemoteTask{ID: t.ID.String(), Lease: t.Lease, Input: input, ExecutionID: t.Execution.String(), Node: t.Node, Iteration: t.Iteration,
			IdempotencyKey: t.Execution.String() + "/" + t.Node + "/" + iteration, Try: t.Try, HeartbeatSeconds: t.Heartbeat.Seconds() / 3, Due: t.Due})
	}
	return out
}

// ownTask finds a task that the caller may work on.
func (a *API) ownTask(ctx context.Context, who *auth.Principal, ref string) (protocol.RemoteTask, error) {
	id, err := pathID(ref, "task")
	if err != nil {
		return protocol.RemoteTask{}, err
	}
	t, err := a.o.DB.RemoteTask(ctx, id)
	if err != nil {
		return t, missing(err, "task", ref)
	}
	return t, mayWork(who, t.Queue)
}

func (a *API) beatRemote(ctx context.Context, in *beatInput) (*struct{ Body RemoteBeat }, error) {
	t, err := a.ownTask(ctx, principal(ctx), in.ID)
	if err != nil {
		return nil, err
	}
	progress, err := letterData(in.Body.Progress, "/progress")
	if err != nil {
		return nil, err
	}
	if len(progress) > protocol.MaxProgress {
		return nil, problem.Invalid("the heartbeat was not taken", problem.Body("/progress", "size", "it has %d bytes as JSON, at most %d are allowed", len(progress), protocol.MaxProgress))
	}
	var said protocol.RemoteVerdict
	err = a.o.DB.Txn(ctx, "heartbeat", func(tx protocol.Tx) (err error) {
		t, said, err = protocol.BeatRemote(ctx, tx, t.ID, in.Body.Lease, progress)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case said == protocol.SaidOver:
		return &struct{ Body RemoteBeat }{RemoteBeat{Cancel: true, Reason: string(t.Outcome)}}, nil
	case said != protocol.SaidDone:
		return nil, refusedRemote(&t, said, in.ID)
	}
	return &struct{ Body RemoteBeat }{}, nil
}

func refusedRemote(t *protocol.RemoteTask, said protocol.RemoteVerdict, ref string) error {
	switch {
	case said == protocol.SaidUnknown:
		return problem.New(http.StatusNotFound, "there is no task with the id %q", ref)
	case said == protocol.SaidTaken:
		return problem.New(http.StatusConflict, "the task was taken by another: its lease was over, and it was given out again (lease %d, worker %q). Stop working on it", t.Lease, t.Worker)
	case t.Outcome == "":
		return problem.New(http.StatusConflict, "the task's time is over: nobody waits for it any more")
	}
	return problem.New(http.StatusConflict, "the task has ended already, otherwise: it is %s", t.Outcome)
}

// completeRemote is POST /remote/tasks/{id}/complete.
func (a *API) completeRemote(w http.ResponseWriter, r *http.Request) {
	const op = "completeRemote"
	who, p := a.admit(w, r, auth.Worker)
	if p != nil {
		a.refuse(w, op, p)
		return
	}
	body, leave, err := a.body(r, maxComplete)
	if err != nil {
		a.refuse(w, op, err)
		return
	}
	defer leave()
	if err := a.complete(r.Context(), who, chi.URLParam(r, "id"), body); err != nil {
		a.refuse(w, op, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *API) complete(ctx context.Context, who *auth.Principal, ref string, body []byte) error {
	var in RemoteCompletion
	if err := json.Unmarshal(body, &in); err != nil {
		return problem.New(http.StatusBadRequest, "the body must be JSON like {\"lease\": 1, \"output\": …}: %s", err)
	}
	if in.Lease < 1 {
		return problem.Invalid("the task was not completed", problem.Body("/lease", "required", "the lease that the poll gave with the task is needed"))
	}
	t, err := a.ownTask(ctx, who, ref)
	if err != nil {
		return err
	}
	end := protocol.RemoteEnd{Task: t.ID, Lease: in.Lease, Output: null}
	if len(in.Output) > 0 {
		v, err := flow.DecodeValue(in.Output)
		if err == nil {
			v, err = flow.CanonicalWithin(v, protocol.MaxValue)
		}
		if err == nil {
			end.Output, err = flow.EncodeValue(v)
		}
		if err != nil {
			return problem.Invalid("the task was not completed", problem.Body("/output", "json", "%s", err.Error()))
		}
	}
	if len(end.Output) > protocol.MaxInline {
		if t.Lease != in.Lease { // before anything is stored
			return refusedRemote(&t, protocol.SaidTaken, ref)
		}
		v := store.NewPayload(t.Execution, end.Output)
		if err := a.o.DB.PutPayload(ctx, v); err != nil {
			if errors.Is(err, store.ErrPayloads) {
				return problem.Invalid("the task was not completed", problem.Body("/output", "size", "%s", err.Error()))
			}
			return err
		}
		end.Output, end.OutputRef = nil, &protocol.Value{Ref: fmt.Sprintf("%x", v.SHA256), Size: v.Size}
	}
	return a.endRemote(ctx, end, ref)
}

func (a *API) failRemote(ctx context.Context, in *failInput) (*nothing, error) {
	t, err := a.ownTask(ctx, principal(ctx), in.ID)
	if err != nil {
		return nil, err
	}
	data, err := letterData(in.Body.Error.Data, "/error/data")
	if err != nil {
		return nil, err
	}
	f := &flow.Failure{Code: in.Body.Error.Code, Message: in.Body.Error.Message, Retryable: in.Body.Retryable}
	if data != nil {
		if f.Data, err = flow.DecodeValue(data); err != nil {
			return nil, err
		}
	}
	return nil, a.endRemote(ctx, protocol.RemoteEnd{Task: t.ID, Lease: in.Body.Lease, Error: f}, in.ID)
}

// endRemote commits an end; it is done again when the first answer is lost, which changes nothing if it had come through.
func (a *API) endRemote(ctx context.Context, end protocol.RemoteEnd, ref string) error {
	var out protocol.Outcome
	var t protocol.RemoteTask
	var said protocol.RemoteVerdict
	var err error
	for range 2 {
		err = a.o.DB.Txn(context.WithoutCancel(ctx), "remote", func(tx protocol.Tx) (err error) {
			out, t, said, err = protocol.EndRemote(ctx, tx, end)
			return err
		})
		if !errors.Is(err, protocol.ErrUnknown) {
			break
		}
	}
	if errors.Is(err, protocol.ErrUnknown) {
		return problem.New(http.StatusServiceUnavailable, "the database did not say whether it has it: send it again").RetryAfter(1).Wrap(err)
	}
	if err != nil {
		return err
	}
	if said != protocol.SaidDone {
		return refusedRemote(&t, said, ref)
	}
	a.follow(out)
	return nil
}

func viewRemote(t *protocol.RemoteTask) RemoteStatus {
	return RemoteStatus{ID: t.ID.String(), Queue: t.Queue, ExecutionID: t.Execution.String(), Node: t.Node, Iteration: t.Iteration, Try: t.Try, Priority: t.Priority, CreatedAt: t.Created, Due: t.Due,
		Leases: t.Lease, Worker: t.Worker, SeenAt: t.Seen, LeasedUntil: t.Until, Progress: t.Progress}
}

func (a *API) remoteQueues(ctx context.Context, _ *struct{}) (*listOutput[RemoteQueue], error) {
	rows, err := a.o.DB.RemoteQueues(ctx)
	if err != nil {
		return nil, err
	}
	polls := a.o.LastPolls(ctx)
	items := make([]RemoteQueue, 0, len(rows)+len(polls))
	for _, q := range rows {
		items = append(items, RemoteQueue{Queue: q.Queue, Waiting: q.Waiting, Leased: q.Leased, Oldest: q.Oldest, LastPoll: polls[q.Queue]})
		delete(polls, q.Queue)
	}
	for queue, at := range polls {
		items = append(items, RemoteQueue{Queue: queue, LastPoll: at})
	}
	slices.SortFunc(items, func(a, b RemoteQueue) int { return strings.Compare(a.Queue, b.Queue) })
	return &listOutput[RemoteQueue]{List[RemoteQueue]{Items: items}}, nil
}

// remoteWaits tells of open waits for remote tasks who works on them.
func (a *API) remoteWaits(ctx context.Context, id protocol.ID, waits []Wait) error {
	if !slices.ContainsFunc(waits, func(w Wait) bool { return w.Kind == flow.WaitRemote && w.Met.IsZero() }) {
		return nil
	}
	tasks, err := a.o.DB.RemoteOf(ctx, id)
	if err != nil {
		return err
	}
	var polls map[string]time.Time
	now := a.o.Now()
	for i := range tasks {
		t := &tasks[i]
		k := slices.IndexFunc(waits, func(w Wait) bool { return w.Kind == flow.WaitRemote && w.Key == t.ID.String() && w.Met.IsZero() })
		if k < 0 {
			continue
		}
		w := &waits[k]
		switch {
		case t.Until.After(now):
			w.Reason = fmt.Sprintf("waits for the remote worker %q of the queue %q, which gave its last sign of life %s ago", t.Worker, t.Queue, now.Sub(t.Seen).Round(time.Second))
			w.Progress = t.Progress
			continue
		case t.Lease > 0:
			w.Reason = fmt.Sprintf("waits for a remote worker of the queue %q: the worker %q has lost it, lease %d of %d is over", t.Queue, t.Worker, t.Lease, protocol.MaxDeliveries)
		}
		if polls == nil {
			polls = a.o.LastPolls(ctx)
		}
		if at, ok := polls[t.Queue]; !ok {
			w.Reason += "; nobody is known to poll the queue: start a worker for it"
		} else if silent := now.Sub(at); silent > wait.Max+10*time.Second {
			w.Reason += fmt.Sprintf("; nobody has polled the queue for %s: is its worker alive?", silent.Round(time.Second))
		}
	}
	return nil
}

package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/cron"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/start"
	"flowplatform/services/internal/store"
)

// maxBackfill is how many executions one backfill starts.
const maxBackfill = 1000

// Fire is what became of one instant of a schedule.
type Fire struct {
	Due         time.Time `json:"due"`
	ExecutionID string    `json:"executionId,omitempty" format:"uuid"`
	Status      string    `json:"status,omitempty" doc:"Of the execution; absent when it is gone"`
	Outcome     string    `json:"outcome" enum:"started,skipped,missed,refused" doc:"skipped: by overlap; missed: by catchUp; refused: the flow could not be started"`
	Reason      string    `json:"reason,omitempty"`
	Missed      int       `json:"missed,omitempty" doc:"So many missed instants it stands for"`
	At          time.Time `json:"at" doc:"When that was decided"`
}

// Backfilled is what a backfill did.
type Backfilled struct {
	Started  []BackfilledFire `json:"started" nullable:"false" doc:"Instants that nobody had fired, oldest first"`
	Already  int              `json:"already" doc:"Instants that had their execution already"`
	NextFrom time.Time        `json:"nextFrom,omitzero" doc:"There are more instants: go on with this as from"`
}

// BackfilledFire is an instant that was fired belatedly.
type BackfilledFire struct {
	Due         time.Time `json:"due"`
	ExecutionID string    `json:"executionId" format:"uuid"`
}

type backfillInput struct {
	ScheduleRef
	Body struct {
		From  time.Time `json:"from" doc:"First instant that may be fired"`
		To    time.Time `json:"to" doc:"No instant at or after this; at most now"`
		Limit int       `json:"limit,omitempty" minimum:"1" maximum:"1000" doc:"Instants to look at; default 1000"`
	}
}

func (a *API) fireRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "listFires", Method: http.MethodGet, Path: "/schedules/{id}/fires", Tags: []string{tagSchedules}, Summary: "List what became of a schedule's instants, the latest first"},
		func(ctx context.Context, in *struct {
			ScheduleRef
			Page
		}) (*listOutput[Fire], error) {
			s, err := a.schedule(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			rows, next, err := a.o.DB.ListFires(ctx, s.ID, in.page())
			if err != nil {
				return nil, err
			}
			return listOf(rows, next, viewFire), nil
		})
	route(a, auth.Editor, huma.Operation{OperationID: "backfillSchedule", Method: http.MethodPost, Path: "/schedules/{id}/backfill", Tags: []string{tagSchedules}, Summary: "Start a flow for instants of the past",
		Description: "Each instant once: those that have an execution are left alone. Bounds, pause and overlap don't count. To repeat it after a lost answer does no harm."}, a.backfill)
}

func viewFire(f *store.StoredFire) Fire {
	out := Fire{Due: f.Due, Status: string(f.State), Outcome: f.Outcome, Reason: f.Reason, Missed: f.Missed, At: f.At}
	if !f.Execution.IsZero() {
		out.ExecutionID = f.Execution.String()
	}
	return out
}

func (a *API) backfill(ctx context.Context, in *backfillInput) (*struct{ Body Backfilled }, error) {
	if a.o.Full() {
		return nil, errFull()
	}
	s, err := a.schedule(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	instants, next, err := a.backfillTimes(&s, in)
	if err != nil {
		return nil, err
	}
	head, err := a.flow(ctx, s.Flow.String())
	if err != nil {
		return nil, err
	}
	shards := a.o.Shards()
	if shards == 0 {
		return nil, problem.New(http.StatusServiceUnavailable, "this gateway is starting: it waits for the database").RetryAfter(1)
	}
	rows, fires := make([]store.NewExecution, len(instants)), make([]protocol.Fire, len(instants))
	for i, due := range instants {
		row, problems, err := start.Fire(ctx, a.o.Definitions, head, &s, due, a.o.Now(), shards)
		var refused *start.RefusedError
		switch {
		case errors.As(err, &refused):
			return nil, problem.New(http.StatusConflict, "%s", refused.Error())
		case err != nil:
			return nil, err
		case len(problems) > 0:
			return nil, problem.Invalid("the schedule's input doesn't fit the flow any more; nothing was started", fieldsOf(problems)...)
		}
		rows[i] = row
		fires[i] = protocol.Fire{Schedule: s.ID, Due: due, Execution: row.ID, Outcome: protocol.FireStarted, Reason: "backfill by " + principal(ctx).Actor()}
	}
	var done []protocol.Fire
	if len(fires) > 0 {
		err = a.o.DB.FireTxn(ctx, "backfill", rows, func(tx protocol.FireTx) error {
			var err error
			_, done, err = protocol.Backfill(ctx, tx, s.ID, fires)
			return err
		})
		if err != nil {
			return nil, noSchedule(err, in.ID)
		}
	}
	out := Backfilled{Started: []BackfilledFire{}, Already: len(fires) - len(done), NextFrom: next}
	started := make(map[protocol.ID]bool, len(done))
	for _, f := range done {
		started[f.Execution] = true
		out.Started = append(out.Started, BackfilledFire{Due: f.Due, ExecutionID: f.Execution.String()})
	}
	var fresh []store.NewExecution
	for i := range rows {
		if started[rows[i].ID] {
			fresh = append(fresh, rows[i])
		}
	}
	a.o.HandOut(fresh)
	a.note(ctx, "backfill", "schedule", s.ID.String(), map[string]any{"name": s.Name, "from": in.Body.From, "to": in.Body.To, "started": len(done)})
	return &struct{ Body Backfilled }{out}, nil
}

// backfillTimes are the instants that a backfill is about, and where the next one goes on.
func (a *API) backfillTimes(s *store.Schedule, in *backfillInput) (out []time.Time, next time.Time, err error) {
	b := &in.Body
	if !b.From.Before(b.To) {
		return nil, next, problem.Invalid("nothing was started", problem.Body("/to", "range", "to must be after from"))
	}
	if now := a.o.Now(); b.To.After(now) {
		return nil, next, problem.Invalid("nothing was started", problem.Body("/to", "range", "to is after now: what is still to come fires by itself"))
	}
	if b.Limit == 0 {
		b.Limit = maxBackfill
	}
	e, err := cron.Parse(s.Cron, s.Zone)
	if err != nil {
		return nil, next, problem.New(http.StatusConflict, "%s", err.Error())
	}
	out, more := e.Between(b.From, b.To.Add(-1), b.Limit)
	if more {
		next = e.Next(out[len(out)-1])
	}
	return out, next, nil
}

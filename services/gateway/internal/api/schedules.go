package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/cron"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/start"
	"flowplatform/services/internal/store"
)

const (
	tagSchedules = "Schedules"
	// maxSchedules of a project.
	maxSchedules = 10_000
	// maxScheduleInput keeps what is stored with each execution small.
	maxScheduleInput = 256 << 10
	// shownTimes is how many instants ahead are shown.
	shownTimes = 10
	// defaultCatchUp is how many missed instants catchUp: all makes up for.
	defaultCatchUp = 100
)

// Schedule starts a flow by the clock.
type Schedule struct {
	ID         string          `json:"id" format:"uuid"`
	Name       string          `json:"name"`
	FlowID     string          `json:"flowId" format:"uuid"`
	FlowName   string          `json:"flowName"`
	Node       string          `json:"node,omitempty" doc:"The flow's trigger.schedule that it belongs to: it changes there. Absent: it stands by itself"`
	Cron       string          `json:"cron"`
	TimeZone   string          `json:"timeZone"`
	Input      json.RawMessage `json:"input,omitempty"`
	CatchUp    string          `json:"catchUp" enum:"skip,one,all"`
	CatchUpMax int             `json:"catchUpMax"`
	Overlap    string          `json:"overlap" enum:"allow,skip,cancel"`
	StartAt    time.Time       `json:"startAt,omitzero"`
	EndAt      time.Time       `json:"endAt,omitzero"`
	Paused     bool            `json:"paused"`
	NextDue    time.Time       `json:"nextDue,omitzero" doc:"Absent: it is over"`
	Next       []time.Time     `json:"next,omitempty" doc:"The next ten instants, where one schedule is asked for; absent while it is paused"`
	Revision   int             `json:"revision" doc:"Raised by every change; the ETag"`
	CreatedAt  time.Time       `json:"createdAt"`
	UpdatedAt  time.Time       `json:"updatedAt"`
}

// ScheduleBody is what a schedule is made of.
type ScheduleBody struct {
	Name       string          `json:"name" minLength:"1" maxLength:"100" doc:"Letters, digits, spaces and . _ -; unique"`
	FlowID     string          `json:"flowId" minLength:"1" maxLength:"400" doc:"Id of the flow, or its name"`
	Cron       string          `json:"cron" minLength:"1" maxLength:"200" doc:"Five fields, six with seconds before them, or @hourly and the like; L, W and # are known" example:"0 8 * * MON-FRI"`
	TimeZone   string          `json:"timeZone,omitempty" maxLength:"64" doc:"IANA name; default UTC" example:"Europe/Berlin"`
	Input      json.RawMessage `json:"input,omitempty" doc:"Input of every execution; absent: an object with schedule (its name) and scheduledAt"`
	CatchUp    string          `json:"catchUp,omitempty" enum:"skip,one,all" doc:"What becomes of instants that were missed by more than a minute, because nothing of the platform ran; default skip"`
	CatchUpMax int             `json:"catchUpMax,omitempty" minimum:"1" maximum:"1000" doc:"With catchUp: all, how many of the newest are made up for; default 100"`
	Overlap    string          `json:"overlap,omitempty" enum:"allow,skip,cancel" doc:"While an execution of this schedule isn't over: start another, skip the instant, or cancel it first; default allow"`
	StartAt    time.Time       `json:"startAt,omitzero" doc:"No instant before it"`
	EndAt      time.Time       `json:"endAt,omitzero" doc:"No instant after it"`
	Paused     *bool           `json:"paused,omitempty" doc:"Absent: as it is, a new one isn't"`
}

// ScheduleRef is a schedule in a path.
type ScheduleRef struct {
	ID string `path:"id" maxLength:"400" doc:"Id of the schedule, or its name (percent-encoded)"`
}

// ScheduleMatch is an If-Match for a schedule.
type ScheduleMatch struct {
	IfMatch string `header:"If-Match" doc:"ETag that the schedule must still have (412 otherwise); absent: whatever it has"`
}

type scheduleOutput struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     Schedule
}

type saveScheduleInput struct {
	ScheduleRef
	ScheduleMatch
	Body ScheduleBody
}

type steerScheduleInput struct {
	ScheduleRef
	ScheduleMatch
}

func (a *API) scheduleRoutes() {
	const bytes = maxScheduleInput + 8<<10
	route(a, auth.Viewer, huma.Operation{OperationID: "listSchedules", Method: http.MethodGet, Path: "/schedules", Tags: []string{tagSchedules}, Summary: "List schedules, the newest first; those of flows too"}, a.listSchedules)
	route(a, auth.Editor, huma.Operation{OperationID: "createSchedule", Method: http.MethodPost, Path: "/schedules", Tags: []string{tagSchedules}, Summary: "Make a schedule that starts a flow", DefaultStatus: http.StatusCreated, MaxBodyBytes: bytes}, a.createSchedule)
	route(a, auth.Viewer, huma.Operation{OperationID: "previewSchedule", Method: http.MethodPost, Path: "/schedules/preview", Tags: []string{tagSchedules}, Summary: "Say when an expression fires, without saving anything"}, a.previewSchedule)
	route(a, auth.Viewer, huma.Operation{OperationID: "getSchedule", Method: http.MethodGet, Path: "/schedules/{id}", Tags: []string{tagSchedules}, Summary: "Show a schedule with its next ten instants"},
		func(ctx context.Context, in *ScheduleRef) (*scheduleOutput, error) {
			s, err := a.schedule(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return a.answerSchedule(&s), nil
		})
	route(a, auth.Editor, huma.Operation{OperationID: "saveSchedule", Method: http.MethodPut, Path: "/schedules/{id}", Tags: []string{tagSchedules}, Summary: "Change a schedule", MaxBodyBytes: bytes,
		Description: "What is absent has its default again, but for paused. Instants that are due and not decided on yet are kept, unless cron, timeZone or a bound changes."}, a.saveSchedule)
	route(a, auth.Editor, huma.Operation{OperationID: "deleteSchedule", Method: http.MethodDelete, Path: "/schedules/{id}", Tags: []string{tagSchedules}, Summary: "Delete a schedule; what it started goes on", DefaultStatus: http.StatusNoContent}, a.deleteSchedule)
	route(a, auth.Editor, huma.Operation{OperationID: "pauseSchedule", Method: http.MethodPost, Path: "/schedules/{id}/pause", Tags: []string{tagSchedules}, Summary: "Pause a schedule, a flow's own too"},
		func(ctx context.Context, in *steerScheduleInput) (*scheduleOutput, error) {
			return a.steerSchedule(ctx, in, true)
		})
	route(a, auth.Editor, huma.Operation{OperationID: "resumeSchedule", Method: http.MethodPost, Path: "/schedules/{id}/resume", Tags: []string{tagSchedules}, Summary: "Let a schedule go on, from now: a pause is not caught up with"},
		func(ctx context.Context, in *steerScheduleInput) (*scheduleOutput, error) {
			return a.steerSchedule(ctx, in, false)
		})
	a.fireRoutes()
}

func (a *API) viewSchedule(s *store.Schedule) Schedule {
	out := Schedule{ID: s.ID.String(), Name: s.Name, FlowID: s.Flow.String(), FlowName: s.FlowName, Node: s.Node, Cron: s.Cron, TimeZone: s.Zone, Input: s.Input, CatchUp: s.CatchUp, CatchUpMax: s.CatchUpMax,
		Overlap: s.Overlap, StartAt: s.StartAt, EndAt: s.EndAt, Paused: s.Paused, NextDue: s.Due, Revision: s.Revision, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt}
	if s.Paused {
		out.NextDue = time.Time{}
	}
	if s.Node != "" {
		out.Name = s.FlowName + "/" + s.Node
	}
	return out
}

func (a *API) answerSchedule(s *store.Schedule) *scheduleOutput {
	out := &scheduleOutput{ETag: etag(s.Revision), Body: a.viewSchedule(s)}
	e, err := cron.Parse(s.Cron, s.Zone)
	for at := out.Body.NextDue; err == nil && !at.IsZero() && len(out.Body.Next) < shownTimes; at = e.Within(at, s.StartAt, s.EndAt) {
		out.Body.Next = append(out.Body.Next, at)
	}
	return out
}

// schedule finds the schedule of a path on the primary.
func (a *API) schedule(ctx context.Context, idOrName string) (store.Schedule, error) {
	var s store.Schedule
	id, err := protocol.ParseID(idOrName)
	if err == nil {
		s, err = a.o.DB.ScheduleByID(ctx, id)
	} else {
		s, err = a.o.DB.ScheduleByName(ctx, protocol.ID{}, idOrName)
	}
	return s, noSchedule(err, idOrName)
}

func noSchedule(err error, idOrName string) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return problem.New(http.StatusNotFound, "there is no schedule with the id or name %q", idOrName)
	case errors.Is(err, store.ErrOwned):
		return problem.New(http.StatusConflict, "%s", store.ErrOwned.Error())
	case errors.Is(err, store.ErrFull):
		return problem.New(http.StatusConflict, "there are %d schedules already, and no more are possible: delete those that nobody needs", maxSchedules)
	}
	return err
}

// scheduleOf judges a body, and makes what is stored of it.
func (a *API) scheduleOf(ctx context.Context, b *ScheduleBody) (store.Schedule, *cron.Expression, error) {
	s := store.Schedule{Name: b.Name, Cron: b.Cron, Zone: b.TimeZone, Input: b.Input, CatchUp: b.CatchUp, CatchUpMax: b.CatchUpMax, Overlap: b.Overlap,
		StartAt: b.StartAt.UTC().Truncate(time.Microsecond), EndAt: b.EndAt.UTC().Truncate(time.Microsecond)}
	def := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	def(&s.Zone, "UTC")
	def(&s.CatchUp, "skip")
	def(&s.Overlap, protocol.OverlapAllow)
	if s.CatchUpMax == 0 {
		s.CatchUpMax = defaultCatchUp
	}
	var wrong []problem.Field
	add := func(pointer, code, format string, args ...any) {
		wrong = append(wrong, problem.Body(pointer, code, format, args...))
	}
	if why := credential.CheckName(b.Name); why != "" {
		add("/name", "name", "%s", why)
	}
	e, err := cron.Parse(s.Cron, s.Zone)
	var bad *cron.Error
	switch {
	case errors.As(err, &bad) && bad.Zone:
		add("/timeZone", "time-zone", "%s", bad.Message)
	case err != nil:
		add("/cron", "cron", "%s", err.Error())
	}
	if !s.EndAt.IsZero() && s.EndAt.Before(s.StartAt) {
		add("/endAt", "range", "endAt is before startAt: it would never fire")
	}
	if len(b.Input) > maxScheduleInput {
		add("/input", "too-large", "the input has %d bytes, the most is %d: store it elsewhere and pass where it is", len(b.Input), maxScheduleInput)
	}
	head, err := a.flow(ctx, b.FlowID)
	var none *problem.Problem
	switch {
	case errors.As(err, &none) && none.Status == http.StatusNotFound:
		add("/flowId", "unknown", "%s", none.Detail)
	case err != nil:
		return s, nil, err
	case len(wrong) == 0:
		s.Flow, s.FlowName = head.ID, head.Name
		_, problems, err := start.Fire(ctx, a.o.Definitions, head, &s, a.o.Now(), a.o.Now(), 1)
		var refused *start.RefusedError
		switch {
		case errors.As(err, &refused):
			add("/flowId", "refused", "%s", refused.Error())
		case err != nil:
			return s, nil, err
		}
		wrong = append(wrong, fieldsOf(problems)...)
	}
	if len(wrong) > 0 {
		return s, nil, problem.Invalid(fmt.Sprintf("the schedule has %d problems, nothing was saved", len(wrong)), wrong...)
	}
	return s, e, nil
}

func scheduleTaken(err error, name string) error {
	if errors.Is(err, store.ErrConflict) {
		p := problem.New(http.StatusConflict, "there is another schedule with the name %q", name)
		p.Errors = []problem.Field{problem.Body("/name", "exists", "names are unique: choose another one, or change that schedule with PUT /schedules/{id}")}
		return p
	}
	return noSchedule(err, name)
}

func (a *API) listSchedules(ctx context.Context, in *struct {
	Page
	Flow string `query:"flowId" maxLength:"400" doc:"Only of this flow, by id or name"`
}) (*listOutput[Schedule], error) {
	var of protocol.ID
	if in.Flow != "" {
		f, err := a.flow(ctx, in.Flow)
		if err != nil {
			return nil, err
		}
		of = f.ID
	}
	rows, next, err := a.o.DB.ListSchedules(ctx, of, in.page())
	if err != nil {
		return nil, err
	}
	return listOf(rows, next, a.viewSchedule), nil
}

func (a *API) createSchedule(ctx context.Context, in *struct{ Body ScheduleBody }) (*scheduleOutput, error) {
	s, e, err := a.scheduleOf(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	s.ID, s.Paused = store.NewID(), in.Body.Paused != nil && *in.Body.Paused
	s, err = a.o.DB.CreateSchedule(ctx, s, maxSchedules, func(now time.Time) time.Time { return e.Within(now, s.StartAt, s.EndAt) })
	if err != nil {
		return nil, scheduleTaken(err, in.Body.Name)
	}
	a.note(ctx, "create", "schedule", s.ID.String(), noteOf(&s))
	out := a.answerSchedule(&s)
	out.Location = Base + "/schedules/" + s.ID.String()
	return out, nil
}

func noteOf(s *store.Schedule) map[string]any {
	return map[string]any{"name": s.Name, "flow": s.Flow.String(), "cron": s.Cron, "timeZone": s.Zone, "catchUp": s.CatchUp, "overlap": s.Overlap, "paused": s.Paused}
}

func (a *API) saveSchedule(ctx context.Context, in *saveScheduleInput) (*scheduleOutput, error) {
	revision, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	was, err := a.schedule(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if was.Node != "" {
		return nil, noSchedule(store.ErrOwned, in.ID)
	}
	next, e, err := a.scheduleOf(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	s, err := a.o.DB.ChangeSchedule(ctx, was.ID, revision, func(s *store.Schedule, now time.Time) error {
		old := *s
		next.ID, next.Due, next.Paused = old.ID, old.Due, old.Paused
		if in.Body.Paused != nil {
			next.Paused = *in.Body.Paused
		}
		if old.Cron != next.Cron || old.Zone != next.Zone || !old.StartAt.Equal(next.StartAt) || !old.EndAt.Equal(next.EndAt) || old.Paused && !next.Paused {
			next.Due = e.Within(now, next.StartAt, next.EndAt)
		}
		*s = next
		return nil
	})
	if err != nil {
		return nil, scheduleTaken(noSchedule(err, in.ID), in.Body.Name)
	}
	a.note(ctx, "save", "schedule", s.ID.String(), noteOf(&s))
	return a.answerSchedule(&s), nil
}

func (a *API) steerSchedule(ctx context.Context, in *steerScheduleInput, paused bool) (*scheduleOutput, error) {
	revision, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	s, err := a.schedule(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	s, err = a.o.DB.ChangeSchedule(ctx, s.ID, revision, func(s *store.Schedule, now time.Time) error {
		if s.Paused && !paused {
			e, err := cron.Parse(s.Cron, s.Zone)
			if err != nil {
				return problem.New(http.StatusConflict, "%s", err.Error())
			}
			s.Due = e.Within(now, s.StartAt, s.EndAt)
		}
		s.Paused = paused
		return nil
	})
	if err != nil {
		return nil, noSchedule(err, in.ID)
	}
	a.note(ctx, map[bool]string{true: "pause", false: "resume"}[paused], "schedule", s.ID.String(), map[string]any{"name": s.Name})
	return a.answerSchedule(&s), nil
}

func (a *API) deleteSchedule(ctx context.Context, in *steerScheduleInput) (*nothing, error) {
	revision, err := revisionOf(in.IfMatch)
	if err != nil {
		return nil, err
	}
	s, err := a.schedule(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := a.o.DB.DeleteSchedule(ctx, s.ID, revision); err != nil {
		return nil, noSchedule(err, in.ID)
	}
	a.note(ctx, "delete", "schedule", s.ID.String(), map[string]any{"name": s.Name})
	return nil, nil
}

// Instant is one instant of an expression.
type Instant struct {
	At    time.Time `json:"at" doc:"In UTC"`
	Local string    `json:"local" doc:"What the clocks of the time zone show then"`
}

func (a *API) previewSchedule(_ context.Context, in *struct {
	Body struct {
		Cron     string    `json:"cron" minLength:"1" maxLength:"200" example:"30 2 * * *"`
		TimeZone string    `json:"timeZone,omitempty" maxLength:"64" doc:"Default UTC" example:"Europe/Berlin"`
		From     time.Time `json:"from,omitzero" doc:"Default now"`
		Count    int       `json:"count,omitempty" minimum:"1" maximum:"100" doc:"Default 10"`
	}
}) (*listOutput[Instant], error) {
	b := &in.Body
	e, err := cron.Parse(b.Cron, b.TimeZone)
	if err != nil {
		field := problem.Body("/cron", "cron", "%s", err.Error())
		var bad *cron.Error
		if errors.As(err, &bad) && bad.Zone {
			field = problem.Body("/timeZone", "time-zone", "%s", bad.Message)
		}
		return nil, problem.Invalid("this fires never", field)
	}
	if b.From.IsZero() {
		b.From = a.o.Now()
	}
	if b.Count == 0 {
		b.Count = shownTimes
	}
	return listOf(e.Upcoming(b.From, b.Count), "", func(at *time.Time) Instant { return Instant{At: *at, Local: e.Local(*at)} }), nil
}

package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const tagLetters = "Dead letters"

// maxLetterBody bounds what an edited body may be, as a message.
const maxLetterBody = 1 << 20

// DeadLetter is what could not be processed.
type DeadLetter struct {
	ID          string          `json:"id" format:"uuid"`
	Kind        string          `json:"kind" doc:"task, report or execution"`
	Reason      string          `json:"reason" doc:"A stable code: poison, unparseable, schema, behind, unknown-execution, refused-value, version-not-found, …"`
	Detail      string          `json:"detail"`
	Origin      string          `json:"origin" doc:"Queue or process"`
	ExecutionID string          `json:"executionId,omitempty" format:"uuid"`
	Count       int             `json:"count" doc:"How often it was tried, or how many workers died of it"`
	At          time.Time       `json:"at"`
	State       string          `json:"state" enum:"open,asked,done" doc:"asked: the leader brings it back soon"`
	AskedBy     string          `json:"askedBy,omitempty"`
	Outcome     string          `json:"outcome,omitempty" doc:"What became of the last requeue"`
	EditedBy    string          `json:"editedBy,omitempty"`
	Body        json.RawMessage `json:"body,omitempty" doc:"When it is JSON"`
	Text        string          `json:"text,omitempty" doc:"When it is text and no JSON"`
	Base64      string          `json:"base64,omitempty" doc:"When it is neither"`
}

// LetterGroup is how many dead letters have one reason.
type LetterGroup struct {
	Reason string    `json:"reason"`
	Kind   string    `json:"kind"`
	Origin string    `json:"origin"`
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
}

// LetterList is a page of dead letters, or all of their reasons.
type LetterList struct {
	Items      []DeadLetter  `json:"items" nullable:"false"`
	Groups     []LetterGroup `json:"groups,omitempty" doc:"With group=reason, instead of the items"`
	NextCursor string        `json:"nextCursor,omitempty"`
}

type lettersInput struct {
	Page
	Reason      string `query:"reason" maxLength:"100"`
	Kind        string `query:"kind" enum:"task,report,execution"`
	Origin      string `query:"origin" maxLength:"255"`
	ExecutionID string `query:"executionId" doc:"Of one execution"`
	State       string `query:"state" enum:"open,all" default:"open"`
	Group       string `query:"group" enum:"reason" doc:"Count by reason, kind and origin instead"`
}

// LetterChoice says which dead letters are meant.
type LetterChoice struct {
	IDs    []string      `json:"ids,omitempty" maxItems:"1000"`
	Filter *LetterFilter `json:"filter,omitempty" doc:"{} is all that are open"`
}

// LetterFilter chooses dead letters.
type LetterFilter struct {
	Reason      string `json:"reason,omitempty" maxLength:"100"`
	Kind        string `json:"kind,omitempty" enum:"task,report,execution"`
	Origin      string `json:"origin,omitempty" maxLength:"255"`
	ExecutionID string `json:"executionId,omitempty"`
}

type choiceInput struct{ Body LetterChoice }

type countOutput struct {
	Body struct {
		Count int `json:"count" doc:"Dead letters that are meant, 10,000 at the most: repeat it for the rest"`
	}
}

type editInput struct {
	IDRef
	Body struct {
		Body json.RawMessage `json:"body" doc:"The message as it should have been: any JSON"`
	}
}

type letterOutput struct{ Body DeadLetter }

type lettersOutput struct{ Body LetterList }

func (a *API) letterRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "listDeadLetters", Method: http.MethodGet, Path: "/dead-letters", Tags: []string{tagLetters}, Summary: "List what could not be processed, the newest first"}, a.listLetters)
	route(a, auth.Viewer, huma.Operation{OperationID: "getDeadLetter", Method: http.MethodGet, Path: "/dead-letters/{id}", Tags: []string{tagLetters}, Summary: "Show a dead letter"}, a.getLetter)
	route(a, auth.Operator, huma.Operation{OperationID: "editDeadLetter", Method: http.MethodPut, Path: "/dead-letters/{id}", Tags: []string{tagLetters}, Summary: "Change the body of a dead letter before it is requeued", MaxBodyBytes: maxLetterBody,
		Description: "Only while it is open. An edited task is published as it is; without an edit the task is made anew of the execution."}, a.editLetter)
	route(a, auth.Operator, huma.Operation{OperationID: "deleteDeadLetter", Method: http.MethodDelete, Path: "/dead-letters/{id}", Tags: []string{tagLetters}, Summary: "Remove a dead letter for good", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *IDRef) (*nothing, error) {
			id, err := pathID(in.ID, "dead letter")
			if err != nil {
				return nil, err
			}
			n, err := a.o.DB.PurgeLetters(ctx, store.LetterFilter{IDs: []protocol.ID{id}, Done: true})
			if err == nil && n == 0 {
				err = store.ErrNotFound
			}
			if err != nil {
				return nil, missing(err, "dead letter", in.ID)
			}
			a.note(ctx, "delete", "dead letter", in.ID, nil)
			return nil, nil
		})
	route(a, auth.Operator, huma.Operation{OperationID: "requeueDeadLetters", Method: http.MethodPost, Path: "/dead-letters/requeue", Tags: []string{tagLetters}, Summary: "Bring dead letters back", DefaultStatus: http.StatusAccepted, MaxBodyBytes: 64 << 10,
		Description: "By ids or by filter. The leader does it within a second or two and writes the outcome: an execution that failed as poison goes on from its last confirmed step, with its deaths counted anew; a message is published again. What can't be is refused with the reason and stays open."},
		a.requeueLetters)
	route(a, auth.Admin, huma.Operation{OperationID: "purgeDeadLetters", Method: http.MethodPost, Path: "/dead-letters/purge", Tags: []string{tagLetters}, Summary: "Remove dead letters for good", MaxBodyBytes: 64 << 10,
		Description: "By ids or by filter; of a filter, those that are open."}, a.purgeLetters)
}

func (a *API) listLetters(ctx context.Context, in *lettersInput) (*lettersOutput, error) {
	f, err := (&LetterFilter{Reason: in.Reason, Kind: in.Kind, Origin: in.Origin, ExecutionID: in.ExecutionID}).filter()
	if err != nil {
		return nil, problem.Invalid("executionId is wrong", problem.Parameter("query", "executionId", "%q is no id", in.ExecutionID))
	}
	f.Done = in.State == "all"
	out := &lettersOutput{LetterList{Items: []DeadLetter{}}}
	if in.Group != "" {
		groups, err := a.o.DB.LetterGroups(ctx, f)
		for _, g := range groups {
			out.Body.Groups = append(out.Body.Groups, LetterGroup(g))
		}
		return out, err
	}
	rows, next, err := a.o.DB.Letters(ctx, f, in.page())
	if err != nil {
		return nil, err
	}
	for i := range rows {
		out.Body.Items = append(out.Body.Items, viewLetter(&rows[i]))
	}
	out.Body.NextCursor = next
	return out, nil
}

func (f *LetterFilter) filter() (store.LetterFilter, error) {
	out := store.LetterFilter{Reason: f.Reason, Kind: f.Kind, Origin: f.Origin}
	if f.ExecutionID == "" {
		return out, nil
	}
	id, err := protocol.ParseID(f.ExecutionID)
	out.Execution = id
	return out, err
}

func viewLetter(l *store.Letter) DeadLetter {
	out := DeadLetter{ID: l.ID.String(), Kind: l.Kind, Reason: l.Reason, Detail: l.Detail, Origin: l.Origin, Count: l.Count, At: l.At, State: "open", AskedBy: l.AskedBy, Outcome: l.Outcome, EditedBy: l.EditedBy}
	if !l.Execution.IsZero() {
		out.ExecutionID = l.Execution.String()
	}
	switch {
	case !l.DoneAt.IsZero():
		out.State = "done"
	case !l.AskedAt.IsZero():
		out.State = "asked"
	}
	switch {
	case len(l.Body) == 0:
	case json.Valid(l.Body):
		out.Body = l.Body
	case utf8.Valid(l.Body):
		out.Text = string(l.Body)
	default:
		out.Base64 = base64.StdEncoding.EncodeToString(l.Body)
	}
	return out
}

func (a *API) getLetter(ctx context.Context, in *IDRef) (*letterOutput, error) {
	id, err := pathID(in.ID, "dead letter")
	if err != nil {
		return nil, err
	}
	l, err := a.o.DB.LetterOf(ctx, id)
	if err != nil {
		return nil, missing(err, "dead letter", in.ID)
	}
	return &letterOutput{viewLetter(&l)}, nil
}

func (a *API) editLetter(ctx context.Context, in *editInput) (*letterOutput, error) {
	id, err := pathID(in.ID, "dead letter")
	if err != nil {
		return nil, err
	}
	if err := a.o.DB.EditLetter(ctx, id, in.Body.Body, principal(ctx).Actor()); err != nil {
		return nil, missing(err, "dead letter", in.ID)
	}
	a.note(ctx, "update", "dead letter", in.ID, nil)
	return a.getLetter(ctx, &in.IDRef)
}

// chosen says which dead letters a caller means: never all by leaving everything out.
func (c *LetterChoice) chosen() (store.LetterFilter, error) {
	if (len(c.IDs) == 0) == (c.Filter == nil) {
		return store.LetterFilter{}, problem.Invalid("which dead letters?", problem.Body("", "choice", "give either ids or a filter; the filter {} is all that are open"))
	}
	if c.Filter != nil {
		f, err := c.Filter.filter()
		if err != nil {
			return f, problem.Invalid("the filter is wrong", problem.Body("/filter/executionId", "id", "%q is no id", c.Filter.ExecutionID))
		}
		return f, nil
	}
	f := store.LetterFilter{IDs: make([]protocol.ID, len(c.IDs))}
	for i, s := range c.IDs {
		id, err := protocol.ParseID(s)
		if err != nil {
			return f, problem.Invalid("an id is wrong", problem.Body("/ids", "id", "%q is no id", s))
		}
		f.IDs[i] = id
	}
	return f, nil
}

func (a *API) requeueLetters(ctx context.Context, in *choiceInput) (*countOutput, error) {
	return a.choose(ctx, in, "requeue", func(f store.LetterFilter) (int, error) {
		return a.o.DB.AskRequeue(ctx, f, principal(ctx).Actor())
	})
}

func (a *API) purgeLetters(ctx context.Context, in *choiceInput) (*countOutput, error) {
	return a.choose(ctx, in, "delete", func(f store.LetterFilter) (int, error) {
		f.Done = f.IDs != nil
		return a.o.DB.PurgeLetters(ctx, f)
	})
}

func (a *API) choose(ctx context.Context, in *choiceInput, action string, do func(store.LetterFilter) (int, error)) (*countOutput, error) {
	f, err := in.Body.chosen()
	if err != nil {
		return nil, err
	}
	n, err := do(f)
	if err != nil {
		return nil, err
	}
	if n > 0 {
		a.note(ctx, action, "dead letter", "", map[string]any{"ids": in.Body.IDs, "filter": in.Body.Filter, "count": n})
	}
	out := &countOutput{}
	out.Body.Count = n
	return out, nil
}

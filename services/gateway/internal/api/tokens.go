package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/store"
)

const tagTokens = "API tokens"

// Token is an API token without its text.
type Token struct {
	ID         string    `json:"id" format:"uuid"`
	Name       string    `json:"name"`
	Role       string    `json:"role" enum:"worker,viewer,editor,operator,admin"`
	Queues     []string  `json:"queues,omitempty" doc:"Of the role worker: the queues of remote tasks that it may work on; absent: all"`
	RateLimit  int       `json:"rateLimit" doc:"Requests a minute; 0: the default, -1: not limited"`
	CreatedAt  time.Time `json:"createdAt"`
	ExpiresAt  time.Time `json:"expiresAt,omitzero"`
	LastUsedAt time.Time `json:"lastUsedAt,omitzero" doc:"To the minute"`
}

// NewToken is an API token with its text, which is shown once.
type NewToken struct {
	Token
	Text string `json:"token" doc:"Bearer token; it can't be shown again"`
}

type newTokenInput struct {
	Body struct {
		Name      string    `json:"name" minLength:"1" maxLength:"100" doc:"What it is for"`
		Role      string    `json:"role,omitempty" enum:"worker,viewer,editor,operator,admin" doc:"At most your own; yours if absent. worker: nothing but the calls of remote workers; operators make such tokens"`
		Queues    []string  `json:"queues,omitempty" maxItems:"100" doc:"With role worker: the queues of remote tasks that it may work on; absent: all"`
		RateLimit int       `json:"rateLimit,omitempty" minimum:"-1" maximum:"10000000" doc:"Requests a minute; 0: the default, -1: not limited. Other than 0 only by administrators"`
		ExpiresAt time.Time `json:"expiresAt,omitempty"`
	}
}

type newTokenOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         NewToken
}

// IDRef is an id in a path.
type IDRef struct {
	ID string `path:"id" doc:"Id"`
}

func viewToken(t *store.Token) Token {
	return Token{ID: t.ID.String(), Name: t.Name, Role: t.Role, Queues: t.Queues, RateLimit: t.RateLimit, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt, LastUsedAt: t.LastUsedAt}
}

func (a *API) tokenRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "createToken", Method: http.MethodPost, Path: "/tokens", Tags: []string{tagTokens}, Summary: "Make an API token", DefaultStatus: http.StatusCreated, MaxBodyBytes: 16 << 10,
		Description: "A name that you use already gets a number behind it."}, a.createToken)
	route(a, auth.Viewer, huma.Operation{OperationID: "listTokens", Method: http.MethodGet, Path: "/tokens", Tags: []string{tagTokens}, Summary: "List your API tokens"},
		func(ctx context.Context, in *struct{ Page }) (*listOutput[Token], error) {
			rows, next, err := a.o.DB.ListTokens(ctx, principal(ctx).User, in.page())
			if err != nil {
				return nil, err
			}
			return listOf(rows, next, viewToken), nil
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "deleteToken", Method: http.MethodDelete, Path: "/tokens/{id}", Tags: []string{tagTokens}, Summary: "Revoke an API token", DefaultStatus: http.StatusNoContent,
		Description: "Within two seconds no gateway takes it any more."},
		func(ctx context.Context, in *IDRef) (*nothing, error) {
			id, err := pathID(in.ID, "token")
			if err != nil {
				return nil, err
			}
			if err := a.o.DB.DeleteToken(ctx, principal(ctx).User, id); err != nil {
				return nil, missing(err, "token", in.ID)
			}
			a.o.Accounts.Who.Forget()
			a.note(ctx, "delete", "token", in.ID, nil)
			return nil, nil
		})
}

func (a *API) createToken(ctx context.Context, in *newTokenInput) (*newTokenOutput, error) {
	who := principal(ctx)
	role := who.Role
	if in.Body.Role != "" {
		role = auth.ParseRole(in.Body.Role)
	}
	switch {
	case role > who.Role:
		return nil, problem.New(http.StatusForbidden, "a token can't have more than your own role, which is %s", who.Role)
	case role == auth.Worker && who.Role < auth.Operator:
		return nil, problem.New(http.StatusForbidden, "only operators and administrators make tokens for workers")
	case role != auth.Worker && len(in.Body.Queues) > 0:
		return nil, problem.Invalid("the token was not made", problem.Body("/queues", "role", "only tokens of the role worker have queues"))
	case in.Body.RateLimit != 0 && who.Role < auth.Admin:
		return nil, problem.New(http.StatusForbidden, "only administrators give tokens a rateLimit of their own")
	case !in.Body.ExpiresAt.IsZero() && in.Body.ExpiresAt.Before(a.o.Now()):
		return nil, problem.Invalid("the token would never be good", problem.Body("/expiresAt", "past", "this time is past"))
	}
	want := store.Token{UserID: who.User, Name: in.Body.Name, Role: role.String(), Queues: in.Body.Queues, RateLimit: in.Body.RateLimit, ExpiresAt: in.Body.ExpiresAt}
	for n := 2; ; n++ {
		t, text, err := a.o.Accounts.NewToken(ctx, want)
		if errors.Is(err, store.ErrConflict) && n <= 50 { // a machine that logs in once more uses the same name
			want.Name = fmt.Sprintf("%s (%d)", in.Body.Name, n)
			continue
		}
		if err != nil {
			return nil, err
		}
		a.note(ctx, "create", "token", t.ID.String(), map[string]any{"name": t.Name, "role": t.Role, "queues": t.Queues, "rateLimit": t.RateLimit})
		return &newTokenOutput{CacheControl: "no-store", Body: NewToken{viewToken(&t), text}}, nil
	}
}

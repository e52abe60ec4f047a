package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/store"
)

const tagAuth = "Login"

type loginInput struct {
	Body struct {
		Email    string `json:"email" minLength:"1" maxLength:"200"`
		Password string `json:"password" minLength:"1" maxLength:"200"`
	}
}

type loginOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         auth.Login
}

type refreshInput struct {
	Body struct {
		RefreshToken string `json:"refreshToken" minLength:"1" maxLength:"200"`
	}
}

// Me is who the caller is.
type Me struct {
	ID        string `json:"id"`
	Email     string `json:"email"`
	Role      string `json:"role" enum:"viewer,editor,operator,admin" doc:"What this token may do"`
	Token     string `json:"token,omitempty" doc:"Name of the API token that was used"`
	RateLimit int    `json:"rateLimit" doc:"Requests a minute; -1: not limited"`
}

type meOutput struct{ Body Me }

func (a *API) authRoutes() {
	route(a, public, huma.Operation{OperationID: "login", Method: http.MethodPost, Path: "/auth/login", Tags: []string{tagAuth}, Summary: "Log in with a password", MaxBodyBytes: 4 << 10},
		func(ctx context.Context, in *loginInput) (*loginOutput, error) {
			l, u, err := a.o.Accounts.Login(ctx, in.Body.Email, in.Body.Password, callerOf(ctx).address)
			var brake *auth.BrakeError
			switch {
			case errors.As(err, &brake):
				return nil, problem.New(http.StatusTooManyRequests, "%s", brake.Error()).RetryAfter(brake.Wait)
			case errors.Is(err, auth.ErrWrongLogin):
				return nil, problem.New(http.StatusUnauthorized, "%s", err.Error())
			case err != nil:
				return nil, err
			}
			a.audit(ctx, store.AuditEntry{Actor: u.Email, Action: "login", Object: "user", ObjectID: u.ID.String()})
			return &loginOutput{CacheControl: "no-store", Body: l}, nil
		})
	route(a, public, huma.Operation{OperationID: "refresh", Method: http.MethodPost, Path: "/auth/refresh", Tags: []string{tagAuth}, Summary: "Take a refresh token for new tokens", MaxBodyBytes: 4 << 10,
		Description: "A refresh token is good once. Used a second time, everything that came from its login is revoked."},
		func(ctx context.Context, in *refreshInput) (*loginOutput, error) {
			l, err := a.o.Accounts.Refresh(ctx, in.Body.RefreshToken)
			if errors.Is(err, auth.ErrWrongRefresh) {
				return nil, problem.New(http.StatusUnauthorized, "%s", err.Error())
			}
			return &loginOutput{CacheControl: "no-store", Body: l}, err
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "logout", Method: http.MethodPost, Path: "/auth/logout", Tags: []string{tagAuth}, Summary: "End this login", DefaultStatus: http.StatusNoContent,
		Description: "Its refresh tokens are revoked; the access token runs out within a quarter of an hour."},
		func(ctx context.Context, _ *nothing) (*nothing, error) {
			who := principal(ctx)
			if who.Session.IsZero() {
				return nil, problem.New(http.StatusConflict, "this is an API token, not a login: DELETE /tokens/%s ends it", who.Token)
			}
			return nil, a.o.Accounts.Logout(ctx, who.Session)
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "me", Method: http.MethodGet, Path: "/auth/me", Tags: []string{tagAuth}, Summary: "Who am I?"},
		func(ctx context.Context, _ *nothing) (*meOutput, error) {
			who := principal(ctx)
			limit := who.RateLimit
			if limit == 0 {
				limit = a.o.RateLimit
			}
			return &meOutput{Me{ID: who.User.String(), Email: who.Email, Role: who.Role.String(), Token: who.TokenName, RateLimit: limit}}, nil
		})
}

// bootstrap makes the first user. The front door never forwards /internal; the bearer token is the services' own.
func (a *API) bootstrap(w http.ResponseWriter, r *http.Request) {
	if p := internal(r, a.o.InternalToken, "INTERNAL_TOKEN"); p != nil {
		p.Write(w)
		return
	}
	in := auth.First{Email: "admin@localhost"}
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &in)
	}
	if err != nil || in.Email == "" || len(in.Email) > 200 {
		problem.New(http.StatusBadRequest, `the body must be JSON like {"email": "admin@localhost"}, or {}`).Write(w)
		return
	}
	if err := in.Check(); err != nil {
		problem.New(http.StatusBadRequest, "the first user's %v", err).Write(w)
		return
	}
	first, created, err := a.o.Accounts.Bootstrap(r.Context(), in)
	switch {
	case err != nil:
		p, _ := problem.From(a.explain("bootstrap", err))
		p.Write(w)
		return
	case !created:
		problem.New(http.StatusConflict, "there is a user already").Write(w)
		return
	}
	a.audit(r.Context(), store.AuditEntry{Actor: "bootstrap", Action: "create", Object: "user", ObjectID: first.Email})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(first)
}

// internal refuses who doesn't have the services' own token, which variable names.
func internal(r *http.Request, token, variable string) *problem.Problem {
	got, want := sha256.Sum256([]byte(bearer(r))), sha256.Sum256([]byte(token))
	if token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
		return nil
	}
	return problem.New(http.StatusUnauthorized, "this call is between services: it needs their token (%s)", variable).With("WWW-Authenticate", "Bearer")
}

// audit notes who changed what. The change is made by now: a note that can't be written is logged with all that it says.
func (a *API) audit(ctx context.Context, e store.AuditEntry) {
	if err := a.o.DB.AppendAudit(context.WithoutCancel(ctx), e); err != nil {
		a.log.Error("an audit entry could not be written", "actor", e.Actor, "action", e.Action, "object", e.Object, "id", e.ObjectID, "detail", string(e.Detail), "error", err)
	}
}

// note is audit for the caller of a route.
func (a *API) note(ctx context.Context, action, object, id string, detail any) {
	e := store.AuditEntry{Actor: principal(ctx).Actor(), Action: action, Object: object, ObjectID: id}
	if detail != nil {
		e.Detail, _ = json.Marshal(detail) // maps of plain values
	}
	a.audit(ctx, e)
}

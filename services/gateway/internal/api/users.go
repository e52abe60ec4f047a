package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/store"
)

const tagUsers = "Users"

// User is a person who may log in.
type User struct {
	ID        string    `json:"id" format:"uuid"`
	Email     string    `json:"email"`
	Role      string    `json:"role" enum:"viewer,editor,operator,admin"`
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// NewUser is a user with the password that was made for them.
type NewUser struct {
	User
	Password string `json:"password,omitempty" doc:"Only when none was given; it can't be shown again"`
}

type newUserInput struct {
	Body struct {
		Email    string `json:"email" minLength:"3" maxLength:"200" example:"ada@example.org"`
		Role     string `json:"role" enum:"viewer,editor,operator,admin"`
		Password string `json:"password,omitempty" minLength:"10" maxLength:"200" doc:"One is made if absent"`
	}
}

type newUserOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         NewUser
}

type patchUserInput struct {
	IDRef
	Body struct {
		Email    *string `json:"email,omitempty" minLength:"3" maxLength:"200"`
		Role     *string `json:"role,omitempty" enum:"viewer,editor,operator,admin"`
		Disabled *bool   `json:"disabled,omitempty" doc:"A disabled user's tokens are refused"`
		Password *string `json:"password,omitempty" minLength:"10" maxLength:"200" doc:"Ends all of the user's logins"`
	}
}

type userOutput struct{ Body User }

func viewUser(u *store.User) User {
	return User{ID: u.ID.String(), Email: u.Email, Role: u.Role, Disabled: u.Disabled, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt}
}

func (a *API) userRoutes() {
	route(a, auth.Admin, huma.Operation{OperationID: "listUsers", Method: http.MethodGet, Path: "/users", Tags: []string{tagUsers}, Summary: "List users"},
		func(ctx context.Context, in *struct{ Page }) (*listOutput[User], error) {
			rows, next, err := a.o.DB.ListUsers(ctx, in.page())
			if err != nil {
				return nil, err
			}
			return listOf(rows, next, viewUser), nil
		})
	route(a, auth.Admin, huma.Operation{OperationID: "createUser", Method: http.MethodPost, Path: "/users", Tags: []string{tagUsers}, Summary: "Make a user", DefaultStatus: http.StatusCreated, MaxBodyBytes: 16 << 10}, a.createUser)
	route(a, auth.Admin, huma.Operation{OperationID: "updateUser", Method: http.MethodPatch, Path: "/users/{id}", Tags: []string{tagUsers}, Summary: "Change a user", MaxBodyBytes: 16 << 10}, a.updateUser)
	route(a, auth.Admin, huma.Operation{OperationID: "deleteUser", Method: http.MethodDelete, Path: "/users/{id}", Tags: []string{tagUsers}, Summary: "Delete a user with their tokens", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *IDRef) (*nothing, error) {
			id, err := pathID(in.ID, "user")
			if err != nil {
				return nil, err
			}
			if id == principal(ctx).User {
				return nil, errYourself
			}
			if err := a.o.DB.DeleteUser(ctx, id); err != nil {
				return nil, missing(err, "user", in.ID)
			}
			a.o.Accounts.Who.Forget()
			a.note(ctx, "delete", "user", in.ID, nil)
			return nil, nil
		})
}

// errYourself keeps the last administrator in: nobody takes the role from themselves.
var errYourself = problem.New(http.StatusConflict, "nobody can delete, disable or demote themselves: another administrator must do it")

func validEmail(s string) bool {
	at := strings.IndexByte(s, '@')
	return at > 0 && at < len(s)-1 && !strings.ContainsAny(s, " \t\r\n<>,")
}

func badEmail(s string) error {
	return problem.Invalid("the e-mail address is wrong", problem.Body("/email", "email", "%q is not an e-mail address", s))
}

func (a *API) createUser(ctx context.Context, in *newUserInput) (*newUserOutput, error) {
	email := auth.NormalEmail(in.Body.Email)
	if !validEmail(email) {
		return nil, badEmail(in.Body.Email)
	}
	password, made := in.Body.Password, ""
	if password == "" {
		made = auth.RandomPassword()
		password = made
	}
	hash, err := a.o.Accounts.Hasher.Hash(ctx, password)
	if err != nil {
		return nil, err
	}
	u, err := a.o.DB.CreateUser(ctx, store.User{ID: store.NewID(), Email: email, Role: in.Body.Role, PasswordHash: hash})
	if err != nil {
		return nil, err
	}
	a.note(ctx, "create", "user", u.ID.String(), map[string]any{"email": u.Email, "role": u.Role})
	return &newUserOutput{CacheControl: "no-store", Body: NewUser{viewUser(&u), made}}, nil
}

func (a *API) updateUser(ctx context.Context, in *patchUserInput) (*userOutput, error) {
	id, err := pathID(in.ID, "user")
	if err != nil {
		return nil, err
	}
	u, err := a.o.DB.UserByID(ctx, id)
	if err != nil {
		return nil, missing(err, "user", in.ID)
	}
	read, b, detail := u.UpdatedAt, in.Body, map[string]any{}
	if id == principal(ctx).User && (b.Disabled != nil && *b.Disabled || b.Role != nil && *b.Role != u.Role) {
		return nil, errYourself
	}
	if b.Email != nil {
		if u.Email = auth.NormalEmail(*b.Email); !validEmail(u.Email) {
			return nil, badEmail(*b.Email)
		}
		detail["email"] = u.Email
	}
	if b.Role != nil {
		u.Role = *b.Role
		detail["role"] = u.Role
	}
	if b.Disabled != nil {
		u.Disabled = *b.Disabled
		detail["disabled"] = u.Disabled
	}
	if b.Password != nil {
		if u.PasswordHash, err = a.o.Accounts.Hasher.Hash(ctx, *b.Password); err != nil {
			return nil, err
		}
		detail["password"] = "changed"
	}
	if u, err = a.o.DB.UpdateUser(ctx, u, read); err != nil {
		return nil, err
	}
	if b.Password != nil || u.Disabled {
		if err := a.o.DB.RevokeUser(ctx, id); err != nil {
			return nil, err
		}
	}
	a.o.Accounts.Who.Forget()
	a.note(ctx, "update", "user", in.ID, detail)
	return &userOutput{viewUser(&u)}, nil
}

package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// accounts is what Accounts needs of the database.
type accounts interface {
	lookups
	UserByEmail(ctx context.Context, email string) (store.User, error)
	CreateFirstUser(ctx context.Context, u store.User, tokens []store.Token) (bool, error)
	CreateToken(ctx context.Context, t store.Token) error
	CreateRefresh(ctx context.Context, r store.Refresh) error
	UseRefresh(ctx context.Context, hash []byte) (store.Refresh, error)
	RevokeFamily(ctx context.Context, family protocol.ID) error
}

// Accounts logs people in and out, and makes tokens. Safe for concurrent use.
type Accounts struct {
	db     accounts
	Hasher *Hasher
	Who    *Authenticator
	brake  *brake
	now    func() time.Time
}

// NewAccounts makes one. now is the wall clock.
func NewAccounts(db accounts, secret string, now func() time.Time) *Accounts {
	return &Accounts{db: db, Hasher: NewHasher(2), Who: NewAuthenticator(db, secret, now), brake: newBrake(now), now: now}
}

// Login is what somebody who logs in gets.
type Login struct {
	AccessToken  string `json:"accessToken" doc:"Bearer token for the API, good for expiresIn seconds"`
	RefreshToken string `json:"refreshToken" doc:"Good once, for POST /auth/refresh, within 30 days"`
	ExpiresIn    int    `json:"expiresIn" doc:"Seconds" example:"900"`
}

// Errors of Accounts.
var (
	ErrWrongLogin   = errors.New("wrong e-mail address or password")
	ErrWrongRefresh = errors.New("the refresh token is unknown, used, revoked or expired: log in again")
)

// BrakeError says that somebody has tried too often.
type BrakeError struct{ Wait time.Duration }

func (e *BrakeError) Error() string {
	return fmt.Sprintf("too many failed logins: try again in %s", e.Wait.Round(time.Second))
}

// Login checks a password; address is where the caller comes from.
func (a *Accounts) Login(ctx context.Context, email, password, address string) (Login, store.User, error) {
	email = NormalEmail(email)
	if w := a.brake.wait(address, email); w > 0 {
		return Login{}, store.User{}, &BrakeError{Wait: w}
	}
	u, err := a.db.UserByEmail(ctx, email)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Login{}, store.User{}, fmt.Errorf("log in: %w", err)
	}
	hash := u.PasswordHash
	if err != nil || u.Disabled {
		hash = ""
	}
	ok, err := a.Hasher.Check(ctx, password, hash)
	if err != nil {
		return Login{}, u, fmt.Errorf("log in: %w", err)
	}
	if !ok {
		a.brake.failed(address, email)
		return Login{}, u, ErrWrongLogin
	}
	a.brake.succeeded(address, email)
	l, err := a.tokens(ctx, u.ID, store.NewID())
	return l, u, err
}

func (a *Accounts) tokens(ctx context.Context, user, family protocol.ID) (Login, error) {
	access, err := a.Who.signer.sign(user, family)
	if err != nil {
		return Login{}, err
	}
	refresh, hash := randomToken(refreshPrefix)
	err = a.db.CreateRefresh(ctx, store.Refresh{ID: store.NewID(), UserID: user, Hash: hash[:], Family: family, ExpiresAt: a.now().Add(RefreshLife)})
	if err != nil {
		return Login{}, fmt.Errorf("log in: %w", err)
	}
	return Login{AccessToken: access, RefreshToken: refresh, ExpiresIn: int(AccessLife / time.Second)}, nil
}

// Refresh takes a refresh token for new tokens. It is good once; used again, all tokens of that login are revoked.
func (a *Accounts) Refresh(ctx context.Context, token string) (Login, error) {
	r, err := a.use(ctx, token)
	if err != nil {
		return Login{}, err
	}
	u, err := a.db.UserByID(ctx, r.UserID)
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && u.Disabled:
		return Login{}, ErrWrongRefresh
	case err != nil:
		return Login{}, fmt.Errorf("refresh: %w", err)
	}
	return a.tokens(ctx, r.UserID, r.Family)
}

func (a *Accounts) use(ctx context.Context, token string) (store.Refresh, error) {
	hash := digestOf(token)
	r, err := a.db.UseRefresh(ctx, hash[:])
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrStale):
		return r, ErrWrongRefresh
	case err != nil:
		return r, fmt.Errorf("refresh: %w", err)
	case !r.ExpiresAt.IsZero() && r.ExpiresAt.Before(a.now()):
		return r, ErrWrongRefresh
	}
	return r, nil
}

// Logout ends a login: nobody can refresh it any more. Its access token runs out by itself, in a quarter of an hour at the most.
func (a *Accounts) Logout(ctx context.Context, session protocol.ID) error {
	if err := a.db.RevokeFamily(ctx, session); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("log out: %w", err)
	}
	return nil
}

// NewToken makes an API token; its text is shown once and not stored.
func (a *Accounts) NewToken(ctx context.Context, t store.Token) (store.Token, string, error) {
	text, hash := randomToken(apiPrefix)
	t.ID, t.Hash, t.CreatedAt = store.NewID(), hash[:], a.now().UTC()
	if err := a.db.CreateToken(ctx, t); err != nil {
		return t, "", fmt.Errorf("make a token: %w", err)
	}
	return t, text, nil
}

// First is the first user with what is needed to get in; nothing of it can be shown again.
type First struct {
	Email      string `json:"email"`
	Password   string `json:"password"`
	Token      string `json:"token" doc:"API token of the administrator"`
	BenchToken string `json:"benchToken" doc:"API token without a rate limit, for load tests"`
}

// Check says what is wrong with what whoever makes the first user has brought along.
func (f First) Check() error {
	if f.Password != "" && (len(f.Password) < MinPassword || len(f.Password) > MaxPassword) {
		return fmt.Errorf("password: %d to %d bytes", MinPassword, MaxPassword)
	}
	for name, token := range map[string]string{"token": f.Token, "benchToken": f.BenchToken} {
		if random, isToken := strings.CutPrefix(token, apiPrefix); token != "" && (!isToken || len(random) < 43 || len(random) > 100) {
			return fmt.Errorf("%s: %s and the base64 (URL) of 32 random bytes or more", name, apiPrefix)
		}
	}
	return nil
}

// Bootstrap makes the first user, an administrator. created is false when there is a user already. Who asks for it may bring its password and tokens along, so that
// they are written down before they are valid and an answer that is lost loses nothing; what is empty is made here.
func (a *Accounts) Bootstrap(ctx context.Context, wanted First) (first First, created bool, err error) {
	first = wanted
	first.Email = NormalEmail(first.Email)
	if first.Password == "" {
		first.Password = RandomPassword()
	}
	hash, err := a.Hasher.Hash(ctx, first.Password)
	if err != nil {
		return First{}, false, err
	}
	now := a.now().UTC()
	u := store.User{ID: store.NewID(), Email: first.Email, Role: Admin.String(), PasswordHash: hash, CreatedAt: now, UpdatedAt: now}
	tokens := make([]store.Token, 0, 2)
	add := func(name, text string, role Role, limit int) string {
		hash := digestOf(text)
		if text == "" {
			text, hash = randomToken(apiPrefix)
		}
		tokens = append(tokens, store.Token{ID: store.NewID(), UserID: u.ID, Name: name, Role: role.String(), Hash: hash[:], RateLimit: limit, CreatedAt: now})
		return text
	}
	first.Token = add("first", first.Token, Admin, 0)
	first.BenchToken = add("bench", first.BenchToken, Admin, -1)
	created, err = a.db.CreateFirstUser(ctx, u, tokens)
	if err != nil {
		return First{}, false, fmt.Errorf("make the first user: %w", err)
	}
	if !created {
		return First{}, false, nil
	}
	a.Who.Forget()
	return first, true, nil
}

// NormalEmail is how addresses are compared and stored.
func NormalEmail(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

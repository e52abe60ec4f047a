package auth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Errors of Authenticate.
var (
	ErrNoToken  = errors.New("no token: send the header Authorization: Bearer TOKEN")
	ErrBadToken = errors.New("the token is unknown, expired or revoked: log in again, or make another one")
)

// lookups finds who a token belongs to.
type lookups interface {
	UserByID(ctx context.Context, id protocol.ID) (store.User, error)
	TokenByHash(ctx context.Context, hash []byte) (store.Token, error)
	TouchToken(ctx context.Context, id protocol.ID) error
}

// How long an answer about a token is believed, and how many are remembered.
const (
	believed   = 2 * time.Second
	remembered = 50_000
)

// Authenticator tells who a bearer token belongs to. Safe for concurrent use.
type Authenticator struct {
	db     lookups
	signer *signer
	now    func() time.Time
	flight singleflight.Group

	mu    sync.RWMutex
	cache map[digest]*remember
}

type remember struct {
	who   *Principal // nil: nobody
	until time.Time  // the answer is good until then
	ends  time.Time  // the token itself ends then; zero: never
}

// NewAuthenticator makes one that signs and checks access tokens with the secret.
func NewAuthenticator(db lookups, secret string, now func() time.Time) *Authenticator {
	return &Authenticator{db: db, signer: newSigner(secret, now), now: now, cache: map[digest]*remember{}}
}

// Authenticate tells whose the token is. ErrBadToken says that it is nobody's; other errors say that it is not known now.
func (a *Authenticator) Authenticate(ctx context.Context, token string) (*Principal, error) {
	if token == "" {
		return nil, ErrNoToken
	}
	hash := digestOf(token)
	now := a.now()
	a.mu.RLock()
	r := a.cache[hash]
	a.mu.RUnlock()
	if r == nil || now.After(r.until) {
		// Without the caller's cancellation: others wait for the same answer.
		v, err, _ := a.flight.Do(string(hash[:]), func() (any, error) { return a.ask(context.WithoutCancel(ctx), token, hash) })
		if err != nil {
			return nil, err
		}
		r = v.(*remember)
	}
	if r.who == nil || (!r.ends.IsZero() && now.After(r.ends)) {
		return nil, ErrBadToken
	}
	return r.who, nil
}

// Forget drops what is remembered of all tokens: after something about users or tokens was changed here.
func (a *Authenticator) Forget() {
	a.mu.Lock()
	clear(a.cache)
	a.mu.Unlock()
}

func (a *Authenticator) ask(ctx context.Context, token string, hash digest) (*remember, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := a.find(ctx, token, hash)
	if err != nil {
		return nil, fmt.Errorf("whose token is this: %w", err)
	}
	r.until = a.now().Add(believed)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.cache) >= remembered { // somebody tries tokens: begin anew, the good ones cost a query each
		clear(a.cache)
	}
	a.cache[hash] = r
	return r, nil
}

// find asks the database. A remember without a principal means: nobody's.
func (a *Authenticator) find(ctx context.Context, token string, hash digest) (*remember, error) {
	r := &remember{}
	who := &Principal{}
	if isAPIToken(token) {
		t, err := a.db.TokenByHash(ctx, hash[:])
		if errors.Is(err, store.ErrNotFound) {
			return r, nil
		}
		if err != nil {
			return nil, err
		}
		r.ends = t.ExpiresAt
		if a.now().Sub(t.LastUsedAt) > time.Minute {
			_ = a.db.TouchToken(ctx, t.ID) // for people; not worth an error
		}
		who.User, who.Token, who.TokenName, who.RateLimit, who.Role = t.UserID, t.ID, t.Name, t.RateLimit, ParseRole(t.Role)
		who.Queues = t.Queues
		who.key = "token:" + t.ID.String()
	} else {
		user, session, err := a.signer.read(token)
		if err != nil {
			return r, nil
		}
		who.User, who.Session, who.Role = user, session, Admin
		who.key = "user:" + user.String()
		r.ends = a.now().Add(AccessLife) // the signature is looked at again when the answer is
	}
	u, err := a.db.UserByID(ctx, who.User)
	if errors.Is(err, store.ErrNotFound) || (err == nil && u.Disabled) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	who.Email = u.Email
	if has := ParseRole(u.Role); who.Role == Worker && has < Operator {
		who.Role = Nobody // who made it may not any more
	} else {
		who.Role = min(who.Role, has) // never more than the user has now
	}
	r.who = who
	return r, nil
}

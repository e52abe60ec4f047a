// Package credentials keeps the credentials that a worker's steps use: in memory only, opened by a gateway, for half a minute. A credential that was changed
// or deleted is used for that long at the most; one that isn't known is asked for again after two seconds.
package credentials

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/node"
	"flowplatform/services/worker/internal/upstream"
)

// How long an answer is believed, how many are kept, and how long one may take.
const (
	Believed = 30 * time.Second
	unknown  = 2 * time.Second
	maxKept  = 1000
	patience = 5 * time.Second
)

// Cache opens credentials. Safe for concurrent use.
type Cache struct {
	open   func(ctx context.Context, idOrName string) (credential.Opened, error)
	now    func() time.Time
	flight singleflight.Group

	mu   sync.Mutex
	kept map[string]entry
}

type entry struct {
	credential node.Credential
	mask       *credential.Masker
	err        error // for good: unknown
	until      time.Time
}

// New makes a cache; open is one try, or some, at the gateways.
func New(open func(ctx context.Context, idOrName string) (credential.Opened, error), now func() time.Time) *Cache {
	return &Cache{open: open, now: now, kept: map[string]entry{}}
}

// Get gives a credential, by its id or its name, with what masks its secrets. Errors are *node.Error.
func (c *Cache) Get(ctx context.Context, idOrName string) (node.Credential, *credential.Masker, error) {
	c.mu.Lock()
	e, ok := c.kept[idOrName]
	c.mu.Unlock()
	if !ok || !c.now().Before(e.until) {
		// Without the caller's cancellation: others wait for the same answer.
		answer := c.flight.DoChan(idOrName, func() (any, error) { return c.ask(context.WithoutCancel(ctx), idOrName), nil })
		select {
		case <-ctx.Done():
			return node.Credential{}, nil, &node.Error{Code: "credential-unavailable", Retryable: true, Message: fmt.Sprintf("the credential %q was not there in time: does a gateway answer?", idOrName)}
		case r := <-answer:
			e = r.Val.(entry)
		}
	}
	if e.err != nil {
		return node.Credential{}, nil, e.err
	}
	out := e.credential
	out.Fields = maps.Clone(out.Fields)
	return out, e.mask, nil
}

func (c *Cache) ask(ctx context.Context, idOrName string) entry {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asked := c.now()
	o, err := c.open(ctx, idOrName)
	e := entry{until: asked.Add(Believed)}
	if err != nil {
		var known bool
		if e.err, known = explain(idOrName, err); !known {
			return e // asked again by the next
		}
		e.until = asked.Add(unknown)
	} else {
		fields := maps.Clone(o.Public)
		if fields == nil {
			fields = map[string]string{}
		}
		maps.Copy(fields, o.Secret)
		e.credential = node.Credential{ID: o.ID, Name: o.Name, Type: o.Type, Fields: fields}
		e.mask = credential.NewMasker(&o)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	maps.DeleteFunc(c.kept, func(_ string, e entry) bool { return !now.Before(e.until) }) // secrets don't stay longer than they are good for
	if len(c.kept) >= maxKept {
		clear(c.kept)
	}
	c.kept[idOrName] = e
	return e
}

// explain says what an answer means to a flow; known: a gateway has said that it is so.
func explain(idOrName string, err error) (out *node.Error, known bool) {
	var status *upstream.StatusError
	errors.As(err, &status)
	switch {
	case status == nil:
		return &node.Error{Code: "credential-unavailable", Retryable: true, Err: err, Message: fmt.Sprintf("the credential %q can't be opened now: no gateway answers", idOrName)}, false
	case status.Status == http.StatusNotFound:
		return &node.Error{Code: "credential-unknown", Message: fmt.Sprintf("there is no credential with the name or id %q: was it renamed or deleted?", idOrName)}, true
	case status.Status == http.StatusConflict:
		return &node.Error{Code: "credential-damaged", Message: status.Detail}, true
	case status.Status == http.StatusUnauthorized:
		return &node.Error{Code: "credential-unavailable", Retryable: true, Message: fmt.Sprintf("the credential %q can't be opened: the gateway doesn't take this worker's CREDENTIALS_TOKEN (or INTERNAL_TOKEN, where that isn't set)", idOrName)}, false
	}
	return &node.Error{Code: "credential-unavailable", Retryable: true, Message: fmt.Sprintf("the credential %q can't be opened now: the gateway answers %d: %s", idOrName, status.Status, status.Detail)}, false
}

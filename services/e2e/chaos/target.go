package chaos

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Visit is one call that the outside world got.
type Visit struct {
	Attempt  int
	At       time.Time
	Answered bool
}

// Target is the outside world: an HTTP server on the loopback that remembers each call by its idempotency key.
type Target struct {
	URL    string
	hold   func(*http.Request)
	server *http.Server
	mu     sync.Mutex
	keys   map[string][]Visit
}

// NewTarget starts one. Each call is held so long before it is answered: time in which the caller may die.
func NewTarget(hold func(*http.Request)) (*Target, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the server that flows call: %w", err)
	}
	t := &Target{URL: "http://" + l.Addr().String(), hold: hold, keys: map[string][]Visit{}}
	t.server = &http.Server{Handler: t, ReadHeaderTimeout: 10 * time.Second}
	go t.server.Serve(l)
	return t, nil
}

// Close ends it, and the calls in it.
func (t *Target) Close() error { return t.server.Close() }

func (t *Target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	attempt, err := strconv.Atoi(r.Header.Get("X-Flow-Attempt"))
	if key == "" || err != nil {
		http.Error(w, "no Idempotency-Key, or no X-Flow-Attempt: not a call of a flow", http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	n := len(t.keys[key])
	t.keys[key] = append(t.keys[key], Visit{Attempt: attempt, At: time.Now()})
	t.mu.Unlock()
	t.hold(r)
	if r.Context().Err() != nil {
		return // the caller is gone
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"ok":true,"path":%q}`, r.URL.Path)
	t.mu.Lock()
	t.keys[key][n].Answered = true
	t.mu.Unlock()
}

// Visits copies what is known of a step of an execution.
func (t *Target) Visits(execution, node string) []Visit {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.keys[execution+"/"+node+"/-"])
}

// Total counts all calls.
func (t *Target) Total() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, v := range t.keys {
		n += len(v)
	}
	return n
}

// visits copies all: by execution and step.
func (t *Target) visits() map[stepKey][]Visit {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[stepKey][]Visit, len(t.keys))
	for key, v := range t.keys {
		if k, ok := parseKey(key); ok {
			out[k] = slices.Clone(v)
		}
	}
	return out
}

// rest waits, and says whether the context lasted.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

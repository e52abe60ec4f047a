package nodes

import (
	"sync"
	"time"
)

// Bounds of what the nodes keep open to the servers of users.
const (
	maxPools = 64 // servers and users at once
	poolIdle = 2 * time.Minute
)

// pools keeps a client for each server and user, and closes those that had nothing to do for a while.
type pools[P any] struct {
	close func(P)

	mu    sync.Mutex
	byKey map[string]*pooled[P]
	timer *time.Timer
}

type pooled[P any] struct {
	p     P
	users int
	since time.Time // it had no users
}

func newPools[P any](close func(P)) *pools[P] {
	return &pools[P]{close: close, byKey: map[string]*pooled[P]{}}
}

// take gives the client for a key, which create makes at once, without connecting. ok is false when too many are in use.
func (s *pools[P]) take(key string, create func() (P, error)) (p P, release func(), ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[key]
	if e == nil {
		if len(s.byKey) >= maxPools && !s.evict() {
			return p, nil, false, nil
		}
		if p, err = create(); err != nil {
			return p, nil, true, err
		}
		e = &pooled[P]{p: p}
		s.byKey[key] = e
	}
	e.users++
	return e.p, sync.OnceFunc(func() { s.release(e) }), true, nil
}

func (s *pools[P]) release(e *pooled[P]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.users--; e.users == 0 {
		e.since = time.Now()
		if s.timer == nil {
			s.timer = time.AfterFunc(poolIdle, s.sweep)
		}
	}
}

// evict closes the client that had nothing to do for the longest.
func (s *pools[P]) evict() bool {
	oldest := ""
	for k, e := range s.byKey {
		if e.users == 0 && (oldest == "" || e.since.Before(s.byKey[oldest].since)) {
			oldest = k
		}
	}
	if oldest == "" {
		return false
	}
	go s.close(s.byKey[oldest].p)
	delete(s.byKey, oldest)
	return true
}

func (s *pools[P]) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, e := range s.byKey {
		if e.users == 0 && time.Since(e.since) >= poolIdle {
			go s.close(e.p)
			delete(s.byKey, k)
		}
	}
	s.timer = nil
	if len(s.byKey) > 0 {
		s.timer = time.AfterFunc(poolIdle, s.sweep)
	}
}

package accept

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"flowplatform/services/internal/protocol"
)

// maxKeys bounds the keys that wait to be looked at; the leader looks at those that find no room.
const maxKeys = 20_000

// Admit lets executions in at keys of flow control where this gateway made room, or found it: after COMMIT, beside the path. What it can't do the leader does within seconds.
type Admit struct {
	admitter protocol.Admitter
	log      *slog.Logger
	wake     chan struct{}
	stop     context.CancelFunc
	done     chan struct{}

	mu   sync.Mutex
	keys map[string]bool
}

// NewAdmit makes one that works until Stop; tasks go the way of h.
func NewAdmit(h *HandOut, log *slog.Logger) *Admit {
	ctx, cancel := context.WithCancel(context.Background())
	a := &Admit{admitter: protocol.Admitter{Store: h.o.Queue, Publisher: tasks{h}}, log: log, wake: make(chan struct{}, 1), stop: cancel, done: make(chan struct{}), keys: map[string]bool{}}
	go a.run(ctx)
	return a
}

// Take takes keys. It never waits.
func (a *Admit) Take(keys []string) {
	if len(keys) == 0 {
		return
	}
	a.mu.Lock()
	for _, key := range keys {
		if len(a.keys) < maxKeys {
			a.keys[key] = true
		}
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Admit) run(ctx context.Context) {
	defer close(a.done)
	for {
		select {
		case <-a.wake:
		case <-ctx.Done():
			return
		}
		a.mu.Lock()
		keys := make([]string, 0, len(a.keys))
		for key := range a.keys {
			keys = append(keys, key)
		}
		clear(a.keys)
		a.mu.Unlock()
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		if _, err := a.admitter.Admit(bounded, keys); err != nil && ctx.Err() == nil {
			a.log.Warn("executions that wait for a limit could not be let in: the leader does it", "keys", len(keys), "error", err)
		}
		cancel()
	}
}

// Stop ends it; what waits is the leader's.
func (a *Admit) Stop(ctx context.Context) error {
	a.stop()
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	return nil
}

// Package admit is the leader's part of flow control: it lets executions go on whose rate or debounce is over, and looks for those that wait though there is room.
// Whoever makes room looks at once by itself; what is found here was left by a process that died in between, and is counted.
package admit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

const (
	step = time.Second
	// soon is how often holds are looked at while some are near: a rate's may be shorter than a step, and comes without a word.
	soon = 50 * time.Millisecond
	// horizon is how far holds are looked ahead.
	horizon = 2 * time.Second
	// lookKeys bounds the keys of one look, holds the holds.
	lookKeys    = 1000
	holds       = 500
	forgetEvery = time.Minute
	timeout     = 30 * time.Second
)

// Valid tells whether the term may act at this moment.
type Valid interface{ Valid() bool }

// Options of New. All are required.
type Options struct {
	Store     protocol.Store
	Publisher protocol.TaskPublisher
	// Forget deletes what flow control needs no more.
	Forget     func(ctx context.Context) error
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Admit does the work of a leader. One term at a time.
type Admit struct {
	o       Options
	a       protocol.Admitter
	metrics *metrics

	after string          // the last key that a look has come to
	seen  map[string]bool // keys that had room at the look before
}

// New returns an Admit.
func New(o Options) *Admit {
	return &Admit{o: o, a: protocol.Admitter{Store: o.Store, Publisher: o.Publisher}, metrics: newMetrics(o.Registerer), seen: map[string]bool{}}
}

// Work works until ctx ends.
func (a *Admit) Work(ctx context.Context, term Valid) {
	var loops sync.WaitGroup
	loops.Go(func() { a.every(ctx, term, "holds", a.due) })
	loops.Go(func() { a.every(ctx, term, "room", a.look) })
	loops.Go(func() {
		a.every(ctx, term, "forget", func(ctx context.Context) (time.Duration, error) { return forgetEvery, a.o.Forget(ctx) })
	})
	loops.Wait()
}

// every does a step again and again, each time after the pause that the last one asks for.
func (a *Admit) every(ctx context.Context, term Valid, name string, do func(context.Context) (time.Duration, error)) {
	failing := false
	for {
		pause := step
		if term.Valid() {
			bounded, cancel := context.WithTimeout(ctx, timeout)
			next, err := do(bounded)
			cancel()
			switch {
			case ctx.Err() != nil:
			case err != nil:
				a.metrics.failed.WithLabelValues(name).Inc()
				if !failing {
					a.o.Log.Warn("a step of flow control failed; it goes on trying", "step", name, "error", err)
				}
			case failing:
				a.o.Log.Info("a step of flow control works again", "step", name)
			}
			if failing = err != nil; !failing {
				pause = next
			}
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// due lets holds go whose time has come.
func (a *Admit) due(ctx context.Context) (time.Duration, error) {
	n, next, err := a.a.Due(ctx, horizon, holds)
	a.metrics.released.Add(float64(n))
	switch {
	case err != nil:
		return 0, err
	case n >= holds:
		return 0, nil // there may be more that is due
	case next > 0 || n > 0:
		return min(max(next, time.Millisecond), soon), nil
	}
	return step, nil
}

// look lets in whoever waits at a key that has had room for two looks.
func (a *Admit) look(ctx context.Context) (time.Duration, error) {
	keys, err := a.o.Store.Roomy(ctx, a.after, lookKeys)
	if err != nil {
		return 0, err
	}
	var old []string
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		if a.seen[key] {
			old = append(old, key)
		}
		seen[key] = true
	}
	if a.after != "" || len(keys) == lookKeys { // more keys than one look takes: those of before are forgotten only when the round is over
		for key := range a.seen {
			if len(seen) < 10*lookKeys {
				seen[key] = true
			}
		}
	}
	a.seen = seen
	if a.after = ""; len(keys) == lookKeys {
		a.after = keys[len(keys)-1]
	}
	if len(old) == 0 {
		return step, nil
	}
	n, err := a.a.Admit(ctx, old)
	if n > 0 {
		a.metrics.caught.Add(float64(n))
		a.o.Log.Info("executions waited at a limit though there was room: let in now", "executions", n)
	}
	return step, err
}

// Package lifecycle starts and stops processes well: teardowns that are registered as soon as their resource exists, signals as a context,
// and patience with what isn't there yet.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Stack is what must be undone, in the reverse of the order in which it was done. The zero value is ready. Safe for concurrent use.
type Stack struct {
	mu    sync.Mutex
	items []item
}

type item struct {
	name  string
	bound time.Duration
	close func(context.Context) error
}

// DefaultBound is how long one teardown may take.
const DefaultBound = 10 * time.Second

// Push registers a teardown the moment its resource exists. It is given at most DefaultBound.
func (s *Stack) Push(name string, close func(context.Context) error) {
	s.PushBounded(name, DefaultBound, close)
}

// PushBounded is Push with a bound of its own.
func (s *Stack) PushBounded(name string, bound time.Duration, close func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items = append(s.items, item{name, bound, close})
}

// Close undoes everything, the last first. A teardown that doesn't return within its bound is left behind. Errors carry the names and are joined.
func (s *Stack) Close(ctx context.Context) error {
	s.mu.Lock()
	items := s.items
	s.items = nil
	s.mu.Unlock()
	var errs []error
	for i := len(items) - 1; i >= 0; i-- {
		if err := items[i].run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", items[i].name, err))
		}
	}
	return errors.Join(errs...)
}

func (it item) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, it.bound)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- it.close(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select {
		case err := <-done:
			return err
		case <-time.After(100 * time.Millisecond): // it may be about to return because of ctx
			return fmt.Errorf("not done after %s, left behind", it.bound)
		}
	}
}

// SignalContext ends at SIGINT or SIGTERM. After stop a second signal ends the process at once.
func SignalContext() (ctx context.Context, stop context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

// WaitFor calls try until it succeeds or ctx ends, with a growing, jittered pause of 50 ms to 2 s. It says once for what it waits and why, and again
// when the reason changes or every 30 s; and that it is there.
func WaitFor(ctx context.Context, log *slog.Logger, what string, try func(context.Context) error) error {
	begun, said, reason := time.Now(), time.Time{}, ""
	for pause := 50 * time.Millisecond; ; pause = min(pause*2, 2*time.Second) {
		err := try(ctx)
		if err == nil {
			if reason != "" {
				log.Info(what+" is there", "waited", time.Since(begun).Round(time.Millisecond).String())
			}
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %w (last: %w)", what, ctx.Err(), err)
		}
		if err.Error() != reason && time.Since(said) > time.Second || time.Since(said) > 30*time.Second {
			log.Warn("waiting for "+what, "reason", err.Error(), "waited", time.Since(begun).Round(time.Millisecond).String())
			reason, said = err.Error(), time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
	}
}

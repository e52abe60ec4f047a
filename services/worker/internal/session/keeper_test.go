package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flowplatform/services/internal/protocol"

	"github.com/prometheus/client_golang/prometheus"
)

// script is an orchestrator that answers as a test says.
type script struct {
	mu     sync.Mutex
	open   func(protocol.OpenSessionRequest) (protocol.SessionResponse, error)
	renew  func(context.Context, protocol.RenewRequest) (protocol.SessionResponse, error)
	opens  []protocol.OpenSessionRequest
	renews int
	ended  []protocol.ID
}

func (s *script) Open(_ context.Context, req protocol.OpenSessionRequest) (protocol.SessionResponse, error) {
	s.mu.Lock()
	s.opens = append(s.opens, req)
	f := s.open
	s.mu.Unlock()
	if f != nil {
		return f(req)
	}
	return protocol.SessionResponse{Alive: true}, nil
}

func (s *script) Renew(ctx context.Context, req protocol.RenewRequest) (protocol.SessionResponse, error) {
	s.mu.Lock()
	s.renews++
	f := s.renew
	s.mu.Unlock()
	if f != nil {
		return f(ctx, req)
	}
	return protocol.SessionResponse{Alive: true}, nil
}

func (s *script) End(_ context.Context, req protocol.EndSessionsRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, req.Sessions...)
	return nil
}

func (s *script) renewals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renews
}

func (w *Window) end0() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.until
}

func (s *script) setRenew(f func(context.Context, protocol.RenewRequest) (protocol.SessionResponse, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew = f
}

// journal is a Listener that writes down.
type journal struct {
	mu    sync.Mutex
	lines []string
	begin time.Time
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lines) == 0 || j.lines[len(j.lines)-1] != s {
		j.lines = append(j.lines, s)
	}
}
func (j *journal) Session(id protocol.ID, open bool) {
	if open {
		j.add("open " + string('0'+rune(id[15])))
	} else {
		j.add("closed " + string('0'+rune(id[15])))
	}
}
func (j *journal) Died(id protocol.ID)             { j.add("died " + string('0'+rune(id[15]))) }
func (j *journal) Orders(protocol.SessionResponse) {}
func (j *journal) get() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

type bundle struct {
	k *Keeper
	s *script
	j *journal
	w *Window
}

const lease = 15 * time.Second

// setup makes a keeper whose clock is the bubble's.
func setup(t *testing.T) *bundle {
	t.Helper()
	begin := time.Now()
	file, err := Lock(t.Context(), t.TempDir(), silent(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{s: &script{}, j: &journal{begin: begin}, w: NewWindow(func() time.Duration { return time.Since(begin) })}
	var n byte
	b.k = NewKeeper(Options{
		Lease: lease, File: file, Window: b.w, Calls: b.s, Runs: func() (live, owned []int64) { return nil, nil }, Listener: b.j,
		NewID: func() protocol.ID { n++; return id(n) }, Log: silent(), Metrics: NewMetrics(prometheus.NewRegistry()),
	})
	return b
}

// run runs the keeper until the test's function returns.
func (b *bundle) run(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.k.Run(ctx) }()
	f()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWindowClosesOnTimeWhileARenewalHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.run(t, func() {
			synctest.Wait()
			ctx, open := b.w.Enter(id(1))
			if !open {
				t.Fatal("the window isn't open after the session was opened")
			}
			b.s.setRenew(func(ctx context.Context, _ protocol.RenewRequest) (protocol.SessionResponse, error) {
				<-ctx.Done() // a black hole
				return protocol.SessionResponse{}, ctx.Err()
			})
			time.Sleep(TrustFor(lease) - time.Millisecond)
			synctest.Wait()
			if _, open := b.w.Enter(id(1)); !open || ctx.Err() != nil {
				t.Error("the window closed too early")
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if _, open := b.w.Enter(id(1)); open || !errors.Is(context.Cause(ctx), ErrClosed) {
				t.Error("the window is open past its time, or its calls aren't cut")
			}
			b.s.setRenew(nil)
			time.Sleep(lease)
			synctest.Wait()
			if _, open := b.w.Enter(id(1)); !open {
				t.Error("the window stays closed although renewals succeed again")
			}
			if want := []string{"open 1", "closed 1", "open 1"}; !slices.Equal(b.j.get(), want) {
				t.Errorf("news %v, want %v", b.j.get(), want)
			}
		})
	})
}

func TestGO2_WindowCountsFromTheSending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		const slow = time.Second
		b.s.renew = func(context.Context, protocol.RenewRequest) (protocol.SessionResponse, error) {
			time.Sleep(slow)
			return protocol.SessionResponse{Alive: true}, nil
		}
		b.run(t, func() {
			time.Sleep(lease/5 + slow + time.Millisecond) // the first renewal has succeeded
			synctest.Wait()
			if got, want := b.w.end0(), lease/5+TrustFor(lease); got != want {
				t.Errorf("the window ends at %v, want %v", got, want)
			}
		})
	})
}

func TestAnotherAskDoesNotMoveTheBeginningOfASession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.s.renew = func(ctx context.Context, _ protocol.RenewRequest) (protocol.SessionResponse, error) {
			<-ctx.Done()
			return protocol.SessionResponse{}, ctx.Err()
		}
		b.s.open = func(protocol.OpenSessionRequest) (protocol.SessionResponse, error) {
			if len(b.s.opens) == 1 {
				time.Sleep(lease / 10) // committed, the answer is lost
				return protocol.SessionResponse{}, errors.New("lost")
			}
			return protocol.SessionResponse{Alive: true}, nil
		}
		b.run(t, func() {
			time.Sleep(lease / 5)
			synctest.Wait()
			if got, want := b.w.end0(), TrustFor(lease); got != want {
				t.Errorf("the window ends at %v: the beat stands since the first ask, so want %v", got, want)
			}
			if b.s.renewals() == 0 {
				t.Error("no renewal at once after a session whose first answer was lost")
			}
		})
	})
}

func TestDeathOpensAnotherSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.s.renew = func(_ context.Context, req protocol.RenewRequest) (protocol.SessionResponse, error) {
			return protocol.SessionResponse{Alive: req.Session != id(1)}, nil
		}
		b.run(t, func() {
			synctest.Wait()
			call, _ := b.w.Enter(id(1))
			b.k.Poke() // a claim was told that the session is dead
			synctest.Wait()
			if call.Err() == nil {
				t.Error("calls of the dead session aren't cut")
			}
			if _, open := b.w.Enter(id(1)); open {
				t.Error("the dead session may act")
			}
			if _, open := b.w.Enter(id(2)); !open {
				t.Error("the next session may not act")
			}
			if want := []string{"open 1", "died 1", "open 2"}; !slices.Equal(b.j.get(), want) {
				t.Errorf("news %v, want %v", b.j.get(), want)
			}
			time.Sleep(lease)
		})
		if err := b.k.End(t.Context(), "test"); err != nil {
			t.Error(err)
		}
		if want := []protocol.ID{id(2)}; !slices.Equal(b.s.ended, want) {
			t.Errorf("ended %v, want %v", b.s.ended, want)
		}
	})
}

func TestRenewalsFailOverAtOnceAndThenRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.s.renew = func(context.Context, protocol.RenewRequest) (protocol.SessionResponse, error) {
			return protocol.SessionResponse{}, errors.New("refused")
		}
		b.run(t, func() {
			time.Sleep(lease/5 + time.Nanosecond)
			synctest.Wait()
			if b.s.renewals() != 2 {
				t.Errorf("%d renewals at the first moment, want 2: the second goes to another orchestrator at once", b.s.renewals())
			}
			time.Sleep(lease)
			synctest.Wait()
			if b.s.renewals() > 50 {
				t.Errorf("%d renewals in one lease against orchestrators that refuse: that is a loop", b.s.renewals())
			}
		})
	})
}

func TestOpeningNamesThePredecessorsSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.k.File.previous = []protocol.ID{id(8), id(9)}
		b.run(t, func() { synctest.Wait() })
		if len(b.s.opens) != 1 || !slices.Equal(b.s.opens[0].Ended, []protocol.ID{id(8), id(9)}) {
			t.Errorf("asked %+v: want one ask that ends both", b.s.opens)
		}
		if len(b.k.File.Previous()) != 0 {
			t.Error("they are still named after the success")
		}
	})
}

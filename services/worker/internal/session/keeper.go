package session

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"flowplatform/services/internal/protocol"
)

// Orchestrators opens, renews and ends sessions; each call is one try, and one that failed makes the next go to another orchestrator.
type Orchestrators interface {
	Open(ctx context.Context, req protocol.OpenSessionRequest) (protocol.SessionResponse, error)
	Renew(ctx context.Context, req protocol.RenewRequest) (protocol.SessionResponse, error)
	End(ctx context.Context, req protocol.EndSessionsRequest) error
}

// Listener hears what happens to the session, from one goroutine and in order.
type Listener interface {
	// Session tells of the session that is open now and of its window, at every change and every renewal.
	Session(id protocol.ID, open bool)
	// Died tells that a session is over, before the next one is told of.
	Died(id protocol.ID)
	// Orders brings what an answer carried beyond the lease.
	Orders(answer protocol.SessionResponse)
}

// Options of a Keeper.
type Options struct {
	Lease    time.Duration               // WORKER_LEASE; an orchestrator's shorter one wins
	Opening  protocol.OpenSessionRequest // all but Session and Ended
	File     *LockFile
	Window   *Window
	Calls    Orchestrators
	Runs     func() (live, owned []int64) // numbers of all runs that live now, and of those that own their attempts
	Listener Listener
	NewID    func() protocol.ID
	Log      *slog.Logger
	Metrics  *Metrics
}

// Keeper keeps one session open at a time.
type Keeper struct {
	Options
	poke chan struct{} // renew now
	news chan struct{} // the teller has something

	mu    sync.Mutex
	queue []func()

	lease   atomic.Int64 // in force now
	renewed atomic.Int64 // clock of the last renewal that succeeded, for people
}

// NewKeeper makes a keeper; Run starts it.
func NewKeeper(o Options) *Keeper {
	k := &Keeper{Options: o, poke: make(chan struct{}, 1), news: make(chan struct{}, 1)}
	k.lease.Store(int64(o.Lease))
	return k
}

// Poke asks for a renewal at once: somebody was told that the session is dead.
func (k *Keeper) Poke() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// Lease is the lease in force.
func (k *Keeper) Lease() time.Duration { return time.Duration(k.lease.Load()) }

// Run opens a session, renews it until it is dead, and begins again, until ctx ends. The session is not ended by that: see End.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { k.watch(ctx) })
	wg.Go(func() { k.teller(ctx) })
	for ctx.Err() == nil {
		id := k.NewID()
		if err := k.File.Add(id); err != nil {
			return fmt.Errorf("session.Run: %w", err)
		}
		if k.open(ctx, id) {
			k.keep(ctx, id)
		}
		if ctx.Err() == nil {
			k.over(id)
		}
	}
	return nil
}

// over tells everybody that the session is dead. Its id leaves the file with the next session's success.
func (k *Keeper) over(id protocol.ID) {
	k.Window.end()
	k.Metrics.died.Inc()
	k.Log.Warn("the session is over: what it owned is handed out again, a new one is opened", "session", id.String())
	k.tell(func() { k.Listener.Died(id) })
}

// open asks for the session until there is an answer. It tells whether the session is alive.
func (k *Keeper) open(ctx context.Context, id protocol.ID) bool {
	req := k.Opening
	req.Session, req.Ended = id, k.File.Previous()
	// The beat of a session stands from the commit of the *first* ask on, whichever ask was answered: so the window counts from there.
	first := k.Window.clock()
	var b backoff
	for ctx.Err() == nil {
		answer, err := k.try(ctx, func(ctx context.Context) (protocol.SessionResponse, error) { return k.Calls.Open(ctx, req) })
		if err != nil {
			k.Log.Warn("no orchestrator opens a session: asking again", "error", err, "tries", b.tries+1)
			k.pause(ctx, &b)
			continue
		}
		if !answer.Alive {
			return false
		}
		if err := k.File.Only(id); err != nil {
			k.Log.Warn("ids of ended sessions stay in the lock file: harmless, they are ended again at the next start", "error", err)
		}
		k.Log.Info("session opened", "session", id.String(), "lease", k.Lease().String(), "ended", len(req.Ended))
		k.alive(id, first, answer)
		if b.tries > 0 {
			k.Poke()
		}
		return true
	}
	return false
}

// keep renews until the session is dead.
func (k *Keeper) keep(ctx context.Context, id protocol.ID) {
	timer := time.NewTimer(k.Lease() / 5)
	defer timer.Stop()
	var b backoff
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-k.poke:
		}
		live, owned := k.Runs()
		req := protocol.RenewRequest{Session: id, Runs: live, Owned: owned}
		sent := k.Window.clock()
		answer, err := k.try(ctx, func(ctx context.Context) (protocol.SessionResponse, error) { return k.Calls.Renew(ctx, req) })
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			k.Metrics.renewals.WithLabelValues("failed").Inc()
			k.Log.Warn("renewal failed: the next try goes to another orchestrator", "error", err, "tries", b.tries+1)
			k.pause(ctx, &b)
			timer.Reset(0)
		case !answer.Alive:
			k.Metrics.renewals.WithLabelValues("dead").Inc()
			return
		default:
			k.Metrics.renewals.WithLabelValues("ok").Inc()
			b = backoff{}
			k.alive(id, sent, answer)
			timer.Reset(max(0, k.Lease()/5-(k.Window.clock()-sent)))
		}
	}
}

// try makes one call with the deadline of a renewal.
func (k *Keeper) try(ctx context.Context, call func(context.Context) (protocol.SessionResponse, error)) (protocol.SessionResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, k.Lease()/10)
	defer cancel()
	start := time.Now()
	answer, err := call(ctx)
	k.Metrics.latency.Observe(time.Since(start).Seconds())
	return answer, err
}

// alive takes a successful answer to what was sent at the given time.
func (k *Keeper) alive(id protocol.ID, sent time.Duration, answer protocol.SessionResponse) {
	lease := k.Options.Lease
	if theirs := time.Duration(answer.LeaseMS) * time.Millisecond; theirs > 0 {
		lease = min(lease, theirs)
	}
	k.lease.Store(int64(lease))
	k.renewed.Store(int64(sent))
	if k.Window.extend(id, sent+TrustFor(lease)) {
		k.Metrics.opened.Inc()
	}
	k.tell(func() {
		current, open := k.Window.Current()
		if current == id {
			k.Listener.Session(id, open)
			k.Listener.Orders(answer)
		}
	})
}

// backoff counts tries that failed in a row.
type backoff struct{ tries int }

// pause waits before the next try: the second goes to another orchestrator at once, later ones wait a little, so that
// orchestrators that refuse at once aren't called in a tight loop.
func (k *Keeper) pause(ctx context.Context, b *backoff) {
	b.tries++
	if b.tries == 1 {
		return
	}
	d := min(k.Lease()/50<<min(b.tries, 5), k.Lease()/10)
	d = d/2 + rand.N(d/2+1)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// watch closes the window on time. It looks at least once a second (a tenth of the lease, if that is shorter): Go's timers stand still
// while a machine sleeps, the window's clock doesn't.
func (k *Keeper) watch(ctx context.Context) {
	for {
		closed, session, next, changed := k.Window.expire()
		if closed {
			k.Metrics.closed.Inc()
			k.Log.Warn("no renewal succeeded in time: the trust window is closed, calls are cut and runs hold", "session", session.String())
			k.tell(func() {
				if current, open := k.Window.Current(); current == session && !open {
					k.Listener.Session(session, false)
				}
			})
			continue
		}
		var look <-chan time.Time
		if next > 0 {
			look = time.After(min(next, time.Second, k.Lease()/10))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-look:
		}
	}
}

func (k *Keeper) tell(f func()) {
	k.mu.Lock()
	k.queue = append(k.queue, f)
	k.mu.Unlock()
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// teller brings news to the listener in order.
func (k *Keeper) teller(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.news:
		}
		k.mu.Lock()
		queue := k.queue
		k.queue = nil
		k.mu.Unlock()
		for _, f := range queue {
			f()
		}
	}
}

// End ends the session that is open, when nothing is left in it and Run has returned. The window is closed first.
func (k *Keeper) End(ctx context.Context, reason string) error {
	id, _ := k.Window.Current()
	k.Window.end()
	if id.IsZero() { // what the file names may be alive: the next start ends it
		return nil
	}
	var err error
	for range 3 {
		if err = k.endOnce(ctx, id, reason); err == nil {
			return k.File.Only(protocol.ID{})
		}
	}
	return fmt.Errorf("session.End: its successor or its lease will end it: %w", err)
}

func (k *Keeper) endOnce(ctx context.Context, id protocol.ID, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, k.Lease()/10)
	defer cancel()
	return k.Calls.End(ctx, protocol.EndSessionsRequest{Sessions: []protocol.ID{id}, Reason: reason})
}

package leader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus"
)

// Why a term ends.
var (
	errWindow = errors.New("no renewal of the leader's session succeeded within its trust window: Consul is away, slow, or this process was paused")
	errLost   = errors.New("the session or the lock is gone in Consul: it expired, or somebody deleted it")
	errStop   = errors.New("this process is stopping")
	errWork   = errors.New("the leader's work returned by itself")
)

const (
	// fallbackTTL is the shortest that servers accept which don't set session_ttl_min.
	fallbackTTL = 10 * time.Second
	// waitTime of blocking queries. The server adds up to a sixteenth.
	waitTime = 5 * time.Second
	// rateFloor is the least time between two blocking queries: they may return without a change.
	rateFloor = 50 * time.Millisecond
	// stopGrace bounds how long a release waits for work that doesn't stop; all such work is compare-and-set, or fenced.
	stopGrace = 500 * time.Millisecond
)

// Options of New. All are required but Token and Clock.
type Options struct {
	Address string // of Consul's HTTP API: CONSUL_HTTP_ADDR
	Token   string // ACL token with session:write and key:write on Key
	Key     string // of the lock
	// TTL of the leader's session; Consul frees the lock after two of them. Servers that don't allow one so short get 10 s.
	TTL    time.Duration
	Holder string // names this process in the lock and the term: worth showing to people
	// RaiseTerm raises the term in PostgreSQL and returns its number.
	RaiseTerm func(ctx context.Context, holder string) (int64, error)
	// Work is the leader's work: it returns soon after ctx ends, and asks term.Valid before it acts.
	Work       func(ctx context.Context, term *Term)
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Clock      func() time.Duration // nil: Boottime
	// Alone leads without Consul, for as long as the process lives: there is no other that could. The term is raised all the same.
	Alone bool
}

// Elector stands for election until it is stopped.
type Elector struct {
	o       Options
	consul  *api.Client // blocking queries, acquire, release
	renewer *api.Client // renewals, and nothing else
	metrics *metrics
	trouble atomic.Pointer[error] // of the last conversation with Consul
	leading atomic.Pointer[Term]
	away    bool // said that Consul doesn't answer; Run's alone
}

// New returns an elector. Nothing is connected before Run.
func New(o Options) (*Elector, error) {
	if o.Clock == nil {
		o.Clock = Boottime
	}
	e := &Elector{o: o, metrics: newMetrics(o.Registerer)}
	if o.Alone {
		return e, nil
	}
	var err error
	if e.consul, err = client(o); err != nil {
		return nil, fmt.Errorf("leader.New: %w", err)
	}
	if e.renewer, err = client(o); err != nil {
		return nil, fmt.Errorf("leader.New: %w", err)
	}
	notYet := errors.New("Consul was not asked yet")
	e.trouble.Store(&notYet)
	return e, nil
}

func client(o Options) (*api.Client, error) {
	cfg := api.DefaultConfig()
	if o.Address != "" {
		cfg.Address = o.Address
	}
	if o.Token != "" {
		cfg.Token = o.Token
	}
	cfg.Transport = http.DefaultTransport.(*http.Transport).Clone() // a pool of its own; contexts bound every call
	cfg.Transport.Proxy = nil
	return api.NewClient(cfg)
}

// Err is what stood in the way of the last call to Consul; nil when it went well.
func (e *Elector) Err() error {
	if p := e.trouble.Load(); p != nil {
		return *p
	}
	return nil
}

// Leading returns the term that this process leads now, or nil.
func (e *Elector) Leading() *Term { return e.leading.Load() }

// Run stands for election, works while elected, and returns when ctx has ended and the lock is released.
func (e *Elector) Run(ctx context.Context) {
	if e.o.Alone {
		e.runAlone(ctx)
		return
	}
	for ctx.Err() == nil {
		if !e.standby(ctx) {
			return
		}
		l, err := e.campaign(ctx)
		if err != nil {
			e.note(err)
			if ctx.Err() == nil {
				e.o.Log.Warn("standing for election failed", "error", err)
			}
			sleep(ctx, jitter(time.Second))
			continue
		}
		if l == nil { // another won
			sleep(ctx, jitter(rateFloor))
			continue
		}
		if raised := e.lead(ctx, l); !raised {
			sleep(ctx, jitter(time.Second)) // one that reaches PostgreSQL shall win
		}
	}
}

// standby waits until nobody holds the lock. It returns false when ctx has ended.
func (e *Elector) standby(ctx context.Context) bool {
	e.metrics.state.Set(stateStandby)
	w := watcher{e: e}
	for {
		holder, err := w.next(ctx)
		if ctx.Err() != nil {
			return false
		}
		if (err != nil) != e.away {
			if e.away = err != nil; e.away {
				e.o.Log.Warn("Consul can't be asked who leads: no new leader until it answers, all else goes on", "error", err)
			} else {
				e.o.Log.Info("Consul answers again")
			}
		}
		switch {
		case err != nil:
			sleep(ctx, jitter(time.Second))
		case holder == "":
			return true
		}
	}
}

// campaign tries to win the lock. (nil, nil): another holds it.
func (e *Elector) campaign(ctx context.Context) (*lease, error) {
	e.metrics.state.Set(stateCandidate)
	l := &lease{ttl: e.o.TTL, clock: e.o.Clock}
	short, cancel := context.WithTimeout(ctx, window(l.ttl))
	defer cancel()
	sent := l.clock()
	var err error
	l.session, err = e.createSession(short, l.ttl)
	if err != nil && strings.Contains(err.Error(), "Invalid Session TTL") && l.ttl < fallbackTTL {
		e.o.Log.Warn("Consul's servers don't allow a session as short as ours: set session_ttl_min there, a takeover takes 20 s until then", "ttl", l.ttl.String(), "error", err)
		l.ttl = fallbackTTL
		sent = l.clock()
		l.session, err = e.createSession(short, l.ttl)
	}
	if err != nil {
		return nil, fmt.Errorf("leader: create a session in Consul: %w", err)
	}
	l.renewed(sent)
	value, err := json.Marshal(map[string]any{"holder": e.o.Holder, "since": time.Now().UTC().Format(time.RFC3339Nano)})
	if err != nil {
		return nil, fmt.Errorf("leader: %w", err)
	}
	won, _, err := e.consul.KV().Acquire(&api.KVPair{Key: e.o.Key, Value: value, Session: l.session}, (&api.WriteOptions{}).WithContext(short))
	if err != nil || !won {
		e.destroy(l) // the answer may be lost and the lock ours: it goes with the session
		if err != nil {
			return nil, fmt.Errorf("leader: acquire the lock %s in Consul: %w", e.o.Key, err)
		}
		return nil, nil //nolint:nilnil // documented: another won
	}
	return l, nil
}

func (e *Elector) createSession(ctx context.Context, ttl time.Duration) (string, error) {
	id, _, err := e.consul.Session().CreateNoChecks(&api.SessionEntry{
		Name: "flow orchestrator leader", TTL: ttl.String(), Behavior: api.SessionBehaviorRelease,
		LockDelay: time.Millisecond, // the client leaves 0 out, and the server then takes 15 s
	}, (&api.WriteOptions{}).WithContext(ctx))
	return id, err
}

// lead works until the lease ends, and gives it back. It tells whether a term was raised.
func (e *Elector) lead(ctx context.Context, l *lease) (raised bool) {
	l.ctx, l.end = context.WithCancelCause(ctx)
	defer l.end(errStop)
	var helpers sync.WaitGroup
	if !e.o.Alone {
		helpers.Go(l.guard)
		helpers.Go(func() { e.renew(l) })
		helpers.Go(func() { e.watch(l) })
	}
	defer helpers.Wait()
	defer l.end(errStop)

	number, err := e.o.RaiseTerm(l.ctx, e.o.Holder)
	if err != nil {
		e.o.Log.Warn("the lock is won, but the term can't be raised in PostgreSQL: released", "error", err)
		l.end(errStop)
		e.release(l)
		return false
	}
	term := &Term{Number: number, lease: l}
	e.leading.Store(term)
	e.metrics.state.Set(stateLeading)
	e.metrics.term.Set(float64(number))
	e.metrics.elected.Inc()
	begin := time.Now()
	e.o.Log.Info("leading", "term", number, "ttl", l.ttl.String())
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		defer l.end(errWork)
		e.o.Work(l.ctx, term)
	}()

	<-l.ctx.Done()
	e.leading.Store(nil)
	cause := context.Cause(l.ctx)
	if errors.Is(cause, context.Canceled) {
		cause = errStop
	}
	select {
	case <-worked:
	case <-time.After(stopGrace):
	}
	e.release(l)
	e.metrics.state.Set(stateStandby)
	e.metrics.ended.WithLabelValues(reason(cause)).Inc()
	e.o.Log.Info("no longer leading", "term", number, "after", time.Since(begin).Round(time.Millisecond).String(), "reason", cause.Error())
	<-worked // work of two terms never meets
	return true
}

// renew renews the session, from a client of its own, until the lease ends.
func (e *Elector) renew(l *lease) {
	for pause := l.ttl / 5; ; {
		if !sleep(l.ctx, pause) {
			return
		}
		ctx, cancel := context.WithTimeout(l.ctx, l.ttl/3)
		sent := l.clock()
		entry, _, err := e.renewer.Session().Renew(l.session, (&api.WriteOptions{}).WithContext(ctx))
		cancel()
		switch {
		case l.ctx.Err() != nil:
			return
		case err != nil: // servers that elect their leader answer 500: again, until the window closes
			e.note(err)
			e.metrics.renewFailed.Inc()
			pause = l.ttl / 20
		case entry == nil:
			l.end(errLost)
			return
		default:
			e.note(nil)
			l.renewed(sent)
			pause = l.ttl / 5
		}
	}
}

// watch ends the lease when the key shows another session, or none.
func (e *Elector) watch(l *lease) {
	w := watcher{e: e}
	for {
		holder, err := w.next(l.ctx)
		switch {
		case l.ctx.Err() != nil:
			return
		case err != nil: // the window decides
			sleep(l.ctx, jitter(l.ttl/4))
		case holder != l.session:
			l.end(errLost)
			return
		}
	}
}

// release frees the lock at once, for the next leader.
func (e *Elector) release(l *lease) {
	if e.o.Alone {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	_, _, err := e.consul.KV().Release(&api.KVPair{Key: e.o.Key, Session: l.session}, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		e.o.Log.Debug("the lock could not be released: it ends with its session", "error", err)
	}
	e.destroy(l)
}

func (e *Elector) destroy(l *lease) {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if _, err := e.consul.Session().Destroy(l.session, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		e.o.Log.Debug("the session could not be destroyed: it ends by its TTL", "error", err)
	}
}

func (e *Elector) note(err error) {
	e.trouble.Store(&err)
	if err == nil {
		e.metrics.consul.Set(1)
	} else {
		e.metrics.consul.Set(0)
	}
}

// watcher asks who holds the lock, each time as soon as that may have changed.
type watcher struct {
	e     *Elector
	index uint64
	asked time.Time
}

// next returns the session that holds the lock, "" when none does.
func (w *watcher) next(ctx context.Context) (string, error) {
	if !sleep(ctx, rateFloor-time.Since(w.asked)) {
		return "", ctx.Err()
	}
	w.asked = time.Now()
	bounded, cancel := context.WithTimeout(ctx, waitTime+waitTime/8)
	defer cancel()
	q := &api.QueryOptions{WaitIndex: w.index, WaitTime: waitTime}
	pair, meta, err := w.e.consul.KV().Get(w.e.o.Key, q.WithContext(bounded))
	if err != nil {
		w.index = 0
		if ctx.Err() == nil {
			w.e.note(err)
		}
		return "", fmt.Errorf("leader: read %s in Consul: %w", w.e.o.Key, err)
	}
	w.e.note(nil)
	if meta.LastIndex < w.index { // a restored snapshot, a new data directory: begin anew, or the watch is deaf
		w.index = 0
	} else {
		w.index = meta.LastIndex
	}
	if pair == nil {
		return "", nil
	}
	return pair.Session, nil
}

func reason(cause error) string {
	switch {
	case errors.Is(cause, errWindow):
		return "window"
	case errors.Is(cause, errLost):
		return "lost"
	case errors.Is(cause, errWork):
		return "work"
	}
	return "stop"
}

// sleep waits, and tells whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// jitter is between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

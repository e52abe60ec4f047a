package leader

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/testkit"
)

// terms is PostgreSQL's part: a number that only grows.
type terms struct{ n atomic.Int64 }

func (t *terms) raise(context.Context, string) (int64, error) { return t.n.Add(1), nil }

// candidate is one orchestrator.
type candidate struct {
	*Elector
	began chan *Term // each term, when its work begins
	ended chan *Term // and ends
	stop  context.CancelFunc
	done  chan struct{}
}

func stand(t *testing.T, name, address string, ts *terms, change ...func(*Options)) *candidate {
	t.Helper()
	c := &candidate{began: make(chan *Term, 64), ended: make(chan *Term, 64), done: make(chan struct{})}
	o := Options{
		Address: address, Key: "flow/test/" + t.Name(), TTL: time.Second, Holder: name, RaiseTerm: ts.raise,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("who", name), Registerer: prometheus.NewRegistry(),
		Work: func(ctx context.Context, term *Term) {
			c.began <- term
			<-ctx.Done()
			c.ended <- term
		},
	}
	for _, ch := range change {
		ch(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.Elector = e
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	go func() { defer close(c.done); e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-c.done })
	return c
}

func receive[T any](t *testing.T, ch <-chan T, within time.Duration, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(within):
		t.Fatalf("not within %v: %s", within, what)
		panic("unreachable")
	}
}

// gate is an HTTP proxy before Consul that can be shut, as a network is cut.
type gate struct {
	*httptest.Server
	shut atomic.Bool
	mu   sync.Mutex
	held []context.CancelFunc
}

func newGate(t *testing.T, consul string) *gate {
	target, err := url.Parse("http://" + consul)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		g.mu.Lock()
		g.held = append(g.held, cancel)
		g.mu.Unlock()
		if g.shut.Load() {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r.WithContext(ctx))
	}))
	t.Cleanup(g.Close)
	return g
}

// close cuts what is under way and lets nothing pass any more.
func (g *gate) close() {
	g.shut.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, cancel := range g.held {
		cancel()
	}
	g.held = nil
}

func (g *gate) open() { g.shut.Store(false) }

// One agent serves them all; each has a lock of its own.
func TestElection(t *testing.T) {
	t.Parallel()
	consul := testkit.Consul(t)
	for name, test := range map[string]func(*testing.T, string){
		"oneLeadsAndAStopHandsOverAtOnce":           oneLeadsAndAStopHandsOverAtOnce,
		"aCutLeaderStopsBeforeAnotherLeads":         aCutLeaderStopsBeforeAnotherLeads,
		"aDeletedLockEndsTheTermAndTheNextIsHigher": aDeletedLockEndsTheTermAndTheNextIsHigher,
		"aDestroyedSessionEndsTheTerm":              aDestroyedSessionEndsTheTerm,
		"withoutATermNobodyLeads":                   withoutATermNobodyLeads,
		"serversThatRefuseAShortSession":            serversThatRefuseAShortSession,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, consul.Address())
		})
	}
}

func oneLeadsAndAStopHandsOverAtOnce(t *testing.T, consul string) {
	ts := &terms{}
	a := stand(t, "a", consul, ts)
	first := receive(t, a.began, 10*time.Second, "a leads")
	b := stand(t, "b", consul, ts)
	if first.Number != 1 || !first.Valid() || a.Leading() != first || a.Err() != nil {
		t.Fatalf("term %d, valid %v, %v", first.Number, first.Valid(), a.Err())
	}
	testkit.Eventually(t, 5*time.Second, "b waits in a blocking query", b.Err)
	begin := time.Now()
	a.stop()
	second := receive(t, b.began, 2*time.Second, "b leads")
	t.Logf("handed over in %v", time.Since(begin))
	if took := time.Since(begin); took > time.Second {
		t.Errorf("a hand-over took %v, want less than a second", took)
	}
	if second.Number != 2 || first.Valid() {
		t.Errorf("term %d after a stop, the old one valid: %v", second.Number, first.Valid())
	}
	if len(a.ended) != 1 {
		t.Error("b leads and a's work has not ended")
	}
}

func aCutLeaderStopsBeforeAnotherLeads(t *testing.T, consul string) {
	ts := &terms{}
	g := newGate(t, consul)
	a := stand(t, "a", g.Listener.Addr().String(), ts)
	first := receive(t, a.began, 10*time.Second, "a leads")
	b := stand(t, "b", consul, ts)
	begin := time.Now()
	g.close()
	receive(t, a.ended, 2*time.Second, "a's work ends when its window closes")
	stopped := time.Since(begin)
	if len(b.began) != 0 || first.Valid() {
		t.Fatal("another leads while the old one could still act")
	}
	second := receive(t, b.began, 3*time.Second, "b leads")
	t.Logf("a stopped after %v, b led after %v", stopped, time.Since(begin))
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("a takeover took %v, want less than 3 s", took)
	}
	if second.Number <= first.Number {
		t.Errorf("term %d after %d", second.Number, first.Number)
	}
	if a.Err() == nil {
		t.Error("a doesn't say that Consul is away")
	}
	g.open()
	b.stop()
	third := receive(t, a.began, 15*time.Second, "a leads again")
	if third.Number != 3 {
		t.Errorf("term %d, want 3", third.Number)
	}
}

// CO-1: the key's own counter begins anew; the term doesn't.
func aDeletedLockEndsTheTermAndTheNextIsHigher(t *testing.T, consul string) {
	ts := &terms{}
	a := stand(t, "a", consul, ts)
	b := stand(t, "b", consul, ts)
	kv := consulClient(t, consul).KV()
	last := int64(0)
	for range 5 {
		var term *Term
		var who *candidate
		select {
		case term = <-a.began:
			who = a
		case term = <-b.began:
			who = b
		case <-time.After(5 * time.Second):
			t.Fatal("nobody leads")
		}
		if term.Number <= last {
			t.Fatalf("term %d after %d", term.Number, last)
		}
		last = term.Number
		if _, err := kv.Delete("flow/test/"+t.Name(), nil); err != nil {
			t.Fatal(err)
		}
		receive(t, who.ended, 2*time.Second, "the leader sees that its lock is gone")
		if term.Valid() {
			t.Fatal("a term is valid whose lock is gone")
		}
	}
}

// CO-2: a flap costs less than three seconds.
func aDestroyedSessionEndsTheTerm(t *testing.T, consul string) {
	ts := &terms{}
	a := stand(t, "a", consul, ts)
	term := receive(t, a.began, 10*time.Second, "a leads")
	if _, err := consulClient(t, consul).Session().Destroy(term.lease.session, nil); err != nil {
		t.Fatal(err)
	}
	receive(t, a.ended, 2*time.Second, "the work ends")
	next := receive(t, a.began, 3*time.Second, "a leads again")
	if next.Number != 2 {
		t.Errorf("term %d, want 2", next.Number)
	}
}

func withoutATermNobodyLeads(t *testing.T, consul string) {
	ts := &terms{}
	asked := make(chan struct{}, 64)
	a := stand(t, "a", consul, ts, func(o *Options) {
		o.RaiseTerm = func(context.Context, string) (int64, error) {
			asked <- struct{}{}
			return 0, context.DeadlineExceeded
		}
	})
	receive(t, asked, 10*time.Second, "a wins the lock")
	b := stand(t, "b", consul, ts)
	receive(t, b.began, 10*time.Second, "b, which reaches PostgreSQL, leads")
	if len(a.began) != 0 || a.Leading() != nil {
		t.Error("a leads without a term")
	}
}

// A process that was paused sees its clock before its timers fire.
func TestValidReadsTheClockItself(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	l := &lease{ttl: time.Second, clock: func() time.Duration { return time.Duration(now.Load()) }}
	l.ctx, l.end = context.WithCancelCause(t.Context())
	l.renewed(l.clock())
	term := &Term{lease: l}
	now.Store(int64(window(time.Second)) - 1)
	if !term.Valid() {
		t.Error("not valid within its window")
	}
	now.Store(int64(window(time.Second)))
	if term.Valid() {
		t.Error("valid at the end of its window")
	}
}

func serversThatRefuseAShortSession(t *testing.T, consul string) {
	ts := &terms{}
	a := stand(t, "a", consul, ts, func(o *Options) { o.TTL = 200 * time.Millisecond })
	term := receive(t, a.began, 10*time.Second, "a leads with a longer session")
	if term.lease.ttl != fallbackTTL {
		t.Errorf("ttl %v", term.lease.ttl)
	}
}

func consulClient(t *testing.T, address string) *api.Client {
	t.Helper()
	c, err := api.NewClient(&api.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

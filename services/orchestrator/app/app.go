// Package app is an orchestrator as a value: New, Start, Addr, Stop, Run. Tests start it in process.
//
// Everything starts without its dependencies and becomes ready by itself: the HTTP server first (alive, not ready), then, as soon as
// the database has this build's schema, what works on it. Consul and Redis are not waited for: without Consul nobody leads, without Redis there
// are no live events, and all else goes on.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/nodes"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/telemetry"
	"flowplatform/services/orchestrator/internal/api"
	"flowplatform/services/orchestrator/internal/calls"
	"flowplatform/services/orchestrator/internal/claims"
	"flowplatform/services/orchestrator/internal/collect"
	"flowplatform/services/orchestrator/internal/followup"
	"flowplatform/services/orchestrator/internal/leader"
	"flowplatform/services/orchestrator/internal/queues"
	"flowplatform/services/orchestrator/internal/rescue"
	"flowplatform/services/orchestrator/internal/sessions"
)

// shardsEvery is how often the number of report queues is read again: it may grow while we run.
const shardsEvery = 5 * time.Second

// App is one orchestrator.
type App struct {
	o        Options
	log      *slog.Logger
	registry *prometheus.Registry
	health   *telemetry.Health
	stack    lifecycle.Stack
	worked   lifecycle.Stack // of what work has begun; it ends before the rest
	id       string

	db       *store.DB
	broker   *links
	events   *events
	sessions *sessions.Service
	claims   *claims.Service
	calls    *calls.Calls
	follow   *followup.Followup
	collect  *collect.Collectors
	sender   *rescue.Sender
	elector  *leader.Elector

	shards   atomic.Int64
	working  atomic.Bool // the schema was there, and everything was started
	stopping atomic.Bool
	listener net.Listener
	metrics  *telemetry.MetricsServer
	begun    sync.WaitGroup
}

// New builds an orchestrator. Nothing is connected and nobody is listened to before Start.
func New(o Options, log *slog.Logger) (*App, error) {
	if problems := o.Values.Check(); len(problems) > 0 {
		return nil, fmt.Errorf("orchestrator: %w", problems[0])
	}
	a := &App{o: o, log: log, registry: telemetry.Registry(), health: telemetry.NewHealth()}
	a.id = o.InstanceID
	if a.id == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "localhost"
		}
		a.id = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	a.log = log.With("instance", a.id)
	if err := a.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("orchestrator: %w", err), a.stack.Close(context.Background()))
	}
	return a, nil
}

func (a *App) component(name string) *slog.Logger { return a.log.With("component", name) }

// build makes the parts. Teardowns are registered as they come, so that the last that begins is the first that stops.
func (a *App) build() error {
	ctx := context.Background()
	db, err := store.Open(ctx, store.Options{
		URL: a.o.DatabaseURL, PoolSize: a.o.DatabasePoolSize, Application: "orchestrator " + a.id, Log: a.component("store"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.db = db
	a.stack.Push("database", func(context.Context) error { db.Close(); return nil })
	if a.events, err = newEvents(a.o, a.component("live")); err != nil {
		return err
	}
	a.stack.Push("live events", a.events.close)
	a.sender = &rescue.Sender{Shards: a.shardCount, Publish: func(ctx context.Context, shard int, body []byte) error {
		return a.broker.publisher.Report(ctx, shard, body)
	}, Log: a.component("rescue")}
	a.sessions = sessions.New(sessions.Options{
		Store: db, Lease: a.o.WorkerLease, Shards: a.shardCount, Recover: a.sender.Soon, Log: a.component("sessions"), Registerer: a.registry,
	})
	a.claims = claims.New(claims.Options{Store: db, Log: a.component("claims"), Registerer: a.registry})
	catalogue, err := nodes.Catalogue(nodes.Options{})
	if err != nil {
		return err
	}
	a.calls = calls.New(calls.Options{
		Definitions: definitions.New(db, catalogue, expr.New(), time.Now), Place: db.Call, Shards: a.shardCount, Now: time.Now,
		Follow: func(out protocol.Outcome) { a.follow.Take(out) },
	})
	a.health.Register("work", true, func(context.Context) error {
		switch {
		case a.stopping.Load():
			return errors.New("stopping")
		case !a.working.Load():
			return errors.New("starting: waits for the database to have this build's schema; is the job migrate done?")
		}
		return nil
	})
	a.health.Register("database", true, db.Ping)
	a.health.Register("redis", false, a.events.ping)
	return nil
}

func (a *App) shardCount() int { return int(a.shards.Load()) }

// Start listens, and starts to work as soon as the database is there. It returns when the listeners are open.
func (a *App) Start(ctx context.Context) error {
	if err := a.start(ctx); err != nil {
		return errors.Join(fmt.Errorf("orchestrator: %w", err), a.Stop(context.WithoutCancel(ctx)))
	}
	return nil
}

func (a *App) start(ctx context.Context) error {
	if a.o.MetricsEnabled {
		m, err := telemetry.ServeMetrics(address(a.o.BindAddress, a.o.MetricsPort), a.registry, a.health, a.component("metrics"))
		if err != nil {
			return err
		}
		a.metrics = m
		a.stack.PushBounded("metrics", 2*time.Second, m.Shutdown)
	}
	mux := http.NewServeMux()
	a.probes(mux)
	mux.Handle("/internal/v1/", api.New(api.Options{
		Token: a.o.InternalToken, Open: a.open, Renew: a.sessions.Renew, End: a.sessions.End, Claims: a.claims.Grant, Call: a.call, Values: a.db, Log: a.component("api"),
	}))
	lis, err := a.serve("API", address(a.o.BindAddress, a.o.Port), "PORT", mux)
	if err != nil {
		return err
	}
	a.listener = lis
	if a.o.HealthCheckPort != 0 {
		probes := http.NewServeMux()
		a.probes(probes)
		if _, err := a.serve("health", address(a.o.BindAddress, a.o.HealthCheckPort), "HEALTH_CHECK_PORT", probes); err != nil {
			return err
		}
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.begun.Go(func() {
		if err := a.work(working); err != nil && working.Err() == nil {
			a.log.Error("the orchestrator can't begin to work", "error", err)
		}
	})
	a.stack.PushBounded("work", 12*time.Second, func(ctx context.Context) error {
		stop()
		a.begun.Wait()
		return a.worked.Close(ctx)
	})
	a.log.Info("listening", "api", lis.Addr().String())
	return nil
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func (a *App) probes(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", a.health.Healthz)
	mux.HandleFunc("GET /readyz", a.health.Readyz)
}

// serve opens a listener and registers its end.
func (a *App) serve(name, address, variable string, h http.Handler) (net.Listener, error) {
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%s moves it)", name, err, variable)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(a.component("http").Handler(), slog.LevelDebug)}
	served := lifecycle.Serve(srv, lis, func(err error) { a.log.Error("a server ended", "server", name, "error", err) })
	a.stack.PushBounded(name+" server", 2*time.Second, served.Shutdown)
	return lis, nil
}

// Addr is where the API listens.
func (a *App) Addr() string { return a.listener.Addr().String() }

// MetricsAddr is where /metrics is, "" when it is off.
func (a *App) MetricsAddr() string {
	if a.metrics == nil {
		return ""
	}
	return a.metrics.Addr()
}

// Term is the number of the term that this orchestrator leads now, 0 when it doesn't lead.
func (a *App) Term() int64 {
	if a.elector == nil || !a.working.Load() {
		return 0
	}
	if t := a.elector.Leading(); t != nil {
		return t.Number
	}
	return 0
}

// Stop hands the leadership over, lets what is under way end, and closes everything.
func (a *App) Stop(ctx context.Context) error {
	a.stopping.Store(true)
	return a.stack.Close(ctx)
}

// Run starts an orchestrator and stops it when ctx ends.
func Run(ctx context.Context, o Options, log *slog.Logger) error {
	a, err := New(o, log)
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	a.log.Info("stopping")
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	return a.Stop(stop)
}

// pool of a session, for which there must be queues.
func pool(name string) string { return cmp.Or(name, queues.DefaultPool) }

// Package app is a gateway as a value: New, Start, Addr, Stop, Run. Tests start it in process.
//
// It listens at once, alive but not ready, and becomes ready by itself when the primary answers and has this build's schema. RabbitMQ, Redis and the
// replica are not waited for: without them it accepts all the same (degraded), and what it could not hand out is handed out later.
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

	"flowplatform/services/gateway/internal/accept"
	"flowplatform/services/gateway/internal/api"
	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/poll"
	"flowplatform/services/gateway/internal/reply"
	"flowplatform/services/gateway/internal/vault"
	"flowplatform/services/gateway/internal/wait"
	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/nodes"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/telemetry"
)

// Times of the HTTP server. Idle connections live longer than NGINX keeps them: it must be the one that closes.
const (
	idleTimeout  = 120 * time.Second
	readTimeout  = 30 * time.Second
	writeTimeout = wait.Max + 30*time.Second
	shardsEvery  = 5 * time.Second
)

// App is one gateway.
type App struct {
	o        Options
	log      *slog.Logger
	registry *prometheus.Registry
	health   *telemetry.Health
	stack    lifecycle.Stack

	db        *store.DB
	live      *live.Client // nil: no Redis
	publisher *broker.Publisher
	handOut   *accept.HandOut
	batcher   *accept.Batcher
	wakes     *wakes
	limited   *accept.Batcher // of executions with limits
	admit     *accept.Admit
	waits     *wait.Registry
	polls     *poll.Registry
	replies   *reply.Registry
	follow    *follow
	api       *api.API

	shards   atomic.Int64
	stopping atomic.Bool
	listener net.Listener
	metrics  *telemetry.MetricsServer
	begun    sync.WaitGroup
}

// New builds a gateway. Nothing is listened to before Start; connections are made in the background.
func New(o Options, log *slog.Logger) (*App, error) {
	a := &App{o: o, log: log, registry: telemetry.Registry(), health: telemetry.NewHealth()}
	if err := a.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("gateway: %w", err), a.stack.Close(context.Background()))
	}
	return a, nil
}

func (a *App) component(name string) *slog.Logger { return a.log.With("component", name) }

// build makes the parts. Teardowns are registered as they come, so that the last that begins is the first that stops.
func (a *App) build() error {
	proxies, err := a.o.proxies()
	if err != nil {
		return err
	}
	origins, err := a.o.origins()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	name := fmt.Sprintf("gateway %s %d", host, os.Getpid())
	if err := a.buildClients(name); err != nil {
		return err
	}
	catalogue, err := nodes.Catalogue(nodes.Options{})
	if err != nil {
		return err
	}
	sealer, err := vault.New(a.o.CredentialsKey)
	if err != nil {
		return err
	}
	if sealer.Current() == "" {
		a.log.Warn("CREDENTIALS_KEY is not set: credentials can neither be stored nor opened")
	}
	counted := accept.NewMetrics(a.registry)
	a.handOut = accept.NewHandOut(accept.HandOutOptions{Queue: a.db, Messages: a.publisher, Limit: a.o.UnhandedLimit, Log: a.component("handout"), Metrics: counted})
	a.stack.PushBounded("hand-out", 5*time.Second, a.handOut.Stop)
	a.batcher = accept.NewBatcher(accept.Options{Rows: a.db, Committed: a.handOut.Take, Log: a.component("accept"), Metrics: counted})
	a.stack.PushBounded("commits", 15*time.Second, a.batcher.Stop)
	// Executions with limits are committed beside the others: their transactions wait for the locks of keys.
	a.limited = accept.NewBatcher(accept.Options{Rows: a.db, Committed: a.handOut.Take, Log: a.component("accept"), Metrics: counted, MaxRows: 250})
	a.stack.PushBounded("limited commits", 15*time.Second, a.limited.Stop)
	a.admit = accept.NewAdmit(a.handOut, a.component("limits"))
	a.stack.PushBounded("limits", time.Second, a.admit.Stop)
	a.waits = wait.NewRegistry(a.db.FinalOf, a.component("wait"))
	a.stack.Push("waits", a.waits.Stop)
	a.replies = reply.NewRegistry(a.db.ReportsSince, a.component("reply"))
	a.stack.Push("replies", a.replies.Stop)
	a.polls = poll.NewRegistry()
	seen := newSeen(a.live)
	a.stack.Push("last polls", seen.stop)
	a.follow = newFollow(a.live, a.publisher, a.component("follow"))
	a.stack.PushBounded("news", time.Second, a.follow.stop)
	a.wakes = newWakes(a.db, a.handOut.Again, a.admit.Take, a.follow, a.component("follow"))
	a.stack.PushBounded("wakes", 3*time.Second, a.wakes.stop)
	a.db.AfterInsert(a.wakes.take)
	a.gauges()
	limiter := live.NewLimiter(a.live)
	a.api = api.New(api.Options{
		DB: a.db, Accounts: auth.NewAccounts(a.db, a.o.JWTSecret, time.Now), Definitions: definitions.New(a.db, catalogue, expr.New(), time.Now), Waits: a.waits, Replies: a.replies,
		Vault: sealer, Dial: nodes.HTTPOptions{DenyPrivate: a.o.DenyPrivate, DenyLoopback: a.o.DenyLoopback}.DialContext,
		Submit: a.submit, Full: a.handOut.Full, HandOut: a.handOut.Take, Shards: func() int { return int(a.shards.Load()) }, Limit: limiter.Allow, RateLimit: a.o.APIRateLimit, Origins: origins, Catalogue: catalogue,
		Follow: a.wakes.take, InternalToken: a.o.InternalToken, CredentialsToken: cmp.Or(a.o.CredentialsToken, a.o.InternalToken), Healthz: a.health.Healthz, Readyz: a.health.Readyz, TrustedProxies: proxies,
		Tell: a.follow.tell, Fleet: a.fleet(), Polls: a.polls, Polled: seen.note, LastPolls: seen.last,
		Log: a.component("api"), Registerer: a.registry, Now: time.Now,
	})
	return nil
}

// buildClients makes the connections to the others, and registers what depends on them.
func (a *App) buildClients(name string) error {
	db, err := store.Open(context.Background(), store.Options{
		URL: a.o.DatabaseURL, ReplicaURL: a.o.DatabaseReplicaURL, PoolSize: a.o.DatabasePoolSize, Application: name, Log: a.component("store"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.db = db
	a.stack.Push("database", func(context.Context) error { db.Close(); return nil })
	if a.o.RedisURL != "" {
		if a.live, err = live.Open(live.Options{URL: a.o.RedisURL, Cluster: a.o.RedisClusterEnabled, Log: a.component("live")}); err != nil {
			return err
		}
		a.stack.Push("redis", func(context.Context) error { return a.live.Close() })
		a.health.Register("redis", false, a.live.Ping)
	}
	// Only orchestrators declare: no topology.
	a.publisher = broker.NewPublisher(broker.Options{URL: a.o.RabbitMQURL, Server: a.o.Broker, Exchange: a.o.RabbitMQExchange, Name: name, Log: a.component("broker")})
	a.stack.PushBounded("broker", 3*time.Second, a.publisher.Close)
	a.health.Register("database", true, db.Ping)
	a.health.Register("work", true, func(context.Context) error {
		switch {
		case a.stopping.Load():
			return errors.New("stopping")
		case a.shards.Load() == 0:
			return errors.New("starting: waits for the database to have this build's schema; is the job migrate done?")
		}
		return nil
	})
	a.health.Register("rabbitmq", false, func(context.Context) error { return a.publisher.Ready() })
	if a.o.DatabaseReplicaURL != "" {
		a.health.Register("replica", false, db.PingReplica)
	}
	return nil
}

// submit commits executions of one flow's version: all of them have limits, or none.
func (a *App) submit(rows []store.NewExecution) ([]store.Inserted, error) {
	if len(rows) > 0 && len(rows[0].Limits) > 0 {
		return a.limited.Submit(rows)
	}
	return a.batcher.Submit(rows)
}

func (a *App) gauges() {
	gauge := func(name, help string, value func() float64) {
		a.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("flow_gateway_commit_waiting", "Executions that wait for their commit to begin.", func() float64 { return float64(a.batcher.Waiting() + a.limited.Waiting()) })
	gauge("flow_gateway_unhanded", "Accepted executions that the broker doesn't have, as last counted; counted while it has trouble.", func() float64 { return float64(a.handOut.Unhanded()) })
	gauge("flow_gateway_waiting_answers", "Webhook calls that wait for their flow's answer.", func() float64 { return float64(a.replies.Len()) })
	gauge("flow_gateway_waiting_requests", "Executions that requests wait for (?wait).", func() float64 { return float64(a.waits.Len()) })
}

// Start listens, and becomes ready when the database is. It returns when the listeners are open.
func (a *App) Start(ctx context.Context) error {
	if err := a.start(ctx); err != nil {
		return errors.Join(fmt.Errorf("gateway: %w", err), a.Stop(context.WithoutCancel(ctx)))
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
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stack.PushBounded("start", 5*time.Second, func(context.Context) error { stop(); a.begun.Wait(); return nil })
	a.begun.Go(func() { a.prepare(working) })
	if a.live != nil {
		a.begun.Go(func() { a.tail(working) })
	}
	lis, err := net.Listen("tcp", address(a.o.BindAddress, a.o.Port))
	if err != nil {
		return fmt.Errorf("API: %w (PORT moves it)", err)
	}
	a.listener = lis
	srv := &http.Server{
		Handler: a.api.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(a.component("http").Handler(), slog.LevelDebug),
	}
	served := lifecycle.Serve(srv, lis, func(err error) { a.log.Error("the API server ended", "error", err) })
	// Requests that wait are let finish: the job gives a gateway 75 seconds to end.
	a.stack.PushBounded("API server", wait.Max+5*time.Second, served.Shutdown)
	a.stack.Push("polls", func(context.Context) error { a.polls.Stop(); return nil }) // first: requests that poll would keep the server
	a.log.Info("listening", "api", lis.Addr().String())
	return nil
}

// prepare waits for the schema and follows the number of report queues.
func (a *App) prepare(ctx context.Context) {
	if err := lifecycle.WaitFor(ctx, a.log, "the database, with this build's schema", a.db.SchemaReady); err != nil {
		return
	}
	if err := lifecycle.WaitFor(ctx, a.log, "the number of report queues", a.readShards); err != nil {
		return
	}
	a.log.Info("ready", "shards", a.shards.Load())
	tick := time.NewTicker(shardsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = a.readShards(ctx) // the number that we have is good until then
		}
	}
}

func (a *App) readShards(ctx context.Context) error {
	n, err := a.db.ReportShards(ctx)
	if err != nil {
		return err
	}
	if n < 1 {
		return fmt.Errorf("the database says %d report queues: at least 1 is needed", n)
	}
	a.shards.Store(int64(n))
	return nil
}

// tail wakes those who wait by the live events.
func (a *App) tail(ctx context.Context) {
	// Whoever waits is registered before the commit that its event comes of.
	wanted := func() bool { return a.waits.Len() > 0 || a.replies.Len() > 0 || a.polls.Len() > 0 }
	a.live.Tail(ctx, wanted, func(events []live.Event) {
		a.waits.Live(true)
		a.replies.Live(true)
		a.polls.Live(true)
		for i := range events {
			if events[i].Kind == live.KindRemote {
				a.polls.Wake(events[i].Queue)
				continue
			}
			if a.replies.Len() > 0 {
				if id, err := protocol.ParseID(events[i].Execution); err == nil {
					a.replies.Changed(id)
				}
			}
			if id, ok := ended(&events[i]); ok {
				a.waits.Ended(id)
			}
		}
	}, func() {
		a.waits.Live(false)
		a.replies.Live(false)
		a.polls.Live(false)
	})
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// Addr is where the API listens.
func (a *App) Addr() string { return a.listener.Addr().String() }

// MetricsAddr is where /metrics is, "" when it is off.
func (a *App) MetricsAddr() string {
	if a.metrics == nil {
		return ""
	}
	return a.metrics.Addr()
}

// Stop takes no more, finishes what is asked, hands out what is committed, and closes everything.
func (a *App) Stop(ctx context.Context) error {
	a.stopping.Store(true)
	return a.stack.Close(ctx)
}

// Run starts a gateway and stops it when ctx ends.
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
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait.Max+13*time.Second)
	defer cancel()
	return a.Stop(stop)
}

// Package app is a worker as a value: New, Start, Addr, Stop, Run. Tests start it in process.
//
//	SIGTERM ─► no more tasks, what was not begun goes back ─► executions may end (STOP_GRACE) ─► handed back at their next step
//	        ─► steps in flight may end (STOP_PATIENCE) ─► cut ─► session ended ─► connections closed ─► lock released
//
// A second SIGTERM ends the patience: steps are cut at once, and still handed back in order. A broker that takes nothing for brokerPatience ends it
// too: what can't be reported is left to recovery.
//
// Everything starts without its dependencies and becomes ready by itself. What can't mend itself (a state directory that can't be written) ends the process.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/expr"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/nodes"
	"flowplatform/services/internal/nodes/script"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/telemetry"
	"flowplatform/services/worker/internal/credentials"
	"flowplatform/services/worker/internal/link"
	"flowplatform/services/worker/internal/runner"
	"flowplatform/services/worker/internal/session"
	"flowplatform/services/worker/internal/upstream"
)

// maxPrograms is how many compiled versions of flows are kept.
const maxPrograms = 2000

// App is one worker.
type App struct {
	o        Options
	log      *slog.Logger
	registry *prometheus.Registry
	health   *telemetry.Health
	stack    lifecycle.Stack

	db        *store.DB
	catalogue *node.Catalogue
	language  *expr.Language
	directory *upstream.Directory // of the orchestrators
	gateways  *upstream.Directory
	window    *session.Window
	publisher *broker.Publisher
	outbox    *link.Outbox
	runner    *runner.Runner
	listener  net.Listener
	background

	mu     sync.Mutex
	keeper *session.Keeper
	feed   *link.Feed
	file   *session.LockFile
	term   int64  // of the last leader that was heard; only obey has it
	cause  string // why it isn't working yet, or any more
	fatal  error  // why it ends by itself

	order chan struct{} // closed when it shall end by itself
	once  sync.Once
	hurry chan struct{} // closed when patience with executions is over
	haste sync.Once
}

// background is what runs until Stop.
type background struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New builds a worker. Nobody is listened to before Start.
func New(o Options, log *slog.Logger) (*App, error) {
	o.defaults()
	a := &App{o: o, log: log.With("worker", o.WorkerID), registry: telemetry.Registry(), health: telemetry.NewHealth(), language: expr.New(), window: session.NewWindow(session.Boottime), cause: "starting",
		order: make(chan struct{}), hurry: make(chan struct{})}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	if err := a.build(); err != nil {
		a.cancel()
		return nil, errors.Join(fmt.Errorf("worker: %w", err), a.stack.Close(context.Background()))
	}
	return a, nil
}

func (a *App) component(name string) *slog.Logger { return a.log.With("component", name) }

func (a *App) build() error {
	a.limits()
	var err error
	if a.directory, err = upstream.NewDirectory("ORCHESTRATOR_URL", "orchestrator", a.o.OrchestratorURL, a.o.ConsulAddress, a.o.ConsulToken, a.component("upstream")); err != nil {
		return err
	}
	if a.catalogue, err = nodes.Catalogue(nodes.Options{
		HTTP: nodes.HTTPOptions{DenyPrivate: a.o.DenyPrivate, DenyLoopback: a.o.DenyLoopback}, Scripts: script.NewHost("", int(math.Ceil(a.o.CPULimitCores))), AMQPURL: a.o.NodesRabbitMQURL,
		Calls: upstream.NewClient(a.directory, a.o.InternalToken).Call,
	}); err != nil {
		return err
	}
	if a.gateways, err = upstream.NewDirectory("GATEWAY_URL", "gateway", a.o.GatewayURL, a.o.ConsulAddress, a.o.ConsulToken, a.component("upstream")); err != nil {
		return err
	}
	a.db, err = store.Open(a.ctx, store.Options{URL: a.o.DatabaseURL, ReadOnly: true, PoolSize: a.o.DatabasePoolSize, Application: "worker " + a.o.WorkerID, Log: a.component("store"), Registerer: a.registry})
	if err != nil {
		return err
	}
	a.stack.Push("database", func(context.Context) error { a.db.Close(); return nil })
	// The lock goes last: a successor that has it may believe that nothing of this process acts or speaks any more.
	a.stack.Push("lock file", a.unlock)
	a.publisher = broker.NewPublisher(broker.Options{URL: a.o.RabbitMQURL, Server: a.o.Broker, Exchange: a.o.RabbitMQExchange, Name: "worker " + a.o.WorkerID + " reports", Log: a.component("broker")})
	a.stack.PushBounded("publisher", 8*time.Second, a.closePublisher)
	a.outbox = link.NewOutbox(a.publisher, a.o.RabbitMQExchange, a.o.WorkerPool, store.NewID)
	nodeLog, err := telemetry.Logger("worker", a.o.NodeLogLevel, os.Stderr)
	if err != nil {
		return err
	}
	claims := upstream.NewClient(a.directory, a.o.InternalToken)
	a.runner = runner.New(runner.Options{
		Worker: a.o.WorkerID, Slots: a.o.MaxConcurrentFlows, MaxNodes: a.o.MaxConcurrentNodes, NodeTimeout: a.o.NodeTimeout, ClaimTimeout: 2 * time.Second, Programs: maxPrograms,
		Window: a.window, Claims: claims.Claims, SessionDead: a.poke, Publisher: a.outbox, Load: a.load, Executors: a.catalogue.Executor,
		Values: upstream.Values{Client: upstream.NewClient(a.directory, a.o.InternalToken)}, ValueCache: a.o.MemoryLimitMB << 20 / 16, Memory: a.o.MemoryLimitMB << 20 / 4,
		Credential: credentials.New(upstream.NewClient(a.gateways, cmp.Or(a.o.CredentialsToken, a.o.InternalToken)).OpenCredential, time.Now).Get,
		Log:        a.component("runner"), NodeLog: nodeLog.With("component", "node", "worker", a.o.WorkerID), Registerer: a.registry,
	})
	a.health.Register("session", true, a.sessionReady)
	a.health.Register("broker", true, a.brokerReady)
	a.health.Register("database", false, a.db.Ping)
	return nil
}

// limits gives the runtime what the machine gives us, unless the environment has set it directly.
func (a *App) limits() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(a.o.MemoryLimitMB) << 20 / 10 * 9)
	}
	if os.Getenv("GOGC") == "" { // garbage is cheap to keep below the memory limit, and dear to collect
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, min(runtime.NumCPU(), int(math.Ceil(a.o.CPULimitCores)))))
	}
}

// load compiles a version of a flow.
func (a *App) load(ctx context.Context, v runner.Version) (*flow.Program, error) {
	saved, err := a.db.VersionOf(ctx, v.Flow, v.Number)
	if errors.Is(err, store.ErrNotFound) {
		return nil, runner.ErrNoVersion
	}
	if err != nil {
		return nil, err
	}
	def, problems := flow.Parse(saved.Document)
	if len(problems) == 0 {
		var p *flow.Program
		if p, problems = flow.Compile(def, flow.FlowView{ID: v.Flow.String(), Name: def.Name, Version: v.Number}, a.catalogue, a.language); len(problems) == 0 {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: %s: %s", runner.ErrUnfit, problems[0].Pointer, problems[0].Message)
}

func (a *App) poke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keeper != nil {
		a.keeper.Poke()
	}
}

func (a *App) sessionReady(context.Context) error {
	id, open := a.window.Current()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.cause != "":
		return errors.New(a.cause)
	case id.IsZero():
		return errors.New("no session is open: does an orchestrator answer?")
	case !open:
		return errors.New("the trust window is closed: no renewal has succeeded in time, effects hold")
	}
	return nil
}

func (a *App) brokerReady(context.Context) error {
	if err := a.outbox.Ready(); err != nil {
		return err
	}
	a.mu.Lock()
	feed := a.feed
	a.mu.Unlock()
	if feed == nil {
		return errors.New("not consuming yet: the lock of its state directory comes first")
	}
	return feed.Ready()
}

// Start listens, and begins to work in the background.
func (a *App) Start(ctx context.Context) error {
	if err := a.start(); err != nil {
		return errors.Join(fmt.Errorf("worker: %w", err), a.Stop(context.WithoutCancel(ctx)))
	}
	return nil
}

func (a *App) start() error {
	if a.o.MetricsEnabled {
		m, err := telemetry.ServeMetrics(net.JoinHostPort(a.o.BindAddress, strconv.Itoa(a.o.MetricsPort)), a.registry, a.health, a.component("metrics"))
		if err != nil {
			return err
		}
		a.stack.PushBounded("metrics", 2*time.Second, m.Shutdown)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.health.Healthz)
	mux.HandleFunc("GET /readyz", a.health.Readyz)
	lis, err := net.Listen("tcp", net.JoinHostPort(a.o.BindAddress, strconv.Itoa(a.o.Port)))
	if err != nil {
		return fmt.Errorf("%w (PORT moves it)", err)
	}
	a.listener = lis
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	served := lifecycle.Serve(srv, lis, func(err error) { a.log.Error("the probes' server ended", "error", err) })
	a.stack.PushBounded("probes", 2*time.Second, served.Shutdown)
	a.runner.Start()
	a.wg.Go(func() { a.directory.Run(a.ctx) })
	a.wg.Go(func() { a.gateways.Run(a.ctx) })
	a.wg.Go(a.watch)
	a.wg.Go(a.report)
	a.wg.Go(a.work)
	a.log.Info("listening", "probes", lis.Addr().String())
	return nil
}

func (a *App) setCause(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cause = why
}

// Addr is where the probes listen.
func (a *App) Addr() string { return a.listener.Addr().String() }

// Stop empties the worker and ends everything. When ctx ends before that, steps are cut and handed back.
func (a *App) Stop(ctx context.Context) error {
	a.setCause("stopping")
	a.cancel()
	defer context.AfterFunc(ctx, a.Hurry)()
	a.wg.Wait()
	return a.stack.Close(context.WithoutCancel(ctx))
}

// Hurry ends the patience of Stop: steps in flight are cut and handed back.
func (a *App) Hurry() {
	a.haste.Do(func() {
		a.log.Info("no more patience: steps in flight are cut")
		close(a.hurry)
	})
}

// Run is New, Start, and Stop when ctx ends or the platform asks it to drain. While it stops, SIGTERM or SIGINT hurries it.
func Run(ctx context.Context, o Options, log *slog.Logger) error {
	a, err := New(o, log)
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-a.order:
	}
	a.log.Info("stopping")
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(again)
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		select {
		case <-again:
			a.Hurry()
		case <-stopped:
		}
	}()
	err = a.Stop(context.WithoutCancel(ctx))
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.fatal, err)
}

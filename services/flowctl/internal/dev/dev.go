package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	gateway "flowplatform/services/gateway/app"
	"flowplatform/services/internal/broker/memory"
	"flowplatform/services/internal/env"
	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/telemetry"
	migrate "flowplatform/services/migrate/app"
	orchestrator "flowplatform/services/orchestrator/app"
	worker "flowplatform/services/worker/app"
)

// Options of Start.
type Options struct {
	Dir      string
	Port     int    // of the API, on the loopback; 0: any
	LogLevel string // of dev.log; "": info
}

// Platform is a running one.
type Platform struct {
	Login Login
	First bool // the directory was made by this start

	server  string
	pg      *postgres
	gateway *gateway.App
	worker  *worker.App
	stack   lifecycle.Stack
}

// Bounds of an end in order: what runs may go on for a moment, then it is cut and handed back; PostgreSQL's own is stopPatience.
const (
	stopGrace    = time.Second
	stopCut      = 3 * time.Second
	workerBound  = 20 * time.Second
	gatewayBound = 2 * time.Second
)

// Start starts everything and returns when flows can run. What has begun is ended again when something fails.
func Start(ctx context.Context, o Options) (*Platform, error) {
	if o.LogLevel == "" {
		o.LogLevel = "info"
	}
	dir, err := filepath.Abs(o.Dir)
	if err == nil {
		dir, err = resolve(dir)
	}
	if err != nil {
		return nil, err
	}
	if err := portFree(o.Port); err != nil {
		return nil, err
	}
	if _, err := findPostgres(); err != nil { // before anything is made
		return nil, err
	}
	if err := reachable(dir); err != nil {
		return nil, err
	}
	o.Dir = dir
	p := &Platform{}
	if err := p.start(ctx, o); err != nil {
		return nil, errors.Join(err, p.stack.Close(context.WithoutCancel(ctx)))
	}
	return p, nil
}

// resolve follows links as far as the path exists: who runs PostgreSQL must be able to enter what is really there.
func resolve(dir string) (string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		parent, err := resolve(filepath.Dir(dir))
		return filepath.Join(parent, filepath.Base(dir)), err
	}
	return real, err
}

func (p *Platform) start(ctx context.Context, o Options) error {
	lock, err := lockDirectory(ctx, o.Dir, os.Geteuid() == 0)
	if err != nil {
		return err
	}
	p.stack.Push("lock", func(context.Context) error { return lock.Close() })
	keys, err := loadSecrets(o.Dir)
	if err != nil {
		return err
	}
	logFile, err := openLog(filepath.Join(o.Dir, "dev.log"))
	if err != nil {
		return err
	}
	p.stack.Push("log", func(context.Context) error { return logFile.Close() })
	if p.pg, p.First, err = startPostgres(ctx, o.Dir, lock); err != nil {
		return err
	}
	p.stack.PushBounded("PostgreSQL", 3*stopPatience, func(context.Context) error { return p.pg.stop() })
	log, err := telemetry.Logger("dev", o.LogLevel, logFile)
	if err != nil {
		return err
	}
	log.Info("PostgreSQL is ready", "bin", p.pg.bin, "first", p.First)
	if err := migrate.Run(ctx, migrate.Options{DatabaseURL: p.pg.url("flow_owner")}, log); err != nil {
		return err
	}
	if err := p.forget(ctx, log); err != nil {
		return err
	}
	s := services{o: o, keys: keys, logFile: logFile, broker: memory.New(), p: p}
	p.stack.Push("broker", func(context.Context) error { s.broker.Close(); return nil })
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("%w\nthe end of %s:\n%s", err, logFile.Name(), tail(logFile.Name(), 8))
	}
	return p.login(ctx, o.Dir, keys)
}

// forget tells the rows that the broker, which begins empty, has nothing of them.
func (p *Platform) forget(ctx context.Context, log *slog.Logger) error {
	db, err := store.Open(ctx, store.Options{URL: p.pg.url("flow_owner"), PoolSize: 1, Application: "dev", Log: log})
	if err != nil {
		return err
	}
	defer db.Close()
	n, err := db.ForgetHanded(ctx)
	if n > 0 {
		log.Info("executions wait in the queue: they are handed out again", "executions", n)
	}
	return err
}

// services makes the three.
type services struct {
	o       Options
	keys    secrets
	logFile io.Writer
	broker  *memory.Server
	picture picture
	p       *Platform
}

func (s *services) log(name string) (*slog.Logger, error) {
	return telemetry.Logger(name, s.o.LogLevel, s.logFile)
}

// options fills the options of a service with their defaults and what is given, as its environment would.
func (s *services) options(into any, role string, more ...string) error {
	vars := append([]string{
		"BIND_ADDRESS=127.0.0.1", "METRICS_ENABLED=false", "DATABASE_URL=" + s.p.pg.url(role), "RABBITMQ_URL=amqp://in-memory", "INTERNAL_TOKEN=" + s.keys.Internal, "LOG_LEVEL=" + s.o.LogLevel, "NODE_ENV=dev",
	}, more...)
	return env.Parse(nil, vars, into, io.Discard)
}

// start starts orchestrator, gateway and worker, and waits until all are ready.
func (s *services) start(ctx context.Context) error {
	var oo orchestrator.Options
	// The worker's number is one: nobody scales. Its lease stays: a successor on the same directory needs none.
	if err := s.options(&oo, "flow_orchestrator", "PORT=0", "INSTANCE_ID=dev", "AUTO_SCALING_ENABLED=false", "MIN_WORKERS=1", "MAX_WORKERS=1"); err != nil {
		return err
	}
	oo.Broker, oo.Alone, oo.Show = s.broker, true, s.picture.show
	log, err := s.log("orchestrator")
	if err != nil {
		return err
	}
	o, err := orchestrator.New(oo, log)
	if err != nil {
		return err
	}
	if err := o.Start(ctx); err != nil {
		return err
	}
	s.p.stack.PushBounded("orchestrator", 15*time.Second, o.Stop)

	if err := s.startGateway(ctx); err != nil {
		return err
	}
	if err := await(ctx, "orchestrator", o.Ready); err != nil { // it declares the queues that the worker consumes
		return err
	}
	if err := s.startWorker(ctx, "http://"+o.Addr()); err != nil {
		return err
	}
	if err := await(ctx, "gateway", s.p.gateway.Ready); err != nil {
		return err
	}
	return await(ctx, "worker", s.p.worker.Ready)
}

// readyPatience is how long a service may take to be ready.
const readyPatience = time.Minute

func await(ctx context.Context, name string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	if err := ready(ctx); err != nil {
		return fmt.Errorf("the %s isn't ready: %w", name, err)
	}
	return nil
}

func (s *services) startGateway(ctx context.Context) error {
	var o gateway.Options
	if err := s.options(&o, "flow_gateway", "PORT="+strconv.Itoa(s.o.Port), "JWT_SECRET="+s.keys.JWT, "CREDENTIALS_KEY="+s.keys.CredentialsKey, "API_RATE_LIMIT=1000000", "DATABASE_POOL_SIZE=12"); err != nil {
		return err
	}
	o.Broker, o.Fleet = s.broker, s.picture.see
	log, err := s.log("gateway")
	if err != nil {
		return err
	}
	if s.p.gateway, err = gateway.New(o, log); err != nil {
		return err
	}
	if err := s.p.gateway.Start(ctx); err != nil {
		return err
	}
	// Requests that wait for an execution (?wait) are cut: their client sees the execution again.
	s.p.stack.PushBounded("gateway", gatewayBound+8*time.Second, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, gatewayBound)
		defer cancel()
		return s.p.gateway.Stop(ctx)
	})
	s.p.server = "http://" + s.p.gateway.Addr()
	return nil
}

func (s *services) startWorker(ctx context.Context, orchestrator string) error {
	var o worker.Options
	if err := s.options(&o, "flow_worker", "PORT=0", "WORKER_ID=dev", "WORKER_STATE_DIR="+filepath.Join(s.o.Dir, "worker"), "ORCHESTRATOR_URL="+orchestrator, "GATEWAY_URL="+s.p.server,
		"MAX_CONCURRENT_FLOWS=200", "CPU_LIMIT_CORES="+strconv.Itoa(runtime.NumCPU()), "STOP_GRACE="+stopGrace.String(), "STOP_PATIENCE="+stopCut.String()); err != nil {
		return err
	}
	o.Broker = s.broker
	log, err := s.log("worker")
	if err != nil {
		return err
	}
	if s.p.worker, err = worker.New(o, log); err != nil {
		return err
	}
	if err := s.p.worker.Start(ctx); err != nil {
		return err
	}
	s.p.stack.PushBounded("worker", workerBound, s.p.worker.Stop)
	return nil
}

// login makes the first administrator, once for a directory.
func (p *Platform) login(ctx context.Context, dir string, keys secrets) error {
	file := filepath.Join(dir, "login.json")
	if found, err := readJSON(file, &p.Login); err != nil || found {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.server+"/internal/v1/bootstrap", bytes.NewReader([]byte("{}")))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+keys.Internal)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("make the first user: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	switch {
	case err != nil:
		return fmt.Errorf("make the first user: %w", err)
	case res.StatusCode == http.StatusConflict:
		return fmt.Errorf("the database has users, but %s is gone: with it went the password; put it back, or begin anew in another --dir", file)
	case res.StatusCode != http.StatusCreated:
		return fmt.Errorf("make the first user: %d %s", res.StatusCode, body)
	}
	if err := json.Unmarshal(body, &p.Login); err != nil {
		return fmt.Errorf("make the first user: %w", err)
	}
	return writeJSON(file, p.Login)
}

// Server is the address of the API.
func (p *Platform) Server() string { return p.server }

// Failed is closed when PostgreSQL has ended by itself: the platform should be stopped then.
func (p *Platform) Failed() <-chan struct{} { return p.pg.ended }

// Hurry ends Stop's patience with what runs.
func (p *Platform) Hurry() { p.worker.Hurry() }

// Stop ends everything in order: what runs is finished or handed back, PostgreSQL is last.
func (p *Platform) Stop(ctx context.Context) error { return p.stack.Close(ctx) }

// portFree names a port that is taken before anything is begun.
func portFree(port int) error {
	if port == 0 {
		return nil
	}
	lis, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("the port %d can't be had: %w (`ss -ltnp 'sport = :%d'` shows who has it; --port takes another, --port 0 any)", port, err, port)
	}
	return lis.Close()
}

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/env"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/settings"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

const token = "a token of tests"

// nowhere is an address where nobody listens: most tests prove that Consul and Redis are not needed.
const nowhere = "127.0.0.1:1"

// world is one platform without workers and gateways: a database and a virtual host of its own, and whatever orchestrators the test starts.
type world struct {
	pg       *testkit.PostgresServer
	database string
	rabbit   *testkit.RabbitServer
	vhost    string
	amqp     string
	pgURL    string // of orchestrators; through a proxy in some tests
	consul   string
	redis    string
	db       *store.DB // as people and gateways see it
	flow     protocol.ID
	pub      *broker.Publisher
	shards   int
}

type servers struct {
	pg     *testkit.PostgresServer
	rabbit *testkit.RabbitServer
}

func newWorld(t *testing.T, s servers) *world {
	t.Helper()
	if s.pg == nil {
		s.pg = testkit.Postgres(t)
	}
	if s.rabbit == nil {
		s.rabbit = testkit.RabbitMQ(t)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	w := &world{pg: s.pg, rabbit: s.rabbit, consul: nowhere, redis: "redis://" + nowhere}
	w.database = s.pg.Database(t, func(ctx context.Context, url string) error { return store.Migrate(ctx, url, log) })
	letIn(t, s.pg)
	w.pgURL = s.pg.URL("flow_orchestrator", w.database)
	w.amqp, w.vhost = s.rabbit.VHost(t)
	var err error
	if w.db, err = store.Open(t.Context(), store.Options{URL: s.pg.URL("postgres", w.database), PoolSize: 4, Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	if w.shards, err = w.db.ReportShards(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := w.db.CreateFlow(t.Context(), store.Flow{ID: store.NewID(), Name: "test"}, json.RawMessage(`{"nodes":[]}`), "test", true)
	if err != nil {
		t.Fatal(err)
	}
	w.flow = f.ID
	w.pub = broker.NewPublisher(broker.Options{URL: w.amqp, Exchange: "flow_orchestration", Name: "test", Log: log})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.pub.Close(ctx)
	})
	return w
}

var lettingIn sync.Mutex

// letIn lets the orchestrators' role log in, with limits like those that configs/ gives it: what is frozen in a transaction loses its locks.
func letIn(t *testing.T, pg *testkit.PostgresServer) {
	t.Helper()
	lettingIn.Lock()
	defer lettingIn.Unlock()
	if _, err := pg.Exec("postgres", "ALTER ROLE flow_orchestrator LOGIN; ALTER ROLE flow_orchestrator SET idle_in_transaction_session_timeout = '3s'; ALTER ROLE flow_orchestrator SET lock_timeout = '2s'"); err != nil {
		t.Fatal(err)
	}
}

// usual settings, with nobody to scale.
func usual() settings.Values {
	return settings.Values{MinWorkers: 2, MaxWorkers: 20, HighWaterMark: 1000, LowWaterMark: 100, DrainTime: 30 * time.Second, DownWindow: 3 * time.Minute, Strategy: settings.RoundRobin, WorkerTimeout: 300 * time.Second}
}

func (w *world) options(change ...func(*Options)) Options {
	o := Options{
		Common: env.Common{BindAddress: "127.0.0.1", LogLevel: "info", MetricsEnabled: true, DatabaseURL: w.pgURL, RedisURL: w.redis, RabbitMQURL: w.amqp,
			RabbitMQExchange: "flow_orchestration", ConsulAddress: w.consul, InternalToken: token},
		DatabasePoolSize: 10, RabbitMQPrefetch: 50, WorkerLease: 15 * time.Second, LeaderKey: "flow/orchestrator/leader", LeaderTTL: 1200 * time.Millisecond, Values: usual(),
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

// orchestrator starts one in this process and waits until it is ready.
func (w *world) orchestrator(t *testing.T, name string, change ...func(*Options)) *App {
	t.Helper()
	o := w.options(change...)
	o.InstanceID = name
	a, err := New(o, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("who", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Errorf("stop of %s: %v", name, err)
		}
	})
	testkit.Eventually(t, 20*time.Second, name+" is ready", func() error { return ready("http://" + a.Addr()) })
	return a
}

func ready(base string) error {
	res, err := http.Get(base + "/readyz")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %s", res.StatusCode, body)
	}
	return nil
}

// process is an orchestrator in a process of its own, to be killed and frozen.
type process struct {
	*testkit.Process
	base    string
	metrics string
}

func (w *world) process(t *testing.T, name string, change ...func(*Options)) *process {
	t.Helper()
	o := w.options(change...)
	port, metrics := testkit.FreePort(t), testkit.FreePort(t)
	p := &process{base: fmt.Sprintf("http://127.0.0.1:%d", port), metrics: fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics)}
	p.Process = testkit.Run(t, testkit.ProcessOptions{Name: name, Path: testkit.Build(t, "./services/orchestrator"), Env: []string{
		"PATH=" + os.Getenv("PATH"), fmt.Sprintf("PORT=%d", port), fmt.Sprintf("METRICS_PORT=%d", metrics), "INSTANCE_ID=" + name,
		"DATABASE_URL=" + o.DatabaseURL, "RABBITMQ_URL=" + o.RabbitMQURL, "REDIS_URL=" + o.RedisURL, "CONSUL_HTTP_ADDR=" + o.ConsulAddress,
		"INTERNAL_TOKEN=" + token, "WORKER_LEASE=" + o.WorkerLease.String(), "LEADER_TTL=" + o.LeaderTTL.String(),
	}})
	testkit.Eventually(t, 20*time.Second, name+" is ready", func() error { return ready(p.base) })
	return p
}

// metric reads one number from /metrics.
func metric(t *testing.T, url, name string) float64 {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(body), "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func (a *App) metricsURL() string { return "http://" + a.MetricsAddr() + "/metrics" }

// insert accepts n executions, spread over the shards, as a gateway would; nothing is published.
func (w *world) insert(t *testing.T, n int, change ...func(int, *store.NewExecution)) []protocol.ID {
	t.Helper()
	ids := make([]protocol.ID, n)
	rows := make([]store.NewExecution, n)
	for i := range rows {
		ids[i] = store.NewID()
		rows[i] = store.NewExecution{ID: ids[i], Flow: w.flow, Version: 1, Shard: i % w.shards, Trigger: "manual", Input: json.RawMessage(`{}`), CreatedAt: time.Now()}
		for _, c := range change {
			c(i, &rows[i])
		}
	}
	for at := 0; at < n; at += 1000 {
		if _, err := w.db.InsertExecutions(t.Context(), rows[at:min(n, at+1000)]); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

// sql asks the database and gives what psql prints.
func (w *world) sql(t *testing.T, query string) string {
	t.Helper()
	out, err := w.pg.Exec(w.database, query)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// states waits until the executions stand as said: "succeeded|100".
func (w *world) states(t *testing.T, within time.Duration, want string) {
	t.Helper()
	testkit.Eventually(t, within, "executions are "+want, func() error {
		got := strings.ReplaceAll(w.sql(t, "SELECT state, count(*) FROM executions GROUP BY state ORDER BY state"), "\n", " ")
		if got != want {
			return errors.New(got)
		}
		return nil
	})
}

// hand is a worker's hand: it has a session, claims, and reports.
type hand struct {
	w       *world
	session protocol.ID
	bases   []string
	turn    atomic.Int64
	lost    atomic.Int64 // calls without an answer
}

func (w *world) hand(t *testing.T, bases ...string) *hand {
	t.Helper()
	h := &hand{w: w, session: store.NewID(), bases: bases}
	h.open(t)
	return h
}

func base(apps ...*App) []string {
	var out []string
	for _, a := range apps {
		out = append(out, "http://"+a.Addr())
	}
	return out
}

func (h *hand) open(t *testing.T, ended ...protocol.ID) {
	t.Helper()
	var answer protocol.SessionResponse
	h.ask(t.Context(), "sessions/open", protocol.OpenSessionRequest{Session: h.session, Worker: "test", Slots: 1000, Weight: 1, Ended: ended}, &answer)
	if !answer.Alive || answer.LeaseMS == 0 || answer.Shards != h.w.shards {
		t.Fatalf("opened: %+v", answer)
	}
}

func (h *hand) renew(ctx context.Context) (answer protocol.SessionResponse) {
	h.ask(ctx, "sessions/renew", protocol.RenewRequest{Session: h.session}, &answer)
	return answer
}

func (h *hand) claim(ctx context.Context, claims ...protocol.Claim) []protocol.Answer {
	var answer protocol.ClaimsResponse
	h.ask(ctx, "claims", protocol.ClaimsRequest{Claims: claims}, &answer)
	return answer.Answers
}

var client = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// call is one try.
func call(ctx context.Context, base, path string, q, a any) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/internal/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %s", res.StatusCode, out)
	}
	return json.Unmarshal(out, a)
}

// ask asks until there is an answer, another orchestrator after each failure.
func (h *hand) ask(ctx context.Context, path string, q, a any) {
	for {
		if err := call(ctx, h.bases[int(h.turn.Load())%len(h.bases)], path, q, a); err == nil {
			return
		}
		h.turn.Add(1)
		h.lost.Add(1)
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// report publishes entries to a shard until the broker has them.
func (w *world) report(ctx context.Context, shard int, entries ...protocol.Entry) error {
	body, err := json.Marshal(protocol.Report{V: protocol.SchemaVersion, Shard: shard, Entries: entries})
	if err != nil {
		return err
	}
	for {
		err := w.pub.PublishWait(ctx, broker.Message{Key: broker.ReportKey(shard), Type: "report", Body: body})
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond) // as a worker does: the same bytes again
	}
}

// run runs an execution as a worker does: claim, steps, each confirmed before the next, final.
func (h *hand) run(ctx context.Context, t *testing.T, id protocol.ID, i, steps int) {
	run := int64(i + 1)
	if got := h.claim(ctx, protocol.Claim{Session: h.session, Execution: id, Attempt: 1, Run: run}); len(got) != 1 || got[0] != protocol.Granted {
		t.Errorf("claim: %v", got)
		return
	}
	for seq := 1; seq <= steps+1; seq++ {
		e := protocol.Entry{Kind: protocol.EntryStep, Execution: id, Attempt: 1, Session: h.session, Run: run, Seq: seq, Base: seq - 1, Events: anEvent}
		if seq > steps {
			e.Kind, e.State, e.Output = protocol.EntryFinal, protocol.Succeeded, json.RawMessage(`{"ok":true}`)
		}
		if err := h.w.report(ctx, i%h.w.shards, e); err != nil {
			t.Errorf("report: %v", err)
			return
		}
	}
}

// tasks is everything that was handed out.
type tasks struct {
	mu   sync.Mutex
	seen map[protocol.ID][]protocol.Task
	at   map[protocol.ID]time.Time // of the newest
	n    int
}

func (w *world) tasks(t *testing.T) *tasks {
	t.Helper()
	conn := broker.Dial(broker.Options{URL: w.amqp, Exchange: "flow_orchestration", Name: "test tasks", Log: slog.New(slog.DiscardHandler)})
	k := conn.Consume(broker.ConsumeOptions{Queue: broker.TaskQueue("default", "normal"), Prefetch: 500})
	ts := &tasks{seen: map[protocol.ID][]protocol.Task{}, at: map[protocol.ID]time.Time{}}
	go func() {
		for d := range k.Deliveries() {
			for body := range broker.Tasks(d.Body) {
				var task protocol.Task
				if err := json.Unmarshal(body, &task); err != nil {
					panic(err)
				}
				ts.mu.Lock()
				ts.seen[task.ID] = append(ts.seen[task.ID], task)
				ts.at[task.ID] = time.Now()
				ts.n++
				ts.mu.Unlock()
			}
			d.Ack()
		}
	}()
	t.Cleanup(func() { _ = conn.Close() })
	return ts
}

// wait waits until every one of the executions was handed out in the attempt.
func (ts *tasks) wait(t *testing.T, within time.Duration, attempt int, ids ...protocol.ID) {
	t.Helper()
	testkit.Eventually(t, within, fmt.Sprintf("%d executions are handed out in attempt %d", len(ids), attempt), func() error {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		missing := 0
		for _, id := range ids {
			found := false
			for _, task := range ts.seen[id] {
				found = found || task.Attempt == attempt
			}
			if !found {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d are missing", missing)
		}
		return nil
	})
}

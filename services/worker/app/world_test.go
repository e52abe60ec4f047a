package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	orchestrator "flowplatform/services/orchestrator/app"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/env"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

const (
	token    = "a token of tests"
	nowhere  = "127.0.0.1:1" // nobody listens there: no test needs Consul or Redis
	exchange = "flow_orchestration"
)

// world is a platform without gateway and leader: a database and a virtual host of its own, one orchestrator, and whatever workers the test starts.
type world struct {
	pg       *testkit.PostgresServer
	database string
	rabbit   *testkit.RabbitServer
	amqp     string // of workers; through a proxy in some tests
	db       *store.DB
	pub      *broker.Publisher
	shards   int
	lease    time.Duration
	orch     *orchestrator.App
	outside  *outside
}

func newWorld(t *testing.T, rabbit *testkit.RabbitServer, lease time.Duration) *world {
	t.Helper()
	if rabbit == nil {
		rabbit = testkit.RabbitMQ(t)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	w := &world{pg: testkit.Postgres(t), rabbit: rabbit, lease: lease, outside: newOutside(t)}
	w.database = w.pg.Database(t, func(ctx context.Context, url string) error { return store.Migrate(ctx, url, log) })
	letIn(t, w.pg)
	w.amqp, _ = rabbit.VHost(t)
	var err error
	if w.db, err = store.Open(t.Context(), store.Options{URL: w.pg.URL("postgres", w.database), PoolSize: 4, Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	if w.shards, err = w.db.ReportShards(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.orch = w.orchestrator(t)
	w.pub = broker.NewPublisher(broker.Options{URL: w.amqp, Exchange: exchange, Name: "test", Log: log})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.pub.Close(ctx)
	})
	return w
}

var lettingIn sync.Mutex

func letIn(t *testing.T, pg *testkit.PostgresServer) {
	t.Helper()
	lettingIn.Lock()
	defer lettingIn.Unlock()
	if _, err := pg.Exec("postgres", "ALTER ROLE flow_orchestrator LOGIN; ALTER ROLE flow_worker LOGIN"); err != nil {
		t.Fatal(err)
	}
}

func (w *world) common(role string) env.Common {
	return env.Common{BindAddress: "127.0.0.1", LogLevel: "info", MetricsEnabled: true, DatabaseURL: w.pg.URL(role, w.database), RedisURL: "redis://" + nowhere, RabbitMQURL: w.amqp,
		RabbitMQExchange: exchange, ConsulAddress: nowhere, InternalToken: token}
}

func (w *world) orchestrator(t *testing.T) *orchestrator.App {
	t.Helper()
	var o orchestrator.Options // the defaults, and what differs here
	common := w.common("flow_orchestrator")
	if err := env.Parse(nil, []string{"BIND_ADDRESS=127.0.0.1", "PORT=0", "METRICS_ENABLED=false", "DATABASE_URL=" + common.DatabaseURL, "REDIS_URL=" + common.RedisURL, "RABBITMQ_URL=" + common.RabbitMQURL,
		"RABBITMQ_EXCHANGE=" + exchange, "CONSUL_HTTP_ADDR=" + nowhere, "INTERNAL_TOKEN=" + token, "WORKER_LEASE=" + w.lease.String(), "INSTANCE_ID=orchestrator"}, &o, io.Discard); err != nil {
		t.Fatal(err)
	}
	a, err := orchestrator.New(o, logger(t, "orchestrator", slog.LevelError))
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
			t.Errorf("stop of the orchestrator: %v", err)
		}
	})
	testkit.Eventually(t, 20*time.Second, "the orchestrator is ready", func() error { return ready("http://" + a.Addr()) })
	return a
}

func logger(t *testing.T, who string, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})).With("who", who)
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

// worker starts one in this process and waits until it is ready. It is stopped at the test's end, unless the test has done so.
func (w *world) worker(t *testing.T, name string, change ...func(*Options)) *App {
	t.Helper()
	a := w.newWorker(t, name, change...)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.outside.openAll()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Errorf("stop of %s: %v", name, err)
		}
	})
	testkit.Eventually(t, 20*time.Second, name+" is ready", func() error { return ready("http://" + a.Addr()) })
	return a
}

func (w *world) newWorker(t *testing.T, name string, change ...func(*Options)) *App {
	t.Helper()
	o := Options{Common: w.common("flow_worker"), DatabasePoolSize: 4, RabbitMQPrefetch: 5, WorkerLease: w.lease, WorkerID: name, WorkerPool: "default", WorkerWeight: 1, WorkerStateDir: t.TempDir(),
		MaxConcurrentFlows: 100, MaxConcurrentNodes: 4000, MemoryLimitMB: 1024, CPULimitCores: 2, HealthReportInterval: 15 * time.Second, OrchestratorURL: "http://" + w.orch.Addr(), GatewayURL: "http://" + nowhere,
		NodeLogLevel: "info", NodeTimeout: 60 * time.Second, StopGrace: 10 * time.Second, StopPatience: 10 * time.Second}
	for _, c := range change {
		c(&o)
	}
	a, err := New(o, logger(t, name, slog.LevelInfo))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// process is a worker in a process of its own, to be stopped by signals and frozen.
type process struct {
	*testkit.Process
	base string
}

func (w *world) process(t *testing.T, name string, more ...string) *process {
	t.Helper()
	p := w.begin(t, name, more...)
	testkit.Eventually(t, 20*time.Second, name+" is ready", func() error { return ready(p.base) })
	return p
}

// begin is process that doesn't wait until it is ready.
func (w *world) begin(t *testing.T, name string, more ...string) *process {
	t.Helper()
	port := testkit.FreePort(t)
	p := &process{base: fmt.Sprintf("http://127.0.0.1:%d", port)}
	p.Process = testkit.Run(t, testkit.ProcessOptions{Name: name, Path: testkit.Build(t, "./services/worker"), Env: append([]string{
		"PATH=" + os.Getenv("PATH"), "BIND_ADDRESS=127.0.0.1", fmt.Sprintf("PORT=%d", port), fmt.Sprintf("METRICS_PORT=%d", testkit.FreePort(t)), "WORKER_ID=" + name, "WORKER_STATE_DIR=" + t.TempDir(),
		"DATABASE_URL=" + w.pg.URL("flow_worker", w.database), "RABBITMQ_URL=" + w.amqp, "CONSUL_HTTP_ADDR=" + nowhere, "INTERNAL_TOKEN=" + token,
		"ORCHESTRATOR_URL=http://" + w.orch.Addr(), "GATEWAY_URL=http://" + nowhere, "WORKER_LEASE=" + w.lease.String()}, more...)})
	return p
}

// metric sums what a worker's registry has under a name, over the labels that are given as key, value.
func (a *App) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			match := 0
			for _, l := range m.GetLabel() {
				for i := 0; i < len(labels); i += 2 {
					if l.GetName() == labels[i] && l.GetValue() == labels[i+1] {
						match++
					}
				}
			}
			if match == len(labels)/2 {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// until waits until a metric has reached a value.
func (a *App) until(t *testing.T, within time.Duration, atLeast float64, name string, labels ...string) {
	t.Helper()
	testkit.Eventually(t, within, fmt.Sprintf("%s%v is %v", name, labels, atLeast), func() error {
		if got := a.metric(t, name, labels...); got < atLeast {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// flow stores a flow: a trigger, then the nodes one after the other. One letter is a call of the outside under that name ("A": it answers a megabyte), all others are pure.
func (w *world) flow(t *testing.T, nodes ...string) protocol.ID {
	t.Helper()
	f, err := w.db.CreateFlow(t.Context(), store.Flow{ID: store.NewID(), Name: strings.Join(nodes, "-")}, w.document(t, nodes...), "test", true)
	if err != nil {
		t.Fatal(err)
	}
	return f.ID
}

func (w *world) document(t *testing.T, nodes ...string) json.RawMessage {
	t.Helper()
	list, edges, from := []any{map[string]any{"id": "start", "type": "trigger.manual"}}, []any{}, "start"
	for _, n := range nodes {
		if len(n) == 1 {
			list = append(list, map[string]any{"id": n, "type": "http.request", "config": map[string]any{"method": "GET", "url": w.outside.url + "/" + n}, "timeout": "30s"})
		} else {
			list = append(list, map[string]any{"id": n, "type": "data.set", "config": map[string]any{"values": map[string]any{"order": "{{ input.order }}", "double": "{{ input.order * 2 }}"}}})
		}
		edges = append(edges, map[string]any{"from": from, "to": n})
		from = n
	}
	doc, err := json.Marshal(map[string]any{"name": strings.Join(nodes, "-"), "nodes": list, "edges": edges})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// insert accepts n executions as a gateway does, without handing them out.
func (w *world) insert(t *testing.T, flow protocol.ID, n int, priority string) []protocol.Task {
	t.Helper()
	ids := make([]protocol.ID, n)
	rows := make([]store.NewExecution, n)
	for i := range rows {
		ids[i] = store.NewID()
		rows[i] = store.NewExecution{ID: ids[i], Flow: flow, Version: 1, Shard: i % w.shards, Pool: "default", Priority: priority, Trigger: "manual", Input: json.RawMessage(fmt.Sprintf(`{"order":%d}`, i)), CreatedAt: time.Now()}
	}
	var tasks []protocol.Task
	for at := 0; at < n; at += 1000 {
		end := min(n, at+1000)
		if _, err := w.db.InsertExecutions(t.Context(), rows[at:end]); err != nil {
			t.Fatal(err)
		}
		some, err := w.db.Tasks(t.Context(), ids[at:end])
		if err != nil || len(some) != end-at {
			t.Fatalf("%d tasks: %v", len(some), err)
		}
		tasks = append(tasks, some...)
	}
	return tasks
}

// hand publishes tasks and waits until the broker has them.
func (w *world) hand(t *testing.T, priority string, tasks ...protocol.Task) {
	t.Helper()
	bodies := make([][]byte, len(tasks))
	for i, task := range tasks {
		body, err := json.Marshal(task)
		if err != nil {
			t.Fatal(err)
		}
		bodies[i] = body
	}
	w.send(t, priority, bodies...)
}

func (w *world) send(t *testing.T, priority string, bodies ...[]byte) {
	t.Helper()
	outcomes := make(chan broker.Outcome, len(bodies))
	for _, body := range bodies {
		if err := w.pub.Publish(broker.Message{Key: broker.TaskKey("default", priority), Type: "task", Body: body}, func(o broker.Outcome) { outcomes <- o }); err != nil {
			t.Fatal(err)
		}
	}
	for range bodies {
		if o := <-outcomes; o != broker.Confirmed {
			t.Fatalf("a task is %s", o)
		}
	}
}

// accept is insert and hand.
func (w *world) accept(t *testing.T, flow protocol.ID, n int, priority string) []protocol.Task {
	t.Helper()
	tasks := w.insert(t, flow, n, priority)
	w.hand(t, priority, tasks...)
	return tasks
}

func (w *world) sql(t *testing.T, query string) string {
	t.Helper()
	out, err := w.pg.Exec(w.database, query)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(out), "\n", " ")
}

// states waits until the executions stand as said: "succeeded|100".
func (w *world) states(t *testing.T, within time.Duration, want string) {
	t.Helper()
	testkit.Eventually(t, within, "executions are "+want, func() error {
		if got := w.sql(t, "SELECT state, count(*) FROM executions GROUP BY state ORDER BY state"); got != want {
			return errors.New(got)
		}
		return nil
	})
}

// consume reads a queue by hand.
func (w *world) consume(t *testing.T, o broker.ConsumeOptions) (*broker.Consumer, func()) {
	t.Helper()
	conn := broker.Dial(broker.Options{URL: w.amqp, Exchange: exchange, Name: "test reads", Log: slog.New(slog.DiscardHandler)})
	k := conn.Consume(o)
	end := sync.OnceFunc(func() { _ = conn.Close() })
	t.Cleanup(end)
	testkit.Eventually(t, 10*time.Second, o.Queue+" is read", func() error {
		if !k.Ready() {
			return errors.New("not yet")
		}
		return nil
	})
	return k, end
}

func receive(t *testing.T, k *broker.Consumer) broker.Delivery {
	t.Helper()
	select {
	case d := <-k.Deliveries():
		return d
	case <-time.After(10 * time.Second):
		t.Fatal("nothing comes")
	}
	return broker.Delivery{}
}

// outside is what flows call: it remembers every call, and keeps calls to a path waiting while that is shut.
type outside struct {
	url   string
	mu    sync.Mutex
	calls []visit
	gates map[string]chan struct{}
}

type visit struct {
	execution string
	node      string
	attempt   int
}

func newOutside(t *testing.T) *outside {
	o := &outside{gates: map[string]chan struct{}{}}
	s := httptest.NewServer(http.HandlerFunc(o.serve))
	o.url = s.URL
	t.Cleanup(func() {
		o.openAll()
		s.CloseClientConnections()
		s.Close()
	})
	return o
}

func (o *outside) serve(res http.ResponseWriter, req *http.Request) {
	key := strings.Split(req.Header.Get("Idempotency-Key"), "/")
	attempt, err := strconv.Atoi(req.Header.Get("X-Flow-Attempt"))
	if err != nil || len(key) != 3 {
		http.Error(res, "no key or attempt", http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	o.calls = append(o.calls, visit{key[0], key[1], attempt})
	gate := o.gates[key[1]]
	o.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-req.Context().Done():
			return
		}
	}
	if name := key[1]; name == strings.ToUpper(name) {
		res.Header().Set("Content-Type", "text/plain")
		_, _ = res.Write(megabyte) // a worker that went away needs no answer
		return
	}
	res.Header().Set("Content-Type", "application/json")
	fmt.Fprint(res, `{"ok":true}`)
}

func (o *outside) shut(node string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gates[node] = make(chan struct{})
}

func (o *outside) open(node string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if g := o.gates[node]; g != nil {
		close(g)
		delete(o.gates, node)
	}
}

func (o *outside) openAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, g := range o.gates {
		close(g)
	}
	clear(o.gates)
}

// megabyte is what calls of nodes with capital names answer.
var megabyte = []byte(strings.Repeat("0123456789abcdef", 1<<16))

// visits lists the calls of a node so far.
func (o *outside) visits(node string) []visit {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []visit
	for _, v := range o.calls {
		if v.node == node {
			out = append(out, v)
		}
	}
	return out
}

// called waits until a node was called n times.
func (o *outside) called(t *testing.T, within time.Duration, node string, n int) {
	t.Helper()
	testkit.Eventually(t, within, fmt.Sprintf("%d calls of %s", n, node), func() error {
		if got := len(o.visits(node)); got < n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}

// once sees that a node was called exactly once for each of n executions.
func (o *outside) once(t *testing.T, node string, n int) {
	t.Helper()
	seen := map[string]int{}
	for _, v := range o.visits(node) {
		if seen[v.execution]++; seen[v.execution] == 2 {
			t.Errorf("%s was called again for %s, in attempt %d", node, v.execution, v.attempt)
		}
	}
	if len(seen) != n {
		t.Errorf("%s was called for %d executions, want %d", node, len(seen), n)
	}
}

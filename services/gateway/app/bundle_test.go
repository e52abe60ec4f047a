package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

const (
	internalToken  = "internal-token-of-tests"
	workersToken   = "token-of-the-workers-of-tests"
	credentialsKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
)

// bundle is a gateway on real servers.
type bundle struct {
	app      *App
	o        Options
	url      string
	postgres *testkit.PostgresServer
	database string
	rabbit   *testkit.RabbitServer
	vhost    string
	redis    *testkit.RedisServer
	admin    string // token
	bench    string
	password string
	owner    *store.DB // with all rights: plays the other services
	log      *slog.Logger
}

type setupOptions struct {
	postgres *testkit.PostgresServer // nil: the shared one
	rabbit   *testkit.RabbitServer   // nil: the shared one
	noRedis  bool
	database func(url string) string // changes DATABASE_URL
	change   func(*Options)
	quiet    bool
}

func setup(t testing.TB, so setupOptions) *bundle {
	t.Helper()
	b := &bundle{postgres: so.postgres, rabbit: so.rabbit, log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))}
	if so.quiet {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.postgres == nil {
		b.postgres = testkit.Postgres(t)
	}
	if b.rabbit == nil {
		b.rabbit = testkit.RabbitMQ(t)
	}
	b.database = b.postgres.Database(t, func(ctx context.Context, url string) error {
		if err := store.Migrate(ctx, url, slog.New(slog.DiscardHandler)); err != nil {
			return err
		}
		_, err := b.postgres.Exec("postgres", "ALTER ROLE flow_gateway LOGIN")
		return err
	})
	amqp, vhost := b.rabbit.VHost(t)
	b.vhost = vhost
	b.o = Options{JWTSecret: "secret-of-tests-0123456789", APIRateLimit: 1_000_000, DatabasePoolSize: 10, UnhandedLimit: 50_000, TrustedProxies: "127.0.0.0/8", CredentialsKey: credentialsKey, CredentialsToken: workersToken}
	b.o.BindAddress, b.o.LogLevel, b.o.MetricsEnabled, b.o.InternalToken = "127.0.0.1", "info", true, internalToken
	b.o.DatabaseURL, b.o.RabbitMQURL, b.o.RabbitMQExchange = b.postgres.URL("flow_gateway", b.database), amqp, "flow_orchestration"
	if !so.noRedis {
		b.redis = testkit.Redis(t)
		b.o.RedisURL = b.redis.URL()
	}
	if so.database != nil {
		b.o.DatabaseURL = so.database(b.o.DatabaseURL)
	}
	if so.change != nil {
		so.change(&b.o)
	}
	b.declare(t)
	owner, err := store.Open(t.Context(), store.Options{URL: b.postgres.URL("postgres", b.database), PoolSize: 4, Log: b.log})
	if err != nil {
		t.Fatal(err)
	}
	b.owner = owner
	t.Cleanup(owner.Close)
	b.start(t)
	b.bootstrap(t)
	return b
}

// declare declares the topology, as an orchestrator does.
func (b *bundle) declare(t testing.TB) {
	t.Helper()
	c := broker.Dial(broker.Options{URL: b.o.RabbitMQURL, Exchange: b.o.RabbitMQExchange, Name: "orchestrator of tests", Log: b.log,
		Topology: func(v string) broker.Topology {
			return broker.NewTopology(b.o.RabbitMQExchange, []string{"default"}, 1, v)
		}})
	defer c.Close()
	testkit.Eventually(t, 20*time.Second, "the topology is declared", c.Ready)
}

func (b *bundle) start(t testing.TB) {
	t.Helper()
	a, err := New(b.o, b.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	b.app, b.url = a, "http://"+a.Addr()
	testkit.Eventually(t, 20*time.Second, "the gateway is ready", func() error {
		r := b.do(t, "GET", "/readyz", "", nil)
		if r.status != 200 {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
	testkit.Eventually(t, 20*time.Second, "it has the broker", a.publisher.Ready)
}

func (b *bundle) bootstrap(t testing.TB) {
	t.Helper()
	// One token is brought along, as an installer does that must not lose it; the other is made here.
	brought := "fp_" + strings.Repeat("Abc0", 11)
	r := b.do(t, "POST", "/internal/v1/bootstrap", internalToken, map[string]any{"token": brought})
	var first struct{ Email, Password, Token, BenchToken string }
	r.want(t, 201).into(t, &first)
	if first.Token != brought {
		t.Error("the first user has another token than the one that was brought along")
	}
	b.admin, b.bench, b.password = first.Token, first.BenchToken, first.Password
}

// response is an answer, read.
type response struct {
	status int
	header http.Header
	body   []byte
	what   string
}

func (b *bundle) request(t testing.TB, method, path, token string, body any, header ...string) (*response, error) {
	t.Helper()
	var in io.Reader
	switch v := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(v)
	case []byte:
		in = bytes.NewReader(v)
	default:
		enc, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(enc)
	}
	if !strings.HasPrefix(path, "/internal") && !strings.HasSuffix(path, "z") && !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/hooks/") {
		path = "/api/v1" + path
	}
	req, err := http.NewRequestWithContext(t.Context(), method, b.url+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return &response{status: res.StatusCode, header: res.Header, body: data, what: method + " " + path}, err
}

func (b *bundle) do(t testing.TB, method, path, token string, body any, header ...string) *response {
	t.Helper()
	r, err := b.request(t, method, path, token, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *response) want(t testing.TB, status int) *response {
	t.Helper()
	if r.status != status {
		t.Fatalf("%s: %d, want %d: %s", r.what, r.status, status, r.body)
	}
	if status >= 400 {
		if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
			t.Fatalf("%s: the error is %s: %s", r.what, ct, r.body)
		}
		var p struct {
			Status int
			Title  string
		}
		r.into(t, &p)
		if p.Status != status || p.Title == "" {
			t.Fatalf("%s: not a problem: %s", r.what, r.body)
		}
	}
	return r
}

func (r *response) into(t testing.TB, v any) *response {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("%s: %v: %s", r.what, err, r.body)
	}
	return r
}

// pointers are those of the fields that a problem names.
func (r *response) pointers(t testing.TB) []string {
	t.Helper()
	var p struct {
		Errors []struct{ Pointer, Location, Message string }
	}
	r.into(t, &p)
	var out []string
	for _, e := range p.Errors {
		if e.Message == "" {
			t.Errorf("%s: an entry without a message: %s", r.what, r.body)
		}
		if e.Location == "body" {
			out = append(out, e.Pointer)
		} else {
			out = append(out, e.Location)
		}
	}
	return out
}

const simpleFlow = `{"name": %q, "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "set", "type": "data.set", "config": {"values": {"n": "{{ input.n }}"}}}],
	"edges": [{"from": "start", "to": "set"}], "labels": {"team": "sales"},
	"inputSchema": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}, "additionalProperties": false}}`

func (b *bundle) flow(t testing.TB, name string) string {
	t.Helper()
	var f struct{ ID string }
	b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(simpleFlow, name)).want(t, 201).into(t, &f)
	return f.ID
}

// execution of the API.
type execution struct {
	ID, Status, FlowID string
	FlowVersion        int
	Input, Output      json.RawMessage
	Error              *flow.Failure
	Labels             map[string]string
	Attempt            int
	CreatedAt          time.Time
}

func (b *bundle) run(t testing.TB, flowID string, body any, header ...string) execution {
	t.Helper()
	var x execution
	b.do(t, "POST", "/flows/"+flowID+"/executions", b.bench, body, header...).want(t, 202).into(t, &x)
	return x
}

// finish ends an execution as a worker's first final report does, and tells the live view if there is one.
func (b *bundle) finish(t testing.TB, id string, events []flow.Event) {
	t.Helper()
	pid, err := protocol.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := protocol.EncodeEvents(events)
	if err != nil {
		t.Fatal(err)
	}
	var out protocol.Outcome
	err = b.owner.Txn(context.Background(), "collect", func(tx protocol.Tx) error {
		var err error
		out, err = protocol.ApplyReports(context.Background(), tx, 0, []protocol.Entry{{Kind: protocol.EntryFinal, Execution: pid, Attempt: 1, Seq: 1, State: protocol.Succeeded, Output: json.RawMessage(`{"n":7}`), Events: encoded}}, true)
		return err
	})
	if err != nil || len(out.News) != 1 {
		t.Errorf("finish %s: %v %+v", id, err, out)
	}
	b.app.follow.news(out.News)
}

// tasks consumes the queue of tasks.
// tasks reads the tasks that are handed out, one by one.
type tasks struct {
	*broker.Consumer
	left [][]byte
}

func (b *bundle) tasks(t testing.TB) *tasks {
	t.Helper()
	c := broker.Dial(broker.Options{URL: b.o.RabbitMQURL, Exchange: b.o.RabbitMQExchange, Name: "worker of tests", Log: b.log})
	t.Cleanup(func() { c.Close() })
	return &tasks{Consumer: c.Consume(broker.ConsumeOptions{Queue: broker.TaskQueue("default", "normal"), Prefetch: 1000})}
}

func receive(t testing.TB, k *tasks) protocol.Task {
	t.Helper()
	if len(k.left) == 0 {
		select {
		case d := <-k.Deliveries():
			k.left = slices.Collect(broker.Tasks(d.Body))
			d.Ack()
		case <-time.After(20 * time.Second):
			t.Fatal("no task came")
		}
	}
	var task protocol.Task
	if err := json.Unmarshal(k.left[0], &task); err != nil {
		t.Fatal(err)
	}
	k.left = k.left[1:]
	return task
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

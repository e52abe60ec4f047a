package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// platform is the whole of it: servers of its own, and the services as processes.
type platform struct {
	t        *testing.T
	pg       *testkit.PostgresServer
	database string
	rabbit   *testkit.RabbitServer
	redis    *testkit.RedisServer
	consul   *testkit.ConsulServer

	gateway       *service
	orchestrators []*service
	workers       []*service
	token         string
	admin         string // token
	common        []string
	log           io.Writer
}

// lease is short here, so that a frozen worker is judged soon.
const lease = 4 * time.Second

// service is a process of ours that is started again when it dies, at once and in the same place, as Nomad does.
type service struct {
	t       *testing.T
	o       testkit.ProcessOptions
	ready   string // URL
	mu      sync.Mutex
	proc    *testkit.Process
	stopped bool
	done    chan struct{}
}

func (s *service) start() {
	s.mu.Lock()
	p, err := testkit.StartProcess(s.o)
	if err != nil {
		s.mu.Unlock()
		s.t.Errorf("start %s: %v", s.o.Name, err)
		return
	}
	s.proc, s.stopped, s.done = p, false, make(chan struct{})
	done := s.done
	s.mu.Unlock()
	go func() {
		defer close(done)
		for quick := 0; quick < 100; quick++ {
			<-p.Done()
			s.mu.Lock()
			if s.stopped {
				s.mu.Unlock()
				return
			}
			var err error
			if p, err = testkit.StartProcess(s.o); err != nil {
				s.mu.Unlock()
				return
			}
			s.proc = p
			s.mu.Unlock()
		}
	}()
}

func (s *service) process() *testkit.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// stop ends it for good: in order, or at once.
func (s *service) stop(kill bool) {
	s.mu.Lock()
	s.stopped = true
	p := s.proc
	s.mu.Unlock()
	if p == nil {
		return
	}
	p.Thaw()
	if kill || !p.Terminate(40*time.Second) {
		p.Kill()
	}
	<-s.done
}

func (s *service) waitReady() {
	s.t.Helper()
	testkit.Eventually(s.t, 60*time.Second, s.o.Name+" is ready", func() error {
		res, err := http.Get(s.ready)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, tailOf(s.process().Output()))
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			b, _ := io.ReadAll(res.Body)
			return fmt.Errorf("%d %s\n%s", res.StatusCode, b, tailOf(s.process().Output()))
		}
		return nil
	})
}

func tailOf(s string) string { return s[max(0, len(s)-2000):] }

type size struct {
	workers, orchestrators int
	slots                  int
	env                    []string
	gateway                []string  // its environment, beside what all need
	common                 []string  // environment of every service
	log                    io.Writer // gets all that the services print
}

// newPlatform starts all of it and logs in.
func newPlatform(t *testing.T, sz size) *platform {
	t.Helper()
	p := &platform{t: t, common: sz.common, log: sz.log}
	var wg sync.WaitGroup
	wg.Go(func() { p.rabbit = testkit.NewRabbitMQ(t) })
	for _, pkg := range []string{"./services/gateway", "./services/orchestrator", "./services/worker"} {
		testkit.Build(t, pkg)
	}
	p.pg = testkit.NewPostgres(t, true)
	p.redis = testkit.Redis(t)
	p.consul = testkit.Consul(t)
	p.database = p.pg.Database(t, func(ctx context.Context, url string) error {
		return store.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
	for _, role := range []string{"flow_gateway", "flow_orchestrator", "flow_worker"} {
		if _, err := p.pg.Exec(p.database, "ALTER ROLE "+role+" LOGIN"); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	t.Cleanup(func() {
		all := append(append([]*service{p.gateway}, p.orchestrators...), p.workers...)
		for _, s := range all {
			if s == nil {
				continue
			}
			s.stop(true)
			if t.Failed() {
				t.Logf("%s printed:\n%s", s.o.Name, tailOf(s.process().Output()))
			}
		}
	})
	p.gateway = p.service("./services/gateway", "gateway", "flow_gateway", append([]string{"JWT_SECRET=a-secret-of-the-tests-that-is-long-enough", "API_RATE_LIMIT=1000000"}, sz.gateway...)...)
	p.gateway.start()
	for i := range sz.orchestrators {
		o := p.service("./services/orchestrator", fmt.Sprintf("orchestrator-%d", i), "flow_orchestrator", "WORKER_LEASE="+lease.String(), fmt.Sprintf("INSTANCE_ID=orchestrator-%d", i))
		p.orchestrators = append(p.orchestrators, o)
		o.start()
	}
	for i := range sz.workers {
		p.addWorker(i, sz)
	}
	p.gateway.waitReady()
	for _, s := range append(p.orchestrators, p.workers...) {
		s.waitReady()
	}
	p.bootstrap()
	return p
}

func (p *platform) addWorker(i int, sz size) *service {
	dir := filepath.Join(p.t.TempDir(), fmt.Sprintf("worker-%d", i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	env := append([]string{"WORKER_LEASE=" + lease.String(), fmt.Sprintf("WORKER_ID=worker-%d", i), "WORKER_STATE_DIR=" + dir, fmt.Sprintf("MAX_CONCURRENT_FLOWS=%d", max(sz.slots, 1)),
		"ORCHESTRATOR_URL=" + p.orchestratorURLs(), "GATEWAY_URL=" + p.base(), "NODE_CORE_TIMEOUT=120s"}, sz.env...)
	w := p.service("./services/worker", fmt.Sprintf("worker-%d", i), "flow_worker", env...)
	p.workers = append(p.workers, w)
	w.start()
	return w
}

func (p *platform) orchestratorURLs() string {
	var urls []string
	for _, o := range p.orchestrators {
		urls = append(urls, strings.TrimSuffix(o.ready, "/readyz"))
	}
	return strings.Join(urls, ",")
}

func (p *platform) service(pkg, name, role string, env ...string) *service {
	port, metrics := testkit.FreePort(p.t), testkit.FreePort(p.t)
	all := append([]string{"PATH=/usr/bin:/bin", fmt.Sprintf("PORT=%d", port), fmt.Sprintf("METRICS_PORT=%d", metrics), "LOG_LEVEL=info", "DATABASE_URL=" + p.pg.URL(role, p.database), "REDIS_URL=" + p.redis.URL(),
		"RABBITMQ_URL=" + p.rabbit.URL("%2F"), "CONSUL_HTTP_ADDR=" + p.consul.Address(), "INTERNAL_TOKEN=internal-token-of-the-tests", "GOMAXPROCS=2"}, append(env, p.common...)...)
	return &service{t: p.t, ready: fmt.Sprintf("http://127.0.0.1:%d/readyz", port), o: testkit.ProcessOptions{Name: name, Path: testkit.Build(p.t, pkg), Env: all, Log: p.log}}
}

func (p *platform) base() string { return strings.TrimSuffix(p.gateway.ready, "/readyz") }

func (p *platform) bootstrap() {
	p.t.Helper()
	var out struct {
		BenchToken string `json:"benchToken"`
		Token      string `json:"token"`
	}
	status, body := p.request("POST", p.base()+"/internal/v1/bootstrap", "internal-token-of-the-tests", nil)
	if status != 201 || json.Unmarshal(body, &out) != nil || out.BenchToken == "" {
		p.t.Fatalf("bootstrap: %d %s", status, body)
	}
	p.token, p.admin = out.BenchToken, out.Token
}

var httpClient = &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}

func (p *platform) request(method, url, token string, body any) (int, []byte) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			p.t.Error(err)
			return 0, nil
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, url, in)
	if err != nil {
		p.t.Error(err)
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return res.StatusCode, b
}

// api calls the gateway; status 0 means that there was no answer.
func (p *platform) api(method, path string, body, out any) int {
	status, b := p.request(method, p.base()+"/api/v1"+path, p.token, body)
	if out != nil && status > 0 && status < 300 {
		if err := json.Unmarshal(b, out); err != nil {
			p.t.Errorf("%s %s: %v in %s", method, path, err, b)
		}
	}
	if status >= 400 {
		p.t.Logf("%s %s: %d %s", method, path, status, b)
	}
	return status
}

type execution struct {
	ID      string          `json:"id"`
	Status  string          `json:"status"`
	Output  json.RawMessage `json:"output"`
	Error   json.RawMessage `json:"error"`
	Attempt int             `json:"attempt"`
}

func (p *platform) createFlow(doc any) string {
	p.t.Helper()
	var f struct {
		ID string `json:"id"`
	}
	if status := p.api("POST", "/flows", doc, &f); status != 201 {
		p.t.Fatalf("create flow: %d", status)
	}
	return f.ID
}

// accept starts an execution and gives its id; "" when the gateway did not say 2xx.
func (p *platform) accept(flow string, input any) string {
	var e execution
	if status := p.api("POST", "/flows/"+flow+"/executions", map[string]any{"input": input}, &e); status != 202 && status != 200 {
		return ""
	}
	return e.ID
}

func (p *platform) acceptAll(flow string, n int) []string {
	p.t.Helper()
	ids := make([]string, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 32)
	for i := range ids {
		gate <- struct{}{}
		wg.Go(func() {
			ids[i] = p.accept(flow, map[string]any{"i": i})
			<-gate
		})
	}
	wg.Wait()
	for i, id := range ids {
		if id == "" {
			p.t.Fatalf("execution %d was not accepted", i)
		}
	}
	return ids
}

// counts reads the states of a flow's executions from the database.
func (p *platform) counts(flow string) map[string]int {
	p.t.Helper()
	out, err := p.pg.Exec(p.database, "SELECT state || ' ' || count(*) FROM executions WHERE flow_id = '"+flow+"' GROUP BY state")
	if err != nil {
		p.t.Fatal(err)
	}
	m := map[string]int{}
	for line := range strings.Lines(out) {
		var state string
		var n int
		if _, err := fmt.Sscan(line, &state, &n); err == nil {
			m[state] = n
		}
	}
	return m
}

// allSucceed waits until n executions of the flow have succeeded, and sees that there are no others.
func (p *platform) allSucceed(flow string, n int, bound time.Duration) {
	p.t.Helper()
	testkit.Eventually(p.t, bound, "all have succeeded", func() error {
		if c := p.counts(flow); c["succeeded"] != n || len(c) != 1 {
			return fmt.Errorf("of %d: %v", n, c)
		}
		return nil
	})
}

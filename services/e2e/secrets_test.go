package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"flowplatform/services/internal/testkit"
)

// book keeps what it is told.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (k *book) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(p)
}

func (k *book) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.String()
}

const (
	masterKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	canary    = "canary-that-must-be-found"
)

// secretsOfTheTest are the credentials' secrets, by the credentials' names.
var secretsOfTheTest = map[string]string{"basic": "pw-basic-7Qm4xZt9", "bearer": "tok/bearer+R8s=Vn2Wk", "header": "key-header-Lp3yHc6D", "database": "pw-database-Jx5uEa1T"}

// TestSecretsAreNowhere runs flows with credentials, to the good and to the bad, with everything at debug, and then searches all that the platform has
// written, sent or printed. The canary is an input: it shows that the search finds what is there.
func TestSecretsAreNowhere(t *testing.T) {
	logs, redis, messages := &book{}, &book{}, &book{}
	keys := filepath.Join(t.TempDir(), "credentials.keys")
	if err := os.WriteFile(keys, []byte(masterKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPlatform(t, size{orchestrators: 1, workers: 1, slots: 50, log: logs, common: []string{"LOG_LEVEL=debug"},
		env: []string{"NODE_CORE_LOG_LEVEL=debug", "CREDENTIALS_TOKEN=token-of-the-workers"}, gateway: []string{"CREDENTIALS_KEY_FILE=" + keys, "CREDENTIALS_TOKEN=token-of-the-workers"}})
	monitor(t, p.redis.Port, redis)
	tap(t, p.rabbit.URL("%2F"), messages)

	seen := &book{}
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(seen, "%s %s %s\n", r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("X-Shop-Pass"))
		switch r.URL.Path {
		case "/fail":
			w.WriteHeader(http.StatusBadRequest)
		case "/moved":
			http.Redirect(w, r, strings.Replace("http://"+r.Host, "127.0.0.1", "localhost", 1)+"/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		_ = json.NewEncoder(w).Encode(map[string]any{"headers": r.Header}) // it says all that it was told
	}))
	t.Cleanup(outside.Close)
	p.makeCredentials()
	runWithSecrets(t, p, outside.URL)

	told := seen.String()
	for _, want := range []string{"/echo Bearer " + secretsOfTheTest["bearer"], "/fail Basic ", "/echo  " + secretsOfTheTest["header"], "/elsewhere  \n"} {
		if !strings.Contains(told, want) {
			t.Errorf("the outside was not told %q:\n%s", want, told)
		}
	}
	dump, err := p.pg.Dump(p.database)
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{"PostgreSQL": dump, "RabbitMQ": messages.String(), "Redis": redis.String(), "the logs": logs.String()}
	for _, s := range append([]*service{p.gateway}, append(p.orchestrators, p.workers...)...) {
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.process().PID(), file))
			if err != nil || len(b) == 0 {
				t.Fatalf("%s of %s: %v", file, s.o.Name, err)
			}
			places[file+" of "+s.o.Name] = string(b)
		}
	}
	for _, where := range []string{"PostgreSQL", "RabbitMQ"} {
		if !found(places[where], canary) {
			t.Errorf("the search doesn't find the canary in %s (%d bytes): it would find no secret either", where, len(places[where]))
		}
	}
	for _, k := range []struct{ where, what string }{{"Redis", "XADD"}, {"the logs", "a credential was opened for a worker"}, {"environ of gateway", "CREDENTIALS_KEY_FILE"}} {
		if !strings.Contains(strings.ToUpper(places[k.where]), strings.ToUpper(k.what)) {
			t.Errorf("%s doesn't say %q: is that looked at?", k.where, k.what)
		}
	}
	all := map[string]string{"the master key": masterKey}
	for name, s := range secretsOfTheTest {
		all[name] = s
	}
	for name, secret := range all {
		for where, text := range places {
			if found(text, secret) {
				t.Errorf("%s is in %s", name, where)
			}
		}
	}
}

// found searches a secret in every form; hexadecimal in any case.
func found(text, secret string) bool {
	lower := strings.ToLower(text)
	for form, s := range testkit.FormsOf(secret) {
		if strings.Contains(text, s) || strings.Contains(form, "hex") && strings.Contains(lower, s) {
			return true
		}
	}
	return false
}

func (p *platform) makeCredentials() {
	p.t.Helper()
	for _, c := range []map[string]any{
		{"name": "basic", "type": "http.basic", "public": map[string]any{"user": "ann"}, "secret": map[string]any{"password": secretsOfTheTest["basic"]}},
		{"name": "bearer", "type": "http.bearer", "secret": map[string]any{"token": secretsOfTheTest["bearer"]}},
		{"name": "header", "type": "http.header", "public": map[string]any{"name": "X-Shop-Pass"}, "secret": map[string]any{"value": secretsOfTheTest["header"]}},
		{"name": "database", "type": "postgres", "public": map[string]any{"host": "127.0.0.1", "port": p.pg.Port, "database": "nosuch", "user": "nobody"}, "secret": map[string]any{"password": secretsOfTheTest["database"]}},
	} {
		if status := p.api("POST", "/credentials", c, nil); status != 201 {
			p.t.Fatalf("create credential %s: %d", c["name"], status)
		}
	}
	var trial struct{ Outcome string }
	if status := p.api("POST", "/credentials/database/test", nil, &trial); status != 200 || trial.Outcome != "fails" {
		p.t.Errorf("test: %d %+v", status, trial)
	}
	bad := map[string]any{"name": "x/y", "type": "http.bearer", "secret": map[string]any{"token": secretsOfTheTest["bearer"], "more": secretsOfTheTest["bearer"]}}
	if status := p.api("POST", "/credentials", bad, nil); status != 422 {
		p.t.Errorf("a bad one: %d", status)
	}
}

// runWithSecrets runs one flow whose steps succeed, fail, are redirected and reach nobody, and one whose last step fails it.
func runWithSecrets(t *testing.T, p *platform, outside string) {
	t.Helper()
	nodes := []any{map[string]any{"id": "start", "type": "trigger.manual"}}
	var edges []any
	last := "start"
	step := func(id, credential, url string) {
		nodes = append(nodes, map[string]any{"id": id, "type": "http.request", "onError": "continue", "config": map[string]any{"url": url, "credential": credential, "query": map[string]any{"c": "{{ input.canary }}"}}})
		edges = append(edges, map[string]any{"from": last, "to": id})
		last = id
	}
	step("bearer", "bearer", outside+"/echo")
	step("header", "header", outside+"/echo")
	step("failing", "basic", outside+"/fail")
	step("moved", "bearer", outside+"/moved")
	step("away", "basic", "http://127.0.0.1:1/")
	step("refused", "basic", "http://169.254.169.254/")
	flow := p.createFlow(map[string]any{"name": "with credentials", "nodes": nodes, "edges": edges})
	if id := p.accept(flow, map[string]any{"canary": canary}); id == "" {
		t.Fatal("not accepted")
	}
	p.allSucceed(flow, 1, 60*time.Second)

	delete(nodes[len(nodes)-4].(map[string]any), "onError") // /fail
	nodes = nodes[:len(nodes)-3]
	edges = edges[:len(edges)-3]
	flow = p.createFlow(map[string]any{"name": "failing with credentials", "nodes": nodes, "edges": edges})
	id := p.accept(flow, map[string]any{"canary": canary})
	testkit.Eventually(t, 60*time.Second, "it has failed", func() error {
		var e execution
		if p.api("GET", "/executions/"+id, nil, &e); e.Status != "failed" {
			return fmt.Errorf("%s", e.Status)
		}
		return nil
	})
}

// monitor writes down every command that Redis gets.
func monitor(t *testing.T, port int, into io.Writer) {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	ok := make([]byte, 5)
	if _, err := io.ReadFull(c, ok); err != nil || string(ok) != "+OK\r\n" {
		t.Fatalf("MONITOR: %q %v", ok, err)
	}
	go io.Copy(into, c)
}

// tap writes down every message of the platform's exchange, headers and all.
func tap(t *testing.T, url string, into io.Writer) {
	t.Helper()
	c, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err == nil {
		err = ch.QueueBind(q.Name, "#", "flow_orchestration", false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	messages, err := ch.Consume(q.Name, "", true, true, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for m := range messages {
			fmt.Fprintf(into, "%s %v\n%s\n", m.RoutingKey, m.Headers, m.Body)
		}
	}()
}

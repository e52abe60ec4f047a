package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// count asks the database, past the gateway.
func (b *bundle) count(t *testing.T, where string) string {
	t.Helper()
	n, err := b.postgres.Exec(b.database, "SELECT count(*) FROM executions WHERE "+where)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// viaProxy puts a proxy before the database.
func viaProxy(t *testing.T, s *testkit.PostgresServer, proxy **testkit.CutProxy) func(string) string {
	return func(u string) string {
		*proxy = testkit.NewCutProxy(t, fmt.Sprintf("127.0.0.1:%d", s.Port))
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		parsed.Host = (*proxy).Address()
		return parsed.String()
	}
}

// TestPG1_LostAnswerToCommit cuts the connection when the server's answer to the commit comes by, or when the statement is on its way there: accepted once, both
// times.
func TestPG1_LostAnswerToCommit(t *testing.T) {
	t.Parallel()
	var proxy *testkit.CutProxy
	b := setup(t, setupOptions{noRedis: true, database: viaProxy(t, testkit.Postgres(t), &proxy)})
	id := b.flow(t, "unknown")
	b.run(t, id, `{"input":{"n":0}}`)
	for i, header := range [][]string{nil, {"Idempotency-Key", "k"}} {
		for side, set := range map[string]func(func([]byte) bool){"answer": proxy.OnServer, "statement": proxy.OnClient} {
			var cut atomic.Bool
			set(func(piece []byte) bool {
				mine := side == "answer" && bytes.Contains(piece, []byte("INSERT 0 1")) || side == "statement" && bytes.Contains(piece, []byte(`"n":1`))
				return !(mine && cut.CompareAndSwap(false, true))
			})
			h := header
			if h != nil {
				h = []string{h[0], h[1] + side}
			}
			var x execution
			r := b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":1}}`, h...)
			set(nil)
			if !cut.Load() {
				t.Fatalf("%d %s: nothing was cut", i, side)
			}
			r.want(t, 202).into(t, &x)
			if n := b.count(t, "id = '"+x.ID+"'"); n != "1" {
				t.Errorf("%d %s: %s rows with the id that was answered", i, side, n)
			}
			if r.header.Get("Idempotency-Replayed") != "" {
				t.Errorf("%d %s: its own first try counts as somebody else's", i, side)
			}
		}
	}
	if n := b.count(t, "true"); n != "5" {
		t.Errorf("%s rows of 5", n)
	}
	testkit.Eventually(t, 10*time.Second, "all are handed out", func() error {
		if n := b.count(t, "handed = 1"); n != "5" {
			return fmt.Errorf("%s of 5", n)
		}
		return nil
	})
}

// TestBrokerAway: what is accepted without a broker is handed out when it is back, and past a limit nothing more is accepted.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true, rabbit: testkit.NewRabbitMQ(t), change: func(o *Options) { o.UnhandedLimit = 20 }})
	id := b.flow(t, "patient")
	b.rabbit.Kill()
	testkit.Eventually(t, 10*time.Second, "the gateway is degraded and ready", func() error {
		r := b.do(t, "GET", "/readyz", "", nil)
		if r.status != 200 || !strings.Contains(string(r.body), `"degraded"`) {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
	accepted := 0
	for range 20 {
		begun := time.Now()
		b.run(t, id, `{"input":{"n":1}}`)
		accepted++
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("an accept took %s without a broker", took)
		}
	}
	testkit.Eventually(t, 20*time.Second, "no more is accepted", func() error {
		r := b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":1}}`)
		if r.status == 202 {
			accepted++
			return fmt.Errorf("accepted %d", accepted)
		}
		if r.want(t, 503).header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		return nil
	})
	b.rabbit.Start(t)
	k := b.tasks(t)
	seen := map[string]bool{}
	for len(seen) < accepted { // some may come twice
		seen[receive(t, k).ID.String()] = true
	}
	testkit.Eventually(t, 20*time.Second, "all are marked, and more is accepted", func() error {
		if n := b.count(t, "handed = 1"); n != fmt.Sprint(accepted) {
			return fmt.Errorf("%s of %d", n, accepted)
		}
		if r := b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":1}}`); r.status != 202 {
			return fmt.Errorf("%s", r.body)
		}
		return nil
	})
}

// TestMQ1_Alarm: an alarm takes nothing from those who accept.
func TestMQ1_Alarm(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true, rabbit: testkit.NewRabbitMQ(t)})
	id := b.flow(t, "alarmed")
	b.rabbit.MustCtl(t, "set_vm_memory_high_watermark", "0.00001")
	x := b.run(t, id, `{"input":{"n":1}}`)
	b.run(t, id, `{"input":{"n":2}}`)
	b.rabbit.MustCtl(t, "set_vm_memory_high_watermark", "0.4")
	k := b.tasks(t)
	if got := receive(t, k); got.ID.String() != x.ID {
		t.Logf("another came first: %s", got.ID)
	}
	receive(t, k)
}

// TestMQ4_UnroutableTask: a deleted queue loses nothing; the task comes when the queue is there again.
func TestMQ4_UnroutableTask(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "unroutable")
	b.rabbit.MustCtl(t, "-p", b.vhost, "delete_queue", "flow.tasks.default.normal")
	x := b.run(t, id, `{"input":{"n":1}}`)
	b.declare(t)
	if got := receive(t, b.tasks(t)); got.ID.String() != x.ID {
		t.Errorf("%s came, %s was accepted", got.ID, x.ID)
	}
}

// TestDatabaseAway: refused with a reason while it is away, and by itself again when it is back.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true, postgres: testkit.NewPostgres(t, true)})
	id := b.flow(t, "restarted")
	x := b.run(t, id, `{"input":{"n":1}}`)
	b.postgres.Kill()
	r := b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":2}}`).want(t, 503)
	if r.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	testkit.Eventually(t, 10*time.Second, "it isn't ready", func() error {
		if r := b.do(t, "GET", "/readyz", "", nil); r.status != 503 {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
	b.do(t, "GET", "/healthz", "", nil).want(t, 200)
	b.postgres.Start(t)
	testkit.Eventually(t, 30*time.Second, "it is ready again", func() error {
		if r := b.do(t, "GET", "/readyz", "", nil); r.status != 200 {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
	b.run(t, id, `{"input":{"n":3}}`)
	b.do(t, "GET", "/executions/"+x.ID, b.admin, nil).want(t, 200)
}

// TestStopUnderLoad: every 202 that was answered is committed and handed out when Stop returns; nothing is answered but 202 and refusals.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	id := b.flow(t, "stopped")
	var wg sync.WaitGroup
	var mu sync.Mutex
	var accepted []string
	enough := make(chan struct{})
	var once sync.Once
	for range 8 {
		wg.Go(func() {
			for {
				r, err := b.request(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":1}}`)
				if err != nil || r.status == 503 {
					return // the listener is closed
				}
				var x execution
				if r.status != 202 || json.Unmarshal(r.body, &x) != nil {
					t.Errorf("%d %s", r.status, r.body)
					return
				}
				mu.Lock()
				accepted = append(accepted, x.ID)
				if len(accepted) > 300 {
					once.Do(func() { close(enough) })
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	if err := b.app.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	wg.Wait()
	list := "id IN ('" + strings.Join(accepted, "','") + "')"
	if n := b.count(t, list+" AND handed = 1"); n != fmt.Sprint(len(accepted)) {
		t.Errorf("%s of %d are handed out", n, len(accepted))
	}
	if n := b.count(t, "handed = 0"); n != "0" {
		t.Errorf("%s rows are not handed out", n)
	}
}

// TestClientGoesAway: a commit goes on when nobody waits for its answer.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "left")
	conn := dial(t, b.app.Addr())
	body := `{"input":{"n":1}}`
	if _, err := fmt.Fprintf(conn, "POST /api/v1/flows/%s/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", id, b.bench, len(body), body); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	testkit.Eventually(t, 10*time.Second, "it is committed and handed out all the same", func() error {
		if n := b.count(t, "handed = 1"); n != "1" {
			return fmt.Errorf("%s", n)
		}
		return nil
	})
}

// TestRD1_FrozenRedis: starts go on, waits end by the row.
func TestRD1_FrozenRedis(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	id := b.flow(t, "frozen")
	b.redis.Process().Freeze()
	defer b.redis.Process().Thaw()
	begun := time.Now()
	for range 20 {
		b.do(t, "POST", "/flows/"+id+"/executions", b.admin, `{"input":{"n":1}}`).want(t, 202)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("20 starts took %s", took)
	}
	k := b.tasks(t)
	for range 20 {
		receive(t, k)
	}
	go func() { b.finish(t, receive(t, k).ID.String(), nil) }()
	b.do(t, "POST", "/flows/"+id+"/executions?wait=20s", b.admin, `{"input":{"n":1}}`).want(t, 200)
	testkit.Eventually(t, 10*time.Second, "it is degraded", func() error {
		if r := b.do(t, "GET", "/readyz", "", nil); r.status != 200 || !strings.Contains(string(r.body), "degraded") {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
}

// TestRD4_RedisLosesEverything: what must be remembered is in PostgreSQL: a key that was used stays used, whatever becomes of Redis.
func TestRD4_RedisLosesEverything(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	id := b.flow(t, "remembered")
	first := b.run(t, id, `{"input":{"n":1}}`, "Idempotency-Key", "k")
	b.redis.Kill()
	b.redis.Start(t)
	var again execution
	if r := b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":1}}`, "Idempotency-Key", "k").want(t, 202); r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%s", r.body)
	} else {
		r.into(t, &again)
	}
	if n := b.count(t, "true"); again.ID != first.ID || n != "1" {
		t.Errorf("%s and %s, %s rows", first.ID, again.ID, n)
	}
}

// TestNX3_IdleConnectionsOutliveThoseOfTheFrontDoor: NGINX, not the gateway, ends an idle connection, so that no POST goes into one that is being closed.
func TestNX3_IdleConnectionsOutliveThoseOfTheFrontDoor(t *testing.T) {
	t.Parallel()
	conf, err := os.ReadFile("../../../configs/nginx/gateways.conf")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\s*keepalive_timeout\s+(\w+);`).FindSubmatch(conf)
	if m == nil {
		t.Fatal("gateways.conf sets no keepalive_timeout for the gateways' connections")
	}
	front, err := time.ParseDuration(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	if idleTimeout < front+10*time.Second {
		t.Errorf("the gateway ends idle connections after %s, NGINX keeps them for %s", idleTimeout, front)
	}
}

package nodes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/testkit"
)

// against runs an effect with a credential.
func against(t testing.TB, x node.Executor, typ string, fields map[string]string, config string, timeout time.Duration) (string, *node.Error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c := node.Call{Execution: "e", Node: "n", Try: 1, Attempt: 1, IdempotencyKey: "e/n/-", Config: decode(t, config).(map[string]any), Now: time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC)}
	if fields != nil {
		c.Credential = func(_ context.Context, types ...string) (node.Credential, error) {
			if len(types) != 1 || types[0] != typ {
				t.Errorf("it asks for %v", types)
			}
			return node.Credential{Name: "test", Type: typ, Fields: fields}, nil
		}
	}
	r, err := x.Execute(ctx, c)
	var ne *node.Error
	switch {
	case errors.As(err, &ne):
		return "", ne
	case err != nil:
		return "", &node.Error{Code: "error", Message: err.Error(), Err: err}
	}
	return encode(t, r.Output), nil
}

func executor(t testing.TB, typ string, o Options) node.Executor {
	t.Helper()
	c, err := Catalogue(o)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := c.Executor(typ, 0)
	return x
}

func fieldsOf(t testing.TB, raw string) map[string]string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return map[string]string{"host": u.Hostname(), "port": u.Port(), "user": u.User.Username(), "password": password, "database": strings.TrimPrefix(u.Path, "/"), "sslmode": "disable"}
}

func database(t testing.TB) map[string]string {
	t.Helper()
	server := testkit.Postgres(t)
	return fieldsOf(t, server.URL("postgres", server.Database(t, func(context.Context, string) error { return nil })))
}

func TestSQL(t *testing.T) {
	t.Parallel()
	fields := database(t)
	x := executor(t, "sql.query", Options{})
	for _, tc := range []struct{ config, want string }{
		{`"query": "SELECT 9223372036854775807::bigint AS b, 0.10::numeric AS n, 123456789012345678901234567890.123456789::numeric AS l, 1.5::float8 AS f, 'NaN'::float8 AS x, true AS t, NULL AS z"`,
			`{"rowCount":1,"rows":[{"b":9223372036854775807,"f":1.5,"l":123456789012345678901234567890.123456789,"n":0.1,"t":true,"x":"NaN","z":null}]}`},
		{`"query": "SELECT '2026-03-29 01:30:00.5+02'::timestamptz AS z, '2026-03-29 01:30:00'::timestamp AS p, '2026-03-29'::date AS d, '\\x00ff'::bytea AS y, '{\"a\": 12345678901234567890}'::jsonb AS j, '00000000-0000-0000-0000-000000000001'::uuid AS u, 'infinity'::timestamptz AS i"`,
			`{"rowCount":1,"rows":[{"d":"2026-03-29","i":"infinity","j":{"a":12345678901234567890},"p":"2026-03-29T01:30:00","u":"00000000-0000-0000-0000-000000000001","y":{"base64":"AP8="},"z":"2026-03-28T23:30:00.5Z"}]}`},
		{`"query": "SELECT ARRAY[1,NULL,3]::bigint[] AS a, ARRAY['x','a \"b\" \\','NULL',NULL,'']::text[] AS t, ARRAY[[1,2],[3,4]] AS m, '{}'::int[] AS e, ARRAY['{\"k\":[1]}']::jsonb[] AS j"`,
			`{"rowCount":1,"rows":[{"a":[1,null,3],"e":[],"j":[{"k":[1]}],"m":[[1,2],[3,4]],"t":["x","a \"b\" \\","NULL",null,""]}]}`},
		{`"query": "SELECT $1::bigint AS a, $2::numeric AS b, $3::text AS c, $4::jsonb AS d, $5::text[] AS e, $6::bool AS f, $7::bytea AS g, $8::timestamptz AS h, $9::text AS i, $10::jsonb AS j", "params": [9223372036854775807, 0.123456789012345678901, "'; DROP TABLE x; --", {"a": [1]}, ["x", "a,\"}{\\", null], true, {"base64": "AP8="}, "2026-01-01T00:00:00Z", null, [1, "2"]]`,
			`{"rowCount":1,"rows":[{"a":9223372036854775807,"b":0.123456789012345678901,"c":"'; DROP TABLE x; --","d":{"a":[1]},"e":["x","a,\"}{\\",null],"f":true,"g":{"base64":"AP8="},"h":"2026-01-01T00:00:00Z","i":null,"j":[1,"2"]}]}`},
		{`"query": "CREATE TABLE t (id int PRIMARY KEY)"`, `{"rowCount":0,"rows":[]}`},
		{`"query": "INSERT INTO t VALUES (1), (2)"`, `{"rowCount":2,"rows":[]}`},
		{`"query": "INSERT INTO t VALUES ($1)", "params": [2]`, `sql false 23505`},
		{`"query": "SELEC 1"`, `sql false 42601`},
		{`"query": "SELECT 1; SELECT 2"`, `sql false 42601`},
		{`"query": "SELECT $1::int", "params": ["x"]`, `sql false 22P02`},
		{`"query": "SELECT $1::int"`, `config false`},
		{`"query": "SELECT generate_series(1, 1001)"`, `sql-too-many-rows false`},
		{`"query": "SELECT generate_series(1, 5)", "maxRows": 4`, `sql-too-many-rows false`},
		{`"query": "SELECT repeat('x', 20000000)"`, `sql-too-large false`},
		{`"query": "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$"`, `sql true 40001`},
		{`"query": "SELECT count(*) AS n FROM t"`, `{"rowCount":1,"rows":[{"n":2}]}`},
	} {
		got, ne := against(t, x, credential.Postgres, fields, `{"credential": "test", `+tc.config+`}`, time.Minute)
		if ne != nil {
			got = fmt.Sprint(ne.Code, " ", ne.Retryable)
			if d, ok := ne.Data.(map[string]any); ok {
				got += fmt.Sprint(" ", d["sqlstate"])
			}
		}
		if got != tc.want {
			t.Errorf("%s:\n got %s (%v)\nwant %s", tc.config, got, ne, tc.want)
		}
	}
}

// TestSQLEnds: a query is aborted at the timeout, on the server too.
func TestSQLEnds(t *testing.T) {
	t.Parallel()
	fields := database(t)
	x := executor(t, "sql.query", Options{})
	began := time.Now()
	if _, ne := against(t, x, credential.Postgres, fields, `{"credential": "test", "query": "SELECT pg_sleep(600)"}`, 300*time.Millisecond); ne == nil || !errors.Is(ne.Err, context.DeadlineExceeded) || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %s", ne, time.Since(began))
	}
	testkit.Eventually(t, time.Minute, "the server to stop the query", func() error {
		got, ne := against(t, x, credential.Postgres, fields, `{"credential": "test", "query": "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid() AND state = 'active'"}`, time.Minute)
		if ne != nil || !strings.Contains(got, `"n":0`) {
			return fmt.Errorf("%s %v", got, ne)
		}
		return nil
	})
}

func TestServersThatMayNotBeCalled(t *testing.T) {
	t.Parallel()
	for typ, kind := range map[string]string{"sql.query": credential.Postgres, "redis.command": credential.Redis, "amqp.publish": credential.AMQP} {
		x := executor(t, typ, Options{HTTP: HTTPOptions{DenyLoopback: true}})
		for _, host := range []string{"169.254.169.254", "127.0.0.1", "localhost", "::ffff:169.254.169.254"} {
			_, ne := against(t, x, kind, map[string]string{"host": host, "user": "u", "password": "hunter2", "database": "1", "sslmode": "prefer"},
				`{"credential": "test", "query": "SELECT 1", "command": "GET", "args": ["a"], "exchange": "x"}`, 30*time.Second)
			if ne == nil || ne.Code != "refused-address" || ne.Retryable || strings.Contains(ne.Error(), "hunter2") {
				t.Errorf("%s %s: %v", typ, host, ne)
			}
		}
	}
}

// silent accepts connections and never says a word.
func silent(t testing.TB) (host, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	host, port, _ = net.SplitHostPort(l.Addr().String())
	return host, port
}

func TestServersThatSayNothing(t *testing.T) {
	t.Parallel()
	host, port := silent(t)
	for typ, kind := range map[string]string{"sql.query": credential.Postgres, "redis.command": credential.Redis, "amqp.publish": credential.AMQP} {
		began := time.Now()
		_, ne := against(t, executor(t, typ, Options{}), kind, map[string]string{"host": host, "port": port, "user": "u", "password": "p", "database": "1"},
			`{"credential": "test", "query": "SELECT 1", "command": "GET", "args": ["a"], "exchange": "x"}`, 300*time.Millisecond)
		if ne == nil || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %s", typ, ne, time.Since(began))
		}
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(testkit.Redis(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{"host": u.Hostname(), "port": u.Port()}
	x := executor(t, "redis.command", Options{})
	key := "nodes-test-" + t.Name()
	for _, tc := range []struct{ config, want string }{
		{`"command": "SET", "args": ["K", 9223372036854775806]`, `{"result":"OK"}`},
		{`"command": "incr", "args": ["K"]`, `{"result":9223372036854775807}`},
		{`"command": "INCR", "args": ["K"]`, `redis false`},
		{`"command": "GET", "args": ["K-none"]`, `{"result":null}`},
		{`"command": "HSET", "args": ["K-h", "a", {"x": 1.50}, "b", true]`, `{"result":2}`},
		{`"command": "HGETALL", "args": ["K-h"]`, `{"result":{"a":"{\"x\":1.5}","b":"1"}}`},
		{`"command": "MGET", "args": ["K", "K-none"]`, `{"result":["9223372036854775807",null]}`},
		{`"command": "LPUSH", "args": ["K", 1]`, `redis false`},
		{`"command": "EVAL", "args": ["return {1, 'a', {2}}", 0]`, `{"result":[1,"a",[2]]}`},
		{`"command": "FLUSHALL"`, `refused-command false`},
		{`"command": "subscribe", "args": ["x"]`, `refused-command false`},
		{`"command": "GET x"`, `config false`},
		{`"command": "GET", "args": [null]`, `config false`},
	} {
		got, ne := against(t, x, credential.Redis, fields, strings.ReplaceAll(`{"credential": "test", `+tc.config+`}`, `"K`, `"`+key), time.Minute)
		if ne != nil {
			got = fmt.Sprint(ne.Code, " ", ne.Retryable)
		}
		if got != tc.want {
			t.Errorf("%s:\n got %s (%v)\nwant %s", tc.config, got, ne, tc.want)
		}
	}
	began := time.Now()
	if _, ne := against(t, x, credential.Redis, fields, `{"credential": "test", "command": "BLPOP", "args": ["nodes-test-nothing", 0]}`, 300*time.Millisecond); ne == nil || !errors.Is(ne.Err, context.DeadlineExceeded) || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %s", ne, time.Since(began))
	}
}

// TestRedisCancelled: a command that waits ends with its context, on the server too: what comes later is not lost to nobody.
func TestRedisCancelled(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(testkit.Redis(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{"host": u.Hostname(), "port": u.Port()}
	x := executor(t, "redis.command", Options{})
	command := func(ctx context.Context, config string) (node.Result, error) {
		return x.Execute(ctx, node.Call{Execution: "e", Node: "n", Try: 1, Attempt: 1, Config: decode(t, config).(map[string]any), Credential: func(context.Context, ...string) (node.Credential, error) {
			return node.Credential{Name: "test", Type: credential.Redis, Fields: fields}, nil
		}})
	}
	clients := func(want string) error {
		r, err := command(t.Context(), `{"credential": "test", "command": "INFO", "args": ["clients"]}`)
		if err != nil || !strings.Contains(fmt.Sprint(r.Output), "blocked_clients:"+want+"\r\n") {
			return fmt.Errorf("%v %v", r.Output, err)
		}
		return nil
	}
	for i, config := range []string{`{"credential": "test", "command": "blpop", "args": ["list", 0]}`, `{"credential": "test", "command": "XREAD", "args": ["block", 0, "STREAMS", "stream", "$"]}`} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		ended := make(chan error, 1)
		go func() {
			_, err := command(ctx, config)
			ended <- err
		}()
		testkit.Eventually(t, 30*time.Second, "the command waits", func() error { return clients("1") })
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("command %d: %v", i, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("command %d still waits", i)
		}
		testkit.Eventually(t, 30*time.Second, "the server has let it go", func() error { return clients("0") })
	}
	if r, err := command(t.Context(), `{"credential": "test", "command": "RPUSH", "args": ["list", 1]}`); err != nil || fmt.Sprint(r.Output) != "map[result:1]" {
		t.Errorf("what came after the cancel was taken: %v %v", r.Output, err)
	}
}

func TestAMQP(t *testing.T) {
	t.Parallel()
	server := testkit.RabbitMQ(t)
	own, vhost := server.VHost(t)
	u, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	fields := map[string]string{"host": u.Hostname(), "port": u.Port(), "user": u.User.Username(), "password": password, "vhost": vhost}
	x := executor(t, "amqp.publish", Options{AMQPURL: own})
	publish := func(fields map[string]string, config string) string {
		got, ne := against(t, x, credential.AMQP, fields, config, time.Minute)
		if ne != nil {
			return fmt.Sprint(ne.Code, " ", ne.Retryable)
		}
		return got
	}
	const confirmed = `{"confirmed":true,"messageId":"e/n/-"}`
	if got := publish(nil, `{"exchange": "orders", "routingKey": "a.b", "body": 1}`); got != confirmed { // declares it
		t.Fatal(got)
	}
	conn, err := amqp.Dial(own)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("q", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("q", "a.#", "orders", false, nil); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ config, body, want string }{
		{`{"exchange": "orders", "routingKey": "a.b", "body": {"n": 12345678901234567890}, "headers": {"h": 7, "s": "x"}, "mandatory": true}`, `{"n":12345678901234567890}`, confirmed},
		{`{"exchange": "", "routingKey": "q", "body": "text", "mandatory": true}`, `text`, confirmed},
		{`{"exchange": "orders", "routingKey": "none", "body": 1, "mandatory": true}`, ``, `amqp-unroutable false`},
		{`{"exchange": "orders", "routingKey": "none", "body": 1}`, ``, confirmed},
		{`{"exchange": "orders", "headers": {"h": []}}`, ``, `config false`},
	} {
		for _, f := range []map[string]string{nil, fields} {
			config := tc.config
			if f != nil {
				config = `{"credential": "test", ` + config[1:]
			}
			if got := publish(f, config); got != tc.want {
				t.Errorf("%s: %s, want %s", config, got, tc.want)
			}
			m, ok, err := ch.Get("q", true)
			if err != nil || ok != (tc.body != "") || string(m.Body) != tc.body {
				t.Errorf("%s: %q %v %v", config, m.Body, ok, err)
			}
			if ok && (m.MessageId != "e/n/-" || m.DeliveryMode != amqp.Persistent) {
				t.Errorf("%+v", m)
			}
		}
	}
	fields["password"] = "wrong"
	if got := publish(fields, `{"credential": "test", "exchange": "orders"}`); !strings.HasPrefix(got, "amqp false") {
		t.Error(got)
	}
}

// TestAMQPFrozen: a broker that stands still in the middle holds nobody beyond the timeout, and the node works again when it goes on.
func TestAMQPFrozen(t *testing.T) {
	t.Parallel()
	server := testkit.RabbitMQ(t)
	own, _ := server.VHost(t)
	u, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	proxy := testkit.NewCutProxy(t, u.Host)
	u.Host = proxy.Address()
	x := executor(t, "amqp.publish", Options{AMQPURL: u.String()})
	const config = `{"exchange": "orders", "body": 1}`
	if _, ne := against(t, x, "", nil, config, time.Minute); ne != nil {
		t.Fatal(ne)
	}
	proxy.DropToClient(true)
	began := time.Now()
	if _, ne := against(t, x, "", nil, config, 300*time.Millisecond); ne == nil || !errors.Is(ne.Err, context.DeadlineExceeded) || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %s", ne, time.Since(began))
	}
	proxy.DropToClient(false)
	proxy.Sever()
	testkit.Eventually(t, time.Minute, "publishing again", func() error {
		if _, ne := against(t, x, "", nil, config, 5*time.Second); ne != nil {
			return ne
		}
		return nil
	})
}

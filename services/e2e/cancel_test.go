package e2e

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"flowplatform/services/internal/testkit"
)

// inTime is how long a cancel may take on a busy machine; tens of milliseconds are usual.
const inTime = 10 * time.Second

// cancelled cancels an execution and sees that it ends so, in time.
func (p *platform) cancelled(id string, limit time.Duration) {
	p.t.Helper()
	begun := time.Now()
	if code := p.api("POST", "/executions/"+id+"/cancel", nil, nil); code >= 300 {
		p.t.Fatalf("cancel: %d", code)
	}
	p.until(id, "cancelled")
	took := time.Since(begun)
	p.t.Logf("%s after the cancel", took.Round(time.Millisecond))
	if took > limit {
		p.t.Errorf("it took %s", took)
	}
}

// cancelOfServers: calls of servers that would last for an hour end when their execution is cancelled, each in its longest phase: a query that runs, a command that
// waits, a message that the broker has and never confirms.
func cancelOfServers(t *testing.T, p *platform, _ *office) {
	redis := testkit.Redis(t)
	rabbit, vhost := p.rabbit.VHost(t)
	u, err := url.Parse(rabbit)
	if err != nil {
		t.Fatal(err)
	}
	deaf := testkit.NewCutProxy(t, u.Host) // between the worker and the broker
	_, port, _ := net.SplitHostPort(deaf.Address())
	deafPort, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	q := *p
	q.token = p.admin
	password, _ := u.User.Password()
	for _, c := range []obj{
		{"name": "slow-database", "type": "postgres", "public": obj{"host": "127.0.0.1", "port": p.pg.Port, "database": p.database, "user": "postgres", "sslmode": "disable"}, "secret": obj{"password": "test"}},
		{"name": "slow-redis", "type": "redis", "public": obj{"host": "127.0.0.1", "port": redis.Port}},
		{"name": "deaf-broker", "type": "amqp", "public": obj{"host": "127.0.0.1", "port": deafPort, "vhost": vhost, "user": u.User.Username()}, "secret": obj{"password": password}},
	} {
		q.must(201, "POST", "/credentials", c, nil)
	}
	queue := watched(t, rabbit)
	for _, tc := range []struct {
		name, typ string
		config    obj
		under     func() error // nil: it is in its longest phase
		gone      func() error // nil: nothing of it is left on the server
	}{
		{"query", "sql.query", obj{"credential": "slow-database", "query": "SELECT pg_sleep(3600)"}, func() error { return p.sleepers(1) }, func() error { return p.sleepers(0) }},
		{"command", "redis.command", obj{"credential": "slow-redis", "command": "BLPOP", "args": []any{"nothing", 0}}, func() error { return blocked(redis.Port, 1) }, func() error { return blocked(redis.Port, 0) }},
		{"message", "amqp.publish", obj{"credential": "deaf-broker", "exchange": "amq.topic", "routingKey": "x", "body": "{{ input }}"}, func() error { return queue(2) }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := *p
			q.t = t
			flow := q.createFlow(obj{"name": "cancel a " + tc.name, "nodes": []any{manual, obj{"id": "x", "type": tc.typ, "timeout": "1h", "config": tc.config}}, "edges": []any{edge("start", "x")}})
			if tc.name == "message" { // the connection is made and used once; then the broker's words are lost
				q.until(q.accept(flow, "first"), "succeeded")
				deaf.DropToClient(true)
			}
			id := q.accept(flow, "second")
			testkit.Eventually(t, 30*time.Second, "the server is at it", tc.under)
			if e := q.until(id, "running"); e.Status != "running" {
				t.Fatal(e.Status)
			}
			q.cancelled(id, inTime)
			if tc.gone != nil {
				testkit.Eventually(t, 30*time.Second, "nothing of it is left on the server", tc.gone)
			}
		})
	}
}

// sleepers says whether so many queries sleep in the database.
func (p *platform) sleepers(want int) error {
	n, err := p.pg.Exec(p.database, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(3600)%'")
	if err != nil || strings.TrimSpace(n) != fmt.Sprint(want) {
		return fmt.Errorf("%s queries, want %d, %v", n, want, err)
	}
	return nil
}

// blocked says whether so many of a Redis server's clients wait in a command.
func blocked(port, want int) error {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "INFO clients\r\nQUIT\r\n"); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(b), fmt.Sprintf("blocked_clients:%d\r\n", want)) {
		return fmt.Errorf("want %d blocked clients: %s, %v", want, b, err)
	}
	return nil
}

// watched makes a queue that takes what goes to amq.topic, and gives what says whether so many messages are in it.
func watched(t *testing.T, url string) func(want int) error {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("watched", false, true, true, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("watched", "#", "amq.topic", false, nil); err != nil {
		t.Fatal(err)
	}
	return func(want int) error {
		q, err := ch.QueueDeclarePassive("watched", false, true, true, false, nil)
		if err != nil || q.Messages != want {
			return fmt.Errorf("%d messages, want %d, %v", q.Messages, want, err)
		}
		return nil
	}
}

// cancelGoesDown: a cancel of the uppermost execution ends those that it waits for, two deep, and cuts the call that the lowest one is in.
func cancelGoesDown(t *testing.T, p *platform, o *office) {
	o.set(o.slow, "/deep", true)
	t.Cleanup(func() { o.set(o.slow, "/deep", false) })
	calls := func(name, flow string) string {
		return p.createFlow(obj{"name": name, "nodes": []any{manual, obj{"id": "call", "type": "flow.call", "config": obj{"flow": flow}}}, "edges": []any{edge("start", "call")}})
	}
	lowest := p.createFlow(obj{"name": "lowest", "nodes": []any{manual, post(o, "x", "/deep")}, "edges": []any{edge("start", "x")}})
	top := p.accept(calls("uppermost", calls("middle", lowest)), nil)
	var ids []string
	testkit.Eventually(t, 30*time.Second, "the lowest one is in its call", func() error {
		ids = ids[:0]
		for parent := top; len(ids) < 2; {
			var list struct{ Items []execution }
			if p.api("GET", "/executions?parent="+parent, nil, &list); len(list.Items) != 1 {
				return fmt.Errorf("%s has %d children", parent, len(list.Items))
			}
			parent = list.Items[0].ID
			ids = append(ids, parent)
		}
		if n := o.count("/deep")[0]; n != 1 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	p.cancelled(top, inTime)
	for _, id := range ids {
		p.until(id, "cancelled")
	}
	testkit.Eventually(t, inTime, "the call is cut", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.gone["/deep"] != 1 {
			return fmt.Errorf("%d cut", o.gone["/deep"])
		}
		return nil
	})
}

// cancelWithoutWorker: the worker is frozen or dead, and stays so. What it was in ends as cancelled, when its death is proven or judged by its lease, not when it comes back; what
// waits and what is queued end at once. When the worker is there again, nothing of it goes on.
func cancelWithoutWorker(t *testing.T, p *platform, o *office) {
	o.set(o.slow, "/last", true)
	t.Cleanup(func() { o.set(o.slow, "/last", false) })
	flow := p.createFlow(obj{"name": "without a worker", "nodes": []any{manual, post(o, "last", "/last"), post(o, "never", "/never")}, "edges": []any{edge("start", "last"), edge("last", "never")}})
	for name, stop := range map[string]func(*service){
		"frozen": func(s *service) { s.process().Freeze() },
		"dead":   func(s *service) { s.stop(true) },
	} {
		t.Run(name, func(t *testing.T) {
			q := *p
			q.t = t
			before := o.count("/last")[0]
			running := q.accept(flow, nil)
			testkit.Eventually(t, 30*time.Second, "it is in its call", func() error {
				if n := o.count("/last")[0]; n != before+1 {
					return fmt.Errorf("%d calls", n-before)
				}
				return nil
			})
			w := q.workers[0]
			stop(w)
			queued := q.accept(flow, nil)
			q.cancelled(queued, inTime)
			q.cancelled(running, inTime+2*lease)
			if name == "dead" {
				w.start()
			} else {
				w.process().Thaw()
			}
			w.waitReady()
			id := q.accept(flow, nil) // it works again
			testkit.Eventually(t, 60*time.Second, "another one is in its call", func() error {
				if n := o.count("/last")[0]; n != before+2 {
					return fmt.Errorf("%d calls", n-before)
				}
				return nil
			})
			q.cancelled(id, inTime)
			if n := o.count("/never")[0]; n != 0 {
				t.Errorf("a step after the cancelled one was called %d times", n)
			}
		})
	}
}

package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const hookFlow = `{"name": %q, "nodes": [{"id": "hook", "type": "trigger.webhook", "config": {"path": %q%s}}, {"id": "set", "type": "data.set", "config": {"values": {"n": 1}}},
	{"id": "answer", "type": "flow.respond", "config": {"status": 201, "body": {"ok": true}}}, {"id": "later", "type": "data.set", "config": {"values": {}}}],
	"edges": [{"from": "hook", "to": "set"}, {"from": "set", "to": "answer"}, {"from": "answer", "to": "later"}]}`

// hooked publishes a flow with a webhook; config is what stands behind its path.
func (b *bundle) hooked(t testing.TB, name, path, config string) string {
	t.Helper()
	var f struct{ ID string }
	b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(hookFlow, name, path, config)).want(t, 201).into(t, &f)
	return f.ID
}

type envelope struct {
	Method, Path, RawQuery, Address, BodyType string
	Query, Headers                            map[string]string
	Body                                      json.RawMessage
}

func TestHookInput(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	b.hooked(t, "in", "shop/orders", `, "headers": ["X-Shop-Event"]`)
	k := b.tasks(t)
	for name, tc := range map[string]struct {
		query, contentType, body string
		kind, value              string
	}{
		"json":    {"a=1&a=2&b=", "application/json; charset=utf-8", `{"n": 9007199254740993}`, "json", `{"n":9007199254740993}`},
		"cloud":   {"", "application/cloudevents+json", `[1]`, "json", `[1]`},
		"form":    {"", "application/x-www-form-urlencoded", "x=1&x=2&y=%C3%A4", "form", `{"x":"1","y":"ä"}`},
		"text":    {"", "text/plain", "hello", "text", `"hello"`},
		"xml":     {"", "application/xml", "<a/>", "text", `"\u003ca/\u003e"`},
		"binary":  {"", "application/octet-stream", "\xff\x00", "base64", `"/wA="`},
		"untyped": {"", "", "x", "base64", `"eA=="`},
		"none":    {"", "application/json", "", "none", `null`},
	} {
		var x struct{ ID, Status string }
		r := b.do(t, "POST", "/hooks/shop/orders?"+tc.query, "", tc.body, "Content-Type", tc.contentType, "X-Shop-Event", "paid", "Cookie", "session=secret", "X-Api-Key", "secret", "Authorization", "Bearer secret").want(t, 202).into(t, &x)
		task := receive(t, k)
		if task.ID.String() != x.ID || task.Trigger != "webhook" || x.Status != "queued" || strings.Contains(string(task.Input), "secret") {
			t.Errorf("%s: %s %+v", name, task.Input, task)
		}
		var in envelope
		if err := json.Unmarshal(task.Input, &in); err != nil {
			t.Fatal(err)
		}
		if in.Method != "POST" || in.Path != "shop/orders" || in.RawQuery != tc.query || in.BodyType != tc.kind || string(in.Body) != tc.value || in.Headers["x-shop-event"] != "paid" || in.Address != "127.0.0.1" {
			t.Errorf("%s: %s", name, task.Input)
		}
		if name == "json" && (in.Query["a"] != "1" || in.Query["b"] != "" || len(in.Query) != 2) {
			t.Errorf("%s", task.Input)
		}
		if csp := r.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "sandbox") {
			t.Errorf("policy %q", csp)
		}
	}
	if n := b.count(t, "client = 'hook:shop/orders'"); n != "8" {
		t.Errorf("%s executions", n)
	}
}

func TestHookRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	sum := sha256.Sum256([]byte("0123456789abcdef"))
	b.hooked(t, "guarded", "g", `, "tokenSha256": "`+hex.EncodeToString(sum[:])+`"`)
	b.hooked(t, "reads", "g", `, "method": "GET"`)
	post := func(status int, body string, header ...string) *response {
		t.Helper()
		return b.do(t, "POST", "/hooks/g", "", body, header...).want(t, status)
	}
	if r := post(401, "{}"); r.header.Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
	post(401, "{}", "X-Hook-Token", "wrong")
	good := []string{"X-Hook-Token", "0123456789abcdef"}
	post(202, "{}", good...)
	post(202, "{}", "Authorization", "Bearer 0123456789abcdef")
	post(400, `{"a": `, good...)
	post(400, "\xff", append(good, "Content-Type", "text/plain")...)
	post(415, "a", append(good, "Content-Type", "text/plain; charset=latin1")...)
	post(415, "a", append(good, "Content-Type", "nonsense/")...)
	post(413, strings.Repeat("a", 257<<10), append(good, "Content-Type", "text/plain")...)
	post(413, strings.Repeat("\xff", 200<<10), append(good, "Content-Type", "image/png")...) // too large as base64
	b.do(t, "POST", "/hooks/g?%zz", "", "{}", good...).want(t, 400)
	b.do(t, "POST", "/hooks/nothing", "", "{}").want(t, 404)
	b.do(t, "POST", "/hooks/", "", "{}").want(t, 404)
	b.do(t, "POST", "/hooks/g/", "", "{}").want(t, 404)
	if r := b.do(t, "PUT", "/hooks/g", "", "{}").want(t, 405); r.header.Get("Allow") != "HEAD, OPTIONS, GET, POST" {
		t.Errorf("Allow: %s", r.header.Get("Allow"))
	}
	b.do(t, "HEAD", "/hooks/g", "", nil).want(t, 204)
	b.do(t, "OPTIONS", "/hooks/g", "", nil).want(t, 204)
	if n := b.count(t, "true"); n != "2" {
		t.Errorf("%s executions, 2 were accepted", n)
	}
	b.do(t, "GET", "/hooks/g", "", nil).want(t, 202)

	var x, y struct{ ID string }
	key := append(good, "Idempotency-Key", "k1")
	post(202, `{"a":1}`, key...).into(t, &x)
	r := post(202, `{"a": 1}`, key...).into(t, &y)
	if x.ID != y.ID || r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%s %s", x.ID, y.ID)
	}
	post(422, `{"a":2}`, key...)
	post(422, `{}`, append(good, "Idempotency-Key", strings.Repeat("k", 201))...)
}

// TestHookOwnership: a path and method belong to one published flow.
func TestHookOwnership(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	one := b.hooked(t, "one", "p", "")
	r := b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(hookFlow, "two", "p", "")).want(t, 409)
	if got := r.pointers(t); !slices.Equal(got, []string{"/nodes/0/config/path"}) || !strings.Contains(string(r.body), `\"one\"`) {
		t.Errorf("%s", r.body)
	}
	var two struct{ ID string }
	b.do(t, "POST", "/flows?draft=true", b.admin, fmt.Sprintf(hookFlow, "two", "p", "")).want(t, 201).into(t, &two)
	b.do(t, "POST", "/flows/"+two.ID+"/versions/1/publish", b.admin, nil).want(t, 409)
	var f struct {
		PublishedVersion, Revision int
	}
	b.do(t, "GET", "/flows/"+two.ID, b.admin, nil).want(t, 200).into(t, &f)
	if f.PublishedVersion != 0 {
		t.Errorf("%+v", f)
	}
	b.do(t, "PUT", "/flows/"+one, b.admin, fmt.Sprintf(hookFlow, "one", "q", "")).want(t, 200)
	b.do(t, "POST", "/hooks/p", "", "{}").want(t, 404)
	b.do(t, "POST", "/hooks/q", "", "{}").want(t, 202)
	b.do(t, "POST", "/flows/"+two.ID+"/versions/1/publish", b.admin, nil, "If-Match", `"99"`).want(t, 412)
	b.do(t, "POST", "/flows/"+two.ID+"/versions/1/publish", b.admin, nil, "If-Match", fmt.Sprintf(`"%d"`, f.Revision)).want(t, 200)
	b.do(t, "POST", "/hooks/p", "", "{}").want(t, 202)
	b.do(t, "POST", "/flows/"+one+"/versions/1/publish", b.admin, nil).want(t, 409)
	b.do(t, "DELETE", "/flows/"+two.ID, b.admin, nil).want(t, 204)
	b.do(t, "POST", "/hooks/p", "", "{}").want(t, 404)
	b.do(t, "POST", "/flows/"+one+"/versions/1/publish", b.admin, nil).want(t, 200)
	b.do(t, "POST", "/hooks/p", "", "{}").want(t, 202)

	for config, want := range map[string][]string{
		`, "method": "{{ input.m }}"`: {"/nodes/0/config/method"}, `, "headers": ["Cookie"]`: {"/nodes/0/config/headers/0"}, `, "wait": "2m"`: {"/nodes/0/config/wait"}, `, "wait": "soon"`: {"/nodes/0/config/wait"},
	} {
		if got := b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(hookFlow, "wrong", "w", config)).want(t, 422).pointers(t); !slices.Equal(got, want) {
			t.Errorf("%s: %v", config, got)
		}
	}
	if got := b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(hookFlow, "wrong", "a/../b", "")).want(t, 422).pointers(t); !slices.Equal(got, []string{"/nodes/0/config/path"}) {
		t.Errorf("%v", got)
	}
	twice := strings.Replace(fmt.Sprintf(hookFlow, "wrong", "w", ""), `"nodes": [`, `"nodes": [{"id": "other", "type": "trigger.webhook", "config": {"path": "w"}}, `, 1)
	twice = strings.Replace(twice, `"edges": [`, `"edges": [{"from": "other", "to": "set"}, `, 1)
	if got := b.do(t, "POST", "/flows", b.admin, twice).want(t, 422).pointers(t); !slices.Equal(got, []string{"/nodes/1/config/path"}) {
		t.Errorf("%v", got)
	}
	// Two triggers: the node's id tells where it enters.
	several := strings.Replace(twice, `"config": {"path": "w"}}, {"id": "hook"`, `"config": {"path": "v"}}, {"id": "hook"`, 1)
	b.do(t, "POST", "/flows", b.admin, several).want(t, 201)
	var x struct{ ID string }
	for path, want := range map[string]string{"v": "webhook", "w": "hook"} {
		b.do(t, "POST", "/hooks/"+path, "", "{}").want(t, 202).into(t, &x)
		if n := b.count(t, "id = '"+x.ID+"' AND trigger = '"+want+"'"); n != "1" {
			t.Errorf("%s: another trigger", path)
		}
	}
}

// apply applies an entry of a report for the first attempt, as a collector does.
func (b *bundle) apply(t testing.TB, e protocol.Entry, events ...flow.Event) {
	t.Helper()
	var err error
	if e.Events, err = protocol.EncodeEvents(events); err != nil {
		t.Fatal(err)
	}
	e.Attempt = 1
	var out protocol.Outcome
	err = b.owner.Txn(context.Background(), "collect", func(tx protocol.Tx) error {
		var err error
		out, err = protocol.ApplyReports(context.Background(), tx, 0, []protocol.Entry{e}, true)
		return err
	})
	if err != nil || len(out.News) != 1 {
		t.Errorf("%v %+v", err, out)
	}
	b.app.follow.news(out.News)
}

// called calls a hook and gives the answer when it is there.
func (b *bundle) called(t testing.TB, url, path string, header ...string) <-chan *response {
	ch := make(chan *response, 1)
	go func() {
		c := *b
		c.url = url
		r, err := c.request(t, "POST", path, "", "{}", header...)
		if err != nil {
			t.Error(err)
			r = &response{}
		}
		ch <- r
	}()
	return ch
}

func answered(node string, output any) flow.Event {
	return flow.Event{Type: flow.EventSucceeded, Node: node, Try: 1, Output: output, At: time.Now().UTC()}
}

// TestHookRespond: the flow's answer reaches the caller while the flow goes on, with Redis and without, in whichever gateway waits.
func TestHookRespond(t *testing.T) {
	t.Parallel()
	for _, noRedis := range []bool{false, true} {
		t.Run(fmt.Sprintf("noRedis=%t", noRedis), func(t *testing.T) {
			t.Parallel()
			b := setup(t, setupOptions{noRedis: noRedis})
			first := b.url
			b.start(t) // a second gateway: the report is told by this one, the caller waits at the other
			b.hooked(t, "answers", "a", `, "respond": "flow", "wait": "20s"`)
			k := b.tasks(t)
			ch := b.called(t, first, "/hooks/a")
			id := receive(t, k).ID
			b.apply(t, protocol.Entry{Kind: protocol.EntryStep, Execution: id, Seq: 1}, answered("set", map[string]any{"n": 1}))
			select {
			case r := <-ch:
				t.Fatalf("answered before the flow did: %s", r.body)
			default:
			}
			at := time.Now()
			b.apply(t, protocol.Entry{Kind: protocol.EntryStep, Execution: id, Seq: 2, Base: 1}, answered("answer", map[string]any{"status": 201, "headers": map[string]any{"X-Order": "7"}, "body": map[string]any{"n": 9007199254740993}}))
			r := (<-ch).want(t, 201)
			t.Logf("answered %s after the report", time.Since(at))
			if string(r.body) != `{"n":9007199254740993}` || r.header.Get("X-Order") != "7" || r.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %v", r.body, r.header)
			}
			if n := b.count(t, "state = 'queued'"); n != "1" {
				t.Error("the flow doesn't go on")
			}

			// Text; the answer comes with the end, in one report.
			ch = b.called(t, first, "/hooks/a", "Idempotency-Key", "k")
			id = receive(t, k).ID
			end := protocol.Entry{Kind: protocol.EntryFinal, Execution: id, Seq: 1, State: protocol.Succeeded, Output: json.RawMessage(`{}`)}
			b.apply(t, end, answered("answer", map[string]any{"status": 200, "headers": map[string]any{}, "body": "hello"}))
			if r := (<-ch).want(t, 200); string(r.body) != "hello" || r.header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s %v", r.body, r.header)
			}
			// The same key: the same answer, long after.
			if r := (<-b.called(t, first, "/hooks/a", "Idempotency-Key", "k")).want(t, 200); string(r.body) != "hello" || r.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("%s", r.body)
			}

			// A large answer stands elsewhere, and so may those of other steps.
			ch = b.called(t, first, "/hooks/a")
			id = receive(t, k).ID
			large := []byte(`{"body":"` + strings.Repeat("x", 300<<10) + `","headers":{},"status":200}`)
			if err := b.owner.PutPayload(t.Context(), store.NewPayload(id, large)); err != nil {
				t.Fatal(err)
			}
			apply(t, b, protocol.Entry{Kind: protocol.EntryStep, Execution: id, Attempt: 1, Seq: 1, Events: fmt.Appendf(nil,
				`[{"t":"ok","n":"set","try":1,"at":"2030-01-02T03:04:05Z","r":{"r":"%064d","s":9}},{"t":"ok","n":"answer","try":1,"at":"2030-01-02T03:04:05Z","r":{"r":"%s","s":%d}}]`, 0, payload.Ref(large), len(large))})
			if r := (<-ch).want(t, 200); len(r.body) != 300<<10 {
				t.Errorf("%d bytes", len(r.body))
			}

			for state, want := range map[protocol.State]int{protocol.Succeeded: 200, protocol.Failed: 500, protocol.TimedOut: 504} {
				ch = b.called(t, first, "/hooks/a")
				id = receive(t, k).ID
				end := protocol.Entry{Kind: protocol.EntryFinal, Execution: id, Seq: 1, State: state, Output: json.RawMessage(`{"n":7}`)}
				if state != protocol.Succeeded {
					end.Output, end.Error = nil, &flow.Failure{Code: "secret", Message: "secret"}
				}
				b.apply(t, end)
				r := (<-ch).want(t, want)
				if strings.Contains(string(r.body), "secret") || want == 200 && string(r.body) != "{\"n\":7}\n" || want != 200 && !strings.Contains(string(r.body), id.String()) {
					t.Errorf("%s: %s", state, r.body)
				}
			}
		})
	}
}

// TestHookPatience: what takes longer than the trigger waits is accepted and goes on.
func TestHookPatience(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	b.hooked(t, "slow", "s", `, "respond": "flow", "wait": "300ms"`)
	begun := time.Now()
	var x struct{ ID string }
	b.do(t, "POST", "/hooks/s", "", "{}").want(t, 202).into(t, &x)
	if took := time.Since(begun); took < 300*time.Millisecond {
		t.Errorf("answered after %s", took)
	}
	if n := b.count(t, "id = '"+x.ID+"' AND state = 'queued'"); n != "1" {
		t.Error("it doesn't go on")
	}
}

func TestHookLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true, change: func(o *Options) { o.APIRateLimit = 3 }})
	doc := json.RawMessage(fmt.Sprintf(hookFlow, "limited", "l", ""))
	if _, err := b.owner.CreateFlow(t.Context(), store.Flow{Name: "limited"}, doc, "test", true, store.Hook{Node: "hook", Path: "l", Method: "POST"}, store.Hook{Node: "hook", Path: "m", Method: "POST"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.do(t, "POST", "/hooks/l", "", "{}").want(t, 202)
	}
	if r := b.do(t, "POST", "/hooks/l", "", "{}").want(t, 429); r.header.Get("Retry-After") == "" || r.header.Get("RateLimit-Limit") != "3" {
		t.Errorf("%v", r.header)
	}
	b.do(t, "POST", "/hooks/l", "", "{}", "X-Forwarded-For", "192.0.2.7").want(t, 202) // another address
	for range 3 {
		b.do(t, "POST", "/hooks/nothing", "", "{}").want(t, 404)
	}
	b.do(t, "POST", "/hooks/nothing-else", "", "{}").want(t, 429) // guesses
}

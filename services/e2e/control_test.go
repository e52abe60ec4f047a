package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// office is the outside world of these tests: it counts calls by path, fails what is broken, and holds up what is slow.
type office struct {
	url   string
	mu    sync.Mutex
	calls map[string]int
	fails map[string]bool
	slow  map[string]bool
	gone  map[string]int // calls that were given up while they were held up
}

func newOffice(t *testing.T) *office {
	o := &office{calls: map[string]int{}, fails: map[string]bool{}, slow: map[string]bool{}, gone: map[string]int{}}
	s := httptest.NewServer(o)
	t.Cleanup(s.Close)
	o.url = s.URL
	return o
}

func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.calls[r.URL.Path]++
	fails, slow := o.fails[r.URL.Path], o.slow[r.URL.Path]
	o.mu.Unlock()
	if slow {
		<-r.Context().Done()
		o.mu.Lock()
		o.gone[r.URL.Path]++
		o.mu.Unlock()
		return
	}
	if fails {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"path": %q}`, r.URL.Path)
}

func (o *office) set(of map[string]bool, path string, v bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	of[path] = v
}

func (o *office) count(paths ...string) []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]int, len(paths))
	for i, p := range paths {
		out[i] = o.calls[p]
	}
	return out
}

// under sums the calls whose path has the prefix, and tells the most of one path.
func (o *office) under(prefix string) (sum, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for p, n := range o.calls {
		if strings.HasPrefix(p, prefix) {
			sum, most = sum+n, max(most, n)
		}
	}
	return sum, most
}

type obj = map[string]any

func post(o *office, id, path string) obj {
	return obj{"id": id, "type": "http.request", "config": obj{"method": "POST", "url": o.url + path}, "retry": obj{"maxAttempts": 1}}
}

func edge(from, to string) obj { return obj{"from": from, "to": to} }

var manual = obj{"id": "start", "type": "trigger.manual"}

// TestControl: what people do with flows while they run, on the real platform, seen from outside.
func TestControl(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "credentials.keys")
	if err := os.WriteFile(keys, []byte(masterKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPlatform(t, size{orchestrators: 2, workers: 1, slots: 500, env: []string{"CREDENTIALS_TOKEN=token-of-the-workers"},
		gateway: []string{"CREDENTIALS_KEY_FILE=" + keys, "CREDENTIALS_TOKEN=token-of-the-workers"}})
	o := newOffice(t)
	p.token = p.admin
	var operator struct{ Token string }
	p.must(201, "POST", "/tokens", obj{"name": "operator", "role": "operator", "rateLimit": -1}, &operator)
	p.token = operator.Token
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *platform, *office)
	}{
		{"RetryAfterAFailedStep", retryAfterAFailedStep},
		{"RetryInALoopAndInBranches", retryInALoop},
		{"Replay", replayed},
		{"PauseAndResume", pauseAndResume},
		{"FlowPausedAndResumed", flowPaused},
		{"NodeTypeAndPoolPaused", typeAndPoolPaused},
		{"CancelInAnyPhase", cancelInAnyPhase},
		{"CancelOfServers", cancelOfServers},
		{"CancelGoesDown", cancelGoesDown},
		{"CancelWithoutWorker", cancelWithoutWorker},
		{"BulkRetryWithTheLeaderKilled", bulkRetry},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := *p
			q.t = t
			tc.run(t, &q, o)
		})
	}
}

func (p *platform) until(id, status string) execution {
	p.t.Helper()
	var e execution
	testkit.Eventually(p.t, 40*time.Second, id+" is "+status, func() error {
		if code := p.api("GET", "/executions/"+id, nil, &e); code != 200 || e.Status != status {
			return fmt.Errorf("%d %s %s", code, e.Status, e.Error)
		}
		return nil
	})
	return e
}

func (p *platform) must(want int, method, path string, body, into any) {
	p.t.Helper()
	if code := p.api(method, path, body, into); code != want {
		p.t.Fatalf("%s %s: %d, want %d", method, path, code, want)
	}
}

func retryAfterAFailedStep(t *testing.T, p *platform, o *office) {
	flow := p.createFlow(documented(t, "## Control", o.url))
	o.set(o.fails, "/r/charge", true)
	id := p.accept(flow, nil)
	p.until(id, "failed")
	p.must(202, "POST", "/executions/"+id+"/retry", nil, nil)
	p.until(id, "failed") // it is still broken
	p.must(409, "POST", "/executions/"+id+"/resume", nil, nil)
	o.set(o.fails, "/r/charge", false)
	p.must(202, "POST", "/executions/"+id+"/retry", nil, nil)
	p.until(id, "succeeded")
	p.must(409, "POST", "/executions/"+id+"/retry", nil, nil)
	if got := o.count("/r/reserve", "/r/charge", "/r/mail"); !slices.Equal(got, []int{1, 3, 1}) {
		t.Errorf("calls of the steps: %v, want 1, 3, 1: what had succeeded isn't done again", got)
	}
	var e struct{ Retries, Attempt int }
	p.must(200, "GET", "/executions/"+id, nil, &e)
	if e.Retries != 2 {
		t.Errorf("%+v", e)
	}
}

// documented is the flow that docs/flows.md shows first under a heading, with the shop at url.
func documented(t *testing.T, heading, url string) json.RawMessage {
	t.Helper()
	page, err := os.ReadFile("../../docs/flows.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n"+heading)
	_, rest, _ = strings.Cut(rest, "```json\n")
	doc, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatalf("docs/flows.md shows no flow under %q", heading)
	}
	return json.RawMessage(strings.ReplaceAll(doc, "https://shop.example", url))
}

func retryInALoop(t *testing.T, p *platform, o *office) {
	inside := post(o, "visit", "/loop/{{ item }}")
	inside["parent"] = "each"
	flow := p.createFlow(obj{"name": "retry in a loop", "nodes": []any{manual, obj{"id": "each", "type": "logic.foreach", "config": obj{"items": "{{ [1, 2, 3, 4] }}", "concurrency": 1}}, inside,
		post(o, "beside", "/loop/beside"), obj{"id": "all", "type": "logic.merge", "config": obj{"mode": "all"}}},
		"edges": []any{edge("start", "each"), edge("start", "beside"), edge("each", "all"), edge("beside", "all")}})
	o.set(o.fails, "/loop/3", true)
	id := p.accept(flow, nil)
	p.until(id, "failed")
	o.set(o.fails, "/loop/3", false)
	p.must(202, "POST", "/executions/"+id+"/retry", nil, nil)
	p.until(id, "succeeded")
	if got := o.count("/loop/1", "/loop/2", "/loop/3", "/loop/4", "/loop/beside"); !slices.Equal(got, []int{1, 1, 2, 1, 1}) {
		t.Errorf("calls of the rounds: %v", got)
	}
}

func replayed(t *testing.T, p *platform, o *office) {
	doc := obj{"name": "replay", "nodes": []any{manual, post(o, "a", "/p/a-{{ input.n }}"), post(o, "b", "/p/b-{{ input.n }}"), obj{"id": "out", "type": "data.set", "config": obj{"values": obj{"a": "{{ steps.a.output }}", "n": "{{ input.n }}"}}}},
		"edges": []any{edge("start", "a"), edge("a", "b"), edge("b", "out")}}
	flow := p.createFlow(doc)
	id := p.accept(flow, obj{"n": 1})
	p.until(id, "succeeded")
	replay := func(body obj) execution {
		t.Helper()
		var made execution
		p.must(202, "POST", "/executions/"+id+"/replay", body, &made)
		e := p.until(made.ID, "succeeded")
		var full struct{ ReplayOf string }
		p.must(200, "GET", "/executions/"+made.ID, nil, &full)
		if full.ReplayOf != id {
			t.Errorf("replayOf %q", full.ReplayOf)
		}
		return e
	}
	replay(obj{"input": obj{"n": 2}})
	if got := o.count("/p/a-1", "/p/b-1", "/p/a-2", "/p/b-2"); !slices.Equal(got, []int{1, 1, 1, 1}) {
		t.Errorf("with another input: %v", got)
	}
	replay(obj{"fromNode": "b"})
	if got := o.count("/p/a-1", "/p/b-1"); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("from b on: %v", got)
	}
	e := replay(obj{"outputs": obj{"a": obj{"made": "up"}, "b": nil}})
	if got := o.count("/p/a-1", "/p/b-1"); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("with pinned outputs: %v", got)
	}
	same(t, string(e.Output), `{"a": {"made": "up"}, "n": 1}`)
	big := strings.Repeat("x", 400<<10) // by reference
	e = replay(obj{"outputs": obj{"a": big, "b": nil}})
	if !strings.Contains(string(e.Output), big) {
		t.Errorf("a large pinned output: %d bytes came back", len(e.Output))
	}
	doc["nodes"].([]any)[2] = post(o, "b", "/p/other")
	p.must(200, "PUT", "/flows/"+flow, doc, nil)
	replay(obj{"fromNode": "b", "version": 2})
	if got := o.count("/p/a-1", "/p/other"); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("on another version: %v", got)
	}
}

func pauseAndResume(t *testing.T, p *platform, o *office) {
	flow := p.createFlow(obj{"name": "pause", "nodes": []any{manual, post(o, "one", "/pause/one"), obj{"id": "wait", "type": "flow.delay", "config": obj{"duration": "2s"}}, post(o, "two", "/pause/two")},
		"edges": []any{edge("start", "one"), edge("one", "wait"), edge("wait", "two")}})
	id := p.accept(flow, nil)
	p.until(id, "waiting")
	p.must(200, "POST", "/executions/"+id+"/pause", obj{"reason": "let me look"}, nil)
	p.until(id, "queued") // woken, and held
	var why struct {
		Reasons []struct{ Code, Message string }
	}
	p.must(200, "GET", "/executions/"+id+"/why", nil, &why)
	if len(why.Reasons) == 0 || why.Reasons[0].Code != "paused" || !strings.Contains(why.Reasons[0].Message, "let me look") {
		t.Errorf("why: %+v", why)
	}
	if got := o.count("/pause/two"); got[0] != 0 {
		t.Errorf("a step of a paused execution was begun")
	}
	p.must(200, "POST", "/executions/"+id+"/resume", nil, nil)
	p.until(id, "succeeded")
	if got := o.count("/pause/one", "/pause/two"); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("calls %v", got)
	}
	var waits struct {
		Items []struct{ Kind, Reason, Met string }
	}
	p.must(200, "GET", "/executions/"+id+"/waits", nil, &waits)
	if len(waits.Items) != 2 || waits.Items[1].Kind != "paused" || waits.Items[1].Met == "" {
		t.Errorf("waits: %+v", waits)
	}
}

func flowPaused(t *testing.T, p *platform, o *office) {
	flow := p.createFlow(obj{"name": "paused", "nodes": []any{manual, obj{"id": "wait", "type": "flow.delay", "config": obj{"duration": "{{ input.for }}"}}, post(o, "x", "/fp/{{ input.n }}")}, "edges": []any{edge("start", "wait"), edge("wait", "x")}})
	early := p.accept(flow, obj{"n": 0, "for": "3s"})
	p.until(early, "waiting")
	p.must(200, "POST", "/flows/"+flow+"/pause", obj{"reason": "the shop moves"}, nil)
	ids := []string{early}
	for n := 1; n <= 30; n++ {
		ids = append(ids, p.accept(flow, obj{"n": n, "for": "0s"}))
	}
	var state struct {
		Paused bool
		Held   int
	}
	testkit.Eventually(t, 20*time.Second, "all of them are held, the early one too", func() error {
		if p.must(200, "GET", "/flows/"+flow+"/pause", nil, &state); state.Held != len(ids) {
			return fmt.Errorf("%+v", state)
		}
		return nil
	})
	p.until(early, "queued") // woken, and held
	if n, _ := o.under("/fp/"); n != 0 {
		t.Errorf("%d steps of a paused flow were begun", n)
	}
	p.must(200, "POST", "/flows/"+flow+"/resume", nil, nil)
	for _, id := range ids {
		p.until(id, "succeeded")
	}
	if n, most := o.under("/fp/"); n != len(ids) || most != 1 {
		t.Errorf("%d calls, %d of one, want each once", n, most)
	}
}

func typeAndPoolPaused(t *testing.T, p *platform, o *office) {
	flow := p.createFlow(obj{"name": "types", "nodes": []any{manual, obj{"id": "make", "type": "data.set", "config": obj{"values": obj{"n": 1}}}, post(o, "x", "/type")}, "edges": []any{edge("start", "make"), edge("make", "x")}})
	p.must(200, "PUT", "/pauses/node-type/http.request", obj{"reason": "the web is down"}, nil)
	id := ""
	var tried []string
	testkit.Eventually(t, 20*time.Second, "workers know, and hand back what comes to such a step", func() error {
		tried = append(tried, p.accept(flow, nil))
		for _, id = range tried {
			var e struct{ Paused string }
			if p.must(200, "GET", "/executions/"+id, nil, &e); strings.Contains(e.Paused, "the web is down") {
				return nil
			}
		}
		return fmt.Errorf("none of %d is paused", len(tried))
	})
	for _, other := range tried {
		testkit.Eventually(t, 20*time.Second, "each is held, or was faster", func() error {
			var e struct{ Status, Paused string }
			if p.must(200, "GET", "/executions/"+other, nil, &e); e.Paused == "" && e.Status != "succeeded" {
				return fmt.Errorf("%+v", e)
			}
			return nil
		})
	}
	before := o.count("/type")[0]
	p.must(204, "DELETE", "/pauses/node-type/http.request", nil, nil)
	for _, id := range tried {
		p.until(id, "succeeded")
	}
	if got := o.count("/type")[0]; got != len(tried) || got == before {
		t.Errorf("%d calls of %d executions, %d of them before the resume", got, len(tried), before)
	}
	p.must(200, "PUT", "/pauses/pool/default", obj{"reason": "a new cable"}, nil)
	tried = nil
	testkit.Eventually(t, 30*time.Second, "the pool takes nothing any more", func() error {
		tried = append(tried, p.accept(flow, nil))
		for back, id := range slices.Backward(tried) { // the last twenty have not been touched
			var e struct{ Status string }
			if p.must(200, "GET", "/executions/"+id, nil, &e); e.Status == "succeeded" {
				return fmt.Errorf("%d of %d were run", back+1, len(tried))
			}
			if len(tried)-back == 20 {
				return nil
			}
		}
		return fmt.Errorf("%d tried", len(tried))
	})
	id = tried[len(tried)-1]
	var why struct{ Reasons []struct{ Code string } }
	if p.must(200, "GET", "/executions/"+id+"/why", nil, &why); len(why.Reasons) == 0 || why.Reasons[0].Code != "pool-paused" {
		t.Errorf("why: %+v", why)
	}
	p.must(204, "DELETE", "/pauses/pool/default", nil, nil)
	p.until(id, "succeeded")
}

// cancelInAnyPhase: a cancel ends an execution soon, whatever its node is about to do.
func cancelInAnyPhase(t *testing.T, p *platform, o *office) {
	o.set(o.slow, "/slow", true)
	spin := obj{"id": "x", "type": "data.code", "timeout": "1m", "config": obj{"code": "let n = 0; while (true) { n++ }"}}
	loop := []any{obj{"id": "x", "type": "logic.while", "config": obj{"condition": "{{ true }}", "maxRounds": 100000}}, obj{"id": "y", "type": "data.set", "parent": "x", "config": obj{"values": obj{"n": 1}}}}
	web := obj{"id": "x", "type": "http.request", "timeout": "1m", "config": obj{"url": o.url + "/slow"}}
	o.set(o.fails, "/teapot", true)
	for name, tc := range map[string]struct {
		nodes []any
		under string // a call that says that it is under way; "": it waits
	}{
		"a call that hangs":     {[]any{web}, "/slow"},
		"code that never ends":  {[]any{spin}, "/begun"},
		"a loop of pure nodes":  {loop, "/begun"},
		"a delay":               {[]any{obj{"id": "x", "type": "flow.delay", "config": obj{"duration": "1h"}}}, ""},
		"a pause between tries": {[]any{obj{"id": "x", "type": "http.request", "config": obj{"url": o.url + "/teapot"}, "retry": obj{"maxAttempts": 5, "initialDelay": "900ms", "backoff": "fixed"}}}, "/teapot"},
		"branches":              {[]any{web, obj{"id": "z", "type": "flow.delay", "config": obj{"duration": "1h"}}}, "/slow"},
	} {
		t.Run(name, func(t *testing.T) {
			q := *p
			q.t = t
			edges := []any{edge("start", "w"), edge("w", "x")}
			if name == "branches" {
				edges = append(edges, edge("w", "z"))
			}
			flow := q.createFlow(obj{"name": "cancel " + name, "nodes": append([]any{manual, post(o, "w", "/begun")}, tc.nodes...), "edges": edges})
			before := o.count(tc.under)
			id := q.accept(flow, nil)
			if tc.under == "" {
				q.until(id, "waiting")
			}
			testkit.Eventually(t, 20*time.Second, "it is under way", func() error {
				if tc.under != "" && o.count(tc.under)[0] == before[0] {
					return fmt.Errorf("%s was not called", tc.under)
				}
				return nil
			})
			begun := time.Now()
			if code := q.api("POST", "/executions/"+id+"/cancel", nil, nil); code >= 300 {
				t.Fatalf("cancel: %d", code)
			}
			q.until(id, "cancelled")
			took := time.Since(begun)
			t.Logf("%s after the cancel", took.Round(time.Millisecond))
			if took > 10*time.Second { // 2 s on a machine that does nothing else
				t.Errorf("it took %s", took)
			}
		})
	}
}

// bulkRetry: 2,000 failed executions are retried as one job, and the leader is killed in the middle: each is retried once.
func bulkRetry(t *testing.T, p *platform, o *office) {
	const n = 2000
	flow := p.createFlow(obj{"name": "bulk", "nodes": []any{manual, obj{"id": "check", "type": "logic.if", "config": obj{"condition": "{{ execution.id == '' }}"}}, post(o, "x", "/bulk/{{ input }}")},
		"edges": []any{edge("start", "check"), obj{"from": "check", "port": "false", "to": "x"}}})
	for i := range n {
		o.set(o.fails, fmt.Sprintf("/bulk/%d", i), true)
	}
	for from := 0; from < n; from += 1000 {
		inputs := make([]any, 1000)
		for i := range inputs {
			inputs[i] = from + i
		}
		p.must(202, "POST", "/flows/"+flow+"/executions/batch", obj{"inputs": inputs}, nil)
	}
	in := func(status string) error {
		if k := p.counts(flow)[status]; k != n {
			return fmt.Errorf("%d", k)
		}
		return nil
	}
	testkit.Eventually(t, 90*time.Second, "all have failed", func() error { return in("failed") })
	for i := range n {
		o.set(o.fails, fmt.Sprintf("/bulk/%d", i), false)
	}
	var job struct {
		ID, Status                   string
		Total, Done, Failed, Skipped int
	}
	p.must(202, "POST", "/executions/retry", obj{"filter": obj{"flowId": flow}, "rate": 400}, &job)
	if job.Total != n {
		t.Fatalf("%+v", job)
	}
	testkit.Eventually(t, 60*time.Second, "the job is under way", func() error {
		if p.must(200, "GET", "/bulk/"+job.ID, nil, &job); job.Done < 300 {
			return fmt.Errorf("%+v", job)
		}
		return nil
	})
	leader := p.leader()
	t.Logf("%s is killed after %d of %d", leader.o.Name, job.Done, n)
	leader.process().Kill()
	testkit.Eventually(t, 90*time.Second, "the job is finished", func() error {
		if p.must(200, "GET", "/bulk/"+job.ID, nil, &job); job.Status != "finished" {
			return fmt.Errorf("%+v", job)
		}
		return nil
	})
	if job.Done != n || job.Failed+job.Skipped != 0 {
		t.Errorf("%+v", job)
	}
	testkit.Eventually(t, 90*time.Second, "all have succeeded", func() error { return in("succeeded") })
	if sum, most := o.under("/bulk/"); sum != 2*n || most != 2 {
		t.Errorf("%d calls, %d of one: want two of each, the failed one and the retried one", sum, most)
	}
	if got, err := p.pg.Exec(p.database, "SELECT count(*), min(retries), max(retries) FROM executions WHERE flow_id = '"+flow+"'"); err != nil || got != "2000|1|1" {
		t.Errorf("executions, least and most retries: %q, %v", got, err)
	}
	var results struct {
		Items      []struct{ Outcome string }
		NextCursor string
	}
	p.must(200, "GET", "/bulk/"+job.ID+"/results?limit=500", nil, &results)
	if len(results.Items) != 500 || results.NextCursor == "" || results.Items[0].Outcome != "done" {
		t.Errorf("%d results", len(results.Items))
	}
}

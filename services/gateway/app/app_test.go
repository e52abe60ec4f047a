package app

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

func TestFromFlowToTaskAndBack(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	id := b.flow(t, "orders")
	k := b.tasks(t)
	x := b.run(t, id, `{"input": {"n": 9007199254740993}, "priority": "normal", "labels": {"by": "test"}}`)
	if x.Status != "queued" {
		t.Errorf("%+v", x)
	}
	task := receive(t, k)
	if task.ID.String() != x.ID || task.Attempt != 1 || task.Version != 1 || task.Flow.String() != id || string(task.Input) != `{"n":9007199254740993}` || task.Labels["team"] != "sales" || task.Labels["by"] != "test" || task.Trigger != "manual" {
		t.Errorf("%+v", task)
	}
	pid := task.ID
	testkit.Eventually(t, 5*time.Second, "it is marked", func() error {
		got, err := b.owner.ExecutionByID(t.Context(), pid)
		if err != nil {
			return err
		}
		if got.Handed != 1 {
			return fmt.Errorf("handed %d", got.Handed)
		}
		if !got.CreatedAt.Equal(task.CreatedAt) {
			t.Errorf("the task says that it was created at %s, the row %s", task.CreatedAt, got.CreatedAt)
		}
		return nil
	})
	at := time.Now().UTC().Truncate(time.Microsecond)
	b.finish(t, x.ID, []flow.Event{{Type: flow.EventSucceeded, Node: "set", Try: 1, Output: map[string]any{"n": 9007199254740993}, At: at, Pure: true}})
	var got execution
	r := b.do(t, "GET", "/executions/"+x.ID, b.admin, nil).want(t, 200).into(t, &got)
	if got.Status != "succeeded" || got.FlowVersion != 1 || !strings.Contains(string(r.body), `"input":{"n":9007199254740993}`) {
		t.Errorf("%s", r.body)
	}
	var steps struct {
		Items []struct {
			Node, Status string
			Output       json.RawMessage
		}
	}
	b.do(t, "GET", "/executions/"+x.ID+"/steps", b.admin, nil).want(t, 200).into(t, &steps)
	if len(steps.Items) != 2 || steps.Items[1].Node != "set" || steps.Items[1].Status != "succeeded" || string(steps.Items[1].Output) != `{"n":9007199254740993}` {
		t.Errorf("%+v", steps)
	}
	b.do(t, "GET", "/executions/"+x.ID+"/waits", b.admin, nil).want(t, 200)
	var list struct{ Items []execution }
	b.do(t, "GET", "/executions?flowId=orders&status=succeeded,failed&label=by%3Dtest", b.admin, nil).want(t, 200).into(t, &list)
	if len(list.Items) != 1 || list.Items[0].ID != x.ID {
		t.Errorf("%+v", list)
	}
	b.do(t, "GET", "/executions?status=queued", b.admin, nil).want(t, 200).into(t, &list)
	if len(list.Items) != 0 {
		t.Errorf("%+v", list)
	}
	if by := b.run(t, "orders", `{"input":{"n":1}}`); by.Status != "queued" { // by name
		t.Errorf("%+v", by)
	}
}

func TestFlows(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "Large orders")
	if p := b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(simpleFlow, "Large orders")).want(t, 409).pointers(t); !slices.Equal(p, []string{"/name"}) {
		t.Errorf("%v", p)
	}
	type view struct {
		ID                                        string
		PublishedVersion, LatestVersion, Revision int
		Document                                  json.RawMessage
	}
	var f view
	r := b.do(t, "GET", "/flows/Large%20orders", b.admin, nil).want(t, 200).into(t, &f)
	tag := r.header.Get("ETag")
	if f.ID != id || f.PublishedVersion != 1 || !strings.Contains(string(f.Document), `"typeVersion":1`) || tag == "" {
		t.Errorf("%s %s", tag, r.body)
	}
	changed := strings.Replace(fmt.Sprintf(simpleFlow, "Large orders"), "input.n }}", "input.n + 1 }}", 1)
	b.do(t, "PUT", "/flows/"+id+"?draft=true", b.admin, changed, "If-Match", tag).want(t, 200).into(t, &f)
	if f.PublishedVersion != 1 || f.LatestVersion != 2 {
		t.Errorf("a draft was published: %+v", f)
	}
	b.do(t, "PUT", "/flows/"+id, b.admin, changed, "If-Match", tag).want(t, 412)
	b.do(t, "DELETE", "/flows/"+id, b.admin, nil, "If-Match", tag).want(t, 412)
	x := b.run(t, id, `{"input":{"n":1}}`)
	var got execution
	b.do(t, "GET", "/executions/"+x.ID, b.admin, nil).into(t, &got)
	if got.FlowVersion != 1 {
		t.Errorf("started version %d", got.FlowVersion)
	}
	b.do(t, "POST", "/flows/"+id+"/versions/2/publish", b.admin, nil).want(t, 200)
	b.do(t, "GET", "/executions/"+b.run(t, id, `{"input":{"n":1}}`).ID, b.admin, nil).into(t, &got)
	if got.FlowVersion != 2 {
		t.Errorf("started version %d after publishing 2", got.FlowVersion)
	}
	b.do(t, "GET", "/executions/"+b.run(t, id, `{"input":{"n":1},"version":1}`).ID, b.admin, nil).into(t, &got)
	if got.FlowVersion != 1 {
		t.Errorf("started version %d, asked for 1", got.FlowVersion)
	}
	b.do(t, "POST", "/flows/"+id+"/versions/9/publish", b.admin, nil).want(t, 404)
	if p := b.do(t, "POST", "/flows/"+id+"/executions", b.admin, `{"input":{"n":1},"version":9}`).want(t, 422).pointers(t); !slices.Equal(p, []string{"/version"}) {
		t.Errorf("%v", p)
	}
	var versions struct {
		Items []struct {
			Version   int
			Published bool
		}
		NextCursor string
	}
	b.do(t, "GET", "/flows/"+id+"/versions?limit=1", b.admin, nil).want(t, 200).into(t, &versions)
	if len(versions.Items) != 1 || versions.Items[0].Version != 2 || !versions.Items[0].Published || versions.NextCursor == "" {
		t.Errorf("%+v", versions)
	}
	b.do(t, "GET", "/flows/"+id+"/versions/1", b.admin, nil).want(t, 200)
	var list struct{ Items []view }
	b.do(t, "GET", "/flows?q=large&label=team=sales", b.admin, nil).want(t, 200).into(t, &list)
	if len(list.Items) != 1 {
		t.Errorf("%+v", list)
	}
	b.do(t, "GET", "/flows?label=team=none", b.admin, nil).want(t, 200).into(t, &list)
	if len(list.Items) != 0 {
		t.Errorf("%+v", list)
	}
	b.do(t, "DELETE", "/flows/"+id, b.admin, nil).want(t, 204)
	b.do(t, "POST", "/flows/"+id+"/executions", b.admin, `{}`).want(t, 404)
	b.do(t, "GET", "/executions/"+x.ID+"/steps", b.admin, nil).want(t, 200) // what ran can still be read
	b.flow(t, "Large orders")                                               // the name is free
}

func TestValidationNamesEveryField(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	doc := `{"name": "x", "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "1a", "type": "data.sett"}, {"id": "set", "type": "data.set", "config": {"values": {"a": "{{ steps.nobody.output }}"}}}],
		"edges": [{"from": "start", "to": "set"}, {"from": "start", "to": "nowhere"}], "labels": {"a": 1}, "inputSchema": {"type": "objekt"}}`
	var verdict struct {
		Valid    bool
		Problems []flow.Problem
	}
	b.do(t, "POST", "/flows/validate", b.admin, doc).want(t, 200).into(t, &verdict)
	var pointers []string
	for _, p := range verdict.Problems {
		pointers = append(pointers, p.Pointer)
	}
	for _, want := range []string{"/nodes/1/id", "/nodes/1/type", "/nodes/2/config/values/a", "/edges/1/to", "/labels/a", "/inputSchema/type"} {
		if !slices.Contains(pointers, want) {
			t.Errorf("nothing is said about %s: %v", want, verdict.Problems)
		}
	}
	saved := b.do(t, "POST", "/flows", b.admin, doc).want(t, 422).pointers(t)
	if !slices.Equal(saved, pointers) {
		t.Errorf("save says %v, validate %v", saved, pointers)
	}
	b.do(t, "POST", "/flows/validate", b.admin, `{"name": `).want(t, 400)
	b.do(t, "POST", "/flows", b.admin, `{"name": `).want(t, 400)
	b.do(t, "POST", "/flows", b.admin, `{"inputSchema": {"$ref": "file:///etc/passwd"}, "name": "r", "nodes": [{"id": "start", "type": "trigger.manual"}], "edges": []}`).want(t, 422)
	b.do(t, "POST", "/flows", b.admin, "["+strings.Repeat(" ", 2<<20)+"]").want(t, 413)

	id := b.flow(t, "checked")
	for body, want := range map[string][]string{
		`{"input": {"n": "7", "m": 1}}`: {"/input/m", "/input/n"},
		`{"input": {}}`:                 {"/input/n"},
		`{}`:                            {"/input"},
		`{"inputs": 1, "priority": "urgent", "labels": {"a": 1}}`: {"/inputs", "/labels/a", "/priority"},
		`[1]`: {""},
	} {
		got := b.do(t, "POST", "/flows/"+id+"/executions", b.admin, body).want(t, 422).pointers(t)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
	}
	if p := b.do(t, "POST", "/flows/"+id+"/executions/batch", b.admin, `{"inputs": [{"n": 1}, {"n": true}]}`).want(t, 422).pointers(t); !slices.Equal(p, []string{"/inputs/1/n"}) {
		t.Errorf("%v", p)
	}
	var list struct{ Items []execution }
	b.do(t, "GET", "/executions", b.admin, nil).into(t, &list)
	if len(list.Items) != 0 {
		t.Errorf("something was stored: %+v", list.Items)
	}
	b.do(t, "POST", "/flows/"+id+"/executions", b.admin, `{"input": `).want(t, 400)
	b.do(t, "POST", "/flows/"+id+"/executions?wait=61s", b.admin, `{"input": {"n":1}}`).want(t, 422)
	b.do(t, "POST", "/flows/"+id+"/executions", b.admin, `{"input": "`+strings.Repeat("x", 17<<20)+`"}`).want(t, 413)
	b.do(t, "POST", "/flows/"+id+"/executions", b.admin, `<a/>`, "Content-Type", "text/xml").want(t, 415)
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "once")
	first := b.run(t, id, `{"input":{"n":1}}`, "Idempotency-Key", "k1")
	r := b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":1}}`, "Idempotency-Key", "k1").want(t, 202)
	var again execution
	r.into(t, &again)
	if again.ID != first.ID || r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%s, the first was %s", r.body, first.ID)
	}
	b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":2}}`, "Idempotency-Key", "k1").want(t, 422)
	if other := b.do(t, "POST", "/flows/"+id+"/executions", b.admin, `{"input":{"n":1}}`, "Idempotency-Key", "k1").want(t, 202); strings.Contains(string(other.body), first.ID) {
		t.Error("another client has got the first one's execution")
	}
	batch := func() []string {
		var out struct{ Items []execution }
		b.do(t, "POST", "/flows/"+id+"/executions/batch", b.bench, `{"inputs":[{"n":1},{"n":2},{"n":3}]}`, "Idempotency-Key", "b1").want(t, 202).into(t, &out)
		var ids []string
		for _, x := range out.Items {
			ids = append(ids, x.ID)
		}
		return ids
	}
	if one, two := batch(), batch(); len(one) != 3 || !slices.Equal(one, two) {
		t.Errorf("%v %v", one, two)
	}
	// Many at once with one key: one execution.
	got := make(chan string, 20)
	for range cap(got) {
		go func() {
			r, err := b.request(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":5}}`, "Idempotency-Key", "race")
			var x execution
			if err == nil {
				err = json.Unmarshal(r.body, &x)
			}
			got <- fmt.Sprint(x.ID, err)
		}()
	}
	seen := map[string]bool{}
	for range cap(got) {
		seen[<-got] = true
	}
	if len(seen) != 1 {
		t.Errorf("%v", seen)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	for name, so := range map[string]setupOptions{"redis": {}, "without redis": {noRedis: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, so)
			id := b.flow(t, "waited for")
			k := b.tasks(t)
			go func() {
				d := <-k.Deliveries()
				var task protocol.Task
				if err := json.Unmarshal(d.Body, &task); err != nil {
					t.Error(err)
					return
				}
				d.Ack()
				b.finish(t, task.ID.String(), nil)
			}()
			var x execution
			begun := time.Now()
			b.do(t, "POST", "/flows/"+id+"/executions?wait=20s", b.admin, `{"input":{"n":7}}`).want(t, 200).into(t, &x)
			if x.Status != "succeeded" || string(x.Output) != `{"n":7}` {
				t.Errorf("%+v", x)
			}
			t.Logf("200 after %s", time.Since(begun))
			b.do(t, "POST", "/flows/"+id+"/executions?wait=50", b.admin, `{"input":{"n":7}}`).want(t, 202).into(t, &x) // milliseconds
			if x.Status != "queued" {
				t.Errorf("%+v", x)
			}
			if n := b.app.waits.Len(); n != 0 {
				t.Errorf("%d are still registered", n)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	id := b.flow(t, "cancelled")
	x := b.run(t, id, `{"input":{"n":1}}`)
	var got execution
	b.do(t, "POST", "/executions/"+x.ID+"/cancel", b.admin, nil).want(t, 200).into(t, &got)
	if got.Status != "cancelled" || got.Error == nil || got.Error.Code != "cancelled" {
		t.Errorf("%+v", got)
	}
	b.do(t, "POST", "/executions/"+x.ID+"/cancel", b.admin, nil).want(t, 200) // again
	done := b.run(t, id, `{"input":{"n":1}}`)
	b.finish(t, done.ID, nil)
	b.do(t, "POST", "/executions/"+done.ID+"/cancel", b.admin, nil).want(t, 409)
	b.do(t, "POST", "/executions/0198c5b2-7d1e-7c3a-9f00-0123456789ab/cancel", b.admin, nil).want(t, 404)

	owned := b.run(t, id, `{"input":{"n":1}}`)
	pid, _ := protocol.ParseID(owned.ID)
	session := protocol.ID{1, 2, 3}
	err := b.owner.Txn(t.Context(), "test", func(tx protocol.Tx) error {
		if _, _, err := protocol.OpenSession(t.Context(), tx, protocol.OpenSessionRequest{Session: session, Worker: "w"}); err != nil {
			return err
		}
		answers, err := protocol.GrantClaims(t.Context(), tx, []protocol.Claim{{Session: session, Execution: pid, Attempt: 1, Run: 5}})
		if err == nil && answers[0] != protocol.Granted {
			t.Errorf("%v", answers)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	b.do(t, "POST", "/executions/"+owned.ID+"/cancel", b.admin, nil).want(t, 202).into(t, &raw)
	if raw["status"] != "running" || raw["cancelling"] != true {
		t.Errorf("%v", raw)
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "many")
	inputs := make([]map[string]int, 1000)
	for i := range inputs {
		inputs[i] = map[string]int{"n": i}
	}
	var out struct{ Items []execution }
	b.do(t, "POST", "/flows/"+id+"/executions/batch", b.bench, map[string]any{"inputs": inputs}).want(t, 202).into(t, &out)
	if len(out.Items) != 1000 {
		t.Fatalf("%d items", len(out.Items))
	}
	for _, i := range []int{0, 499, 500, 999} {
		var x execution
		b.do(t, "GET", "/executions/"+out.Items[i].ID, b.admin, nil).want(t, 200).into(t, &x)
		if want := fmt.Sprintf(`{"n":%d}`, i); string(x.Input) != want {
			t.Errorf("item %d has the input %s", i, x.Input)
		}
	}
	b.do(t, "POST", "/flows/"+id+"/executions/batch", b.bench, map[string]any{"inputs": append(inputs, inputs[0])}).want(t, 422)
	b.do(t, "POST", "/flows/"+id+"/executions/batch", b.bench, `{"inputs": []}`).want(t, 422)
	k := b.tasks(t)
	seen := map[string]bool{}
	for range 1000 {
		seen[receive(t, k).ID.String()] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d tasks", len(seen))
	}
	if !reflect.DeepEqual(b.app.handOut.Full(), false) {
		t.Error("full")
	}
}

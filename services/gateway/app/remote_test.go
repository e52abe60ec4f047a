package app

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// waitsRemote lets an execution wait for a remote task with the id that it returns.
func (b *bundle) waitsRemote(t *testing.T, execution, queue string, o protocol.RemoteOpen) string {
	t.Helper()
	id, err := protocol.ParseID(execution)
	if err != nil {
		t.Fatal(err)
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = time.Hour.Milliseconds()
	}
	o.Queue, o.Try = queue, 1
	open, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	task := protocol.RemoteTaskID(id, "set", "", 1, 0).String()
	b.suspend(t, execution, protocol.WaitEntry{Node: "set", Kind: flow.WaitRemote, Key: task, Reason: "waits for a remote worker", Open: open})
	return task
}

type polled struct {
	Tasks []struct {
		ID, ExecutionID, Node, IdempotencyKey string
		Lease                                 int
		Input                                 json.RawMessage
		HeartbeatSeconds                      float64
	}
}

func TestRemoteWorkers(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	f := b.flow(t, "orders")
	start := func() string { return b.run(t, f, `{"input": {"n": 1}}`).ID }
	var made struct{ Token string }
	b.do(t, "POST", "/tokens", b.admin, `{"name": "worker", "role": "worker", "queues": ["mail"]}`).want(t, 201).into(t, &made)
	worker := made.Token
	do := func(status int, token, path, body string) *response {
		t.Helper()
		return b.do(t, "POST", "/remote/"+path, token, body).want(t, status)
	}
	poll := func(body string) (p polled) {
		t.Helper()
		do(200, worker, "mail/poll", body).into(t, &p)
		return p
	}

	// Who may what.
	b.do(t, "GET", "/executions", worker, nil).want(t, 403)
	b.do(t, "GET", "/remote/tasks", worker, nil).want(t, 403)
	do(403, worker, "other/poll", `{"worker": "w"}`)
	do(403, b.token(t, "editor"), "mail/poll", `{"worker": "w"}`)
	do(200, b.token(t, "operator"), "mail/poll", `{"worker": "w", "wait": "0s"}`)
	b.do(t, "POST", "/tokens", b.token(t, "editor"), `{"name": "w", "role": "worker"}`).want(t, 403)
	b.do(t, "POST", "/tokens", b.admin, `{"name": "w", "role": "viewer", "queues": ["mail"]}`).want(t, 422)
	do(422, worker, "mail/poll", `{"worker": "w", "wait": "2m"}`)
	do(422, worker, "mail/poll", `{"worker": ""}`)
	do(422, worker, "mail/poll", `{"worker": "w", "max": 101}`)

	// A poll that waits is woken by the task's commit, whoever else waits.
	var waiting sync.WaitGroup
	got := make(chan polled, 2)
	for range 2 {
		waiting.Go(func() {
			var p polled
			do(200, worker, "mail/poll", `{"worker": "w", "wait": "20s"}`).into(t, &p)
			got <- p
		})
	}
	x := start()
	large := `"` + strings.Repeat("x", 300<<10) + `"`
	task := b.waitsRemote(t, x, "mail", protocol.RemoteOpen{Input: json.RawMessage(`{"to": 12345678901234567890}`)})
	p := <-got
	if len(p.Tasks) != 1 || p.Tasks[0].ID != task || p.Tasks[0].IdempotencyKey != x+"/set/-" || string(p.Tasks[0].Input) != `{"to": 12345678901234567890}` && string(p.Tasks[0].Input) != `{"to":12345678901234567890}` || p.Tasks[0].HeartbeatSeconds != 1200 {
		t.Fatalf("polled %+v", p)
	}
	// A heartbeat with progress, which people see.
	do(422, worker, "tasks/"+task+"/heartbeat", `{"lease": 1, "progress": "`+strings.Repeat("x", 5000)+`"}`)
	do(409, worker, "tasks/"+task+"/heartbeat", `{"lease": 2}`)
	do(404, worker, "tasks/"+unknownID+"/heartbeat", `{"lease": 1}`)
	if r := do(200, worker, "tasks/"+task+"/heartbeat", `{"lease": 1, "progress": {"sent": 3}}`); !strings.Contains(string(r.body), `"cancel":false`) {
		t.Errorf("heartbeat: %s", r.body)
	}
	for _, path := range []string{"/executions/" + x + "/waits", "/executions/" + x + "/why", "/remote/tasks?queue=mail"} {
		if r := b.do(t, "GET", path, b.admin, nil).want(t, 200); !strings.Contains(string(r.body), `"sent":3`) {
			t.Errorf("%s doesn't show the progress: %s", path, r.body)
		}
	}
	// The end, once.
	do(400, worker, "tasks/"+task+"/complete", `{"lease": 1, "output": `)
	do(422, worker, "tasks/"+task+"/complete", `{"output": 1}`)
	do(409, worker, "tasks/"+task+"/complete", `{"lease": 2, "output": 1}`)
	do(204, worker, "tasks/"+task+"/complete", `{"lease": 1, "output": `+large+`}`)
	do(204, worker, "tasks/"+task+"/complete", `{"lease": 1, "output": `+large+`}`)
	do(409, worker, "tasks/"+task+"/complete", `{"lease": 1, "output": 1}`)
	do(409, worker, "tasks/"+task+"/fail", `{"lease": 1, "error": {"code": "x", "message": "m"}}`)
	if r := b.do(t, "GET", "/executions/"+x+"/values/"+payload.Ref([]byte(large)), b.admin, nil).want(t, 200); string(r.body) != large {
		t.Errorf("the output is stored as %.60s", r.body)
	}
	if r := do(200, worker, "tasks/"+task+"/heartbeat", `{"lease": 1}`); !strings.Contains(string(r.body), `"cancel":true`) {
		t.Errorf("the heartbeat of what has ended: %s", r.body)
	}
	// The other one is still there, and gets the next.
	y := start()
	second := b.waitsRemote(t, y, "mail", protocol.RemoteOpen{})
	waiting.Wait()
	if p := <-got; len(p.Tasks) != 1 || p.Tasks[0].ID != second || string(p.Tasks[0].Input) != "null" {
		t.Fatalf("polled %+v", p)
	}
	do(422, worker, "tasks/"+second+"/fail", `{"lease": 1, "error": {"code": "No Code", "message": "m"}}`)
	do(204, worker, "tasks/"+second+"/fail", `{"lease": 1, "error": {"code": "out-of-paper", "message": "no paper", "data": {"tray": 2}}, "retryable": true}`)
	do(204, worker, "tasks/"+second+"/fail", `{"lease": 1, "error": {"code": "out-of-paper", "message": "no paper", "data": {"tray": 2}}, "retryable": true}`)
	// Cancelled meanwhile.
	z := start()
	third := b.waitsRemote(t, z, "mail", protocol.RemoteOpen{})
	if p := poll(`{"worker": "w", "wait": "20s"}`); len(p.Tasks) != 1 || p.Tasks[0].ID != third {
		t.Fatalf("polled %+v", p)
	}
	b.do(t, "POST", "/executions/"+z+"/cancel", b.admin, nil).want(t, 200)
	if r := do(200, worker, "tasks/"+third+"/heartbeat", `{"lease": 1}`); !strings.Contains(string(r.body), `"cancel":true,"reason":"cancelled"`) {
		t.Errorf("the heartbeat of what is cancelled: %s", r.body)
	}
	do(409, worker, "tasks/"+third+"/complete", `{"lease": 1}`)
	// Nobody polls: why says so.
	w := start()
	b.waitsRemote(t, w, "nobody", protocol.RemoteOpen{})
	if r := b.do(t, "GET", "/executions/"+w+"/why", b.admin, nil).want(t, 200); !strings.Contains(string(r.body), "nobody is known to poll the queue") {
		t.Errorf("why: %s", r.body)
	}
	var queues struct {
		Items []struct {
			Queue           string
			Waiting, Leased int
			LastPoll        time.Time
		}
	}
	b.do(t, "GET", "/remote/queues", b.admin, nil).want(t, 200).into(t, &queues)
	if n := len(queues.Items); n != 2 || queues.Items[0].Queue != "mail" || queues.Items[0].LastPoll.IsZero() || queues.Items[1].Queue != "nobody" || queues.Items[1].Waiting != 1 || !queues.Items[1].LastPoll.IsZero() {
		t.Errorf("queues: %+v", queues.Items)
	}
	if p := poll(`{"worker": "w", "wait": "10ms"}`); p.Tasks == nil || len(p.Tasks) != 0 {
		t.Errorf("polled %+v, want an empty list", p)
	}
}

// remoteRoutes does all operations of remote workers once, for an execution that is queued.
func (b *bundle) remoteRoutes(t *testing.T, ok func(id string, status int, body any, args ...string) *response, x string) {
	t.Helper()
	task := b.waitsRemote(t, x, "mail", protocol.RemoteOpen{})
	ok("listRemoteQueues", 200, nil)
	ok("listRemoteTasks", 200, nil, "?queue=mail")
	ok("pollRemote", 200, `{"worker": "w", "wait": "0s"}`, "mail")
	ok("beatRemote", 200, `{"lease": 1, "progress": 0.5}`, task)
	ok("completeRemote", 204, `{"lease": 1, "output": {"sent": true}}`, task)
	ok("failRemote", 409, `{"lease": 1, "error": {"code": "late", "message": "too late"}}`, task)
}

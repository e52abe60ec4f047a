package app

import (
	"encoding/json"
	"testing"
	"time"

	"flowplatform/services/internal/live"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/settings"
	"flowplatform/services/internal/store"
)

// leads plays a leader: its picture, its settings, a decision; a worker's session; dead letters.
func (b *bundle) leads(t *testing.T) (letters []protocol.ID) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	session := store.NewID()
	must(b.owner.Txn(t.Context(), "test", func(tx protocol.Tx) error {
		return tx.OpenSession(t.Context(), protocol.OpenSessionRequest{Session: session, Worker: "w1", Pool: "default", Slots: 20, Weight: 2, Host: "h"})
	}))
	term, err := b.owner.RaiseTerm(t.Context(), "test")
	must(err)
	state, err := json.Marshal(settings.State{Effective: settings.Map(defaults), Defaults: settings.Map(defaults), Refused: []settings.Refusal{{Name: "MIN_WORKERS", Value: "x", Source: "consul-kv", Reason: "no number", At: time.Now()}}})
	must(err)
	must(b.owner.PutLeaderState(t.Context(), term, settings.StateName, state))
	_, err = b.owner.Decide(t.Context(), store.Decision{Term: term, Kind: "scale", Subject: "default", Reason: "a burst", Detail: json.RawMessage(`{"from":2,"to":4}`)})
	must(err)
	if b.app.live != nil {
		must(b.app.live.PutFleet(t.Context(), live.Fleet{At: time.Now(), Term: term, Leader: "test",
			Workers: []live.WorkerLoad{{Worker: "w1", Session: session.String(), State: "ready", Slots: 20, Running: 3, Heard: time.Now()}},
			Queues:  []live.Queue{{Name: "flow.tasks.default.high", Kind: "tasks", Pool: "default", Priority: "high", Ready: 7, Consumers: 1}, {Name: "flow.dead", Kind: "dead"}},
			Scaling: []live.Scaling{{Pool: "default", Job: "worker", Desired: 2, Wanted: 4, Backlog: 9, Buffered: 2, Code: "deployment", Reason: "waits"}}}))
	}
	for _, body := range []string{`{"v":1}`, "{broken", "\xff\xfe"} {
		l := protocol.DeadLetter{ID: store.NewID(), Kind: "task", Reason: "unparseable", Detail: "d", Origin: "o", Body: []byte(body), Count: 1}
		must(b.owner.InsertDeadLetters(t.Context(), []protocol.DeadLetter{l}))
		letters = append(letters, l.ID)
	}
	return letters
}

var defaults = settings.Values{AutoScaling: true, MinWorkers: 2, MaxWorkers: 20, HighWaterMark: 1000, LowWaterMark: 100, DrainTime: 30 * time.Second, DownWindow: 3 * time.Minute, Strategy: settings.RoundRobin, WorkerTimeout: 5 * time.Minute}

// operationsWork does what operators do, once each.
func operationsWork(t *testing.T, b *bundle, ok func(id string, status int, body any, args ...string) *response) {
	t.Helper()
	letters := b.leads(t)
	var workers struct {
		Items []struct {
			ID, State string
			Load      *struct{ Running int }
		}
	}
	if ok("listWorkers", 200, nil).into(t, &workers); len(workers.Items) != 1 || workers.Items[0].Load == nil || workers.Items[0].Load.Running != 3 {
		t.Errorf("workers: %+v", workers)
	}
	ok("drainWorker", 202, nil, "w1")
	if ok("listWorkers", 200, nil).into(t, &workers); workers.Items[0].State != "draining" {
		t.Errorf("workers: %+v", workers)
	}
	var queues struct {
		Pools []struct {
			Backlog int
			Queues  []struct{ Ready int }
		}
	}
	if ok("getQueues", 200, nil).into(t, &queues); len(queues.Pools) != 1 || queues.Pools[0].Backlog != 9 || queues.Pools[0].Queues[0].Ready != 7 {
		t.Errorf("queues: %+v", queues)
	}
	var scaling struct {
		Pools     []struct{ Wanted int }
		Decisions []struct{ Reason string }
	}
	if ok("getScaling", 200, nil, "?limit=5").into(t, &scaling); len(scaling.Pools) != 1 || scaling.Pools[0].Wanted != 4 || len(scaling.Decisions) != 1 {
		t.Errorf("scaling: %+v", scaling)
	}
	var all struct {
		Items []struct {
			Name      string
			Set       json.RawMessage
			UpdatedBy string
			Refused   []struct{ Reason string }
		}
	}
	ok("getSettings", 200, nil)
	ok("putSettings", 200, `{"values": {"MAX_WORKERS": 40, "SCALE_DRAIN_TIME": "10s"}}`).into(t, &all)
	for _, s := range all.Items {
		if s.Name == "MAX_WORKERS" && (string(s.Set) != "40" || s.UpdatedBy == "") || s.Name == "MIN_WORKERS" && len(s.Refused) != 1 {
			t.Errorf("settings: %+v", s)
		}
	}
	for body, pointer := range map[string]string{
		`{"values": {"MAX_WORKERS": 1}}`:                  "/values/MIN_WORKERS",
		`{"values": {"MAX_WORKERS": "x"}}`:                "/values/MAX_WORKERS",
		`{"values": {"NO_SUCH": null}}`:                   "/values/NO_SUCH",
		`{"values": {"LOAD_BALANCE_STRATEGY": "random"}}`: "/values/LOAD_BALANCE_STRATEGY",
		`{"values": {"QUEUE_LOW_WATER_MARK": 5000}}`:      "/values/QUEUE_LOW_WATER_MARK",
	} {
		if got := b.do(t, "PUT", "/settings", b.admin, body).want(t, 422).pointers(t); len(got) != 1 || got[0] != pointer {
			t.Errorf("%s: %v", body, got)
		}
	}
	all.Items = nil
	ok("putSettings", 200, `{"values": {"MAX_WORKERS": null}}`).into(t, &all)
	for _, s := range all.Items {
		if s.Name == "MAX_WORKERS" && s.Set != nil {
			t.Errorf("settings: %+v", s)
		}
	}

	var groups struct{ Groups []struct{ Count int } }
	if ok("listDeadLetters", 200, nil, "?group=reason").into(t, &groups); len(groups.Groups) != 1 || groups.Groups[0].Count != 3 {
		t.Errorf("groups: %+v", groups)
	}
	ok("listDeadLetters", 200, nil, "?reason=unparseable&kind=task&limit=2")
	var l struct {
		State, Text, Base64 string
		Body                json.RawMessage
	}
	if ok("getDeadLetter", 200, nil, letters[1].String()).into(t, &l); l.Text != "{broken" || l.State != "open" {
		t.Errorf("letter: %+v", l)
	}
	ok("getDeadLetter", 200, nil, letters[2].String())
	if ok("editDeadLetter", 200, `{"body": {"v": 1, "n": 12345678901234567890}}`, letters[1].String()).into(t, &l); string(l.Body) != `{"v": 1, "n": 12345678901234567890}` && string(l.Body) != `{"v":1,"n":12345678901234567890}` {
		t.Errorf("letter: %s", l.Body)
	}
	var n struct{ Count int }
	if ok("requeueDeadLetters", 202, `{"ids": ["`+letters[1].String()+`"]}`).into(t, &n); n.Count != 1 {
		t.Errorf("requeued: %d", n.Count)
	}
	if ok("getDeadLetter", 200, nil, letters[1].String()).into(t, &l); l.State != "asked" {
		t.Errorf("letter: %+v", l)
	}
	b.do(t, "PUT", "/dead-letters/"+letters[1].String(), b.admin, `{"body": 1}`).want(t, 412)
	for _, choice := range []string{`{}`, `{"ids": []}`, `{"ids": ["` + letters[0].String() + `"], "filter": {}}`, `{"ids": ["x"]}`, `{"filter": {"executionId": "x"}}`} {
		b.do(t, "POST", "/dead-letters/requeue", b.admin, choice).want(t, 422)
		b.do(t, "POST", "/dead-letters/purge", b.admin, choice).want(t, 422)
	}
	ok("deleteDeadLetter", 204, nil, letters[0].String())
	if ok("purgeDeadLetters", 200, `{"filter": {"kind": "task"}}`).into(t, &n); n.Count != 2 {
		t.Errorf("purged: %d", n.Count)
	}
}

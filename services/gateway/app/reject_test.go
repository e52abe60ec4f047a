package app

import (
	"slices"
	"strconv"
	"testing"
)

// onLimit: reject answers 429 and when to come again; nothing is stored, of a batch nothing either, and an Idempotency-Key is free for the next try. A hook is answered in the same way.
func TestOnLimitReject(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	c := readContract(t, b)
	var f, x struct{ ID string }
	b.do(t, "POST", "/flows", b.admin, `{"name": "one at a time", "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "hook", "type": "trigger.webhook", "config": {"path": "one-at-a-time"}}], "edges": [],
		"settings": {"concurrency": [{"limit": 1, "onLimit": "reject"}]}}`).want(t, 201).into(t, &f)
	c.call(t, "startExecution", 202, b.admin, `{"input": 1}`, f.ID).into(t, &x)
	key := []string{"Idempotency-Key", "order-7"}
	refused := func(r *response) {
		t.Helper()
		if after, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || after < 1 || r.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v", r.header)
		}
	}
	refused(c.with(t, "startExecution", 429, b.admin, `{"input": 2}`, key, f.ID))
	refused(c.call(t, "startBatch", 429, b.admin, `{"inputs": [3, 4]}`, f.ID))
	refused(b.do(t, "POST", "/hooks/one-at-a-time", "", `{"n": 5}`).want(t, 429))
	var list struct{ Items []struct{ ID string } }
	b.do(t, "GET", "/executions?flowId="+f.ID, b.admin, nil).want(t, 200).into(t, &list)
	if len(list.Items) != 1 {
		t.Errorf("stored: %+v", list.Items)
	}
	b.do(t, "POST", "/executions/"+x.ID+"/cancel", b.admin, nil).want(t, 200)
	var again struct{ ID string }
	c.with(t, "startExecution", 202, b.admin, `{"input": 2}`, key, f.ID).into(t, &again)
	if ids := []string{x.ID, ""}; slices.Contains(ids, again.ID) {
		t.Errorf("the key stands for %q", again.ID)
	}
	refused(c.call(t, "startExecution", 429, b.admin, `{"input": 6}`, f.ID))
}

package app

import (
	"strings"
	"testing"
)

// steer calls what people do with flows and executions once; x is an execution of the flow that was cancelled.
func (b *bundle) steer(t *testing.T, c *contract, ok func(id string, status int, body any, args ...string) *response, flowID, x string) {
	t.Helper()
	var e struct{ Status, Paused, ID string }
	var p struct {
		Paused bool
		Held   int
		Reason string
	}
	ok("retryExecution", 202, nil, x).into(t, &e)
	if e.Status != "queued" {
		t.Errorf("a retried execution is %s", e.Status)
	}
	c.call(t, "retryExecution", 409, b.admin, nil, x)
	ok("pauseExecution", 200, `{"reason": "to look at it"}`, x).into(t, &e)
	if !strings.Contains(e.Paused, "to look at it") {
		t.Errorf("paused: %q", e.Paused)
	}
	c.call(t, "pauseExecution", 409, b.admin, `{"reason": "again"}`, x)
	c.call(t, "getWaits", 200, b.admin, nil, x)
	c.call(t, "whyExecution", 200, b.admin, nil, x)
	ok("resumeExecution", 200, nil, x)
	c.call(t, "resumeExecution", 409, b.admin, nil, x)
	ok("pauseFlow", 200, `{"reason": "the shop moves"}`, flowID).into(t, &p)
	c.call(t, "pauseFlow", 409, b.admin, `{"reason": "again"}`, flowID)
	c.call(t, "startExecution", 202, b.admin, `{"input": {"n": 1}}`, flowID).into(t, &e)
	c.call(t, "getExecution", 200, b.admin, nil, e.ID).into(t, &e)
	if !p.Paused || !strings.Contains(e.Paused, "the shop moves") || e.Status != "queued" {
		t.Errorf("the flow is paused: %+v, and a new execution is %+v", p, e)
	}
	c.call(t, "resumeExecution", 409, b.admin, nil, e.ID) // its flow is paused
	ok("getFlowPause", 200, nil, flowID).into(t, &p)
	if p.Held == 0 {
		t.Errorf("nothing is held: %+v", p)
	}
	ok("resumeFlow", 200, nil, flowID)
	c.call(t, "resumeFlow", 409, b.admin, nil, flowID)
	ok("replayExecution", 202, `{"input": {"n": 5}}`, x).into(t, &e)
	var old struct{ ReplayOf string }
	if c.call(t, "getExecution", 200, b.admin, nil, e.ID).into(t, &old); old.ReplayOf != x {
		t.Errorf("a replay of %q, want %q", old.ReplayOf, x)
	}
	for body, want := range map[string]string{`{"input": "text"}`: "/input", `{"fromNode": "nobody"}`: "/fromNode", `{"version": 99}`: "/version", `{"outputs": {"nobody": 1}}`: "/outputs/nobody"} {
		if got := c.call(t, "replayExecution", 422, b.admin, body, x).pointers(t); len(got) == 0 || got[0] != want {
			t.Errorf("%s: %v", body, got)
		}
	}
	var job struct {
		ID, Status string
		Total      int
	}
	ok("retryExecutions", 202, `{"ids": ["`+x+`", "`+unknownID+`", "`+x+`"], "rate": 10}`).into(t, &job)
	if job.Total != 2 || job.Status != "queued" {
		t.Errorf("%+v", job)
	}
	ok("cancelExecutions", 202, `{"filter": {"flowId": "`+flowID+`"}}`)
	ok("replayExecutions", 202, `{"filter": {"flowId": "`+flowID+`", "status": ["succeeded"], "label": {"team": "sales"}}}`)
	for body, want := range map[string]string{`{"ids": ["x"]}`: "/ids/0", `{"filter": {"flowId": "nobody"}}`: "/filter/flowId"} {
		if got := c.call(t, "retryExecutions", 422, b.admin, body).pointers(t); len(got) == 0 || got[0] != want {
			t.Errorf("%s: %v", body, got)
		}
	}
	var first, second struct{ ID string }
	c.with(t, "retryExecutions", 202, b.admin, `{"ids": ["`+x+`"]}`, []string{"Idempotency-Key", "b"}).into(t, &first)
	if r := c.with(t, "retryExecutions", 202, b.admin, `{"ids": ["`+x+`"]}`, []string{"Idempotency-Key", "b"}).into(t, &second); first != second || r.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the same key gives %v and %v", first, second)
	}
	c.with(t, "retryExecutions", 422, b.admin, `{"ids": ["`+unknownID+`"]}`, []string{"Idempotency-Key", "b"})
	ok("listBulk", 200, nil)
	ok("getBulk", 200, nil, job.ID)
	ok("getBulkResults", 200, nil, job.ID, "?limit=1")
	ok("cancelBulk", 202, nil, job.ID)
	ok("setPause", 200, `{"reason": "maintenance"}`, "pool", "gpu")
	c.call(t, "setPause", 200, b.admin, `{"reason": "the shop is down"}`, "node-type", "http.request")
	c.call(t, "setPause", 404, b.admin, `{"reason": "x"}`, "node-type", "no.such")
	ok("listPauses", 200, nil)
	ok("getPause", 200, nil, "node-type", "http.request")
	ok("clearPause", 204, nil, "pool", "gpu")
	c.call(t, "clearPause", 404, b.admin, nil, "pool", "gpu")
	c.call(t, "clearPause", 204, b.admin, nil, "node-type", "http.request")
}

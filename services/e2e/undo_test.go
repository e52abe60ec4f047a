package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// undoesInReverse: a payment that was refused has undone the lock, then the reservation; a cancel undoes what was done while the flow waits.
func undoesInReverse(t *testing.T, x *examples) {
	calls := x.shop.seen()
	if last := calls[max(0, len(calls)-2):]; strings.Join(last, ", ") != "DELETE /locks/8, DELETE /reservations/r1" {
		t.Errorf("the last calls are %v: what was done last is undone first", last)
	}
	x.apply(t, `{"name": "Reserve and wait", "nodes": [
		{"id": "start", "type": "trigger.manual"},
		{"id": "lock", "type": "http.request", "config": {"method": "POST", "url": "https://shop.example/locks/9"}, "compensate": "unlock"},
		{"id": "unlock", "type": "http.request", "config": {"method": "DELETE", "url": "https://shop.example/locks/{{ steps.lock.output.status }}"}},
		{"id": "wait", "type": "flow.delay", "config": {"duration": "1h"}}
	], "edges": [{"from": "start", "to": "lock"}, {"from": "lock", "to": "wait"}]}`)
	id := x.start(t, "Reserve and wait", "null")
	x.wait(t, id, "waiting")
	if code, out := x.flowctl(t, "", "execution", "cancel", id); code != 0 {
		t.Fatal(out)
	}
	x.wait(t, id, "cancelled")
	if n := x.shop.count("DELETE /locks/201"); n != 1 {
		t.Errorf("the lock of a cancelled execution was taken away %d times; all calls: %v", n, x.shop.seen())
	}
	var steps struct {
		Items []struct{ Node, Status string }
	}
	x.api("GET", "/executions/"+id+"/steps", nil, &steps)
	if last := steps.Items[len(steps.Items)-1]; last.Node != "unlock" || last.Status != "succeeded" {
		t.Errorf("the steps end with %+v", last)
	}
}

// goesToAnotherPool: a step of a pool that nobody serves waits, and says so; when a worker of that pool comes it runs there, and what follows in the flow's own.
func goesToAnotherPool(t *testing.T, x *examples) {
	x.apply(t, `{"name": "Two pools", "nodes": [
		{"id": "start", "type": "trigger.manual"},
		{"id": "near", "type": "http.request", "config": {"method": "POST", "url": "https://shop.example/locks/10"}},
		{"id": "far", "type": "http.request", "pool": "far", "config": {"method": "DELETE", "url": "https://shop.example/locks/10"}},
		{"id": "back", "type": "http.request", "config": {"method": "POST", "url": "https://shop.example/locks/11"}}
	], "edges": [{"from": "start", "to": "near"}, {"from": "near", "to": "far"}, {"from": "far", "to": "back"}]}`)
	id := x.start(t, "Two pools", "null")
	testkit.Eventually(t, 40*time.Second, "it waits for a worker of the pool", func() error {
		var why any
		x.api("GET", "/executions/"+id+"/why", nil, &why)
		if said := fmt.Sprint(why); !strings.Contains(said, "no-worker") || !strings.Contains(said, "far") {
			return fmt.Errorf("why: %s", said)
		}
		return nil
	})
	if n := x.shop.count("DELETE /locks/10"); n != 0 {
		t.Errorf("a worker of another pool made the call %d times", n)
	}
	x.addWorker(len(x.workers), size{slots: 5, env: []string{"WORKER_POOL=far"}}).waitReady()
	x.wait(t, id, "succeeded")
	if err := x.shop.counted(map[string]int{"POST /locks/10": 1, "DELETE /locks/10": 1, "POST /locks/11": 1}); err != nil {
		t.Error(err)
	}
}

func (x *examples) apply(t *testing.T, document string) {
	t.Helper()
	if code, out := x.flowctl(t, strings.ReplaceAll(document, "https://shop.example", x.shop.url), "flow", "apply", "-f", "-"); code != 0 {
		t.Fatal(out)
	}
}

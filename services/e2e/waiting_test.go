package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// wait waits for an execution's end and gives it.
func (p *platform) wait(t *testing.T, id, status string) (e execution) {
	t.Helper()
	testkit.Eventually(t, 40*time.Second, id+" is "+status, func() error {
		if p.api("GET", "/executions/"+id, nil, &e); e.Status != status {
			return fmt.Errorf("it is %s: %s", e.Status, e.Error)
		}
		return nil
	})
	return e
}

type sentSignal struct{ ID, Status, ExecutionID string }

func (x *examples) start(t *testing.T, flow, input string) string {
	t.Helper()
	code, out := x.flowctl(t, "", "-o", "json", "run", flow, "--input", input)
	var e execution
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&e); err != nil || code != 0 {
		t.Fatalf("%d, %v: %s", code, err, out)
	}
	return e.ID
}

// shipWhenPaid: the payment comes after the flow waits, before it waits, and never.
func shipWhenPaid(t *testing.T, x *examples) {
	const flow = "Ship when paid"
	waits := x.start(t, flow, `{"orderId": "A-1"}`)
	x.wait(t, waits, "waiting")
	if code, out := x.flowctl(t, "", "signal", "payment", "--key", "A-1", "--data", `{"sum": 12.50}`); code != 0 || !strings.Contains(out, "taken by "+waits) {
		t.Errorf("%d %s", code, out)
	}
	same(t, string(x.wait(t, waits, "succeeded").Output), `{"order": "A-1", "shipped": true, "sum": 12.5}`)
	var sent sentSignal
	if status := x.api("POST", "/signals/payment", map[string]any{"key": "A-2", "data": map[string]any{"sum": 3}}, &sent); status != 200 || sent.Status != "kept" {
		t.Errorf("%d %+v", status, sent)
	}
	same(t, string(x.wait(t, x.start(t, flow, `{"orderId": "A-2"}`), "succeeded").Output), `{"order": "A-2", "shipped": true, "sum": 3}`)
	same(t, string(x.wait(t, x.start(t, flow, `{"orderId": "A-3", "patience": "1500ms"}`), "succeeded").Output), `{"order": "A-3", "shipped": false}`)
}

func approveRefunds(t *testing.T, x *examples) {
	const flow = "Approve a refund"
	yes, no := x.start(t, flow, `{"sum": 500, "customer": "Bo"}`), x.start(t, flow, `{"sum": 900, "customer": "Cy"}`)
	x.wait(t, yes, "waiting")
	x.wait(t, no, "waiting")
	if code, out := x.flowctl(t, "", "approval", "list"); code != 0 || !strings.Contains(out, "Refund 500 EUR to Bo?") || !strings.Contains(out, no) {
		t.Errorf("%d %s", code, out)
	}
	if code, out := x.flowctl(t, "", "approval", "approve", yes, "decide"); code == 0 || !strings.Contains(out, "reason") {
		t.Errorf("approved without a reason: %d %s", code, out)
	}
	if code, out := x.flowctl(t, "", "approval", "approve", yes, "decide", "--data", `{"reason": "broken"}`); code != 0 {
		t.Error(out)
	}
	if code, out := x.flowctl(t, "", "approval", "reject", no, "decide"); code != 0 {
		t.Error(out)
	}
	same(t, string(x.wait(t, yes, "succeeded").Output), `{"refunded": true, "reason": "broken"}`)
	if e := x.wait(t, no, "succeeded"); !strings.Contains(string(e.Output), `"refunded":false`) || !strings.Contains(string(e.Output), "@") {
		t.Errorf("rejected: %s", e.Output)
	}
	if code, out := x.flowctl(t, "", "approval", "approve", no, "decide"); code == 0 {
		t.Errorf("decided twice: %s", out)
	}
}

// billCustomer calls a flow for each order: one of them fails, and one has an output that stands by reference.
func billCustomer(t *testing.T, x *examples) {
	x.createFlow(json.RawMessage(`{"name": "Bill an order",
		"nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "known", "type": "logic.if", "config": {"condition": "{{ input.order < 100 }}"}},
			{"id": "bill", "type": "data.code", "config": {"code": "return {amount: input.order * 10, pages: input.order == 3 ? 'x'.repeat(400000) : ''}"}},
			{"id": "no", "type": "flow.fail", "config": {"code": "no-order", "message": "there is no such order"}}],
		"edges": [{"from": "start", "to": "known"}, {"from": "known", "port": "true", "to": "bill"}, {"from": "known", "port": "false", "to": "no"}],
		"inputSchema": {"type": "object", "properties": {"order": {"type": "integer"}}}}`))
	parent := x.start(t, "Bill a customer", `{"customer": "Ada", "orders": [1, 2, 3, 400]}`)
	same(t, string(x.wait(t, parent, "succeeded").Output), `{"total": 60, "unbilled": 1}`)
	var children struct {
		Items []struct {
			ID, Status, ParentID string
			Labels               map[string]string
		}
	}
	x.api("GET", "/executions?parent="+parent, nil, &children)
	ends := map[string]int{}
	for _, c := range children.Items {
		ends[c.Status]++
		if c.ParentID != parent || c.Labels["customer"] != "Ada" {
			t.Errorf("%+v", c)
		}
	}
	if len(children.Items) != 4 || ends["succeeded"] != 3 || ends["failed"] != 1 {
		t.Errorf("children %+v", children.Items)
	}
	t.Run("calls", x.calls)
}

// calls: what is wrong fails the step with a code, what isn't waited for lives on, the end of a caller ends what it waits for, and a flow that calls itself comes to an end.
func (x *examples) calls(t *testing.T) {
	caller := func(name, config, extra string) string {
		return x.createFlow(json.RawMessage(fmt.Sprintf(`{"name": %q, "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "call", "type": "flow.call", "config": %s%s}], "edges": [{"from": "start", "to": "call"}]}`, name, config, extra)))
	}
	x.createFlow(json.RawMessage(`{"name": "Sleeper", "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "wait", "type": "flow.delay", "config": {"duration": "1h"}}], "edges": [{"from": "start", "to": "wait"}]}`))
	for name, want := range map[string][2]string{
		"unknown": {`{"flow": "No such flow"}`, "unknown-flow"},
		"version": {`{"flow": "Sleeper", "version": 7}`, "unknown-version"},
		"input":   {`{"flow": "Bill an order", "input": {"order": "x"}}`, "wrong-input"},
		"failing": {`{"flow": "Bill an order", "input": {"order": 500}}`, "child-failed"},
		"itself":  {`{"flow": "calls itself"}`, "child-failed"},
	} {
		id := x.accept(caller("calls "+name, want[0], ""), nil)
		if e := x.wait(t, id, "failed"); !strings.Contains(string(e.Error), want[1]) {
			t.Errorf("%s: %s, want %s", name, e.Error, want[1])
		}
	}
	children := func(parent, status string) (ids []string) {
		var list struct{ Items []struct{ ID string } }
		x.api("GET", "/executions?parent="+parent+"&status="+status, nil, &list)
		for _, c := range list.Items {
			ids = append(ids, c.ID)
		}
		return ids
	}
	// Two deep; the end goes down.
	caller("calls a sleeper", `{"flow": "Sleeper"}`, "")
	top := x.accept(caller("calls a caller", `{"flow": "calls a sleeper"}`, ""), nil)
	var middle, bottom []string
	testkit.Eventually(t, 20*time.Second, "the sleeper waits", func() error {
		if middle = children(top, "waiting"); len(middle) == 1 {
			bottom = children(middle[0], "waiting")
		}
		if len(bottom) != 1 {
			return fmt.Errorf("%v %v", middle, bottom)
		}
		return nil
	})
	if status := x.api("POST", "/executions/"+top+"/cancel", nil, nil); status != 200 && status != 202 {
		t.Fatal(status)
	}
	for _, id := range []string{top, middle[0], bottom[0]} {
		x.wait(t, id, "cancelled")
	}
	// One that isn't waited for.
	id := x.accept(caller("starts a sleeper", `{"flow": "Sleeper", "wait": false, "labels": {"lives": "on"}}`, ""), nil)
	var out struct{ ID string }
	if err := json.Unmarshal(x.wait(t, id, "succeeded").Output, &out); err != nil {
		t.Fatal(err)
	}
	x.wait(t, out.ID, "waiting")
	x.api("POST", "/executions/"+out.ID+"/cancel", nil, nil)
}

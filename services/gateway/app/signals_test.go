package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

// suspend lets an execution wait, as a worker and a collector would.
func (b *bundle) suspend(t testing.TB, id string, waits ...protocol.WaitEntry) {
	t.Helper()
	pid, err := protocol.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	x, err := b.owner.ExecutionByID(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	err = b.owner.Txn(t.Context(), "collect", func(tx protocol.Tx) error {
		_, err := protocol.ApplyReports(t.Context(), tx, x.Shard, []protocol.Entry{{Kind: protocol.EntrySuspend, Execution: pid, Attempt: x.Attempt, Seq: 1, Waits: waits}}, true)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func approvalWait(node, iteration string, a protocol.Approval) protocol.WaitEntry {
	open, _ := json.Marshal(a)
	return protocol.WaitEntry{Node: node, Iteration: iteration, Kind: flow.WaitApproval, Key: protocol.ApprovalKey(node, iteration), Reason: "waits for an approval", Open: open}
}

type sent struct{ ID, Status, ExecutionID string }

func TestSignals(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	f := b.flow(t, "orders")
	start := func() string { return b.run(t, f, `{"input": {"n": 1}}`).ID }
	signal := func(path string, status int, body string, header ...string) (out sent) {
		t.Helper()
		r := b.do(t, "POST", path, b.admin, body, header...).want(t, status)
		if status == 200 {
			r.into(t, &out)
		}
		return out
	}
	wait := func(name, key string) protocol.WaitEntry {
		return protocol.WaitEntry{Node: "set", Kind: flow.WaitSignal, Key: protocol.SignalKey(name, key), Reason: "waits"}
	}
	// By id: one that waits, one that doesn't yet.
	x := start()
	b.suspend(t, x, wait("paid", "A-1"))
	s := signal("/executions/"+x+"/signals/paid", 200, `{"data": {"sum": 12345678901234567890}}`)
	if s.Status != "taken" || s.ExecutionID != x {
		t.Fatalf("%+v", s)
	}
	testkit.Eventually(t, 20*time.Second, "the woken execution is handed out by the gateway", func() error {
		pid, _ := protocol.ParseID(x)
		row, err := b.owner.ExecutionByID(context.Background(), pid)
		if err == nil && (row.State != protocol.Queued || row.Attempt != 2 || row.Handed != 2) {
			err = fmt.Errorf("%s, attempt %d, handed %d", row.State, row.Attempt, row.Handed)
		}
		return err
	})
	y := start()
	if s = signal("/executions/"+y+"/signals/paid", 200, `{}`); s.Status != "kept" || s.ExecutionID != y {
		t.Fatalf("%+v", s)
	}
	b.suspend(t, y, wait("paid", ""))
	if got := b.do(t, "GET", "/executions/"+y, b.admin, nil).want(t, 200); !strings.Contains(string(got.body), `"attempt":2`) {
		t.Fatalf("the signal that came first was not taken: %s", got.body)
	}
	// By key, with an Idempotency-Key: sent once, whatever the answer's fate.
	key := []string{"Idempotency-Key", "k1"}
	first := signal("/signals/paid", 200, `{"key": "A/2", "data": 1}`, key...)
	if again := signal("/signals/paid", 200, `{"key": "A/2", "data": 1}`, key...); first.Status != "kept" || again != first {
		t.Fatalf("%+v, then %+v", first, again)
	}
	signal("/signals/paid", 422, `{"key": "A/2", "data": 2}`, key...)
	z := start()
	b.suspend(t, z, wait("paid", "A/2"))
	if again := signal("/signals/paid", 200, `{"key": "A/2", "data": 1}`, key...); again.Status != "taken" || again.ExecutionID != z || again.ID != first.ID {
		t.Fatalf("%+v", again)
	}
	// Refused.
	signal("/signals/no%20name", 422, `{}`)
	signal("/signals/paid", 422, `{"key": "a\u0000b"}`)
	signal("/signals/paid", 422, `{"key": "k", "data": 1, "extra": 2}`)
	signal("/signals/paid", 413, `{"data": "`+strings.Repeat("x", 256<<10)+`"}`)
	signal("/executions/"+unknownID+"/signals/paid", 404, `{}`)
	b.do(t, "POST", "/executions/"+z+"/cancel", b.admin, nil).want(t, 200)
	signal("/executions/"+z+"/signals/paid", 409, `{}`)
	b.do(t, "POST", "/signals/paid", b.token(t, "viewer"), `{}`).want(t, 403)
}

func TestApprovals(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	f := b.flow(t, "orders")
	viewer, operator := b.token(t, "viewer"), b.token(t, "operator")
	x := b.run(t, f, `{"input": {"n": 1}}`).ID
	b.suspend(t, x,
		approvalWait("refund", "", protocol.Approval{Title: "Refund?", Fields: json.RawMessage(`{"reason": {"type": "string", "minLength": 3, "required": true}, "sum": {"type": "integer"}}`)}),
		approvalWait("each", "1", protocol.Approval{Approvers: []string{"nobody@x.example"}}),
		approvalWait("mine", "", protocol.Approval{Approvers: []string{"viewer"}}))
	open := func(token string) (nodes string) {
		t.Helper()
		var list struct {
			Items []struct{ Node, Title string }
		}
		b.do(t, "GET", "/approvals", token, nil).want(t, 200).into(t, &list)
		for _, i := range list.Items {
			nodes += i.Node + " "
		}
		return nodes
	}
	if got := open(viewer) + "| " + open(operator); got != "mine | mine refund " {
		t.Fatalf("open: %s", got)
	}
	decide := func(node string, status int, token, body string, header ...string) *response {
		t.Helper()
		return b.do(t, "POST", "/executions/"+x+"/approvals/"+node, token, body, header...).want(t, status)
	}
	decide("refund", 403, viewer, `{"decision": "approve", "data": {"reason": "broken"}}`)
	decide("each", 403, b.admin, `{"decision": "approve", "iteration": "1"}`)
	decide("each", 404, b.admin, `{"decision": "approve"}`)
	decide("nothing", 404, b.admin, `{"decision": "approve"}`)
	decide("refund", 422, operator, `{"decision": "maybe"}`)
	for body, want := range map[string]string{
		`{"decision": "approve"}`:                                                "/data/reason",
		`{"decision": "approve", "data": {"reason": "ab"}}`:                      "/data/reason",
		`{"decision": "approve", "data": {"reason": "broken", "sum": "many"}}`:   "/data/sum",
		`{"decision": "approve", "data": {"reason": "broken", "other": "many"}}`: "/data/other",
	} {
		if got := decide("refund", 422, operator, body).pointers(t); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, want %s", body, got, want)
		}
	}
	key := []string{"Idempotency-Key", "once"}
	yes := `{"decision": "approve", "data": {"reason": "broken", "sum": 9007199254740993}}`
	var first, again struct {
		Status, Decision, By string
		At                   time.Time
	}
	decide("refund", 200, operator, yes, key...).into(t, &first)
	decide("refund", 200, operator, yes, key...).into(t, &again)
	if first.Status != "taken" || first != again || first.By == "" {
		t.Fatalf("%+v, then %+v", first, again)
	}
	decide("refund", 409, b.admin, `{"decision": "reject"}`)
	decide("refund", 409, viewer, yes, key...)
	if got := open(operator); got != "mine " {
		t.Fatalf("open: %s", got)
	}
	var events strings.Builder
	pid, _ := protocol.ParseID(x)
	reports, err := b.owner.ReportsOf(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		events.Write(r.Events)
	}
	for _, want := range []string{`"p":"approved"`, `"sum":9007199254740993`, fmt.Sprintf(`"by":%q`, first.By)} {
		if !strings.Contains(events.String(), want) {
			t.Errorf("%s doesn't say %s", events.String(), want)
		}
	}
	// The other is decided while the execution runs: kept, and only one counts.
	decide("mine", 200, viewer, `{"decision": "reject"}`)
	decide("mine", 409, viewer, `{"decision": "approve"}`)
	if got := open(viewer); got != "" {
		t.Fatalf("open: %s", got)
	}
	var audit struct {
		Items []struct{ Action, ObjectID, Actor string }
	}
	b.do(t, "GET", "/audit", b.admin, nil).want(t, http.StatusOK).into(t, &audit)
	if len(audit.Items) == 0 || audit.Items[0].Action != "reject" || audit.Items[0].ObjectID != x || !strings.Contains(audit.Items[0].Actor, "viewer") {
		t.Fatalf("audit %+v", audit.Items[:min(1, len(audit.Items))])
	}
}

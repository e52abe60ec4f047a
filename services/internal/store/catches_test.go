package store

import (
	"fmt"
	"slices"
	"testing"

	"flowplatform/services/internal/protocol"
)

// catcher makes a flow that catches.
func (b *bundle) catcher(t *testing.T, gateway *DB, states ...protocol.State) Flow {
	t.Helper()
	f, err := gateway.CreateFlow(t.Context(), Flow{Name: "catches " + NewID().String()}, []byte(`{"nodes":[]}`), "x", true, Hook{Node: "caught", Errors: &ErrorSpec{States: states}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// pendingOf is what is pending of an execution.
func pendingOf(t *testing.T, db *DB, id protocol.ID) *PendingFailure {
	t.Helper()
	all, now, err := db.PendingFailures(t.Context(), 1000)
	if err != nil || now.IsZero() {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(all, func(f PendingFailure) bool { return f.Execution == id }); i >= 0 {
		return &all[i]
	}
	return nil
}

// catch catches a failure with a new execution of each flow that asks for it, and tells which.
func catchIt(t *testing.T, db *DB, f *PendingFailure) []protocol.Catch {
	t.Helper()
	triggers, err := db.ErrorTriggers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var rows []NewExecution
	catches := protocol.CatchesOf(&f.FailureView, triggers)
	for i := range catches {
		if c := &catches[i]; c.Outcome == protocol.CatchStarted {
			row := newExecution(NewID())
			row.Flow, c.Started = c.Flow, row.ID
			rows = append(rows, row)
		}
	}
	var out protocol.Outcome
	var done []protocol.Catch
	err = db.CatchTxn(t.Context(), rows, func(tx protocol.CatchTx) (err error) {
		out, done, err = protocol.CatchFailures(t.Context(), tx, []protocol.End{f.End}, catches)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(done) > 0 && len(out.HandOut) != len(rows) {
		t.Errorf("%d of %d are handed out", len(out.HandOut), len(rows))
	}
	return done
}

// A bad end that a trigger asks for is caught once, also by two that have read it both; retried and ended again, once more. What error flows have led to doesn't come back to them.
func TestCatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	gateway, orch := b.open(t, "flow_gateway"), b.open(t, "flow_orchestrator")
	id := b.insert(t, 1)[0]
	b.cancelAll(t, []protocol.ID{id})
	if pendingOf(t, orch, id) != nil {
		t.Fatal("an end that nobody asks for left a failure")
	}
	retry := func() {
		t.Helper()
		err := b.db.Txn(t.Context(), "retry", func(tx protocol.Tx) error {
			_, v, err := protocol.Retry(t.Context(), tx, []protocol.ID{id})
			if err == nil && !v[0].Done {
				err = fmt.Errorf("%+v", v)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	one, two := b.catcher(t, gateway, protocol.Cancelled), b.catcher(t, gateway, protocol.Cancelled, protocol.Failed)
	b.catcher(t, gateway, protocol.TimedOut)
	retry()
	b.cancelAll(t, []protocol.ID{id})
	f := pendingOf(t, orch, id)
	if f == nil || f.Retries != 1 || f.State != protocol.Cancelled || f.Error == nil || f.Error.Code != "cancelled" || f.At.IsZero() || f.Created.IsZero() || len(f.Above) != 0 {
		t.Fatalf("%+v", f)
	}
	done := catchIt(t, orch, f)
	if len(done) != 2 || done[0].Flow != one.ID || done[1].Flow != two.ID || done[0].Started.IsZero() {
		t.Fatalf("%+v", done)
	}
	if again := catchIt(t, orch, f); len(again) != 0 || pendingOf(t, orch, id) != nil {
		t.Errorf("what was caught is caught again: %+v", again)
	}
	retry()
	b.cancelAll(t, []protocol.ID{id})
	if f = pendingOf(t, orch, id); f == nil || f.Retries != 2 {
		t.Fatalf("the end after a retry: %+v", f)
	}
	catchIt(t, orch, f)
	shown, err := gateway.CatchesOf(t.Context(), id, 10)
	if err != nil || len(shown) != 4 || shown[0].Retries != 1 || shown[3].Retries != 2 || shown[0].FlowName != one.Name || shown[0].StartedState != protocol.Queued || shown[0].Outcome != protocol.CatchStarted || shown[0].Started != done[0].Started {
		t.Fatalf("%v %+v", err, shown)
	}
	// What the first error flow has started ends badly: the second is started, the first isn't; and what that one starts leads to nobody.
	b.cancelAll(t, []protocol.ID{done[0].Started})
	if f = pendingOf(t, orch, done[0].Started); f == nil || len(f.Above) != 1 || f.Cause != id {
		t.Fatalf("%+v", f)
	}
	next := catchIt(t, orch, f)
	if len(next) != 1 || next[0].Flow != two.ID || len(next[0].Above) != 2 {
		t.Fatalf("%+v", next)
	}
	b.cancelAll(t, []protocol.ID{next[0].Started})
	if f = pendingOf(t, orch, next[0].Started); f == nil || len(f.Above) != 2 {
		t.Fatalf("%+v", f)
	}
	if last := catchIt(t, orch, f); len(last) != 1 || last[0].Outcome != protocol.CatchSkipped || last[0].Reason == "" || last[0].Flow != one.ID {
		t.Errorf("in a circle: %+v", last)
	}
	// A child of what an error flow started: its root counts.
	child := newExecution(NewID())
	child.Root = done[1].Started
	if _, err := b.db.InsertExecutions(t.Context(), []NewExecution{child}); err != nil {
		t.Fatal(err)
	}
	b.cancelAll(t, []protocol.ID{child.ID})
	if f = pendingOf(t, orch, child.ID); f == nil || len(f.Above) != 2 || f.Above[1] != two.ID {
		t.Fatalf("a child's: %+v", f)
	}
	if got := catchIt(t, orch, f); len(got) != 2 || got[0].Outcome != protocol.CatchStarted || got[1].Outcome != protocol.CatchSkipped {
		t.Errorf("%+v", got)
	}
}

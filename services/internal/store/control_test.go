package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// cancelAll makes executions that have ended, so that they can be retried.
func (b *bundle) cancelAll(t *testing.T, ids []protocol.ID) {
	t.Helper()
	err := b.db.Txn(t.Context(), "test", func(x protocol.Tx) error {
		_, err := protocol.Cancel(t.Context(), x, ids, protocol.Cancelled)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestBulk: what becomes of an item is committed with what is done to it, by whoever comes first.
func TestBulk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	gateway := b.open(t, "flow_gateway")
	ctx := t.Context()
	ids := b.insert(t, 12)
	b.cancelAll(t, ids[:10])
	retry := func(x *BulkTx, executions []protocol.ID) ([]BulkItem, error) {
		_, verdicts, err := protocol.Retry(ctx, x, executions)
		items := make([]BulkItem, len(verdicts))
		for i, v := range verdicts {
			if items[i] = (BulkItem{Outcome: "skipped", Reason: v.Reason}); v.Done {
				items[i].Outcome = "done"
			}
		}
		return items, err
	}
	asked := append([]protocol.ID{ids[3], NewID()}, ids...) // one twice, one that nobody has
	key := IdempotencyKey{Scope: "s", Key: "k", BodyHash: []byte{1}}
	job, again, err := gateway.CreateBulk(ctx, Bulk{ID: NewID(), Action: BulkRetry, AskedBy: "ada", Rate: 10}, asked, nil, key)
	if err != nil || again || job.Total != 13 {
		t.Fatalf("%+v %v %v", job, again, err)
	}
	if same, again, err := gateway.CreateBulk(ctx, Bulk{ID: NewID(), Action: BulkRetry, Rate: 10}, asked, nil, key); err != nil || !again || same.ID != job.ID {
		t.Errorf("the same key: %+v %v %v", same, again, err)
	}
	key.BodyHash = []byte{2}
	if _, _, err := gateway.CreateBulk(ctx, Bulk{ID: NewID(), Action: BulkRetry, Rate: 10}, asked, nil, key); !errors.Is(err, ErrKeyReused) {
		t.Errorf("the same key for another body: %v", err)
	}
	broke := errors.New("broke")
	if _, err := b.db.BulkStep(ctx, job.ID, 5, func(x *BulkTx, executions []protocol.ID) ([]BulkItem, error) {
		if _, err := retry(x, executions); err != nil {
			return nil, err
		}
		return nil, broke
	}); !errors.Is(err, broke) {
		t.Fatal(err)
	}
	if x, err := b.db.ExecutionByID(ctx, ids[3]); err != nil || x.State != protocol.Cancelled {
		t.Errorf("a step that was not committed did something: %s %v", x.State, err)
	}
	done := make(chan error)
	for range 2 { // two leaders
		go func() {
			for {
				j, err := b.db.BulkStep(ctx, job.ID, 3, retry)
				if err != nil || !j.FinishedAt.IsZero() {
					done <- err
					return
				}
			}
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if job, err = b.db.BulkByID(ctx, job.ID); err != nil || job.Done != 10 || job.Skipped != 3 || job.Position() != job.Total {
		t.Errorf("%+v %v", job, err)
	}
	if got := b.sql(t, `SELECT string_agg(DISTINCT retries::text, ' ') FROM executions WHERE attempt > 1`); got != "1" {
		t.Errorf("retries: %s", got)
	}
	items, err := b.db.BulkItems(ctx, job.ID, 0, "skipped", 100)
	if err != nil || len(items) != 3 || items[0].N != 2 || !strings.Contains(items[0].Reason, "no execution") {
		t.Errorf("%+v %v", items, err)
	}
	b.stopped(t, gateway, ids)
}

// stopped: a filter makes a job of what it meets, and a job that is cancelled skips what is left.
func (b *bundle) stopped(t *testing.T, gateway *DB, ids []protocol.ID) {
	t.Helper()
	ctx := t.Context()
	job, _, err := gateway.CreateBulk(ctx, Bulk{ID: NewID(), Action: BulkCancel, Rate: 10}, nil, &ExecutionFilter{States: []protocol.State{protocol.Queued}}, IdempotencyKey{})
	if err != nil || job.Total != len(ids) {
		t.Fatalf("%+v %v", job, err)
	}
	if changed, err := gateway.StopBulk(ctx, job.ID, "ada"); !changed || err != nil {
		t.Error(changed, err)
	}
	never := func(*BulkTx, []protocol.ID) ([]BulkItem, error) { return nil, errors.New("called") }
	if job, err = b.db.BulkStep(ctx, job.ID, 5, never); err != nil || job.FinishedAt.IsZero() || job.Skipped != len(ids) {
		t.Errorf("%+v %v", job, err)
	}
	for range MaxBulkOpen {
		if _, _, err := gateway.CreateBulk(ctx, Bulk{ID: NewID(), Action: BulkCancel, Rate: 10}, ids, nil, IdempotencyKey{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := gateway.CreateBulk(ctx, Bulk{ID: NewID(), Action: BulkCancel, Rate: 10}, ids, nil, IdempotencyKey{}); !errors.Is(err, ErrFull) {
		t.Errorf("one more job than may be open: %v", err)
	}
}

// TestRetryRow: the deadline of a retried execution begins anew, as long as it was, however often.
func TestRetryRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	e := newExecution(NewID())
	e.CreatedAt = time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	e.Deadline = e.CreatedAt.Add(10 * time.Minute)
	if _, err := b.db.InsertExecutions(ctx, []NewExecution{e}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 2; n++ {
		b.cancelAll(t, []protocol.ID{e.ID})
		var out protocol.Outcome
		err := b.db.Txn(ctx, "test", func(x protocol.Tx) error {
			var err error
			out, _, err = protocol.Retry(ctx, x, []protocol.ID{e.ID})
			return err
		})
		if err != nil || len(out.HandOut) != 1 {
			t.Fatalf("%+v %v", out, err)
		}
		x, err := b.db.ExecutionByID(ctx, e.ID)
		if err != nil || x.State != protocol.Queued || x.Retries != n || x.Attempt != n+1 || x.Error != nil || !x.FinishedAt.IsZero() {
			t.Errorf("%+v %v", x.Row, err)
		}
		if left := time.Until(x.Deadline); left < 9*time.Minute || left > 11*time.Minute {
			t.Errorf("retry %d: its deadline is in %s", n, left)
		}
		tasks, err := b.db.Tasks(ctx, []protocol.ID{e.ID})
		if err != nil || len(tasks) != 1 || len(tasks[0].Steps) != n {
			t.Errorf("%+v %v", tasks, err)
		}
	}
}

// TestReplayRow: what a replay begins with is in its first task.
func TestReplayRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	big := strings.Repeat("x", protocol.MaxInline)
	report, large, err := protocol.SeedEvents([]flow.Event{{Type: flow.EventPinned, Node: "a", Port: "main", Output: "small"}, {Type: flow.EventPinned, Node: "b", Port: "main", Output: big}}, func(raw json.RawMessage) string { return payload.Ref(raw) })
	if err != nil || len(large) != 1 {
		t.Fatal(len(large), err)
	}
	r := &Replay{NewExecution: newExecution(NewID()), Events: report, Large: large}
	r.IdempotencyKey = IdempotencyKey{Scope: "s", Key: "k", BodyHash: []byte{1}}
	gateway := b.open(t, "flow_gateway")
	if in, err := gateway.InsertReplay(ctx, r); err != nil || in.ID != r.ID || in.Duplicate {
		t.Fatalf("%+v %v", in, err)
	}
	tasks, err := b.db.Tasks(ctx, []protocol.ID{r.ID})
	if err != nil || len(tasks) != 1 || len(tasks[0].Steps) != 1 {
		t.Fatalf("%+v %v", tasks, err)
	}
	events, err := protocol.ResolveEvents(tasks[0].Steps, func(v protocol.Value) (json.RawMessage, error) { return b.db.Value(ctx, r.ID, v.Ref) })
	if err != nil || len(events) != 2 || events[0].Output != "small" || fmt.Sprint(events[1].Output) != big {
		t.Errorf("%d events, %v", len(events), err)
	}
	again := *r
	again.ID = NewID()
	if in, err := gateway.InsertReplay(ctx, &again); err != nil || in.ID != r.ID || !in.Duplicate {
		t.Errorf("the same key: %+v %v", in, err)
	}
}

// TestPausedRows: what the leader looks for, and what sessions are told.
func TestPausedRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	ids := b.insert(t, 2)
	by := func(id protocol.ID, text string) {
		err := b.db.Txn(ctx, "test", func(x protocol.Tx) error { _, _, err := protocol.Pause(ctx, x, []protocol.ID{id}, text); return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	by(ids[0], protocol.NodeTypePaused("http.request", "ada", "down"))
	by(ids[1], protocol.PausedBy("ada", "look"))
	if tasks, err := b.db.Tasks(ctx, ids); err != nil || len(tasks) != 0 {
		t.Errorf("tasks of paused executions: %v %v", tasks, err)
	}
	gateway := b.open(t, "flow_gateway")
	set := PauseRow{Kind: PauseNodeType, Name: "http.request", Reason: "down", SetBy: "ada"}
	if _, err := gateway.SetPause(ctx, set); err != nil {
		t.Fatal(err)
	}
	session := NewID()
	var orders map[protocol.ID]protocol.Orders
	renew := func(x protocol.Tx) error {
		if err := x.OpenSession(ctx, protocol.OpenSessionRequest{Session: session, Worker: "w"}); err != nil {
			return err
		}
		var err error
		orders, err = x.Beat(ctx, []protocol.ID{session})
		return err
	}
	if err := b.db.Txn(ctx, "test", renew); err != nil || orders[session].PausedTypes["http.request"] != protocol.NodeTypePaused("http.request", "ada", "down") || orders[session].PausedPool != "" {
		t.Errorf("%+v %v", orders, err)
	}
	flows, err := b.db.HoldingFlows(ctx)
	if err != nil || len(flows) != 2 {
		t.Fatalf("%v %v", flows, err)
	}
	releasable := func() (out []protocol.ID) {
		for _, f := range flows {
			got, err := b.db.ReleasableOf(ctx, f, 10)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, got...)
		}
		return out
	}
	if got := releasable(); len(got) != 0 {
		t.Errorf("%v may go on though the type is paused", got)
	}
	if err := gateway.ClearPause(ctx, PauseNodeType, "http.request"); err != nil {
		t.Fatal(err)
	}
	if got := releasable(); len(got) != 1 || got[0] != ids[0] {
		t.Errorf("%v may go on, want the one that the type held", got)
	}
	if _, err := gateway.SetPause(context.WithoutCancel(ctx), PauseRow{Kind: PausePool, Name: "default", Reason: "cable", SetBy: "ada"}); err != nil {
		t.Fatal(err)
	}
	if err := b.db.Txn(ctx, "test", renew); err != nil || orders[session].PausedPool != "ada: cable" {
		t.Errorf("%+v %v", orders, err)
	}
}

package store

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// A large input is committed with its row, under the gateway's own rights, and read back whole; the task names it.
func TestLargeInputs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_gateway"), t.Context()
	large := json.RawMessage(`{"text":"` + strings.Repeat("lorem ", 100_000) + `"}`)
	row := func(input json.RawMessage, key string) NewExecution {
		return NewExecution{ID: NewID(), Flow: NewID(), Version: 1, Input: input, CreatedAt: time.Now(), IdempotencyKey: IdempotencyKey{Scope: "s", Key: key, BodyHash: []byte("h")}}
	}
	for name, rows := range map[string][]NewExecution{
		"plain": {row(large, ""), row(json.RawMessage(`{"small":true}`), ""), row(nil, "")},
		"keyed": {row(large, "k"), row(large, ""), row(json.RawMessage(`1`), "")},
	} {
		for range 2 { // with a key, the second time it is a duplicate: nothing of it is stored
			done, err := db.InsertExecutions(ctx, rows)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if done[0].Duplicate && done[0].ID == rows[0].ID {
				t.Fatalf("%s: %+v", name, done)
			}
			x, err := db.ExecutionByID(ctx, done[0].ID)
			if err != nil || x.Input != nil || x.InputRef.Size != len(large) || x.InputRef.Ref != payload.Ref(large) {
				t.Fatalf("%s: %+v, %v", name, x, err)
			}
			if v, err := db.Value(ctx, x.ID, x.InputRef.Ref); err != nil || string(v) != string(large) {
				t.Fatalf("%s: %d bytes, %v", name, len(v), err)
			}
			tasks, err := b.db.Tasks(ctx, []protocol.ID{x.ID})
			if err != nil || len(tasks) != 1 || tasks[0].Input != nil || tasks[0].InputRef == nil || tasks[0].InputRef.Ref != x.InputRef.Ref || tasks[0].InputRef.Size != len(large) {
				t.Fatalf("%s: %+v, %v", name, tasks, err)
			}
			again := rows[:0:0]
			for _, r := range rows {
				r.ID = NewID()
				again = append(again, r)
			}
			rows = again
		}
	}
	if n := b.sql(t, "SELECT count(*) FROM payloads WHERE execution_id NOT IN (SELECT id FROM executions)"); n != "0" {
		t.Errorf("%s payloads belong to nothing", n)
	}
	if n := b.sql(t, "SELECT count(*) FROM payloads"); n != "5" { // plain twice; keyed: two, then one
		t.Errorf("%s payloads, want 5", n)
	}
}

func TestPayloads(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_orchestrator"), t.Context()
	id := b.insert(t, 1)[0]
	p := NewPayload(id, []byte(`"`+strings.Repeat("x", protocol.MaxInline)+`"`))
	for range 2 {
		if err := db.PutPayload(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := db.Payload(ctx, id, p.SHA256)
	if err != nil || got.Codec != protocol.CodecZstd || string(got.Data) != string(p.Data) || got.Size != p.Size {
		t.Fatalf("%+v, %v", got, err)
	}
	nobody := p
	nobody.Execution = NewID()
	if err := db.PutPayload(ctx, nobody); !errors.Is(err, ErrNotFound) {
		t.Errorf("a value of no execution: %v", err)
	}
	if _, err := db.Payload(ctx, nobody.Execution, p.SHA256); !errors.Is(err, ErrNotFound) {
		t.Errorf("a value of no execution is read: %v", err)
	}
}

// Of many large values at once an execution keeps 64 MiB, not one byte more.
func TestPayloadsOfOneExecutionAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, 1)[0]
	var mu sync.Mutex
	var wg sync.WaitGroup
	stored, refused := 0, 0
	for i := range 6 {
		wg.Go(func() {
			p := NewPayload(id, []byte(strings.Repeat(string(rune('a'+i)), protocol.MaxValue)))
			err := b.db.PutPayload(t.Context(), p)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				stored++
			case errors.Is(err, ErrPayloads):
				refused++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if stored != 4 || refused != 2 {
		t.Errorf("%d stored, %d refused; want 4 and 2", stored, refused)
	}
}

// What a report brings beside its events: an output by reference, and logs.
func TestOutputByReferenceAndLogs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	id := b.insert(t, 1)[0]
	ref := protocol.Value{Ref: strings.Repeat("0a", 32), Size: 300_000}
	err := b.db.Txn(ctx, "test", func(tx protocol.Tx) error {
		_, err := protocol.ApplyReports(ctx, tx, 0, []protocol.Entry{{Kind: protocol.EntryFinal, Execution: id, Attempt: 1, Seq: 1, State: protocol.Succeeded, OutputRef: &ref, Logs: json.RawMessage(`[{"m":"hello"}]`)}}, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	x, err := b.db.ExecutionByID(ctx, id)
	if err != nil || x.State != protocol.Succeeded || x.Output != nil || x.OutputRef.Ref != ref.Ref || x.OutputRef.Size != ref.Size {
		t.Errorf("%+v, %v", x, err)
	}
	logs, err := b.db.LogsOf(ctx, id, 0, 0, 10)
	if err != nil || len(logs) != 1 || string(logs[0].Lines) != `[{"m":"hello"}]` || logs[0].Seq != 1 {
		t.Errorf("%+v, %v", logs, err)
	}
	if after, err := b.db.LogsOf(ctx, id, 1, 2, 10); err != nil || len(after) != 0 {
		t.Errorf("%+v, %v", after, err)
	}
}

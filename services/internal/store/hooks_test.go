package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"

	"flowplatform/services/internal/protocol"
)

// TestHooks: a published version has its hooks and no others; a path belongs to one flow.
func TestHooks(t *testing.T) {
	t.Parallel()
	db, ctx := setup(t).open(t, "flow_gateway"), t.Context()
	doc := json.RawMessage(`{}`)
	at := func(path string) string {
		t.Helper()
		hooks, err := db.HooksAt(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, h := range hooks {
			out += fmt.Sprintf("%s %s %t;", h.Method, h.Node, h.Flows)
		}
		return out
	}
	f, err := db.CreateFlow(ctx, Flow{Name: "one"}, doc, "a", true, Hook{Node: "b", Path: "x", Method: "POST", Flows: true}, Hook{Node: "a", Path: "x", Method: "GET"})
	if err != nil || at("x") != "GET a false;POST b true;" {
		t.Fatalf("%v %s", err, at("x"))
	}
	var taken *HookTakenError
	if _, err = db.CreateFlow(ctx, Flow{Name: "two"}, doc, "a", true, Hook{Node: "h", Path: "free", Method: "GET"}, Hook{Node: "h", Path: "x", Method: "POST"}); !errors.As(err, &taken) || taken.Flow != "one" || taken.Node != "h" || !errors.Is(err, ErrConflict) {
		t.Fatalf("a taken path: %v", err)
	}
	if _, err := db.FlowByName(ctx, protocol.ID{}, "two"); !errors.Is(err, ErrNotFound) || at("free") != "" {
		t.Fatalf("something of the refused flow was stored: %v %q", err, at("free"))
	}
	two, err := db.CreateFlow(ctx, Flow{Name: "two"}, doc, "a", false, Hook{Node: "h", Path: "x", Method: "POST"})
	if err != nil {
		t.Fatalf("a draft takes no path: %v", err)
	}
	if _, err := db.PublishVersion(ctx, two.ID, -1, 1, Hook{Node: "h", Path: "x", Method: "POST"}); !errors.As(err, &taken) {
		t.Fatalf("published over a taken path: %v", err)
	}
	if two, err = db.FlowByID(ctx, two.ID); err != nil || two.Published != 0 {
		t.Fatalf("%+v %v", two, err)
	}
	if f, err = db.SaveFlow(ctx, f.ID, f.Revision, "one", "", nil, doc, "a", false, Hook{Node: "c", Path: "y", Method: "GET"}); err != nil || at("y") != "" || at("x") == "" {
		t.Fatalf("a draft changes hooks: %v %q", err, at("y"))
	}
	if f, err = db.SaveFlow(ctx, f.ID, f.Revision, "one", "", nil, doc, "a", true, Hook{Node: "c", Path: "y", Method: "GET"}); err != nil || at("y") != "GET c false;" || at("x") != "" {
		t.Fatalf("%v %q %q", err, at("x"), at("y"))
	}
	if two, err = db.PublishVersion(ctx, two.ID, two.Revision, 1, Hook{Node: "h", Path: "x", Method: "POST"}); err != nil || at("x") != "POST h false;" {
		t.Fatalf("%v %q", err, at("x"))
	}
	if _, err := db.PublishVersion(ctx, two.ID, two.Revision-1, 1); !errors.Is(err, ErrStale) || at("x") == "" {
		t.Fatalf("a stale publish: %v", err)
	}
	if err := db.DeleteFlow(ctx, f.ID, -1); err != nil || at("y") != "" {
		t.Fatalf("%v %q", err, at("y"))
	}
}

// TestHooksRace: of many flows that want the same paths at once exactly one gets them.
func TestHooksRace(t *testing.T) {
	t.Parallel()
	db, ctx := setup(t).open(t, "flow_gateway"), t.Context()
	const flows = 12
	errs := make([]error, flows)
	var wg sync.WaitGroup
	for i := range flows {
		hooks := []Hook{{Node: "a", Path: "p", Method: "GET"}, {Node: "b", Path: "q", Method: "GET"}}
		if i%2 == 1 {
			hooks[0], hooks[1] = hooks[1], hooks[0]
		}
		wg.Go(func() {
			_, errs[i] = db.CreateFlow(ctx, Flow{Name: fmt.Sprint(i)}, json.RawMessage(`{}`), "a", true, hooks...)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		var taken *HookTakenError
		switch {
		case err == nil:
			won++
		case !errors.As(err, &taken):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d flows have the path", won)
	}
}

// TestReportsSince: only what is newer than what is known, of many executions at once.
func TestReportsSince(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.db, t.Context()
	var ids []protocol.ID
	for range 2 {
		id := NewID()
		ids = append(ids, id)
		for _, at := range [][2]int{{1, 1}, {1, 2}, {2, 0}, {2, 1}} {
			b.sql(t, fmt.Sprintf(`INSERT INTO reports (execution_id, attempt, seq, events) VALUES ('%s', %d, %d, '[]')`, id, at[0], at[1]))
		}
	}
	got, err := db.ReportsSince(ctx, []ReportsAfter{{Execution: ids[0]}, {Execution: ids[1], Attempt: 1, Seq: 2}, {Execution: NewID()}})
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, r := range got {
		out += fmt.Sprintf("%d:%d/%d ", map[protocol.ID]int{ids[0]: 0, ids[1]: 1}[r.Execution], r.Attempt, r.Seq)
	}
	if out != "0:1/1 0:1/2 0:2/0 0:2/1 1:2/0 1:2/1 " {
		t.Error(out)
	}
}

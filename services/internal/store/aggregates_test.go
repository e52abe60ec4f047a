package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
)

func TestUsers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_gateway"), t.Context()
	first := User{ID: NewID(), Email: "Admin@example.com", Role: "admin", PasswordHash: "h"}
	tokens := []Token{{Name: "cli", Role: "admin", Hash: []byte("1")}, {Name: "bench", Role: "admin", Hash: []byte("2"), RateLimit: -1}}
	results := make(chan bool, 4)
	for i := range 4 { // four gateways, one first user
		go func() {
			u := first
			if i > 0 {
				u.ID = NewID()
			}
			mine := slices.Clone(tokens)
			for j := range mine {
				mine[j].Hash = fmt.Appendf(nil, "%d-%d", i, j)
			}
			created, err := db.CreateFirstUser(ctx, u, mine)
			if err != nil {
				t.Error(err)
			}
			results <- created
		}()
	}
	n := 0
	for range 4 {
		if <-results {
			n++
		}
	}
	if n != 1 {
		t.Fatalf("%d first users", n)
	}
	u, err := db.UserByEmail(ctx, "admin@EXAMPLE.com")
	if err != nil || u.Role != "admin" || u.CreatedAt.IsZero() {
		t.Fatalf("%+v, %v", u, err)
	}
	mine, _, err := db.ListTokens(ctx, u.ID, Page{})
	if err != nil || len(mine) != 2 || mine[0].RateLimit != -1 {
		t.Fatalf("tokens %+v, %v", mine, err)
	}
	var conflict *ConflictError
	if _, err := db.CreateUser(ctx, User{Email: "ADMIN@example.com", Role: "viewer", PasswordHash: "h"}); !errors.As(err, &conflict) || conflict.Field != "email" {
		t.Fatalf("a second user of that address: %v", err)
	}
	if _, err := db.CreateUser(ctx, User{Email: "x@example.com", Role: "king", PasswordHash: "h"}); !errors.Is(err, protocol.ErrData) {
		t.Fatalf("an unknown role: %v", err)
	}
	other, err := db.CreateUser(ctx, User{Email: "x@example.com", Role: "viewer", PasswordHash: "h"})
	if err != nil {
		t.Fatal(err)
	}
	stale := other.UpdatedAt
	other.Role = "editor"
	if other, err = db.UpdateUser(ctx, other, stale); err != nil || other.Role != "editor" {
		t.Fatalf("%+v, %v", other, err)
	}
	if _, err := db.UpdateUser(ctx, other, stale); !errors.Is(err, ErrStale) {
		t.Fatalf("an update over a newer one: %v", err)
	}
	if _, err := db.UpdateUser(ctx, User{ID: NewID(), Role: "viewer", Email: "n@example.com"}, time.Time{}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("an update of nobody: %v", err)
	}
	list, next, err := db.ListUsers(ctx, Page{Limit: 1})
	if err != nil || len(list) != 1 || list[0].ID != other.ID || next == "" {
		t.Fatalf("%+v, %q, %v", list, next, err)
	}
	list, next, err = db.ListUsers(ctx, Page{Limit: 1, Cursor: next})
	if err != nil || len(list) != 1 || list[0].ID != u.ID || next != "" {
		t.Fatalf("%+v, %q, %v", list, next, err)
	}
	if _, _, err := db.ListUsers(ctx, Page{Cursor: "nonsense"}); !errors.Is(err, ErrCursor) {
		t.Fatalf("a wrong cursor: %v", err)
	}
	if err := db.DeleteUser(ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteUser(ctx, other.ID); !errors.Is(err, ErrNotFound) {
		t.Fatalf("deleted twice: %v", err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_gateway"), t.Context()
	u, err := db.CreateUser(ctx, User{Email: "a@example.com", Role: "admin", PasswordHash: "h"})
	if err != nil {
		t.Fatal(err)
	}
	k := Token{ID: NewID(), UserID: u.ID, Name: "ci", Role: "operator", Hash: []byte("hash"), ExpiresAt: time.Now().Add(time.Hour)}
	if err := db.CreateToken(ctx, k); err != nil {
		t.Fatal(err)
	}
	if err := db.CreateToken(ctx, Token{UserID: u.ID, Name: "ci", Role: "operator", Hash: []byte("other")}); !errors.Is(err, ErrConflict) {
		t.Fatalf("a second token of that name: %v", err)
	}
	got, err := db.TokenByHash(ctx, []byte("hash"))
	if err != nil || got.ID != k.ID || got.Role != "operator" || !got.LastUsedAt.IsZero() || got.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", got, err)
	}
	for range 2 {
		if err := db.TouchToken(ctx, k.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := db.TokenByHash(ctx, []byte("hash")); got.LastUsedAt.IsZero() {
		t.Fatal("its use was not noted")
	}
	u.Disabled = true
	if _, err := db.UpdateUser(ctx, u, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.TokenByHash(ctx, []byte("hash")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a token of a disabled user: %v", err)
	}
	if err := db.DeleteToken(ctx, NewID(), k.ID); !errors.Is(err, ErrNotFound) {
		t.Fatalf("deleted by another user: %v", err)
	}
	if err := db.DeleteToken(ctx, u.ID, k.ID); err != nil {
		t.Fatal(err)
	}
}

func TestRefreshTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_gateway"), t.Context()
	u, err := db.CreateUser(ctx, User{Email: "a@example.com", Role: "admin", PasswordHash: "h"})
	if err != nil {
		t.Fatal(err)
	}
	family := NewID()
	for _, h := range []string{"one", "two", "old"} {
		expires := time.Now().Add(time.Hour)
		if h == "old" {
			expires = time.Now().Add(-time.Second)
		}
		if err := db.CreateRefresh(ctx, Refresh{UserID: u.ID, Hash: []byte(h), Family: family, ExpiresAt: expires}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.UseRefresh(ctx, []byte("old")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("an expired one: %v", err)
	}
	if f, err := db.UseRefresh(ctx, []byte("one")); err != nil || f.Family != family || f.UserID != u.ID {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := db.UseRefresh(ctx, []byte("one")); !errors.Is(err, ErrStale) {
		t.Fatalf("a second use: %v", err)
	}
	if _, err := db.UseRefresh(ctx, []byte("two")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("after reuse its family is revoked: %v", err)
	}
}

func TestFlows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_gateway"), t.Context()
	doc := func(n int) json.RawMessage {
		return fmt.Appendf(nil, `{"big":1234567890123456789%d,"nul":"\u0000"}`, n)
	}
	f, err := db.CreateFlow(ctx, Flow{Name: "Large orders", Labels: map[string]string{"team": "sales"}}, doc(1), "a@example.com", true)
	if err != nil || f.Published != 1 || f.Latest != 1 || f.Revision != 1 || f.Project != DefaultProject {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := db.CreateFlow(ctx, Flow{Name: "Large orders"}, doc(1), "", true); !errors.Is(err, ErrConflict) {
		t.Fatalf("a second flow of that name: %v", err)
	}
	draft, err := db.SaveFlow(ctx, f.ID, f.Revision, f.Name, "described", f.Labels, doc(2), "a@example.com", false)
	if err != nil || draft.Published != 1 || draft.Latest != 2 || draft.Revision != 2 || draft.Description != "described" {
		t.Fatalf("%+v, %v", draft, err)
	}
	if _, err := db.SaveFlow(ctx, f.ID, f.Revision, f.Name, "", nil, doc(3), "", true); !errors.Is(err, ErrStale) {
		t.Fatalf("a save over a newer one: %v", err)
	}
	if f, err = db.SaveFlow(ctx, f.ID, -1, f.Name, "", f.Labels, doc(3), "", true); err != nil || f.Published != 3 {
		t.Fatalf("%+v, %v", f, err)
	}
	if f, err = db.PublishVersion(ctx, f.ID, -1, 2); err != nil || f.Published != 2 || f.Latest != 3 {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := db.PublishVersion(ctx, f.ID, -1, 9); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a version that isn't: %v", err)
	}
	worker := b.open(t, "flow_worker")
	v, err := worker.VersionOf(ctx, f.ID, 2)
	if err != nil || string(v.Document) != string(doc(2)) || v.CreatedBy != "a@example.com" {
		t.Fatalf("as the worker: %+v, %v", v, err)
	}
	versions, next, err := db.ListVersions(ctx, f.ID, Page{Limit: 2})
	if err != nil || len(versions) != 2 || versions[0].Version != 3 || next == "" {
		t.Fatalf("%+v, %q, %v", versions, next, err)
	}
	if versions, next, err = db.ListVersions(ctx, f.ID, Page{Limit: 2, Cursor: next}); err != nil || len(versions) != 1 || versions[0].Version != 1 || next != "" {
		t.Fatalf("%+v, %q, %v", versions, next, err)
	}
	if _, err := db.CreateFlow(ctx, Flow{Name: "100% other"}, doc(1), "", true); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filter FlowFilter
		want   int
	}{{FlowFilter{}, 2}, {FlowFilter{Query: "LARGE"}, 1}, {FlowFilter{Query: "0%"}, 1}, {FlowFilter{Query: "_"}, 0}, {FlowFilter{Label: map[string]string{"team": "sales"}}, 1}, {FlowFilter{Label: map[string]string{"team": "x"}}, 0}} {
		if got, _, err := db.ListFlows(ctx, c.filter, Page{}); err != nil || len(got) != c.want {
			t.Errorf("%+v: %d flows, want %d (%v)", c.filter, len(got), c.want, err)
		}
	}
	if byName, err := db.FlowByName(ctx, protocol.ID{}, "Large orders"); err != nil || byName.ID != f.ID {
		t.Fatalf("%+v, %v", byName, err)
	}
	if err := db.DeleteFlow(ctx, f.ID, 1); !errors.Is(err, ErrStale) {
		t.Fatalf("deleted by an old revision: %v", err)
	}
	if err := db.DeleteFlow(ctx, f.ID, f.Revision); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteFlow(ctx, f.ID, -1); !errors.Is(err, ErrNotFound) {
		t.Fatalf("deleted twice: %v", err)
	}
	if _, err := worker.VersionOf(ctx, f.ID, 2); err != nil {
		t.Fatalf("executions of a deleted flow can't go on: %v", err)
	}
	if _, err := db.CreateFlow(ctx, Flow{Name: "Large orders"}, doc(1), "", true); err != nil {
		t.Fatalf("the name of a deleted flow is not free: %v", err)
	}
}

func TestInsertExecutions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_gateway"), t.Context()
	keyed := func(key, hash string) NewExecution {
		x := newExecution(NewID())
		x.IdempotencyKey = IdempotencyKey{Scope: "token 1", Key: key, BodyHash: []byte(hash)}
		return x
	}
	a := keyed("k", "body")
	out, err := db.InsertExecutions(ctx, []NewExecution{a, newExecution(NewID())})
	if err != nil || len(out) != 2 || out[0] != (Inserted{ID: a.ID}) {
		t.Fatalf("%+v, %v", out, err)
	}
	bad := newExecution(NewID())
	bad.Labels = map[string]string{"x": "nul \x00"}
	again, other, fresh, plain, twice := keyed("k", "body"), keyed("k", "other body"), keyed("k2", "body"), newExecution(NewID()), keyed("k2", "body")
	out, err = db.InsertExecutions(ctx, []NewExecution{again, other, bad, fresh, plain, twice})
	if err != nil {
		t.Fatal(err)
	}
	if out[0] != (Inserted{ID: a.ID, Duplicate: true}) || out[1] != (Inserted{ID: a.ID, Conflict: true}) || !errors.Is(out[2].Err, protocol.ErrData) || out[3] != (Inserted{ID: fresh.ID}) || out[4] != (Inserted{ID: plain.ID}) || out[5] != (Inserted{ID: fresh.ID, Duplicate: true}) {
		t.Fatalf("%+v", out)
	}
	there, err := db.ExistingExecutions(ctx, []protocol.ID{a.ID, again.ID, other.ID, bad.ID, fresh.ID, plain.ID, twice.ID})
	if err != nil || len(there) != 3 {
		t.Fatalf("%v, %v", there, err)
	}
	if k, err := db.Idempotency(ctx, "token 1", "k"); err != nil || k.Execution != a.ID || string(k.BodyHash) != "body" {
		t.Fatalf("%+v, %v", k, err)
	}
	if _, err := db.Idempotency(ctx, "token 2", "k"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("another's key: %v", err)
	}
	if n, err := db.DeleteOld(ctx, "idempotency_keys", -time.Minute); err != nil || n != 2 {
		t.Fatalf("%d keys removed, %v", n, err)
	}
	if none, err := db.InsertExecutions(ctx, nil); err != nil || len(none) != 0 {
		t.Fatalf("no rows: %v, %v", none, err)
	}

	// The same keys from many gateways at once: each gives one execution.
	type answer struct {
		out []Inserted
		err error
	}
	answers := make(chan answer, 6)
	for range 6 {
		go func() {
			out, err := db.InsertExecutions(ctx, []NewExecution{keyed("r1", "b"), keyed("r0", "b"), keyed("r2", "b")})
			answers <- answer{out, err}
		}()
	}
	ids := map[protocol.ID]bool{}
	for range 6 {
		a := <-answers
		if a.err != nil {
			t.Fatal(a.err)
		}
		for _, i := range a.out {
			ids[i.ID] = true
		}
	}
	if len(ids) != 3 {
		t.Fatalf("three keys gave %d executions", len(ids))
	}
}

func TestListExecutions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	f, err := b.open(t, "flow_gateway").CreateFlow(ctx, Flow{Name: "Nightly report"}, json.RawMessage(`{}`), "", true)
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]NewExecution, 5)
	for i := range rows {
		rows[i] = newExecution(NewID())
		rows[i].Labels = map[string]string{"n": fmt.Sprint(i)}
		rows[i].Input = json.RawMessage(`{"n":1}`)
	}
	rows[3].Flow = f.ID
	if _, err := b.db.InsertExecutions(ctx, rows); err != nil {
		t.Fatal(err)
	}
	if err := b.db.Txn(ctx, "end", func(tx protocol.Tx) error {
		_, err := protocol.Cancel(ctx, tx, []protocol.ID{rows[1].ID}, protocol.Cancelled)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		filter ExecutionFilter
		want   []int
	}{
		{"all, newest first", ExecutionFilter{}, []int{4, 3, 2, 1, 0}},
		{"of a flow", ExecutionFilter{Flow: f.ID}, []int{3}},
		{"final ones", ExecutionFilter{States: []protocol.State{protocol.Cancelled, protocol.Failed}}, []int{1}},
		{"by label", ExecutionFilter{Label: map[string]string{"n": "2"}}, []int{2}},
		{"by id", ExecutionFilter{Query: rows[0].ID.String()}, []int{0}},
		{"by the flow's name", ExecutionFilter{Query: "nightly"}, []int{3}},
		{"since later", ExecutionFilter{Since: time.Now().Add(time.Minute)}, nil},
		{"since before", ExecutionFilter{Since: time.Now().Add(-time.Hour)}, []int{4, 3, 2, 1, 0}},
	} {
		var got, want []protocol.ID
		for _, i := range c.want {
			want = append(want, rows[i].ID)
		}
		p := Page{Limit: 2}
		for {
			list, next, err := b.db.ListExecutions(ctx, c.filter, p)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			for _, x := range list {
				got = append(got, x.ID)
			}
			if p.Cursor = next; next == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
	x, err := b.db.ExecutionByID(ctx, rows[1].ID)
	if err != nil || x.State != protocol.Cancelled || x.Error == nil || x.Error.Code != "cancelled" || string(x.Input) != `{"n":1}` || x.Output != nil || x.Project != DefaultProject {
		t.Fatalf("%+v, %v", x, err)
	}
	if final, err := b.db.FinalOf(ctx, []protocol.ID{rows[0].ID, rows[1].ID, NewID()}); err != nil || len(final) != 1 || final[rows[1].ID] != protocol.Cancelled {
		t.Fatalf("%v, %v", final, err)
	}
	if n, err := b.open(t, "flow_gateway").UnhandedCount(ctx); err != nil || n != 4 {
		t.Fatalf("%d unhanded, %v", n, err)
	}
	if _, err := b.db.ExecutionByID(ctx, NewID()); !errors.Is(err, ErrNotFound) {
		t.Fatalf("an unknown id: %v", err)
	}
}

func TestOperations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.db, t.Context()
	if term, _, err := db.CurrentTerm(ctx); err != nil || term != 0 {
		t.Fatalf("before the first term: %d, %v", term, err)
	}
	terms := make(chan int64, 8)
	for i := range 8 {
		go func() {
			term, err := db.RaiseTerm(ctx, fmt.Sprint("o", i))
			if err != nil {
				t.Error(err)
			}
			terms <- term
		}()
	}
	seen := map[int64]bool{}
	for range 8 {
		seen[<-terms] = true
	}
	if term, holder, err := db.CurrentTerm(ctx); err != nil || len(seen) != 8 || term != 8 || holder == "" {
		t.Fatalf("terms %v, current %d of %q, %v", seen, term, holder, err)
	}
	if _, err := db.Setting(ctx, "scaling"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a setting that was never set: %v", err)
	}
	for _, v := range []string{`{"min":2}`, `{"min":3}`} {
		if err := db.PutSetting(ctx, "scaling", json.RawMessage(v), "a"); err != nil {
			t.Fatal(err)
		}
		if got, err := db.Setting(ctx, "scaling"); err != nil || string(got) != v {
			t.Fatalf("%s, %v", got, err)
		}
	}
	if n, err := db.ReportShards(ctx); err != nil || n < 1 {
		t.Fatalf("%d shards, %v", n, err)
	}
	if err := db.SetReportShards(ctx, 4); err != nil {
		t.Fatal(err)
	}
	if n, err := b.open(t, "flow_gateway").ReportShards(ctx); err != nil || n != 4 {
		t.Fatalf("%d shards, %v", n, err)
	}
	for i := range 3 {
		if err := db.AppendAudit(ctx, AuditEntry{Actor: "a", Action: "update", Object: "flow", ObjectID: fmt.Sprint(i), Detail: json.RawMessage(`{"x":"\u0000"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	list, next, err := db.ListAudit(ctx, Page{Limit: 2})
	if err != nil || len(list) != 2 || list[0].ObjectID != "2" || next == "" || string(list[0].Detail) != `{"x":"\u0000"}` {
		t.Fatalf("%+v, %q, %v", list, next, err)
	}
	d := protocol.DeadLetter{ID: NewID(), Kind: "task", Reason: "unparseable", Body: []byte{0, 255}, At: time.Now(), Count: 2}
	for range 2 { // the same message twice
		if err := db.InsertDeadLetters(ctx, []protocol.DeadLetter{d}); err != nil {
			t.Fatal(err)
		}
	}
	if dead, _, err := db.ListDeadLetters(ctx, Page{}); err != nil || len(dead) != 1 || dead[0].Count != 2 || string(dead[0].Body) != "\x00\xff" {
		t.Fatalf("%+v, %v", dead, err)
	}
}

// Open waits of an execution that ends are closed: no timer looks at them again.
func TestWaitsEndWithTheirExecution(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	id := b.insert(t, 1)[0]
	if err := b.db.Txn(ctx, "wait", func(tx protocol.Tx) error {
		rows, err := tx.Lock(ctx, []protocol.ID{id})
		if err != nil {
			return err
		}
		rows[0].State = protocol.Waiting
		return tx.Write(ctx, &protocol.Changes{Rows: rows, Opened: []protocol.OpenWait{{Execution: id, Node: "n", Kind: "timer", Reason: "a delay", Due: time.Now(), Since: time.Now()}}})
	}); err != nil {
		t.Fatal(err)
	}
	gateway := b.open(t, "flow_gateway") // cancels with its own rights
	if err := gateway.Txn(ctx, "cancel", func(tx protocol.Tx) error {
		_, err := protocol.Cancel(ctx, tx, []protocol.ID{id}, protocol.Cancelled)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if open := b.sql(t, "SELECT count(*) FROM waits WHERE met_at IS NULL AND closed_at IS NULL"); open != "0" {
		t.Fatalf("%s waits are open", open)
	}
	waits, err := b.db.WaitsOf(ctx, id)
	if err != nil || len(waits) != 1 || waits[0].Met.IsZero() || waits[0].Reason != "a delay" {
		t.Fatalf("%+v, %v", waits, err)
	}
}

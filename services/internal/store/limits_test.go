package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
)

// published counts what is handed out.
type published struct {
	mu  sync.Mutex
	ids map[protocol.ID]int
}

func (p *published) PublishTasks(_ context.Context, tasks []protocol.Task) []bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]bool, len(tasks))
	for i, t := range tasks {
		if p.ids == nil {
			p.ids = map[protocol.ID]int{}
		}
		p.ids[t.ID]++
		out[i] = true
	}
	return out
}

func concurrency(key string, most int, onLimit string) protocol.Limit {
	return protocol.Limit{Kind: protocol.HoldConcurrency, Key: "concurrency/" + key, Value: key, Most: most, OnLimit: onLimit}
}

// limitedRow is an execution with limits.
func limitedRow(limits ...protocol.Limit) NewExecution {
	e := newExecution(NewID())
	e.Limits, e.Limited = limits, true
	return e
}

func (b *bundle) insertLimited(t testing.TB, rows ...NewExecution) []Inserted {
	t.Helper()
	out, err := b.db.InsertExecutions(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// end lets an execution end as a report would.
func (b *bundle) end(t testing.TB, ids ...protocol.ID) protocol.Outcome {
	t.Helper()
	var out protocol.Outcome
	err := b.db.Txn(t.Context(), "collect", func(tx protocol.Tx) error {
		entries := make([]protocol.Entry, len(ids))
		for i, id := range ids {
			entries[i] = protocol.Entry{Kind: protocol.EntryFinal, Execution: id, Attempt: 1, Seq: 1, State: protocol.Succeeded}
		}
		var err error
		out, err = protocol.ApplyReports(t.Context(), tx, 0, entries, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bundle) hold(t testing.TB, id protocol.ID) string {
	t.Helper()
	x, err := b.db.ExecutionByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return string(x.State) + " " + x.Hold
}

func (b *bundle) slots(t testing.TB) string {
	t.Helper()
	return b.sql(t, `SELECT count(*) FILTER (WHERE state = 'held') || ' held ' || count(*) FILTER (WHERE state = 'waiting') || ' waiting' FROM slots`)
}

func TestConcurrencyQueues(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var p published
	admitter := protocol.Admitter{Store: b.db, Publisher: &p}
	rows := make([]NewExecution, 5)
	for i := range rows {
		rows[i] = limitedRow(concurrency("a", 2, ""))
	}
	b.insertLimited(t, rows...)
	for i, want := range []string{"", "", "concurrency", "concurrency", "concurrency"} {
		if rows[i].Hold != want || rows[i].Ready() != (want == "") {
			t.Fatalf("execution %d is held for %q, want %q", i, rows[i].Hold, want)
		}
	}
	if got := b.slots(t); got != "2 held 3 waiting" {
		t.Fatal(got)
	}
	out := b.end(t, rows[0].ID)
	if len(out.Freed) != 1 {
		t.Fatalf("an end frees %v", out.Freed)
	}
	if n, err := admitter.Admit(t.Context(), out.Freed); n != 1 || err != nil || p.ids[rows[2].ID] != 1 {
		t.Fatalf("let in: %d, %v, %v", n, err, p.ids)
	}
	if n, err := admitter.Admit(t.Context(), out.Freed); n != 0 || err != nil {
		t.Fatalf("a second look lets %d in, %v", n, err)
	}
	// Cancels: of one that waits, of one that holds.
	cancel := func(id protocol.ID) (out protocol.Outcome) {
		t.Helper()
		if err := b.db.Txn(t.Context(), "cancel", func(tx protocol.Tx) (err error) {
			out, err = protocol.Cancel(t.Context(), tx, []protocol.ID{id}, protocol.Cancelled)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := cancel(rows[3].ID); len(out.Freed) != 1 || b.slots(t) != "2 held 1 waiting" {
		t.Fatalf("%v %s", out.Freed, b.slots(t))
	}
	keys := cancel(rows[1].ID).Freed
	if roomy, err := b.db.Roomy(t.Context(), "", 10); err != nil || len(roomy) != 1 || roomy[0] != keys[0] {
		t.Fatalf("keys with room: %v, %v; want %v", roomy, err, keys)
	}
	if n, err := admitter.Admit(t.Context(), keys); n != 1 || err != nil || b.slots(t) != "2 held 0 waiting" {
		t.Fatalf("%d %v %s", n, err, b.slots(t))
	}
	// A retry takes the slot anew, and waits for it.
	if err := b.db.Txn(t.Context(), "retry", func(tx protocol.Tx) (err error) {
		out, _, err = protocol.Retry(t.Context(), tx, []protocol.ID{rows[1].ID})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := b.hold(t, rows[1].ID); got != "queued concurrency" || len(out.HandOut) != 0 || b.slots(t) != "2 held 1 waiting" {
		t.Fatalf("a retried one is %q, handed out %v, %s", got, out.HandOut, b.slots(t))
	}
	out = b.end(t, rows[2].ID, rows[4].ID)
	if n, err := admitter.Admit(t.Context(), out.Freed); n != 1 || err != nil || b.hold(t, rows[1].ID) != "queued " {
		t.Fatalf("%d %v", n, err)
	}
	waits, err := b.db.WaitsOf(t.Context(), rows[2].ID)
	if err != nil || len(waits) != 1 || waits[0].Kind != "concurrency" || waits[0].Met.IsZero() || waits[0].Reason == "" {
		t.Fatalf("its wait is not kept: %+v, %v", waits, err)
	}
}

func TestOnLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := limitedRow(concurrency("r", 1, "reject"))
	b.insertLimited(t, first)
	two := []NewExecution{limitedRow(concurrency("r", 1, "reject")), limitedRow(concurrency("other", 1, "reject")), limitedRow(concurrency("free", 1, "reject"))}
	two[2].Group = 1
	two[0].IdempotencyKey = IdempotencyKey{Scope: "s", Key: "k", BodyHash: []byte("x")}
	done := b.insertLimited(t, two...)
	if !errors.Is(done[0].Refused, ErrLimit) || !errors.Is(done[1].Refused, ErrLimit) || done[2].Refused != nil {
		t.Fatalf("%+v", done)
	}
	if n := b.sql(t, `SELECT count(*) || ' ' || (SELECT count(*) FROM idempotency_keys) FROM executions`); n != "2 0" {
		t.Fatalf("executions and keys stored: %s", n)
	}
	b.end(t, first.ID)
	if done := b.insertLimited(t, two[:2]...); done[0].Refused != nil || done[1].Refused != nil {
		t.Fatalf("with room: %+v", done)
	}

	old := limitedRow(concurrency("o", 1, "cancel_oldest"))
	b.insertLimited(t, old)
	rows := []NewExecution{limitedRow(concurrency("o", 1, "cancel_oldest")), limitedRow(concurrency("o", 1, "cancel_oldest"))}
	b.insertLimited(t, rows...)
	if got := b.hold(t, old.ID); got != "cancelled " {
		t.Fatalf("the oldest is %q", got)
	}
	if got := b.hold(t, rows[0].ID); got != "cancelled " {
		t.Fatalf("one of the same batch that was displaced is %q", got)
	}
	x, err := b.db.ExecutionByID(t.Context(), old.ID)
	if err != nil || x.Error == nil || len(x.Error.Message) < 50 {
		t.Fatalf("why it was cancelled: %+v, %v", x.Error, err)
	}
	admitter := protocol.Admitter{Store: b.db, Publisher: &published{}}
	if n, err := admitter.Admit(t.Context(), []string{"concurrency/o"}); n != 1 || err != nil || b.hold(t, rows[1].ID) != "queued " {
		t.Fatalf("the newest is let in: %d, %v, %s", n, err, b.hold(t, rows[1].ID))
	}

	newest := []NewExecution{limitedRow(concurrency("n", 1, "cancel_newest")), limitedRow(concurrency("n", 1, "cancel_newest"))}
	done = b.insertLimited(t, newest...)
	if b.hold(t, newest[0].ID) != "queued " || b.hold(t, newest[1].ID) != "cancelled " || !done[1].Ended || newest[1].Ready() {
		t.Fatalf("%s, %s, %+v", b.hold(t, newest[0].ID), b.hold(t, newest[1].ID), done)
	}
}

// One that waits for its other key holds this one not up, nor those behind it, however many they are.
func TestAllKeysOrNone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	row := func(tenant string) NewExecution {
		return limitedRow(concurrency("tenant-"+tenant, 1, ""), concurrency("all", 3, ""))
	}
	var rows []NewExecution
	for range 600 {
		rows = append(rows, row("a"))
	}
	for i := range 3 {
		rows = append(rows, row("b"+strconv.Itoa(i)))
	}
	b.insertLimited(t, rows...)
	if got := b.slots(t); got != "2 held 1204 waiting" {
		t.Fatal(got)
	}
	admitter := protocol.Admitter{Store: b.db, Publisher: &published{}}
	if n, err := admitter.Admit(t.Context(), []string{"concurrency/all"}); n != 2 || err != nil || b.slots(t) != "6 held 1200 waiting" {
		t.Fatalf("%d, %v, %s", n, err, b.slots(t))
	}
	if b.hold(t, rows[600].ID) != "queued " || b.hold(t, rows[602].ID) != "queued concurrency" {
		t.Fatal("not the first ones of the other tenants were let in")
	}
}

func TestRateHolds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rate := protocol.Limit{Kind: protocol.HoldRate, Key: "rate/a", Value: "a", Most: 2, Per: 600 * time.Millisecond}
	rows := []NewExecution{limitedRow(rate), limitedRow(rate), limitedRow(rate), limitedRow(rate, concurrency("c", 1, ""))}
	b.insertLimited(t, rows...)
	if rows[0].Hold+rows[1].Hold != "" || rows[2].Hold != "rate" || rows[3].Hold != "rate" {
		t.Fatalf("%q %q %q", rows[0].Hold, rows[1].Hold, rows[2].Hold)
	}
	var p published
	admitter := protocol.Admitter{Store: b.db, Publisher: &p}
	n := 0
	for deadline := time.Now().Add(20 * time.Second); n < 2 && time.Now().Before(deadline); {
		more, next, err := admitter.Due(t.Context(), 2*time.Second, 100)
		if err != nil {
			t.Fatal(err)
		}
		n += more
		time.Sleep(next)
	}
	if n != 2 || p.ids[rows[2].ID] != 1 || p.ids[rows[3].ID] != 1 {
		t.Fatalf("released %d: %v", n, p.ids)
	}
	waits := [2][]protocol.OpenWait{}
	for i := range waits {
		var err error
		if waits[i], err = b.db.WaitsOf(t.Context(), rows[2+i].ID); err != nil {
			t.Fatal(err)
		}
	}
	if gap := waits[1][0].Due.Sub(waits[0][0].Due); gap != 300*time.Millisecond || waits[0][0].Met.Before(waits[0][0].Due) {
		t.Fatalf("the second waits %s longer than the first, %+v", gap, waits[0])
	}
	if len(waits[1]) != 2 || waits[1][1].Kind != "concurrency" {
		t.Fatalf("after its rate it passes the concurrency limit: %+v", waits[1])
	}
}

func TestDebounce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	debounce := func(key string, collect bool) protocol.Limit {
		return protocol.Limit{Kind: protocol.HoldDebounce, Key: "debounce/" + key, Value: key, Delay: 300 * time.Millisecond, Longest: time.Minute, Collect: collect}
	}
	row := func(input string, l ...protocol.Limit) NewExecution {
		e := limitedRow(l...)
		e.Input = json.RawMessage(input)
		return e
	}
	first := []NewExecution{row(`1`, debounce("last", false)), row(`2`, debounce("last", false)), row(`"a"`, debounce("all", true), concurrency("c", 1, ""))}
	first[1].IdempotencyKey = IdempotencyKey{Scope: "s", Key: "k", BodyHash: []byte("x")}
	done := b.insertLimited(t, first...)
	if !done[1].Merged || done[1].ID != first[0].ID || first[0].Hold != "debounce" {
		t.Fatalf("%+v", done)
	}
	if again := b.insertLimited(t, first[1]); !again[0].Duplicate || again[0].ID != first[0].ID {
		t.Fatalf("the key of a merged start: %+v", again)
	}
	b.insertLimited(t, row(`3`, debounce("last", false)))
	b.insertLimited(t, row(`{"b":`+strconv.Quote(string(make([]byte, 0)))+`}`, debounce("all", true), concurrency("c", 1, "")))
	large := `"` + fmt.Sprintf("%0300000d", 7) + `"`
	b.insertLimited(t, row(large, debounce("all", true), concurrency("c", 1, "")))
	var p published
	admitter := protocol.Admitter{Store: b.db, Publisher: &p}
	for deadline := time.Now().Add(20 * time.Second); len(p.ids) < 2 && time.Now().Before(deadline); {
		_, next, err := admitter.Due(t.Context(), 2*time.Second, 100)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(next)
	}
	last, err := b.db.ExecutionByID(t.Context(), first[0].ID)
	if err != nil || string(last.Input) != "3" || last.Hold != "" {
		t.Fatalf("the last input wins: %s, held %q, %v", last.Input, last.Hold, err)
	}
	all, err := b.db.ExecutionByID(t.Context(), first[2].ID)
	if err != nil || all.InputRef.Size != len(`["a",{"b":""},`)+len(large)+1 {
		t.Fatalf("collected: %+v %s, %v", all.InputRef, all.Input, err)
	}
	if n := b.sql(t, `SELECT (SELECT count(*) FROM debounces) || ' ' || (SELECT count(*) FROM debounced_inputs) || ' ' || (SELECT count(*) FROM executions)`); n != "0 0 2" {
		t.Fatalf("left: %s", n)
	}
	next := row(`4`, debounce("last", false))
	if done := b.insertLimited(t, next); done[0].Merged {
		t.Fatal("a start after the release became part of what has begun")
	}
}

// A tenant with much waiting doesn't delay one with little.
func TestFairTurns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	row := func(tenant string, weight float64) NewExecution {
		return limitedRow(protocol.Limit{Kind: protocol.HoldFairness, Key: "fairness/g", Value: tenant, Weight: weight})
	}
	var rows []NewExecution
	for range 500 {
		rows = append(rows, row("big", 1))
	}
	b.insertLimited(t, rows...)
	small := []NewExecution{row("small", 1), row("small", 1), row("heavy", 2), row("heavy", 2)}
	b.insertLimited(t, small...)
	if got := b.slots(t); got != fmt.Sprintf("%d held %d waiting", protocol.MinWindow, 504-protocol.MinWindow) {
		t.Fatal(got)
	}
	out := b.end(t, rows[0].ID, rows[1].ID, rows[2].ID, rows[3].ID, rows[4].ID, rows[5].ID)
	var p published
	admitter := protocol.Admitter{Store: b.db, Publisher: &p}
	if n, err := admitter.Admit(t.Context(), out.Freed); n != 6 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	for i, e := range small {
		if p.ids[e.ID] != 1 {
			t.Errorf("number %d of the small ones is not among the next 6", i)
		}
	}
}

// Many at once, from two processes: never over the limit, nothing left behind.
func TestConcurrencyRaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	second := b.open(t, "flow_orchestrator")
	const keys, most, n = 10, 2, 200
	p := &racing{b: b, t: t, running: map[string]int{}, key: map[protocol.ID]string{}, ended: make(chan protocol.ID, n)}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := range n / 20 {
				rows := make([]NewExecution, 10)
				for j := range rows {
					rows[j] = limitedRow(concurrency(strconv.Itoa((i+j+w)%keys), most, ""))
					p.know(rows[j].ID, rows[j].Limits[0].Key)
				}
				if _, err := b.db.InsertExecutions(t.Context(), rows); err != nil {
					t.Error(err)
				}
				for j := range rows {
					if rows[j].Ready() {
						p.PublishTasks(t.Context(), []protocol.Task{{ID: rows[j].ID}})
					}
				}
			}
		})
	}
	for _, db := range []*DB{b.db, second} {
		wg.Go(func() {
			admitter := protocol.Admitter{Store: db, Publisher: p}
			for {
				select {
				case id := <-p.ended:
					p.end(id)
					out := b.end(t, id)
					if _, err := admitter.Admit(t.Context(), out.Freed); err != nil {
						t.Error(err)
					}
					if p.left.Add(-1) == 0 {
						close(p.ended)
					}
				case <-t.Context().Done():
					return
				}
				if p.left.Load() <= 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	if got := b.slots(t); got != "0 held 0 waiting" || p.over != "" {
		t.Fatalf("%s; %s", got, p.over)
	}
}

// What was cancelled while starts with its key still came goes on when it is retried: with all that had been collected, and with nothing left to wait for.
func TestRetryOfADebounce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	row := func(input string) NewExecution {
		e := limitedRow(protocol.Limit{Kind: protocol.HoldDebounce, Key: "debounce/retried", Value: "retried", Delay: time.Hour, Longest: 2 * time.Hour, Collect: true})
		e.Input = json.RawMessage(input)
		return e
	}
	first := []NewExecution{row(`1`)}
	b.insertLimited(t, first...)
	b.insertLimited(t, row(`2`))
	id := first[0].ID
	if err := b.db.Txn(t.Context(), "cancel", func(tx protocol.Tx) error {
		_, err := protocol.Cancel(t.Context(), tx, []protocol.ID{id}, protocol.Cancelled)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if done := b.insertLimited(t, row(`3`)); done[0].Merged {
		t.Fatal("a start became part of what was cancelled")
	}
	var out protocol.Outcome
	if err := b.db.Txn(t.Context(), "retry", func(tx protocol.Tx) (err error) {
		out, _, err = protocol.Retry(t.Context(), tx, []protocol.ID{id})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	x, err := b.db.ExecutionByID(t.Context(), id)
	if err != nil || x.Hold != "" || string(x.Input) != `[1,2]` || len(out.HandOut) != 1 {
		t.Fatalf("held %q, input %s, handed out %v, %v", x.Hold, x.Input, out.HandOut, err)
	}
}

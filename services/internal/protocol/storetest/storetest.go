// Package storetest is what every protocol.Store must do: the one on PostgreSQL and the memory that the simulator and flowctl dev use pass the same
// tests, so that what is proven over one holds over the other.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// Fixture is a store with nothing in it, and ways around it.
type Fixture struct {
	Store protocol.Store
	// NewID makes ids that the store takes, each larger than the one before.
	NewID func() protocol.ID
	// Insert accepts executions: queued, attempt 1, handed 0, at the store's present time.
	Insert func(t *testing.T, seeds ...Seed)
	// Row reads an execution outside of any transaction.
	Row func(t *testing.T, id protocol.ID) protocol.Row
	// Result reads how an execution ended; false when it hasn't.
	Result func(t *testing.T, id protocol.ID) (protocol.FinalResult, bool)
	// Reports and Waits read all of an execution, in their order.
	Reports func(t *testing.T, id protocol.ID) []protocol.StoredReport
	Waits   func(t *testing.T, id protocol.ID) []protocol.OpenWait
	// Project is that of the executions.
	Project protocol.ID
	// Call makes an execution the child that another waits for.
	Call func(t *testing.T, parent, child protocol.ID)
	// Dead reads all dead letters.
	Dead func(t *testing.T) []protocol.DeadLetter
	// Pass lets time go by in a store whose clock is not the machine's; nil: it goes by itself.
	Pass func()
	// Concurrent says that transactions may run on several goroutines at once: the tests of locks need it.
	Concurrent bool
	// Refused is a change for a locked row that the store refuses with protocol.ErrData; nil when it refuses none.
	Refused func(id protocol.ID) protocol.Changes
}

// Seed is an execution to insert.
type Seed struct {
	ID       protocol.ID
	Flow     protocol.ID
	Version  int
	Shard    int
	Priority string
	Pool     string
	Trigger  string
	Labels   map[string]string
	Input    json.RawMessage
	Deadline time.Time
}

// Run runs the whole suite; open gives a fixture of its own to each test.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	tests := []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"a transaction commits, or leaves nothing", commits},
		{"lock gives what exists, in order", lockOrder},
		{"write changes rows and results", writeRows},
		{"reports come back oldest first", reportsOrder},
		{"waits are opened once and met once", waits},
		{"dead letters", deadLetters},
		{"sessions: open, beat, alive, end", sessions},
		{"what a session owns, and must cancel", owned},
		{"dead owners", deadOwners},
		{"tasks of queued rows only, with their steps", tasks},
		{"marks on queued rows only", marks},
		{"unhanded", unhanded},
		{"unhanded again after a wake", unhandedAgain},
		{"due waits of waiting executions only", dueWaits},
		{"overdue", overdue},
		{"letters to an execution", lettersTo},
		{"letters to whoever waits", lettersByKey},
		{"a letter and who begins to wait meet", lettersRace},
		{"a child's end, and its parent's", childrenEnd},
		{"a child that failed", childFailed},
		{"remote tasks: made, leased, ended once", remoteTasks},
		{"leases of remote tasks end", remoteLeases},
		{"a refused value", refused},
		{"a lock is waited for, and then shows the new row", lockWaits},
		{"read committed: each statement sees what is committed", readCommitted},
		{"marks leave locked rows out", marksSkip},
		{"the beat that a judge saw decides", beatBeatsEnd},
		{"deadlocks are run again", deadlocks},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := open(t)
			tt.run(t, &suite{Fixture: f, ctx: t.Context()})
		})
	}
}

type suite struct {
	Fixture
	ctx context.Context
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// txn runs fn in a transaction that must succeed.
func (s *suite) txn(t *testing.T, fn func(tx protocol.Tx) error) {
	t.Helper()
	if err := s.Store.Txn(s.ctx, "test", fn); err != nil {
		t.Fatal(err)
	}
}

// insert inserts n executions and gives their ids, smallest first.
func (s *suite) insert(t *testing.T, n int) []protocol.ID {
	t.Helper()
	ids := make([]protocol.ID, n)
	seeds := make([]Seed, n)
	f := s.NewID()
	for i := range ids {
		ids[i] = s.NewID()
		seeds[i] = Seed{ID: ids[i], Flow: f, Version: 1, Priority: "normal"}
	}
	s.Insert(t, seeds...)
	return ids
}

// change locks a row, changes it and writes it, with what else is to be written.
func (s *suite) change(t *testing.T, id protocol.ID, fn func(*protocol.Row, *protocol.Changes)) {
	t.Helper()
	s.txn(t, func(tx protocol.Tx) error { return s.changeIn(tx, id, fn) })
}

func (s *suite) changeIn(tx protocol.Tx, id protocol.ID, fn func(*protocol.Row, *protocol.Changes)) error {
	rows, err := tx.Lock(s.ctx, []protocol.ID{id})
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return errors.New("the row is missing")
	}
	var c protocol.Changes
	fn(&rows[0], &c)
	c.Rows = rows
	return tx.Write(s.ctx, &c)
}

func (s *suite) now(t *testing.T) (now time.Time) {
	t.Helper()
	s.txn(t, func(tx protocol.Tx) (err error) { now, err = tx.Now(s.ctx); return err })
	return now
}

// session opens one.
func (s *suite) session(t *testing.T) protocol.ID {
	t.Helper()
	id := s.NewID()
	s.txn(t, func(tx protocol.Tx) error {
		return tx.OpenSession(s.ctx, protocol.OpenSessionRequest{Session: id, Worker: "w", Pool: "default", Slots: 4, Weight: 1})
	})
	return id
}

func (s *suite) own(t *testing.T, session protocol.ID, ids ...protocol.ID) {
	t.Helper()
	for i, id := range ids {
		s.change(t, id, func(r *protocol.Row, _ *protocol.Changes) {
			r.State, r.Owner, r.Run = protocol.Running, session, int64(i+1)
		})
	}
}

func (s *suite) end(t *testing.T, sessions ...protocol.ID) []protocol.ID {
	t.Helper()
	var ended []protocol.ID
	s.txn(t, func(tx protocol.Tx) error {
		var ends []protocol.SessionEnd
		for _, id := range sessions {
			ends = append(ends, protocol.SessionEnd{ID: id, Beat: -1, Reason: "test"})
		}
		var err error
		ended, err = tx.EndSessions(s.ctx, ends)
		return err
	})
	return ended
}

func same(t *testing.T, what string, got, want []protocol.ID) {
	t.Helper()
	sorted := func(ids []protocol.ID) []protocol.ID {
		ids = slices.Clone(ids)
		slices.SortFunc(ids, func(a, b protocol.ID) int { return slices.Compare(a[:], b[:]) })
		return ids
	}
	if !slices.Equal(sorted(got), sorted(want)) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func commits(t *testing.T, s *suite) {
	id := s.insert(t, 1)[0]
	boom := errors.New("boom")
	err := s.Store.Txn(s.ctx, "test", func(tx protocol.Tx) error {
		if err := s.changeIn(tx, id, func(r *protocol.Row, c *protocol.Changes) {
			r.State, r.Attempt = protocol.Waiting, 7
			c.Opened = []protocol.OpenWait{{Execution: id, Node: "n", Kind: flow.WaitTimer, Since: time.Now()}}
			c.Reports = []protocol.StoredReport{{Execution: id, Attempt: 1, Seq: 1, Events: json.RawMessage(`[]`)}}
		}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("Txn returned %v, want the function's own error", err)
	}
	if r := s.Row(t, id); r.State != protocol.Queued || r.Attempt != 1 {
		t.Fatalf("a transaction that failed has changed the row: %+v", r)
	}
	if n := len(s.Waits(t, id)) + len(s.Reports(t, id)); n != 0 {
		t.Fatalf("a transaction that failed left %d rows", n)
	}
	s.change(t, id, func(r *protocol.Row, _ *protocol.Changes) { r.Hold = "paused" })
	if r := s.Row(t, id); r.Hold != "paused" {
		t.Fatalf("a transaction that succeeded changed nothing: %+v", r)
	}
	s.txn(t, func(tx protocol.Tx) error { return tx.Write(s.ctx, &protocol.Changes{}) })
}

func lockOrder(t *testing.T, s *suite) {
	ids := s.insert(t, 5)
	missing := s.NewID()
	s.txn(t, func(tx protocol.Tx) error {
		rows, err := tx.Lock(s.ctx, []protocol.ID{ids[4], ids[0], missing, ids[2], ids[2]})
		if err != nil {
			return err
		}
		var got []protocol.ID
		for _, r := range rows {
			got = append(got, r.ID)
		}
		if !slices.Equal(got, []protocol.ID{ids[0], ids[2], ids[4]}) {
			t.Errorf("locked %v, want the three that exist, in order", got)
		}
		none, err := tx.Lock(s.ctx, nil)
		if len(none) > 0 {
			t.Errorf("no ids gave %v", none)
		}
		return err
	})
}

func writeRows(t *testing.T, s *suite) {
	ids := s.insert(t, 3)
	now := s.now(t).Truncate(time.Microsecond)
	session := s.session(t)
	want := protocol.Row{State: protocol.Running, Attempt: 3, Seq: 4, Owner: session, Run: 1 << 40, Handed: 2, Cancel: protocol.TimedOut, Deaths: 1, Retries: 2, QueuedAt: now.Add(-time.Second), StartedAt: now}
	s.change(t, ids[0], func(r *protocol.Row, _ *protocol.Changes) {
		r.State, r.Attempt, r.Seq, r.Owner, r.Run, r.Handed, r.Cancel, r.Deaths, r.Retries = want.State, want.Attempt, want.Seq, want.Owner, want.Run, want.Handed, want.Cancel, want.Deaths, want.Retries
		r.QueuedAt, r.StartedAt = want.QueuedAt, want.StartedAt
	})
	got := s.Row(t, ids[0])
	want.ID, want.Project, want.Flow, want.Shard, want.Priority, want.Pool = ids[0], got.Project, got.Flow, got.Shard, got.Priority, got.Pool
	if !got.QueuedAt.Equal(want.QueuedAt) || !got.StartedAt.Equal(want.StartedAt) || !got.FinishedAt.IsZero() {
		t.Fatalf("times: %+v", got)
	}
	got.QueuedAt, got.StartedAt, want.QueuedAt, want.StartedAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if got != want {
		t.Fatalf("row\n%+v, want\n%+v", got, want)
	}

	finals := map[protocol.ID]protocol.FinalResult{
		ids[0]: {ID: ids[0], Output: json.RawMessage(`{"big":12345678901234567890.10,"nul":"\u0000","half":"\ud800"}`)},
		ids[1]: {ID: ids[1], Error: &flow.Failure{Code: "http-status", Message: "503", Node: "fetch", Data: map[string]any{"status": 503}}},
	}
	s.txn(t, func(tx protocol.Tx) error {
		rows, err := tx.Lock(s.ctx, ids)
		if err != nil {
			return err
		}
		c := protocol.Changes{Rows: rows}
		for i := range rows {
			res, ok := finals[rows[i].ID]
			rows[i].Seq++
			if ok {
				rows[i].State, rows[i].Owner, rows[i].Run, rows[i].Cancel, rows[i].FinishedAt = protocol.Succeeded, protocol.ID{}, 0, "", now
				c.Results = append(c.Results, res)
			}
		}
		return tx.Write(s.ctx, &c)
	})
	for id, want := range finals {
		got, ok := s.Result(t, id)
		if !ok || string(got.Output) != string(want.Output) || (got.Error == nil) != (want.Error == nil) {
			t.Fatalf("result %+v, want %+v", got, want)
		}
		if want.Error != nil && (got.Error.Code != want.Error.Code || got.Error.Message != want.Error.Message || got.Error.Node != want.Error.Node || got.Error.Data == nil) {
			t.Fatalf("error %+v, want %+v", got.Error, want.Error)
		}
		if r := s.Row(t, id); !r.Owner.IsZero() || r.Cancel != "" || !r.FinishedAt.Equal(now) {
			t.Fatalf("final row %+v", r)
		}
	}
	if r := s.Row(t, ids[2]); r.Seq != 1 || r.State != protocol.Queued {
		t.Fatalf("the row without a result: %+v", r)
	}
	if _, ok := s.Result(t, ids[2]); ok {
		t.Fatal("a result where none was written")
	}
	// A later write without a result leaves the result alone.
	s.change(t, ids[0], func(r *protocol.Row, _ *protocol.Changes) { r.Retries++ })
	if got, ok := s.Result(t, ids[0]); !ok || string(got.Output) != string(finals[ids[0]].Output) {
		t.Fatalf("the result is gone: %+v", got)
	}
}

func reportsOrder(t *testing.T, s *suite) {
	ids := s.insert(t, 2)
	write := func(reports ...protocol.StoredReport) {
		s.txn(t, func(tx protocol.Tx) error {
			rows, err := tx.Lock(s.ctx, ids)
			if err != nil {
				return err
			}
			return tx.Write(s.ctx, &protocol.Changes{Rows: rows, Reports: reports})
		})
	}
	write(protocol.StoredReport{Execution: ids[0], Attempt: 1, Seq: 1, Events: json.RawMessage(`[1]`)}, protocol.StoredReport{Execution: ids[1], Attempt: 1, Seq: 1, Events: json.RawMessage(`["b"]`)})
	write(protocol.StoredReport{Execution: ids[0], Attempt: 1, Seq: 2, Events: json.RawMessage(`[2]`)})
	write(protocol.StoredReport{Execution: ids[0], Attempt: 2, Seq: 0, Events: json.RawMessage(`[3]`)})
	write(protocol.StoredReport{Execution: ids[0], Attempt: 2, Seq: 10, Events: json.RawMessage(`[4]`)})
	var got string
	for _, r := range s.Reports(t, ids[0]) {
		got += string(r.Events)
	}
	if got != "[1][2][3][4]" {
		t.Fatalf("reports %s", got)
	}
	// A checkpoint replaces what was recorded before it, of its own execution; what was logged meanwhile stays.
	write(protocol.StoredReport{Execution: ids[0], Attempt: 2, Seq: 11, Events: json.RawMessage(`[5]`), Logs: json.RawMessage(`["log"]`)})
	write(protocol.StoredReport{Execution: ids[0], Attempt: 3, Seq: 1, Events: json.RawMessage(`[6]`), Whole: true})
	write(protocol.StoredReport{Execution: ids[0], Attempt: 3, Seq: 2, Events: json.RawMessage(`[7]`)})
	got = ""
	for _, r := range s.Reports(t, ids[0]) {
		got += string(r.Events)
	}
	if strings.TrimPrefix(got, "[]") != "[6][7]" {
		t.Fatalf("reports after a checkpoint: %s", got)
	}
	if r := s.Reports(t, ids[1]); len(r) != 1 || string(r[0].Events) != `["b"]` || r[0].Seq != 1 {
		t.Fatalf("reports of the other: %+v", r)
	}
}

func deadLetters(t *testing.T, s *suite) {
	id := s.insert(t, 1)[0]
	s.txn(t, func(tx protocol.Tx) error {
		return tx.Write(s.ctx, &protocol.Changes{Dead: []protocol.DeadLetter{
			{Kind: "report", Reason: "behind", Detail: "not \x00 UTF-8 \xff", Origin: "reports", Execution: id, Body: []byte("\x00\xff"), Count: 1},
			{Kind: "execution", Reason: "poison", Origin: "recover", Execution: id, Count: 5},
		}})
	})
	same := protocol.DeadLetter{ID: protocol.LetterID(time.UnixMilli(1_764_000_000_000), "a message"), Kind: "report", Reason: "unknown-execution", Execution: id, Count: 1}
	for range 2 { // parked twice, and twice in one batch: once
		s.txn(t, func(tx protocol.Tx) error {
			return tx.Write(s.ctx, &protocol.Changes{Dead: []protocol.DeadLetter{same, same}})
		})
	}
	dead := s.Dead(t)
	if len(dead) != 3 {
		t.Fatalf("%d dead letters, want 3", len(dead))
	}
	for _, d := range dead {
		if d.ID.IsZero() || d.At.IsZero() || d.Execution != id {
			t.Fatalf("dead letter %+v", d)
		}
		if d.Reason == "behind" && string(d.Body) != "\x00\xff" {
			t.Fatalf("its body is %q", d.Body)
		}
	}
}

func refused(t *testing.T, s *suite) {
	if s.Refused == nil {
		t.Skip("this store refuses no value")
	}
	id := s.insert(t, 1)[0]
	err := s.Store.Txn(s.ctx, "test", func(tx protocol.Tx) error {
		rows, err := tx.Lock(s.ctx, []protocol.ID{id})
		if err != nil {
			return err
		}
		c := s.Refused(id)
		c.Rows = rows
		return tx.Write(s.ctx, &c)
	})
	if !errors.Is(err, protocol.ErrData) {
		t.Fatalf("got %v, want ErrData", err)
	}
	if errors.Is(err, protocol.ErrUnknown) {
		t.Fatal("a refused value is no unknown commit")
	}
	s.change(t, id, func(r *protocol.Row, _ *protocol.Changes) { r.Seq = 9 }) // the store goes on
}

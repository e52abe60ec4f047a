package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

// through opens a DB behind a proxy that can cut.
func (b *bundle) through(t *testing.T) (*DB, *testkit.CutProxy) {
	t.Helper()
	p := testkit.NewCutProxy(t, fmt.Sprintf("127.0.0.1:%d", b.server.Port))
	url := strings.Replace(b.server.URL("flow_orchestrator", b.name), fmt.Sprintf("127.0.0.1:%d", b.server.Port), p.Address(), 1)
	return openURL(t, url, false), p
}

// raise is a transaction that raises an execution's seq.
func raise(ctx context.Context, db *DB, id protocol.ID) error {
	return db.Txn(ctx, "raise", func(tx protocol.Tx) error {
		rows, err := tx.Lock(ctx, []protocol.ID{id})
		if err != nil {
			return err
		}
		rows[0].Seq++
		return tx.Write(ctx, &protocol.Changes{Rows: rows})
	})
}

func (b *bundle) seq(t *testing.T, id protocol.ID) int {
	t.Helper()
	x, err := b.db.ExecutionByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return x.Seq
}

// The answer to COMMIT is lost: the transaction happened, and Txn says that it doesn't know.
func TestPG1_CommitAnswerLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, 1)[0]
	db, proxy := b.through(t)
	if err := raise(t.Context(), db, id); err != nil {
		t.Fatal(err)
	}
	var cut atomic.Int32
	proxy.OnServer(func(p []byte) bool {
		if bytes.Contains(p, []byte("COMMIT\x00")) {
			cut.Add(1)
			return false
		}
		return true
	})
	err := raise(t.Context(), db, id)
	if !errors.Is(err, protocol.ErrUnknown) || errors.Is(err, protocol.ErrData) {
		t.Fatalf("got %v, want ErrUnknown", err)
	}
	if n := cut.Load(); n != 1 {
		t.Fatalf("%d commits were sent, want one: an unknown transaction must not be run again", n)
	}
	if got := b.seq(t, id); got != 2 {
		t.Fatalf("seq %d, want 2: the transaction was committed", got)
	}
	proxy.OnServer(func([]byte) bool { return true })
	if err := raise(t.Context(), db, id); err != nil {
		t.Fatalf("the next transaction: %v", err)
	}
}

// COMMIT itself is lost: nothing happened, and nobody can know.
func TestPG1_CommitLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, 1)[0]
	db, proxy := b.through(t)
	proxy.OnClient(func(p []byte) bool { return !bytes.Contains(p, []byte("COMMIT\x00")) })
	if err := raise(t.Context(), db, id); !errors.Is(err, protocol.ErrUnknown) {
		t.Fatalf("got %v, want ErrUnknown", err)
	}
	if got := b.seq(t, id); got != 0 {
		t.Fatalf("seq %d, want 0", got)
	}
}

// The caller's context ends while COMMIT is on its way: the transaction is committed and Txn says so.
func TestPG1_CommitOutlivesContext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, 1)[0]
	db, proxy := b.through(t)
	ctx, cancel := context.WithCancel(t.Context())
	proxy.OnClient(func(p []byte) bool {
		if bytes.Contains(p, []byte("COMMIT\x00")) {
			cancel()
		}
		return true
	})
	if err := raise(ctx, db, id); err != nil {
		t.Fatalf("got %v, want success: the commit doesn't belong to the caller's context", err)
	}
	if got := b.seq(t, id); got != 1 {
		t.Fatalf("seq %d, want 1", got)
	}
	if err := raise(ctx, db, id); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want that the context has ended", err)
	}
}

// The answer to an insert is lost: unknown, and ExistingExecutions tells.
func TestPG1_InsertAnswerLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, proxy := b.through(t)
	if err := db.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.OnServer(func(p []byte) bool { return !bytes.Contains(p, []byte("INSERT 0 2\x00")) })
	rows := []NewExecution{newExecution(NewID()), newExecution(NewID())}
	ids := []protocol.ID{rows[0].ID, rows[1].ID, NewID()}
	if _, err := db.InsertExecutions(t.Context(), rows); !errors.Is(err, protocol.ErrUnknown) {
		t.Fatalf("got %v, want ErrUnknown", err)
	}
	proxy.OnServer(func([]byte) bool { return true })
	there, err := db.ExistingExecutions(t.Context(), ids)
	if err != nil || !there[ids[0]] || !there[ids[1]] || there[ids[2]] {
		t.Fatalf("existing %v, %v", there, err)
	}
	if _, err := db.InsertExecutions(t.Context(), rows); !errors.Is(err, ErrConflict) {
		t.Fatalf("inserted twice: %v", err)
	}
}

// Connections that died in the pool cost nobody an error.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, 1)[0]
	db, proxy := b.through(t)
	for i, what := range []func() error{
		func() error { return raise(t.Context(), db, id) },
		func() error { _, err := db.ExecutionByID(t.Context(), id); return err },
		func() error { return raise(t.Context(), db, id) },
	} {
		if err := db.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		proxy.Sever()
		if err := what(); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if got := b.seq(t, id); got != 2 {
		t.Fatalf("seq %d, want 2", got)
	}
}

// A server that is restarted is used again by itself, and a transaction that it ended is not taken for committed.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	server := testkit.NewPostgres(t, true)
	b := setupOn(t, server)
	id := b.insert(t, 1)[0]
	err := b.db.Txn(t.Context(), "cut", func(tx protocol.Tx) error {
		rows, err := tx.Lock(t.Context(), []protocol.ID{id})
		if err != nil {
			return err
		}
		server.Kill()
		rows[0].Seq = 99
		return tx.Write(t.Context(), &protocol.Changes{Rows: rows})
	})
	if err == nil || errors.Is(err, protocol.ErrUnknown) {
		t.Fatalf("got %v: the server died before COMMIT, so it is known that nothing happened", err)
	}
	if err := b.db.Ping(t.Context()); err == nil {
		t.Fatal("Ping answers without a server")
	}
	server.Start(t)
	if err := raise(t.Context(), b.db, id); err != nil {
		t.Fatal(err)
	}
	if got := b.seq(t, id); got != 1 {
		t.Fatalf("seq %d, want 1", got)
	}
	server.Stop() // a fast shutdown says 57P01 to those who ask
	server.Start(t)
	if err := raise(t.Context(), b.db, id); err != nil {
		t.Fatal(err)
	}
}

// A primary that was demoted refuses writes: all connections go, and new ones are only made to a server that takes writes.
func TestPG5_DemotedServer(t *testing.T) {
	t.Parallel()
	server := testkit.NewPostgres(t, false)
	b := setupOn(t, server)
	id := b.insert(t, 1)[0]
	b.sql(t, "ALTER SYSTEM SET default_transaction_read_only = on")
	b.sql(t, "SELECT pg_reload_conf()")
	b.awaitSetting(t, "default_transaction_read_only", "on")
	short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	err := raise(short, b.db, id)
	if err == nil {
		t.Fatal("a read-only server took a write")
	}
	if err := b.db.Ping(short); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Fatalf("Ping on a read-only server: %v", err)
	}
	reader := openURL(t, server.URL("flow_worker", b.name), true)
	if err := reader.SchemaReady(t.Context()); err != nil {
		t.Fatalf("a reader is fine with it: %v", err)
	}
	b.sql(t, "ALTER SYSTEM RESET default_transaction_read_only")
	b.sql(t, "SELECT pg_reload_conf()")
	b.awaitSetting(t, "default_transaction_read_only", "off")
	if err := raise(t.Context(), b.db, id); err != nil {
		t.Fatalf("after the server takes writes again: %v", err)
	}
}

// awaitSetting waits until new sessions see a reloaded setting.
func (b *bundle) awaitSetting(t *testing.T, name, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if b.sql(t, "SHOW "+name) == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s never became %s", name, want)
}

// synchronous_commit off, and a wait for the standby that was cancelled: neither may look like a commit.
func TestPG2_PG3_UndurableCommits(t *testing.T) {
	t.Parallel()
	server := testkit.NewPostgres(t, false)
	b := setupOn(t, server)
	id := b.insert(t, 1)[0]

	b.sql(t, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	b.sql(t, "SELECT pg_reload_conf()")
	b.awaitSetting(t, "synchronous_standby_names", "nobody")
	done := make(chan error, 1)
	go func() { done <- raise(t.Context(), b.db, id) }()
	waiting := func() string {
		return b.sql(t, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	}
	for deadline := time.Now().Add(10 * time.Second); waiting() != "1"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no session waits for the standby")
		}
	}
	b.sql(t, "SET synchronous_commit = local; SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	if err := <-done; !errors.Is(err, protocol.ErrUnknown) {
		t.Fatalf("a commit that the standby doesn't have: %v, want ErrUnknown", err)
	}
	b.sql(t, "ALTER SYSTEM RESET synchronous_standby_names")
	b.sql(t, "SELECT pg_reload_conf()")

	b.sql(t, "ALTER ROLE flow_orchestrator SET synchronous_commit = off")
	db := b.open(t, "flow_orchestrator")
	if err := db.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "synchronous_commit") {
		t.Fatalf("synchronous_commit = off was taken: %v", err)
	}
}

// A migration changes a column's type under prepared statements: nobody sees an error.
func TestPG13_StalePlans(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db := b.open(t, "flow_gateway")
	u, err := db.CreateUser(t.Context(), User{Email: "a@example.com", Role: "admin", PasswordHash: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for range 8 { // every connection of the pool has the plan
			if _, err := db.UserByID(t.Context(), u.ID); err != nil {
				t.Fatal(err)
			}
		}
		b.sql(t, "ALTER TABLE users ALTER COLUMN role TYPE varchar(40)")
		if _, err := db.UserByID(t.Context(), u.ID); err != nil {
			t.Fatalf("after the migration: %v", err)
		}
		b.sql(t, "ALTER TABLE users ALTER COLUMN role TYPE text")
	}
	id := b.insert(t, 1)[0]
	if err := raise(t.Context(), b.db, id); err != nil {
		t.Fatal(err)
	}
	b.sql(t, "ALTER TABLE executions ALTER COLUMN pool TYPE varchar(40)")
	if err := raise(t.Context(), b.db, id); err != nil {
		t.Fatalf("in a transaction: %v", err)
	}
}

// A client that is paused in a transaction loses it, and its locks, by the role's own timeout.
func TestPG9_IdleInTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, q := range []struct{ role, setting, want string }{
		{"flow_gateway", "synchronous_commit", "on"}, {"flow_gateway", "idle_in_transaction_session_timeout", "10s"}, {"flow_gateway", "lock_timeout", "5s"}, {"flow_gateway", "statement_timeout", "30s"},
		{"flow_orchestrator", "idle_in_transaction_session_timeout", "10s"}, {"flow_orchestrator", "lock_timeout", "5s"}, {"flow_orchestrator", "plan_cache_mode", "force_custom_plan"},
		{"flow_worker", "statement_timeout", "10s"},
	} {
		db := b.open(t, q.role)
		got, err := scalar[string](t.Context(), db, db.primary, "test", "SELECT current_setting($1)", q.setting)
		if err != nil || got != q.want {
			t.Errorf("%s has %s = %q (%v), want %q", q.role, q.setting, got, err, q.want)
		}
	}
	id := b.insert(t, 1)[0]
	url := b.server.URL("flow_orchestrator", b.name) + "&idle_in_transaction_session_timeout=300"
	db := openURL(t, url, false)
	first := true
	err := db.Txn(t.Context(), "paused", func(tx protocol.Tx) error {
		rows, err := tx.Lock(t.Context(), []protocol.ID{id})
		if err != nil || !first {
			return err
		}
		first = false
		if err := raise(t.Context(), b.db, id); err != nil { // waits for the lock until the server ends the paused session
			t.Error(err)
		}
		return tx.Write(t.Context(), &protocol.Changes{Rows: rows})
	})
	if err == nil {
		t.Fatal("a transaction that the server ended has committed")
	}
	if got := b.seq(t, id); got != 1 {
		t.Fatalf("seq %d, want 1", got)
	}
}

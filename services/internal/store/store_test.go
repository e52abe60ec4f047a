package store

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/protocol/storetest"
	"flowplatform/services/internal/testkit"
)

// bundle is a database of its own on the shared server, seen with the orchestrator's rights.
type bundle struct {
	server *testkit.PostgresServer
	name   string
	db     *DB
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return setupOn(t, testkit.Postgres(t))
}

func setupOn(t testing.TB, server *testkit.PostgresServer) *bundle {
	t.Helper()
	name := server.Database(t, func(ctx context.Context, url string) error { return Migrate(ctx, url, testLog(t)) })
	b := &bundle{server: server, name: name}
	b.db = b.open(t, "flow_orchestrator")
	return b
}

func (b *bundle) open(t testing.TB, role string) *DB {
	t.Helper()
	return openURL(t, b.server.URL(role, b.name), role == "flow_worker")
}

func openURL(t testing.TB, url string, readOnly bool) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{URL: url, PoolSize: 6, Application: "test", Log: testLog(t), ReadOnly: readOnly})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// sql runs as superuser.
func (b *bundle) sql(t testing.TB, q string) string {
	t.Helper()
	out, err := b.server.Exec(b.name, q)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newExecution(id protocol.ID) NewExecution {
	return NewExecution{ID: id, Flow: NewID(), Version: 1, Trigger: "manual", CreatedAt: time.Now()}
}

func (b *bundle) insert(t testing.TB, n int) []protocol.ID {
	t.Helper()
	rows := make([]NewExecution, n)
	ids := make([]protocol.ID, n)
	for i := range rows {
		ids[i] = NewID()
		rows[i] = newExecution(ids[i])
	}
	if _, err := b.db.InsertExecutions(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestStoreSuite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Fixture { return fixture(setup(t)) })
}

func fixture(b *bundle) storetest.Fixture {
	db := b.db
	execution := func(t *testing.T, id protocol.ID) Execution {
		t.Helper()
		x, err := db.ExecutionByID(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	return storetest.Fixture{
		Store: db, NewID: NewID, Concurrent: true,
		Insert: func(t *testing.T, seeds ...storetest.Seed) {
			t.Helper()
			rows := make([]NewExecution, len(seeds))
			for i, s := range seeds {
				rows[i] = NewExecution{ID: s.ID, Flow: s.Flow, Version: s.Version, Shard: s.Shard, Priority: s.Priority, Pool: s.Pool, Trigger: s.Trigger, Labels: s.Labels, Input: s.Input, Deadline: s.Deadline, CreatedAt: time.Now()}
			}
			if _, err := db.InsertExecutions(t.Context(), rows); err != nil {
				t.Fatal(err)
			}
		},
		Row: func(t *testing.T, id protocol.ID) protocol.Row { return execution(t, id).Row },
		Result: func(t *testing.T, id protocol.ID) (protocol.FinalResult, bool) {
			x := execution(t, id)
			return protocol.FinalResult{ID: id, Output: x.Output, Error: x.Error}, x.Output != nil || x.Error != nil
		},
		Reports: func(t *testing.T, id protocol.ID) []protocol.StoredReport {
			out, err := db.ReportsOf(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
		Waits: func(t *testing.T, id protocol.ID) []protocol.OpenWait {
			out, err := db.WaitsOf(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
		Project: DefaultProject,
		Call: func(t *testing.T, parent, child protocol.ID) {
			t.Helper()
			b.sql(t, fmt.Sprintf(`UPDATE executions SET calls = true WHERE id = '%[1]s'; UPDATE executions SET parent_id = '%[1]s' WHERE id = '%[2]s';
				INSERT INTO calls (execution_id, node, iteration, child_id, depth) VALUES ('%[1]s', 'call', '%[2]s', '%[2]s', 1)`, parent, child))
		},
		Dead: func(t *testing.T) []protocol.DeadLetter {
			out, _, err := db.ListDeadLetters(t.Context(), Page{})
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
		Refused: func(id protocol.ID) protocol.Changes {
			return protocol.Changes{Opened: []protocol.OpenWait{{Execution: id, Node: "n\x00", Kind: "timer"}}}
		},
	}
}

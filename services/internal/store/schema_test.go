package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

func TestMigrateAgainAndAtOnce(t *testing.T) {
	t.Parallel()
	server := testkit.NewPostgres(t, false)
	for _, q := range []string{"CREATE DATABASE one", "CREATE DATABASE two"} {
		if _, err := server.Exec("postgres", q); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	for i := range 4 { // two a database, on a server without the roles
		go func() { done <- Migrate(t.Context(), server.URL("postgres", []string{"one", "two"}[i%2]), testLog(t)) }()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	db := openURL(t, server.URL("flow_gateway", "one"), false)
	if err := db.SchemaReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The layout of the postgres job: the roles are there with limits of their own, and the owner may neither make nor change roles.
func TestMigrateAsPlainOwner(t *testing.T) {
	t.Parallel()
	server := testkit.NewPostgres(t, false)
	for _, q := range []string{
		"CREATE ROLE flow_owner LOGIN", "CREATE ROLE flow_gateway LOGIN", "CREATE ROLE flow_orchestrator LOGIN", "CREATE ROLE flow_worker LOGIN",
		"ALTER ROLE flow_worker SET default_transaction_read_only = on", "ALTER ROLE flow_gateway SET synchronous_commit = on",
		"CREATE DATABASE flow OWNER flow_owner TEMPLATE template0",
	} {
		if _, err := server.Exec("postgres", q); err != nil {
			t.Fatal(err)
		}
	}
	before := openURL(t, server.URL("flow_gateway", "flow"), false)
	if err := before.SchemaReady(t.Context()); !errors.Is(err, ErrSchema) {
		t.Fatalf("before the migration: %v, want ErrSchema", err)
	}
	for range 2 {
		if err := Migrate(t.Context(), server.URL("flow_owner", "flow"), testLog(t)); err != nil {
			t.Fatal(err)
		}
	}
	for _, role := range []string{"flow_gateway", "flow_orchestrator", "flow_worker"} {
		db := openURL(t, server.URL(role, "flow"), role == "flow_worker")
		if err := db.SchemaReady(t.Context()); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	orchestrator := openURL(t, server.URL("flow_orchestrator", "flow"), false)
	if n, err := orchestrator.EnsurePartitions(t.Context(), PartitionDays+2); err != nil || n != 4 {
		t.Fatalf("partitions of two more days: %d, %v", n, err)
	}
	if err := Migrate(t.Context(), server.URL("flow_gateway", "flow"), testLog(t)); !errors.Is(err, ErrMigration) && err != nil {
		t.Logf("as the wrong role: %v", err)
	}
}

// What each role may do, and above all what it may not.
func TestRights(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := NewID()
	insertFlow := `INSERT INTO flows (id, name) VALUES (gen_random_uuid(), gen_random_uuid()::text)`
	insertExecution := fmt.Sprintf(`INSERT INTO executions (id, project_id, flow_id, flow_version, created_at, queued_tx) VALUES ('%s', gen_random_uuid(), gen_random_uuid(), 1, now(), 1)`, id)
	tests := []struct {
		sql     string
		allowed string // g, o, w
	}{
		{`SELECT FROM flow_versions`, "gow"},
		{insertFlow, "g"},
		{`UPDATE flows SET name = name`, "g"},
		{`SELECT FROM flows`, "go"},
		{`UPDATE flow_versions SET document = document`, "g"},
		{`SELECT FROM users`, "g"}, {`UPDATE users SET role = 'admin'`, "g"}, {`SELECT FROM tokens`, "g"}, {`SELECT FROM refresh_tokens`, "g"},
		{`SELECT FROM credentials`, "g"}, {`DELETE FROM credentials`, "g"},
		{`INSERT INTO audit (id, actor, action, object) VALUES (gen_random_uuid(), 'x', 'x', 'x')`, "go"}, {`UPDATE audit SET actor = 'y'`, ""}, {`DELETE FROM audit`, ""},
		{insertExecution, "go"}, {`UPDATE executions SET seq = seq`, "go"}, {`DELETE FROM executions`, "o"}, {`SELECT FROM executions`, "go"},
		{`SELECT FROM reports`, "go"}, {`UPDATE reports SET seq = seq`, "o"}, {`DELETE FROM reports`, "o"},
		{`UPDATE waits SET due = due`, "go"}, {`UPDATE letters SET key = key`, "go"}, {`DELETE FROM letters`, "o"}, {`SELECT FROM calls`, "go"}, {`INSERT INTO calls (execution_id, node, child_id, depth) VALUES (gen_random_uuid(), 'n', gen_random_uuid(), 1)`, "o"}, {`UPDATE calls SET depth = 1`, ""}, {`SELECT FROM payloads`, "go"},
		{`SELECT FROM sessions`, "go"}, {`UPDATE sessions SET beat = beat`, "o"}, {`UPDATE sessions SET drain = drain`, "go"}, {`UPDATE sessions SET tuned = tuned`, "o"}, {`UPDATE dead_letters SET reason = reason`, "o"}, {`UPDATE leader_state SET value = value`, "o"}, {`INSERT INTO sessions (id, worker) VALUES (gen_random_uuid(), 'w')`, "o"},
		{`UPDATE settings SET value = value`, "go"}, {`SELECT FROM settings`, "go"},
		{`INSERT INTO terms (term, holder) VALUES (1, 'x')`, "o"}, {`DELETE FROM terms`, ""}, {`SELECT FROM decisions`, "go"}, {`DELETE FROM dead_letters`, "go"}, {`SELECT FROM dead_letters`, "go"},
		{`UPDATE cursors SET position = 0`, "o"}, {`UPDATE fires SET term = term`, "go"}, {`UPDATE fires SET due_at = due_at`, "o"}, {`DELETE FROM schedules`, "g"}, {`UPDATE schedules SET paused = paused`, "g"}, {`UPDATE schedules SET next_due = next_due`, "go"}, {`INSERT INTO schedules (id, flow_id, name, cron) SELECT gen_random_uuid(), id, 'x', 'x' FROM flows LIMIT 0`, "g"},
		{`INSERT INTO fires (schedule_id, due_at, term) VALUES (gen_random_uuid(), now(), 0)`, "go"}, {`DELETE FROM fires`, "o"},
		{`SELECT FROM error_triggers`, "go"}, {`DELETE FROM error_triggers`, "g"}, {`UPDATE error_triggers SET node = node`, ""}, {`DELETE FROM failures`, "o"}, {`INSERT INTO failures (execution_id, retries, state, at) VALUES (gen_random_uuid(), 0, 'failed', now())`, "go"},
		{`SELECT FROM catches`, "go"}, {`DELETE FROM catches`, "o"}, {`UPDATE catches SET reason = reason`, ""}, {`INSERT INTO catches (execution_id, retries, flow_id, node, state, above, outcome) VALUES (gen_random_uuid(), 0, gen_random_uuid(), 'n', 'failed', '{}', 'skipped')`, "o"},
		{`SELECT FROM pauses`, "go"}, {`DELETE FROM pauses`, "g"}, {`INSERT INTO pauses (kind, name, reason, set_by) VALUES ('pool', 'x', 'x', 'x')`, "g"},
		{`SELECT FROM bulk_items`, "go"}, {`UPDATE bulk_items SET outcome = outcome`, "o"}, {`UPDATE bulk_jobs SET done = done`, "o"}, {`UPDATE bulk_jobs SET stopped_by = stopped_by`, "go"}, {`DELETE FROM bulk_jobs`, "o"},
		{`INSERT INTO bulk_jobs (id, action, asked_by, rate, total) VALUES (gen_random_uuid(), 'retry', 'x', 1, 1)`, "g"},
		{`DELETE FROM idempotency_keys`, "go"}, {`UPDATE platform SET report_shards = report_shards`, "o"},
		{`SELECT FROM schema_migrations`, ""}, {`SELECT flow_schema_version()`, "gow"}, {`SELECT flow_ensure_partitions(7)`, "o"}, {`SELECT flow_drop_partitions('2020-01-01', now(), 1)`, "o"},
		{`SELECT flow_purge_audit('2020-01-01', 1)`, "o"},
		{`CREATE TABLE mine (id int)`, ""}, {`DROP TABLE executions`, ""}, {`TRUNCATE reports`, ""}, {`SELECT FROM ` + partitionOf("executions", time.Now()), ""},
	}
	roles := map[string]*DB{"g": b.open(t, "flow_gateway"), "o": b.open(t, "flow_orchestrator"), "w": b.open(t, "flow_worker")}
	rollback := errors.New("rolled back")
	for _, tt := range tests {
		for short, db := range roles {
			err := db.txn(t.Context(), "rights", func(x *tx) error {
				if _, err := x.conn.Exec(t.Context(), tt.sql); err != nil {
					return err
				}
				return rollback
			})
			denied := sqlState(err) == "42501"
			if !denied && !errors.Is(err, rollback) {
				t.Errorf("%s as %s: %v", tt.sql, short, err)
			}
			if may := strings.Contains(tt.allowed, short); may == denied {
				t.Errorf("%s: role %s may do it: %v, want %v", tt.sql, short, !denied, may)
			}
		}
	}
}

func partitionOf(table string, day time.Time) string {
	return table + "_" + day.UTC().Format("20060102")
}

// Every table of DESIGN's rights is named for somebody: one that is forgotten is found here and not by users.
func TestNoTableForgotten(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.sql(t, `SELECT string_agg(c.relname, ' ' ORDER BY 1) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
		AND NOT has_table_privilege('flow_gateway', c.oid, 'SELECT') AND NOT has_table_privilege('flow_orchestrator', c.oid, 'SELECT')`)
	if got != "schema_migrations" {
		t.Fatalf("tables that no service may read: %s", got)
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	row := newExecution(NewID())
	far := time.Now().Add(400 * 24 * time.Hour).UnixMilli()
	for i := range 6 {
		row.ID[i] = byte(far >> (40 - 8*i))
	}
	_, err := b.db.InsertExecutions(t.Context(), []NewExecution{row})
	if !errors.Is(err, ErrNoPartition) || errors.Is(err, protocol.ErrData) || errors.Is(err, protocol.ErrUnknown) {
		t.Fatalf("an id of next year: %v, want ErrNoPartition", err)
	}
	if n, err := b.db.EnsurePartitions(t.Context(), PartitionDays); err != nil || n != 0 {
		t.Fatalf("nothing is missing: %d, %v", n, err)
	}
	if n, err := b.db.EnsurePartitions(t.Context(), PartitionDays+1); err != nil || n != 2 {
		t.Fatalf("one more day: %d, %v", n, err)
	}
	got := b.sql(t, `SELECT string_agg(DISTINCT coalesce(array_to_string(reloptions, ','), '-'), ' ') FROM pg_class WHERE relname LIKE 'executions_2%' AND relkind = 'r'`)
	if !strings.Contains(got, "fillfactor=50") || strings.Contains(got, "-") {
		t.Fatalf("options of the partitions: %s", got)
	}
	if n := b.sql(t, `SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'executions'::regclass AND pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'`); n != "0" {
		t.Fatal("there is a default partition")
	}
	drop := func(day, endedBefore time.Time) (Dropped, error) {
		return b.db.DropPartitions(t.Context(), day, endedBefore, 500*time.Millisecond)
	}
	if _, err := drop(time.Now(), time.Now()); err == nil {
		t.Fatal("today's partitions were dropped")
	}
	if got, err := drop(time.Now().Add(-100*24*time.Hour), time.Now()); err != nil || got != DayMissing {
		t.Fatalf("a day without partitions: %v, %v", got, err)
	}
	// An old day: busy as long as one execution isn't final.
	day := time.Now().UTC().Add(-10 * 24 * time.Hour)
	for _, parent := range []string{"executions", "reports"} {
		b.sql(t, fmt.Sprintf(`CREATE TABLE %s PARTITION OF %s FOR VALUES FROM (flow_first_id('%s')) TO (flow_first_id('%s'))`,
			partitionOf(parent, day), parent, day.Format("2006-01-02"), day.Add(24*time.Hour).Format("2006-01-02")))
	}
	for i := range 6 {
		row.ID[i] = byte(day.UnixMilli() >> (40 - 8*i))
	}
	if _, err := b.db.InsertExecutions(t.Context(), []NewExecution{row}); err != nil {
		t.Fatal(err)
	}
	if got, err := drop(day, time.Now()); err != nil || got != DayInUse {
		t.Fatalf("a busy day: %v, %v", got, err)
	}
	b.sql(t, `UPDATE executions SET state = 'succeeded', finished_at = now() - interval '2 days'`)
	if got, err := drop(day, time.Now().Add(-72*time.Hour)); err != nil || got != DayInUse {
		t.Fatalf("a day of which something ended too lately: %v, %v", got, err)
	}
	if got, err := drop(day, time.Now().Add(-24*time.Hour)); err != nil || got != DayDropped {
		t.Fatalf("a finished day: %v, %v", got, err)
	}
	if _, err := b.db.ExecutionByID(t.Context(), row.ID); !errors.Is(err, ErrNotFound) {
		t.Fatalf("its executions: %v", err)
	}
}

// The way of an execution without effects touches no index: all its updates are HOT.
func TestHotUpdates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.insert(t, 300)
	for _, id := range ids {
		if err := b.db.Txn(t.Context(), "final", func(tx protocol.Tx) error {
			rows, err := tx.Lock(t.Context(), []protocol.ID{id})
			if err != nil {
				return err
			}
			rows[0].State, rows[0].Seq, rows[0].FinishedAt = protocol.Succeeded, 1, time.Now()
			return tx.Write(t.Context(), &protocol.Changes{Rows: rows, Results: []protocol.FinalResult{{ID: id, Output: []byte(`{"ok":true}`)}}})
		}); err != nil {
			t.Fatal(err)
		}
	}
	b.db.Close() // a session tells the statistics what it did when it ends
	q := fmt.Sprintf(`SELECT n_tup_upd || ' ' || n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '%s'`, partitionOf("executions", TimeOf(ids[0])))
	var all, hot int
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err := fmt.Sscan(b.sql(t, q), &all, &hot); err != nil {
			t.Fatal(err)
		}
		if all >= len(ids) {
			break
		}
	}
	if all < len(ids) || hot < all*9/10 {
		t.Fatalf("%d of %d updates were HOT, want nine of ten at least", hot, all)
	}
}

package retention

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

type term struct{ closed atomic.Bool }

func (t *term) Valid() bool { return !t.closed.Load() }

// world is a database of its own, as the orchestrator sees it.
type world struct {
	t    *testing.T
	pg   *testkit.PostgresServer
	name string
	db   *store.DB
	log  *slog.Logger
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, testkit.Postgres(t))
}

func newWorldOn(t *testing.T, pg *testkit.PostgresServer) *world {
	t.Helper()
	w := &world{t: t, pg: pg, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	w.name = w.pg.Database(t, func(ctx context.Context, url string) error { return store.Migrate(ctx, url, w.log) })
	w.db = w.open("flow_orchestrator")
	return w
}

func (w *world) open(role string) *store.DB {
	w.t.Helper()
	db, err := store.Open(w.t.Context(), store.Options{URL: w.pg.URL(role, w.name), PoolSize: 8, Log: w.log})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	return db
}

func (w *world) sql(format string, args ...any) string {
	w.t.Helper()
	out, err := w.pg.Exec(w.name, fmt.Sprintf(format, args...))
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) retention() *Retention {
	r := New(Options{Store: w.db, Executions: 720 * time.Hour, History: 720 * time.Hour, Audit: 8760 * time.Hour, Log: w.log, Registerer: prometheus.NewRegistry()})
	r.looked = map[time.Time]time.Time{}
	return r
}

// flow makes a flow; retention "" is none.
func (w *world) flow(name, retention string) protocol.ID {
	w.t.Helper()
	doc := `{"nodes":[]}`
	if retention != "" {
		doc = fmt.Sprintf(`{"nodes":[],"settings":{"retention":%q}}`, retention)
	}
	f, err := w.open("flow_gateway").CreateFlow(w.t.Context(), store.Flow{Name: name}, json.RawMessage(doc), "test", true)
	if err != nil {
		w.t.Fatal(err)
	}
	return f.ID
}

// day makes the partitions of a day so many days ago.
func (w *world) day(ago int) time.Time {
	w.t.Helper()
	d := time.Now().UTC().Truncate(day).Add(-time.Duration(ago) * day)
	for _, parent := range []string{"executions", "reports"} {
		w.sql(`CREATE TABLE IF NOT EXISTS %s_%s PARTITION OF %s FOR VALUES FROM (flow_first_id('%s')) TO (flow_first_id('%s'))`,
			parent, d.Format("20060102"), parent, d.Format(time.RFC3339), d.Add(day).Format(time.RFC3339))
	}
	return d
}

// insert puts n executions into a day, each with two reports, a payload, a wait and a signal. They ended an hour after they began.
func (w *world) insert(flow protocol.ID, at time.Time, n int, state string) {
	w.t.Helper()
	w.sql(`CREATE TEMP TABLE ids AS SELECT (substr(flow_first_id('%[2]s')::text, 1, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid AS id FROM generate_series(1, %[3]d);
		INSERT INTO executions (id, project_id, flow_id, flow_version, created_at, finished_at, queued_tx, state)
			SELECT id, '00000000-0000-7000-8000-000000000001', '%[1]s', 1, '%[2]s', CASE '%[4]s' WHEN 'waiting' THEN NULL ELSE '%[2]s'::timestamptz + interval '1 hour' END, 1, '%[4]s' FROM ids;
		INSERT INTO reports (execution_id, attempt, seq, events) SELECT id, 1, s, '' FROM ids, generate_series(1, 2) AS s;
		INSERT INTO payloads (execution_id, sha256, size, data) SELECT id, '', 1, '' FROM ids;
		INSERT INTO waits (execution_id, node, kind, since) SELECT id, 'n', 'timer', now() FROM ids;
		INSERT INTO letters (id, project_id, execution_id, kind) SELECT gen_random_uuid(), '00000000-0000-7000-8000-000000000001', id, 's' FROM ids`,
		flow, at.Add(time.Hour).Format(time.RFC3339), n, state)
}

// left tells what is there: executions, and whether anything hangs in the air.
func (w *world) left() string {
	w.t.Helper()
	return w.sql(`SELECT (SELECT count(*) FROM executions), (SELECT count(*) FROM reports), (SELECT count(*) FROM payloads), (SELECT count(*) FROM waits), (SELECT count(*) FROM letters)`)
}

func all(n int) string { return fmt.Sprintf("%d|%d|%d|%d|%d", n, 2*n, n, n, n) }

func (w *world) pass(r *Retention) {
	w.t.Helper()
	for {
		more, err := r.pass(w.t.Context(), &term{})
		if err != nil {
			w.t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

func value(t *testing.T, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func TestWhatIsKeptAndWhatGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain, short, other := w.flow("plain", ""), w.flow("short", "36h"), w.flow("other", "")
	r := w.retention()
	w.insert(plain, w.day(50), 1500, "succeeded") // goes with its day
	waits := w.day(45)                            // something of it still waits: the rest goes in batches
	w.insert(other, waits, 2100, "failed")
	w.insert(plain, waits, 3, "waiting")
	w.insert(plain, w.day(30), 5, "succeeded") // not a whole day past
	recent := w.day(4)
	w.insert(short, recent, 1200, "cancelled")
	w.insert(short, recent, 2, "waiting")
	w.insert(plain, recent, 7, "succeeded")
	w.pass(r)
	if got := w.left(); got != all(3+5+2+7) {
		t.Errorf("left: %s, want %s", got, all(17))
	}
	if got := w.sql(`SELECT count(*) FROM pg_class WHERE relname IN ('executions_%[1]s', 'reports_%[1]s')`, w.days(50).Format("20060102")); got != "0" {
		t.Error("the partitions of a day past all retention are still there")
	}
	if got, want := value(t, r.metrics.deleted.WithLabelValues("executions")), 2100.0+1200; got != want {
		t.Errorf("%v executions deleted in batches, want %v", got, want)
	}
	if dropped, ahead := value(t, r.metrics.dropped), value(t, r.metrics.ahead); dropped != 1 || ahead != daysAhead {
		t.Errorf("%v days dropped, %v ahead", dropped, ahead)
	}
	w.pass(r) // again: nothing more
	if got := w.left(); got != all(17) {
		t.Errorf("after another pass: %s", got)
	}
	// It ended: the next look an hour later takes it, and its day with it, when it is past its retention too.
	w.sql(`UPDATE executions SET state = 'succeeded', finished_at = now() - interval '31 days' WHERE state = 'waiting' AND id < flow_first_id('%s')`, waits.Add(day).Format(time.RFC3339))
	clear(r.looked)
	w.pass(r)
	if got := w.left(); got != all(14) {
		t.Errorf("at the end: %s, want %s", got, all(14))
	}
}

func (w *world) days(ago int) time.Time {
	return time.Now().UTC().Truncate(day).Add(-time.Duration(ago) * day)
}

func TestALongerRetentionKeepsTheDayButNotTheOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain, long := w.flow("plain", ""), w.flow("long", "2400h")
	d := w.day(40)
	w.insert(plain, d, 40, "succeeded")
	w.insert(long, d, 30, "succeeded")
	r := w.retention()
	w.pass(r)
	if got := w.left(); got != all(30) {
		t.Errorf("left: %s, want %s", got, all(30))
	}
	// The flow is made shorter: that holds for what is stored already. Nobody keeps the day any more.
	if _, err := w.open("flow_gateway").SaveFlow(t.Context(), long, -1, "long", "", nil, json.RawMessage(`{"nodes":[],"settings":{"retention":"240h"}}`), "test", true); err != nil {
		t.Fatal(err)
	}
	clear(r.looked)
	w.pass(r)
	if got := w.left(); got != all(0) {
		t.Errorf("left: %s", got)
	}
	if dropped := value(t, r.metrics.dropped); dropped != 1 {
		t.Errorf("%v days dropped", dropped)
	}
}

func TestTwoAtOnceAndBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	short := w.flow("short", "24h")
	w.insert(short, w.day(3), 6000, "succeeded")
	a, b := w.retention(), w.retention()
	a.batches = 2
	if more, err := a.pass(t.Context(), &term{}); err != nil || !more {
		t.Fatalf("a bounded pass: more %v, %v", more, err)
	}
	if got := w.left(); got != all(4000) {
		t.Fatalf("after two batches: %s", got)
	}
	closed := &term{}
	closed.closed.Store(true)
	if _, err := b.pass(t.Context(), closed); err != nil {
		t.Fatal(err)
	}
	if got := w.left(); got != all(4000) {
		t.Fatalf("a term that is over has deleted: %s", got)
	}
	var both sync.WaitGroup
	a.batches = batches
	for _, r := range []*Retention{a, b} {
		both.Go(func() {
			for {
				if more, err := r.pass(t.Context(), &term{}); err != nil {
					t.Error(err)
				} else if !more {
					return
				}
			}
		})
	}
	both.Wait()
	w.pass(a) // what one had held while the other looked
	if got := w.left(); got != all(0) {
		t.Errorf("left: %s", got)
	}
	if got := value(t, a.metrics.deleted.WithLabelValues("executions")) + value(t, b.metrics.deleted.WithLabelValues("executions")); got != 6000 {
		t.Errorf("%v counted as deleted", got)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, age := range []string{"1 hour", "40 days", "400 days"} {
		w.sql(`INSERT INTO idempotency_keys (scope, key, body_hash, execution_id, created_at) VALUES ('s', '%[1]s', '', gen_random_uuid(), now() - interval '%[1]s');
			INSERT INTO sessions (id, worker, alive, ended_at, settled_at) VALUES (gen_random_uuid(), 'w', false, now() - interval '%[1]s', now() - interval '%[1]s'), (gen_random_uuid(), 'unsettled', false, now() - interval '%[1]s', NULL);
			INSERT INTO letters (id, project_id, kind, taken_at) VALUES (gen_random_uuid(), '00000000-0000-7000-8000-000000000001', 's', now() - interval '%[1]s');
			INSERT INTO dead_letters (id, kind, reason, at) VALUES (gen_random_uuid(), 'k', 'r', now() - interval '%[1]s');
			INSERT INTO terms (term, holder) VALUES (1, 'h') ON CONFLICT DO NOTHING;
			INSERT INTO decisions (id, term, kind, reason, at) VALUES (flow_first_id(now() - interval '%[1]s'), 1, 'k', 'r', now() - interval '%[1]s');
			INSERT INTO fires (schedule_id, due_at, term, at) VALUES (gen_random_uuid(), now(), 1, now() - interval '%[1]s');
			INSERT INTO catches (execution_id, retries, flow_id, node, state, above, outcome, at) VALUES (gen_random_uuid(), 0, gen_random_uuid(), 'n', 'failed', '{}', 'skipped', now() - interval '%[1]s');
			INSERT INTO audit (id, actor, action, object, at) VALUES (flow_first_id(now() - interval '%[1]s'), 'a', 'a', 'o', now() - interval '%[1]s')`, age)
	}
	w.pass(w.retention())
	for table, want := range map[string]string{"idempotency_keys": "1", "sessions": "4", "letters": "1", "dead_letters": "1", "decisions": "1", "fires": "1", "catches": "1", "audit": "2"} {
		if got := w.sql(`SELECT count(*) FROM %s`, table); got != want {
			t.Errorf("%s: %s rows left, want %s", table, got, want)
		}
	}
	if _, err := w.db.DeleteOld(t.Context(), "audit", 24*time.Hour); err == nil {
		t.Error("yesterday's audit was deleted")
	}
}

// PG-11: whoever reads in an open transaction keeps a day from being dropped, and everybody who comes after the drop waits behind it: not for long.
func TestPG11_IngestGoesOnWhileADayCantBeDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain := w.flow("plain", "")
	w.insert(plain, w.day(50), 100, "succeeded")
	r := w.retention()
	done := make(chan error, 1)
	go func() {
		_, err := w.pg.Exec(w.name, `BEGIN; SELECT count(*) FROM executions; SELECT pg_sleep(8); COMMIT`)
		done <- err
	}()
	testkit.Eventually(t, 5*time.Second, "the reader holds its lock", func() error {
		if w.sql(`SELECT count(*) FROM pg_locks WHERE relation = 'executions_%s'::regclass AND granted`, w.days(50).Format("20060102")) == "0" {
			return errors.New("not yet")
		}
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	var ingest sync.WaitGroup
	var longest, accepted atomic.Int64
	gateway := w.open("flow_gateway")
	for range 4 {
		ingest.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				if _, err := gateway.InsertExecutions(context.WithoutCancel(ctx), []store.NewExecution{{ID: store.NewID(), Flow: plain, Version: 1, CreatedAt: began}}); err != nil {
					t.Errorf("ingest: %v", err)
					return
				}
				accepted.Add(1)
				for took := int64(time.Since(began)); ; {
					old := longest.Load()
					if took <= old || longest.CompareAndSwap(old, took) {
						break
					}
				}
			}
		})
	}
	for range 2 {
		if more, err := r.pass(t.Context(), &term{}); more || err != nil {
			t.Errorf("pass: more %v, %v", more, err)
		}
	}
	if locked, dropped := value(t, r.metrics.locked), value(t, r.metrics.dropped); locked < 3 || dropped != 0 {
		t.Errorf("%v attempts met the lock, %v days dropped", locked, dropped)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.pass(r)
	stop()
	ingest.Wait()
	if dropped := value(t, r.metrics.dropped); dropped != 1 {
		t.Errorf("%v days dropped when the reader was gone", dropped)
	}
	if got := w.sql(`SELECT count(*) FROM payloads`); got != "0" {
		t.Errorf("%s payloads of the dropped day are left", got)
	}
	t.Logf("%d accepted meanwhile, the slowest in %v", accepted.Load(), time.Duration(longest.Load()))
	if slowest := time.Duration(longest.Load()); slowest > 3*time.Second || accepted.Load() < 100 { // 900 ms behind the lock, and the machine
		t.Errorf("ingest stood: %d accepted, the slowest in %v", accepted.Load(), slowest)
	}
}

// PG-11: midnight. A batch may reach over it; a day without a partition is a clear error, and the next pass of the leader mends it.
func TestPG11_MidnightAndAMissingPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain := w.flow("plain", "")
	midnight := w.days(-1)
	at := func(when time.Time) store.NewExecution {
		id, fresh := store.FirstID(when), store.NewID()
		copy(id[6:], fresh[6:])
		return store.NewExecution{ID: id, Flow: plain, Version: 1, CreatedAt: when}
	}
	over := func() []store.NewExecution {
		return []store.NewExecution{at(midnight.Add(-time.Millisecond)), at(midnight), at(midnight.Add(time.Millisecond))}
	}
	gateway := w.open("flow_gateway")
	if _, err := gateway.InsertExecutions(t.Context(), over()); err != nil {
		t.Fatalf("over midnight: %v", err)
	}
	if got := w.sql(`SELECT count(*) FROM executions_%s`, midnight.Format("20060102")); got != "2" {
		t.Errorf("%s of 2 are in tomorrow's partition", got)
	}
	w.sql(`DROP TABLE executions_%[1]s; DROP TABLE reports_%[1]s`, midnight.Format("20060102"))
	_, err := gateway.InsertExecutions(t.Context(), over())
	if !errors.Is(err, store.ErrNoPartition) || errors.Is(err, protocol.ErrUnknown) {
		t.Fatalf("a day without a partition: %v", err)
	}
	if got := w.sql(`SELECT count(*) FROM executions`); got != "1" {
		t.Errorf("%s rows: of the refused batch nothing may be stored", got)
	}
	w.pass(w.retention())
	if _, err := gateway.InsertExecutions(t.Context(), over()); err != nil {
		t.Fatalf("after the leader's pass: %v", err)
	}
}

func TestGaps(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	d := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	for name, tt := range map[string]struct {
		days []time.Time
		want []gap
	}{
		"none":           {nil, []gap{{protocol.ID{}, store.FirstID(d(22))}}},
		"a hole":         {[]time.Time{d(10), d(12), d(21), d(22), d(23), d(24)}, []gap{{protocol.ID{}, store.FirstID(d(10))}, {store.FirstID(d(11)), store.FirstID(d(12))}, {store.FirstID(d(13)), store.FirstID(d(21))}}},
		"only new ones":  {[]time.Time{d(23), d(24)}, []gap{{protocol.ID{}, store.FirstID(d(22))}}},
		"all since then": {[]time.Time{d(21), d(22), d(23), d(24)}, []gap{{protocol.ID{}, store.FirstID(d(21))}}},
	} {
		if got := gaps(tt.days, now); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

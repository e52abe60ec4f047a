package admit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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

// term is the leader's, until it is closed.
type term struct {
	closed atomic.Bool
	asked  atomic.Int64
}

func (t *term) Valid() bool {
	t.asked.Add(1)
	return !t.closed.Load()
}

// published takes tasks in place of the broker.
type published struct {
	mu  sync.Mutex
	ids map[protocol.ID]int
}

func (p *published) PublishTasks(_ context.Context, tasks []protocol.Task) []bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]bool, len(tasks))
	for i, t := range tasks {
		p.ids[t.ID]++
		out[i] = true
	}
	return out
}

func (p *published) of(id protocol.ID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ids[id]
}

// world is a database of its own with an Admit that works on it as the leader's does.
type world struct {
	db       *store.DB
	admit    *Admit
	tasks    *published
	term     *term
	registry *prometheus.Registry
	forgot   atomic.Int64
	away     atomic.Bool // forgetting fails
}

func newWorld(t *testing.T) *world {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	pg := testkit.Postgres(t)
	name := pg.Database(t, func(ctx context.Context, url string) error { return store.Migrate(ctx, url, log) })
	db, err := store.Open(t.Context(), store.Options{URL: pg.URL("flow_orchestrator", name), PoolSize: 8, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	w := &world{db: db, tasks: &published{ids: map[protocol.ID]int{}}, term: &term{}, registry: prometheus.NewRegistry()}
	w.admit = New(Options{Store: db, Publisher: w.tasks, Log: log, Registerer: w.registry, Forget: func(ctx context.Context) error {
		w.forgot.Add(1)
		if w.away.Load() {
			return errors.New("away")
		}
		return db.ForgetLimits(ctx)
	}})
	return w
}

// work lets it work until the test ends.
func (w *world) work(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { w.admit.Work(ctx, w.term) })
	t.Cleanup(func() { stop(); done.Wait() })
}

// counted is a counter's value.
func (w *world) counted(t *testing.T, name string) (sum float64) {
	t.Helper()
	all, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += value(m)
			}
		}
	}
	return sum
}

// counts waits for a counter: it is raised after what it counts.
func (w *world) counts(t *testing.T, name string, want float64) {
	t.Helper()
	testkit.Eventually(t, 10*time.Second, name, func() error {
		if n := w.counted(t, name); n != want {
			return fmt.Errorf("%v, want %v", n, want)
		}
		return nil
	})
}

func value(m *dto.Metric) float64 { return m.GetCounter().GetValue() }

// start accepts executions with a limit.
func (w *world) start(t *testing.T, n int, l protocol.Limit) []protocol.ID {
	t.Helper()
	rows := make([]store.NewExecution, n)
	ids := make([]protocol.ID, n)
	for i := range rows {
		ids[i] = store.NewID()
		rows[i] = store.NewExecution{ID: ids[i], Flow: store.NewID(), Version: 1, Priority: "normal", Trigger: "manual", CreatedAt: time.Now(), Limits: []protocol.Limit{l}, Limited: true}
	}
	if _, err := w.db.InsertExecutions(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	return ids
}

// dies ends an execution as a report does, by somebody who dies before he lets in whoever waits for its place.
func (w *world) dies(t *testing.T, id protocol.ID) {
	t.Helper()
	err := w.db.Txn(t.Context(), "collect", func(tx protocol.Tx) error {
		_, err := protocol.ApplyReports(t.Context(), tx, 0, []protocol.Entry{{Kind: protocol.EntryFinal, Execution: id, Attempt: 1, Seq: 1, State: protocol.Succeeded}}, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) holds(t *testing.T, ids ...protocol.ID) (n int) {
	t.Helper()
	for _, id := range ids {
		x, err := w.db.ExecutionByID(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if x.Hold != "" {
			n++
		}
	}
	return n
}

func (w *world) reaches(t *testing.T, what string, held int, ids []protocol.ID) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, what, func() error {
		if n := w.holds(t, ids...); n != held {
			return fmt.Errorf("%d are held, want %d", n, held)
		}
		return nil
	})
}

// Whoever made room died before it let the next one in: the leader does, in the order of the starts, counts it, and hands it out once.
func TestRoomThatNobodyGave(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.start(t, 4, protocol.Limit{Kind: protocol.HoldConcurrency, Key: "concurrency/k", Value: "k", Most: 2, OnLimit: "queue"})
	if n := w.holds(t, ids...); n != 2 {
		t.Fatalf("%d are held", n)
	}
	w.work(t)
	w.dies(t, ids[0])
	w.reaches(t, "the third is let in", 1, ids)
	testkit.Eventually(t, 10*time.Second, "it is handed out", func() error {
		if w.holds(t, ids[2]) != 0 || w.tasks.of(ids[2]) != 1 || w.tasks.of(ids[3]) != 0 {
			return fmt.Errorf("%d and %d times", w.tasks.of(ids[2]), w.tasks.of(ids[3]))
		}
		return nil
	})
	w.counts(t, "flow_limits_caught_total", 1)
	w.dies(t, ids[1])
	w.reaches(t, "the last is let in", 0, ids)
}

// What a rate holds goes on when its time has come, one after the other.
func TestARateGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begun := time.Now()
	ids := w.start(t, 3, protocol.Limit{Kind: protocol.HoldRate, Key: "rate/k", Value: "k", Most: 1, Per: time.Second})
	w.work(t)
	w.reaches(t, "all have gone on", 0, ids)
	if took := time.Since(begun); took < 1900*time.Millisecond {
		t.Errorf("three at one a second took %v", took)
	}
	w.counts(t, "flow_limits_released_total", 2)
	for _, id := range ids[1:] {
		testkit.Eventually(t, 10*time.Second, "it is handed out", func() error {
			if n := w.tasks.of(id); n != 1 {
				return fmt.Errorf("%d times", n)
			}
			return nil
		})
	}
}

// A step that fails is counted and tried again, the others go on meanwhile; without a term nothing is done.
func TestFailuresAndTerms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.away.Store(true)
	w.term.closed.Store(true)
	ids := w.start(t, 2, protocol.Limit{Kind: protocol.HoldConcurrency, Key: "concurrency/k", Value: "k", Most: 1, OnLimit: "queue"})
	w.dies(t, ids[0])
	w.work(t)
	testkit.Eventually(t, 20*time.Second, "its three steps ask for the term again and again", func() error {
		if n := w.term.asked.Load(); n < 12 {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	if w.forgot.Load() != 0 || w.holds(t, ids[1]) != 1 {
		t.Error("it works without a term")
	}
	w.term.closed.Store(false)
	w.reaches(t, "it is let in", 0, ids)
	testkit.Eventually(t, 20*time.Second, "the failing step is tried again", func() error {
		if n := w.counted(t, "flow_limits_failed_total"); n < 2 {
			return fmt.Errorf("%v failures are counted", n)
		}
		return nil
	})
	w.away.Store(false)
	failed := w.counted(t, "flow_limits_failed_total")
	tries := w.forgot.Load()
	testkit.Eventually(t, 20*time.Second, "it works again", func() error {
		if w.forgot.Load() == tries {
			return errors.New("not tried yet")
		}
		return nil
	})
	if n := w.counted(t, "flow_limits_failed_total"); n > failed+1 {
		t.Errorf("%v failures, %v before", n, failed)
	}
}

// A look takes a bounded number of keys, goes on behind them with the next, and begins anew at the end; it acts on those that had room at two looks.
func TestALookGoesRound(t *testing.T) {
	t.Parallel()
	f := &keys{n: 2*lookKeys + 10}
	a := New(Options{Store: f, Log: slog.New(slog.DiscardHandler)})
	for i, after := range []string{"", key(lookKeys - 1), key(2*lookKeys - 1), ""} {
		if _, err := a.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.after != after {
			t.Errorf("look %d goes on after %q, want %q", i, f.after, after)
		}
		if want := 0; i < 3 && f.admitted != want {
			t.Errorf("look %d acts on keys that it has seen once", i)
		}
	}
	if f.admitted == 0 {
		t.Error("what had room at two looks is left alone")
	}
}

func key(i int) string { return fmt.Sprintf("k%06d", i) }

// keys is a store with many keys that have room.
type keys struct {
	protocol.Store
	n        int
	after    string
	admitted int
}

func (f *keys) Roomy(_ context.Context, after string, limit int) (out []string, _ error) {
	f.after = after
	for i := 0; i < f.n && len(out) < limit; i++ {
		if k := key(i); strings.Compare(k, after) > 0 {
			out = append(out, k)
		}
	}
	return out, nil
}

func (f *keys) Txn(context.Context, string, func(protocol.Tx) error) error {
	f.admitted++
	return nil
}

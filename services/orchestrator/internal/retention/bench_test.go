package retention

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// What a pass costs, and what it does to ingest beside it: FLOW_BENCH=1 go test -run Throughput -v ./services/orchestrator/internal/retention.
func TestThroughput(t *testing.T) {
	if os.Getenv("FLOW_BENCH") == "" {
		t.Skip("FLOW_BENCH is not set")
	}
	w := newWorldOn(t, testkit.NewPostgres(t, true))
	plain, short := w.flow("plain", ""), w.flow("short", "24h")
	for i := 2; i < 30; i++ {
		w.insert(plain, w.day(i), 2000, "succeeded")
	}
	for i := 2; i < 12; i++ {
		w.insert(short, w.day(i), 5000, "succeeded")
	}
	w.sql("ANALYZE")
	gateway := w.open("flow_gateway")
	ingest := func(during func()) (p50, p95 time.Duration, rate float64) {
		ctx, stop := context.WithCancel(t.Context())
		var took []time.Duration
		var loop sync.WaitGroup
		began := time.Now()
		loop.Go(func() {
			for ctx.Err() == nil {
				rows := make([]store.NewExecution, 50)
				for i := range rows {
					rows[i] = store.NewExecution{ID: store.NewID(), Flow: plain, Version: 1, CreatedAt: time.Now()}
				}
				at := time.Now()
				if _, err := gateway.InsertExecutions(context.WithoutCancel(ctx), rows); err != nil {
					t.Error(err)
					return
				}
				took = append(took, time.Since(at))
			}
		})
		during()
		stop()
		loop.Wait()
		slices.Sort(took)
		return took[len(took)/2], took[len(took)*95/100], float64(50*len(took)) / time.Since(began).Seconds()
	}
	p50, p95, rate := ingest(func() { time.Sleep(5 * time.Second) })
	t.Logf("ingest alone: %.0f/s in batches of 50, p50 %v, p95 %v", rate, p50, p95)
	r := w.retention()
	var pass time.Duration
	p50, p95, rate = ingest(func() {
		began := time.Now()
		w.pass(r)
		pass = time.Since(began)
	})
	t.Logf("beside retention: %.0f/s, p50 %v, p95 %v; %.0f executions with all they had were deleted in %v (%.0f/s)", rate, p50, p95, value(t, r.metrics.deleted.WithLabelValues("executions")), pass, 50000/pass.Seconds())
	began := time.Now()
	if _, err := r.pass(t.Context(), &term{}); err != nil {
		t.Fatal(err)
	}
	t.Logf("a pass with nothing to do: %v", time.Since(began))
	t.Log(w.sql(`SET plan_cache_mode = force_custom_plan; EXPLAIN SELECT id FROM executions WHERE id >= '00000000-0000-0000-0000-000000000001' AND id < flow_first_id(now() - interval '1 day') AND flow_id = '%s' AND flow_id <> ALL ('{}'::uuid[])
		AND state IN ('succeeded', 'failed', 'cancelled', 'timed_out') AND finished_at < now() ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED`, short)[:1500])
}

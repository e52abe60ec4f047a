package store

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

// The hot path on a server with fsync: go test -bench . -run '^$' ./services/internal/store

const benchBatch = 64

func durable(b *testing.B) *bundle {
	b.Helper()
	return setupOn(b, testkit.NewPostgres(b, true))
}

func benchRows(n int) ([]NewExecution, []protocol.ID) {
	rows := make([]NewExecution, n)
	ids := make([]protocol.ID, n)
	flow := NewID()
	for i := range rows {
		ids[i] = NewID()
		rows[i] = NewExecution{ID: ids[i], Flow: flow, Version: 1, Trigger: "manual", Labels: map[string]string{"team": "sales"}, Input: json.RawMessage(`{"orderId":12345,"lines":[1,2,3]}`), Deadline: time.Now().Add(10 * time.Minute), CreatedAt: time.Now()}
	}
	return rows, ids
}

func perSecond(b *testing.B, n int) {
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkInsertExecutions(b *testing.B) {
	for _, n := range []int{1, 64, 500} {
		for _, callers := range []int{1, 2} {
			b.Run(fmt.Sprintf("rows=%d/committers=%d", n, callers), func(b *testing.B) {
				w := durable(b)
				b.SetParallelism(callers)
				b.ResetTimer()
				run(b, callers, func() error {
					rows, _ := benchRows(n)
					_, err := w.db.InsertExecutions(b.Context(), rows)
					return err
				})
				perSecond(b, n)
			})
		}
	}
}

// run calls fn b.N times, on so many goroutines.
func run(b *testing.B, callers int, fn func() error) {
	todo := make(chan struct{}, b.N)
	for range b.N {
		todo <- struct{}{}
	}
	close(todo)
	done := make(chan error, callers)
	for range callers {
		go func() {
			for range todo {
				if err := fn(); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range callers {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// finals is what a collector does for a batch of reports: lock, write rows, results and reports, commit.
func finals(b *testing.B, w *bundle, ids []protocol.ID) error {
	return w.db.Txn(b.Context(), "bench", func(tx protocol.Tx) error {
		now, err := tx.Now(b.Context())
		if err != nil {
			return err
		}
		rows, err := tx.Lock(b.Context(), ids)
		if err != nil {
			return err
		}
		c := protocol.Changes{Rows: rows}
		for i := range rows {
			r := &rows[i]
			r.State, r.Seq, r.StartedAt, r.FinishedAt = protocol.Succeeded, 1, now, now
			c.Results = append(c.Results, protocol.FinalResult{ID: r.ID, Output: json.RawMessage(`{"large":true}`)})
			c.Reports = append(c.Reports, protocol.StoredReport{Execution: r.ID, Attempt: 1, Seq: 1, Events: json.RawMessage(`[{"t":"completed","n":"start","o":{"orderId":12345}},{"t":"completed","n":"large","p":"true"},{"t":"completed","n":"result","o":{"large":true}}]`)})
		}
		return tx.Write(b.Context(), &c)
	})
}

func BenchmarkFinals(b *testing.B) {
	for _, n := range []int{1, 64, 500} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			w := durable(b)
			batches := make([][]protocol.ID, b.N)
			for i := range batches {
				rows, ids := benchRows(n)
				if _, err := w.db.InsertExecutions(b.Context(), rows); err != nil {
					b.Fatal(err)
				}
				batches[i] = ids
			}
			b.ResetTimer()
			for _, ids := range batches {
				if err := finals(b, w, ids); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			perSecond(b, n)
			w.sql(b, "SELECT pg_stat_force_next_flush()")
			hot := w.sql(b, "SELECT round(100.0 * sum(n_tup_hot_upd) / nullif(sum(n_tup_upd), 0)) FROM pg_stat_user_tables WHERE relname LIKE 'executions_%'")
			b.Logf("HOT updates: %s %%", hot)
		})
	}
}

// BenchmarkLeader measures what the leader asks every second, over 100,000 finished executions, 1,000 of them open.
func BenchmarkLeader(b *testing.B) {
	w := durable(b)
	for range 200 {
		rows, ids := benchRows(500)
		if _, err := w.db.InsertExecutions(b.Context(), rows); err != nil {
			b.Fatal(err)
		}
		if err := finals(b, w, ids[:495]); err != nil {
			b.Fatal(err)
		}
	}
	w.sql(b, `INSERT INTO waits (execution_id, node, kind, reason, due, since) SELECT id, 'n', 'timer', 'a delay', now() + random() * interval '1 day', now() FROM executions`)
	w.sql(b, "ANALYZE")
	session := NewID()
	if err := w.db.Txn(b.Context(), "open", func(tx protocol.Tx) error {
		return tx.OpenSession(b.Context(), protocol.OpenSessionRequest{Session: session, Worker: "w"})
	}); err != nil {
		b.Fatal(err)
	}
	ask := func(name string, fn func() error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := fn(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	ask("Unhanded/first", func() error {
		w.db.unhanded.loaded = false
		w.db.unhanded.saved = 0
		w.sql(b, "DELETE FROM cursors")
		_, err := w.db.Unhanded(b.Context(), 0, 500)
		return err
	})
	ask("Unhanded/next", func() error { _, err := w.db.Unhanded(b.Context(), 2*time.Second, 500); return err })
	ask("Overdue", func() error { _, err := w.db.Overdue(b.Context(), 500); return err })
	ask("DueWaits", func() error { _, _, err := w.db.DueWaits(b.Context(), time.Minute, 500); return err })
	ask("DeadOwners", func() error { _, err := w.db.DeadOwners(b.Context(), 100); return err })
	ask("LiveSessions", func() error { _, err := w.db.LiveSessions(b.Context()); return err })
	ask("Renew", func() error {
		return w.db.Txn(b.Context(), "renew", func(tx protocol.Tx) error {
			_, err := protocol.Renew(b.Context(), tx, []protocol.RenewRequest{{Session: session}})
			return err
		})
	})
	ask("UnhandedCount", func() error { _, err := w.db.UnhandedCount(b.Context()); return err })
}

func BenchmarkTasks(b *testing.B) {
	w := durable(b)
	rows, ids := benchRows(benchBatch)
	if _, err := w.db.InsertExecutions(b.Context(), rows); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := w.db.Tasks(b.Context(), ids); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, benchBatch)
}

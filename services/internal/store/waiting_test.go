package store

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// TestWaitingCosts says what an execution that waits for a signal takes in the database, and that a signal by key finds its execution among all of them.
// FLOW_WAITING=100000 is the full size.
func TestWaitingCosts(t *testing.T) {
	t.Parallel()
	n := 2000
	if v, err := strconv.Atoi(os.Getenv("FLOW_WAITING")); err == nil {
		n = v
	}
	b := setup(t)
	const batch = 500
	begun := time.Now()
	for done := 0; done < n; done += batch {
		entries := make([]protocol.Entry, batch)
		for i, id := range b.insert(t, batch) {
			w := protocol.WaitEntry{Node: "paid", Kind: flow.WaitSignal, Key: protocol.SignalKey("payment", fmt.Sprint(done+i)), Reason: "waits for the signal payment", Due: time.Now().Add(72 * time.Hour)}
			events, err := protocol.EncodeEvents([]flow.Event{{Type: flow.EventWaiting, Node: "paid", Try: 1, At: time.Now(), Wait: &flow.Wait{Kind: w.Kind, Key: w.Key, Reason: w.Reason, Due: w.Due}}})
			if err != nil {
				t.Fatal(err)
			}
			entries[i] = protocol.Entry{Kind: protocol.EntrySuspend, Execution: id, Attempt: 1, Seq: 1, Waits: []protocol.WaitEntry{w}, Events: events}
		}
		err := b.db.Txn(t.Context(), "collect", func(tx protocol.Tx) error {
			_, err := protocol.ApplyReports(t.Context(), tx, 0, entries, false)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begun)
	b.sql(t, `ANALYZE`)
	bytes := func(table string) float64 {
		v, err := strconv.ParseFloat(b.sql(t, `SELECT pg_total_relation_size('`+table+`') + coalesce(sum(pg_total_relation_size(relid)), 0) FROM pg_partition_tree('`+table+`') WHERE isleaf AND relid <> '`+table+`'::regclass`), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v / float64(n)
	}
	t.Logf("%d waiting: bytes each: executions %.0f, reports %.0f, waits %.0f; rows each: 1, 1, 1; %.0f suspends a second", n, bytes("executions"), bytes("reports"), bytes("waits"), float64(n)/took.Seconds())
	begun = time.Now()
	const sent = 50
	for i := range sent {
		key := protocol.SignalKey("payment", fmt.Sprint(i*(n/sent)))
		_, d, err := protocol.Send(t.Context(), b.db, []protocol.Letter{{ID: NewID(), Project: DefaultProject, Kind: flow.WaitSignal, Key: key}})
		if err != nil || d[0].Status != protocol.LetterTaken {
			t.Fatalf("%s: %+v, %v", key, d, err)
		}
	}
	t.Logf("a signal by key: %s each, one after the other", (time.Since(begun) / sent).Round(10*time.Microsecond))
	if got := b.sql(t, `SELECT count(*) FROM executions WHERE state = 'waiting'`); got != fmt.Sprint(n-sent) {
		t.Errorf("%s wait, %d should", got, n-sent)
	}
}

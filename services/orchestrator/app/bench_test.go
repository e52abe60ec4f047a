package app

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/testkit"
)

// TestCollectorThroughput measures how fast one shard's reports become rows, with fsync: it fails only when they don't. FLOW_BENCH sets how many.
func TestCollectorThroughput(t *testing.T) {
	n := 4000
	if s := os.Getenv("FLOW_BENCH"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, servers{pg: testkit.NewPostgres(t, true)})
	for _, perMessage := range []int{1, 20} {
		ids := w.insert(t, n)
		publish := func(entries []protocol.Entry) {
			body, err := json.Marshal(protocol.Report{V: protocol.SchemaVersion, Entries: entries})
			if err != nil {
				t.Fatal(err)
			}
			for w.pub.Publish(broker.Message{Key: broker.ReportKey(0), Body: body}, func(o broker.Outcome) {
				if o != broker.Confirmed {
					t.Errorf("report %s", o)
				}
			}) != nil {
				time.Sleep(time.Millisecond) // too many wait
			}
		}
		before := w.orchestrator(t, fmt.Sprintf("declares %d", perMessage))
		if err := before.Stop(t.Context()); err != nil { // the queues are there now, and nobody collects
			t.Fatal(err)
		}
		for at := 0; at < n; at += perMessage {
			var entries []protocol.Entry
			for _, id := range ids[at:min(n, at+perMessage)] {
				entries = append(entries, protocol.Entry{Kind: protocol.EntryFinal, Execution: id, Attempt: 1, Seq: 1, State: protocol.Succeeded,
					Events: json.RawMessage(`[{"type":"completed","node":"start","port":"main","o":{"orderId":12345,"customer":"somebody"}},{"type":"completed","node":"result","port":"main","o":{"large":true}}]`),
					Output: json.RawMessage(`{"large":true,"total":125.5,"order":{"id":12345,"lines":[1,2,3]}}`), Started: time.Now()})
			}
			publish(entries)
		}
		begin := time.Now()
		a := w.orchestrator(t, fmt.Sprintf("collects %d", perMessage))
		applied := func() float64 { return metric(t, a.metricsURL(), `flow_reports_entries_total{kind="final"}`) }
		first := time.Time{}
		testkit.Eventually(t, 2*time.Minute, "all are applied", func() error {
			got := applied()
			if got > 0 && first.IsZero() {
				first = time.Now()
			}
			if got < float64(n) {
				return fmt.Errorf("%v of %d", got, n)
			}
			return nil
		})
		took := time.Since(begin)
		batches := metric(t, a.metricsURL(), "flow_reports_batch_size_count")
		seconds := metric(t, a.metricsURL(), "flow_reports_apply_seconds_sum")
		t.Logf("%d entries a message: %d finals in %v: %.0f/s; %v transactions of %.1f entries, %.1f ms each", perMessage, n, took, float64(n)/took.Seconds(), batches, float64(n)/batches, seconds/batches*1000)
		if err := a.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.states(t, time.Second, fmt.Sprintf("succeeded|%d", 2*n))
}

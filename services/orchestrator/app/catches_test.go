package app

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// errorFlow makes a flow with a trigger.error, as a gateway does.
func (w *world) errorFlow(t *testing.T, db *store.DB, name, doc string) store.Flow {
	t.Helper()
	f, err := db.CreateFlow(t.Context(), store.Flow{Name: name}, json.RawMessage(doc), "test", true, store.Hook{Node: "failed", Errors: &store.ErrorSpec{States: []protocol.State{protocol.Cancelled}}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Executions end badly while leaders are killed in the middle of catching them: each end starts each error flow once, and what can't be started says why.
func TestErrorFlowsWhileLeadersDie(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	gateway := w.gateway(t)
	good := w.errorFlow(t, gateway, "good", `{"name": "good", "nodes": [{"id": "failed", "type": "trigger.error", "config": {"on": ["cancelled"]}}], "edges": []}`)
	picky := w.errorFlow(t, gateway, "picky", `{"name": "picky", "nodes": [{"id": "failed", "type": "trigger.error", "config": {"on": ["cancelled"]}}], "edges": [], "inputSchema": {"required": ["nothing"]}}`)
	of := w.scheduled(t, gateway, "cancelled")
	procs := map[string]*process{}
	for _, name := range []string{"a", "b"} {
		procs[name] = w.process(t, name, keeping)
	}
	term, holder := w.leads(t, 0, 20*time.Second)
	const rounds, each = 3, 150
	for range rounds {
		ids := w.insert(t, each, func(_ int, n *store.NewExecution) { n.Flow = of.ID })
		for i := 0; i < each; i += 10 {
			err := gateway.Txn(t.Context(), "cancel", func(tx protocol.Tx) error {
				_, err := protocol.Cancel(t.Context(), tx, ids[i:i+10], protocol.Cancelled)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		procs[holder].Kill() // some of them are caught by now
		procs[holder] = w.process(t, holder, keeping)
		term, holder = w.leads(t, term, 30*time.Second)
	}
	testkit.Eventually(t, 60*time.Second, "all are caught and handed out", func() error {
		if got := w.sql(t, fmt.Sprintf(`SELECT (SELECT count(*) FROM failures), (SELECT count(*) FROM executions WHERE flow_id = '%s' AND handed > 0)`, good.ID)); got != fmt.Sprintf("0|%d", rounds*each) {
			return fmt.Errorf("failures left, started: %s", got)
		}
		return nil
	})
	if got := w.sql(t, fmt.Sprintf(`SELECT count(*), count(DISTINCT execution_id), count(DISTINCT started_id), min(outcome) FROM catches WHERE flow_id = '%s'`, good.ID)); got != fmt.Sprintf("%[1]d|%[1]d|%[1]d|started", rounds*each) {
		t.Errorf("catches: %s", got)
	}
	if got := w.sql(t, fmt.Sprintf(`SELECT count(*), count(started_id), min(outcome), bool_and(reason LIKE '%%inputSchema%%') FROM catches WHERE flow_id = '%s'`, picky.ID)); got != fmt.Sprintf("%d|0|refused|t", rounds*each) {
		t.Errorf("catches of one that doesn't take the input: %s", got)
	}
	if got := w.sql(t, fmt.Sprintf(`SELECT count(*) FROM executions e JOIN catches c ON c.started_id = e.id WHERE e.flow_id = '%s' AND e.trigger = 'error' AND e.labels->>'failedExecution' = c.execution_id::text
		AND (convert_from(e.input, 'UTF8')::json)->'execution'->>'id' = c.execution_id::text AND (convert_from(e.input, 'UTF8')::json)->'error'->>'code' = 'cancelled'`, good.ID)); got != fmt.Sprint(rounds*each) {
		t.Errorf("%s of %d say what ended", got, rounds*each)
	}
}

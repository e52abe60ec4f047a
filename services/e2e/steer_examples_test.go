package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// The examples of what starts flows, and of limits.

// tellTheTeam lets an execution of another flow fail, twice by a retry: the error flow runs once for each end, and says what failed and where.
func tellTheTeam(t *testing.T, x *examples) {
	code, out := x.flowctl(t, "", "run", "Route by amount", "--input", `{"total": 1}`)
	id, _, _ := strings.Cut(out, " ")
	if code != 0 {
		t.Fatal(out)
	}
	x.until(id, "failed")
	caught := func(n int) (items []struct{ Outcome, Status, ExecutionID string }) {
		t.Helper()
		testkit.Eventually(t, 30*time.Second, fmt.Sprintf("%d error flows have run", n), func() error {
			var list struct {
				Items []struct{ Outcome, Status, ExecutionID string }
			}
			x.must(200, "GET", "/executions/"+id+"/catches", nil, &list)
			items = list.Items
			if len(items) != n || items[n-1].Status != "succeeded" {
				return fmt.Errorf("%+v", items)
			}
			return nil
		})
		return items
	}
	first := caught(1)[0]
	same(t, x.shop.body("POST /mails"), fmt.Sprintf(`{"to": "sales@shop.example", "subject": "Route by amount: An order over 1 names no customer: send it again with the field customer", "text": "Step refuse, execution %s"}`, id))
	var e struct {
		Trigger string
		Labels  map[string]string
	}
	if x.must(200, "GET", "/executions/"+first.ExecutionID, nil, &e); e.Trigger != "error" || e.Labels["failedExecution"] != id || e.Labels["failedFlow"] != "Route by amount" {
		t.Errorf("%+v", e)
	}
	x.must(202, "POST", "/executions/"+id+"/retry", nil, nil)
	caught(2)
	if code, out := x.flowctl(t, "", "execution", "catches", id); code != 0 || strings.Count(out, "started") != 2 {
		t.Errorf("%d %s", code, out)
	}
	if code, out := x.flowctl(t, "", "flow", "delete", "Tell the team"); code != 0 { // the flows that come after it here fail too
		t.Error(out)
	}
	x.openTickets(t)
}

// openTickets runs the flow that docs/flows.md shows.
func (x *examples) openTickets(t *testing.T) {
	x.createFlow(documented(t, "## Failures", x.shop.url))
	refunds := x.createFlow(obj{"name": "Refunds", "nodes": []any{manual, obj{"id": "refuse", "type": "flow.fail", "config": obj{"code": "too-late", "message": "after 30 days"}}}, "edges": []any{edge("start", "refuse")}})
	id := x.accept(refunds, nil)
	testkit.Eventually(t, 30*time.Second, "the ticket is open", func() error {
		if x.shop.count("POST /tickets") == 0 {
			return fmt.Errorf("no ticket; %v", x.shop.seen())
		}
		return nil
	})
	same(t, x.shop.body("POST /tickets"), fmt.Sprintf(`{"title": "Refunds: too-late", "text": "after 30 days", "link": "https://flows.example/api/v1/executions/%s"}`, id))
}

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// importFiles starts many at once: of a customer one is under way, the others wait, and say for what.
func importFiles(t *testing.T, x *examples) {
	var inputs []any
	for i := range 5 {
		inputs = append(inputs, obj{"customer": "ada", "file": fmt.Sprint(i)})
	}
	for i := range 3 {
		inputs = append(inputs, obj{"customer": "bo", "file": fmt.Sprint(i), "urgent": true})
	}
	var batch struct{ Items []execution }
	x.must(202, "POST", "/flows/Import%20for%20a%20customer/executions/batch", obj{"inputs": inputs}, &batch)
	waited := 0
	for _, e := range batch.Items {
		x.until(e.ID, "succeeded")
		if code, out := x.flowctl(t, "", "execution", "waits", e.ID); code != 0 {
			t.Error(out)
		} else if strings.Contains(out, "concurrency") {
			waited++
		}
	}
	if x.shop.mostOf != 1 {
		t.Errorf("%d imports of a customer at once, want 1", x.shop.mostOf)
	}
	if waited < 6 { // all but the first of each customer
		t.Errorf("%d executions say that they have waited, want 6", waited)
	}
	if code, out := x.flowctl(t, "", "flow", "waits", "Import for a customer"); code != 0 || !strings.Contains(out, "concurrency") {
		t.Errorf("%d %s", code, out)
	}
}

// indexDocuments starts the flow for each change of a document: it runs once for all of them.
func indexDocuments(t *testing.T, x *examples) {
	start := func(document, field string) string {
		t.Helper()
		code, out := x.flowctl(t, "", "run", "Index a document", "--input", fmt.Sprintf(`{"document": %q, "field": %q}`, document, field))
		id, _, _ := strings.Cut(out, " ")
		if code != 0 {
			t.Fatal(out)
		}
		return id
	}
	first, other := start("contract", "title"), start("invoice", "sum")
	if id := start("contract", "text"); id != first || other == first {
		t.Fatalf("starts that come close together are one execution: %s, %s, of another document %s", first, id, other)
	}
	x.until(other, "succeeded")
	e := x.until(first, "succeeded")
	same(t, string(e.Output), `{"document": "contract", "changes": 2}`)
}

// reportInTheMorning finds the flow's schedule, when it is due, and fires it for a morning of the past, twice: it runs once.
func reportInTheMorning(t *testing.T, x *examples) {
	var list []struct {
		ID, Name string
		NextDue  time.Time
	}
	if code, out := x.flowctl(t, "", "-o", "json", "schedule", "list", "--flow", "Morning report"); code != 0 || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 {
		t.Fatalf("%d %s", code, out)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if due := list[0].NextDue.In(berlin); list[0].Name != "Morning report/mornings" || due.Hour() != 8 || due.Minute() != 0 || !due.After(time.Now().Add(-time.Minute)) {
		t.Errorf("%s is due at %s", list[0].Name, due)
	}
	if code, out := x.flowctl(t, "", "schedule", "pause", list[0].ID); code != 0 { // should it be eight in Berlin while the test runs
		t.Fatal(out)
	}
	for range 2 {
		if code, out := x.flowctl(t, "", "schedule", "backfill", list[0].ID, "--from", "2026-03-30T00:00:00Z", "--to", "2026-03-31T00:00:00Z"); code != 0 {
			t.Fatal(out)
		}
	}
	var fires struct {
		Items []struct{ Execution, ExecutionID string }
	}
	x.must(200, "GET", "/schedules/"+list[0].ID+"/fires", nil, &fires)
	if len(fires.Items) != 1 {
		t.Fatalf("%+v", fires)
	}
	e := x.until(fires.Items[0].ExecutionID, "succeeded")
	same(t, string(e.Output), `{"of": "2026-03-30T06:00:00Z", "paid": 3}`)
	same(t, x.shop.body("POST /mails"), `{"to": "sales@shop.example", "subject": "3 orders were paid since 2026-03-29"}`)
	if !slices.Contains(x.shop.seen(), "GET /orders") {
		t.Error(x.shop.seen())
	}
}

// followTheGuide runs the section of docs/remote-workers.md that works with curl, as it stands there.
func followTheGuide(t *testing.T, x *examples) {
	page, err := os.ReadFile("../../docs/remote-workers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## With curl\n")
	section, _, _ = strings.Cut(section, "\n## ")
	script := "set -euo pipefail\n"
	for rest := section; ; {
		_, after, ok := strings.Cut(rest, "```sh\n")
		if !ok {
			break
		}
		block, next, _ := strings.Cut(after, "```")
		script, rest = script+block, next
	}
	if strings.Count(script, "post ") < 5 {
		t.Fatalf("the guide has no commands:\n%s", script)
	}
	dir := t.TempDir()
	docs, err := filepath.Abs("../../docs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"docs": docs, "bin/flowctl": testkit.Build(t, "./services/flowctl")} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Env = dir, []string{"FLOW_SERVER=" + x.base(), "FLOW_TOKEN=" + x.admin, "HOME=" + dir, "PATH=/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	for _, want := range []string{`"idempotencyKey"`, `"cancel":false`, "printer-1", `{"pages":2}`, "succeeded"} {
		if !strings.Contains(strings.ReplaceAll(string(out), ": ", ":"), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if err != nil || t.Failed() {
		t.Fatalf("%v\n%s", err, out)
	}
	var list struct{ Items []execution }
	x.must(200, "GET", "/executions?flowId=Print%20a%20label", nil, &list)
	same(t, string(x.until(list.Items[0].ID, "succeeded").Output), `{"order": 7, "label": "L-7"}`)
}

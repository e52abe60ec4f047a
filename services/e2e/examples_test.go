package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"flowplatform/services/internal/testkit"
)

const examplesDir = "../../docs/examples"

// exampleRun is one start of an example: with its output if it succeeds, else with its error's code. EXECUTION stands for the execution's id.
type exampleRun struct{ input, output, code string }

// example says what the flow of a file must do.
type example struct {
	runs  []exampleRun
	calls map[string]int // of the shop
	after func(*testing.T, *examples)
}

type examples struct {
	*platform
	shop   *shop
	offers <-chan amqp.Delivery
}

var allExamples = map[string]example{
	"order-with-fallback": {
		runs:  []exampleRun{{`{"orderId": 7}`, `{"order": {"id": 7, "total": 150}, "source": "shop"}`, ""}, {`{"orderId": 8}`, `{"order": {"id": 8, "total": 80}, "source": "archive", "because": "http-status"}`, ""}},
		calls: map[string]int{"GET /orders/7": 2, "GET /orders/8": 3, "GET /archive/7": 0, "GET /archive/8": 1},
	},
	"route-by-amount": {runs: []exampleRun{
		{`{"total": 5000, "customer": "Ada"}`, `{"desk": "manager", "customer": "Ada"}`, ""}, {`{"total": 100, "customer": "Bo"}`, `{"desk": "clerk", "customer": "Bo"}`, ""},
		{`{"total": 1, "customer": "Cy"}`, `{"desk": "none", "customer": "Cy"}`, ""}, {`{"total": 1}`, ``, "no-customer"},
	}},
	"price-a-basket": {
		runs: []exampleRun{{`{"items": [{"sku": "a", "quantity": 2}, {"sku": "b", "quantity": 1}, {"sku": "nosuch", "quantity": 1}, {"sku": "c", "quantity": 1}, {"sku": "d", "quantity": 3}, {"sku": "e", "quantity": 1}]}`,
			`{"byCountry": [{"country": "DE", "lines": 3, "amount": 15}, {"country": "FR", "lines": 2, "amount": 5}], "unpriced": 1}`, ""}},
		calls: map[string]int{"GET /prices/a": 1, "GET /prices/nosuch": 1},
		after: func(t *testing.T, x *examples) {
			if x.shop.most != 4 {
				t.Errorf("%d prices were asked for at once, want 4", x.shop.most)
			}
		},
	},
	"wait-for-a-job": {
		runs:  []exampleRun{{`{"report": "year", "every": "1500ms"}`, `{"url": "/reports/1", "looks": 3}`, ""}, {`{"report": "bad", "every": "100ms"}`, ``, "job-failed"}},
		calls: map[string]int{"POST /jobs": 2, "GET /jobs/year": 3, "GET /jobs/bad": 3},
	},
	"charge-and-release": {
		runs: []exampleRun{{`{"orderId": 7, "amount": 12.5}`, `{"paid": true, "payment": "p1", "why": null}`, ""},
			{`{"orderId": 8, "amount": 12.5}`, `{"paid": false, "payment": null, "why": "http-status"}`, ""}},
		calls: map[string]int{"DELETE /locks/7": 1, "DELETE /locks/8": 1, "POST /payments": 2, "POST /mails": 1},
	},
	"reserve-and-pay": {
		runs:  []exampleRun{{`{"orderId": 7, "amount": 12.5}`, `{"payment": "p1"}`, ""}, {`{"orderId": 8, "amount": 12.5}`, ``, "http-status"}},
		calls: map[string]int{"POST /reservations": 2, "DELETE /reservations/r1": 1, "DELETE /locks/7": 0, "DELETE /locks/8": 1, "POST /payments": 2},
		after: undoesInReverse,
	},
	"sales-report": {runs: []exampleRun{{`{"since": "2026-01-01"}`, `{"countries": [{"country": "FR", "orders": 1, "revenue": 10.1, "customers": 1}, {"country": "DE", "orders": 2, "revenue": 20.2, "customers": 1}],
		"text": "DE: 20.20 in 2 orders by 1 customers\nFR: 10.10 in 1 orders by 1 customers"}`, ""}}},
	"customers-into-a-database": {runs: []exampleRun{{`null`, `{"changed": 3, "customers": 3, "newest": 9007199254740993}`, ""}, {`null`, `{"changed": 0, "customers": 3, "newest": 9007199254740993}`, ""}}},
	"one-offer-a-day": {
		runs: []exampleRun{{`{"customer": "Ada", "offer": "10 %", "channel": "mail"}`, `{"sent": true, "message": "EXECUTION/offer/-"}`, ""},
			{`{"customer": "Ada", "offer": "20 %", "channel": "mail"}`, `{"sent": false, "because": "Ada had an offer within a day"}`, ""}},
		after: func(t *testing.T, x *examples) {
			select {
			case m := <-x.offers:
				same(t, string(m.Body), `{"customer": "Ada", "offer": "10 %"}`)
			case <-time.After(10 * time.Second):
				t.Error("no message came")
			}
		},
	},
	"take-orders": {after: takeOrders, calls: map[string]int{"POST /reservations": 1}},
	"payment-reminder": {
		runs:  []exampleRun{{`{"invoice": 1, "after": "1500ms"}`, `{"reminded": true}`, ""}, {`{"invoice": 2, "after": "10ms"}`, `{"reminded": false}`, ""}, {`{"invoice": 3, "after": "10ms"}`, ``, "unknown-state"}},
		calls: map[string]int{"POST /mails": 1},
	},
	"tell-the-team": {after: tellTheTeam, calls: map[string]int{"POST /mails": 2}},
	"import-for-a-customer": {
		runs:  []exampleRun{{`{"customer": "ada", "file": "first.csv"}`, `{"customer": "ada", "file": "first.csv"}`, ""}},
		after: importFiles, calls: map[string]int{"POST /imports/ada": 6, "POST /imports/bo": 3},
	},
	"index-a-document":  {after: indexDocuments, calls: map[string]int{"POST /index": 2}},
	"print-a-label":     {after: followTheGuide},
	"morning-report":    {after: reportInTheMorning, calls: map[string]int{"POST /mails": 1}},
	"ship-when-paid":    {after: shipWhenPaid},
	"approve-a-refund":  {runs: []exampleRun{{`{"sum": 5, "customer": "Ada"}`, `{"refunded": true, "reason": "small"}`, ""}}, after: approveRefunds},
	"bill-a-customer":   {after: billCustomer},
	"customer-overview": {runs: []exampleRun{{`{"customer": 1}`, `{"name": "Ada", "open": 42.5, "invoices": 3}`, ""}}},
}

// TestExamples applies every file of docs/examples with flowctl and runs it as a person would, with the platform's servers as the users' own.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(examplesDir + "/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	readme, err := os.ReadFile(examplesDir + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "credentials.keys")
	if err := os.WriteFile(keys, []byte(masterKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := &examples{shop: newShop(t), platform: newPlatform(t, size{orchestrators: 1, workers: 1, slots: 50, env: []string{"CREDENTIALS_TOKEN=token-of-the-workers"},
		gateway: []string{"CREDENTIALS_KEY_FILE=" + keys, "CREDENTIALS_TOKEN=token-of-the-workers"}})}
	x.users(t)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			want, ok := allExamples[name]
			if !ok || !strings.Contains(string(readme), "("+name+".json)") {
				t.Fatal("say in allExamples what it does, and in the README of the examples")
			}
			x.run(t, file, want)
		})
	}
	t.Run("flowctl", x.flowctlCommands)
	t.Run("pools", func(t *testing.T) { goesToAnotherPool(t, x) })
}

func (x *examples) run(t *testing.T, file string, want example) {
	x.shop.forget()
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var flow struct{ Name string }
	if err := json.Unmarshal(doc, &flow); err != nil {
		t.Fatal(err)
	}
	if code, out := x.flowctl(t, strings.ReplaceAll(string(doc), "https://shop.example", x.shop.url), "flow", "apply", "-f", "-"); code != 0 {
		t.Fatal(out)
	}
	for _, r := range want.runs {
		code, out := x.flowctl(t, "", "-o", "json", "run", flow.Name, "--input", r.input, "--wait", "--for", "60s")
		var e struct {
			ID, Status string
			Output     json.RawMessage
			Error      *struct{ Code string }
		}
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&e); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		switch {
		case r.code != "":
			if code != 1 || e.Status != "failed" || e.Error == nil || e.Error.Code != r.code {
				t.Errorf("%s: exit status %d: %s; it should fail with %s", r.input, code, out, r.code)
			}
		case code != 0 || e.Status != "succeeded":
			t.Errorf("%s: exit status %d: %s", r.input, code, out)
		default:
			same(t, string(e.Output), strings.ReplaceAll(r.output, "EXECUTION", e.ID))
		}
	}
	if want.after != nil {
		want.after(t, x)
	}
	if err := x.shop.counted(want.calls); err != nil {
		t.Error(err)
	}
}

// users makes the servers that the flows' credentials lead to.
func (x *examples) users(t *testing.T) {
	for database, sql := range map[string]string{"postgres": "CREATE ROLE crm LOGIN PASSWORD 'test'", "template1": "CREATE DATABASE crm OWNER postgres"} {
		if _, err := x.pg.Exec(database, sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := x.pg.Exec("crm", "CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL); GRANT SELECT, INSERT, UPDATE ON customers TO crm"); err != nil {
		t.Fatal(err)
	}
	url, vhost := x.rabbit.VHost(t)
	for _, c := range []map[string]any{
		{"name": "crm-database", "type": "postgres", "public": map[string]any{"host": "127.0.0.1", "port": x.pg.Port, "database": "crm", "user": "crm", "sslmode": "disable"}, "secret": map[string]any{"password": "test"}},
		{"name": "marketing-redis", "type": "redis", "public": map[string]any{"host": "127.0.0.1", "port": x.redis.Port, "database": 1}},
		{"name": "marketing-broker", "type": "amqp", "public": map[string]any{"host": "127.0.0.1", "port": x.rabbit.Port, "vhost": vhost, "user": "guest"}, "secret": map[string]any{"password": "guest"}},
	} {
		if status := x.api("POST", "/credentials", c, nil); status != 201 {
			t.Fatalf("create credential %s: %d", c["name"], status)
		}
	}
	c, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err = ch.ExchangeDeclare("marketing", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err == nil {
		err = ch.QueueBind(q.Name, "offer.*", "marketing", false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if x.offers, err = ch.Consume(q.Name, "", true, true, false, false, nil); err != nil {
		t.Fatal(err)
	}
}

// takeOrders calls the hook as a shop would; the flow goes on behind the answer.
func takeOrders(t *testing.T, x *examples) {
	call := func(body string) (int, string, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.base()+"/hooks/shop/orders", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Shop-Event", "order.created")
		res, err := httpClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b), res.Header
	}
	if status, body, _ := call(`{"items": []}`); status != 422 {
		t.Errorf("an order without items: %d %s", status, body)
	}
	status, body, header := call(`{"items": [{"sku": "a"}, {"sku": "b"}]}`)
	id := header.Get("X-Order")
	if status != 202 || id == "" {
		t.Fatalf("an order: %d %s %v", status, body, header)
	}
	same(t, body, fmt.Sprintf(`{"order": %q, "items": 2}`, id))
	testkit.Eventually(t, 20*time.Second, "the order is reserved", func() error { return x.is(id, "succeeded") })
	var e execution
	if status := x.api("GET", "/executions/"+id, nil, &e); status != 200 {
		t.Fatal(status)
	}
	same(t, string(e.Output), `{"reservation": "r1", "event": "order.created"}`)
	same(t, x.shop.body("POST /reservations"), fmt.Sprintf(`{"order": %q, "items": [{"sku": "a"}, {"sku": "b"}]}`, id))
}

// flowctl runs the program: its exit status and all that it printed.
func (x *examples) flowctl(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), testkit.Build(t, "./services/flowctl"), args...)
	cmd.Env = []string{"FLOW_SERVER=" + x.base(), "FLOW_TOKEN=" + x.admin, "HOME=" + t.TempDir()}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// same compares JSON by meaning, and numbers by their text.
func same(t *testing.T, got, want string) {
	t.Helper()
	read := func(s string) (v any) {
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Errorf("%v: %s", err, s)
		}
		return v
	}
	if !reflect.DeepEqual(read(got), read(want)) {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// flowctlCommands calls what the examples did not, once, against the real gateway.
func (x *examples) flowctlCommands(t *testing.T) {
	var list []struct{ ID string }
	if code, out := x.flowctl(t, "", "-o", "json", "execution", "list", "--flow", "Sales report", "--status", "succeeded,failed", "--since", "10m", "-q", "manual"); code != 0 || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 {
		t.Fatalf("%d %s", code, out)
	}
	id := list[0].ID
	x.cancelWithFlowctl(t)
	if code, out := x.flowctl(t, `{"name": "Route by amount", "nodes": [{"id": "start", "type": "trigger.manual"}], "edges": []}`, "flow", "apply", "--draft", "-f", "-"); code != 0 {
		t.Fatal(out)
	}
	for _, c := range []struct {
		args []string
		want string // in what is printed
	}{
		{[]string{"execution", "get", id}, "Status    succeeded"},
		{[]string{"execution", "steps", id}, "countries  "},
		{[]string{"flow", "list", "--limit", "2"}, "There are more: --limit 4"},
		{[]string{"execution", "logs", id}, "info  text: 2 countries"},
		{[]string{"execution", "waits", id}, "LASTED"},
		{[]string{"execution", "why", id}, "ended"},
		{[]string{"execution", "watch", id}, "succeeded"},
		{[]string{"flow", "list"}, "Route by amount"},
		{[]string{"flow", "get", "Route by amount", "--version", "1"}, "logic.switch"},
		{[]string{"flow", "versions", "Route by amount"}, "1        yes"},
		{[]string{"flow", "publish", "Route by amount", "2"}, "version 2 is published"},
		{[]string{"run", "Route by amount", "--input", "7", "--wait"}, "7"},
		{[]string{"flow", "delete", "Route by amount"}, "deleted"},
		{[]string{"flow", "validate", examplesDir + "/sales-report.json"}, "valid"},
		{[]string{"catalog"}, "logic.foreach"},
		{[]string{"catalog", "http.request"}, `"failOn"`},
		{[]string{"catalog", "--flow-schema"}, `"$schema"`},
		{[]string{"credential", "types"}, "amqp"},
		{[]string{"credential", "list"}, "crm-database"},
		{[]string{"credential", "delete", "crm-database"}, "deleted"},
		{[]string{"credential", "test", "marketing-redis"}, "works"},
		{[]string{"worker", "list"}, "worker-0"},
		{[]string{"queue", "list"}, "flow.tasks.default.normal"},
		{[]string{"scaling"}, "DESIRED"},
		{[]string{"setting", "list"}, "LOAD_BALANCE_STRATEGY"},
		{[]string{"setting", "set", "LOAD_BALANCE_STRATEGY=weighted"}, "weighted"},
		{[]string{"deadletter", "list"}, "REASON"},
		{[]string{"deadletter", "requeue", "--all"}, "0 asked for"},
		{[]string{"deadletter", "purge", "--all"}, "0 removed"},
		{[]string{"whoami"}, "admin"},
		{[]string{"user", "create", "cy@example.org", "--role", "viewer"}, "with the password"},
		{[]string{"user", "set", "cy@example.org", "--disable"}, "disabled"},
		{[]string{"user", "list"}, "cy@example.org"},
		{[]string{"user", "delete", "cy@example.org"}, "deleted"},
		{[]string{"apitoken", "list"}, "printer"},
		{[]string{"audit"}, "create"},
		{[]string{"token"}, x.admin},
		{[]string{"__complete", "run", "Sales"}, "Sales report"},
		{[]string{"worker", "drain", "worker-0"}, "worker-0 is"},
	} {
		if code, out := x.flowctl(t, "", c.args...); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("flowctl %s: exit status %d, want %q in\n%s", strings.Join(c.args, " "), code, c.want, out)
		}
	}
}

// cancelWithFlowctl starts a flow that waits for an hour, looks at its wait, and ends it.
func (x *examples) cancelWithFlowctl(t *testing.T) {
	code, out := x.flowctl(t, "", "run", "Payment reminder", "--input", `{"invoice": 1, "after": "1h"}`)
	id, _, _ := strings.Cut(out, " ")
	if code != 0 {
		t.Fatal(out)
	}
	testkit.Eventually(t, 20*time.Second, "it waits", func() error { return x.is(id, "waiting") })
	if code, out := x.flowctl(t, "", "execution", "waits", id); code != 0 || !strings.Contains(out, "timer  open") {
		t.Errorf("waits: %d %s", code, out)
	}
	if code, out := x.flowctl(t, "", "execution", "cancel", id); code != 0 || !strings.Contains(out, "cancel accepted") {
		t.Errorf("cancel: %d %s", code, out)
	}
	if code, out := x.flowctl(t, "", "execution", "watch", id); code != 1 || !strings.Contains(out, "cancelled") {
		t.Errorf("watch of a cancelled one: %d %s", code, out)
	}
}

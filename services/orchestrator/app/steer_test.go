package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/settings"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// gateway opens the database with a gateway's rights.
func (w *world) gateway(t *testing.T) *store.DB {
	t.Helper()
	lettingIn.Lock()
	_, err := w.pg.Exec("postgres", "ALTER ROLE flow_gateway LOGIN")
	lettingIn.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Options{URL: w.pg.URL("flow_gateway", w.database), PoolSize: 2, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func put(t *testing.T, url, body string) {
	t.Helper()
	ask(t, http.MethodPut, url, body)
}

func ask(t *testing.T, method, url, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode > 299 {
		t.Fatalf("%s %s: %d %s %v", method, url, res.StatusCode, out, err)
	}
	return out
}

// What stands in Consul KV is followed when it is good, with an audit entry; refused with the reason when it isn't, and the old one stays. What a gateway sets
// later wins, until Consul's value changes. A leader of the past can write nothing.
func TestSettingsWhileRunning(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	kv := "http://" + w.consul + "/v1/kv/flow/settings/"
	put(t, kv+"MAX_WORKERS", "7")
	put(t, kv+"MIN_WORKERS", "70")
	put(t, kv+"NONSENSE", "1")
	w.orchestrator(t, "a")
	w.leads(t, 0, 15*time.Second)
	gateway := w.gateway(t)
	state := func() (s settings.State) {
		b, err := gateway.LeaderState(t.Context(), settings.StateName)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		if len(b) > 0 {
			if err := json.Unmarshal(b, &s); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	follows := func(name, value string, refused ...string) {
		t.Helper()
		testkit.Eventually(t, 15*time.Second, fmt.Sprintf("%s is %s, refused %v", name, value, refused), func() error {
			s := state()
			var names []string
			for _, r := range s.Refused {
				if r.Reason != "" {
					names = append(names, r.Name)
				}
			}
			if string(s.Effective[name]) != value || strings.Join(names, " ") != strings.Join(refused, " ") {
				return fmt.Errorf("%s is %s, refused %v", name, s.Effective[name], s.Refused)
			}
			return nil
		})
	}
	follows("MAX_WORKERS", "7", "NONSENSE", "MIN_WORKERS")
	follows("MIN_WORKERS", "2", "NONSENSE", "MIN_WORKERS")
	put(t, kv+"MIN_WORKERS", " 3\n")
	follows("MIN_WORKERS", "3", "NONSENSE")
	if _, err := gateway.ChangeSettings(t.Context(), map[string]json.RawMessage{"MAX_WORKERS": json.RawMessage("9")}, "ada@example.org"); err != nil {
		t.Fatal(err)
	}
	follows("MAX_WORKERS", "9", "NONSENSE")
	put(t, kv+"MAX_WORKERS", "8")
	follows("MAX_WORKERS", "8", "NONSENSE")
	// By a hand that doesn't check: the last good ones stay.
	if _, err := w.pg.Exec(w.database, `UPDATE settings SET value = '"x"' WHERE name = 'MAX_WORKERS'`); err != nil {
		t.Fatal(err)
	}
	follows("MAX_WORKERS", "8", "NONSENSE", "MAX_WORKERS")
	ask(t, http.MethodDelete, kv+"NONSENSE", "")
	follows("MAX_WORKERS", "8", "MAX_WORKERS")
	if got := w.sql(t, "SELECT count(*), count(DISTINCT actor) FROM audit WHERE object = 'setting'"); got != "4|2" {
		t.Errorf("audit: %s", got)
	}

	term, _, err := w.db.CurrentTerm(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.RaiseTerm(t.Context(), "the next"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.Decide(t.Context(), store.Decision{Term: term, Kind: "scale", Reason: "of the past"}); !errors.Is(err, store.ErrFenced) {
		t.Errorf("a decision of the past: %v", err)
	}
	if err := w.db.Tune(t.Context(), term, map[protocol.ID]int{store.NewID(): 1}); !errors.Is(err, store.ErrFenced) {
		t.Errorf("slots of the past: %v", err)
	}
	if err := w.db.PutLeaderState(t.Context(), term, "x", json.RawMessage("1")); !errors.Is(err, store.ErrFenced) {
		t.Errorf("a state of the past: %v", err)
	}
	if got := w.sql(t, "SELECT count(*) FROM decisions WHERE reason = 'of the past'"); got != "0" {
		t.Errorf("%s decisions of the past", got)
	}
}

// Dead letters come back when somebody with a gateway's rights asks: an execution that failed as poison goes on in a new attempt with its deaths counted
// anew, a message is published again, what can't be is refused and stays open, with the reason.
func TestDeadLettersComeBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	w.orchestrator(t, "a")
	w.leads(t, 0, 15*time.Second)
	tasks := w.tasks(t)
	gateway := w.gateway(t)

	ids := w.insert(t, 4)
	tasks.wait(t, 10*time.Second, 1, ids...)
	poison, queued, edited, done := ids[0], ids[1], ids[2], ids[3]
	w.sql(t, fmt.Sprintf(`UPDATE executions SET state = 'failed', deaths = 5, finished_at = now(), error = '{"code":"poison"}' WHERE id = '%s'`, poison))
	w.sql(t, fmt.Sprintf(`UPDATE executions SET state = 'succeeded', finished_at = now() WHERE id = '%s'`, done))
	letter := func(kind, reason string, execution protocol.ID, body string) protocol.ID {
		l := protocol.DeadLetter{ID: store.NewID(), Kind: kind, Reason: reason, Execution: execution, Body: []byte(body), Count: 1}
		if err := w.db.InsertDeadLetters(t.Context(), []protocol.DeadLetter{l}); err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	again := func(attempt int) string {
		b, err := json.Marshal(protocol.Task{V: 1, ID: edited, Attempt: attempt, Flow: w.flow, Version: 1})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	entry, err := json.Marshal(protocol.Entry{Kind: protocol.EntryFinal, Execution: queued, Attempt: 1, Seq: 1, State: protocol.Succeeded})
	if err != nil {
		t.Fatal(err)
	}
	want := map[protocol.ID]string{
		letter("execution", "poison", poison, ""):                      "requeued: the execution goes on",
		letter("task", "unknown", queued, "whatever it was"):           "requeued: its task is published",
		letter("task", "unparseable", done, "{"):                       "nothing to do: the execution is succeeded",
		letter("task", "unparseable", protocol.ID{}, "{broken"):        "refused: its body is no task",
		letter("task", "schema", protocol.ID{}, `{"v":9,"id":"x"}`):    "refused: ",
		letter("report", "unparseable", protocol.ID{}, "[1,2"):         "refused: its body is no report",
		letter("report", "unknown-execution", store.NewID(), again(1)): "refused: its body is neither",
		letter("execution", "poison", store.NewID(), ""):               "refused: no execution",
	}
	repaired := letter("task", "unparseable", edited, "{broken")
	if err := gateway.EditLetter(t.Context(), repaired, []byte(again(7)), "ada@example.org"); err != nil {
		t.Fatal(err)
	}
	want[repaired] = "requeued: published to tasks.default.normal"
	all := len(want)
	if n, err := gateway.AskRequeue(t.Context(), store.LetterFilter{}, "ada@example.org"); err != nil || n != all {
		t.Fatalf("%d letters, %v", n, err)
	}
	testkit.Eventually(t, 15*time.Second, "every letter has its outcome", func() error {
		for id, outcome := range want {
			l, err := gateway.LetterOf(t.Context(), id)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(l.Outcome, outcome) || strings.HasPrefix(outcome, "refused") != l.DoneAt.IsZero() || l.DoneAt.IsZero() != l.AskedAt.IsZero() {
				return fmt.Errorf("%s %s: %q, asked %v, done %v, want %q", l.Kind, l.Reason, l.Outcome, l.AskedAt, l.DoneAt, outcome)
			}
		}
		return nil
	})
	tasks.wait(t, 10*time.Second, 2, poison)
	tasks.wait(t, 10*time.Second, 7, edited)
	if got := w.sql(t, fmt.Sprintf("SELECT state, attempt, deaths, retries, finished_at IS NULL, error IS NULL FROM executions WHERE id = '%s'", poison)); got != "queued|2|0|1|t|t" {
		t.Errorf("poison: %s", got)
	}
	report := letter("report", "refused-value", queued, string(entry))
	if n, err := gateway.AskRequeue(t.Context(), store.LetterFilter{IDs: []protocol.ID{report}}, "ada@example.org"); err != nil || n != 1 {
		t.Fatalf("%d letters, %v", n, err)
	}
	testkit.Eventually(t, 10*time.Second, "the report is applied", func() error {
		if got := w.sql(t, fmt.Sprintf("SELECT state FROM executions WHERE id = '%s'", queued)); got != "succeeded" {
			return errors.New(got)
		}
		return nil
	})
	groups, err := gateway.LetterGroups(t.Context(), store.LetterFilter{})
	if err != nil || len(groups) == 0 {
		t.Errorf("%+v, %v", groups, err)
	}
	if n, err := gateway.PurgeLetters(t.Context(), store.LetterFilter{Kind: "task"}); err != nil || n != 2 {
		t.Errorf("%d purged, %v", n, err)
	}
	if err := gateway.EditLetter(t.Context(), repaired, []byte("{}"), "x"); !errors.Is(err, store.ErrStale) {
		t.Errorf("an edit of one that is done with: %v", err)
	}
}

// The leader brings a pool to its minimum, and up when a backlog passes the mark, through a real Nomad: a row, then the act.
func TestScaleThroughNomad(t *testing.T) {
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	nomad := testkit.Nomad(t).Address()
	spec, err := json.Marshal(map[string]any{"Canonicalize": true, "JobHCL": `job "worker" {
	  group "worker" {
		count = 1
		update {
		  health_check = "task_states"
		  min_healthy_time = "200ms"
		}
		task "worker" {
		  driver = "raw_exec"
		  kill_timeout = "1s"
		  config {
		    command = "/bin/sleep"
		    args = ["3600"]
		  }
		  resources {
		    cpu = 20
		    memory = 10
		  }
		}
	  }
	}`})
	if err != nil {
		t.Fatal(err)
	}
	job := ask(t, http.MethodPost, nomad+"/v1/jobs/parse", string(spec))
	ask(t, http.MethodPost, nomad+"/v1/jobs", `{"Job":`+string(bytes.TrimSpace(job))+`}`)
	a := w.orchestrator(t, "a", func(o *Options) {
		o.NomadAddress, o.AutoScaling, o.MaxWorkers, o.HighWaterMark, o.LowWaterMark = nomad, true, 4, 100, 10
	})
	w.leads(t, 0, 15*time.Second)
	count := func(n int) {
		t.Helper()
		testkit.Eventually(t, 40*time.Second, fmt.Sprintf("Nomad runs %d", n), func() error {
			var s struct {
				Summary map[string]struct{ Running int }
			}
			if err := json.Unmarshal(ask(t, http.MethodGet, nomad+"/v1/job/worker/summary", ""), &s); err != nil {
				return err
			}
			if got := s.Summary["worker"].Running; got != n {
				return fmt.Errorf("%d run; %s", got, w.sql(t, "SELECT reason, outcome FROM decisions"))
			}
			return nil
		})
	}
	count(2) // the minimum
	testkit.Eventually(t, 40*time.Second, "the deployment has ended: Nomad takes another count", func() error {
		var d struct{ Status string }
		if err := json.Unmarshal(ask(t, http.MethodGet, nomad+"/v1/job/worker/deployment", ""), &d); err != nil || d.Status == "running" {
			return fmt.Errorf("%+v, %v", d, err)
		}
		return nil
	})
	for range 200 {
		if err := w.pub.PublishWait(t.Context(), broker.Message{Key: broker.TaskKey("default", "normal"), Type: "task", Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	testkit.Eventually(t, 20*time.Second, "the backlog is decided on", func() error { // perhaps before all of it is there
		if got := w.sql(t, "SELECT count(*) FROM decisions WHERE outcome = 'done' AND reason ~ '^[0-9]+ wait'"); got == "0" {
			return errors.New(w.sql(t, "SELECT reason, outcome FROM decisions"))
		}
		return nil
	})
	t.Logf("decided %s after the backlog was there", w.sql(t, fmt.Sprintf("SELECT min(at) - '%s' FROM decisions WHERE reason ~ '^[0-9]+ wait'", begun.Format(time.RFC3339Nano))))
	count(4)
	if got := w.sql(t, "SELECT count(*) FROM decisions WHERE outcome LIKE 'failed%' OR outcome = ''"); got != "0" {
		t.Errorf("decisions that failed: %s", w.sql(t, "SELECT reason, outcome FROM decisions"))
	}
	testkit.Eventually(t, 5*time.Second, "the metric says so", func() error {
		if n := metric(t, a.metricsURL(), `flow_scaling_workers{pool="default",what="desired"}`); n != 4 {
			return fmt.Errorf("desired: %v", n)
		}
		return nil
	})
}

package app

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/cron"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

const scheduledFlow = `{"name": "scheduled", "nodes": [{"id": "start", "type": "trigger.manual"}], "edges": [], "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}}}`

// keeping keeps history, so that what was fired can be counted.
func keeping(o *Options) { o.HistoryRetention, o.AuditRetention = 24*time.Hour, 100*24*time.Hour }

// scheduled makes a flow that can be scheduled, as a gateway does.
func (w *world) scheduled(t *testing.T, db *store.DB, name string) store.Flow {
	t.Helper()
	f, err := db.CreateFlow(t.Context(), store.Flow{Name: name}, json.RawMessage(scheduledFlow), "test", true)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// schedule makes a schedule, as a gateway does.
func (w *world) schedule(t *testing.T, db *store.DB, s store.Schedule) store.Schedule {
	t.Helper()
	s.ID, s.Zone, s.CatchUpMax = store.NewID(), "UTC", 100
	if s.CatchUp == "" {
		s.CatchUp = "skip"
	}
	if s.Overlap == "" {
		s.Overlap = protocol.OverlapAllow
	}
	e, err := cron.Parse(s.Cron, s.Zone)
	if err != nil {
		t.Fatal(err)
	}
	due := s.Due
	if s, err = db.CreateSchedule(t.Context(), s, 1000, func(now time.Time) time.Time {
		if due.IsZero() {
			return e.Next(now)
		}
		return due
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Schedules fire every second while leaders are killed in the middle of it: every second has its one fire and its one execution, none is missing, none comes twice; and while somebody leads, within
// a second. Only the unique rows and the terms are there to see to it.
func TestSchedulesWhileLeadersDie(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	gateway := w.gateway(t)
	f := w.scheduled(t, gateway, "every second")
	names := []string{"a", "b"}
	procs := map[string]*process{}
	for _, name := range names {
		procs[name] = w.process(t, name, keeping)
	}
	term, holder := w.leads(t, 0, 20*time.Second)
	var schedules []store.Schedule
	for i := range 5 {
		schedules = append(schedules, w.schedule(t, gateway, store.Schedule{Flow: f.ID, Name: fmt.Sprint("s", i), Cron: "* * * * * *"}))
	}
	fires := func() int {
		n, err := strconv.Atoi(w.sql(t, `SELECT count(*) FROM fires`))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	more := func(n int) {
		t.Helper()
		want := fires() + n
		testkit.Eventually(t, 40*time.Second, fmt.Sprintf("%d fires more", n), func() error {
			if got := fires(); got < want {
				return fmt.Errorf("%d of %d", got, want)
			}
			return nil
		})
	}
	more(10)
	for range 2 {
		victim := holder
		// At any moment of a second: a transaction may be under way.
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
		procs[victim].Kill()
		procs[victim] = w.process(t, victim, keeping)
		term, holder = w.leads(t, term, 30*time.Second)
		more(10)
	}
	for _, s := range schedules {
		if _, err := gateway.ChangeSchedule(t.Context(), s.ID, -1, func(s *store.Schedule, _ time.Time) error { s.Paused = true; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.sql(t, `SELECT count(*) FROM (SELECT due_at - lag(due_at) OVER (PARTITION BY schedule_id ORDER BY due_at) AS apart FROM fires) x WHERE apart <> interval '1 second'`); got != "0" {
		t.Errorf("%s fires are not one second after the one before", got)
	}
	if got := w.sql(t, `SELECT count(*) FILTER (WHERE outcome <> 'started'), count(*) - count(DISTINCT execution_id), count(DISTINCT term) >= 3 FROM fires`); got != "0|0|t" {
		t.Errorf("not started, without an execution of its own, under three terms or more: %s", got)
	}
	if got := w.sql(t, fmt.Sprintf(`SELECT count(*) - (SELECT count(*) FROM fires) FROM executions WHERE flow_id = '%s'`, f.ID)); got != "0" {
		t.Errorf("%s executions more than fires", got)
	}
	if got := w.sql(t, fmt.Sprintf(`SELECT count(*) FROM executions e JOIN fires f ON f.execution_id = e.id WHERE e.flow_id = '%s' AND e.labels->>'scheduledAt' = to_char(f.due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AND convert_from(e.input, 'UTF8') LIKE '%%scheduledAt%%'`, f.ID)); got != fmt.Sprint(fires()) {
		t.Errorf("%s of %d executions say for which instant they run", got, fires())
	}
	testkit.Eventually(t, 20*time.Second, "all are handed out", func() error {
		if got := w.sql(t, fmt.Sprintf(`SELECT count(*) FROM executions WHERE flow_id = '%s' AND handed = 0`, f.ID)); got != "0" {
			return fmt.Errorf("%s are not", got)
		}
		return nil
	})
	t.Logf("%d fires; late by (s): median %s, nine of ten at most %s, most of all %s", fires(), w.sql(t, `SELECT round(extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY at - due_at))::numeric, 3) FROM fires`),
		w.sql(t, `SELECT round(extract(epoch FROM percentile_cont(0.9) WITHIN GROUP (ORDER BY at - due_at))::numeric, 3) FROM fires`), w.sql(t, `SELECT round(extract(epoch FROM max(at - due_at))::numeric, 3) FROM fires`))
}

// What a schedule's flow can't do is told by the fire, and the schedule goes on; what was missed is caught up with by policy; a flow that is paused holds what is started.
func TestSchedulesTellWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	gateway := w.gateway(t)
	ctx := t.Context()
	last := time.Now().UTC().Truncate(time.Minute).Add(-30 * time.Minute) // so the next one is half an hour away, whenever this runs
	hourly := fmt.Sprintf("%d * * * *", last.Minute())
	good, gone, paused := w.scheduled(t, gateway, "good"), w.scheduled(t, gateway, "gone"), w.scheduled(t, gateway, "paused")
	draft, err := gateway.CreateFlow(ctx, store.Flow{Name: "draft"}, json.RawMessage(scheduledFlow), "test", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.DeleteFlow(ctx, gone.ID, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := gateway.PauseFlow(ctx, paused.ID, "for a while"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	add := func(name, outcomes string, s store.Schedule) {
		s.Name = name
		want[name] = outcomes
		w.schedule(t, gateway, s)
	}
	add("skips what was missed", "missed 6 f", store.Schedule{Flow: good.ID, Cron: hourly, Due: last.Add(-5 * time.Hour)})
	add("catches up with one", "started 5 t", store.Schedule{Flow: good.ID, Cron: hourly, CatchUp: "one", Due: last.Add(-5 * time.Hour)})
	add("catches up with all", "started 0 t, started 0 t", store.Schedule{Flow: good.ID, Cron: hourly, CatchUp: "all", Due: last.Add(-time.Hour)})
	add("has an end", "started 0 t", store.Schedule{Flow: good.ID, Cron: hourly, CatchUp: "all", Due: last.Add(-2 * time.Hour), EndAt: last.Add(-110 * time.Minute)})
	add("of a flow that is gone", "refused 0 f", store.Schedule{Flow: gone.ID, Cron: hourly, CatchUp: "one", Due: last})
	add("of a draft", "refused 0 f", store.Schedule{Flow: draft.ID, Cron: hourly, CatchUp: "one", Due: last})
	add("with an input that doesn't fit", "refused 0 f", store.Schedule{Flow: good.ID, Cron: hourly, CatchUp: "one", Input: json.RawMessage(`{"n":"x"}`), Due: last})
	add("of a flow that is paused", "started 0 t", store.Schedule{Flow: paused.ID, Cron: hourly, CatchUp: "one", Due: last})
	add("paused itself", "", store.Schedule{Flow: good.ID, Cron: hourly, CatchUp: "all", Paused: true, Due: last})
	w.orchestrator(t, "a", keeping)
	w.leads(t, 0, 15*time.Second)
	for name, outcomes := range want {
		testkit.Eventually(t, 20*time.Second, name, func() error {
			got := w.sql(t, fmt.Sprintf(`SELECT coalesce(string_agg(f.outcome || ' ' || f.missed || ' ' || CASE WHEN f.execution_id IS NULL THEN 'f' ELSE 't' END, ', ' ORDER BY f.due_at), '') FROM fires f JOIN schedules s ON s.id = f.schedule_id WHERE s.name = '%s'`, strings.ReplaceAll(name, "'", "''")))
			if got != outcomes {
				return fmt.Errorf("%q, want %q", got, outcomes)
			}
			return nil
		})
	}
	if got := w.sql(t, `SELECT count(*) FROM fires WHERE reason = ''`); got != "0" {
		t.Errorf("%s of these fires don't say why", got)
	}
	if got := w.sql(t, `SELECT string_agg(name, ', ' ORDER BY name) FROM schedules WHERE next_due IS NULL`); got != "has an end" {
		t.Errorf("over: %s", got)
	}
	if got := w.sql(t, `SELECT count(*) FROM schedules WHERE next_due <= now() AND NOT paused`); got != "0" {
		t.Errorf("%s don't go on", got)
	}
	if got := w.sql(t, fmt.Sprintf(`SELECT DISTINCT paused FROM executions WHERE flow_id = '%s'`, paused.ID)); got != "for a while" {
		t.Errorf("of the paused flow: %q", got)
	}
}

package app

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

// freeze is how long the leader stands still: a minute where make test runs this one beside all the others, since it costs time and nothing else.
func freeze(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("FLOW_TEST_FREEZE")
	if text == "" {
		return 8 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("FLOW_TEST_FREEZE: %v", err)
	}
	return d
}

// watch notes who changes what only a leader may change, and who meets a wait.
const watch = `
CREATE TABLE noted (at timestamptz NOT NULL DEFAULT clock_timestamp(), who text, what text, execution uuid);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  INSERT INTO noted (who, what, execution) VALUES (current_setting('application_name'), TG_ARGV[0], CASE WHEN TG_ARGV[0] = 'wait' THEN (to_jsonb(NEW)->>'execution_id')::uuid END);
  RETURN NULL;
END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON decisions FOR EACH ROW EXECUTE FUNCTION note('decision');
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON leader_state FOR EACH ROW EXECUTE FUNCTION note('leader state');
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON fires FOR EACH ROW EXECUTE FUNCTION note('fire');
CREATE TRIGGER noted AFTER INSERT ON terms FOR EACH ROW EXECUTE FUNCTION note('term');
CREATE TRIGGER noted AFTER UPDATE ON sessions FOR EACH ROW WHEN (OLD.tuned IS DISTINCT FROM NEW.tuned) EXECUTE FUNCTION note('slots');
CREATE TRIGGER noted AFTER UPDATE ON waits FOR EACH ROW WHEN (OLD.met_at IS NULL AND NEW.met_at IS NOT NULL) EXECUTE FUNCTION note('wait');`

// lines gives what a query prints, one line each.
func (w *world) lines(t *testing.T, query string) []string {
	t.Helper()
	return strings.Fields(strings.ReplaceAll(w.sql(t, query), " ", "_"))
}

// sleepers suspends n executions whose timers are due between from and to.
func (w *world) sleepers(t *testing.T, n int, from, to time.Time) []protocol.ID {
	t.Helper()
	ids := w.insert(t, n)
	for i, id := range ids {
		due := from.Add(to.Sub(from) * time.Duration(i) / time.Duration(n))
		e := protocol.Entry{Kind: protocol.EntrySuspend, Execution: id, Attempt: 1, Seq: 1, Waits: []protocol.WaitEntry{{Node: "n", Kind: "timer", Reason: "test", Due: due}}}
		if err := w.report(t.Context(), i%w.shards, e); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, 20*time.Second, "all are suspended", func() error {
		if got := w.sql(t, "SELECT count(*) FROM waits"); got != fmt.Sprint(n) {
			return errors.New(got)
		}
		return nil
	})
	return ids
}

// A leader stands still for a minute, from the middle of a look at what it steers, while timers fall due and a worker's lease runs out; then it goes on. Nothing
// that it writes as a leader is accepted, and no timer is lost or met twice.
func TestALeaderFrozenForAMinute(t *testing.T) {
	t.Parallel()
	stands := freeze(t)
	w := newWorld(t, servers{})
	w.consul = testkit.Consul(t).Address()
	w.sql(t, watch)
	all := map[string]*process{}
	for _, name := range []string{"a", "b", "c"} {
		all[name] = w.process(t, name, func(o *Options) { o.WorkerLease = 2 * time.Second })
	}
	w.leads(t, 0, 20*time.Second)
	tasks := w.tasks(t)
	begun := time.Now().Add(time.Second) // timers are due from here on: under the old leader, between the two, under the next
	ids := w.sleepers(t, 200, begun, begun.Add(stands+6*time.Second))

	old, holder := w.term(t)
	frozen := all[holder]
	delete(all, holder)
	w.inTheMiddle(t, holder, frozen.Freeze)
	frozenAt := time.Now()
	// A worker dies with it: that its lease has run out is seen by the next leader alone.
	var others []string
	for _, p := range all {
		others = append(others, p.base)
	}
	h := w.hand(t, others...)
	held := w.insert(t, 1)[0]
	if got := h.claim(t.Context(), protocol.Claim{Session: h.session, Execution: held, Attempt: 1, Run: 1}); len(got) != 1 || got[0] != protocol.Granted {
		t.Fatalf("claim: %v", got)
	}
	term, next := w.leads(t, old, 15*time.Second)
	if next == holder {
		t.Fatal("the frozen one leads")
	}
	t.Logf("%s stands still in term %d; %s leads in term %d after %v", holder, old, next, term, time.Since(frozenAt).Round(time.Millisecond))
	tasks.wait(t, 20*time.Second, 2, held)

	time.Sleep(time.Until(frozenAt.Add(stands))) // what is shown is what a minute does
	thawed := w.sql(t, "SELECT clock_timestamp()")
	before := w.sql(t, "SELECT count(*) FROM noted WHERE what = 'wait'")
	if stood := w.sql(t, "SELECT count(*) FROM waits WHERE met_at IS NULL AND closed_at IS NULL AND due < clock_timestamp() - interval '3 seconds'"); stood != "0" {
		t.Errorf("%s timers are overdue at the end of the freeze", stood)
	}
	frozen.Thaw()
	tasks.wait(t, 20*time.Second+time.Until(begun.Add(stands+6*time.Second)), 2, ids...)
	testkit.Eventually(t, 20*time.Second, "the thawed one sees that its term is over", func() error {
		if s := metric(t, frozen.metrics, "flow_leader_state"); s == 2 {
			return fmt.Errorf("state %v", s)
		}
		return ready(frozen.base)
	})
	t.Logf("%s timers were met while it stood, %s in all", before, w.sql(t, "SELECT count(*) FROM noted WHERE what = 'wait'"))

	if now, by := w.term(t); now == term {
		stale := w.lines(t, fmt.Sprintf("SELECT what, count(*) FROM noted WHERE who = 'orchestrator %s' AND at > '%s' GROUP BY what", holder, thawed))
		if len(stale) > 0 {
			t.Errorf("written by %s after its thaw, in term %d of %s: %v", holder, now, by, stale)
		}
	} else { // on a busy machine leadership may have moved on, even back to it: what the old term wrote is told by its number below
		t.Logf("term %d of %s meanwhile", now, by)
	}
	w.refusesTheTerm(t, int64(old))
	if late := w.lines(t, fmt.Sprintf("SELECT d.term FROM decisions d WHERE d.term <= %d AND d.at > '%s' UNION ALL SELECT term FROM leader_state WHERE term <= %[1]d AND at > '%[2]s'", old, thawed)); len(late) > 0 {
		t.Errorf("accepted of terms up to %d: %v", old, late)
	}
	if twice := w.lines(t, "SELECT execution FROM noted WHERE what = 'wait' GROUP BY execution HAVING count(*) <> 1"); len(twice) > 0 {
		t.Errorf("timers that were met more than once: %v", twice)
	}
	if got := strings.Join(w.lines(t, "SELECT attempt, count(*) FROM executions GROUP BY attempt"), " "); got != fmt.Sprintf("2|%d", len(ids)+1) {
		t.Errorf("attempts (each timer and each death raises one): %s", got)
	}
	if early := w.sql(t, "SELECT count(*) FROM waits WHERE met_at < due"); early != "0" {
		t.Errorf("%s timers were met before they were due", early)
	}
	t.Logf("latest timer: %s after it was due (the takeover's), %s once the next led", w.sql(t, "SELECT max(met_at - due) FROM waits"),
		w.sql(t, fmt.Sprintf("SELECT max(met_at - due) FROM waits WHERE due > (SELECT raised_at FROM terms WHERE term = %d)", term)))
}

// inTheMiddle calls stop when the leader is in the middle of a look at what it steers: it waits for settings that somebody has locked, and gets them while it stands.
func (w *world) inTheMiddle(t *testing.T, leader string, stop func()) {
	t.Helper()
	release := w.pg.Hold(t, w.database, "LOCK TABLE settings IN ACCESS EXCLUSIVE MODE")
	testkit.Eventually(t, 15*time.Second, leader+" waits for its settings", func() error {
		if n := w.sql(t, fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orchestrator %s' AND wait_event_type = 'Lock'", leader)); n == "0" {
			return errors.New("it doesn't yet")
		}
		return nil
	})
	stop()
	release()
}

// refusesTheTerm tries every write that a term fences.
func (w *world) refusesTheTerm(t *testing.T, term int64) {
	t.Helper()
	_, decided := w.db.Decide(t.Context(), store.Decision{Term: term, Kind: "scale", Reason: "of the past"})
	for what, err := range map[string]error{
		"a decision": decided,
		"slots":      w.db.Tune(t.Context(), term, map[protocol.ID]int{store.NewID(): 1}),
		"a state":    w.db.PutLeaderState(t.Context(), term, "x", []byte("1")),
	} {
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("%s of term %d: %v", what, term, err)
		}
	}
}

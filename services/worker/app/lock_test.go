package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// A second process in the state directory of one that lives waits for its lock and says so. When the first is killed it ends that one's session at once, a minute before its lease
// would, and no other's; what the first had in flight is done again.
func TestASuccessorWaitsForTheLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, time.Minute)
	flow := w.flow(t, "a", "b")
	w.outside.shut("a")
	dir := t.TempDir()
	first := w.process(t, "first", "WORKER_STATE_DIR="+dir)
	killed := w.sql(t, "SELECT id FROM sessions WHERE alive")
	w.accept(t, flow, 20, "normal")
	w.outside.called(t, 30*time.Second, "a", 20)
	w.process(t, "other")
	others := w.sql(t, "SELECT id FROM sessions WHERE alive AND id <> '"+killed+"'")
	successor := w.begin(t, "successor", "WORKER_STATE_DIR="+dir)
	testkit.Eventually(t, 20*time.Second, "the successor says for whom it waits", func() error {
		if err := ready(successor.base); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d holds", first.PID())) {
			return fmt.Errorf("readyz: %v", err)
		}
		return nil
	})
	if n := w.sql(t, "SELECT count(*) FROM sessions WHERE alive"); n != "2" {
		t.Errorf("%s sessions live while the successor waits", n)
	}
	first.Kill()
	w.outside.open("a")
	testkit.Eventually(t, 20*time.Second, "the successor works", func() error { return ready(successor.base) })
	w.states(t, 30*time.Second, "succeeded|20")
	w.outside.once(t, "b", 20)
	if got := w.sql(t, "SELECT count(*) FILTER (WHERE id = '"+killed+"'), count(*) FILTER (WHERE id = '"+others+"'), count(*) FROM sessions WHERE alive"); got != "0|1|2" {
		t.Errorf("sessions that live, of the killed, of the other, in all: %s, want 0|1|2", got)
	}
}

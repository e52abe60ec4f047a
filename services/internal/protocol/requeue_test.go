package protocol

import (
	"testing"
	"time"
)

func TestRequeueRule(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, state := range []State{Queued, Running, Waiting, Succeeded, Failed, Cancelled, TimedOut} {
		r := Row{State: state, Attempt: 6, Seq: 3, Deaths: PoisonDeaths, Retries: 1, FinishedAt: now}
		before := r
		if r.requeue(now) != (state == Failed) {
			t.Errorf("%s: %+v", state, r)
		}
		if state != Failed {
			if r != before {
				t.Errorf("%s was changed: %+v", state, r)
			}
			continue
		}
		if want := (Row{State: Queued, Attempt: 7, Retries: 2, QueuedAt: now}); r != want {
			t.Errorf("%+v", r)
		}
		// What older attempts still send is old news, and a suspect it is no more.
		if r.judge(&Entry{Kind: EntryFinal, Execution: r.ID, Attempt: 6, Seq: 4}) != oldNews || r.Deaths >= SuspectDeaths {
			t.Errorf("%+v", r)
		}
	}
}

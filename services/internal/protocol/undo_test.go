package protocol

import "testing"

// A cancelled execution that may have something to undo goes on, flagged, until its end is told; one that has not begun, or has nothing, ends at once.
func TestWhatHasToUndoGoesOn(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		row     Row
		do      func(*Row)
		state   State
		attempt int
		cancel  State
	}{
		"cancelled before it began": {Row{State: Queued, Attempt: 1, Undoes: true}, func(r *Row) { r.cancel(Cancelled, t0) }, Cancelled, 1, ""},
		"nothing to undo":           {Row{State: Waiting, Attempt: 1, StartedAt: t0}, func(r *Row) { r.cancel(Cancelled, t0) }, Cancelled, 1, ""},
		"cancelled while it waits":  {Row{State: Waiting, Attempt: 1, StartedAt: t0, Undoes: true}, func(r *Row) { r.cancel(TimedOut, t0) }, Queued, 2, TimedOut},
		"cancelled while paused":    {Row{State: Queued, Attempt: 3, StartedAt: t0, Undoes: true, Paused: "x", Hold: "y"}, func(r *Row) { r.cancel(Cancelled, t0) }, Queued, 4, Cancelled},
		"a second time":             {Row{State: Waiting, Attempt: 4, StartedAt: t0, Undoes: true, Cancel: Cancelled}, func(r *Row) { r.cancel(TimedOut, t0) }, Waiting, 4, Cancelled},
		"suspended before it knew":  {Row{State: Running, Attempt: 1, Undoes: true, Cancel: Cancelled}, func(r *Row) { r.apply(&Entry{Kind: EntrySuspend, Seq: 1}, t0) }, Queued, 2, Cancelled},
		"suspended while it undoes": {Row{State: Running, Attempt: 1, Undoes: true, Cancel: Cancelled}, func(r *Row) { r.apply(&Entry{Kind: EntrySuspend, Seq: 1, Undo: true}, t0) }, Waiting, 1, Cancelled},
		"yielded":                   {Row{State: Running, Attempt: 1, Undoes: true, Cancel: Cancelled}, func(r *Row) { r.apply(&Entry{Kind: EntryYield, Seq: 1}, t0) }, Queued, 2, Cancelled},
		"its worker died":           {Row{State: Running, Attempt: 1, Owner: sA, Undoes: true, Cancel: Cancelled}, func(r *Row) { r.recover(sA, t0) }, Queued, 2, Cancelled},
		"the fifth death":           {Row{State: Running, Attempt: 9, Owner: sA, Undoes: true, Cancel: Cancelled, Deaths: PoisonDeaths - 1}, func(r *Row) { r.recover(sA, t0) }, Cancelled, 9, ""},
		"claimed":                   {Row{State: Queued, Attempt: 2, Undoes: true, Cancel: Cancelled}, func(r *Row) { r.claim(Claim{Session: sA, Attempt: 2, Run: 7}, true, t0) }, Running, 2, Cancelled},
		"its end is told":           {Row{State: Running, Attempt: 2, Undoes: true, Cancel: Cancelled}, func(r *Row) { r.apply(&Entry{Kind: EntryFinal, State: Cancelled, Seq: 1}, t0) }, Cancelled, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := tc.row
			tc.do(&r)
			if r.State != tc.state || r.Attempt != tc.attempt || r.Cancel != tc.cancel || r.Held() {
				t.Errorf("%s, attempt %d, cancel %q, held %v; want %s, attempt %d, cancel %q", r.State, r.Attempt, r.Cancel, r.Held(), tc.state, tc.attempt, tc.cancel)
			}
		})
	}
}

package protocol

import (
	"fmt"
	"time"

	"flowplatform/services/internal/flow"
)

// The rules: what one event does to one row. They are methods of *Row that change the row in memory; the scripts in scripts.go lock,
// call them and write. Numbers in brackets are PROTOCOL's.

// again hands the execution out once more: what every older attempt still sends is old news from here on.
func (r *Row) again(now time.Time) {
	r.Attempt++
	r.Seq = 0
	r.Owner, r.Run = ID{}, 0
	r.State = Queued
	r.QueuedAt = now
}

// finish writes a final state.
func (r *Row) finish(s State, now time.Time) {
	r.State = s
	r.Owner, r.Run = ID{}, 0
	r.Cancel, r.Paused = "", ""
	r.FinishedAt = now
}

// claim decides on a claim [4]. alive says whether the claim's session is alive in this transaction.
func (r *Row) claim(c Claim, alive bool, now time.Time) Answer {
	if !alive {
		return SessionDead
	}
	if r.Attempt != c.Attempt {
		return Stale
	}
	switch {
	case r.State == Running && r.Owner == c.Session && r.Run == c.Run: // the answer to an earlier ask was lost
		return Granted
	case r.State == Queued && r.Owner.IsZero() && (r.Cancel == "" || r.Undoes) && !r.Held():
		r.State, r.Owner, r.Run = Running, c.Session, c.Run
		if r.StartedAt.IsZero() {
			r.StartedAt = now
		}
		return Granted
	}
	return Stale
}

// verdict is what a row says to an entry.
type verdict int

const (
	accepts verdict = iota
	oldNews         // of another attempt or owner, repeated, or after the end: acknowledged and forgotten
	behind          // a confirmed report in between is missing
)

// judge tells whether a report's entry applies [6].
func (r *Row) judge(e *Entry) verdict {
	if r.State.Final() || r.State == Waiting || r.Attempt != e.Attempt || r.Owner != e.Session || r.Run != e.Run || e.Seq <= r.Seq {
		return oldNews
	}
	if e.Base > r.Seq {
		return behind
	}
	return accepts
}

// effect of an entry that was applied, beyond the row itself.
type effect struct {
	handOut bool
	result  *FinalResult
	dead    *DeadLetter
}

// apply takes an entry that judge accepts.
func (r *Row) apply(e *Entry, now time.Time) effect {
	r.Seq = e.Seq
	if r.StartedAt.IsZero() {
		r.StartedAt = now
	}
	switch e.Kind {
	case EntryFinal:
		r.finish(e.State, now)
		return effect{result: &FinalResult{ID: r.ID, Output: e.Output, OutputRef: e.OutputRef, Error: e.Error}}
	case EntryYield:
		if e.Pause != "" && r.Paused == "" && r.Cancel == "" {
			r.Paused = e.Pause
		}
		if e.Pool != "" {
			r.Pool = e.Pool
		}
		return r.letGo(now)
	case EntrySuspend:
		if r.Cancel != "" && !(r.Undoes && e.Undo) { // [8] every transaction that clears an owner looks at the flag
			return r.letGo(now)
		}
		r.State = Waiting
		r.Owner, r.Run = ID{}, 0
	}
	return effect{}
}

// letGo clears the owner: the execution ends if it is flagged and has nothing to undo, and is handed out again if not.
func (r *Row) letGo(now time.Time) effect {
	if r.Cancel != "" && !r.Undoes {
		return r.end(now)
	}
	r.again(now)
	return effect{handOut: true}
}

// end finishes a flagged execution as it was flagged.
func (r *Row) end(now time.Time) effect {
	as := r.Cancel
	r.finish(as, now)
	return effect{result: &FinalResult{ID: r.ID, Error: endedBy(as)}}
}

func endedBy(as State) *flow.Failure {
	if as == TimedOut {
		return &flow.Failure{Code: "deadline", Message: "the execution passed its timeout, waits included: raise settings.timeout, or look at /waits and /steps for where the time went"}
	}
	return &flow.Failure{Code: "cancelled", Message: "the execution was cancelled"}
}

func refusedValue() *flow.Failure {
	return &flow.Failure{Code: "refused-value", Message: "a step gave a value that the database refuses to store; the report is in the dead letters: mend the step's output, then replay"}
}

// recover takes the row back from a dead session [11].
func (r *Row) recover(session ID, now time.Time) effect {
	if r.Owner != session || r.State.Final() {
		return effect{}
	}
	r.Deaths++
	if r.Cancel != "" && r.Deaths >= PoisonDeaths {
		ef := r.end(now)
		ef.result.Error.Message += fmt.Sprintf("; what it did was not undone to the end: %d workers died while they ran it", r.Deaths)
		return ef
	}
	if r.Deaths >= PoisonDeaths {
		f := &flow.Failure{Code: "poison", Message: fmt.Sprintf("%d workers died while they ran this execution: one of its steps probably kills its worker; see the last step that began, mend the flow, then replay", r.Deaths)}
		r.finish(Failed, now)
		return effect{result: &FinalResult{ID: r.ID, Error: f}, dead: &DeadLetter{Kind: "execution", Reason: "poison", Detail: f.Message, Origin: "recover", Execution: r.ID, Count: r.Deaths}}
	}
	return r.letGo(now)
}

// cancel asks for the end of an execution [8]. It tells whether the row changed, and whether an owner must be told. One that has begun and may have something to
// undo is handed out once more, flagged, for that; nothing that waits or pauses holds it up.
func (r *Row) cancel(as State, now time.Time) (changed, owned bool, ef effect) {
	if r.State.Final() || r.Cancel != "" {
		return false, !r.Owner.IsZero(), effect{}
	}
	r.Cancel = as
	switch {
	case !r.Owner.IsZero():
	case r.Undoes && !r.StartedAt.IsZero():
		r.Paused, r.Hold = "", ""
		r.again(now)
		return true, false, effect{handOut: true}
	default:
		return true, false, r.end(now)
	}
	return true, true, effect{}
}

// wake hands a waiting execution out again because waits of its were met [7]. The events of the wake become the report with seq 0 of the new attempt.
func (r *Row) wake(now time.Time) bool {
	if r.State != Waiting {
		return false
	}
	r.again(now)
	return true
}

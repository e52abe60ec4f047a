package protocol

import "flowplatform/services/internal/flow"

// When an execution comes to a bad end, what it did is undone before that end is told: by the engine (flow, undo.go) when a step fails it, and here when it is
// cancelled or its time is over. Then it stays flagged, and everything that clears its owner hands it out again, until a run has told its final
// state. What was cut, or never confirmed, is not known to have happened, and isn't undone.

// giveUp takes back what has not begun, but for what undoes; with nothing left in flight it begins to undo what a cancelled execution did.
func (r *Run) giveUp() {
	keep := r.ready[:0]
	for _, w := range r.ready {
		if w.cmd.Undo {
			keep = append(keep, w)
		} else if w.cmd.Op == flow.OpRun {
			r.state.Withdraw(w.cmd.Key)
		}
	}
	clear(r.ready[len(keep):])
	r.ready = keep
	r.forgetSleeps(true)
	if r.cancel == "" || len(r.inflight) > 0 || r.draining || r.state.Closing() || !r.state.Undoes() {
		return
	}
	e := flow.Event{Type: flow.EventUndo, At: r.state.Clock()}
	if r.state.Apply(e) == nil {
		r.note(recorded{Event: e})
	}
}

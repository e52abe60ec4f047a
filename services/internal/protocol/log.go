package protocol

import (
	"bytes"
	"encoding/json"
	"slices"

	"flowplatform/services/internal/flow"
)

// Bounds of what a run records. A flow without containers records each step once; one with containers may take any number of steps, so what is recorded
// is replaced by a checkpoint (flow.State.Sum) whenever it has grown by as much as the last checkpoint was long: a task's steps stay within twice of
// what has to be kept, and all that is ever written within about three times of it.
const (
	logBytes   = 256 << 10 // less than that isn't worth a checkpoint
	logPending = 2000      // events that wait for a report; with more of them the next report is a checkpoint
	entryBytes = 1 << 20   // of events in one entry; what is left goes with the next
)

// log is how much of an execution is recorded, in bytes of events.
type log struct {
	loops    bool                // the program has containers
	whole    bool                // the next report is a checkpoint: pending isn't kept any more
	recorded int                 // since the last checkpoint
	base     int                 // the last checkpoint
	least    int                 // logBytes
	refs     map[flow.Key]*Value // where outputs are stored that don't stand in their events
}

func newLog(p *flow.Program, steps []json.RawMessage) log {
	l := log{loops: p.Loops(), least: logBytes}
	if !l.loops {
		return l
	}
	for _, list := range steps {
		if bytes.HasPrefix(list, []byte(`[{"t":"`+flow.EventSum+`"`)) {
			l.base, l.recorded = len(list), 0
		} else {
			l.recorded += len(list)
		}
		if !bytes.Contains(list, []byte(`"r":{`)) {
			continue
		}
		var stored []struct {
			Node      string `json:"n"`
			Iteration string `json:"i"`
			Ref       *Value `json:"r"`
		}
		if json.Unmarshal(list, &stored) == nil { // else the events can't be decoded either, and there is no run
			for _, s := range stored {
				l.stored(flow.Key{Node: s.Node, Iteration: s.Iteration}, s.Ref)
			}
		}
	}
	return l
}

// CheckpointAfter lets the run make a checkpoint as soon as so many bytes are recorded: the simulator's executions are short.
func (r *Run) CheckpointAfter(bytes int) { r.log.least = bytes }

func (l *log) stored(key flow.Key, ref *Value) {
	if ref == nil || !l.loops {
		return
	}
	if l.refs == nil {
		l.refs = map[flow.Key]*Value{}
	}
	l.refs[key] = ref
}

// note keeps an event for the next report.
func (r *Run) note(e recorded) {
	r.log.stored(flow.Key{Node: e.Node, Iteration: e.Iteration}, e.ref)
	if r.log.whole {
		return
	}
	r.pending = append(r.pending, e)
	if r.log.loops && len(r.pending) > logPending {
		r.log.whole, r.pending = true, nil
	}
}

// fill puts into an entry what is to be recorded: a checkpoint if one is due, else what is pending, as far as it goes into one message. An entry that would
// end the attempt becomes a step when something is left; what ends it follows.
func (r *Run) fill(e *Entry) {
	l := &r.log
	if l.loops && (l.whole || l.recorded > max(l.least, l.base)) {
		if e.Events = mustEncode(r.checkpoint()); len(e.Events) > entryBytes {
			r.state.Forget()
			e.Events = mustEncode(r.checkpoint())
		}
		e.Whole = true
		l.whole, l.recorded, l.base = false, 0, len(e.Events)
		r.pending, r.dirty = nil, false
		return
	}
	take := len(r.pending)
	for take > 0 {
		e.Events = mustEncode(r.pending[:take])
		if len(e.Events) <= entryBytes || take == 1 {
			break
		}
		take = max(1, min(take-1, take*entryBytes/len(e.Events)))
	}
	l.recorded += len(e.Events)
	if take == len(r.pending) || r.owner.IsZero() { // without an owner all of it is pure: what is left out can be computed again
		r.pending, r.dirty = nil, false
		return
	}
	r.pending = slices.Clone(r.pending[take:])
	r.dirty = true
	e.Kind, e.State, e.Output, e.Error, e.Waits, e.Pause, e.Pool = EntryStep, "", nil, nil, nil, "", ""
	for i := range r.ready { // what may depend on the rest waits for the report with it
		if w := &r.ready[i]; w.need == r.seq {
			w.need = r.seq + 1
		}
	}
}

// checkpoint is the state as events; large outputs of steps stay where they are stored.
func (r *Run) checkpoint() []recorded {
	events := r.state.Sum()
	out := make([]recorded, len(events))
	refs := make(map[flow.Key]*Value) // those of rounds that are forgotten go
	for i, e := range events {
		out[i].Event = e
		key := flow.Key{Node: e.Node, Iteration: e.Iteration}
		if ref := r.log.refs[key]; ref != nil && e.Type == flow.EventSucceeded {
			out[i].ref, refs[key] = ref, ref
		}
	}
	r.log.refs = refs
	return out
}

// next takes the engine's new commands, and withdraws those that are void: their rounds were given up.
func (r *Run) next() []flow.Command {
	out := r.state.Next()
	for r.voids != r.state.Voids() {
		r.voids = r.state.Voids()
		r.ready = slices.DeleteFunc(r.ready, func(w waiting) bool { return r.withdraw(w.cmd.Key) })
		out = slices.DeleteFunc(out, func(cmd flow.Command) bool { return r.withdraw(cmd.Key) })
		for key, cmd := range r.inflight {
			if cmd.Op == flow.OpSleep && r.state.Void(key) {
				delete(r.inflight, key)
			}
		}
		out = append(out, r.state.Next()...)
	}
	return out
}

// withdraw takes back a command that has not begun, if it is void.
func (r *Run) withdraw(key flow.Key) bool {
	if !r.state.Void(key) {
		return false
	}
	r.state.Withdraw(key)
	return true
}

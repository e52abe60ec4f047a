package flow

import (
	"cmp"
	"slices"
	"time"
)

// Outcome tells where the execution stands. A failed or stopped execution is Running until what is in flight has ended.
func (s *State) Outcome() Outcome {
	switch {
	case s.Closing() && s.running > 0:
		return Running
	case s.stopped:
		return Succeeded
	case s.Undoing():
		if u := s.nextUndo(); u.state == stepWaiting {
			return Suspended
		}
		return Running
	case s.Closing():
		return Failed
	case s.active > 0:
		return Running
	case s.waiting > 0:
		return Suspended
	}
	return Succeeded
}

// Closing tells that a step has failed the execution, or stopped it, or that it is being undone: nothing else starts, what is in flight ends and is recorded, then it is over.
func (s *State) Closing() bool { return s.top.failure != nil || s.stopped || s.undo.begun }

// Output is the execution's output once it Succeeded: that of the step that stopped it, else that of its only end, or a map by node id of several.
func (s *State) Output() any {
	if s.stopped {
		return s.output
	}
	return s.top.output()
}

// Failure is why the execution fails; nil while it doesn't. It is known before Outcome is Failed: nothing new starts from then on.
func (s *State) Failure() *Failure {
	f := s.top.failure
	if f == nil || s.undo.failed == nil {
		return f
	}
	own := *f
	own.Message += "; " + s.Undone()
	return &own
}

// InFlight counts the commands handed out by Next whose events haven't come, pauses included.
func (s *State) InFlight() int { return s.running + s.asleep }

// Clock is the time of the last recorded event, of pure steps apart; at first the execution's creation.
func (s *State) Clock() time.Time { return s.clock }

// OpenWait is a wait that isn't met.
type OpenWait struct {
	Key   Key
	Wait  Wait
	Since time.Time
}

// OpenWaits lists what the execution waits for, in the order of the document and of the rounds.
func (s *State) OpenWaits() []OpenWait {
	if s.waiting == 0 {
		return nil
	}
	if s.Undoing() { // all others are given up
		u := s.nextUndo()
		if u.state != stepWaiting {
			return nil
		}
		return []OpenWait{{Key: Key{Node: u.n.id, Iteration: u.f.iteration}, Wait: *u.wait, Since: u.since}}
	}
	return s.top.waits(make([]OpenWait, 0, s.waiting))
}

func (f *frame) waits(out []OpenWait) []OpenWait {
	for i := range f.steps {
		st := &f.steps[i]
		if st.state == stepWaiting {
			out = append(out, OpenWait{Key: Key{Node: st.n.id, Iteration: f.iteration}, Wait: *st.wait, Since: st.since})
		}
		if st.state == stepOpen {
			for _, inner := range st.rounds.open {
				out = inner.waits(out)
			}
		}
	}
	return out
}

// Step is how people see one turn of a node.
type Step struct {
	Key      Key
	Type     string
	Status   string // "pending", "queued", "running", "sleeping", "waiting", "succeeded", "failed", "skipped"
	Port     string
	Output   any
	Error    *Failure // also of the last try of a step that is tried again
	Try      int
	Wait     *Wait
	Rounds   int // of a container: those begun so far
	Started  time.Time
	Finished time.Time
}

// Steps lists the steps in the order of the document, each container's rounds behind it; those that undo others are last, once they are to run: those that are open, and of those that have ended the last
// few (at most 20 of a container and 200 steps together; of a container inside another only the last).
func (s *State) Steps() []Step {
	out := s.top.view(make([]Step, 0, len(s.top.steps)))
	if s.stopped || !s.Closing() {
		return out
	}
	for k := len(s.undo.steps) - 1; k >= 0; k-- {
		out = append(out, s.undo.steps[k].view())
	}
	return out
}

func (st *step) view() Step {
	return Step{Key: Key{Node: st.n.id, Iteration: st.f.iteration}, Type: st.n.typ, Status: stepNames[st.state], Port: st.port, Output: st.output, Error: st.err, Try: st.try, Wait: st.wait,
		Started: st.started, Finished: st.ended}
}

func (f *frame) view(out []Step) []Step {
	for i := range f.steps {
		st, n := &f.steps[i], f.steps[i].n
		if n.kind == kindGate || n.undoes != nil {
			continue
		}
		out = append(out, st.view())
		if st.state == stepOpen && st.err != nil { // a step inside has failed the execution
			out[len(out)-1].Status = stepNames[stepFailed]
		}
		if r := st.rounds; r != nil {
			out[len(out)-1].Rounds = r.next
			frames := slices.Concat(r.kept, r.open)
			slices.SortFunc(frames, func(a, b *frame) int { return cmp.Compare(a.number, b.number) })
			for _, inner := range frames {
				out = inner.view(out)
			}
		}
	}
	return out
}

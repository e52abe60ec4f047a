package flow

import "time"

// Outcome tells where the execution stands. A failed or stopped execution is Running until what is in flight has ended.
func (s *State) Outcome() Outcome {
	switch {
	case s.Closing() && s.running > 0:
		return Running
	case s.stopped:
		return Succeeded
	case s.failure != nil:
		return Failed
	case s.active > 0:
		return Running
	case s.waiting > 0:
		return Suspended
	}
	return Succeeded
}

// Closing tells that a step has failed the execution, or stopped it: nothing new starts, what is in flight ends and is recorded, then it is over.
func (s *State) Closing() bool { return s.failure != nil || s.stopped }

// Output is the execution's output once it Succeeded: that of the step that stopped it, else that of its only end, or a map by node id of several.
func (s *State) Output() any {
	if s.stopped {
		return s.output
	}
	var only any
	var several map[string]any
	count := 0
	for i := range s.steps {
		if !s.isEnd(i) {
			continue
		}
		count++
		switch count {
		case 1:
			only = s.steps[i].output
			several = nil
		case 2:
			several = map[string]any{}
			for j := range i {
				if s.isEnd(j) {
					several[s.p.nodes[j].id] = s.steps[j].output
				}
			}
		}
		if several != nil {
			several[s.p.nodes[i].id] = s.steps[i].output
		}
	}
	if several != nil {
		return several
	}
	return only
}

// isEnd: the node ran and no edge out of it was taken.
func (s *State) isEnd(i int) bool {
	st := &s.steps[i]
	if st.state != stepSucceeded && st.state != stepFailed {
		return false
	}
	for _, e := range s.p.nodes[i].edges {
		if e.port == st.port {
			return false
		}
	}
	return true
}

// Failure is why the execution fails; nil while it doesn't. It is known before Outcome is Failed: nothing new starts from then on.
func (s *State) Failure() *Failure { return s.failure }

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

// OpenWaits lists what the execution waits for, in the order of the document.
func (s *State) OpenWaits() []OpenWait {
	if s.waiting == 0 {
		return nil
	}
	out := make([]OpenWait, 0, s.waiting)
	for i := range s.steps {
		if st := &s.steps[i]; st.state == stepWaiting {
			out = append(out, OpenWait{Key: Key{Node: s.p.nodes[i].id}, Wait: *st.wait, Since: st.since})
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
	Started  time.Time
	Finished time.Time
}

// Steps lists all steps in the order of the document.
func (s *State) Steps() []Step {
	out := make([]Step, len(s.steps))
	for i := range s.steps {
		st, n := &s.steps[i], &s.p.nodes[i]
		out[i] = Step{Key: Key{Node: n.id}, Type: n.typ, Status: stepNames[st.state], Port: st.port, Output: st.output, Error: st.err, Try: st.try, Wait: st.wait,
			Started: st.started, Finished: st.ended}
	}
	return out
}

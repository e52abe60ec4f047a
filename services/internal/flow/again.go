package flow

import (
	"fmt"
	"time"
)

// A failure is deadly where nothing around the step takes it: the execution fails. It then stands still as it is, so that a user's retry goes on with it: open
// rounds stay open, and Restore folds what was recorded before an EventRetry forgivingly: what failed the execution is as if it had not been tried.

// deadly tells whether the step's failure would fail the execution: neither its own onError, nor that of a container around it, nor a loop that collects
// errors takes it.
func (st *step) deadly() bool {
	for ; ; st = st.f.owner {
		if st.n.onError == OnErrorContinue || st.n.onError == OnErrorRoute {
			return false
		}
		if st.f.owner == nil {
			return true
		}
		switch owner := st.f.owner; owner.n.container {
		case Try:
			return false
		case Foreach:
			if owner.rounds.onItem != "" && owner.rounds.onItem != OnItemFail {
				return false
			}
		}
	}
}

// fatal fails the execution by a step, and through the containers around it.
func (s *State) fatal(st *step, f *Failure) {
	if s.Closing() {
		return
	}
	at := st.ended
	for st.f.final = st; st.f.owner != nil; st.f.final = st {
		f = st.f.told(f)
		st = st.f.owner
		st.err, st.ended = f, at
	}
	s.top.failure = f
}

// told is a round's failure as its container tells of it.
func (f *frame) told(failure *Failure) *Failure {
	own := *failure
	own.Retryable = false
	own.Message = fmt.Sprintf("round %d: %s", f.number, own.Message)
	return &own
}

// forgive puts a step back that would have failed the execution: it runs again after the retry.
func (s *State) forgive(st *step) {
	if st.state == stepOpen { // a container that failed by itself does so again, unless what it looks at is another by then
		s.active++
	}
	s.reset(st)
	s.held = append(s.held, st)
}

// reset makes a step as if it had not been tried. It is counted as active.
func (s *State) reset(st *step) {
	st.state, st.try, st.told, st.err, st.wait, st.last = stepReady, 1, false, nil, nil, st.entry
	if st.rounds == nil {
		st.started = time.Time{}
	}
}

// retry takes in that a user retries the execution; last: it is the last time.
func (s *State) retry(e *Event, last bool) {
	s.retries++
	s.prepare(nil)
	s.top.askAgain(s)
	for key := range s.early { // for these steps alone, when their turn comes
		s.keep(key, Event{Type: EventRetry, Node: key.Node, Iteration: key.Iteration, At: e.At})
	}
	if last {
		s.forgiving = false
		s.release()
	}
}

// release lets the steps run that were forgiven.
func (s *State) release() {
	s.ready = append(s.ready, s.held...)
	s.held = nil
}

// askAgain runs the steps again that wait for something from outside: it ended with the execution, and whoever waits for it needs another.
func (f *frame) askAgain(s *State) {
	for i := range f.steps {
		st := &f.steps[i]
		s.askAgain(st)
		if st.rounds != nil {
			for _, inner := range st.rounds.open {
				inner.askAgain(s)
			}
		}
	}
}

func (s *State) askAgain(st *step) {
	if st.state != stepWaiting || st.wait.Kind == WaitTimer || st.wait.Kind == WaitRetry {
		return
	}
	s.resume(st)
	s.reset(st)
	s.ready = append(s.ready, st)
}

// pin settles a step without running it.
func (s *State) pin(st *step, e *Event) {
	at := e.At
	if at.IsZero() { // given by a user
		at = st.entry
	}
	st.try, st.started, st.pinned = max(1, e.Try), e.Started, true
	if st.started.IsZero() {
		st.started = at
	}
	var own *Failure
	if e.Error != nil {
		f := *e.Error
		own = &f
	}
	if own != nil && e.Port == "" {
		s.end(st, own, at)
		return
	}
	if s.succeed(st, e.Output, e.Port, at); st.state == stepSucceeded {
		st.err = own // of a try that left by its port error
	}
}

package flow

import (
	"fmt"
	"slices"
	"time"
)

// Apply takes in what happened to a step. An event that doesn't fit (the step isn't running, the try is another) is ErrMisfit and changes nothing.
func (s *State) Apply(e Event) error {
	if e.Type == EventUndo && e.Node == "" {
		s.undo.begun = true
		return nil
	}
	st, place, err := s.find(&e)
	if err != nil {
		return err
	}
	if place != placeHere {
		return fmt.Errorf("%w: %q of step %s: its round %s is not under way", ErrMisfit, e.Type, e.Node, e.Iteration)
	}
	s.prepare(st) // what was ready before this event fails, if it does, before this event
	return s.consume(st, &e)
}

// clock is the time that counts: none of what may be computed again.
func (e *Event) clock() time.Time {
	if e.Pure {
		return time.Time{}
	}
	return later(e.At, e.Last)
}

func (s *State) consume(st *step, e *Event) error {
	if err := st.fits(e); err != nil {
		return err
	}
	s.clock = later(s.clock, e.clock())
	if st.f.owner != nil && st.f.void() {
		st.late = true
	} else {
		st.last = later(st.last, e.clock())
	}
	if e.Type == EventRounds {
		s.load(st, e)
		s.over(st.f)
		return nil
	}
	st.told = true
	if e.Type == EventMet {
		s.met(st, e)
		s.undone(st)
		s.over(st.f)
		return nil
	}
	switch st.state {
	case stepSleeping, stepWaiting: // the end of a retry's pause wasn't recorded, but what came of the next try was
		s.resume(st)
	case stepRunning:
		s.run(st.f, -1)
		st.state = stepAsked
	}
	if e.Type == EventPinned {
		s.pin(st, e)
		s.over(st.f)
		return nil
	}
	if e.Try > 0 {
		st.try = e.Try
	}
	st.started = e.Started
	if st.started.IsZero() {
		st.started = e.At
	}
	switch e.Type {
	case EventSucceeded:
		s.succeed(st, e.Output, e.Port, e.At)
		if e.Stop && st.state == stepSucceeded {
			s.stop(st)
		}
	case EventFailed:
		s.tryFailed(st, e.Error, e.At)
	case EventWaiting:
		s.wait(st, e)
	}
	s.undone(st)
	s.over(st.f)
	return nil
}

// fits checks an event before anything is changed.
func (st *step) fits(e *Event) error {
	misfit := func(why string) error {
		return fmt.Errorf("%w: %q of step %s, which is %s: %s", ErrMisfit, e.Type, e.Node, stepNames[st.state], why)
	}
	paused := st.state == stepSleeping || st.state == stepWaiting
	container := st.n.kind == KindContainer
	switch e.Type {
	case EventMet:
		if !paused {
			return misfit("it waits for nothing")
		}
		return nil
	case EventRounds:
		if !container || st.state != stepReady && st.state != stepOpen {
			return misfit("it has no rounds under way")
		}
		return nil
	case EventPinned:
		if st.state != stepReady {
			return misfit("it has begun")
		}
		return nil
	case EventSucceeded, EventFailed, EventWaiting:
	default:
		return misfit("this type of event is unknown")
	}
	switch {
	case container:
		return misfit("a container comes to its end by its rounds")
	case e.Type == EventWaiting && e.Wait == nil:
		return misfit("the event has no wait")
	case paused && st.wait.Kind == WaitRetry && e.Try == st.try+1:
		return nil
	case st.state != stepReady && st.state != stepAsked && st.state != stepRunning:
		return misfit("nothing was asked of it")
	case e.Try != 0 && e.Try != st.try && !(e.Sum && e.Try > st.try):
		return misfit(fmt.Sprintf("the event is of try %d, the step is at try %d", e.Try, st.try))
	}
	return nil
}

// resume ends a pause.
func (s *State) resume(st *step) {
	if st.state == stepSleeping {
		s.asleep--
	} else {
		s.waiting--
		s.active++
	}
	st.wait = nil
	st.state = stepReady
}

func (s *State) met(st *step, e *Event) {
	retry := st.wait.Kind == WaitRetry
	s.resume(st)
	switch {
	case retry:
		st.try++
		s.ready = append(s.ready, st)
	case e.Error != nil:
		s.tryFailed(st, e.Error, e.At)
	default:
		s.succeed(st, e.Output, e.Port, e.At)
	}
}

// stop ends the execution with a step's output.
func (s *State) stop(st *step) {
	if s.Closing() || st.late {
		return
	}
	s.stopped, s.output = true, st.output
	for ; st != nil; st = st.f.owner {
		st.f.final = st
	}
}

// succeed ends a step well, if its output and port are what they may be.
func (s *State) succeed(st *step, output any, port string, at time.Time) {
	n := st.n
	if port == "" {
		port = PortMain
	}
	if !slices.Contains(n.ports, port) {
		s.end(st, &Failure{Code: "unknown-port", Message: fmt.Sprintf("%s left by port %q, which a %s with this configuration doesn't have", n.id, port, n.typ)}, at)
		return
	}
	value, err := CanonicalWithin(output, MaxValueBytes)
	if err != nil {
		s.end(st, &Failure{Code: "output", Message: "the step's output can't be kept: " + err.Error()}, at)
		return
	}
	s.leave(st)
	st.output, st.ended, st.err = value, at, nil
	s.settle(st, stepSucceeded, port)
}

// tryFailed decides whether there is another try.
func (s *State) tryFailed(st *step, f *Failure, at time.Time) {
	n := st.n
	own := Failure{Code: "error", Message: "the step failed without saying why"}
	if f != nil {
		own = *f
	}
	own.Node = n.id
	if !own.Retryable || st.try >= n.retry.Tries() || s.Closing() && !st.undoes || st.late {
		s.end(st, &own, at)
		return
	}
	st.err = &own
	if st.seed == 0 {
		st.seed = seedOf(s.rec.Execution.ID, n.id, st.f.iteration)
	}
	delay := n.retry.Delay(st.try, st.seed)
	reason := fmt.Sprintf("try %d of %d failed: %s", st.try, n.retry.Tries(), own.Message)
	s.pause(st, Wait{Kind: WaitRetry, Due: at.Add(delay), Reason: reason}, at)
}

func (s *State) wait(st *step, e *Event) {
	w := *e.Wait
	if w.Kind == WaitTimer && !w.Due.After(e.At) {
		s.succeed(st, nil, PortMain, e.At)
		return
	}
	if e.Sum {
		st.err = e.Error
	}
	s.pause(st, w, e.At)
}

func (s *State) pause(st *step, w Wait, at time.Time) {
	st.wait, st.since = &w, at
	if (w.Kind == WaitTimer || w.Kind == WaitRetry) && w.Due.Sub(at) <= MaxSleep {
		st.state = stepSleeping
		s.asleep++
		s.ask(st)
		return
	}
	st.state = stepWaiting
	s.active--
	s.waiting++
}

// end ends a step badly: its tries are used up.
func (s *State) end(st *step, f *Failure, at time.Time) {
	if f.Node == "" {
		f.Node = st.n.id
	}
	deadly := !st.undoes && st.deadly()
	if deadly && s.forgiving {
		s.forgive(st)
		return
	}
	s.leave(st)
	st.err, st.output, st.ended = f, nil, at
	if st.started.IsZero() {
		st.started = at
	}
	switch {
	case st.n.onError == OnErrorContinue:
		s.settle(st, stepFailed, PortMain)
	case st.n.onError == OnErrorRoute:
		s.settle(st, stepFailed, PortError)
	case st.undoes: // the others are undone all the same
		st.state = stepFailed
		if s.undo.failing++; s.undo.failed == nil {
			s.undo.failed = st
		}
	case deadly:
		st.state = stepFailed
		s.fatal(st, f)
	default: // the container around takes it
		st.state = stepFailed
		if st.f.failure != nil || st.late || s.top.failure != nil { // its tries may go on after a retry
			return
		}
		st.f.failure, st.f.final = f, st
		s.voids++
	}
}

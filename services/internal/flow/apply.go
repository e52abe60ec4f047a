package flow

import (
	"fmt"
	"time"
)

// Apply takes in what happened to a step. An event that doesn't fit (the step isn't running, the try is another) is ErrMisfit and changes nothing.
func (s *State) Apply(e Event) error {
	i, err := s.find(&e)
	if err != nil {
		return err
	}
	s.prepare(i) // what was ready before this event fails, if it does, before this event
	return s.consume(i, &e)
}

func (s *State) consume(i int32, e *Event) error {
	if err := s.fits(i, e); err != nil {
		return err
	}
	st := &s.steps[i]
	if !e.Pure {
		if e.At.After(s.clock) {
			s.clock = e.At
		}
		if e.At.After(st.last) {
			st.last = e.At
		}
	}
	if e.Type == EventMet {
		return s.met(i, e)
	}
	if st.state == stepSleeping || st.state == stepWaiting { // the end of a retry's pause wasn't recorded, but what came of the next try was
		s.resume(i)
	}
	if st.state == stepRunning {
		s.running--
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
		s.succeed(i, e.Output, e.Port, e.At)
		if e.Stop && st.state == stepSucceeded && !s.Closing() {
			s.stopped, s.output = true, st.output
		}
	case EventFailed:
		s.tryFailed(i, e.Error, e.At)
	case EventWaiting:
		s.wait(i, e)
	}
	return nil
}

// fits checks an event before anything is changed.
func (s *State) fits(i int32, e *Event) error {
	st := &s.steps[i]
	misfit := func(why string) error {
		return fmt.Errorf("%w: %q of step %s, which is %s: %s", ErrMisfit, e.Type, e.Node, stepNames[st.state], why)
	}
	paused := st.state == stepSleeping || st.state == stepWaiting
	switch e.Type {
	case EventMet:
		if !paused {
			return misfit("it waits for nothing")
		}
		return nil
	case EventSucceeded, EventFailed, EventWaiting:
	default:
		return misfit("this type of event is unknown")
	}
	switch {
	case e.Type == EventWaiting && e.Wait == nil:
		return misfit("the event has no wait")
	case paused && st.wait.Kind == WaitRetry && e.Try == st.try+1:
		return nil
	case st.state != stepReady && st.state != stepAsked && st.state != stepRunning:
		return misfit("nothing was asked of it")
	case e.Try != 0 && e.Try != st.try:
		return misfit(fmt.Sprintf("the event is of try %d, the step is at try %d", e.Try, st.try))
	}
	return nil
}

// resume ends a pause.
func (s *State) resume(i int32) {
	st := &s.steps[i]
	if st.state == stepSleeping {
		s.asleep--
	} else {
		s.waiting--
		s.active++
	}
	st.wait = nil
	st.state = stepReady
}

func (s *State) met(i int32, e *Event) error {
	st := &s.steps[i]
	retry := st.wait.Kind == WaitRetry
	s.resume(i)
	switch {
	case retry:
		st.try++
		s.ready = append(s.ready, i)
	case e.Error != nil:
		s.tryFailed(i, e.Error, e.At)
	default:
		s.succeed(i, e.Output, e.Port, e.At)
	}
	return nil
}

// succeed ends a step well, if its output and port are what they may be.
func (s *State) succeed(i int32, output any, port string, at time.Time) {
	st, n := &s.steps[i], &s.p.nodes[i]
	if port == "" {
		port = PortMain
	}
	known := false
	for _, p := range n.ports {
		known = known || p == port
	}
	if !known {
		s.end(i, &Failure{Code: "unknown-port", Message: fmt.Sprintf("%s left by port %q, which a %s with this configuration doesn't have", n.id, port, n.typ)}, at)
		return
	}
	value, err := CanonicalWithin(output, MaxValueBytes)
	if err != nil {
		s.end(i, &Failure{Code: "output", Message: "the step's output can't be kept: " + err.Error()}, at)
		return
	}
	s.active--
	st.output, st.ended, st.err = value, at, nil
	s.settle(i, stepSucceeded, port)
}

// tryFailed decides whether there is another try.
func (s *State) tryFailed(i int32, f *Failure, at time.Time) {
	st, n := &s.steps[i], &s.p.nodes[i]
	own := Failure{Code: "error", Message: "the step failed without saying why"}
	if f != nil {
		own = *f
	}
	if !own.Retryable || st.try >= n.retry.Tries() || s.Closing() {
		s.end(i, &own, at)
		return
	}
	own.Node = n.id
	st.err = &own
	if st.seed == 0 {
		st.seed = seedOf(s.rec.Execution.ID, n.id, "")
	}
	delay := n.retry.Delay(st.try, st.seed)
	reason := fmt.Sprintf("try %d of %d failed: %s", st.try, n.retry.Tries(), own.Message)
	s.pause(i, Wait{Kind: WaitRetry, Due: at.Add(delay), Reason: reason}, at, delay <= MaxSleep)
}

func (s *State) wait(i int32, e *Event) {
	w := *e.Wait
	if w.Kind == WaitTimer && !w.Due.After(e.At) {
		s.succeed(i, nil, PortMain, e.At)
		return
	}
	s.pause(i, w, e.At, w.Kind == WaitTimer && w.Due.Sub(e.At) <= MaxSleep)
}

func (s *State) pause(i int32, w Wait, at time.Time, short bool) {
	st := &s.steps[i]
	st.wait, st.since = &w, at
	if short {
		st.state = stepSleeping
		s.asleep++
		s.ask(i)
		return
	}
	st.state = stepWaiting
	s.active--
	s.waiting++
}

// end ends a step badly: its tries are used up.
func (s *State) end(i int32, f *Failure, at time.Time) {
	st, n := &s.steps[i], &s.p.nodes[i]
	f.Node = n.id
	s.active--
	st.err, st.output, st.ended = f, nil, at
	if st.started.IsZero() {
		st.started = at
	}
	switch n.onError {
	case OnErrorContinue:
		s.settle(i, stepFailed, PortMain)
	case OnErrorRoute:
		s.settle(i, stepFailed, PortError)
	default:
		st.state = stepFailed
		if !s.Closing() {
			s.failure = f
		}
	}
}

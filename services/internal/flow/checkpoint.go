package flow

import (
	"cmp"
	"maps"
	"slices"
)

// Sum gives a checkpoint: a list of events that stands for all that the state was made from, and leads to a state that goes on in the same way. Rounds
// that have ended are in it with what they gave only, but for the last few, which are kept for people.
func (s *State) Sum() []Event {
	out := s.sumFrame(s.sumUndo([]Event{{Type: EventSum, At: s.clock, Try: s.retries}}), &s.top)
	keys := slices.SortedFunc(maps.Keys(s.early), func(a, b Key) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Iteration, b.Iteration)) })
	for _, key := range keys { // what was recorded of steps that can't begin yet, because pure ones before them are computed again
		out = append(out, s.early[key]...)
	}
	return s.sumUndone(out)
}

// sumFrame tells of a frame's steps, and last of the one that failed it: nothing may begin to fail before it that didn't.
func (s *State) sumFrame(out []Event, f *frame) []Event {
	for i := range f.steps {
		if st := &f.steps[i]; st != f.final && !st.late {
			out = s.sumStep(out, st)
		}
	}
	if f.final != nil {
		out = s.sumStep(out, f.final)
	}
	return out
}

func (s *State) sumStep(out []Event, st *step) []Event {
	if st.rounds != nil {
		return s.sumRounds(out, st)
	}
	if !st.told { // nothing was recorded, or it follows from what was
		return out
	}
	e := Event{Node: st.n.id, Iteration: st.f.iteration, Try: st.try, Started: st.started, Pure: st.n.kind == KindPure, Sum: true}
	switch st.state {
	case stepSucceeded:
		e.Type, e.Output, e.Port, e.At = EventSucceeded, st.output, st.port, st.ended
		if st.n.kind == KindContainer || st.pinned {
			e.Type, e.Error = EventPinned, st.err
		}
		e.Stop = s.stopped && st == st.f.final
	case stepFailed:
		e.Type, e.Error, e.At = EventFailed, st.err, st.ended
		if st.n.kind == KindContainer {
			e.Type = EventPinned
		}
	case stepSleeping, stepWaiting:
		e.Type, e.Wait, e.Error, e.At = EventWaiting, st.wait, st.err, st.since
	case stepReady, stepAsked, stepRunning: // a later try
		e.Type, e.Try, e.Error, e.At = EventWaiting, st.try-1, st.err, st.since
		e.Wait = &Wait{Kind: WaitRetry, Due: st.since, Reason: "is tried again"}
		e.Last = st.last
		return append(out, e, Event{Type: EventMet, Node: e.Node, Iteration: e.Iteration, At: st.since, Sum: true})
	default:
		return out
	}
	if !e.Pure && st.last.After(e.At) {
		e.Last = st.last
	}
	return append(out, e)
}

// sumRounds tells how far a container is, then of the rounds that are open or kept.
func (s *State) sumRounds(out []Event, st *step) []Event {
	r := st.rounds
	frames := slices.Concat(r.kept, r.open)
	slices.SortFunc(frames, func(a, b *frame) int { return a.number - b.number })
	results := append([]any{}, r.results...)
	e := Event{Type: EventRounds, Node: st.n.id, Iteration: st.f.iteration, Started: st.started, At: r.last, Sum: true, Output: results}
	for _, f := range frames {
		if st.n.container != While { // what it gave follows from its steps; in a while the next round needs it at once
			results[f.number] = nil
		}
		e.Rounds = append(e.Rounds, Round{Number: f.number, Entry: f.entry})
	}
	out = append(out, e)
	for _, f := range frames {
		if f.final == nil {
			out = s.sumFrame(out, f)
		}
	}
	for _, f := range frames {
		if f.final != nil {
			out = s.sumFrame(out, f)
		}
	}
	return out
}

// Forget drops the rounds that are kept for people, so that a checkpoint without them is as short as it can be.
func (s *State) Forget() { s.top.forget() }

func (f *frame) forget() {
	for i := range f.steps {
		r := f.steps[i].rounds
		if r == nil {
			continue
		}
		if f.steps[i].n.container != Try && r.failure == nil { // how a try ended, and why a loop failed, is seen in its rounds
			r.kept = nil
		}
		for _, inner := range slices.Concat(r.kept, r.open) {
			inner.forget()
		}
	}
}

// load brings a container to where a checkpoint says that it was.
func (s *State) load(st *step, e *Event) {
	if st.rounds == nil && !s.enter(st) {
		return
	}
	r := st.rounds
	results, _ := e.Output.([]any)
	for _, o := range r.open {
		s.close(o)
	}
	if st.state == stepReady {
		s.active--
		st.state = stepOpen
	}
	if len(results) > r.total { // of another flow; what follows won't fit
		results = results[:r.total]
	}
	r.open, r.kept, r.failure = nil, nil, nil
	r.results, r.next, r.size = slices.Clone(results), len(results), sizeOf(results, MaxListBytes)
	r.last = e.At
	st.started = e.Started
	for _, round := range e.Rounds {
		if round.Number >= 0 && round.Number < r.next {
			r.size -= sizeOf(r.results[round.Number], MaxListBytes) + 1
			s.openRound(st, round.Number, round.Entry)
		}
	}
	s.pump(st)
}

// Void tells whether a command that was handed out is wanted no more: its round was given up. What has begun ends and is told; what hasn't is withdrawn.
func (s *State) Void(key Key) bool {
	st, place, err := s.find(&Event{Node: key.Node, Iteration: key.Iteration})
	return err == nil && (place != placeHere || st.f.owner != nil && st.f.void())
}

// Voids counts the rounds and containers that were given up so far: when it has grown, some commands may be void.
func (s *State) Voids() int { return s.voids }

// Withdraw takes back a command that was handed out and has not begun.
func (s *State) Withdraw(key Key) {
	st, place, err := s.find(&Event{Node: key.Node, Iteration: key.Iteration})
	if err != nil || place != placeHere || st.state != stepRunning {
		return
	}
	s.run(st.f, -1)
	st.state = stepAsked
	s.over(st.f)
}

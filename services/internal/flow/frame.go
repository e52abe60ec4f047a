package flow

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// frame is a small flow that is under way: one round of a container, or, at the top, the execution itself.
type frame struct {
	scope     *programScope
	owner     *step // the container's; nil at the top
	number    int
	iteration string // path of round numbers, "" at the top
	steps     []step
	item      any
	index     int
	inRound   bool // item and index are set
	entry     time.Time
	failure   *Failure
	final     *step // the one that failed it, or stopped the execution
	closed    bool
	busy      int // steps that have begun and aren't settled
	running   int // commands handed out, here and inside
}

func (f *frame) open(scope *programScope, entry time.Time) {
	f.scope, f.entry = scope, entry
	f.steps = make([]step, len(scope.nodes))
	for i, n := range scope.nodes {
		st := &f.steps[i]
		st.f, st.n, st.entry, st.last = f, n, entry, entry
	}
}

// outer is the frame around; nil at the top.
func (f *frame) outer() *frame {
	if f.owner == nil {
		return nil
	}
	return f.owner.f
}

// void tells whether the frame, its container or anything around it was given up: nothing starts there any more. Where the whole execution fails nothing is given
// up: a retry goes on with it.
func (f *frame) void() bool {
	for ; f.owner != nil; f = f.owner.f {
		if f.failure != nil || f.closed || f.owner.rounds.failure != nil {
			return true
		}
	}
	return false
}

// last is the clock at the end: of the last event that was recorded in the frame, or of the step that failed it.
func (f *frame) last() time.Time {
	if f.failure != nil {
		return f.final.last
	}
	at := f.entry
	for i := range f.steps {
		at = later(at, f.steps[i].last)
	}
	return at
}

// output is that of the only end, or a map by node id of several.
func (f *frame) output() any {
	var only any
	var several map[string]any
	count := 0
	for i := range f.steps {
		st := &f.steps[i]
		if !st.isEnd() {
			continue
		}
		count++
		switch count {
		case 1:
			only = st.output
		case 2:
			several = map[string]any{}
			for j := range i {
				if before := &f.steps[j]; before.isEnd() {
					several[before.n.id] = before.output
				}
			}
			fallthrough
		default:
			several[st.n.id] = st.output
		}
	}
	if several != nil {
		return several
	}
	return only
}

// isEnd: the node ran and no edge out of it was taken.
func (st *step) isEnd() bool {
	if st.state != stepSucceeded && st.state != stepFailed || st.n.kind == kindGate {
		return false
	}
	for k := range st.n.edges {
		if p := st.n.edges[k].port; p == st.port || p == portAny {
			return false
		}
	}
	return true
}

// place says where the step of an event is, or why there is none.
type place uint8

const (
	placeHere  place = iota
	placeEarly       // its round has not begun
	placeOver        // its round has ended
)

// find gives the step that an event is about.
func (s *State) find(e *Event) (*step, place, error) {
	i, ok := s.p.index[e.Node]
	if !ok {
		return nil, 0, fmt.Errorf("%w: the flow has no node %q", ErrMisfit, e.Node)
	}
	n := &s.p.nodes[i]
	if n.undoes != nil {
		if u := s.undo.byKey[Key{Node: e.Node, Iteration: e.Iteration}]; u != nil {
			return u, placeHere, nil
		}
		return nil, placeEarly, nil
	}
	if n.scope == s.p.top {
		if e.Iteration != "" {
			return nil, 0, fmt.Errorf("%w: node %q is in no container, but the event names round %q", ErrMisfit, e.Node, e.Iteration)
		}
		return &s.top.steps[n.local], placeHere, nil
	}
	f, place, err := s.frame(n.scope, e.Iteration)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: node %q: %w", ErrMisfit, e.Node, err)
	}
	if place != placeHere {
		return nil, place, nil
	}
	return &f.steps[n.local], placeHere, nil
}

// frame finds an open round by its path.
func (s *State) frame(scope *programScope, iteration string) (*frame, place, error) {
	if scope.outer == nil {
		if iteration != "" {
			return nil, 0, fmt.Errorf("the path of rounds has %q too many", iteration)
		}
		return &s.top, placeHere, nil
	}
	outside, last := "", iteration
	if k := strings.LastIndexByte(iteration, '.'); k >= 0 {
		outside, last = iteration[:k], iteration[k+1:]
	}
	number, err := strconv.Atoi(last)
	if err != nil || number < 0 || number >= MaxRounds || len(last) > 1 && last[0] == '0' {
		return nil, 0, fmt.Errorf("%q is no path of %d round numbers", iteration, scope.depth)
	}
	f, place, err := s.frame(scope.outer, outside)
	if err != nil || place != placeHere {
		return nil, place, err
	}
	st := &f.steps[scope.owner.local]
	if st.rounds != nil {
		if inner := st.rounds.find(number); inner != nil {
			return inner, placeHere, nil
		}
		if number < st.rounds.next {
			return nil, placeOver, nil
		}
	}
	if st.state.settled() || f.void() {
		return nil, placeOver, nil
	}
	return nil, placeEarly, nil
}

// leave takes a step out of the counts of what is under way: it is settled, or its round is given up.
func (s *State) leave(st *step) {
	switch st.state {
	case stepReady, stepAsked:
		s.active--
	case stepRunning:
		s.active--
		s.run(st.f, -1)
	case stepSleeping:
		s.active--
		s.asleep--
	case stepWaiting:
		s.waiting--
	}
	st.f.busy--
}

// close gives up what is under way in a frame.
func (s *State) close(f *frame) {
	f.closed = true
	if f.busy == 0 {
		return
	}
	if s.p.undone {
		s.closing(f)
	}
	for i := range f.steps {
		st := &f.steps[i]
		if st.state == stepPending || st.state.settled() {
			continue
		}
		if st.rounds != nil {
			for _, inner := range st.rounds.open {
				s.close(inner)
			}
			st.rounds.open = nil
		}
		s.leave(st)
		st.state = stepPending
	}
}

// over ends the rounds that are over, from the inside out: all in them is settled, or they are given up and nothing is in flight.
func (s *State) over(f *frame) {
	for ; f.owner != nil && s.top.failure == nil; f = f.owner.f { // once the execution has failed, what isn't over stays so: a retry goes on with it
		r := f.owner.rounds
		if !f.closed && (f.busy == 0 || f.running == 0 && (f.failure != nil || r.failure != nil)) {
			s.roundOver(f)
		}
	}
}

func byNumber(f *frame, number int) int { return cmp.Compare(f.number, number) }

func (r *rounds) find(number int) *frame {
	if i, ok := slices.BinarySearchFunc(r.open, number, byNumber); ok {
		return r.open[i]
	}
	return nil
}

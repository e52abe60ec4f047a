package flow

import (
	"errors"
	"fmt"
	"time"
)

// State is one execution: the fold of its events over its record. It is not safe for concurrent use.
type State struct {
	p       *Program
	rec     Record
	clock   time.Time
	failure *Failure
	stopped bool // a step ended the execution, with output as the execution's own
	output  any
	steps   []step
	ready   []int32 // steps that may run, their configs not evaluated yet
	asked   []int32 // steps that the next Next asks for
	skip    []int32 // room for settle
	early   map[int32][]Event

	active  int // steps that are ready, asked for, running or sleeping
	running int // of these, the commands handed out to be run
	asleep  int // of these, the pauses
	waiting int // open waits
}

type stepState uint8

const (
	stepPending stepState = iota
	stepReady             // may run
	stepAsked             // its command goes out with the next Next
	stepRunning
	stepSleeping
	stepWaiting
	stepSucceeded
	stepFailed
	stepSkipped
)

var stepNames = [...]string{"pending", "queued", "queued", "running", "sleeping", "waiting", "succeeded", "failed", "skipped"}

func (s stepState) settled() bool { return s >= stepSucceeded }

// step is one turn of a node.
type step struct {
	state   stepState
	queued  bool // in State.asked
	taken   bool // an incoming edge was taken
	settled int32
	try     int
	port    string
	output  any
	err     *Failure
	wait    *Wait
	since   time.Time      // of wait
	entry   time.Time      // the step's clock: last recorded event upstream
	last    time.Time      // last recorded event, its own included
	config  map[string]any // evaluated once, the same for all tries
	scope   *Scope
	seed    uint64
	started time.Time
	ended   time.Time
}

// Start begins an execution. Triggers are settled at once: the one at which it enters gives the input, the others are skipped.
func (p *Program) Start(rec Record) *State {
	s := &State{p: p, rec: rec, clock: rec.Execution.CreatedAt, steps: make([]step, len(p.nodes))}
	if s.rec.Flow == (FlowView{}) {
		s.rec.Flow = p.view
	}
	for i := range s.steps {
		s.steps[i].entry, s.steps[i].last = s.clock, s.clock
	}
	input, err := Canonical(rec.Input)
	if err != nil {
		s.failure = &Failure{Code: "input", Message: "the input is no JSON value: " + err.Error()}
		return s
	}
	s.rec.Input = input
	entry := p.entry(rec.Execution.Trigger)
	if entry < 0 {
		s.failure = &Failure{Code: "no-trigger", Message: fmt.Sprintf("the execution was started by %q, but the flow has no such trigger, and more than one other", rec.Execution.Trigger)}
		return s
	}
	for _, i := range p.triggers {
		st := &s.steps[i]
		if i != entry {
			s.settle(i, stepSkipped, "")
			continue
		}
		st.output, st.try, st.started, st.ended = input, 1, s.clock, s.clock
		s.settle(i, stepSucceeded, PortMain)
	}
	return s
}

// Restore gives the state after these events. Events of pure nodes may be missing: these nodes are asked for again, and what was recorded behind them is applied when
// they are done. An error means that the events belong to another flow, version or execution.
func Restore(p *Program, rec Record, events []Event) (*State, error) {
	s := p.Start(rec)
	for k := range events {
		e := &events[k]
		i, err := s.find(e)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", k, err)
		}
		switch st := &s.steps[i]; {
		case st.state.settled() && e.Pure: // recorded twice; both are equal
		case st.state == stepPending:
			if s.early == nil {
				s.early = map[int32][]Event{}
			}
			s.early[i] = append(s.early[i], *e)
		default:
			if err := s.Apply(*e); err != nil {
				return nil, fmt.Errorf("event %d: %w", k, err)
			}
		}
	}
	return s, nil
}

// ErrMisfit says that an event doesn't fit the state of its step.
var ErrMisfit = errors.New("the event doesn't fit its step")

func (s *State) find(e *Event) (int32, error) {
	i, ok := s.p.index[e.Node]
	if !ok {
		return 0, fmt.Errorf("%w: the flow has no node %q", ErrMisfit, e.Node)
	}
	if e.Iteration != "" {
		return 0, fmt.Errorf("%w: node %q is in no container, but the event names round %q", ErrMisfit, e.Node, e.Iteration)
	}
	return i, nil
}

// Next gives the commands newly asked for since the last call. Once a step has failed or stopped the execution there are none.
func (s *State) Next() []Command {
	s.prepare(-1)
	if s.Closing() || len(s.asked) == 0 {
		return nil
	}
	out := make([]Command, 0, len(s.asked))
	for _, i := range s.asked {
		st, n := &s.steps[i], &s.p.nodes[i]
		st.queued = false
		cmd := Command{Key: Key{Node: n.id}, Type: n.typ, Version: n.version, Kind: n.kind, Config: st.config, Timeout: n.timeout,
			Try: st.try, Seed: st.seed, Now: st.entry, Scope: st.scope}
		switch st.state {
		case stepAsked:
			st.state = stepRunning
			s.running++
			cmd.Op = OpRun
			if n.wants {
				cmd.Inputs = s.inputs(n)
			}
		case stepSleeping:
			cmd.Op, cmd.Until = OpSleep, st.wait.Due
		default: // an event came first
			continue
		}
		out = append(out, cmd)
	}
	s.asked = s.asked[:0]
	return out
}

// inputs gives what came in by the edges that were taken.
func (s *State) inputs(n *programNode) []Input {
	out := make([]Input, 0, len(n.inputs))
	for _, in := range n.inputs {
		if st := &s.steps[in.from]; st.state != stepSkipped && st.port == in.port {
			out = append(out, Input{From: s.p.nodes[in.from].id, Port: in.port, Output: st.output})
		}
	}
	return out
}

// ask puts a step among those that the next Next asks for.
func (s *State) ask(i int32) {
	if st := &s.steps[i]; !st.queued {
		st.queued = true
		s.asked = append(s.asked, i)
	}
}

// prepare evaluates the configs of the steps that may run, all but one whose event is at hand. A config that can't be evaluated fails its step: that
// follows from the events before, so it is no event itself.
func (s *State) prepare(except int32) {
	kept := false
	for k := 0; k < len(s.ready); k++ { // it grows meanwhile
		if s.Closing() {
			s.ready = append(s.ready[:0], s.ready[k:]...)
			return
		}
		i := s.ready[k]
		st := &s.steps[i]
		switch events, ok := s.early[i]; {
		case st.state != stepReady:
		case i == except:
			kept = true
		case ok:
			delete(s.early, i)
			for _, e := range events {
				if err := s.consume(i, &e); err != nil { // recorded behind a pure step that now came out otherwise
					s.failure = &Failure{Code: "replay", Message: "the recorded events don't fit what the steps before gave when computed again: " + err.Error(), Node: s.p.nodes[i].id}
					return
				}
			}
		default:
			if err := s.evaluate(i); err != nil {
				s.end(i, &Failure{Code: "expression", Message: "config" + err.Error()}, st.entry)
				continue
			}
			st.state = stepAsked
			s.ask(i)
		}
	}
	s.ready = s.ready[:0]
	if kept {
		s.ready = append(s.ready, except)
	}
}

// evaluate fills in a step's config and scope, unless an earlier try did.
func (s *State) evaluate(i int32) error {
	st, n := &s.steps[i], &s.p.nodes[i]
	if st.scope != nil {
		return nil
	}
	st.seed = seedOf(s.rec.Execution.ID, n.id, "")
	scope := &Scope{Input: s.rec.Input, Execution: s.rec.Execution, Flow: s.rec.Flow, Now: st.entry, Seed: st.seed, Formulas: n.formulas}
	scope.Steps = func(id string) (StepView, bool) { return s.look(n, id) }
	if n.constant != nil {
		st.config, st.scope = n.constant, scope
		return nil
	}
	v, err := n.config.eval(scope, st.seed)
	if err != nil {
		return err
	}
	if v, err = CanonicalWithin(v, MaxValueBytes); err != nil {
		return fmt.Errorf(": %w", err)
	}
	scope.Seed = st.seed
	st.config, st.scope = v.(map[string]any), scope
	return nil
}

// look shows node n a step upstream of it.
func (s *State) look(n *programNode, id string) (StepView, bool) {
	i, ok := s.p.index[id]
	if !ok || !n.upstream.has(i) {
		return StepView{}, false
	}
	st := &s.steps[i]
	return StepView{Output: st.output, Port: st.port, Error: st.err, Status: stepNames[st.state]}, true
}

// settle ends a step and passes on what that means: a node runs when every incoming edge is settled and one was taken, else it is skipped, and so on.
func (s *State) settle(i int32, as stepState, port string) {
	s.steps[i].state, s.steps[i].port = as, port
	todo := append(s.skip[:0], i)
	for len(todo) > 0 {
		i = todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		st := &s.steps[i]
		edges := s.p.nodes[i].edges
		for k := range edges {
			e := &edges[k]
			to := &s.steps[e.to]
			to.settled++
			to.taken = to.taken || st.state != stepSkipped && e.port == st.port
			if st.last.After(to.entry) {
				to.entry, to.last = st.last, st.last
			}
			switch {
			case int(to.settled) < s.p.nodes[e.to].incoming:
			case to.taken:
				to.state, to.try = stepReady, 1
				s.active++
				s.ready = append(s.ready, e.to)
			default:
				to.state = stepSkipped
				todo = append(todo, e.to)
			}
		}
	}
	s.skip = todo
}

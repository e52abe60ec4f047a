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
	top     frame
	stopped bool // a step ended the execution, with output as the execution's own
	output  any
	ready   []*step // steps that may run, their configs not evaluated yet
	asked   []*step // steps that the next Next asks for
	todo    []*step // room for settle
	early   map[Key][]Event

	forgiving bool    // what is folded now was recorded before a retry: what fails the execution is as if it had not been tried
	held      []*step // steps that were forgiven: they run again once all before the retry is folded
	undo      undo
	retries   int // how often users have retried the execution

	active  int // steps that are ready, asked for, running or sleeping
	running int // of these, the commands handed out to be run
	asleep  int // of these, the pauses
	waiting int // open waits
	voids   int // rounds and containers given up so far
}

type stepState uint8

const (
	stepPending stepState = iota
	stepReady             // may run
	stepAsked             // its command goes out with the next Next
	stepRunning
	stepOpen // a container whose rounds are under way
	stepSleeping
	stepWaiting
	stepSucceeded
	stepFailed
	stepSkipped
)

var stepNames = [...]string{"pending", "queued", "queued", "running", "running", "sleeping", "waiting", "succeeded", "failed", "skipped"}

func (s stepState) settled() bool { return s >= stepSucceeded }

// step is one turn of a node.
type step struct {
	f       *frame
	n       *programNode
	state   stepState
	queued  bool // in State.asked
	taken   bool // an incoming edge was taken
	told    bool // an event said something of it
	pinned  bool // it was not run
	undoes  bool // it undoes another step
	late    bool // an event came after its round was given up: it changes nothing
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
	rounds  *rounds // of a container that has begun
	seed    uint64
	started time.Time
	ended   time.Time
}

// Start begins an execution. Triggers are settled at once: the one at which it enters gives the input, the others are skipped.
func (p *Program) Start(rec Record) *State {
	s := &State{p: p, rec: rec, clock: rec.Execution.CreatedAt}
	if s.rec.Flow == (FlowView{}) {
		s.rec.Flow = p.view
	}
	s.top.open(p.top, s.clock)
	input, err := Canonical(rec.Input)
	if err != nil {
		s.top.failure = &Failure{Code: "input", Message: "the input is no JSON value: " + err.Error()}
		return s
	}
	s.rec.Input = input
	entry := p.entry(rec.Execution.Trigger)
	if entry < 0 {
		s.top.failure = &Failure{Code: "no-trigger", Message: fmt.Sprintf("the execution was started by %q, but the flow has no such trigger, and more than one other", rec.Execution.Trigger)}
		return s
	}
	for _, i := range p.triggers {
		st := &s.top.steps[p.nodes[i].local]
		if i != entry {
			s.settle(st, stepSkipped, "")
			continue
		}
		st.output, st.try, st.started, st.ended = input, 1, s.clock, s.clock
		s.settle(st, stepSucceeded, PortMain)
	}
	return s
}

// Restore gives the state after these events. Of a list with checkpoints only what follows the last one's beginning counts. Events of pure nodes may be missing: these nodes
// are asked for again, and what was recorded behind them is applied when they are done. An error means that the events belong to another flow, version or execution.
func Restore(p *Program, rec Record, events []Event) (*State, error) {
	s := p.Start(rec)
	first, retry, undone := 0, -1, false
	for k := range events {
		switch e := &events[k]; {
		case e.Type == EventSum:
			first, retry, undone = k+1, -1, false
			s.clock, s.retries = later(s.clock, e.At), e.Try
		case e.Type == EventRetry && e.Node == "" && undone: // it begins anew
			first, retry, undone = k+1, -1, false
			s.clock = later(s.clock, e.At)
			s.retries++
		case e.Type == EventRetry && e.Node == "":
			retry = k
		case e.Type == EventUndo:
			undone = undone || e.Node == ""
		default:
			undone = undone || p.undoes(e.Node)
		}
	}
	s.forgiving = retry >= 0
	for k := first; k < len(events); k++ {
		if events[k].Type == EventPinned { // before its step may begin
			key := Key{Node: events[k].Node, Iteration: events[k].Iteration}
			s.keep(key, events[k])
		}
	}
	for k := first; k < len(events); k++ {
		switch e := &events[k]; {
		case e.Type == EventPinned:
			continue
		case e.Type == EventRetry && e.Node == "":
			s.retry(e, k == retry)
			continue
		case e.Type == EventUndo && e.Node == "":
			s.undo.begun = true
			continue
		case e.Type == EventUndo:
			if err := s.recall(e); err != nil {
				return nil, fmt.Errorf("event %d: %w", k, err)
			}
			continue
		}
		if err := s.replay(&events[k]); err != nil {
			return nil, fmt.Errorf("event %d: %w", k, err)
		}
	}
	return s, nil
}

// replay applies a recorded event, or keeps it until its step may run.
func (s *State) replay(e *Event) error {
	st, place, err := s.find(e)
	if err == nil && place == placeHere && st.undoes && st.state == stepPending {
		s.beginUndo(st)
	}
	if err == nil && (place == placeEarly || place == placeHere && st.state == stepPending) {
		s.prepare(nil) // what was ready before this event may have led to its step
		st, place, err = s.find(e)
	}
	if err != nil {
		return err
	}
	key := Key{Node: e.Node, Iteration: e.Iteration}
	switch {
	case place == placeOver: // what came in after its round was given up
		s.clock = later(s.clock, e.clock())
		s.undoLate(e)
	case place == placeEarly || st.state == stepPending || s.early[key] != nil:
		s.keep(key, *e)
	case e.Type == EventRetry:
		s.askAgain(st)
	case st.state.settled() && (e.Pure || e.Type == EventRounds): // recorded twice, or it follows from what was before; both are equal
	default:
		if s.prepare(st); st.f.closed {
			s.clock = later(s.clock, e.clock())
			s.undoLate(e)
			return nil
		}
		return s.consume(st, e)
	}
	return nil
}

// keep puts an event aside until its step may run.
func (s *State) keep(key Key, e Event) {
	if s.early == nil {
		s.early = map[Key][]Event{}
	}
	s.early[key] = append(s.early[key], e)
}

// ErrMisfit says that an event doesn't fit the state of its step.
var ErrMisfit = errors.New("the event doesn't fit its step")

// Next gives the commands newly asked for since the last call. Once a step has failed or stopped the execution there are none.
func (s *State) Next() []Command {
	s.prepare(nil)
	if s.Closing() {
		return s.undoNext()
	}
	if len(s.asked) == 0 {
		return nil
	}
	out := make([]Command, 0, len(s.asked))
	for _, st := range s.asked {
		st.queued = false
		if st.f.owner != nil && st.f.void() || st.state != stepAsked && st.state != stepSleeping { // an event came first
			continue
		}
		out = append(out, s.command(st))
	}
	clear(s.asked)
	s.asked = s.asked[:0]
	return out
}

// command hands a step out.
func (s *State) command(st *step) Command {
	n := st.n
	cmd := Command{Key: Key{Node: n.id, Iteration: st.f.iteration}, Type: n.typ, Version: n.version, Kind: n.kind, Config: st.config, Timeout: n.timeout, Pool: n.pool,
		Try: st.try, Retries: s.retries, Seed: st.seed, Now: st.entry, Scope: st.scope}
	cmd.Undo = st.undoes
	if st.state == stepSleeping {
		cmd.Op, cmd.Until = OpSleep, st.wait.Due
		return cmd
	}
	st.state = stepRunning
	s.run(st.f, 1)
	cmd.Op = OpRun
	if n.wants {
		cmd.Inputs = st.inputs()
	}
	if n.kind == KindWait { // what comes of it is recorded: its clock may be the execution's, however late its round began
		cmd.Now = later(cmd.Now, s.clock)
	}
	return cmd
}

// inputs gives what came in by the edges that were taken.
func (st *step) inputs() []Input {
	out := make([]Input, 0, len(st.n.inputs))
	for _, in := range st.n.inputs {
		from := &st.f.steps[in.from]
		if from.state != stepSkipped && (from.port == in.port || in.port == PortFinally && from.n.container == Try) {
			out = append(out, Input{From: from.n.id, Port: in.port, Output: from.output})
		}
	}
	return out
}

// run counts a command that is handed out (1), or came back (-1).
func (s *State) run(f *frame, by int) {
	s.running += by
	for ; f != nil; f = f.outer() {
		f.running += by
	}
}

// ask puts a step among those that the next Next asks for.
func (s *State) ask(st *step) {
	if !st.queued {
		st.queued = true
		s.asked = append(s.asked, st)
	}
}

// maxReady is how many steps that were seen to are kept in State.ready while it grows.
const maxReady = 256

// prepare evaluates the configs of the steps that may run, all but one whose event is at hand. A config that can't be evaluated fails its step: that
// follows from the events before, so it is no event itself.
func (s *State) prepare(except *step) {
	kept := false
	for k := 0; k < len(s.ready); k++ { // it grows meanwhile
		if s.Closing() {
			s.ready = append(s.ready[:0], s.ready[k:]...)
			return
		}
		if k >= maxReady { // a loop whose rounds all end here would make it very long
			s.ready = append(s.ready[:0], s.ready[k:]...)
			k = 0
		}
		st := s.ready[k]
		switch {
		case st.state != stepReady || st.f.owner != nil && st.f.void():
		case st == except:
			kept = true
		case s.early != nil && s.consumeEarly(st):
		case st.n.kind == KindContainer:
			s.turn(st)
			s.over(st.f)
		default:
			if err := s.evaluate(st); err != nil {
				s.end(st, &Failure{Code: "expression", Message: "config" + err.Error()}, st.entry)
				s.over(st.f)
				continue
			}
			st.state = stepAsked
			s.ask(st)
		}
	}
	clear(s.ready)
	s.ready = s.ready[:0]
	if kept {
		s.ready = append(s.ready, except)
	}
}

// consumeEarly applies what was recorded of a step before it was seen that it may run.
func (s *State) consumeEarly(st *step) bool {
	key := Key{Node: st.n.id, Iteration: st.f.iteration}
	events, ok := s.early[key]
	if !ok {
		return false
	}
	delete(s.early, key)
	retry, before := -1, s.forgiving
	for k := range events {
		if events[k].Type == EventRetry {
			retry = k
		}
	}
	for k := range events {
		if events[k].Type == EventRetry {
			s.askAgain(st)
			continue
		}
		if st.state.settled() && (events[k].Pure || events[k].Type == EventRounds) {
			continue
		}
		s.forgiving = before || k < retry
		if err := s.consume(st, &events[k]); err != nil && !st.f.void() { // recorded behind a pure step that now came out otherwise
			s.top.failure = &Failure{Code: "replay", Message: "the recorded events don't fit what the steps before gave when computed again: " + err.Error(), Node: st.n.id}
			break
		}
	}
	if s.forgiving = before; !before {
		s.release()
	}
	return true
}

// evaluate fills in a step's config and scope, unless an earlier try did.
func (s *State) evaluate(st *step) error {
	if st.scope != nil {
		return nil
	}
	n := st.n
	st.seed = seedOf(s.rec.Execution.ID, n.id, st.f.iteration)
	scope := &Scope{Input: s.rec.Input, Execution: s.rec.Execution, Flow: s.rec.Flow, Item: st.f.item, Index: st.f.index, InRound: st.f.inRound,
		Now: st.entry, Seed: st.seed, Formulas: n.formulas}
	scope.Steps = func(id string) (StepView, bool) { return s.look(st, id) }
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

// look shows a step another one upstream of it, in its own round or around that.
func (s *State) look(st *step, id string) (StepView, bool) {
	i, ok := s.p.index[id]
	if !ok || !st.n.upstream.has(i) {
		return StepView{}, false
	}
	f, n := st.f, &s.p.nodes[i]
	for f.scope != n.scope {
		f = f.owner.f
	}
	seen := &f.steps[n.local]
	return StepView{Output: seen.output, Port: seen.port, Error: seen.err, Status: stepNames[seen.state]}, true
}

// settle ends a step and passes on what that means: a node runs when every incoming edge is settled and one was taken, else it is skipped, and so on.
func (s *State) settle(st *step, as stepState, port string) {
	st.state, st.port = as, port
	steps := st.f.steps
	todo := append(s.todo[:0], st)
	for len(todo) > 0 {
		st = todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		edges := st.n.edges
		for k := range edges {
			e := &edges[k]
			to := &steps[e.to]
			to.settled++
			to.taken = to.taken || st.state != stepSkipped && (e.port == st.port || e.port == portAny)
			if st.last.After(to.entry) {
				to.entry, to.last = st.last, st.last
			}
			switch {
			case int(to.settled) < to.n.incoming:
			case !to.taken:
				to.state = stepSkipped
				todo = append(todo, to)
			case to.n.kind == kindGate:
				to.state, to.port = stepSucceeded, PortMain
				todo = append(todo, to)
			default:
				s.begin(to)
			}
		}
	}
	s.todo = todo
}

// begin lets a step run.
func (s *State) begin(st *step) {
	st.state, st.try = stepReady, 1
	st.f.busy++
	s.active++
	s.ready = append(s.ready, st)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

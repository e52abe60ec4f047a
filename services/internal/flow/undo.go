package flow

import (
	"fmt"
	"strconv"
)

// MaxUndo bounds how many steps an execution may have to undo: each is kept, with the configuration of its compensation, until the execution ends.
const MaxUndo = 10_000

// undo is what an execution has to undo, should it come to a bad end: one step for each that succeeded and has a compensation, in the order in which those
// ended. They stand in no round: rounds are forgotten, these aren't. Their configs are evaluated when the step that they undo succeeds.
type undo struct {
	steps   []*step
	byKey   map[Key]*step
	begun   bool // the execution is undone though none of its steps failed it: it was cancelled, or its time is over
	failed  *step
	failing int                    // compensations that failed
	closed  map[closedRound]*frame // rounds that were given up with steps in flight whose success would have to be undone
}

type closedRound struct {
	scope     *programScope
	iteration string
}

// closing keeps a round that is given up, if what comes in later may have to be undone.
func (s *State) closing(f *frame) {
	for i := range f.steps {
		if st := &f.steps[i]; st.n.undo != nil && !st.state.settled() {
			if s.undo.closed == nil {
				s.undo.closed = map[closedRound]*frame{}
			}
			s.undo.closed[closedRound{f.scope, f.iteration}] = f
			return
		}
	}
}

// undoLate takes in that a step succeeded though its round had been given up.
func (s *State) undoLate(e *Event) {
	n := &s.p.nodes[s.p.index[e.Node]]
	f := s.undo.closed[closedRound{n.scope, e.Iteration}]
	if e.Type != EventSucceeded || n.undo == nil || f == nil {
		return
	}
	st := &f.steps[n.local]
	if output, err := CanonicalWithin(e.Output, MaxValueBytes); err == nil && !st.state.settled() {
		st.state, st.output, st.port, st.last = stepSucceeded, output, e.Port, later(st.last, e.clock())
		s.undone(st)
	}
}

// undone takes in that a step has succeeded.
func (s *State) undone(st *step) {
	c := st.n.undo
	if c == nil || st.state != stepSucceeded || st.pinned {
		return
	}
	key := Key{Node: c.id, Iteration: st.f.iteration}
	if s.undo.byKey[key] != nil {
		return
	}
	seen := &step{f: st.f, n: c, entry: st.last}
	err := s.evaluate(seen)
	u := s.toUndo(key, c)
	u.entry, u.last, u.config, u.scope, u.seed = st.last, st.last, seen.config, seen.scope, seen.seed
	if err != nil {
		u.err = &Failure{Code: "expression", Message: "config" + err.Error(), Node: c.id}
	}
	if len(s.undo.steps) > MaxUndo && s.top.failure == nil {
		s.top.failure = &Failure{Code: "undo", Node: st.n.id, Message: fmt.Sprintf("more than %d steps would have to be undone: let a loop do less, or undo in a flow of its own", MaxUndo)}
	}
}

func (s *State) toUndo(key Key, c *programNode) *step {
	f := &frame{scope: c.scope, iteration: key.Iteration, steps: make([]step, 1)}
	u := &f.steps[0]
	u.f, u.n, u.undoes = f, c, true
	if s.undo.byKey == nil {
		s.undo.byKey = map[Key]*step{}
	}
	s.undo.byKey[key] = u
	s.undo.steps = append(s.undo.steps, u)
	return u
}

// recall takes in what a checkpoint says is to be undone.
func (s *State) recall(e *Event) error {
	i, ok := s.p.index[e.Node]
	if !ok || s.p.nodes[i].undoes == nil {
		return fmt.Errorf("%w: the flow has no compensation %q", ErrMisfit, e.Node)
	}
	key := Key{Node: e.Node, Iteration: e.Iteration}
	if s.undo.byKey[key] != nil {
		return nil
	}
	c := &s.p.nodes[i]
	u := s.toUndo(key, c)
	u.entry, u.last, u.err = e.At, e.At, e.Error
	u.config, _ = e.Output.(map[string]any)
	u.seed = seedOf(s.rec.Execution.ID, c.id, key.Iteration)
	u.scope = &Scope{Input: s.rec.Input, Execution: s.rec.Execution, Flow: s.rec.Flow, Now: u.entry, Seed: u.seed,
		Steps: func(string) (StepView, bool) { return StepView{}, false }}
	return nil
}

// Undoes tells whether anything would have to be undone now, should the execution come to a bad end.
func (s *State) Undoes() bool { return s.nextUndo() != nil }

// Undoing tells that the execution has come to a bad end and that what it did is being undone: it is over when nothing is left of that.
func (s *State) Undoing() bool {
	return !s.stopped && (s.top.failure != nil || s.undo.begun) && s.nextUndo() != nil
}

// Undone says what could not be undone; "": nothing.
func (s *State) Undone() string {
	f := s.undo.failed
	if f == nil {
		return ""
	}
	where := ""
	if f.f.iteration != "" {
		where = " (round " + f.f.iteration + ")"
	}
	more := ""
	if s.undo.failing > 1 {
		more = " and " + strconv.Itoa(s.undo.failing-1) + " more"
	}
	return fmt.Sprintf("undoing failed: %s%s: %s%s", f.n.id, where, f.err.Message, more)
}

// nextUndo is the step to undo next, or the one that is being undone: the last first, one after the other.
func (s *State) nextUndo() *step {
	for k := len(s.undo.steps) - 1; k >= 0; k-- {
		if u := s.undo.steps[k]; !u.state.settled() {
			return u
		}
	}
	return nil
}

// undoNext gives the command of the compensation whose turn it is, once nothing else is in flight.
func (s *State) undoNext() []Command {
	for s.Undoing() && s.running == 0 {
		u := s.nextUndo()
		if u.state == stepPending {
			if s.beginUndo(u); u.err != nil && u.config == nil { // its config couldn't be evaluated
				s.end(u, u.err, u.entry)
				continue
			}
		}
		if u.state != stepSleeping && u.state != stepReady && u.state != stepAsked || u.state == stepSleeping && !u.queued {
			return nil
		}
		u.queued = false
		return []Command{s.command(u)}
	}
	return nil
}

func (s *State) beginUndo(u *step) {
	u.state, u.try = stepAsked, 1
	u.f.busy++
	s.active++
}

// sumUndo tells of what is to be undone; it comes first, so that the steps that it undoes don't make it anew.
func (s *State) sumUndo(out []Event) []Event {
	for _, u := range s.undo.steps {
		e := Event{Type: EventUndo, Node: u.n.id, Iteration: u.f.iteration, At: u.entry, Sum: true}
		if u.config != nil {
			e.Output = u.config
		} else {
			e.Error = u.err
		}
		out = append(out, e)
	}
	return out
}

// sumUndone tells how far undoing is.
func (s *State) sumUndone(out []Event) []Event {
	if s.undo.begun {
		out = append(out, Event{Type: EventUndo, At: s.clock, Sum: true})
	}
	for k := len(s.undo.steps) - 1; k >= 0; k-- {
		out = s.sumStep(out, s.undo.steps[k])
	}
	return out
}

// undo checks a node's compensation.
func (c *compiler) undo(i int) {
	n, pn := &c.def.Nodes[i], &c.p.nodes[i]
	if n.Compensate == "" {
		return
	}
	ptr := "/nodes/" + strconv.Itoa(i) + "/compensate"
	j, ok := c.p.index[n.Compensate]
	if !ok {
		ids := make([]string, 0, len(c.def.Nodes))
		for k := range c.def.Nodes {
			ids = append(ids, c.def.Nodes[k].ID)
		}
		c.add(ptr, "unknown-node", "there is no node %s%s", describe(n.Compensate), DidYouMean(n.Compensate, ids))
		return
	}
	comp, def := &c.p.nodes[j], &c.def.Nodes[j]
	edge := func(e Edge) bool { return e.From == comp.id || e.To == comp.id }
	switch {
	case c.broken[i] || c.broken[j]:
	case pn.kind != KindEffect && pn.kind != KindWait:
		c.add(ptr, "compensation", "%s is a %s and changes nothing outside, so there is nothing to undo: remove compensate", n.ID, n.Type)
	case int(j) == i:
		c.add(ptr, "compensation", "a node can't undo itself: name another one")
	case comp.kind == KindTrigger || comp.kind == KindContainer:
		c.add(ptr, "compensation", "%s is a %s, which can't undo anything: name a node that acts", comp.id, comp.typ)
	case def.Compensate != "":
		c.add(ptr, "compensation", "%s undoes %s, so it can't be undone itself: remove its compensate", comp.id, n.ID)
	case comp.parent != pn.parent:
		c.add(ptr, "compensation", "%s is %s and %s is %s: a node and what undoes it belong into the same container", n.ID, c.where(pn), comp.id, c.where(comp))
	case c.taken(j):
		c.add(ptr, "compensation", "%s undoes %s already: give each node a compensation of its own", comp.id, c.p.nodes[c.undoes[j]].id)
	case c.anyEdge(edge):
		c.add(ptr, "compensation", "an edge leads to or from %s: what undoes a step runs only when the execution comes to a bad end, so it has no edges; remove them", comp.id)
	case def.OnError != "" && def.OnError != OnErrorFail:
		c.add(ptr, "compensation", "%s undoes a step: its failure is told, and the others are undone all the same; remove its onError", comp.id)
	default:
		if c.undoes == nil {
			c.undoes = map[int32]int32{}
		}
		c.undoes[j], c.p.undone = int32(i), true
	}
}

func (c *compiler) anyEdge(is func(Edge) bool) bool {
	for _, e := range c.def.Edges {
		if is(e) {
			return true
		}
	}
	return false
}

// seeUndone lets compensations see what the steps that they undo saw, and what those gave.
func (c *compiler) seeUndone() {
	for j, i := range c.undoes {
		up := c.p.nodes[j].upstream
		up.add(c.p.nodes[i].upstream)
		up.set(i)
	}
}

// taken tells whether a node undoes another.
func (c *compiler) taken(j int32) bool {
	_, ok := c.undoes[j]
	return ok
}

// undoes tells whether a node is a compensation.
func (p *Program) undoes(id string) bool {
	i, ok := p.index[id]
	return ok && p.nodes[i].undoes != nil
}

package flow

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Replay gives the events with which a new execution of p begins that repeats an old one, of which rec and events tell, from a node on: that node and all
// that comes after it run again, and so does what had not come to its end; all other nodes keep what they gave. from "" repeats everything. outputs are pins:
// these nodes don't run, and count as done with the output given; an object that has only "port" (a text) and perhaps "output" names the port, too. A container is kept, or runs again, as a whole.
//
// Only nodes outside containers may be named. Of the events, those of nodes that p doesn't have are left out, so p may be another version than the old execution's.
// Problems point to /fromNode and /outputs/<node>.
func Replay(p *Program, rec Record, events []Event, from string, outputs map[string]any) ([]Event, []Problem) {
	r := replay{p: p}
	start := r.node("/fromNode", from)
	var pins []Event
	for _, id := range slices.Sorted(maps.Keys(outputs)) {
		if e, ok := r.pin(id, outputs[id]); ok {
			pins = append(pins, e)
		}
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	if from == "" {
		return pins, nil
	}
	old, err := Restore(p, rec, r.known(events))
	if err != nil {
		return nil, []Problem{{Pointer: "/fromNode", Code: "misfit",
			Message: fmt.Sprintf("what the old execution recorded doesn't fit this version of the flow, so nothing of it can be kept: %v; replay from the beginning, or on the version that it ran", err)}}
	}
	var out []Event
	for _, n := range p.top.nodes {
		i, ok := p.index[n.id]
		if !ok || i == start || n.kind == KindTrigger || n.upstream.has(start) {
			continue
		}
		if _, pinned := outputs[n.id]; pinned {
			continue
		}
		if e, ok := old.top.steps[n.local].whole(); ok {
			out = append(out, e)
		}
	}
	return append(out, pins...), nil
}

type replay struct {
	p        *Program
	problems []Problem
}

func (r *replay) add(ptr, code, format string, args ...any) {
	r.problems = append(r.problems, Problem{Pointer: ptr, Code: code, Message: fmt.Sprintf(format, args...)})
}

// node finds a node that a user has named; "" is none.
func (r *replay) node(ptr, id string) int32 {
	if id == "" {
		return -1
	}
	i, ok := r.p.index[id]
	if !ok {
		ids := slices.Collect(maps.Keys(r.p.index))
		slices.Sort(ids)
		r.add(ptr, "unknown-node", "the flow has no node %s%s", describe(id), DidYouMean(id, ids))
		return -1
	}
	if n := &r.p.nodes[i]; n.undoes != nil {
		r.add(ptr, "compensation", "%s undoes %s and isn't part of the normal run: name another node", id, n.undoes.id)
	} else if n.parent >= 0 {
		r.add(ptr, "inside-container", "%s is inside %s, and a container runs again as a whole: name %s", id, r.p.nodes[n.parent].id, r.outermost(n))
	}
	return i
}

func (r *replay) outermost(n *programNode) string {
	for n.parent >= 0 {
		n = &r.p.nodes[n.parent]
	}
	return n.id
}

// pin makes the event of a node whose output a user gives.
func (r *replay) pin(id string, value any) (Event, bool) {
	ptr := "/outputs/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(id)
	before := len(r.problems)
	i := r.node(ptr, id)
	if id == "" {
		r.add(ptr, "unknown-node", "the name of a node is empty")
	}
	if len(r.problems) > before {
		return Event{}, false
	}
	n := &r.p.nodes[i]
	if n.kind == KindTrigger {
		r.add(ptr, "trigger", "%s is a trigger, its output is the execution's input: give another input", id)
		return Event{}, false
	}
	e := Event{Type: EventPinned, Node: id, Port: PortMain, Output: value}
	if m, ok := value.(map[string]any); ok {
		_, hasOutput := m["output"]
		if port, ok := m["port"].(string); ok && (len(m) == 1 || len(m) == 2 && hasOutput) {
			e.Port, e.Output = port, m["output"]
		}
	}
	if !slices.Contains(n.ports, e.Port) {
		r.add(ptr, "unknown-port", `%s has no port %s, it has: %s; name one, as in {"port": %q, "output": …}`, id, describe(e.Port), strings.Join(n.ports, ", "), n.ports[0])
		return Event{}, false
	}
	value, err := CanonicalWithin(e.Output, MaxValueBytes)
	if err != nil {
		r.add(ptr, "output", "the output can't be kept: %v", err)
		return Event{}, false
	}
	e.Output = value
	return e, true
}

// known leaves out the events of nodes that the program doesn't have, or has elsewhere.
func (r *replay) known(events []Event) []Event {
	out := make([]Event, 0, len(events))
	for _, e := range events {
		if i, ok := r.p.index[e.Node]; ok || e.Node == "" {
			if ok && r.p.nodes[i].scope.depth != depthOf(e.Iteration) {
				continue
			}
			out = append(out, e)
		}
	}
	return out
}

func depthOf(iteration string) int {
	if iteration == "" {
		return 0
	}
	return strings.Count(iteration, ".") + 1
}

// whole is what a step came to, if it has come to its end and that isn't the execution's: how it did so is left out.
func (st *step) whole() (Event, bool) {
	e := Event{Type: EventPinned, Node: st.n.id, Try: st.try, At: st.ended, Started: st.started, Error: st.err}
	switch {
	case st.state == stepSucceeded && st.n.kind != kindGate:
		e.Port, e.Output = st.port, st.output
	case st.state == stepFailed && !st.deadly():
	default:
		return Event{}, false
	}
	if st.last.After(e.At) {
		e.Last = st.last
	}
	return e, true
}

package sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// shape is a flow of the simulation. Its drawing: nodes in a row, [a|b] are parallel branches.
//
//	e  effect                         x  effect that fails for good now and then: the execution fails
//	p  pure                           c  effect that fails for good now and then, and the flow goes on
//	t  timer                          v  effect whose value the database refuses now and then
//	r  effect that fails now and      o  effect that is too slow now and then, and is tried again
//	   then and is tried again        k  effect that kills its worker
//	   (soon, or after a while)       g  effect of another pool
//	u  effect that has z to undo it
//	s  signal by a key                a  signal to the execution
//	h  calls another, and waits for it
//	m  remote task                    q  remote task with a timeout that is tried again
//	(ep) a loop over rounds items, two at once, with these nodes inside
type shape struct {
	drawing string
	program *flow.Program
}

var drawings = []string{"pepetepe", "ppe", "ptep", "[ee|pe]e", "[et|re]p", "rer", "pp", "[e|e|t]e", "tt", "[ex|pee]e", "[c|pe]oe", "veep", "p(epr)e", "(te)", "e(xep)", "sp", "[s|e]ae", "ehp", "[h|ea]p", "[(ee)|e]t(e)", "egpge", "[eg|te]g", "utpux", "[u|ux]e", "u(ue)tx"}

// checkpointAfter is how many bytes of events a run of the simulation records before it makes a checkpoint.
const checkpointAfter = 400

// rounds that a loop makes.
const rounds = 3

// poisonous shapes are only for the histories that ask for them.
var poisonous = []string{"ek"}

// otherPool is that of g nodes; its workers take nothing else.
const otherPool = "other"

func isEffect(c rune) bool { return strings.ContainsRune("ercovxkguz", c) }

var shapes = sync.OnceValue(func() []shape {
	var out []shape
	for _, d := range slices.Concat(drawings, poisonous, remoteDrawings) {
		out = append(out, shape{d, compile(d)})
	}
	return out
})

type types struct{}

func (types) Lookup(typ string, _ int) (flow.NodeType, bool) {
	kinds := map[string]flow.Kind{"trigger.manual": flow.KindTrigger, "sim.pure": flow.KindPure, "sim.effect": flow.KindEffect, "sim.timer": flow.KindWait, "sim.remote": flow.KindWait}
	if typ == "sim.each" {
		return flow.NodeType{Type: typ, Version: 1, Kind: flow.KindContainer, Container: flow.Foreach}, true
	}
	if typ == "sim.signal" {
		return flow.NodeType{Type: typ, Version: 1, Kind: flow.KindWait, Ports: func(map[string]any) []string { return []string{flow.PortMain, protocol.PortExpired} }}, true
	}
	k, ok := kinds[typ]
	return flow.NodeType{Type: typ, Version: 1, Kind: k}, ok
}

type noLanguage struct{}

func (noLanguage) Compile(string) (flow.Expression, error) {
	return nil, fmt.Errorf("the simulation's flows have no expressions")
}

func compile(drawing string) *flow.Program {
	d := &flow.Definition{Name: drawing, Nodes: []flow.Node{{ID: "start", Type: "trigger.manual"}}}
	n := 0
	chain := func(part string, from []string) string {
		loop := ""
		for _, c := range part {
			if c == ')' {
				from, loop = []string{loop}, ""
				continue
			}
			n++
			node := flow.Node{ID: fmt.Sprintf("%c%d", c, n), Parent: loop}
			switch c {
			case '(':
				node.ID, node.Type = fmt.Sprintf("loop%d", n), "sim.each"
				node.Config = map[string]any{"items": make([]any, rounds), "concurrency": 2, "onItemError": flow.OnItemContinue}
			case 'p':
				node.Type = "sim.pure"
			case 't':
				node.Type = "sim.timer"
			case 's', 'a':
				node.Type = "sim.signal"
			case 'm', 'q':
				node.Type = "sim.remote"
			default:
				node.Type = "sim.effect"
			}
			if c == 'c' {
				node.OnError = flow.OnErrorContinue
			}
			if c == 'g' {
				node.Pool = otherPool
			}
			if c == 'o' {
				node.Timeout = flow.Duration(ticks(tooSlow))
			}
			if c == 'r' || c == 'o' { // the second try comes soon, in memory; the third after a suspend
				node.Retry = &flow.Retry{MaxAttempts: 6, Backoff: "exponential", InitialDelay: flow.Duration(600 * time.Millisecond), MaxDelay: flow.Duration(4 * time.Second)}
			}
			if c == 'q' {
				node.Timeout, node.Retry = flow.Duration(ticks(remoteTimeout)), remoteRetry
			}
			if c == 'u' { // z is in no drawing
				node.Compensate = fmt.Sprintf("z%d", n)
				d.Nodes = append(d.Nodes, flow.Node{ID: node.Compensate, Type: "sim.effect", Parent: loop,
					Retry: &flow.Retry{MaxAttempts: 6, Backoff: "exponential", InitialDelay: flow.Duration(600 * time.Millisecond), MaxDelay: flow.Duration(4 * time.Second)}})
			}
			d.Nodes = append(d.Nodes, node)
			for _, f := range from {
				d.Edges = append(d.Edges, flow.Edge{From: f, To: node.ID})
			}
			from = []string{node.ID}
			if c == '(' {
				from, loop = nil, node.ID
			}
		}
		return from[0]
	}
	from := []string{"start"}
	for rest := drawing; rest != ""; {
		if rest[0] != '[' {
			i := strings.IndexByte(rest, '[')
			if i < 0 {
				i = len(rest)
			}
			from = []string{chain(rest[:i], from)}
			rest = rest[i:]
			continue
		}
		end := strings.IndexByte(rest, ']')
		var ends []string
		for _, branch := range strings.Split(rest[1:end], "|") {
			ends = append(ends, chain(branch, from))
		}
		from, rest = ends, rest[end+1:]
	}
	p, problems := flow.Compile(d, flow.FlowView{ID: drawing, Name: drawing, Version: 1}, types{}, noLanguage{})
	if len(problems) > 0 {
		panic(fmt.Sprintf("shape %s: %+v", drawing, problems))
	}
	return p
}

// effectsOf lists the effects of a shape as placeOf names them.
func effectsOf(shape int) []string {
	var out []string
	n, inside, failing := 0, false, false
	drawing := shapes()[shape].drawing
	for i, c := range drawing {
		switch c {
		case '[', '|', ']':
			continue
		case ')':
			inside = false
			continue
		}
		n++
		if c == '(' { // a round in which an effect fails for good is passed over, and what would come after it with it
			inside = true
			failing = strings.ContainsAny(drawing[i:i+strings.IndexByte(drawing[i:], ')')], "xmq")
		}
		for i := range rounds {
			switch {
			case !isEffect(c) || inside && failing:
			case inside:
				out = append(out, fmt.Sprintf("%c%d.%d", c, n, i))
			case i == 0:
				out = append(out, fmt.Sprintf("%c%d", c, n))
			}
		}
	}
	return out
}

// placeOf names a turn of a node.
func placeOf(node, iteration string) string {
	if iteration == "" {
		return node
	}
	return node + "." + iteration
}

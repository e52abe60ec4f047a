package flow

import "time"

// Program is a flow that Compile accepted: immutable, and shared by all executions of its version, in any number of goroutines.
type Program struct {
	def      *Definition
	view     FlowView
	nodes    []programNode // those of the document in its order, then gates
	index    map[string]int32
	triggers []int32
	top      *programScope
	undone   bool           // some node has a compensation
	limits   *programLimits // nil: no flow control
}

// programScope is the flow of the top, or the small one inside a container.
type programScope struct {
	owner *programNode  // the container; nil: the top
	outer *programScope // nil: this is the top
	depth int
	nodes []*programNode
	first []int32 // of nodes, those without an incoming edge, but for triggers
}

// programNode is a node with everything that was computed once.
type programNode struct {
	id        string
	typ       string
	version   int
	kind      Kind
	container Container
	ports     []string // those that it may leave by
	onError   string
	timeout   time.Duration
	retry     *Retry
	undo      *programNode // its compensation
	undoes    *programNode // of a compensation: the node that it undoes
	pool      string       // of an effect that must run in another pool than the flow's, or in its own for certain
	config    *template
	wants     bool           // its commands carry Inputs
	constant  map[string]any // the config, when it holds no expression
	formulas  map[string]*Formula
	inputs    []programInput // of types that ask for them: the edges in, in the order of the document
	incoming  int
	edges     []programEdge
	upstream  bitset // by index in Program.nodes
	parent    int32  // index in Program.nodes; -1: none
	scope     *programScope
	local     int32         // index in scope.nodes
	inner     *programScope // of a container
}

// programEdge leads to a node of the same scope: while Compile works by its index in Program.nodes, then by that in the scope.
type programEdge struct {
	port string
	to   int32
}

// programInput is an edge as its target sees it.
type programInput struct {
	from int32
	port string
}

const (
	// kindGate is the kind of a node that no document has: it lies between a container and what follows by its port finally, and is settled
	// when the container is, and all that follows by its other ports.
	kindGate Kind = "gate"
	// portAny is the port of edges into a gate that are taken by whatever port their node leaves.
	portAny = "*"
	// portNone is that of edges into a gate that are never taken, but waited for.
	portNone = ""
)

// bitset of node indexes.
type bitset []uint64

func (b bitset) has(i int32) bool { return b[i>>6]&(1<<(i&63)) != 0 }
func (b bitset) set(i int32)      { b[i>>6] |= 1 << (i & 63) }
func (b bitset) add(other bitset) {
	for i, w := range other {
		b[i] |= w
	}
}

// Definition is the document that the program was made of, with every typeVersion filled in. It must not be changed.
func (p *Program) Definition() *Definition { return p.def }

// Flow is how expressions see the flow.
func (p *Program) Flow() FlowView { return p.view }

// Has tells whether any node is of a kind: a program without effects and waits never claims.
func (p *Program) Has(k Kind) bool {
	for i := range p.nodes {
		if p.nodes[i].kind == k {
			return true
		}
	}
	return false
}

// Undoes tells whether any node has a compensation: a cancelled execution then isn't ended at once, its compensations run first.
func (p *Program) Undoes() bool { return p.undone }

// Entry names the trigger node at which an execution started by trigger enters: the trigger node with that id, else the one of type "trigger.<trigger>", else
// the only one. false: there is none, and Start would give a failed execution.
func (p *Program) Entry(trigger string) (id string, ok bool) {
	i := p.entry(trigger)
	if i < 0 {
		return "", false
	}
	return p.nodes[i].id, true
}

func (p *Program) entry(trigger string) int32 {
	if i, ok := p.index[trigger]; ok && p.nodes[i].kind == KindTrigger {
		return i
	}
	for _, i := range p.triggers {
		if p.nodes[i].typ == "trigger."+trigger {
			return i
		}
	}
	if len(p.triggers) == 1 {
		return p.triggers[0]
	}
	return -1
}

// Loops tells whether any node is a container: the execution may then take any number of steps.
func (p *Program) Loops() bool { return p.Has(KindContainer) }

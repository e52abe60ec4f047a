package flow

import (
	"slices"
	"strconv"
	"strings"
)

// maxContainers is how deep containers may stand in each other.
const maxContainers = 8

// container checks what only containers may not have.
func (c *compiler) container(ptr string, n *Node) {
	if n.Retry != nil {
		c.add(ptr+"/retry", "container", "a container is not tried again as a whole: set retry on the nodes inside it")
	}
	if n.Timeout != 0 {
		c.add(ptr+"/timeout", "container", "a container has no timeout of its own: set it on the nodes inside it, or settings.timeout for the whole flow")
	}
	if n.Type == "logic.try" && n.OnError != "" && n.OnError != OnErrorFail {
		c.add(ptr+"/onError", "container", "a try leaves by its port error when a node in it fails: remove onError")
	}
}

// parents finds each node's container.
func (c *compiler) parents() {
	children := make([]int, len(c.p.nodes))
	ids := make([]string, 0, len(c.def.Nodes))
	for i := range c.def.Nodes {
		if c.p.nodes[i].kind == KindContainer {
			ids = append(ids, c.def.Nodes[i].ID)
		}
	}
	for i := range c.def.Nodes {
		n, pn := &c.def.Nodes[i], &c.p.nodes[i]
		if n.Parent == "" {
			continue
		}
		ptr := "/nodes/" + strconv.Itoa(i) + "/parent"
		parent, ok := c.p.index[n.Parent]
		switch {
		case !ok:
			c.add(ptr, "unknown-node", "there is no node %s%s", describe(n.Parent), DidYouMean(n.Parent, ids))
		case c.broken[parent]:
		case c.p.nodes[parent].kind != KindContainer:
			c.add(ptr, "not-a-container", "%s is a %s: only nodes like logic.foreach, logic.while and logic.try have others inside", n.Parent, c.p.nodes[parent].typ)
		case pn.kind == KindTrigger:
			c.add(ptr, "trigger", "a trigger starts the whole flow, so it can't be inside a container: remove parent")
		default:
			pn.parent = parent
			children[parent]++
			continue
		}
		c.broken[i] = true
	}
	for i := range c.def.Nodes {
		if c.depth(int32(i)) > maxContainers {
			c.tooDeep(i)
		}
	}
	for i := range c.def.Nodes {
		n := &c.p.nodes[i]
		inside := func(m Node) bool { return m.Parent == n.id }
		if n.kind == KindContainer && children[i] == 0 && !c.broken[i] && !slices.ContainsFunc(c.def.Nodes, inside) {
			c.add("/nodes/"+strconv.Itoa(i), "empty-container", "nothing is inside %s: give at least one node the parent %q", n.id, n.id)
		}
	}
}

// depth counts the containers around a node; more than maxContainers when they stand in a circle.
func (c *compiler) depth(i int32) int {
	d := 0
	for p := c.p.nodes[i].parent; p >= 0 && d <= maxContainers; p = c.p.nodes[p].parent {
		d++
	}
	return d
}

func (c *compiler) tooDeep(i int) {
	ptr := "/nodes/" + strconv.Itoa(i) + "/parent"
	n := &c.p.nodes[i]
	path := []string{n.id}
	for p := n.parent; p >= 0; p = c.p.nodes[p].parent {
		if slices.Contains(path, c.p.nodes[p].id) {
			c.add(ptr, "parent-cycle", "containers stand in each other in a circle: %s", strings.Join(append(path, c.p.nodes[p].id), " in "))
			n.parent, c.broken[i] = -1, true
			return
		}
		path = append(path, c.p.nodes[p].id)
	}
	c.add(ptr, "too-deep", "%s is inside %d containers, the most is %d", n.id, len(path)-1, maxContainers)
	n.parent, c.broken[i] = -1, true
}

// surrounds tells whether node i is inside container j, at whatever depth.
func (c *compiler) surrounds(j, i int32) bool {
	for p := c.p.nodes[i].parent; p >= 0; p = c.p.nodes[p].parent {
		if p == j {
			return true
		}
	}
	return false
}

// crossing judges an edge between two scopes.
func (c *compiler) crossing(ptr string, from, to int32) {
	if c.broken[from] || c.broken[to] { // its parent is what is wrong
		return
	}
	a, b := &c.p.nodes[from], &c.p.nodes[to]
	switch {
	case b.parent == from:
		c.add(ptr, "edge-crosses", "%s is inside %s: nodes without an edge into them are a container's first ones, so this edge isn't needed; remove it", b.id, a.id)
	case a.parent == to:
		c.add(ptr, "edge-crosses", "%s is inside %s: a round ends by itself when all in it is settled, so this edge isn't needed; remove it", a.id, b.id)
	default:
		c.add(ptr, "edge-crosses", "%s is %s and %s is %s: edges don't cross containers; lead the edge to or from the container itself", a.id, c.where(a), b.id, c.where(b))
	}
}

func (c *compiler) where(n *programNode) string {
	if n.parent < 0 {
		return "in no container"
	}
	return "inside " + c.p.nodes[n.parent].id
}

// gates puts a gate between each container with edges by finally and what they lead to. It waits for all that follows by the other ports and not by
// finally, so "always, after the other" needs no rule of its own while an execution runs.
func (c *compiler) gates() {
	for i := range c.def.Nodes {
		n := &c.p.nodes[i]
		if n.container != Try || !slices.ContainsFunc(n.edges, isFinally) {
			continue
		}
		before := c.reach(n, func(e programEdge) bool { return !isFinally(e) })
		after := c.reach(n, isFinally)
		g := int32(len(c.p.nodes))
		gate := programNode{kind: kindGate, ports: []string{PortMain}, parent: n.parent, incoming: 1}
		own := []programEdge{{port: portAny, to: g}}
		for _, e := range n.edges {
			if isFinally(e) {
				gate.edges = append(gate.edges, programEdge{port: PortMain, to: e.to})
			} else {
				own = append(own, e)
			}
		}
		n.edges = own
		for j := range c.p.nodes {
			if before[j] && !after[j] {
				c.p.nodes[j].edges = append(c.p.nodes[j].edges, programEdge{port: portNone, to: g})
				gate.incoming++
			}
		}
		c.p.nodes = append(c.p.nodes, gate)
	}
}

func isFinally(e programEdge) bool { return e.port == PortFinally }

// reach marks what comes after a node by the edges that first allows.
func (c *compiler) reach(n *programNode, first func(programEdge) bool) []bool {
	seen := make([]bool, len(c.p.nodes))
	var todo []int32
	visit := func(to int32) {
		if !seen[to] {
			seen[to] = true
			todo = append(todo, to)
		}
	}
	for _, e := range n.edges {
		if first(e) {
			visit(e.to)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, e := range c.p.nodes[i].edges {
			visit(e.to)
		}
	}
	return seen
}

// link makes the scopes, and edges that count within them.
func (c *compiler) link() {
	p := c.p
	p.top = &programScope{}
	for j, i := range c.undoes {
		p.nodes[i].undo, p.nodes[j].undoes = &p.nodes[j], &p.nodes[i]
	}
	for i := range p.nodes {
		if p.nodes[i].kind == KindContainer {
			p.nodes[i].inner = &programScope{owner: &p.nodes[i], depth: c.depth(int32(i)) + 1}
		}
	}
	for i := range p.nodes {
		n := &p.nodes[i]
		n.scope = p.top
		if n.parent >= 0 {
			n.scope = p.nodes[n.parent].inner
		}
		if n.inner != nil {
			n.inner.outer = n.scope
		}
		n.local = int32(len(n.scope.nodes))
		n.scope.nodes = append(n.scope.nodes, n)
		if n.incoming == 0 && n.kind != KindTrigger && n.undoes == nil {
			n.scope.first = append(n.scope.first, n.local)
		}
	}
	for i := range p.nodes {
		n := &p.nodes[i]
		for k := range n.edges {
			n.edges[k].to = p.nodes[n.edges[k].to].local
		}
		for k := range n.inputs {
			n.inputs[k].from = p.nodes[n.inputs[k].from].local
		}
	}
}

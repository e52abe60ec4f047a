package flow

import (
	"slices"
	"strconv"
	"strings"
)

// edges checks each edge by itself and gives the good ones to the program.
func (c *compiler) edges() {
	ids := make([]string, 0, len(c.def.Nodes))
	for i := range c.def.Nodes {
		ids = append(ids, c.def.Nodes[i].ID)
	}
	seen := make(map[Edge]int, len(c.def.Edges))
	for k, e := range c.def.Edges {
		ptr := "/edges/" + strconv.Itoa(k)
		if e.Port == "" {
			e.Port = PortMain
		}
		if first, twice := seen[e]; twice {
			c.add(ptr, "duplicate-edge", "edge %d is the same", first)
			continue
		}
		seen[e] = k
		from, okFrom := c.p.index[e.From]
		to, okTo := c.p.index[e.To]
		if !okFrom {
			c.add(ptr+"/from", "unknown-node", "there is no node %s%s", describe(e.From), DidYouMean(e.From, ids))
		}
		if !okTo {
			c.add(ptr+"/to", "unknown-node", "there is no node %s%s", describe(e.To), DidYouMean(e.To, ids))
		}
		if !okFrom || !okTo {
			continue
		}
		source, target := &c.p.nodes[from], &c.p.nodes[to]
		if !c.broken[from] && !slices.Contains(source.ports, e.Port) {
			c.unknownPort(ptr, source, e.Port)
			continue
		}
		if source.parent != target.parent {
			c.crossing(ptr, from, to)
			continue
		}
		if target.kind == KindTrigger {
			c.add(ptr+"/to", "edge-into-trigger", "%s is a trigger: executions begin there, no edge leads into it", e.To)
			continue
		}
		source.edges = append(source.edges, programEdge{port: e.Port, to: to})
		target.incoming++
		if target.wants {
			target.inputs = append(target.inputs, programInput{from: from, port: e.Port})
		}
	}
}

func (c *compiler) unknownPort(ptr string, n *programNode, port string) {
	if port == PortError {
		c.add(ptr+"/port", "unknown-port", `%s leaves by port "error" only with "onError": "route"`, n.id)
		return
	}
	c.add(ptr+"/port", "unknown-port", "%s (%s) has no port %s, it has: %s%s", n.id, n.typ, describe(port), strings.Join(n.ports, ", "), DidYouMean(port, n.ports))
}

// graph checks what the edges make together, and computes what lies upstream of each node.
func (c *compiler) graph() {
	noTrigger := len(c.p.triggers) == 0
	if noTrigger && !slices.Contains(c.broken, true) {
		c.add("/nodes", "no-trigger", "the flow has no trigger, so nothing could start it: add a trigger.manual")
	}
	for i := range c.p.nodes {
		n := &c.p.nodes[i]
		if !noTrigger && n.incoming == 0 && n.parent < 0 && n.kind != KindTrigger && !c.taken(int32(i)) && !c.broken[i] && !c.named(n.id) && !c.undoing(n.id) {
			c.add("/nodes/"+strconv.Itoa(i), "unreachable", "no edge leads to %s, so it would never run: connect it, or remove it", n.id)
		}
		if n.container == Try && !c.broken[i] && !slices.ContainsFunc(n.edges, func(e programEdge) bool { return e.port == PortError || e.port == PortFinally }) {
			c.add("/nodes/"+strconv.Itoa(i), "no-error-edge", `no edge leaves %s by port "error" or "finally", so what fails inside it would vanish: add one`, n.id)
		}
		if n.onError == OnErrorRoute && !c.broken[i] && !slices.ContainsFunc(n.edges, func(e programEdge) bool { return e.port == PortError }) {
			c.add("/nodes/"+strconv.Itoa(i)+"/onError", "no-error-edge", `no edge leaves %s by port "error", so its failure would vanish: add one, or use "continue"`, n.id)
		}
	}
	if _, ok := c.order(); !ok {
		c.cycles()
		return
	}
	c.gates()
	order, ok := c.order()
	if !ok {
		c.add("/edges", "finally-cycle", "the finally edges of several nodes wait for each other: each begins only when what follows by the other ports has ended; lead them apart")
		return
	}
	c.upstream(order)
	c.seeUndone()
}

// upstream computes what lies before each node: in its scope, and before its container.
func (c *compiler) upstream(order []int32) {
	words := (len(c.p.nodes) + 63) / 64
	all := make(bitset, words*len(c.p.nodes))
	for i := range c.p.nodes {
		c.p.nodes[i].upstream = all[i*words : (i+1)*words : (i+1)*words]
	}
	for _, i := range order {
		for _, e := range c.p.nodes[i].edges {
			up := c.p.nodes[e.to].upstream
			up.add(c.p.nodes[i].upstream)
			up.set(i)
		}
	}
	byDepth := make([][]int32, maxContainers+1)
	for i := range c.p.nodes {
		if d := c.depth(int32(i)); d > 0 {
			byDepth[d] = append(byDepth[d], int32(i))
		}
	}
	for _, nodes := range byDepth {
		for _, i := range nodes {
			c.p.nodes[i].upstream.add(c.p.nodes[c.p.nodes[i].parent].upstream)
		}
	}
}

// named tells whether any edge of the document names a node as its target, also one that was refused: then a second problem would only confuse.
func (c *compiler) named(id string) bool {
	return slices.ContainsFunc(c.def.Edges, func(e Edge) bool { return e.To == id })
}

// undoing tells whether any node names another as its compensation, be it right or wrong.
func (c *compiler) undoing(id string) bool {
	return slices.ContainsFunc(c.def.Nodes, func(n Node) bool { return n.Compensate == id })
}

// order sorts the nodes so that every edge leads forward; false when a cycle forbids it.
func (c *compiler) order() ([]int32, bool) {
	open := make([]int, len(c.p.nodes))
	order := make([]int32, 0, len(c.p.nodes))
	for i := range c.p.nodes {
		if open[i] = c.p.nodes[i].incoming; open[i] == 0 {
			order = append(order, int32(i))
		}
	}
	for k := 0; k < len(order); k++ {
		for _, e := range c.p.nodes[order[k]].edges {
			if open[e.to]--; open[e.to] == 0 {
				order = append(order, e.to)
			}
		}
	}
	return order, len(order) == len(c.p.nodes)
}

// cycles names one path for every knot of nodes that lead back to themselves: a depth-first walk, without recursion since a chain may be 2,000 long.
func (c *compiler) cycles() {
	const (
		unseen = iota
		onPath
		done
	)
	state := make([]int, len(c.p.nodes))
	next := make([]int, len(c.p.nodes))
	for start := range c.p.nodes {
		if state[start] != unseen {
			continue
		}
		path := []int32{int32(start)}
		state[start] = onPath
		for len(path) > 0 {
			i := path[len(path)-1]
			if next[i] == len(c.p.nodes[i].edges) {
				state[i] = done
				path = path[:len(path)-1]
				continue
			}
			to := c.p.nodes[i].edges[next[i]].to
			next[i]++
			switch state[to] {
			case unseen:
				state[to] = onPath
				path = append(path, to)
			case onPath:
				c.cycle(path[slices.Index(path, to):])
			}
		}
	}
}

func (c *compiler) cycle(path []int32) {
	names := make([]string, 0, len(path)+1)
	for _, i := range path {
		names = append(names, c.p.nodes[i].id)
	}
	names = append(names, names[0])
	last, first := names[len(names)-2], names[0]
	ptr := "/edges"
	for k, e := range c.def.Edges {
		if e.From == last && e.To == first {
			ptr = "/edges/" + strconv.Itoa(k)
		}
	}
	if len(names) > 20 {
		names = append(append(names[:10:10], "…"), names[len(names)-9:]...)
	}
	c.add(ptr, "cycle", "the edges lead in a circle: %s; a flow only goes forward, rounds are made with logic.foreach or logic.while", strings.Join(names, " → "))
}

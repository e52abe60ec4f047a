package flow

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const maxID = 100

// Compile checks a definition and makes a Program of it. It returns all problems at once, and a Program only when there are none. A typeVersion of 0 is filled in
// with the newest, in def itself; def must not be changed afterwards.
func Compile(def *Definition, view FlowView, types Types, lang Language) (*Program, []Problem) {
	c := &compiler{def: def, types: types, typ: map[int]NodeType{}, p: &Program{def: def, view: view, index: make(map[string]int32, len(def.Nodes)), nodes: make([]programNode, len(def.Nodes))}}
	c.settings()
	for i := range def.Nodes {
		c.node(i)
	}
	c.parents()
	for i := range def.Nodes {
		c.undo(i)
	}
	c.edges()
	c.graph()
	c.expressions(lang)
	c.flowControl(lang)
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	c.link()
	return c.p, nil
}

type compiler struct {
	def      *Definition
	types    Types
	p        *Program
	problems []Problem
	typ      map[int]NodeType
	undoes   map[int32]int32 // of compensations: the node that each undoes
	broken   []bool          // nodes whose edges can't be judged: unknown type, or an id that stands for two
}

func (c *compiler) add(ptr, code, format string, args ...any) {
	c.problems = append(c.problems, Problem{Pointer: ptr, Code: code, Message: fmt.Sprintf(format, args...)})
}

func (c *compiler) settings() {
	s := &c.def.Settings
	c.pool("/settings/pool", s.Pool)
	if s.Timeout != 0 {
		c.within("/settings/timeout", s.Timeout, time.Second, MaxFlowTimeout)
	}
	if s.Retention != 0 {
		c.within("/settings/retention", s.Retention, MinRetention, MaxRetention)
	}
}

// pool checks a pool's name: it becomes part of names of queues.
func (c *compiler) pool(ptr, name string) {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	if len(name) > 64 || strings.ContainsFunc(name, bad) {
		c.add(ptr, "pool", "%s is no name of a pool: letters, digits, - and _, at most 64", describe(name))
	}
}

func (c *compiler) within(ptr string, d Duration, low, high time.Duration) {
	if time.Duration(d) < low || time.Duration(d) > high {
		c.add(ptr, "range", "%s is not within %s to %s", d, Duration(low), Duration(high))
	}
}

func (c *compiler) node(i int) {
	n, pn := &c.def.Nodes[i], &c.p.nodes[i]
	ptr := "/nodes/" + strconv.Itoa(i)
	c.broken = append(c.broken, false)
	*pn = programNode{id: n.ID, typ: n.Type, onError: n.OnError, retry: n.Retry, parent: -1}
	if !validID(n.ID) {
		c.add(ptr+"/id", "id", "%s is no id: a letter or _ first, then letters, digits and _, at most %d", describe(n.ID), maxID)
	}
	if first, twice := c.p.index[n.ID]; twice {
		c.add(ptr+"/id", "duplicate-id", "node %d has the id %q too", first, n.ID)
		c.broken[i], c.broken[first] = true, true
	} else {
		c.p.index[n.ID] = int32(i)
	}
	c.pool(ptr+"/pool", n.Pool)
	if n.Timeout != 0 {
		c.within(ptr+"/timeout", n.Timeout, time.Millisecond, MaxNodeTimeout)
	}
	c.retry(ptr+"/retry", n.Retry)
	switch n.OnError {
	case "", OnErrorFail, OnErrorContinue, OnErrorRoute:
	default:
		c.add(ptr+"/onError", "one-of", "%s is not one of fail, continue, route", describe(n.OnError))
	}
	typ, ok := c.types.Lookup(n.Type, n.TypeVersion)
	if !ok {
		c.broken[i] = true
		c.unknownType(ptr, n)
		return
	}
	n.TypeVersion = typ.Version
	pn.version, pn.kind, pn.container, pn.wants, pn.timeout = typ.Version, typ.Kind, typ.Container, typ.Inputs, time.Duration(n.Timeout)
	c.typ[i] = typ
	switch {
	case n.Pool == "":
	case typ.Kind == KindEffect:
		pn.pool = n.Pool
	case typ.Kind == KindContainer || typ.Kind == KindTrigger:
		c.add(ptr+"/pool", "pool", "%s doesn't run on a worker by itself: set the pool on the nodes that shall run there", n.ID)
	}
	if pn.timeout == 0 {
		pn.timeout = typ.Timeout
	}
	if pn.retry == nil {
		pn.retry = typ.Retry
	}
	c.checkConfig(ptr, n, pn, typ)
	if typ.Kind == KindTrigger {
		c.trigger(ptr, int32(i), n)
	}
	if typ.Kind == KindContainer {
		c.container(ptr, n)
	}
}

func (c *compiler) checkConfig(ptr string, n *Node, pn *programNode, typ NodeType) {
	config := n.Config
	if config == nil {
		config = map[string]any{}
	}
	if typ.Check != nil {
		for _, p := range typ.Check(config) {
			p.Pointer = ptr + "/config" + p.Pointer
			c.problems = append(c.problems, p)
		}
	}
	pn.ports = []string{PortMain}
	if typ.Ports != nil {
		if ports := typ.Ports(config); len(ports) > 0 {
			pn.ports = ports
		}
	}
	extra := map[string]string{OnErrorRoute: PortError, OnErrorContinue: PortMain}[n.OnError]
	if extra != "" && !slices.Contains(pn.ports, extra) {
		pn.ports = append(slices.Clone(pn.ports), extra)
	}
}

func (c *compiler) unknownType(ptr string, n *Node) {
	newest, known := c.types.Lookup(n.Type, 0)
	if known {
		c.add(ptr+"/typeVersion", "unknown-type-version", "node type %s has no version %d, the newest is %d", n.Type, n.TypeVersion, newest.Version)
		return
	}
	hint := ""
	if named, ok := c.types.(interface{ Names() []string }); ok {
		hint = DidYouMean(n.Type, named.Names())
	}
	c.add(ptr+"/type", "unknown-node-type", "there is no node type %s%s; GET /catalog/nodes lists them", describe(n.Type), hint)
}

func (c *compiler) trigger(ptr string, i int32, n *Node) {
	for _, other := range c.p.triggers {
		if n.Type == "trigger.manual" && c.p.nodes[other].typ == n.Type {
			c.add(ptr+"/type", "duplicate-trigger", "%s is a trigger.manual already: a manual start couldn't choose", c.p.nodes[other].id)
		}
	}
	c.p.triggers = append(c.p.triggers, i)
	if n.Retry != nil {
		c.add(ptr+"/retry", "trigger", "a trigger is never tried again: remove retry")
	}
	if n.OnError != "" && n.OnError != OnErrorFail {
		c.add(ptr+"/onError", "trigger", "a trigger can't fail: remove onError")
	}
}

func (c *compiler) retry(ptr string, r *Retry) {
	if r == nil {
		return
	}
	if r.MaxAttempts < 1 || r.MaxAttempts > 100 {
		c.add(ptr+"/maxAttempts", "range", "%d is not within 1 to 100", r.MaxAttempts)
	}
	switch r.Backoff {
	case "", BackoffExponential, BackoffFixed:
	default:
		c.add(ptr+"/backoff", "one-of", "%s is not one of exponential, fixed", describe(r.Backoff))
	}
	c.within(ptr+"/initialDelay", r.InitialDelay, 0, MaxRetryDelay)
	c.within(ptr+"/maxDelay", r.MaxDelay, 0, MaxRetryDelay)
	if r.MaxDelay > 0 && r.InitialDelay > r.MaxDelay {
		c.add(ptr+"/initialDelay", "range", "initialDelay %s is longer than maxDelay %s", r.InitialDelay, r.MaxDelay)
	}
}

func validID(id string) bool {
	if id == "" || len(id) > maxID || id[0] >= '0' && id[0] <= '9' {
		return false
	}
	for _, c := range []byte(id) {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// expressions compiles the configs' templates and looks at the steps that they name.
func (c *compiler) expressions(lang Language) {
	t := &templates{language: lang, cache: map[string]Expression{}, failed: map[string]*SyntaxError{}}
	ids := make([]string, 0, len(c.def.Nodes))
	for i := range c.def.Nodes {
		ids = append(ids, c.def.Nodes[i].ID)
	}
	for i := range c.def.Nodes {
		n, pn := &c.def.Nodes[i], &c.p.nodes[i]
		base := "/nodes/" + strconv.Itoa(i) + "/config"
		t.problem = func(ptr, code string, column int, message string) {
			c.problems = append(c.problems, Problem{Pointer: base + ptr, Code: code, Message: message, Column: column})
		}
		t.use = func(ptr string, column int, e Expression) {
			for _, id := range e.Steps() {
				if code, message := c.reference(int32(i), id, ids); code != "" {
					c.problems = append(c.problems, Problem{Pointer: base + ptr, Code: code, Message: message, Column: column})
				}
			}
		}
		t.count, t.perItem, t.formulas = 0, c.typ[i].PerItem, nil
		t.literal = c.typ[i].Literal
		config := n.Config
		if config == nil {
			config = map[string]any{}
		}
		if pn.kind == KindTrigger { // a trigger's config is read before there is an execution
			pn.constant = config
			continue
		}
		if pn.config = t.compile(config, ""); !pn.config.dynamic {
			pn.constant = config
		}
		pn.formulas = t.formulas
	}
}

// reference judges a step that an expression of node i names.
func (c *compiler) reference(i int32, id string, ids []string) (code, message string) {
	j, ok := c.p.index[id]
	switch {
	case !ok:
		return "unknown-step", fmt.Sprintf("there is no node %q%s", id, DidYouMean(id, ids))
	case j == i:
		return "step-not-upstream", fmt.Sprintf("%q is this very step: its output doesn't exist yet when its config is evaluated", id)
	case c.p.nodes[i].upstream == nil || c.p.nodes[i].upstream.has(j):
	case c.surrounds(j, i):
		return "step-not-upstream", fmt.Sprintf("%q is the container around this step: its output doesn't exist before its rounds have ended; what a round works on is item and index", id)
	case c.p.nodes[j].parent >= 0 && !c.surrounds(c.p.nodes[j].parent, i):
		inside := c.p.nodes[c.p.nodes[j].parent].id
		return "step-not-upstream", fmt.Sprintf("step %q is inside %s and has a result in each of its rounds, which only steps inside can see: use steps.%s.output, what the rounds gave", id, inside, inside)
	default:
		return "step-not-upstream", fmt.Sprintf("step %q doesn't come before this one on any path, so it may not have run yet; lead an edge from it, over other nodes or not%s", id, c.comesBefore(i))
	}
	return "", ""
}

func (c *compiler) comesBefore(i int32) string {
	var names []string
	for j := range c.def.Nodes {
		if c.p.nodes[i].upstream.has(int32(j)) {
			names = append(names, c.p.nodes[j].id)
		}
	}
	if len(names) == 0 || len(names) > 20 {
		return ""
	}
	return " (before it come: " + strings.Join(names, ", ") + ")"
}

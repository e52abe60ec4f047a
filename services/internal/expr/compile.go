package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/expr-lang/expr/ast"

	"flowplatform/services/internal/flow"
)

// compiler turns a syntax tree into closures. After the first error the rest doesn't matter.
type compiler struct {
	l         *Language
	source    string
	err       error
	steps     []string
	variables []string // in scope, by slot
	most      int
	rounds    int // predicates around
}

var roots = []string{"input", "steps", "execution", "flow", "item", "index"}

func (c *compiler) fail(n ast.Node, code, format string, args ...any) evaluator {
	if c.err == nil {
		c.err = &flow.SyntaxError{Code: code, Message: fmt.Sprintf(format, args...), Offset: n.Location().From}
	}
	return nil
}

func constant(v any) evaluator {
	return func(*frame) (any, error) { return v, nil }
}

func (c *compiler) compile(n ast.Node) evaluator {
	if c.err != nil {
		return nil
	}
	switch x := n.(type) {
	case *ast.NilNode:
		return constant(nil)
	case *ast.BoolNode:
		return constant(x.Value)
	case *ast.IntegerNode:
		return constant(x.Value)
	case *ast.FloatNode:
		return constant(x.Value)
	case *ast.StringNode:
		return constant(clean(x.Value))
	case *ast.IdentifierNode:
		return c.identifier(x)
	case *ast.PointerNode:
		return c.pointer(x)
	case *ast.UnaryNode:
		return c.unary(x)
	case *ast.BinaryNode:
		return c.binary(x)
	case *ast.ChainNode:
		return c.chain(x)
	case *ast.MemberNode:
		return c.member(x)
	case *ast.SliceNode:
		return c.slice(x)
	case *ast.ConditionalNode:
		return c.conditional(x)
	case *ast.VariableDeclaratorNode:
		return c.let(x)
	case *ast.SequenceNode:
		return c.sequence(x)
	case *ast.ArrayNode:
		return c.array(x)
	case *ast.MapNode:
		return c.object(x)
	case *ast.BuiltinNode:
		return c.call(x, x.Name, x.Arguments)
	case *ast.CallNode:
		if name, ok := x.Callee.(*ast.IdentifierNode); ok {
			return c.call(x, name.Value, x.Arguments)
		}
		return c.fail(n, "expression-syntax", "values have no methods: use a function, like upper(text) or len(list)")
	}
	return c.fail(n, "expression-syntax", "%s can't be used in expressions", n.String())
}

func (c *compiler) identifier(x *ast.IdentifierNode) evaluator {
	if slot := c.slot(x.Value); slot >= 0 {
		return func(f *frame) (any, error) { return f.variables[slot], nil }
	}
	switch x.Value {
	case "null":
		return constant(nil)
	case "input":
		return func(f *frame) (any, error) { return f.scope.Input, nil }
	case "item":
		return func(f *frame) (any, error) {
			if !f.scope.InRound {
				return nil, errors.New("item exists only inside of a container, like logic.foreach; in filter() and the like the element is #")
			}
			return f.scope.Item, nil
		}
	case "index":
		return func(f *frame) (any, error) {
			if !f.scope.InRound {
				return nil, errors.New("index exists only inside of a container, like logic.foreach; in filter() and the like it is #index")
			}
			return f.scope.Index, nil
		}
	case "execution":
		return func(f *frame) (any, error) { return executionObject(f), nil }
	case "flow":
		return func(f *frame) (any, error) { return flowObject(f.scope), nil }
	case "steps":
		return c.fail(x, "expression-syntax", "steps needs the name of a step, like steps.fetch.output: which steps are used must be clear before a flow runs")
	}
	if slices.Contains(c.l.names, x.Value) {
		return c.fail(x, "unknown-name", "%s is a function: call it, %s(…)", x.Value, x.Value)
	}
	known := append(append(slices.Clone(roots), c.variables...), c.l.names...)
	return c.fail(x, "unknown-name", "there is no name %q%s (names: input, steps, execution, flow, item, index)", x.Value, flow.DidYouMean(x.Value, known))
}

func (c *compiler) slot(name string) int {
	for i := len(c.variables) - 1; i >= 0; i-- {
		if c.variables[i] == name {
			return i
		}
	}
	return -1
}

func (c *compiler) pointer(x *ast.PointerNode) evaluator {
	if c.rounds == 0 {
		return c.fail(x, "expression-syntax", "# is the element of a list in filter(), map() and the like; here is none")
	}
	switch x.Name {
	case "":
		return func(f *frame) (any, error) { return f.rounds[len(f.rounds)-1].item, nil }
	case "index":
		return func(f *frame) (any, error) { return f.rounds[len(f.rounds)-1].index, nil }
	case "acc":
		return func(f *frame) (any, error) { return f.rounds[len(f.rounds)-1].acc, nil }
	}
	return c.fail(x, "unknown-name", "there is no #%s, only #, #index and #acc", x.Name)
}

func (c *compiler) unary(x *ast.UnaryNode) evaluator {
	operand := c.compile(x.Node)
	switch x.Operator {
	case "!", "not":
		return func(f *frame) (any, error) {
			v, err := operand(f)
			if err != nil {
				return nil, err
			}
			b, err := truth(v, "not")
			return !b, err
		}
	case "-":
		return func(f *frame) (any, error) {
			v, err := operand(f)
			if err != nil {
				return nil, err
			}
			return negate(v)
		}
	case "+":
		return func(f *frame) (any, error) {
			v, err := operand(f)
			if err == nil && !isNumber(v) {
				err = fmt.Errorf("+ stands before a number, not %s", kind(v))
			}
			return v, err
		}
	}
	return c.fail(x, "expression-syntax", "unknown operator %s", x.Operator)
}

func truth(v any, where string) (bool, error) {
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("%q needs true or false, not %s", where, kind(v))
	}
	return b, nil
}

func (c *compiler) binary(x *ast.BinaryNode) evaluator {
	left, right := c.compile(x.Left), c.compile(x.Right)
	if c.err != nil {
		return nil
	}
	switch x.Operator {
	case "and", "&&", "or", "||":
		return logic(x.Operator, left, right)
	case "??":
		return func(f *frame) (any, error) {
			depth, rounds := len(f.stack), len(f.rounds)
			v, err := left(f)
			var gone *missing
			if err != nil && !errors.As(err, &gone) {
				return nil, err
			}
			if err == nil && v != nil {
				return v, nil
			}
			f.stack, f.rounds = f.stack[:depth], f.rounds[:rounds]
			return right(f)
		}
	case "matches":
		return c.matches(x, left, right)
	}
	op, ok := operators[x.Operator]
	if !ok {
		return c.fail(x, "expression-syntax", "unknown operator %s", x.Operator)
	}
	return func(f *frame) (any, error) {
		a, err := left(f)
		if err != nil {
			return nil, err
		}
		b, err := right(f)
		if err != nil {
			return nil, err
		}
		if err := f.spend(1); err != nil {
			return nil, err
		}
		return op(f, a, b)
	}
}

func logic(operator string, left, right evaluator) evaluator {
	decides := operator == "or" || operator == "||"
	return func(f *frame) (any, error) {
		v, err := left(f)
		if err != nil {
			return nil, err
		}
		b, err := truth(v, operator)
		if err != nil || b == decides {
			return b, err
		}
		if v, err = right(f); err != nil {
			return nil, err
		}
		return truthAny(v, operator)
	}
}

func truthAny(v any, where string) (any, error) {
	b, err := truth(v, where)
	return b, err
}

func (c *compiler) matches(x *ast.BinaryNode, left, right evaluator) evaluator {
	var fixed matcher
	if s, ok := x.Right.(*ast.StringNode); ok {
		re, err := pattern(s.Value)
		if err != nil {
			return c.fail(x.Right, "expression-syntax", "%s", err.Error())
		}
		fixed = re
	}
	return func(f *frame) (any, error) {
		v, err := left(f)
		if err != nil || v == nil {
			return false, err
		}
		s, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("matches looks at a string, not %s", kind(v))
		}
		re := fixed
		if re.Regexp == nil {
			if v, err = right(f); err != nil {
				return nil, err
			}
			if re, err = f.dynamicPattern(v); err != nil {
				return nil, err
			}
		}
		if err := re.over(f, s); err != nil {
			return nil, err
		}
		return re.MatchString(s), nil
	}
}

// errChain leaves a chain of ?. whose base is null.
var errChain = errors.New("chain")

func (c *compiler) chain(x *ast.ChainNode) evaluator {
	inner := c.compile(x.Node)
	return func(f *frame) (any, error) {
		v, err := inner(f)
		if err == errChain { //nolint:errorlint // never wrapped
			return nil, nil
		}
		return v, err
	}
}

func (c *compiler) member(x *ast.MemberNode) evaluator {
	if name, ok := x.Node.(*ast.IdentifierNode); ok && c.slot(name.Value) < 0 {
		if property, ok := x.Property.(*ast.StringNode); ok {
			switch name.Value {
			case "steps":
				return c.step(x, property.Value, "")
			case "execution":
				return c.fixed(x, "execution", property.Value, executionMembers)
			case "flow":
				return c.fixed(x, "flow", property.Value, flowMembers)
			}
		}
	}
	if inner, ok := x.Node.(*ast.MemberNode); ok {
		name, isName := inner.Node.(*ast.IdentifierNode)
		id, isID := inner.Property.(*ast.StringNode)
		property, isString := x.Property.(*ast.StringNode)
		if isName && isID && isString && name.Value == "steps" && c.slot("steps") < 0 {
			return c.step(x, id.Value, property.Value)
		}
	}
	base := c.compile(x.Node)
	what := x.Node.String()
	if len(what) > 80 {
		what = what[:40] + "…" + what[len(what)-40:]
	}
	what = clean(what)
	optional := x.Optional
	if key, ok := x.Property.(*ast.StringNode); ok {
		name := key.Value
		return func(f *frame) (any, error) {
			v, err := base(f)
			if err != nil {
				return nil, err
			}
			if m, ok := v.(map[string]any); ok { // the usual case
				got, ok := m[name]
				if !ok && !optional {
					return nil, &missing{what, name, v}
				}
				return got, nil
			}
			return access(v, name, what, optional)
		}
	}
	property := c.compile(x.Property)
	return func(f *frame) (any, error) {
		v, err := base(f)
		if err != nil {
			return nil, err
		}
		if v == nil && optional {
			return nil, errChain
		}
		k, err := property(f)
		if err != nil {
			return nil, err
		}
		return access(v, k, what, optional)
	}
}

// step compiles steps.<id> and steps.<id>.<property>.
func (c *compiler) step(n ast.Node, id, property string) evaluator {
	if !slices.Contains(c.steps, id) {
		c.steps = append(c.steps, id)
	}
	if property != "" && !slices.Contains(stepMembers, property) {
		return c.fail(n, "unknown-name", "a step has no %q%s; it has output, port, error and status (what it gave is steps.%s.output.%s)", property, flow.DidYouMean(property, stepMembers), id, property)
	}
	return func(f *frame) (any, error) {
		view, ok := f.scope.Steps(id)
		if !ok {
			return nil, fmt.Errorf("step %q doesn't come before this one, so nothing is known of it", id)
		}
		switch property {
		case "output":
			return view.Output, nil
		case "port":
			return view.Port, nil
		case "status":
			return view.Status, nil
		case "error":
			return failureObject(view.Error), nil
		}
		return map[string]any{"output": view.Output, "port": view.Port, "status": view.Status, "error": failureObject(view.Error)}, nil
	}
}

// fixed compiles a member of execution or flow.
func (c *compiler) fixed(n ast.Node, root, property string, members map[string]evaluator) evaluator {
	if e, ok := members[property]; ok {
		return e
	}
	names := make([]string, 0, len(members))
	for k := range members {
		names = append(names, k)
	}
	slices.Sort(names)
	return c.fail(n, "unknown-name", "%s has no %q%s; it has: %v", root, property, flow.DidYouMean(property, names), names)
}

func (c *compiler) slice(x *ast.SliceNode) evaluator {
	base := c.compile(x.Node)
	bound := func(n ast.Node) evaluator {
		if n == nil {
			return constant(nil)
		}
		return c.compile(n)
	}
	from, to := bound(x.From), bound(x.To)
	return func(f *frame) (any, error) {
		v, err := base(f)
		if err != nil {
			return nil, err
		}
		a, err := from(f)
		if err != nil {
			return nil, err
		}
		b, err := to(f)
		if err != nil {
			return nil, err
		}
		return f.cut(v, a, b)
	}
}

func (c *compiler) conditional(x *ast.ConditionalNode) evaluator {
	cond, yes, no := c.compile(x.Cond), c.compile(x.Exp1), c.compile(x.Exp2)
	return func(f *frame) (any, error) {
		v, err := cond(f)
		if err != nil {
			return nil, err
		}
		b, err := truth(v, "if")
		if err != nil {
			return nil, err
		}
		if b {
			return yes(f)
		}
		return no(f)
	}
}

func (c *compiler) let(x *ast.VariableDeclaratorNode) evaluator {
	if slices.Contains(roots, x.Name) || slices.Contains(c.variables, x.Name) {
		return c.fail(x, "expression-syntax", "the name %q is taken already", x.Name)
	}
	value := c.compile(x.Value)
	slot := len(c.variables)
	c.variables = append(c.variables, x.Name)
	c.most = max(c.most, len(c.variables))
	body := c.compile(x.Expr)
	c.variables = c.variables[:slot]
	return func(f *frame) (any, error) {
		v, err := value(f)
		if err != nil {
			return nil, err
		}
		f.variables[slot] = v
		return body(f)
	}
}

func (c *compiler) sequence(x *ast.SequenceNode) evaluator {
	parts := c.all(x.Nodes)
	return func(f *frame) (v any, err error) {
		for _, e := range parts {
			if v, err = e(f); err != nil {
				return nil, err
			}
		}
		return v, nil
	}
}

func (c *compiler) all(nodes []ast.Node) []evaluator {
	out := make([]evaluator, len(nodes))
	for i, n := range nodes {
		out[i] = c.compile(n)
	}
	return out
}

func (c *compiler) array(x *ast.ArrayNode) evaluator {
	parts := c.all(x.Nodes)
	return func(f *frame) (any, error) {
		if err := f.grow(24 + 16*len(parts)); err != nil {
			return nil, err
		}
		out := make([]any, len(parts))
		for i, e := range parts {
			v, err := e(f)
			if err != nil {
				return nil, err
			}
			out[i] = v
		}
		return out, nil
	}
}

func (c *compiler) object(x *ast.MapNode) evaluator {
	keys, values := make([]evaluator, len(x.Pairs)), make([]evaluator, len(x.Pairs))
	for i, n := range x.Pairs {
		p, ok := n.(*ast.PairNode)
		if !ok {
			return c.fail(n, "expression-syntax", "an object is made of key: value pairs")
		}
		keys[i], values[i] = c.compile(p.Key), c.compile(p.Value)
	}
	return func(f *frame) (any, error) {
		if err := f.grow(48 + 40*len(keys)); err != nil {
			return nil, err
		}
		out := make(map[string]any, len(keys))
		for i := range keys {
			k, err := keys[i](f)
			if err != nil {
				return nil, err
			}
			name, err := keyText(k)
			if err != nil {
				return nil, err
			}
			v, err := values[i](f)
			if err != nil {
				return nil, err
			}
			out[name] = v
		}
		return out, nil
	}
}

// keyText makes an object's key of a value.
func keyText(v any) (string, error) {
	switch x := v.(type) {
	case string:
		return x, nil
	case int, float64, bool, json.Number:
		return text(x)
	}
	return "", fmt.Errorf("a key is a string, a number or a boolean, not %s", kind(v))
}

// call compiles a call of a function or of a form that evaluates its arguments itself.
func (c *compiler) call(n ast.Node, name string, arguments []ast.Node) evaluator {
	if f, ok := c.l.forms[name]; ok {
		return f(c, n, arguments)
	}
	fn, ok := c.l.functions[name]
	if !ok {
		return c.fail(n, "unknown-function", "there is no function %q%s", name, flow.DidYouMean(name, c.l.names))
	}
	if len(arguments) < fn.least || fn.most >= 0 && len(arguments) > fn.most {
		return c.fail(n, "arguments", "%s takes %s, not %d: %s", name, fn.count(), len(arguments), fn.doc)
	}
	parts := c.all(arguments)
	run := fn.run
	return func(f *frame) (any, error) {
		base := len(f.stack)
		work := 1
		for _, e := range parts {
			v, err := e(f)
			if err != nil {
				f.stack = f.stack[:base]
				return nil, err
			}
			switch x := v.(type) {
			case string:
				work += len(x) / 64
			case []any:
				work += len(x)
			}
			f.stack = append(f.stack, v)
		}
		if err := f.spend(work); err != nil {
			return nil, err
		}
		v, err := run(f, f.stack[base:])
		f.stack = f.stack[:base]
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return v, nil
	}
}

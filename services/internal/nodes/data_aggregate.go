package nodes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func dataAggregate() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "data.aggregate", Version: 1, Kind: flow.KindPure, Category: "data", PerItem: []string{"/groupBy", "/fields/*/value"},
			Title: "Aggregate", Description: "Counts, sums and the like over a list, for the whole list or for each group. Sums are exact, of integers and of decimals.",
			Config: `{"type": "object", "required": ["items", "fields"], "additionalProperties": false,
				"properties": {
					"items": {"type": "array", "title": "Items", "description": "the list, usually an expression"},
					"groupBy": {"title": "Group by", "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "maxItems": 20, "items": {"type": "string", "minLength": 1}},
						{"type": "object", "minProperties": 1, "maxProperties": 20, "additionalProperties": {"type": "string", "minLength": 1}}],
						"description": "what makes a group: the name of a field of the items, a list of such names, an expression over item and index (its value is then shown as \"group\"), or an object of names with fields or expressions. Without it there is one group, even of an empty list"},
					"fields": {"type": "object", "minProperties": 1, "maxProperties": 100, "title": "Fields", "description": "what is computed for each group, by name",
						"additionalProperties": {"type": "object", "required": ["op"], "additionalProperties": false, "properties": {
							"op": {"enum": ["count", "sum", "avg", "min", "max", "first", "last", "list", "distinct", "countDistinct"], "title": "Operation",
								"description": "sum is exact. avg is exact if it has at most 15 digits after the point, else the nearest 64-bit floating-point number. min and max compare numbers or texts. null values are left out by all but first, last and list; avg, min, max, first and last of nothing are null"},
							"value": {"title": "Value", "description": "what goes in: the name of a field of the items, or an expression over item and index; without it, the item itself"}}}}}}`,
			Output: `{"type": "array", "items": {"type": "object"}, "description": "an object for each group, in the order in which the groups first appear: what makes the group, and the fields"}`,
			Check:  checkAggregate,
			Examples: []node.Example{
				{Title: "Revenue by country", Config: map[string]any{"items": "{{ input }}", "groupBy": "country",
					"fields": map[string]any{"orders": map[string]any{"op": "count"}, "revenue": map[string]any{"op": "sum", "value": "{{ item.price * item.quantity }}"}}},
					Input:  []any{map[string]any{"country": "DE", "price": 10, "quantity": 2}, map[string]any{"country": "FR", "price": 5, "quantity": 1}, map[string]any{"country": "DE", "price": 1, "quantity": 3}},
					Output: []any{map[string]any{"country": "DE", "orders": 2, "revenue": 23}, map[string]any{"country": "FR", "orders": 1, "revenue": 5}}},
				{Title: "Cents stay exact", Config: map[string]any{"items": "{{ input }}", "fields": map[string]any{"total": map[string]any{"op": "sum"}, "mean": map[string]any{"op": "avg"}, "most": map[string]any{"op": "max"}}},
					Input: []any{0.1, 0.2, 0.3}, Output: []any{map[string]any{"total": 0.6, "mean": 0.2, "most": 0.3}}},
			},
		},
		Executor: aggregate{},
	}
}

// groupColumn is where the value of a groupBy that is one expression is shown.
const groupColumn = "group"

func checkAggregate(config map[string]any) []flow.Problem {
	var out []flow.Problem
	fields, _ := config["fields"].(map[string]any)
	columns, _ := groupColumns(config["groupBy"])
	for _, column := range columns {
		if _, twice := fields[column.name]; twice {
			out = append(out, flow.Problem{Pointer: "/fields/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(column.name), Code: "duplicate", Message: fmt.Sprintf("%q is what groups are made by: give the field another name", column.name)})
		}
	}
	return out
}

// column is a part of what makes a group.
type column struct {
	name  string
	field string // of the item; "" when the formula gives the value
}

func isFormula(v any) bool {
	s, ok := v.(string)
	return !ok || strings.Contains(s, "{{")
}

func groupColumns(v any) ([]column, *node.Error) {
	var out []column
	add := func(name string, source any) {
		if isFormula(source) {
			out = append(out, column{name: name})
			return
		}
		out = append(out, column{name, source.(string)})
	}
	switch t := v.(type) {
	case nil:
	case string:
		name := groupColumn
		if !isFormula(t) {
			name = t
		}
		add(name, t)
	case []any:
		for _, e := range t {
			name, ok := e.(string)
			if !ok || isFormula(name) {
				return nil, wrong("groupBy", v, "a list of names of fields; expressions get a name in an object")
			}
			add(name, name)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(t)) {
			add(name, t[name])
		}
	default:
		return nil, wrong("groupBy", v, "the name of a field, an expression, a list or an object of these")
	}
	return out, nil
}

type aggregate struct{}

// group is what is known of one.
type group struct {
	out    map[string]any
	fields []accumulator
}

func (aggregate) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	items, problem := listOf(c.Config, "items")
	if problem != nil {
		return node.Result{}, problem
	}
	columns, problem := groupColumns(c.Config["groupBy"])
	if problem != nil {
		return node.Result{}, problem
	}
	fields, problem := aggregateFields(c.Config["fields"])
	if problem != nil {
		return node.Result{}, problem
	}
	groups := map[string]*group{}
	var order []*group
	if len(columns) == 0 {
		order = []*group{newGroup(map[string]any{}, fields)}
		groups[""] = order[0]
	}
	for i, item := range items {
		out, err := groupOf(ctx, c, columns, item, i)
		if err != nil {
			return node.Result{}, err
		}
		key := ""
		if len(columns) > 0 {
			if key, err = identity(columns, out); err != nil {
				return node.Result{}, err
			}
		}
		g := groups[key]
		if g == nil {
			g = newGroup(out, fields)
			groups[key], order = g, append(order, g)
		}
		for j, f := range fields {
			v, err := f.value(ctx, c, item, i)
			if err == nil {
				err = g.fields[j].add(v)
			}
			var known *node.Error
			switch {
			case errors.As(err, &known), ctx.Err() != nil:
				return node.Result{}, err
			case err != nil:
				return node.Result{}, &node.Error{Code: "aggregate", Message: fmt.Sprintf("fields.%s (%s), item %d: %v", f.name, f.op, i, err)}
			}
		}
	}
	result := make([]any, len(order))
	for i, g := range order {
		for j, f := range fields {
			g.out[f.name] = g.fields[j].result()
		}
		result[i] = g.out
	}
	return node.Result{Output: result}, nil
}

func newGroup(out map[string]any, fields []aggregateField) *group {
	g := &group{out: out}
	for _, f := range fields {
		g.fields = append(g.fields, operations[f.op]())
	}
	return g
}

// groupOf computes what makes the group of an item.
func groupOf(ctx context.Context, c node.Call, columns []column, item any, index int) (map[string]any, error) {
	if len(columns) == 0 {
		return nil, nil
	}
	out := make(map[string]any, len(columns))
	var whole any
	computed := false
	for _, col := range columns {
		if col.field != "" {
			v, err := fieldOf(item, col.field, index)
			if err != nil {
				return nil, err
			}
			out[col.name] = v
			continue
		}
		if !computed {
			v, err := perItem(ctx, c, "/groupBy", item, index)
			if err != nil {
				return nil, err
			}
			whole, computed = v, true
		}
		out[col.name] = whole
		if _, several := c.Config["groupBy"].(map[string]any); several {
			out[col.name] = whole.(map[string]any)[col.name]
		}
	}
	return out, nil
}

// fieldOf reads a field of an item by its name; a missing one is an error, as it is in an expression.
func fieldOf(item any, name string, index int) (any, error) {
	m, ok := item.(map[string]any)
	if !ok {
		return nil, &node.Error{Code: "aggregate", Message: fmt.Sprintf("item %d is no object, so it has no field %q: use an expression, like {{ item }}", index, name)}
	}
	v, ok := m[name]
	if !ok {
		return nil, &node.Error{Code: "aggregate", Message: fmt.Sprintf("item %d has no field %q; if it may be missing, use an expression: {{ item.%s ?? null }}", index, name, name)}
	}
	return v, nil
}

// aggregateField is one thing to compute.
type aggregateField struct {
	name, op string
	field    string // of the item; "" when the formula gives the value, or there is none
	pointer  string // of the formula; "" when the item itself is the value
}

func (f aggregateField) value(ctx context.Context, c node.Call, item any, index int) (any, error) {
	switch {
	case f.field != "":
		return fieldOf(item, f.field, index)
	case f.pointer != "":
		return perItem(ctx, c, f.pointer, item, index)
	}
	if index%256 == 0 {
		return item, ctx.Err()
	}
	return item, nil
}

func aggregateFields(v any) ([]aggregateField, *node.Error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, wrong("fields", v, "an object")
	}
	var out []aggregateField
	for _, name := range slices.Sorted(maps.Keys(m)) {
		spec, _ := m[name].(map[string]any)
		op, _ := spec["op"].(string)
		if operations[op] == nil {
			return nil, wrong("fields."+name+".op", spec["op"], "one of "+strings.Join(slices.Sorted(maps.Keys(operations)), ", "))
		}
		f := aggregateField{name: name, op: op}
		switch source, has := spec["value"]; {
		case !has || source == nil:
		case isFormula(source):
			f.pointer = "/fields/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name) + "/value"
		default:
			f.field = source.(string)
		}
		out = append(out, f)
	}
	return out, nil
}

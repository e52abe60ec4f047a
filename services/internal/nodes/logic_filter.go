package nodes

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func logicFilter() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "logic.filter", Version: 1, Kind: flow.KindPure, Category: "logic", PerItem: []string{"/condition"},
			Title: "Filter", Description: "Keeps the items of a list for which the condition holds, in their order.",
			Config: `{"type": "object", "required": ["items", "condition"], "additionalProperties": false,
				"properties": {
					"items": {"type": "array", "title": "Items", "description": "the list, usually an expression"},
					"condition": {"type": "boolean", "title": "Condition", "description": "an expression that gives true or false, evaluated for each item: item is the item, index its place from 0"}}}`,
			Output: `{"type": "array", "description": "the items that were kept"}`,
			Examples: []node.Example{
				{Title: "Large orders", Config: map[string]any{"items": "{{ input.orders }}", "condition": "{{ item.total > 100 }}"},
					Input:  map[string]any{"orders": []any{map[string]any{"id": 1, "total": 150}, map[string]any{"id": 2, "total": 20}, map[string]any{"id": 3, "total": 101}}},
					Output: []any{map[string]any{"id": 1, "total": 150}, map[string]any{"id": 3, "total": 101}}},
				{Title: "Every second", Config: map[string]any{"items": "{{ input }}", "condition": "{{ index % 2 == 0 }}"}, Input: []any{"a", "b", "c"}, Output: []any{"a", "c"}},
			},
		},
		Executor: filter{},
	}
}

type filter struct{}

func (filter) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	items, problem := listOf(c.Config, "items")
	if problem != nil {
		return node.Result{}, problem
	}
	kept := []any{}
	for i, item := range items {
		v, err := perItem(ctx, c, "/condition", item, i)
		if err != nil {
			return node.Result{}, err
		}
		holds, ok := v.(bool)
		if !ok {
			return node.Result{}, wrong(fmt.Sprintf("condition, for item %d,", i), v, "true or false: compare, as in {{ item.total > 100 }}")
		}
		if holds {
			kept = append(kept, item)
		}
	}
	return node.Result{Output: kept}, nil
}

func listOf(config map[string]any, field string) ([]any, *node.Error) {
	v, ok := config[field].([]any)
	if !ok {
		return nil, wrong(field, config[field], "a list")
	}
	return v, nil
}

// perItem evaluates the formula at a pointer of the configuration for an item. It looks at ctx now and then: a list may be long.
func perItem(ctx context.Context, c node.Call, pointer string, item any, index int) (any, error) {
	if index%256 == 0 && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	f := c.Scope.Formulas[pointer]
	if f == nil {
		return nil, &node.Error{Code: "config", Message: strings.TrimPrefix(pointer, "/") + " is missing"}
	}
	v, err := f.Eval(c.Scope, item, index)
	if err != nil {
		return nil, &node.Error{Code: "expression", Message: fmt.Sprintf("%s, for item %d: %v", strings.TrimPrefix(pointer, "/"), index, cause(err))}
	}
	return v, nil
}

// cause is what stands behind the place of an expression, which the caller names itself.
func cause(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

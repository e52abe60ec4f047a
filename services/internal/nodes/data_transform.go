package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/itchyny/gojq"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// Limits of data.transform and data.code.
const (
	maxProgram     = 64 << 10  // bytes of a query or a script
	transformHeap  = 128 << 20 // by which the process's heap may grow while a query runs
	programsCached = 512
)

func dataTransform() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "data.transform", Version: 1, Kind: flow.KindPure, Category: "data", Timeout: 10 * time.Second, Literal: []string{"/query"},
			Title: "Transform", Description: "Reshapes a value with jq. The query must give exactly one result. Whole numbers are exact, a result like 2.0 is 2; jq rounds decimals with more than 17 digits when it computes with them.",
			Config: `{"type": "object", "required": ["query"], "additionalProperties": false,
				"properties": {
					"query": {"type": "string", "minLength": 1, "maxLength": 65536, "title": "Query", "format": "jq",
						"description": "jq, as it is: {{ }} is no expression here, values come in by input. One result is the output; for several write [ … ] or first(…), for none a default: … // null. There are no modules, environment and further inputs; now is the execution's clock and times are UTC"},
					"input": {"title": "Input", "description": "what . is in the query; without it, the execution's input"}}}`,
			Output: `{"description": "the query's result"}`,
			Check:  checkTransform,
			Examples: []node.Example{
				{Title: "Names of large orders", Config: map[string]any{"query": "[.orders[] | select(.total > 100) | .customer.name] | unique"},
					Input:  map[string]any{"orders": []any{map[string]any{"total": 150, "customer": map[string]any{"name": "Ana"}}, map[string]any{"total": 50, "customer": map[string]any{"name": "Bo"}}}},
					Output: []any{"Ana"}},
				{Title: "Several values in", Config: map[string]any{"query": ".limits + {name}", "input": map[string]any{"name": "{{ input.user }}", "limits": "{{ input.limits }}"}},
					Input: map[string]any{"user": "ana", "limits": map[string]any{"max": 3}}, Output: map[string]any{"name": "ana", "max": 3}},
			},
		},
		Executor: &transform{queries: newCache[*gojq.Code](programsCached)},
	}
}

func checkTransform(config map[string]any) []flow.Problem {
	query, _ := config["query"].(string)
	if _, err := compileQuery(query); err != nil {
		return []flow.Problem{{Pointer: "/query", Code: "jq", Message: err.Error()}}
	}
	return nil
}

// transform runs queries. Compiled ones are kept: they are immutable.
type transform struct {
	queries *cache[*gojq.Code]
}

func (t *transform) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	query, problem := text(c.Config, "query")
	if problem != nil {
		return node.Result{}, problem
	}
	code, err := t.queries.get(query, func() (*gojq.Code, error) { return compileQuery(query) })
	if err != nil {
		return node.Result{}, &node.Error{Code: "jq", Message: err.Error()}
	}
	input, has := c.Config["input"]
	if !has && c.Scope != nil {
		input = c.Scope.Input
	}
	ctx, stop := watchHeap(ctx, transformHeap)
	defer stop()
	now := float64(c.Now.UnixMicro()) / 1e6
	results := code.RunWithContext(ctx, input, now)
	out, err := one(ctx, results)
	if err != nil {
		return node.Result{}, err
	}
	limit := flow.MaxValueBytes
	if c.Limits.MaxValueBytes > 0 {
		limit = c.Limits.MaxValueBytes
	}
	return transformed(out, limit)
}

// one takes the only result.
func one(ctx context.Context, results gojq.Iter) (any, error) {
	out, ok := results.Next()
	if !ok {
		return nil, &node.Error{Code: "jq-results", Message: "the query gave no result: write … // null if that may happen"}
	}
	if err, failed := out.(error); failed {
		return nil, queryFailed(ctx, err)
	}
	switch more, ok := results.Next(); {
	case !ok:
		return out, nil
	default:
		if err, failed := more.(error); failed {
			return nil, queryFailed(ctx, err)
		}
	}
	return nil, &node.Error{Code: "jq-results", Message: "the query gave more than one result: gather them with [ … ], or take one with first(…)"}
}

func queryFailed(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errHeap) {
		return &node.Error{Code: "memory", Retryable: true, Message: fmt.Sprintf("the query was ended because memory grew by more than %d MiB while it ran: let it make less at once, or cut its input into parts (logic.foreach)", transformHeap>>20)}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &node.Error{Code: "jq", Message: "jq: " + err.Error()}
}

// transformed makes a value of the platform of one of gojq's.
func transformed(v any, limit int) (node.Result, error) {
	if err := within(v, limit); err != nil {
		return node.Result{}, &node.Error{Code: "value-too-large", Message: fmt.Sprintf("the query's result: %v", err)}
	}
	out, err := flow.Canonical(exact(v))
	if err != nil {
		return node.Result{}, &node.Error{Code: "jq", Message: "the query's result can't be written as JSON: " + err.Error()}
	}
	return node.Result{Output: out}, nil
}

// exact replaces gojq's large integers, and whole numbers that it computed as floating-point ones: jq has one kind of number. What holds none is
// kept as it is: results share parts with inputs, which nobody may change.
func exact(v any) any {
	if !inexact(v) {
		return v
	}
	switch x := v.(type) {
	case float64:
		return int(x)
	case *big.Int:
		return json.Number(x.String())
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = exact(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[k] = exact(e)
		}
		return out
	}
	return v
}

func inexact(v any) bool {
	switch x := v.(type) {
	case float64:
		return x == math.Trunc(x) && math.Abs(x) < 1<<53
	case *big.Int:
		return true
	case []any:
		return slices.ContainsFunc(x, inexact)
	case map[string]any:
		for _, e := range x {
			if inexact(e) {
				return true
			}
		}
	}
	return false
}

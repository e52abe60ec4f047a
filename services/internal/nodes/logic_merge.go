package nodes

import (
	"context"
	"fmt"
	"maps"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

func logicMerge() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "logic.merge", Version: 1, Kind: flow.KindPure, Category: "logic", Inputs: true,
			Title: "Merge", Description: "Brings branches together: waits until every incoming edge is settled and makes one value of the outputs that came by those that were taken. Edges count in the order of the document.",
			Config: `{"type": "object", "additionalProperties": false,
				"properties": {"mode": {"enum": ["all", "first", "combine"], "default": "all", "title": "Mode",
					"description": "all: an object with each output under its node's id. first: the output of the first edge that was taken. combine: one object with the fields of all outputs, which must be objects or null; of a field that several have, the last edge's stays"}}}`,
			Output: `{"description": "an object by node id, the first output, or one object, as the mode says"}`,
			Examples: []node.Example{
				{Title: "All, by node", Config: map[string]any{"mode": "all"}, Input: map[string]any{"a": 1}, Output: map[string]any{"start": map[string]any{"a": 1}}},
				{Title: "The first", Config: map[string]any{"mode": "first"}, Input: "x", Output: "x"},
				{Title: "One object of all fields", Config: map[string]any{"mode": "combine"}, Input: map[string]any{"a": 1}, Output: map[string]any{"a": 1}},
			},
		},
		Executor: merge{},
	}
}

type merge struct{}

func (merge) Execute(_ context.Context, c node.Call) (node.Result, error) {
	mode, problem := text(c.Config, "mode")
	if problem != nil {
		return node.Result{}, problem
	}
	switch mode {
	case "first":
		if len(c.Inputs) == 0 {
			return node.Result{}, nil
		}
		return node.Result{Output: c.Inputs[0].Output}, nil
	case "", "all":
		out := map[string]any{}
		for _, in := range c.Inputs {
			out[in.From] = in.Output
		}
		return node.Result{Output: out}, nil
	case "combine":
		out := map[string]any{}
		for _, in := range c.Inputs {
			fields, ok := in.Output.(map[string]any)
			if !ok && in.Output != nil {
				return node.Result{}, &node.Error{Code: "merge", Message: fmt.Sprintf("the output of %s is no object, so its fields can't be combined: use the mode all, or make it an object with data.set", in.From)}
			}
			maps.Copy(out, fields)
		}
		return node.Result{Output: out}, nil
	}
	return node.Result{}, wrong("mode", mode, "all, first or combine")
}

package start

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// limits computes what flow control counts an execution by; nil for flows without it.
func (p *Plan) limits(input any) ([]protocol.Limit, error) {
	program := p.Version.Program
	if !program.Limited() {
		return nil, nil
	}
	values, err := program.Limits(input)
	if err != nil {
		return nil, err
	}
	s := &p.Version.Definition().Settings
	used := map[string]int{}
	// A key is of its flow and of the text of its expression: limits may be put into another order, and a version with another expression counts anew.
	key := func(kind, expression, value string) string {
		sum := sha256.Sum256([]byte(expression))
		name := fmt.Sprintf("%s/%s/%x", kind, p.Head.ID, sum[:4])
		if used[name]++; used[name] > 1 {
			name += "." + strconv.Itoa(used[name])
		}
		return name + "/" + value
	}
	var out []protocol.Limit
	if d := s.Debounce; d != nil {
		out = append(out, protocol.Limit{Kind: protocol.HoldDebounce, Key: key(protocol.HoldDebounce, d.Key, values.Debounce), Value: values.Debounce,
			Delay: time.Duration(d.Delay), Longest: d.Longest(), Collect: d.Collect})
	}
	for i, r := range s.Rate {
		out = append(out, protocol.Limit{Kind: protocol.HoldRate, Key: key(protocol.HoldRate, r.Key, values.Rate[i]), Value: values.Rate[i], Most: r.Limit, Per: time.Duration(r.Per)})
	}
	for i, c := range s.Concurrency {
		out = append(out, protocol.Limit{Kind: protocol.HoldConcurrency, Key: key(protocol.HoldConcurrency, c.Key, values.Concurrency[i]), Value: values.Concurrency[i], Most: c.Limit, OnLimit: c.OnLimit})
	}
	if f := s.Fairness; f != nil {
		out = append(out, protocol.Limit{Kind: protocol.HoldFairness, Key: key(protocol.HoldFairness, p.priority, s.Pool), Value: values.Fairness, Weight: values.Weight, Pool: s.Pool})
	}
	return out, nil
}

// limit gives an execution its limits.
func (p *Plan) limit(e *store.NewExecution, input any, at string) []flow.Problem {
	var err error
	if e.Limits, err = p.limits(input); err != nil {
		return []flow.Problem{{Pointer: at, Code: "limit-key", Message: fmt.Sprintf("flow control can't tell whom this input counts for (%s): the input lacks what the expression needs; inputSchema can require it", err)}}
	}
	e.Limited = len(e.Limits) > 0
	if s := &p.Version.Definition().Settings; s.Debounce != nil && s.Debounce.Collect { // it becomes a part of a list
		if e.Input, err = flow.EncodeValue(input); err != nil {
			return []flow.Problem{{Pointer: at, Code: "json", Message: err.Error()}}
		}
	}
	return nil
}

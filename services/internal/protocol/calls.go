package protocol

import (
	"context"
	"encoding/json"
	"fmt"

	"flowplatform/services/internal/flow"
)

// MaxDepth bounds how deep executions may call each other: beyond it somebody calls itself.
const MaxDepth = 32

// CallRequest is the body of POST /internal/v1/calls: a step of an execution starts another flow. The same step asking again, in this attempt or a later one, is
// answered with the same child, until a user retries the execution.
type CallRequest struct {
	Execution ID                `json:"execution"`
	Attempt   int               `json:"attempt"`
	Node      string            `json:"node"`
	Iteration string            `json:"iteration,omitempty"`
	Flow      string            `json:"flow"` // id or name
	Version   int               `json:"version,omitempty"`
	Input     json.RawMessage   `json:"input,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Wait      bool              `json:"wait"` // the child's end meets a wait of the step, and the caller's end ends the child
}

// CallAnswer answers a CallRequest; it is sent after COMMIT.
type CallAnswer struct {
	Child   ID            `json:"child,omitzero"`
	Refused *flow.Failure `json:"refused,omitempty"` // the step fails with this
	Stale   bool          `json:"stale,omitempty"`   // the attempt is over: nothing was started
	Made    bool          `json:"-"`                 // by this very call
}

// Call is a row of the calls: who called whom.
type Call struct {
	Execution ID
	Node      string
	Iteration string
	Retries   int
	Child     ID
	Depth     int
	Wait      bool
}

// KnownCall is what is known of a call before it is made.
type KnownCall struct {
	Child ID  // zero: it wasn't made
	Depth int // of the caller
	Root  ID  // of the tree of callers
}

// PlaceCall starts a child once: insert inserts its row, in this transaction. The caller's row is locked, so that its end and this call see each other.
func PlaceCall(ctx context.Context, tx Tx, req *CallRequest, child ID, insert func(root ID) error) (Outcome, CallAnswer, error) {
	b, err := lock(ctx, tx, []ID{req.Execution})
	if err != nil {
		return Outcome{}, CallAnswer{}, fmt.Errorf("call: %w", err)
	}
	r, ok := b.rows[req.Execution]
	if !ok || r.State != Running || r.Attempt != req.Attempt || r.Cancel != "" && !r.Undoes { // what undoes may call too
		return Outcome{}, CallAnswer{Stale: true}, nil
	}
	c := Call{Execution: r.ID, Node: req.Node, Iteration: req.Iteration, Retries: r.Retries, Child: child, Wait: req.Wait}
	known, err := tx.KnownCall(ctx, c)
	if err != nil {
		return Outcome{}, CallAnswer{}, fmt.Errorf("call: %w", err)
	}
	if !known.Child.IsZero() {
		return Outcome{}, CallAnswer{Child: known.Child}, nil
	}
	if c.Depth = known.Depth + 1; c.Depth > MaxDepth {
		return Outcome{}, CallAnswer{Refused: &flow.Failure{Code: "call-depth", Message: fmt.Sprintf("executions may call each other %d deep, and this would go deeper: does the flow call itself without an end?", MaxDepth)}}, nil
	}
	if err := insert(known.Root); err != nil {
		return Outcome{}, CallAnswer{}, fmt.Errorf("call: %w", err)
	}
	b.changes.Called = append(b.changes.Called, c)
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, CallAnswer{}, fmt.Errorf("call: %w", err)
	}
	b.out.HandOut = append(b.out.HandOut, child)
	return b.out, CallAnswer{Child: child, Made: true}, nil
}

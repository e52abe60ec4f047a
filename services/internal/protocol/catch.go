package protocol

import (
	"context"
	"fmt"
	"slices"
	"time"

	"flowplatform/services/internal/flow"
)

// Error triggers: a flow with a trigger.error starts when an execution of another flow ends badly, once for each end.
//
//	end      the transaction that ends an execution badly leaves a failure, if a trigger asks for such ends: its commit is the promise
//	look     whoever leads reads failures with what is known of them, and makes the executions that they shall start (CatchesOf says which)
//	catch    one transaction takes the failures away that are still there, and writes what became of them with the executions
//
// So an end is caught or still to be caught whatever dies or whatever becomes of a commit, and two leaders do no harm: what one has taken away the other doesn't find. An execution ends once between two
// retries of a user's, so an end is known by the execution and how often that was retried.

// maxAbove bounds how far error flows may start each other. A chain can't come back to a flow that it has, so it ends by itself; this is for platforms with hundreds of error flows.
const maxAbove = 32

// End is a bad end of an execution.
type End struct {
	Execution ID
	Retries   int
}

// Failure is what an end leaves where a trigger asks for it.
type Failure struct {
	End
	State State
	Error *flow.Failure
	At    time.Time
}

// FailureView is a failure with what must be known to decide on it.
type FailureView struct {
	Failure
	Project  ID
	Flow     ID
	FlowName string
	// Above are the flows whose bad ends led to this execution by error triggers, the first cause first. It belongs to a tree of calls, whose root counts.
	Above []ID
}

// ErrorTrigger is a trigger.error of a published version.
type ErrorTrigger struct {
	Project ID
	Flow    ID
	Node    string
	Flows   []string // names or ids; none: all but its own
	States  []State
}

// What became of a failure at a trigger.
const (
	CatchStarted = "started"
	CatchSkipped = "skipped" // it would go in a circle
	CatchRefused = "refused" // the flow could not be started
)

// Catch is what is recorded of a failure at a trigger.
type Catch struct {
	End
	State   State // of the end
	Flow    ID    // that has the trigger
	Node    string
	Started ID // zero: nothing
	Above   []ID
	Outcome string
	Reason  string
}

// matches tells whether the trigger asks for the failure. Its own flow's it never gets.
func (t *ErrorTrigger) matches(f *FailureView) bool {
	return t.Project == f.Project && t.Flow != f.Flow && slices.Contains(t.States, f.State) && (len(t.Flows) == 0 || slices.Contains(t.Flows, f.FlowName) || slices.Contains(t.Flows, f.Flow.String()))
}

// CatchesOf says what shall become of a failure at each trigger that asks for it: whoever calls it makes the executions of those that are started, or refuses them.
func CatchesOf(f *FailureView, triggers []ErrorTrigger) []Catch {
	var out []Catch
	above := append(slices.Clone(f.Above), f.Flow)
	for i := range triggers {
		t := &triggers[i]
		if !t.matches(f) {
			continue
		}
		c := Catch{End: f.End, State: f.State, Flow: t.Flow, Node: t.Node, Above: above, Outcome: CatchStarted}
		switch {
		case slices.Contains(f.Above, t.Flow):
			c.Outcome, c.Reason = CatchSkipped, "an execution of this flow, or the end of one, has led to the execution that failed: it would go in a circle"
		case len(above) > maxAbove:
			c.Outcome, c.Reason = CatchSkipped, fmt.Sprintf("%d error flows have started each other one after the other, which is the most", maxAbove)
		}
		out = append(out, c)
	}
	return out
}

// CatchTx is a transaction that decides on failures.
type CatchTx interface {
	// TakeFailures takes away those of the failures that are there, but for those that another transaction has locked, and gives them.
	TakeFailures(ctx context.Context, ends []End) ([]End, error)
	// Catch inserts catches, and the executions of those that have one. Their rows were given to the transaction when it was made.
	Catch(ctx context.Context, catches []Catch) error
}

// CatchFailures decides on failures. catches are those of all of them; what is not there any more somebody else has decided on.
func CatchFailures(ctx context.Context, tx CatchTx, ends []End, catches []Catch) (out Outcome, done []Catch, err error) {
	taken, err := tx.TakeFailures(ctx, ends)
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("catch: %w", err)
	}
	for _, c := range catches {
		if !slices.Contains(taken, c.End) {
			continue
		}
		done = append(done, c)
		if !c.Started.IsZero() {
			out.HandOut = append(out.HandOut, c.Started)
		}
	}
	if len(done) == 0 {
		return Outcome{}, nil, nil
	}
	if err := tx.Catch(ctx, done); err != nil {
		return Outcome{}, nil, fmt.Errorf("catch: %w", err)
	}
	return out, done, nil
}

// fail leaves the failure of a bad end.
func (b *batch) fail(r *Row, res *FinalResult) {
	if r.State != Succeeded {
		b.changes.Failures = append(b.changes.Failures, Failure{End: End{r.ID, r.Retries}, State: r.State, Error: res.Error, At: b.now})
	}
}

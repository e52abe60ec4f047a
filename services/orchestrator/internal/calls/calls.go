// Package calls starts the flows that steps of other executions call (flow.call): it finds the version, checks the input, and places the call in one transaction
// with the caller's row. What a caller did wrong is an answer that fails its step; an error means that nothing is known, and the same call may be made again.
package calls

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/start"
	"flowplatform/services/internal/store"
)

// Options of New. All are required.
type Options struct {
	Definitions *definitions.Definitions
	Place       func(context.Context, *protocol.CallRequest, store.NewExecution) (protocol.Outcome, protocol.CallAnswer, error)
	Shards      func() int // 0: not known yet
	Follow      func(protocol.Outcome)
	Now         func() time.Time
}

// Calls answers calls. Safe for concurrent use.
type Calls struct{ o Options }

// New makes it.
func New(o Options) *Calls { return &Calls{o} }

func refused(code, format string, args ...any) protocol.CallAnswer {
	return protocol.CallAnswer{Refused: &flow.Failure{Code: code, Message: fmt.Sprintf(format, args...)}}
}

// Call starts a flow for a step.
func (c *Calls) Call(ctx context.Context, req protocol.CallRequest) (protocol.CallAnswer, error) {
	shards := c.o.Shards()
	if shards == 0 {
		return protocol.CallAnswer{}, errors.New("this orchestrator is still starting")
	}
	head, err := c.o.Definitions.Head(ctx, req.Flow)
	if errors.Is(err, store.ErrNotFound) {
		return refused("unknown-flow", "there is no flow with the id or the name %q", req.Flow), nil
	}
	if err != nil {
		return protocol.CallAnswer{}, err
	}
	plan, err := start.Prepare(ctx, c.o.Definitions, head, start.Request{Version: req.Version, Labels: req.Labels, Trigger: "manual", Client: "execution:" + req.Execution.String(), Now: c.o.Now(), Shards: shards})
	var unusable *definitions.UnusableError
	switch {
	case errors.Is(err, start.ErrNoVersion):
		return refused("unknown-version", "%s", strings.TrimPrefix(err.Error(), start.ErrNoVersion.Error()+": ")), nil
	case errors.As(err, &unusable):
		return refused("unusable-flow", "%s", err.Error()), nil
	case err != nil:
		return protocol.CallAnswer{}, err
	}
	if _, ok := plan.Version.Program.Entry(plan.Trigger); !ok {
		return refused("no-entry", "the flow %q can't be called: it has several triggers, and none of them is trigger.manual", head.Name), nil
	}
	row, wrong := plan.Execution(req.Input, "/input")
	if len(wrong) > 0 {
		problems := make([]any, min(len(wrong), 20))
		for i := range problems {
			problems[i] = map[string]any{"pointer": wrong[i].Pointer, "code": wrong[i].Code, "message": wrong[i].Message}
		}
		answer := refused("wrong-input", "the input doesn't fit the flow %q: %s: %s; nothing was started", head.Name, wrong[0].Pointer, wrong[0].Message)
		answer.Refused.Data = problems
		return answer, nil
	}
	out, answer, err := c.o.Place(ctx, &req, row)
	if errors.Is(err, protocol.ErrData) {
		return refused("refused-value", "the database refuses a value of this call: %v", err), nil
	}
	if err != nil {
		return protocol.CallAnswer{}, err
	}
	c.o.Follow(out)
	return answer, nil
}

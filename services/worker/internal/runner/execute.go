package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
)

// maxMessage is the longest message that a failure keeps.
const maxMessage = 4 << 10

// limit is the timeout of one try.
func (r *Runner) limit(cmd flow.Command) time.Duration {
	if cmd.Timeout > 0 {
		return cmd.Timeout
	}
	return r.opts.NodeTimeout
}

// execute does one try. A panic is an error with code "panic": a node must not be able to end the worker.
func (r *Runner) execute(ctx context.Context, t *run, cmd flow.Command, memory func(context.Context, int) error) (result node.Result, err error) {
	executor, ok := r.opts.Executors(cmd.Type, cmd.Version)
	if !ok {
		return result, &node.Error{Code: "unknown-node-type", Retryable: true, Message: fmt.Sprintf("this worker has no node %s version %d: it is older than the flow; its release is probably under way", cmd.Type, cmd.Version)}
	}
	var s *secrets
	defer func() {
		if p := recover(); p != nil {
			said := s.text(fmt.Sprint(p))
			r.log.Error("a node panicked", "node", cmd.Key.Node, "type", cmd.Type, "execution", t.text, "panic", said, "stack", string(debug.Stack()))
			err = &node.Error{Code: "panic", Message: fmt.Sprintf("node %s (%s) broke with: %s. This is a mistake in the node, not in the flow: please report it with the worker's log", cmd.Key.Node, cmd.Type, said)}
		}
	}()
	if cmd.Kind != flow.KindPure && r.opts.Credential != nil {
		s = &secrets{open: r.opts.Credential, config: cmd.Config}
	}
	iteration := cmd.Key.Iteration
	if iteration == "" {
		iteration = "-"
	}
	call := node.Call{
		Execution: t.text, Node: cmd.Key.Node, Iteration: cmd.Key.Iteration, Try: cmd.Try, Retries: cmd.Retries, Timeout: cmd.Timeout, Attempt: t.attempt,
		Config: cmd.Config, Inputs: cmd.Inputs, Scope: cmd.Scope, Now: cmd.Now, Seed: cmd.Seed, Log: slog.New(&stepLog{t: t, cmd: &cmd, secrets: s, size: new(int)}), Memory: memory,
		Limits: node.Limits{MaxValueBytes: protocol.MaxValue},
	}
	if cmd.Kind != flow.KindPure {
		call.IdempotencyKey = t.text + "/" + cmd.Key.Node + "/" + iteration
	}
	if s == nil {
		return executor.Execute(ctx, call)
	}
	call.Credential = s.credential
	return s.hush(executor.Execute(ctx, call))
}

// event makes the event of a try. What it holds can be written down: outputs were tried (run.inline, run.deliver), texts are valid and of limited length.
func (r *Runner) event(cmd flow.Command, started time.Time, result node.Result, err error) flow.Event {
	e := flow.Event{At: r.now(), Started: started}
	if err == nil && result.Wait != nil && result.Output != nil {
		result.Wait, err = opens(result.Wait, result.Output, nil)
	}
	switch {
	case err != nil:
		e.Type, e.Error = flow.EventFailed, failure(cmd.Key.Node, err)
		r.metrics.steps.WithLabelValues(cmd.Type, "failed").Inc()
	case result.Wait != nil:
		e.Type, e.Wait = flow.EventWaiting, result.Wait
		r.metrics.steps.WithLabelValues(cmd.Type, "waiting").Inc()
	default:
		e.Type, e.Output, e.Port, e.Stop = flow.EventSucceeded, result.Output, result.Port, result.Stop
		r.metrics.step(cmd.Type).Inc()
	}
	return e
}

// failure says why a try failed, in a form that every message and row can hold.
func failure(id string, err error) *flow.Failure {
	f := &flow.Failure{Code: "error", Message: err.Error(), Node: id, Retryable: true}
	var known *node.Error
	if errors.As(err, &known) {
		f.Code, f.Message, f.Retryable, f.Data = known.Code, known.Message, known.Retryable, known.Data
		if known.Err != nil && !strings.Contains(f.Message, known.Err.Error()) {
			f.Message += ": " + known.Err.Error()
		}
	}
	f.Message = clean(f.Message)
	if f.Data != nil {
		if _, err := json.Marshal(f.Data); err != nil || !fits(f.Data) {
			f.Data = nil
		}
	}
	return f
}

// clean gives a text that PostgreSQL and JSON take.
func clean(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage] + " …"
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ReplaceAll(s, "\x00", "\uFFFD")
}

// fits tells whether a value can be written down, and in one message. Most values are seen to fit without encoding them.
func fits(v any) bool {
	if bound(v, protocol.MaxInline) <= protocol.MaxInline {
		return true
	}
	b, err := flow.EncodeValue(v)
	return err == nil && len(b) <= protocol.MaxInline
}

// unbounded is what bound gives for a value that has to be encoded to know.
const unbounded = math.MaxInt

// bound is an upper bound of a value's length as JSON, as long as it is below the limit; unbounded otherwise, and for
// what it doesn't know to be encodable.
func bound(v any, limit int) int {
	n := 0
	if limit < 0 {
		return unbounded
	}
	switch v := v.(type) {
	case nil, bool:
		return 5
	case int, int64:
		return 20
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return unbounded
		}
		return 25
	case string:
		return textBound(v)
	case []any:
		for _, item := range v {
			if n = plus(n, 1, bound(item, limit-n-2)); n > limit {
				return unbounded
			}
		}
	case map[string]any:
		for key, item := range v {
			if n = plus(n, textBound(key), bound(item, limit-n-2)); n > limit-2 {
				return unbounded
			}
			n += 2
		}
	default:
		return unbounded
	}
	return n + 2
}

// textBound: six bytes for a character at worst (\u0000); invalid UTF-8 is the encoder's business.
func textBound(s string) int {
	if !utf8.ValidString(s) {
		return unbounded
	}
	return 6*len(s) + 2
}

func plus(n, a, b int) int {
	if a == unbounded || b == unbounded {
		return unbounded
	}
	return n + a + b
}

package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const tagWaits = "Signals and approvals"

// maxLetter bounds what a signal or a decision carries, as JSON.
const (
	maxLetter       = protocol.MaxInline
	maxLetterHeader = 16 << 10 // of the body around it
)

// Sent tells what became of a signal.
type Sent struct {
	ID          string `json:"id" format:"uuid" doc:"Of the signal, as it stands in the step that took it"`
	Status      string `json:"status" enum:"taken,kept" doc:"taken: an execution waited for it and goes on. kept: the next to wait for it takes it; one to whoever waits is kept for 7 days"`
	ExecutionID string `json:"executionId,omitempty" doc:"Who has taken it, or will"`
}

type sentOutput struct{ Body Sent }

type signalInput struct {
	IDRef
	Name           string `path:"name" pattern:"^[a-zA-Z0-9_.-]{1,100}$" doc:"Of the signal"`
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"The same key gives the same signal, for 7 days at least; with other data 422"`
	Body           struct {
		Data json.RawMessage `json:"data,omitempty" doc:"Any JSON of at most 256 KiB: the step's output"`
	}
}

type keyedInput struct {
	Name           string `path:"name" pattern:"^[a-zA-Z0-9_.-]{1,100}$" doc:"Of the signal"`
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"The same key gives the same signal, for 7 days at least; with other data 422"`
	Body           struct {
		Key  string          `json:"key,omitempty" maxLength:"200" doc:"The key that the flow waits with; without one: flows that wait for the name alone"`
		Data json.RawMessage `json:"data,omitempty" doc:"Any JSON of at most 256 KiB: the step's output"`
	}
}

func (a *API) signalRoutes() {
	route(a, auth.Editor, huma.Operation{OperationID: "signalExecution", Method: http.MethodPost, Path: "/executions/{id}/signals/{name}", Tags: []string{tagWaits}, Summary: "Send a signal to an execution", MaxBodyBytes: maxLetter + maxLetterHeader,
		Description: "It meets the execution's flow.signal of this name, whatever its key; if none waits yet, the next one takes it. Each signal is taken once. 409: the execution has ended, or 100 signals wait for it already."}, a.signalExecution)
	route(a, auth.Editor, huma.Operation{OperationID: "signal", Method: http.MethodPost, Path: "/signals/{name}", Tags: []string{tagWaits}, Summary: "Send a signal to whoever waits for its name and key", MaxBodyBytes: maxLetter + maxLetterHeader,
		Description: "The execution that waits longest takes it. If none does, it is kept for 7 days: the next to wait takes it. Each signal is taken once. 409: 1,000 signals with this name and key are kept already."}, a.signalKey)
}

func (a *API) signalExecution(ctx context.Context, in *signalInput) (*sentOutput, error) {
	id, err := pathID(in.ID, "execution")
	if err != nil {
		return nil, err
	}
	return a.signal(ctx, protocol.Letter{Execution: id, Key: in.Name}, in.IdempotencyKey, in.Body.Data)
}

func (a *API) signalKey(ctx context.Context, in *keyedInput) (*sentOutput, error) {
	if !printable(in.Body.Key) || len(in.Body.Key) > 200 {
		return nil, problem.Invalid("the signal was not sent", problem.Body("/key", "text", "a key has at most 200 bytes, and no control characters"))
	}
	return a.signal(ctx, protocol.Letter{Key: protocol.SignalKey(in.Name, in.Body.Key)}, in.IdempotencyKey, in.Body.Data)
}

// printable: a text without control characters.
func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r == utf8.RuneError {
			return false
		}
	}
	return true
}

func (a *API) signal(ctx context.Context, l protocol.Letter, key string, data json.RawMessage) (*sentOutput, error) {
	l.Kind, l.Project, l.Sender = flow.WaitSignal, store.DefaultProject, principal(ctx).Actor()
	var err error
	if l.Output, err = letterData(data, "/data"); err != nil {
		return nil, err
	}
	l.ID = letterID(ctx, l.Kind+" "+l.Execution.String()+" "+l.Key, key)
	d, err := a.deliver(ctx, l)
	if err != nil {
		return nil, err
	}
	a.note(ctx, "signal", "execution", text(l.Execution), map[string]any{"key": l.Key, "signal": l.ID.String(), "status": d.Status, "takenBy": text(d.Execution)})
	return &sentOutput{Sent{ID: l.ID.String(), Status: string(d.Status), ExecutionID: text(d.Execution)}}, nil
}

// letterData checks what comes with a letter, and gives it as values are kept.
func letterData(data json.RawMessage, at string) (json.RawMessage, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) > maxLetter {
		return nil, problem.New(http.StatusRequestEntityTooLarge, "data has more than %d KiB", maxLetter>>10)
	}
	v, err := flow.DecodeValue(data)
	if err == nil {
		data, err = flow.EncodeValue(v)
	}
	if err != nil {
		return nil, problem.Invalid("nothing was sent", problem.Body(at, "json", "%s", err.Error()))
	}
	return data, nil
}

// letterID is drawn, or made of the caller's idempotency key and what it is for.
func letterID(ctx context.Context, what, key string) protocol.ID {
	if key == "" {
		return store.NewID()
	}
	sum := sha256.Sum256([]byte(principal(ctx).Key() + "\x00" + what + "\x00" + key))
	var id protocol.ID
	copy(id[:], sum[:])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return id
}

// deliver sends a letter; what becomes of it is committed when it returns.
func (a *API) deliver(ctx context.Context, l protocol.Letter) (protocol.Delivery, error) {
	out, d, err := protocol.Send(context.WithoutCancel(ctx), a.o.DB, []protocol.Letter{l})
	if err != nil {
		if errors.Is(err, protocol.ErrUnknown) {
			return protocol.Delivery{}, problem.New(http.StatusServiceUnavailable, "the database did not say whether it has it: send it again with the same Idempotency-Key").RetryAfter(1).Wrap(err)
		}
		return protocol.Delivery{}, err
	}
	a.follow(out)
	if d[0].Status != protocol.LetterRefused {
		return d[0], nil
	}
	switch d[0].Reason {
	case protocol.RefusedUnknown:
		return d[0], problem.New(http.StatusNotFound, "there is no execution with the id %q", l.Execution.String())
	case protocol.RefusedEnded:
		return d[0], problem.New(http.StatusConflict, "the execution has ended")
	case protocol.RefusedFull:
		return d[0], problem.New(http.StatusConflict, "as many signals as can be are kept already, and nobody takes them: is the name right, and the key?")
	case protocol.RefusedConflict:
		return d[0], problem.Invalid("the Idempotency-Key was used before, with something else", problem.Parameter("header", "Idempotency-Key", "use another key for another request"))
	}
	return d[0], problem.New(http.StatusConflict, "it is decided already, or can't be decided any more: somebody was faster, it expired, or the execution went on without it")
}

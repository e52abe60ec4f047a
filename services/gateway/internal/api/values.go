package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Values beyond these stand in answers as where they are: the whole of one, and of all steps of an execution together.
const (
	maxShown      = 1 << 20
	maxShownSteps = 8 << 20
	valuesAtOnce  = 4 // answers that hold large values: up to 64 MiB each for /steps
)

// ValueRef is where a value is that is too large to stand in an answer.
type ValueRef struct {
	URL  string `json:"url" format:"uri-reference" doc:"GET gives the value"`
	Size int    `json:"size" doc:"Bytes of its JSON"`
}

func valueRef(id protocol.ID, v protocol.Value) *ValueRef {
	if v.Ref == "" {
		return nil
	}
	return &ValueRef{URL: Base + "/executions/" + id.String() + "/values/" + v.Ref, Size: v.Size}
}

// LogLine is a line that a node has logged.
type LogLine struct {
	At        time.Time       `json:"at"`
	Level     string          `json:"level" enum:"debug,info,warn,error"`
	Node      string          `json:"node"`
	Iteration string          `json:"iteration,omitempty"`
	Try       int             `json:"try"`
	Attempt   int             `json:"attempt" doc:"Which hand-out of the execution logged it"`
	Message   string          `json:"message"`
	Fields    json.RawMessage `json:"fields,omitempty" doc:"An object"`
}

type valueInput struct {
	ID     string `path:"id" format:"uuid"`
	SHA256 string `path:"sha256" pattern:"^[0-9a-f]{64}$"`
}

type logsInput struct {
	IDRef
	Page
}

func (a *API) valueRoutes() {
	a.plain["getValue"] = a.value
	route(a, auth.Viewer, huma.Operation{OperationID: "getValue", Method: http.MethodGet, Path: "/executions/{id}/values/{sha256}", Tags: []string{tagExecutions}, Summary: "Read a large value of an execution",
		Description: "Inputs and outputs over 1 MiB stand in answers as a URL of this. The value is JSON and never changes; it goes with its execution."},
		func(context.Context, *valueInput) (*struct{ Body json.RawMessage }, error) {
			return nil, errors.New("served by a plain handler")
		})
	route(a, auth.Viewer, huma.Operation{OperationID: "getLogs", Method: http.MethodGet, Path: "/executions/{id}/logs", Tags: []string{tagExecutions}, Summary: "Show what an execution's nodes have logged, the oldest first",
		Description: "At most 64 KiB a try of a step; a last line says so when there was more. For people: lines come with the report of their step, and one that is lost with its worker isn't logged again."}, a.logs)
}

// showValues puts those large values of an execution in their places that aren't too large to be shown. What can't be read now stays a reference.
func (a *API) showValues(ctx context.Context, x *store.Execution) {
	for _, v := range []struct {
		ref  protocol.Value
		into *json.RawMessage
	}{{x.InputRef, &x.Input}, {x.OutputRef, &x.Output}} {
		if v.ref.Ref == "" || v.ref.Size > maxShown {
			continue
		}
		raw, err := a.o.DB.Value(ctx, x.ID, v.ref.Ref)
		if err != nil {
			a.log.Warn("a large value can't be read", "execution", x.ID.String(), "error", err)
			continue
		}
		*v.into = raw
	}
}

// fetcher reads an execution's large values. With the first of them it takes one of the few places for such answers; leave gives it back.
func (a *API) fetcher(ctx context.Context, id protocol.ID) (fetch func(protocol.Value) (json.RawMessage, error), leave func()) {
	entered := false
	fetch = func(v protocol.Value) (json.RawMessage, error) {
		if !entered {
			select {
			case a.values <- struct{}{}:
				entered = true
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return a.o.DB.Value(ctx, id, v.Ref)
	}
	return fetch, sync.OnceFunc(func() {
		if entered {
			<-a.values
		}
	})
}

// value is GET /executions/{id}/values/{sha256}.
func (a *API) value(w http.ResponseWriter, r *http.Request) {
	const op = "getValue"
	if _, p := a.admit(w, r, auth.Viewer); p != nil {
		a.refuse(w, op, p)
		return
	}
	id, err := pathID(chi.URLParam(r, "id"), "execution")
	ref := chi.URLParam(r, "sha256")
	if err != nil {
		a.refuse(w, op, err)
		return
	}
	fetch, leave := a.fetcher(r.Context(), id)
	defer leave()
	raw, err := fetch(protocol.Value{Ref: ref})
	if err != nil {
		a.refuse(w, op, missing(err, "value", ref))
		return
	}
	h := w.Header()
	h["Etag"] = []string{`"` + ref + `"`}
	h["Cache-Control"] = []string{"private, max-age=86400, immutable"}
	writeJSON(w, http.StatusOK, raw)
}

// reportsAtOnce is how many reports' logs are read at a time: at most 256 KiB each.
const reportsAtOnce = 16

// logs is GET /executions/{id}/logs. The cursor is the place of a line: attempt and seq of its report, and its number in it.
func (a *API) logs(ctx context.Context, in *logsInput) (*listOutput[LogLine], error) {
	id, err := pathID(in.ID, "execution")
	if err != nil {
		return nil, err
	}
	var attempt, seq, skip int
	if in.Cursor != "" {
		place, err := base64.RawURLEncoding.DecodeString(in.Cursor)
		if n, scanErr := fmt.Sscanf(string(place), "%d.%d.%d", &attempt, &seq, &skip); err != nil || scanErr != nil || n != 3 || attempt < 0 || seq < 0 || skip < 0 || attempt > 1<<30 || seq > 1<<30 {
			return nil, store.ErrCursor
		}
	}
	out := &listOutput[LogLine]{Body: List[LogLine]{Items: []LogLine{}}}
	for {
		reports, err := a.o.DB.LogsOf(ctx, id, attempt, seq, reportsAtOnce)
		if err != nil {
			return nil, err
		}
		for _, r := range reports {
			var lines []protocol.LogLine
			if err := json.Unmarshal(r.Lines, &lines); err != nil {
				return nil, fmt.Errorf("logs of report %d.%d of execution %s: %w", r.Attempt, r.Seq, id, err)
			}
			if r.Attempt != attempt || r.Seq != seq {
				attempt, seq, skip = r.Attempt, r.Seq, 0
			}
			for i := skip; i < len(lines); i++ {
				if len(out.Body.Items) == in.Limit {
					out.Body.NextCursor = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d.%d.%d", attempt, seq, i))
					return out, nil
				}
				l := lines[i]
				out.Body.Items = append(out.Body.Items, LogLine{At: l.At, Level: l.Level, Node: l.Node, Iteration: l.Iteration, Try: l.Try, Attempt: attempt, Message: l.Message, Fields: l.Fields})
			}
		}
		if len(reports) < reportsAtOnce {
			break
		}
		seq, skip = seq+1, 0
	}
	if len(out.Body.Items) == 0 { // no lines, or no execution
		if _, err := a.execution(ctx, in.ID); err != nil {
			return nil, err
		}
	}
	return out, nil
}

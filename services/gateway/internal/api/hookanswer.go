package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/gateway/internal/reply"
	"flowplatform/services/gateway/internal/wait"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// hookWait waits for a flow's answer, or for its end.
type hookWait struct {
	end   *wait.Waiter
	reply *reply.Waiter // nil: the flow has no flow.respond
	nodes []string
}

func (a *API) awaitHook(id protocol.ID, nodes []string) (*hookWait, error) {
	end, ok := a.o.Waits.Add(id)
	if !ok {
		return nil, problem.New(http.StatusServiceUnavailable, "too many requests wait already; nothing was started").RetryAfter(time.Second)
	}
	h := &hookWait{end: end, nodes: nodes}
	if len(nodes) > 0 {
		h.reply = a.o.Replies.Add(id, nodes)
	}
	return h, nil
}

func (h *hookWait) close() {
	h.end.Close()
	if h.reply != nil {
		h.reply.Close()
	}
}

// wait gives what the flow answered; false: it ended, or the time is over.
func (h *hookWait) wait(ctx context.Context, most time.Duration) (reply.Answer, bool) {
	t := time.NewTimer(most)
	defer t.Stop()
	var answered <-chan struct{}
	if h.reply != nil {
		answered = h.reply.Done()
	}
	select {
	case <-answered:
		return h.reply.Answer(), true
	case <-h.end.Ended():
	case <-h.end.Stopped():
	case <-ctx.Done():
	case <-t.C:
	}
	return reply.Answer{}, false
}

// answerHook answers with what the flow says, or with its end.
func (a *API) answerHook(w http.ResponseWriter, r *http.Request, id protocol.ID, h *hookWait, most time.Duration, replayed bool) error {
	if replayed { // it may have ended before we began to wait
		if x, err := a.o.DB.ExecutionByID(r.Context(), id); err == nil && x.State.Final() {
			most = 0
		}
	}
	answer, ok := h.wait(r.Context(), most)
	if !ok {
		var err error
		if answer, ok, err = a.recorded(r.Context(), id, h.nodes); err != nil {
			a.log.Warn("a flow's answer can't be read", "execution", id.String(), "error", err)
		}
	}
	if ok {
		return a.writeHookAnswer(w, r, id, answer)
	}
	x, err := a.o.DB.ExecutionByID(r.Context(), id)
	if err != nil { // it is accepted, and that is what must be said
		a.log.Warn("an execution that was waited for can't be read", "execution", id.String(), "error", err)
		writeHookAccepted(w, id)
		return nil
	}
	if x.OutputRef.Ref != "" {
		fetch, leave := a.fetcher(r.Context(), id)
		defer leave()
		if x.Output, err = fetch(x.OutputRef); err != nil {
			return err
		}
	}
	return writeHookEnd(w, &x)
}

// recorded looks for an answer among all that was reported.
func (a *API) recorded(ctx context.Context, id protocol.ID, nodes []string) (reply.Answer, bool, error) {
	if len(nodes) == 0 {
		return reply.Answer{}, false, nil
	}
	reports, err := a.o.DB.ReportsOf(ctx, id)
	if err != nil {
		return reply.Answer{}, false, err
	}
	lists := make([]json.RawMessage, len(reports))
	for i := range reports {
		lists[i] = reports[i].Events
	}
	return reply.Find(lists, nodes)
}

// writeHookAnswer writes what flow.respond gave.
func (a *API) writeHookAnswer(w http.ResponseWriter, r *http.Request, id protocol.ID, answer reply.Answer) error {
	if answer.Ref.Ref != "" {
		fetch, leave := a.fetcher(r.Context(), id)
		defer leave()
		raw, err := fetch(answer.Ref)
		if err != nil {
			return err
		}
		if answer.Output, err = flow.DecodeValue(raw); err != nil {
			return err
		}
	}
	m, _ := answer.Output.(map[string]any)
	status, _ := m["status"].(int)
	if status < 200 || status > 599 {
		status = http.StatusOK
	}
	header := w.Header()
	headers, _ := m["headers"].(map[string]any)
	for name, v := range headers { // flow.respond lets only harmless ones pass
		if s, ok := v.(string); ok {
			header.Set(name, s)
		}
	}
	var body []byte
	switch v := m["body"].(type) {
	case nil:
	case string:
		body = []byte(v)
		if header.Get("Content-Type") == "" {
			header.Set("Content-Type", "text/plain; charset=utf-8")
		}
	default:
		var err error
		if body, err = flow.EncodeValue(v); err != nil {
			return err
		}
		if header.Get("Content-Type") == "" {
			header.Set("Content-Type", "application/json")
		}
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		header.Del("Content-Type")
		body = nil
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone: what it asked for is done
	return nil
}

// writeHookEnd answers for a flow that has said nothing. The caller may be anybody: why a flow failed is for those who may read the execution.
func writeHookEnd(w http.ResponseWriter, x *store.Execution) error {
	switch x.State {
	case protocol.Succeeded:
		out := x.Output
		if out == nil {
			out = null
		}
		writeJSON(w, http.StatusOK, append(append([]byte(nil), out...), '\n'))
		return nil
	case protocol.TimedOut:
		return hookFailed(http.StatusGatewayTimeout, "the flow passed its timeout", x.ID)
	case protocol.Failed:
		return hookFailed(http.StatusInternalServerError, "the flow failed", x.ID)
	case protocol.Cancelled:
		return hookFailed(http.StatusInternalServerError, "the flow was cancelled", x.ID)
	}
	writeHookAccepted(w, x.ID)
	return nil
}

// hookError is an answer in place of a flow's own; it is no fault of the gateway, so it isn't logged as one.
func hookFailed(status int, what string, id protocol.ID) error {
	p := problem.New(status, "%s: its execution %s says why", what, id)
	p.Instance = "urn:flow:execution:" + id.String()
	return p
}

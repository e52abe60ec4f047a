package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const (
	tagHooks  = "Webhooks"
	hookBase  = "/hooks/"
	hookRoute = hookBase + "{path}"
	hookOp    = "callHook"
)

const hookDescription = `Starts the flow whose published version has a trigger.webhook with this path (it may have several parts) and method; OpenAPI has no word for "any method", so POST stands for all.
The flow's input is what was sent: method, path, query, rawQuery, headers (those that the trigger names), address, bodyType and body. The body is read as JSON, form, text or, being anything else, as base64.
Answer: 202 with the execution's id, or what the flow responds: flow.respond's status, headers and body; 200 with the output when it succeeds without one, 500 when it fails, 504 when it passes its own timeout;
202 with the id when the trigger's wait is over. HEAD and OPTIONS start nothing. Requests are limited a minute, path and address. With an Idempotency-Key the same request starts one execution only.`

func (a *API) hookRoutes() {
	a.plain[hookOp] = a.hook
	route(a, public, huma.Operation{OperationID: hookOp, Method: http.MethodPost, Path: hookRoute, Tags: []string{tagHooks}, Summary: "Call a webhook", Description: hookDescription, DefaultStatus: http.StatusAccepted, MaxBodyBytes: maxHook,
		RequestBody: &huma.RequestBody{Description: "What the flow gets as body", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{}}}}},
		func(context.Context, *struct {
			Path           string `path:"path" maxLength:"200" doc:"As the trigger says"`
			IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"The same key with the same request gives the same execution, for a day at least; with another one 422"`
			RawBody        []byte
		}) (*startOutput, error) {
			return nil, errors.New("served by a plain handler")
		})
	a.router.HandleFunc(hookBase+"*", a.hook)
}

// hook is ANY /hooks/{path}.
func (a *API) hook(w http.ResponseWriter, r *http.Request) {
	// Hooks share their origin with the API and the web interface: what a flow answers must not act there.
	w.Header()["Content-Security-Policy"] = []string{"sandbox; default-src 'none'; frame-ancestors 'none'"}
	w.Header()["Cache-Control"] = []string{"no-store"}
	if err := a.callHook(w, r); err != nil {
		a.refuse(w, hookOp, err)
	}
}

func (a *API) callHook(w http.ResponseWriter, r *http.Request) error {
	path := strings.TrimPrefix(r.URL.Path, hookBase)
	row, err := a.findHook(w, r, path)
	if err != nil || row == nil {
		return err
	}
	if a.o.Full() {
		return errFull()
	}
	ref := row.Flow.String()
	head, err := a.o.Definitions.Head(r.Context(), ref)
	if err != nil {
		return noHook(err, path)
	}
	plan, err := a.resolveHead(r.Context(), head, &Start{}, "hook:"+path)
	if err != nil {
		return noHook(err, path)
	}
	hook, ok := plan.Version.Hook(row.Node)
	if !ok || hook.Path != path { // published anew this moment
		return noHook(store.ErrNotFound, path)
	}
	if !tokenFits(r, hook.Token) {
		return problem.New(http.StatusUnauthorized, "this webhook wants its token, as Authorization: Bearer TOKEN or X-Hook-Token").With("WWW-Authenticate", "Bearer")
	}
	body, err := readBody(r, maxHook)
	if err != nil {
		return err
	}
	input, err := a.hookInput(r, &hook, body)
	if err != nil {
		return err
	}
	if plan.Trigger = "webhook"; !enters(plan.Version, plan.Trigger, hook.Node) {
		plan.Trigger = hook.Node // several webhooks, or a node with that name: its id tells which
	}
	exec, wrong := plan.Execution(input, "")
	if len(wrong) > 0 {
		return problem.Invalid("the request doesn't fit the flow; nothing was started", fieldsOf(wrong)...)
	}
	if exec.IdempotencyKey, err = hookKey(r, &hook, input); err != nil {
		return err
	}
	return a.startHook(w, r, exec, &hook, plan.Version)
}

// findHook gives the hook of a request; nil with no error when all is answered.
func (a *API) findHook(w http.ResponseWriter, r *http.Request, path string) (*store.Hook, error) {
	var hooks []store.Hook
	if utf8.ValidString(path) && strings.IndexByte(path, 0) < 0 && len(path) <= 200 {
		var err error
		if hooks, err = a.o.Definitions.HooksAt(r.Context(), path); err != nil {
			return nil, err
		}
	}
	if len(hooks) == 0 {
		if p := a.limit(w, r, "address:"+a.address(r), a.o.RateLimit); p != nil { // guesses count
			return nil, p
		}
		return nil, noHook(store.ErrNotFound, path)
	}
	if p := a.limit(w, r, "hook:"+path+" "+a.address(r), a.o.RateLimit); p != nil {
		p.Detail = "this address calls this webhook more often than is allowed: wait"
		return nil, p
	}
	if i := slices.IndexFunc(hooks, func(h store.Hook) bool { return h.Method == r.Method }); i >= 0 {
		return &hooks[i], nil
	}
	allow := "HEAD, OPTIONS"
	for _, h := range hooks {
		allow += ", " + h.Method
	}
	if r.Method == http.MethodHead || r.Method == http.MethodOptions {
		w.Header().Set("Allow", allow)
		w.WriteHeader(http.StatusNoContent)
		return nil, nil
	}
	return nil, problem.New(http.StatusMethodNotAllowed, "this webhook doesn't take %s; what it takes: %s", r.Method, allow).With("Allow", allow)
}

func noHook(err error, path string) error {
	if p, ok := problem.From(err); ok && p.Status != http.StatusNotFound {
		return err
	}
	if _, ok := problem.From(err); ok || errors.Is(err, store.ErrNotFound) {
		return problem.New(http.StatusNotFound, "there is no webhook at /hooks/%s: the flow with this trigger isn't published, or is gone", path)
	}
	return err
}

func enters(v *definitions.Version, trigger, node string) bool {
	id, ok := v.Program.Entry(trigger)
	return ok && id == node
}

// tokenFits compares in constant time; nil wants nothing.
func tokenFits(r *http.Request, sum []byte) bool {
	if sum == nil {
		return true
	}
	token := r.Header.Get("X-Hook-Token")
	if token == "" {
		token = bearer(r)
	}
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], sum) == 1
}

// hookEnvelope is the input of a flow that a webhook starts. The fields are in the order of its documentation.
type hookEnvelope struct {
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Query    map[string]string `json:"query"`
	RawQuery string            `json:"rawQuery"`
	Headers  map[string]string `json:"headers"`
	Address  string            `json:"address"`
	BodyType string            `json:"bodyType"`
	Body     json.RawMessage   `json:"body"`
}

// maxHookFields bounds the names of a query or a form.
const maxHookFields = 1000

func (a *API) hookInput(r *http.Request, h *definitions.Hook, body []byte) (json.RawMessage, error) {
	e := hookEnvelope{Method: r.Method, Path: h.Path, RawQuery: strings.ToValidUTF8(r.URL.RawQuery, "\uFFFD"), Headers: map[string]string{}, Address: a.address(r)}
	var err error
	if e.Query, err = firsts(r.URL.RawQuery); err != nil {
		return nil, problem.New(http.StatusBadRequest, "the query can't be read: %s", err)
	}
	for _, name := range append([]string{"content-type", "user-agent"}, h.Headers...) {
		if list := r.Header.Values(name); len(list) > 0 {
			e.Headers[name] = strings.ToValidUTF8(strings.Join(list, ", "), "\uFFFD")
		}
	}
	if e.BodyType, e.Body, err = hookBody(r.Header.Get("Content-Type"), body); err != nil {
		return nil, err
	}
	input, err := json.Marshal(e)
	if err == nil && len(input) > maxHook {
		return nil, problem.New(http.StatusRequestEntityTooLarge, "as a flow's input the request has %d bytes (what isn't text is passed as base64), the most is %d", len(input), maxHook)
	}
	return input, err
}

// hookBody reads a body as its type says.
func hookBody(contentType string, body []byte) (kind string, value json.RawMessage, err error) {
	if len(body) == 0 {
		return "none", null, nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if contentType != "" && err != nil {
		return "", nil, problem.New(http.StatusUnsupportedMediaType, "the Content-Type %q can't be read", contentType)
	}
	isJSON := media == "application/json" || strings.HasSuffix(media, "+json")
	isText := strings.HasPrefix(media, "text/") || media == "application/xml" || strings.HasSuffix(media, "+xml")
	isForm := media == "application/x-www-form-urlencoded"
	if isJSON || isText || isForm {
		if cs := strings.ToLower(params["charset"]); cs != "" && cs != "utf-8" && cs != "utf8" && cs != "us-ascii" {
			return "", nil, problem.New(http.StatusUnsupportedMediaType, "the charset %q isn't supported: send UTF-8", cs)
		}
		if !utf8.Valid(body) {
			return "", nil, problem.New(http.StatusBadRequest, "the body isn't UTF-8, which %s is expected to be", media)
		}
	}
	switch {
	case isJSON:
		if _, err := flow.DecodeValue(body); err != nil {
			return "", nil, badJSON(err.Error())
		}
		return "json", body, nil
	case isForm:
		form, err := firsts(string(body))
		if err != nil {
			return "", nil, problem.New(http.StatusBadRequest, "the form can't be read: %s", err)
		}
		value, err = json.Marshal(form)
		return "form", value, err
	case isText:
		value, err = json.Marshal(string(body))
		return "text", value, err
	}
	value, err = json.Marshal(base64.StdEncoding.EncodeToString(body))
	return "base64", value, err
}

// firsts gives the first value of each name of a query or form.
func firsts(query string) (map[string]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	if len(values) > maxHookFields {
		return nil, errors.New("it has too many fields")
	}
	out := make(map[string]string, len(values))
	for k, v := range values {
		out[strings.ToValidUTF8(k, "\uFFFD")] = strings.ToValidUTF8(v[0], "\uFFFD")
	}
	return out, nil
}

// hookKey reads the Idempotency-Key. The scope is the hook: callers have no name. The address is no part of what must be equal, a caller may have several.
func hookKey(r *http.Request, h *definitions.Hook, input []byte) (store.IdempotencyKey, error) {
	var e hookEnvelope
	if err := json.Unmarshal(input, &e); err != nil {
		return store.IdempotencyKey{}, err
	}
	same, err := json.Marshal([]any{e.RawQuery, e.BodyType, e.Body})
	if err != nil {
		return store.IdempotencyKey{}, err
	}
	return idempotencyKey(r, "hook "+h.Method+" "+h.Path, same)
}

// startHook commits the execution and answers.
func (a *API) startHook(w http.ResponseWriter, r *http.Request, exec store.NewExecution, h *definitions.Hook, v *definitions.Version) error {
	waits := h.Respond && h.Wait > 0
	var answer *hookWait
	if waits {
		var err error
		if answer, err = a.awaitHook(exec.ID, v.Responders); err != nil { // before COMMIT: no answer can come before
			return err
		}
		defer func() { answer.close() }()
	}
	done, err := a.submit([]store.NewExecution{exec})
	if err != nil {
		return err
	}
	id := done[0].ID
	if done[0].Duplicate {
		w.Header()["Idempotency-Replayed"] = []string{"true"}
	}
	if done[0].Duplicate || done[0].Merged {
		if waits {
			answer.close()
			if answer, err = a.awaitHook(id, v.Responders); err != nil {
				return err
			}
		}
	}
	if !waits {
		writeHookAccepted(w, id)
		return nil
	}
	return a.answerHook(w, r, id, answer, h.Wait, done[0].Duplicate || done[0].Merged)
}

func writeHookAccepted(w http.ResponseWriter, id protocol.ID) {
	writeJSON(w, http.StatusAccepted, append(appendAccepted(nil, id, string(protocol.Queued)), '\n'))
}

func errFull() error {
	return problem.New(http.StatusServiceUnavailable, "too many accepted executions wait to be handed to the broker: RabbitMQ is away or has an alarm").RetryAfter(5 * time.Second)
}

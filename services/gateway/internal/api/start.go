package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"flowplatform/services/gateway/internal/accept"
	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/gateway/internal/wait"
	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/start"
	"flowplatform/services/internal/store"
)

const tagExecutions = "Executions"

// Limits of starts.
const (
	maxInput      = start.MaxInput     // bytes of one input
	maxHook       = protocol.MaxInline // of one that a webhook makes: nobody has logged in there
	maxStartBody  = maxInput + 64<<10
	maxBatch      = 1000
	maxBatchBody  = 16 << 20
	maxLabels     = 64
	maxLabelBytes = 200
	maxKeyBytes   = 200
)

// Start is the body of a start.
type Start struct {
	Input    json.RawMessage   `json:"input,omitempty" doc:"Any JSON of at most 16 MiB; checked against the flow's inputSchema"`
	Priority string            `json:"priority,omitempty" enum:"high,normal,low" doc:"The flow's own if absent"`
	Version  int               `json:"version,omitempty" minimum:"1" doc:"The published one if absent"`
	Labels   map[string]string `json:"labels,omitempty" doc:"Added to the flow's own"`
}

// StartBatch is the body of many starts.
type StartBatch struct {
	Inputs   []json.RawMessage `json:"inputs" minItems:"1" maxItems:"1000" doc:"One execution for each, all or none"`
	Priority string            `json:"priority,omitempty" enum:"high,normal,low"`
	Version  int               `json:"version,omitempty" minimum:"1"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Accepted is an execution that was committed.
type Accepted struct {
	ID     string `json:"id" format:"uuid"`
	Status string `json:"status" enum:"queued,running,waiting,succeeded,failed,cancelled,timed_out"`
}

// AcceptedBatch is a batch that was committed.
type AcceptedBatch struct {
	Items []Accepted `json:"items" nullable:"false" doc:"In the order of the inputs"`
}

type startInput struct {
	FlowRef
	Wait           string `query:"wait" doc:"Wait so long for the end, at most 60s, and answer 200 with the finished execution; 202 if it isn't finished by then" example:"10s"`
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"The same key with the same body gives the same execution, for a day at least; with another body 422"`
	Body           Start
}

type startOutput struct {
	Location string `header:"Location"`
	Replayed string `header:"Idempotency-Replayed" doc:"true: the key was used before, this is that execution"`
	Body     Accepted
}

type batchInput struct {
	FlowRef
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"190"`
	Body           StartBatch
}

func (a *API) startRoutes() {
	never := errors.New("served by a plain handler")
	a.plain["startExecution"] = a.start
	route(a, auth.Editor, huma.Operation{OperationID: "startExecution", Method: http.MethodPost, Path: "/flows/{id}/executions", Tags: []string{tagExecutions}, Summary: "Start an execution", DefaultStatus: http.StatusAccepted, Responses: also[Execution](a, http.StatusOK, "With ?wait: it has ended"),
		Description: "202 means that it is committed: it will reach a final state, whatever breaks. The body may be empty.", MaxBodyBytes: maxStartBody},
		func(context.Context, *startInput) (*startOutput, error) { return nil, never })
	a.plain["startBatch"] = a.startBatch
	route(a, auth.Editor, huma.Operation{OperationID: "startBatch", Method: http.MethodPost, Path: "/flows/{id}/executions/batch", Tags: []string{tagExecutions}, Summary: "Start up to 1,000 executions at once", DefaultStatus: http.StatusAccepted,
		Description: "All are committed, or none.", MaxBodyBytes: maxBatchBody},
		func(context.Context, *batchInput) (*struct{ Body AcceptedBatch }, error) { return nil, never })
}

// refuse writes the problem of an error.
func (a *API) refuse(w http.ResponseWriter, op string, err error) {
	p, _ := problem.From(a.explain(op, err))
	p.Write(w)
}

// Large bodies take several times their size until they are stored: so many bytes of them may be under way, what comes beyond is asked to come again.
const (
	largeBody   = 512 << 10
	largeBodies = 96 << 20
)

// gate admits a start: the caller, the body's size, and whether more can be taken at all. leave must be called when the request is over.
func (a *API) gate(w http.ResponseWriter, r *http.Request, most int64) (who *auth.Principal, body []byte, leave func(), err error) {
	who, p := a.admit(w, r, auth.Editor)
	if p != nil {
		return nil, nil, nil, p
	}
	if a.o.Full() {
		return nil, nil, nil, errFull()
	}
	body, leave, err = a.body(r, most)
	return who, body, leave, err
}

// body reads a JSON body that may be large. leave must be called when the request is over, unless there is an error.
func (a *API) body(r *http.Request, most int64) (body []byte, leave func(), err error) {
	if ct := r.Header.Get("Content-Type"); ct != "" && !strings.Contains(ct, "json") {
		return nil, nil, notJSON(ct)
	}
	held := int64(0)
	leave = func() { a.large.Release(held) }
	hold := func(size int64) error {
		if !a.large.TryAcquire(size) {
			return problem.New(http.StatusServiceUnavailable, "too many large bodies are under way here").RetryAfter(time.Second)
		}
		held = size
		return nil
	}
	switch size := r.ContentLength; {
	case size > most, size >= 0 && size <= largeBody:
	case size > 0:
		err = hold(size)
	default: // it doesn't say how much will come
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(r.Body, largeBody), &gated{Reader: r.Body, open: func() error { return hold(most) }}), r.Body}
	}
	if err == nil {
		body, err = readBody(r, most)
	}
	if err != nil {
		leave()
		return nil, nil, err
	}
	return body, leave, nil
}

// gated is a reader that must be let in before its first byte.
type gated struct {
	io.Reader
	open func() error
}

func (g *gated) Read(p []byte) (int, error) {
	if g.open != nil {
		if err := g.open(); err != nil {
			return 0, err
		}
		g.open = nil
	}
	return g.Reader.Read(p)
}

func readBody(r *http.Request, most int64) ([]byte, error) {
	tooLarge := func() error {
		return problem.New(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", most)
	}
	if r.ContentLength > most {
		return nil, tooLarge()
	}
	var body []byte
	var err error
	if r.ContentLength > 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else if r.ContentLength < 0 {
		body, err = io.ReadAll(io.LimitReader(r.Body, most+1))
	}
	switch {
	case errors.As(err, new(*problem.Problem)):
		return nil, err
	case err != nil:
		return nil, problem.New(http.StatusBadRequest, "the body broke off").Wrap(err)
	case int64(len(body)) > most:
		return nil, tooLarge()
	}
	return body, nil
}

// resolve finds the flow and its version, and what holds for all starts of the request.
func (a *API) resolve(ctx context.Context, ref string, s *Start, who *auth.Principal) (*start.Plan, error) {
	head, err := a.o.Definitions.Head(ctx, ref)
	if err != nil {
		return nil, noFlow(err, ref)
	}
	plan, err := a.resolveHead(ctx, head, s, who.Key())
	if err != nil {
		return nil, err
	}
	if _, ok := plan.Version.Program.Entry(triggerManual); !ok {
		return nil, problem.New(http.StatusConflict, "the flow %q can't be started by hand: it has several triggers, and none of them is trigger.manual", head.Name)
	}
	return plan, nil
}

const triggerManual = "manual"

// resolveHead is resolve for a flow that was found, whatever starts it.
func (a *API) resolveHead(ctx context.Context, head store.Flow, s *Start, client string) (*start.Plan, error) {
	shards := a.o.Shards()
	if shards == 0 {
		return nil, problem.New(http.StatusServiceUnavailable, "this gateway is starting: it waits for the database").RetryAfter(1)
	}
	plan, err := start.Prepare(ctx, a.o.Definitions, head, start.Request{Version: s.Version, Priority: s.Priority, Labels: s.Labels, Trigger: triggerManual, Client: client, Now: a.o.Now(), Shards: shards})
	var unusable *definitions.UnusableError
	switch {
	case errors.Is(err, start.ErrNoVersion) && s.Version != 0:
		return nil, problem.Invalid("the flow can't be started", problem.Body("/version", "unknown", "the flow %q has no version %d", head.Name, s.Version))
	case errors.Is(err, start.ErrNoVersion):
		return nil, problem.New(http.StatusConflict, "the flow %q has no published version, only drafts: publish one, or name a version", head.Name)
	case errors.As(err, &unusable):
		return nil, problem.New(http.StatusConflict, "%s", unusable.Error())
	}
	return plan, err
}

// start is POST /flows/{id}/executions.
func (a *API) start(w http.ResponseWriter, r *http.Request) {
	who, body, leave, err := a.gate(w, r, maxStartBody)
	if err != nil {
		a.refuse(w, "startExecution", err)
		return
	}
	defer leave()
	var s Start
	if err := parseStart(body, &s, nil); err != nil {
		a.refuse(w, "startExecution", err)
		return
	}
	patience, err := waitOf(r)
	if err != nil {
		a.refuse(w, "startExecution", err)
		return
	}
	plan, err := a.resolve(r.Context(), flowOf(r), &s, who)
	if err != nil {
		a.refuse(w, "startExecution", err)
		return
	}
	row, wrong := plan.Execution(s.Input, "/input")
	if len(wrong) > 0 {
		a.refuse(w, "startExecution", problem.Invalid("the input doesn't fit the flow; nothing was started", fieldsOf(wrong)...))
		return
	}
	if row.IdempotencyKey, err = keyOf(r, who, plan.Head.ID, body); err != nil {
		a.refuse(w, "startExecution", err)
		return
	}
	var waiter *wait.Waiter
	if patience > 0 {
		var ok bool
		if waiter, ok = a.o.Waits.Add(row.ID); !ok { // before COMMIT: no end can come before
			a.refuse(w, "startExecution", problem.New(http.StatusServiceUnavailable, "too many requests wait already: start without ?wait and ask later").RetryAfter(time.Second))
			return
		}
		defer waiter.Close()
	}
	rows := []store.NewExecution{row}
	done, err := a.submit(rows)
	if err != nil {
		a.refuse(w, "startExecution", err)
		return
	}
	if done[0].Duplicate {
		w.Header()["Idempotency-Replayed"] = []string{"true"}
	}
	if done[0].Duplicate || done[0].Merged || done[0].Ended { // it is another execution, or has an end already
		a.replayed(w, r, done[0].ID, patience)
		return
	}
	if waiter != nil {
		waiter.Wait(r.Context(), patience)
		a.answerWaited(w, r, row.ID)
		return
	}
	writeAccepted(w, row.ID, "queued")
}

// startBatch is POST /flows/{id}/executions/batch.
func (a *API) startBatch(w http.ResponseWriter, r *http.Request) {
	const op = "startBatch"
	who, body, leave, err := a.gate(w, r, maxBatchBody)
	if err != nil {
		a.refuse(w, op, err)
		return
	}
	defer leave()
	var s Start
	var inputs []json.RawMessage
	if err := parseStart(body, &s, &inputs); err != nil {
		a.refuse(w, op, err)
		return
	}
	plan, err := a.resolve(r.Context(), flowOf(r), &s, who)
	if err != nil {
		a.refuse(w, op, err)
		return
	}
	key, err := keyOf(r, who, plan.Head.ID, body)
	if err != nil {
		a.refuse(w, op, err)
		return
	}
	rows := make([]store.NewExecution, len(inputs))
	var wrong []problem.Field
	for i, input := range inputs {
		row, problems := plan.Execution(input, "/inputs/"+strconv.Itoa(i))
		if wrong = append(wrong, fieldsOf(problems)...); len(wrong) > 100 {
			break
		}
		row.IdempotencyKey = key
		if key.Key != "" {
			row.IdempotencyKey.Key = key.Key + "#" + strconv.Itoa(i)
		}
		rows[i] = row
	}
	if len(wrong) > 0 {
		a.refuse(w, op, problem.Invalid("inputs don't fit the flow; nothing was started", wrong...))
		return
	}
	done, err := a.submit(rows)
	if err != nil {
		a.refuse(w, op, err)
		return
	}
	if done[0].Duplicate {
		w.Header()["Idempotency-Replayed"] = []string{"true"}
	}
	buf := make([]byte, 0, 32+70*len(done))
	buf = append(buf, `{"items":[`...)
	for i := range done {
		if i > 0 {
			buf = append(buf, ',')
		}
		status := "queued"
		if done[i].Ended {
			status = "cancelled"
		}
		buf = appendAccepted(buf, done[i].ID, status)
	}
	writeJSON(w, http.StatusAccepted, append(buf, "]}\n"...))
}

// submit commits rows and says no where that has a reason.
func (a *API) submit(rows []store.NewExecution) ([]store.Inserted, error) {
	done, err := a.o.Submit(rows)
	switch {
	case errors.Is(err, accept.ErrBusy):
		return nil, problem.New(http.StatusServiceUnavailable, "%s", accept.ErrBusy.Error()).RetryAfter(time.Second)
	case errors.Is(err, accept.ErrStopped):
		return nil, problem.New(http.StatusServiceUnavailable, "%s: another one takes this", accept.ErrStopped.Error()).RetryAfter(time.Second)
	case errors.Is(err, protocol.ErrUnknown):
		return nil, problem.New(http.StatusServiceUnavailable, "the database's answer to the commit was lost and it can't be asked now, so it is not known whether this was accepted: repeat it with the same Idempotency-Key").RetryAfter(time.Second).Wrap(err)
	case err != nil:
		return nil, err
	}
	for i := range done {
		if done[i].Err != nil {
			return nil, done[i].Err
		}
		if done[i].Refused != nil {
			return nil, problem.New(http.StatusTooManyRequests, "nothing was started: %s", done[i].Refused.Error()).RetryAfter(time.Second)
		}
		if done[i].Conflict {
			return nil, problem.Invalid("nothing was started", problem.Parameter("header", "Idempotency-Key", "this key was used before with another body: take a new one for a new request"))
		}
	}
	return done, nil
}

// flowOf is the flow of the path, decoded.
func flowOf(r *http.Request) string {
	s := chi.URLParam(r, "id")
	if strings.IndexByte(s, '%') >= 0 && r.URL.RawPath != "" {
		if dec, err := pathUnescape(s); err == nil {
			return dec
		}
	}
	return s
}

// waitOf reads ?wait.
func waitOf(r *http.Request) (time.Duration, error) {
	if r.URL.RawQuery == "" {
		return 0, nil
	}
	s := r.URL.Query().Get("wait")
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if ms, numErr := strconv.Atoi(s); numErr == nil {
		d, err = time.Duration(ms)*time.Millisecond, nil
	}
	if err != nil || d < 0 || d > wait.Max {
		return 0, problem.Invalid("the request is wrong; nothing was started", problem.Parameter("query", "wait", "%q is not a duration from 0 to %s, like 10s", s, wait.Max))
	}
	return d, nil
}

// keyOf reads the Idempotency-Key. The scope is the client and the call.
func keyOf(r *http.Request, who *auth.Principal, id protocol.ID, body []byte) (store.IdempotencyKey, error) {
	if len(r.Header["Idempotency-Key"]) == 0 {
		return store.IdempotencyKey{}, nil
	}
	return idempotencyKey(r, who.Key()+" start "+id.String(), body)
}

// idempotencyKey reads the header; the key belongs to the scope, and stands for this body.
func idempotencyKey(r *http.Request, scope string, body []byte) (store.IdempotencyKey, error) {
	list := r.Header["Idempotency-Key"]
	if len(list) == 0 || list[0] == "" {
		return store.IdempotencyKey{}, nil
	}
	key := list[0]
	if len(key) > maxKeyBytes || strings.ContainsFunc(key, func(c rune) bool { return c < 0x20 || c > 0x7e }) {
		return store.IdempotencyKey{}, problem.Invalid("the request is wrong; nothing was started", problem.Parameter("header", "Idempotency-Key", "a key has 1 to %d printable ASCII characters", maxKeyBytes))
	}
	hash := sha256.Sum256(body)
	return store.IdempotencyKey{Scope: scope, Key: key, BodyHash: hash[:]}, nil
}

// parseStart reads the body of a start, or with inputs of a batch, and names every field that is wrong.
func parseStart(body []byte, s *Start, inputs *[]json.RawMessage) error {
	var top map[string]json.RawMessage
	if len(body) > 0 {
		if err := json.Unmarshal(body, &top); err != nil {
			var kind *json.UnmarshalTypeError
			if errors.As(err, &kind) {
				return problem.Invalid("nothing was started", problem.Body("", "type", "the body must be an object like {\"input\": …}"))
			}
			return badJSON(err.Error())
		}
	}
	var wrong []problem.Field
	for name, raw := range top {
		var f []problem.Field
		switch {
		case name == "input" && inputs == nil:
			s.Input = raw
		case name == "inputs" && inputs != nil:
			f = parseInputs(raw, inputs)
		case name == "priority":
			if json.Unmarshal(raw, &s.Priority) != nil || !slices.Contains([]string{"", "high", "normal", "low"}, s.Priority) {
				f = append(f, problem.Body("/priority", "one-of", "priority is high, normal or low"))
			}
		case name == "version":
			if json.Unmarshal(raw, &s.Version) != nil || s.Version < 0 || string(raw) == "0" {
				f = append(f, problem.Body("/version", "type", "a version is a whole number from 1 on"))
			}
		case name == "labels":
			s.Labels, f = parseLabels(raw)
		default:
			known := []string{"input", "priority", "version", "labels"}
			if inputs != nil {
				known[0] = "inputs"
			}
			f = append(f, problem.Body("/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name), "unknown-field", "there is no field %q%s", name, flow.DidYouMean(name, known)))
		}
		wrong = append(wrong, f...)
	}
	if _, ok := top["inputs"]; inputs != nil && !ok {
		wrong = append(wrong, problem.Body("/inputs", "required", "inputs is required: a list of 1 to %d inputs", maxBatch))
	}
	if len(wrong) > 0 {
		slices.SortFunc(wrong, func(a, b problem.Field) int { return strings.Compare(a.Pointer, b.Pointer) })
		return problem.Invalid("nothing was started", wrong...)
	}
	return nil
}

func parseInputs(raw json.RawMessage, inputs *[]json.RawMessage) []problem.Field {
	if json.Unmarshal(raw, inputs) != nil || len(*inputs) == 0 || len(*inputs) > maxBatch {
		return []problem.Field{problem.Body("/inputs", "range", "inputs is a list of 1 to %d inputs", maxBatch)}
	}
	return nil
}

func parseLabels(raw json.RawMessage) (map[string]string, []problem.Field) {
	var any map[string]json.RawMessage
	if json.Unmarshal(raw, &any) != nil || len(any) > maxLabels {
		return nil, []problem.Field{problem.Body("/labels", "type", "labels is an object of at most %d strings", maxLabels)}
	}
	if len(any) == 0 {
		return nil, nil
	}
	var wrong []problem.Field
	out := make(map[string]string, len(any))
	for k, v := range any {
		var s string
		if json.Unmarshal(v, &s) != nil || string(v) == "null" || k == "" || len(k) > maxLabelBytes || len(s) > maxLabelBytes || strings.ContainsRune(k+s, 0) {
			wrong = append(wrong, problem.Body("/labels/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(k), "type", "a label's name and text are strings of 1 to %d bytes without NUL", maxLabelBytes))
		}
		out[k] = s
	}
	return out, wrong
}

var (
	typeJSON = []string{"application/json"}
	nl       = []byte("\n")
)

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone: what it asked for is done
}

func appendAccepted(b []byte, id protocol.ID, status string) []byte {
	return fmt.Appendf(b, `{"id":"%s","status":"%s"}`, id, status)
}

func writeAccepted(w http.ResponseWriter, id protocol.ID, status string) {
	text := id.String()
	w.Header()["Location"] = []string{Base + "/executions/" + text}
	b := make([]byte, 0, 80)
	b = append(b, `{"id":"`...)
	b = append(b, text...)
	b = append(b, `","status":"`...)
	b = append(b, status...)
	writeJSON(w, http.StatusAccepted, append(b, "\"}\n"...))
}

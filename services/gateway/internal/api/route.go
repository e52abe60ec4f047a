package api

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// public says that a route needs no login.
const public = auth.Nobody

// roleKey is where an operation's metadata name its role.
const roleKey = "role"

// route registers an operation under Base for callers of at least the role.
func route[I, O any](a *API, role auth.Role, op huma.Operation, h func(context.Context, *I) (*O, error)) {
	if !strings.HasPrefix(op.Path, hookBase) { // hooks are at the root
		op.Path = Base + op.Path
	}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = a.problem
	op.Metadata = map[string]any{roleKey: role.String()}
	if role == public {
		op.Security = []map[string][]string{}
		op.Description += " No login needed."
	} else {
		op.Security = []map[string][]string{{"bearer": {}}}
		op.Description += " Role: " + role.String() + "."
	}
	op.Extensions = map[string]any{"x-role": role.String()}
	if op.Method == http.MethodPost || op.Method == http.MethodPut || op.Method == http.MethodPatch {
		if op.MaxBodyBytes == 0 {
			op.MaxBodyBytes = maxSmallBody
		}
		op.Extensions["x-max-body-bytes"] = op.MaxBodyBytes
	}
	op.Description = strings.TrimSpace(op.Description)
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		r, w := humachi.Unwrap(ctx)
		who, p := a.admit(w, r, role)
		if p != nil {
			p.Write(w)
			return
		}
		if ct := r.Header.Get("Content-Type"); r.ContentLength != 0 && op.MaxBodyBytes > 0 && ct != "" && !strings.Contains(ct, "json") {
			notJSON(ct).Write(w)
			return
		}
		next(huma.WithValue(ctx, callerKey{}, &caller{who: who, address: a.address(r)}))
	}}
	var content map[string]*huma.MediaType
	if op.RequestBody != nil {
		content = maps.Clone(op.RequestBody.Content)
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, a.explain(op.OperationID, err)
		}
		return out, nil
	})
	if content != nil {
		op.RequestBody.Content = content // huma adds application/octet-stream for a raw body
	}
}

// maxSmallBody bounds bodies that say nothing else.
const maxSmallBody = 16 << 10

func notJSON(contentType string) *problem.Problem {
	return problem.New(http.StatusUnsupportedMediaType, "the body must be application/json, not %s", contentType)
}

// also documents another answer of an operation.
func also[T any](a *API, status int, description string) map[string]*huma.Response {
	return map[string]*huma.Response{strconv.Itoa(status): {Description: description, Content: map[string]*huma.MediaType{"application/json": {Schema: schemaOf[T](a.huma.OpenAPI().Components.Schemas, "")}}}}
}

func schemaOf[T any](r huma.Registry, hint string) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, hint)
}

type callerKey struct{}

// caller is who calls; who is nil on public routes.
type caller struct {
	who     *auth.Principal
	address string
}

func callerOf(ctx context.Context) *caller { return ctx.Value(callerKey{}).(*caller) }

// principal is who calls a route that isn't public.
func principal(ctx context.Context) *auth.Principal { return callerOf(ctx).who }

// admit says who calls, and refuses who may not, or not so often.
func (a *API) admit(w http.ResponseWriter, r *http.Request, role auth.Role) (*auth.Principal, *problem.Problem) {
	if role == public {
		return nil, a.limit(w, r, "address:"+a.address(r), a.o.RateLimit)
	}
	who, err := a.o.Accounts.Who.Authenticate(r.Context(), bearer(r))
	switch {
	case errors.Is(err, auth.ErrNoToken), errors.Is(err, auth.ErrBadToken):
		if p := a.limit(w, r, "address:"+a.address(r), a.o.RateLimit); p != nil { // guesses count too
			return nil, p
		}
		return nil, problem.New(http.StatusUnauthorized, "%s", err.Error()).With("WWW-Authenticate", "Bearer")
	case err != nil:
		p, _ := problem.From(a.explain("authenticate", err))
		return nil, p
	}
	limit := a.o.RateLimit
	if who.RateLimit != 0 {
		limit = who.RateLimit
	}
	if limit > 0 {
		if p := a.limit(w, r, who.Key(), limit); p != nil {
			return nil, p
		}
	}
	if role == auth.Worker && who.Role != auth.Worker && who.Role < auth.Operator {
		return nil, problem.New(http.StatusForbidden, "this is for API tokens of the role worker, operators and administrators, and your role is %s", who.Role)
	}
	if who.Role < role {
		return nil, problem.New(http.StatusForbidden, "this needs the role %s, and yours is %s", role, who.Role)
	}
	return who, nil
}

func bearer(r *http.Request) string {
	h := r.Header.Get("Authorization")
	if len(h) > 7 && strings.EqualFold(h[:7], "Bearer ") {
		return h[7:]
	}
	return ""
}

// limit counts a request and says so in its headers.
func (a *API) limit(w http.ResponseWriter, r *http.Request, key string, perMinute int) *problem.Problem {
	d := a.o.Limit(r.Context(), key, perMinute)
	limitHeaders(w.Header(), d)
	if d.Allowed {
		return nil
	}
	return problem.New(http.StatusTooManyRequests, "more than %d requests a minute: wait, or ask for a token with a higher rateLimit", perMinute).RetryAfter(d.RetryAfter)
}

func limitHeaders(h http.Header, d live.Decision) {
	h["Ratelimit-Limit"] = []string{strconv.Itoa(d.Limit)}
	h["Ratelimit-Remaining"] = []string{strconv.Itoa(d.Remaining)}
	h["Ratelimit-Reset"] = []string{strconv.Itoa(int((d.Reset + 999_999_999) / 1_000_000_000))}
}

// address is where a request comes from: behind a proxy that we trust, what the nearest one says.
func (a *API) address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !a.trusts(ip) {
		return host
	}
	list := strings.Split(r.Header.Get("X-Forwarded-For"), ",")
	for i := len(list) - 1; i >= 0; i-- { // from the nearest: the first that isn't a proxy of ours
		next, err := netip.ParseAddr(strings.TrimSpace(list[i]))
		if err != nil {
			break
		}
		if ip = next; !a.trusts(next) {
			break
		}
	}
	return ip.Unmap().String()
}

func (a *API) trusts(ip netip.Addr) bool {
	for _, p := range a.o.TrustedProxies {
		if p.Contains(ip.Unmap()) {
			return true
		}
	}
	return false
}

// explain makes a problem of an error, and logs what isn't the caller's fault: here and nowhere else.
func (a *API) explain(op string, err error) error {
	p, ok := problem.From(err)
	if !ok {
		p = fromStore(err)
	}
	if p.Status >= 500 && p.Instance == "" {
		p.Instance = "urn:flow:error:" + strings.ToLower(rand.Text()[:12])
		a.log.Error("a request failed", "operation", op, "status", p.Status, "instance", p.Instance, "error", err)
	}
	return p
}

// fromStore says what an error of the store means to a caller.
func fromStore(err error) *problem.Problem {
	var conflict *store.ConflictError
	var unusable interface{ SQLState() string }
	var network net.Error
	switch {
	case errors.As(err, &conflict):
		p := problem.New(http.StatusConflict, "%s exists already", conflict.Field)
		p.Errors = []problem.Field{problem.Body("/"+conflict.Field, "exists", "%s is taken: choose another one", conflict.Field)}
		return p
	case errors.Is(err, store.ErrNotFound):
		return problem.New(http.StatusNotFound, "there is no such thing, or no longer")
	case errors.Is(err, store.ErrStale):
		return problem.New(http.StatusPreconditionFailed, "somebody else has changed it since you read it: read it again, and apply your change to that")
	case errors.Is(err, store.ErrCursor):
		return problem.Invalid("the cursor is wrong", problem.Parameter("query", "cursor", "%s", store.ErrCursor.Error()))
	case errors.Is(err, protocol.ErrUnknown):
		return problem.New(http.StatusServiceUnavailable, "the database's answer was lost, so it is not known whether this was done: look, or repeat it (an execution with the same Idempotency-Key)").RetryAfter(1).Wrap(err)
	case errors.Is(err, protocol.ErrData):
		return problem.New(http.StatusUnprocessableEntity, "the database refuses a value of this request: texts must be valid UTF-8 without NUL").Wrap(err)
	case errors.Is(err, store.ErrNoPartition):
		return problem.New(http.StatusServiceUnavailable, "the database has no partition for this day: the leading orchestrator makes it within a minute").RetryAfter(10).Wrap(err)
	case errors.As(err, &unusable) && strings.HasPrefix(unusable.SQLState(), "42"):
		return problem.New(http.StatusInternalServerError, "this is a fault of the gateway: its log says more").Wrap(err)
	// An unexpected end is how pgx tells of a server that died while it was read from.
	case errors.As(err, &unusable), errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem.New(http.StatusServiceUnavailable, "the database doesn't answer as it should: try again").RetryAfter(1).Wrap(err)
	}
	return problem.New(http.StatusInternalServerError, "this is a fault of the gateway: its log says more").Wrap(err)
}

// transformProblem turns huma's own errors into problems like ours.
func transformProblem(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problem.New(m.Status, "%s", m.Detail)
	for _, e := range m.Errors {
		if e == nil {
			continue
		}
		f := problem.Field{Location: e.Location, Message: e.Message}
		if rest, ok := strings.CutPrefix(e.Location, "body"); ok {
			f.Location, f.Pointer = "body", pointerOf(rest)
		}
		p.Errors = append(p.Errors, f)
	}
	return p, nil
}

// pointerOf makes a JSON pointer of huma's path: .items[3].tags is /items/3/tags.
func pointerOf(path string) string {
	return strings.NewReplacer("[", "/", "]", "", ".", "/").Replace(path)
}

// Page is how every list is asked for.
type Page struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"How many at the most"`
	Cursor string `query:"cursor" doc:"nextCursor of the page before"`
}

func (p Page) page() store.Page { return store.Page{Limit: p.Limit, Cursor: p.Cursor} }

// List is a page of something.
type List[T any] struct {
	Items      []T    `json:"items" nullable:"false"`
	NextCursor string `json:"nextCursor,omitempty" doc:"Absent on the last page"`
}

type listOutput[T any] struct{ Body List[T] }

func listOf[S, T any](rows []S, next string, view func(*S) T) *listOutput[T] {
	out := &listOutput[T]{Body: List[T]{Items: make([]T, len(rows)), NextCursor: next}}
	for i := range rows {
		out.Body.Items[i] = view(&rows[i])
	}
	return out
}

// nothing is the answer of a 204.
type nothing struct{}

// pathID is an id in a path; what isn't one is unknown.
func pathID(s, what string) (protocol.ID, error) {
	id, err := protocol.ParseID(s)
	if err != nil {
		return id, problem.New(http.StatusNotFound, "there is no %s with the id %q", what, s)
	}
	return id, nil
}

// missing names what wasn't found.
func missing(err error, what, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return problem.New(http.StatusNotFound, "there is no %s with the id %q", what, id)
	}
	return err
}

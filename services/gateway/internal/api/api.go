// Package api is the gateway's HTTP: routes, who may call them, what they answer. The OpenAPI document is made from the same types that check requests.
//
// Every route names the role that it needs; who registers one without a role must say "public" in so many words. Errors are problem details
// (RFC 9457), whoever makes them: this package, huma's validation, or the router.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/poll"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/gateway/internal/reply"
	"flowplatform/services/gateway/internal/vault"
	"flowplatform/services/gateway/internal/wait"
	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/definitions"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// Base of all paths that users call.
const Base = "/api/v1"

// Options of New. All but TrustedProxies and Registerer are required.
type Options struct {
	DB          *store.DB
	Accounts    *auth.Accounts
	Definitions *definitions.Definitions
	Catalogue   *node.Catalogue
	Waits       *wait.Registry
	Replies     *reply.Registry
	Vault       *vault.Vault
	// Dial connects to the servers of credentials that are tried out, by the rules for addresses that flows may call.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Submit commits executions, all or none.
	Submit func(rows []store.NewExecution) ([]store.Inserted, error)
	// HandOut publishes executions that were committed by other ways than Submit. It never waits.
	HandOut func(rows []store.NewExecution)
	// Full tells that so much waits to be handed out that no more is accepted.
	Full func() bool
	// Shards is the number of report queues; 0: not known yet.
	Shards func() int
	// Limit counts a request of a client.
	Limit     func(ctx context.Context, key string, perMinute int) live.Decision
	RateLimit int      // a minute and client
	Origins   []string // whose scripts may call the API; * is everybody's
	// Follow takes what a commit leaves to be done for executions: to hand them out, to act on letters, to tell owners and the live view. It never waits.
	Follow func(protocol.Outcome)
	// Tell sends a control message to all workers, only for speed.
	Tell func(protocol.Control)
	// Fleet is the leader's picture of what runs.
	Fleet func(ctx context.Context) (live.Fleet, error)

	// Polls are the requests of remote workers that wait. Polled notes a poll of a queue, LastPolls tells of the last ones.
	Polls     *poll.Registry
	Polled    func(queue string)
	LastPolls func(ctx context.Context) map[string]time.Time

	InternalToken    string
	CredentialsToken string // of workers, that open credentials
	Healthz          http.HandlerFunc
	Readyz           http.HandlerFunc
	TrustedProxies   []netip.Prefix // whose X-Forwarded-For is believed
	Log              *slog.Logger
	Registerer       prometheus.Registerer
	Now              func() time.Time
}

// API is the gateway's HTTP.
type API struct {
	o       Options
	log     *slog.Logger
	router  *chi.Mux
	huma    huma.API
	plain   map[string]http.HandlerFunc // operations that are documented by huma and served without it
	metrics *metrics
	problem *huma.Response
	trials  chan struct{}       // a place for each credential that is tried out
	large   *semaphore.Weighted // bytes of large bodies under way
	values  chan struct{}       // answers with large values under way
}

// New builds the routes.
func New(o Options) *API {
	a := &API{o: o, log: o.Log, router: chi.NewRouter(), plain: map[string]http.HandlerFunc{}, metrics: newMetrics(o.Registerer),
		large: semaphore.NewWeighted(largeBodies), values: make(chan struct{}, valuesAtOnce), trials: make(chan struct{}, maxTrials)}
	a.router.Use(a.observe, a.secure)
	a.router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		problem.New(http.StatusNotFound, "there is nothing at %s; /api/docs lists what there is", r.URL.Path).Write(w)
	})
	a.router.MethodNotAllowed(a.methodNotAllowed)
	a.huma = huma.NewAPI(a.config(), &adapter{Adapter: humachi.NewAdapter(a.router), router: a.router, plain: a.plain})
	registry := a.huma.OpenAPI().Components.Schemas
	a.problem = &huma.Response{Description: "What is wrong, as problem details (RFC 9457)", Content: map[string]*huma.MediaType{problem.ContentType: {Schema: schemaOf[problem.Problem](registry, "Problem")}}}

	a.authRoutes()
	a.tokenRoutes()
	a.userRoutes()
	a.flowRoutes()
	a.startRoutes()
	a.executionRoutes()
	a.controlRoutes()
	a.replayRoute()
	a.bulkRoutes()
	a.whyRoute()
	a.limitRoutes()
	a.catchRoutes()
	a.signalRoutes()
	a.approvalRoutes()
	a.hookRoutes()
	a.credentialRoutes()
	a.valueRoutes()
	a.catalogRoutes()
	a.overviewRoutes()
	a.workerRoutes()
	a.queueRoutes()
	a.scalingRoutes()
	a.settingRoutes()
	a.letterRoutes()
	a.scheduleRoutes()
	a.remoteRoutes()
	a.docsRoutes()
	a.router.Get("/healthz", o.Healthz)
	a.router.Get("/readyz", o.Readyz)
	a.router.Post("/internal/v1/bootstrap", a.bootstrap)
	return a
}

// Handler serves everything.
func (a *API) Handler() http.Handler { return a.router }

// adapter lets huma document operations that a plain handler serves: huma decodes and checks a body twice, which the hot path can't afford.
type adapter struct {
	huma.Adapter
	router chi.Router
	plain  map[string]http.HandlerFunc
}

// Handle implements huma.Adapter.
func (ad *adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	if h := ad.plain[op.OperationID]; h != nil {
		ad.router.MethodFunc(op.Method, op.Path, h)
		return
	}
	ad.Adapter.Handle(op, handler)
}

const description = `Base of all calls: /api/v1. Send the header ` + "`Authorization: Bearer TOKEN`" + ` with an access token (POST /auth/login) or an API token (POST /tokens).

Lists come in pages: ` + "`?limit=` (1 to 500, default 50) and `?cursor=`" + ` with the nextCursor of the page before. Ids are UUIDv7, times RFC 3339 in UTC.
Errors are problem details (RFC 9457) with one entry for each field that is wrong. What can be edited has an ETag; send it back as If-Match to notice that somebody else was faster (412).
Requests are limited a minute and client: the RateLimit-* headers say how many are left, 429 comes with Retry-After.`

func (a *API) config() huma.Config {
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: json.Unmarshal}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Flow platform", Version: "1", Description: description},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", schemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer", Description: "Access token or API token"}},
			},
		},
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{transformProblem},
	}
}

// schemaName keeps the two kinds of problems apart.
func schemaName(t reflect.Type, hint string) string {
	switch t {
	case reflect.TypeFor[flow.Problem]():
		return "DocumentProblem"
	case reflect.TypeFor[node.View]():
		return "NodeType"
	case reflect.TypeFor[List[node.View]]():
		return "ListNodeType"
	case reflect.TypeFor[credential.View]():
		return "CredentialType"
	case reflect.TypeFor[List[credential.View]]():
		return "ListCredentialType"
	case reflect.TypeFor[node.ExampleView]():
		return "NodeExample"
	}
	return huma.DefaultSchemaNamer(t, hint)
}

func (a *API) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	p := problem.New(http.StatusMethodNotAllowed, "%s is not possible at %s", r.Method, r.URL.Path)
	allow := ""
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		if a.router.Match(chi.NewRouteContext(), m, r.URL.Path) {
			if allow != "" {
				allow += ", "
			}
			allow += m
		}
	}
	if allow != "" {
		p.With("Allow", allow)
		p.Detail += "; what is: " + allow
	}
	p.Write(w)
}

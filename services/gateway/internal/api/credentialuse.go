package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/nodes"
	"flowplatform/services/internal/store"
)

const (
	trialTime = 10 * time.Second
	maxTrials = 8 // at once, in this gateway
)

// dialFunc connects by the rules for addresses that flows may call.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// trials try credentials out, by type. What isn't here names no server.
var trials = map[string]func(ctx context.Context, fields map[string]string, dial dialFunc) error{
	credential.AMQP: func(ctx context.Context, f map[string]string, dial dialFunc) error {
		return broker.Probe(ctx, credential.AMQPURL(f), dial)
	},
	credential.Postgres: func(ctx context.Context, f map[string]string, dial dialFunc) error {
		return store.Probe(ctx, credential.PostgresURL(f), dial)
	},
	credential.Redis: func(ctx context.Context, f map[string]string, dial dialFunc) error {
		return live.Probe(ctx, credential.RedisURL(f), dial)
	},
}

func (a *API) testCredential(ctx context.Context, in *CredentialRef) (*struct{ Body Trial }, error) {
	c, err := a.credential(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	secret, err := a.unseal(&c)
	if err != nil {
		return nil, err
	}
	answer := func(outcome, message string, took time.Duration) (*struct{ Body Trial }, error) {
		a.note(ctx, "test", "credential", c.ID.String(), map[string]any{"name": c.Name, "type": c.Type, "outcome": outcome})
		return &struct{ Body Trial }{Trial{outcome, message, took.Milliseconds()}}, nil
	}
	t, ok := credential.Find(c.Type)
	try := trials[c.Type]
	if !ok || try == nil {
		return answer("untested", "it opens; a credential of type "+c.Type+" names no server, so only a flow shows whether it works", 0)
	}
	select {
	case a.trials <- struct{}{}:
		defer func() { <-a.trials }()
	default:
		return nil, problem.New(http.StatusServiceUnavailable, "%d credentials are being tried out at this gateway: try again", maxTrials).RetryAfter(time.Second)
	}
	begun := a.o.Now()
	bounded, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	public := t.Flat(publicOf(&c))
	err = try(bounded, t.Flat(publicOf(&c), secret), a.o.Dial)
	took := a.o.Now().Sub(begun)
	if err == nil {
		return answer("works", "connected and logged in", took)
	}
	return answer("fails", credential.NewMasker(&credential.Opened{Public: public, Secret: t.Flat(secret)}).Error(trouble(bounded, err)), took)
}

// trouble says in words what came of a connection.
func trouble(ctx context.Context, err error) string {
	if why, ok := nodes.Refused(err); ok {
		return why
	}
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + trialTime.String() + ": are host and port right, and does a firewall let us through?"
	case errors.As(err, &dns):
		return "the name " + dns.Name + " can't be found (" + dns.Err + ")"
	}
	text := err.Error()
	return text[:min(len(text), 500)]
}

func (a *API) resealCredentials(ctx context.Context, _ *struct{}) (*struct{ Body Resealed }, error) {
	out := Resealed{KeyID: a.o.Vault.Current(), Failed: []string{}}
	for page := (store.Page{Limit: 500}); ; {
		rows, next, err := a.o.DB.ListCredentials(ctx, nil, page)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			c := &rows[i]
			if c.KeyID == out.KeyID {
				out.Fine++
				continue
			}
			if err := a.reseal(ctx, c); err != nil {
				a.log.Warn("a credential could not be encrypted anew", "credential", c.ID.String(), "error", err)
				out.Failed = append(out.Failed, c.Name)
				continue
			}
			out.Done++
		}
		if page.Cursor = next; next == "" {
			break
		}
	}
	a.note(ctx, "reseal", "credential", "", map[string]any{"keyId": out.KeyID, "done": out.Done, "fine": out.Fine, "failed": len(out.Failed)})
	return &struct{ Body Resealed }{out}, nil
}

func (a *API) reseal(ctx context.Context, c *store.Credential) error {
	secret, err := a.unseal(c)
	if err != nil {
		return err
	}
	from := c.KeyID
	if err := a.sealSecret(c, secret); err != nil {
		return err
	}
	return a.o.DB.ResealCredential(ctx, *c, from)
}

// openCredential gives a worker a credential with its secret. The front door never forwards /internal; the bearer token is the workers' own: an orchestrator has
// no use for secrets.
func (a *API) openCredential(w http.ResponseWriter, r *http.Request) {
	result := "error"
	defer func() { a.metrics.opened.WithLabelValues(result).Inc() }()
	fail := func(err error) {
		p, _ := problem.From(a.explain("openCredential", err))
		p.Write(w)
	}
	if p := internal(r, a.o.CredentialsToken, "CREDENTIALS_TOKEN"); p != nil {
		result = "refused"
		p.Write(w)
		return
	}
	name, err := url.PathUnescape(chi.URLParam(r, "id"))
	if err != nil || len(name) > 4*credential.MaxName {
		fail(problem.New(http.StatusNotFound, "there is no such credential"))
		return
	}
	c, err := a.credential(r.Context(), name)
	if err != nil {
		fail(err)
		return
	}
	t, ok := credential.Find(c.Type)
	if !ok {
		fail(problem.New(http.StatusConflict, "the credential %q is of the type %s, which this release doesn't know", c.Name, c.Type))
		return
	}
	secret, err := a.unseal(&c)
	if err != nil {
		fail(err)
		return
	}
	result = "opened"
	a.log.Debug("a credential was opened for a worker", "credential", c.ID.String(), "type", c.Type, "worker", strings.ToValidUTF8(r.Header.Get("X-Flow-Worker"), ""))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(credential.Opened{ID: c.ID.String(), Name: c.Name, Type: c.Type, Public: t.Flat(publicOf(&c)), Secret: t.Flat(secret)})
}

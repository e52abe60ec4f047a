package verify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"flowplatform/services/flowctl/internal/client"
)

const (
	notHere = "not on this single machine: its agents know no tokens and listen on the loopback"
	// wrongToken has the shape of a token, and is nobody's.
	wrongToken = "00000000-1111-4222-8333-444444444444"
	// nobodysKey is where it is tried to read and write in Consul without a token.
	nobodysKey = "flowctl-verify/nobody"
)

func (r *run) security(ctx context.Context) {
	c, n := r.o.Consul, r.o.Nomad
	if r.ground.consulAway != nil {
		r.check(ctx, "security", "Consul", func(context.Context) finding { return away(c, r.ground.consulUnset, r.ground.consulAway) })
	} else {
		r.denied(ctx, c, "/v1/kv/"+nobodysKey, "/v1/agent/self", "/v1/catalog/nodes", "/v1/health/state/any")
		r.check(ctx, "security", "Consul takes nothing without a token", func(ctx context.Context) finding { return r.writeDenied(ctx) })
		r.encrypted(ctx, c)
	}
	if r.ground.nomadAway != nil {
		r.check(ctx, "security", "Nomad", func(context.Context) finding { return away(n, r.ground.nomadUnset, r.ground.nomadAway) })
	} else {
		r.denied(ctx, n, "/v1/vars?namespace=*", "/v1/jobs?namespace=*", "/v1/nodes", "/v1/agent/self", "/v1/acl/policies")
		r.encrypted(ctx, n)
	}
	r.check(ctx, "security", "front door refuses without a token", r.doorDenied)
	r.check(ctx, "security", "front door keeps the inside in", r.doorInside)
	r.check(ctx, "security", "front door speaks TLS", func(context.Context) finding { return judgeDoor(r.o.API.Server, r.ground.single()) })
}

// denied tries to read without a token and with a wrong one.
func (r *run) denied(ctx context.Context, e *Endpoint, paths ...string) {
	for _, token := range []string{"", wrongToken} {
		name := " refuses without a token"
		if token != "" {
			name = " refuses a wrong token"
		}
		r.check(ctx, "security", e.Name+name, func(ctx context.Context) finding {
			var tries []try
			for _, p := range paths {
				status, body, _, err := e.do(ctx, request{path: p, token: &token})
				tries = append(tries, try{withoutQuery(p), status, strings.TrimSpace(string(body)), err})
			}
			return judgeDenied(tries, r.ground.single())
		})
	}
}

// try is what came of trying what must not work.
type try struct {
	path   string
	status int
	body   string
	err    error
}

// judgeDenied: refused (401, 403), or, for a list, empty: Consul and Nomad leave out of lists what a token may not see.
func judgeDenied(tries []try, single bool) finding {
	var open []string
	refused := 0
	for _, t := range tries {
		switch {
		case t.err != nil:
			return failed("GET %s: no answer: %v", t.path, t.err)
		case t.status == http.StatusUnauthorized || t.status == http.StatusForbidden:
			refused++
		case t.status == http.StatusOK && (t.body == "[]" || t.body == "null" || t.body == "{}"):
		default:
			open = append(open, fmt.Sprintf("GET %s answers %d", t.path, t.status))
		}
	}
	switch {
	case len(open) == 0:
		return ok("tried %d paths: refused, or nothing shown", len(tries))
	case refused == 0 && single:
		return skipped(notHere)
	}
	return failed("%s", strings.Join(open, "; "))
}

// writeDenied tries to write a key of nobody's. If that works, the key is taken away again.
func (r *run) writeDenied(ctx context.Context) finding {
	e, nobody := r.o.Consul, ""
	if r.ground.single() && e.token == "" {
		return skipped(notHere)
	}
	status, _, _, err := e.do(ctx, request{method: http.MethodPut, path: "/v1/kv/" + nobodysKey, body: "written by flowctl verify, without a token", token: &nobody})
	switch {
	case err != nil:
		return failed("no answer: %v", err)
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return ok("a write to its keys is refused")
	case status/100 != 2:
		return failed("a write without a token was answered with %d", status)
	}
	_, _, _, _ = e.do(ctx, request{method: http.MethodDelete, path: "/v1/kv/" + nobodysKey, token: &nobody}) // as it was written
	if r.ground.single() {
		return skipped(notHere)
	}
	return failed("anybody may write its keys")
}

// encrypted tries plain HTTP, and TLS without a certificate of one's own, and reads what the agent says of its gossip.
func (r *run) encrypted(ctx context.Context, e *Endpoint) {
	if !e.secure() {
		r.check(ctx, "security", e.Name+" speaks TLS only", func(context.Context) finding {
			if r.ground.single() {
				return skipped(notHere)
			}
			return failed("%s is plain: reach it by https, with a certificate", e.URL)
		})
	} else {
		r.check(ctx, "security", e.Name+" speaks TLS only", func(ctx context.Context) finding {
			status, body, _, err := e.do(ctx, request{path: "/v1/status/leader", plain: true})
			return judgePlain(status, string(body), err)
		})
		r.check(ctx, "security", e.Name+" wants a client's certificate", func(ctx context.Context) finding {
			status, _, _, err := e.do(ctx, request{path: "/v1/status/leader", bare: true})
			switch {
			case err == nil:
				return failed("it answers %d to whoever has none", status)
			case unreachable(err):
				return failed("could not be tried: %v", err)
			}
			return ok("without one the connection ends: %s", lastOf(err))
		})
	}
	r.check(ctx, "security", e.Name+" encrypts its gossip and its servers' talk", func(ctx context.Context) finding {
		var self agentSelf
		if err := e.get(ctx, "/v1/agent/self", &self); err != nil {
			return failed("%v", err)
		}
		return judgeAgent(self, r.ground.single())
	})
}

func judgePlain(status int, body string, err error) finding {
	switch {
	case err != nil && unreachable(err):
		return failed("could not be tried: %v", err)
	case err != nil:
		return ok("plain HTTP is cut off: %s", lastOf(err))
	case status == http.StatusBadRequest && strings.Contains(body, "HTTP request to an HTTPS server"):
		return ok("plain HTTP gets a 400 and nothing else")
	}
	return failed("it answers plain HTTP with %d", status)
}

// agentSelf is what Consul's and Nomad's agents say of themselves, as far as it is looked at. Keys are never in it.
type agentSelf struct {
	DebugConfig *struct { // Consul
		TLS struct {
			InternalRPC struct{ VerifyIncoming, VerifyServerHostname bool }
		}
	}
	Stats struct {
		Serf    struct{ Encrypted string }
		SerfLAN struct{ Encrypted string } `json:"serf_lan"` // Consul's
	} `json:"stats"`
	Config *struct { // Nomad
		TLSConfig struct{ EnableRPC, VerifyServerHostname, VerifyHTTPSClient bool }
		ACL       struct{ Enabled bool }
	} `json:"config"`
}

func judgeAgent(s agentSelf, single bool) finding {
	var missing []string
	say := func(good bool, what string) {
		if !good {
			missing = append(missing, what)
		}
	}
	switch {
	case s.DebugConfig != nil:
		say(s.Stats.SerfLAN.Encrypted == "true", "gossip is not encrypted")
		say(s.DebugConfig.TLS.InternalRPC.VerifyIncoming, "RPC doesn't ask for certificates")
		say(s.DebugConfig.TLS.InternalRPC.VerifyServerHostname, "any host's certificate is good for a server")
	case s.Config != nil:
		say(s.Stats.Serf.Encrypted == "true", "gossip is not encrypted")
		say(s.Config.TLSConfig.EnableRPC, "RPC is plain")
		say(s.Config.TLSConfig.VerifyServerHostname, "any host's certificate is good for a server")
	default:
		return failed("the agent doesn't say how it is set up")
	}
	switch {
	case len(missing) == 0:
		return ok("as its agent says")
	case single:
		return skipped(notHere)
	}
	return failed("as its agent says: %s", strings.Join(missing, "; "))
}

func (r *run) doorDenied(ctx context.Context) finding {
	for name, token := range map[string]string{"no token": "", "a wrong token": "fp_" + wrongToken} {
		c, err := client.Anonymous(r.o.API.Server, token)
		if err != nil {
			return failed("%v", err)
		}
		if err := c.Trust(r.o.API.CA); err != nil {
			return failed("%v", err)
		}
		for _, path := range []string{"/auth/me", "/flows", "/executions", "/workers", "/credentials"} {
			status, err := c.Do(ctx, http.MethodGet, path, nil, nil)
			if status == 0 {
				return failed("%v", err)
			}
			if status != http.StatusUnauthorized {
				return failed("GET %s with %s answers %d", path, name, status)
			}
		}
	}
	return ok("five lists, without and with a wrong token: 401 each")
}

// doorInside: what services say to each other, and their figures, are no business of whoever comes through the front door.
func (r *run) doorInside(ctx context.Context) finding {
	h := r.o.API.Plain(10 * time.Second)
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, path := range []string{"/internal/v1/bootstrap", "/internal/v1/sessions", "/metrics", "/debug/pprof/"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.o.API.Server+path, nil)
		if err != nil {
			return failed("%v", err)
		}
		res, err := h.Do(req)
		if err != nil {
			return failed("%v", err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			return failed("GET %s answers %d: it must not be reachable from outside", path, res.StatusCode)
		}
	}
	return ok("internal calls, metrics and profiles: 404")
}

// judgeDoor: over a network, tokens belong into TLS. Through a tunnel or on the machine itself there is none of it to see.
func judgeDoor(server string, single bool) finding {
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return failed("%v", err)
	case u.Scheme == "https":
		return ok("%s", server)
	case single:
		return skipped(notHere)
	case loopback(u.Hostname()):
		return skipped("reached on the loopback, by a tunnel or on the host itself: what others get isn't seen from here")
	}
	return warning("%s is plain HTTP: who listens on the way reads tokens", server)
}

func loopback(host string) bool {
	return host == "localhost" || strings.HasPrefix(host, "127.") || host == "::1"
}

// lastOf gives the innermost reason.
func lastOf(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

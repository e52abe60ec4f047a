package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/spec"
)

// TestAccess makes rights on a real Consul and a real Nomad, tries what each token may and may not do, and interrupts the making of them at every request.
func TestAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g, err := w.ground(w.through)
	if err != nil {
		t.Fatal(err)
	}
	plan := access.ForConsul(w.Cluster.Hosts)
	plan.Keys = w.issuer.URL
	out, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	said := func() string {
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		out.Truncate(0)
		out.Seek(0, 0)
		return string(b)
	}
	c := console.New(out)
	if err := w.grant(t.Context(), c, g, plan); err != nil {
		t.Fatal(err)
	}
	if text := said(); !strings.Contains(text, "tokens written") || !strings.Contains(text, "rights written") {
		t.Errorf("the first time it says:\n%s", text)
	}
	if err := w.grant(t.Context(), c, g, plan); err != nil {
		t.Fatal(err)
	}
	if text := said(); strings.Count(text, "unchanged") != 2 {
		t.Errorf("the second time it says:\n%s", text)
	}
	t.Run("no certificate", func(t *testing.T) { w.tryWithoutCertificate(t) })
	t.Run("anonymous", func(t *testing.T) { tryAnonymous(t, g) })
	t.Run("hosts", func(t *testing.T) { w.tryHosts(t, g) })
	t.Run("tasks", func(t *testing.T) { w.tryTasks(t, g) })
	t.Run("orchestrator in Nomad", func(t *testing.T) { tryOrchestrator(t, g) })
	t.Run("another operator", func(t *testing.T) { tryAnotherOperator(t, g) })
	t.Run("interrupted", func(t *testing.T) { w.interrupt(t, g, plan) })
}

// attempt is something that a token tries.
type attempt struct {
	method, path string
	body         any
	allowed      bool
}

func (a attempt) by(t *testing.T, who string, c *api.Client) {
	t.Helper()
	err := c.Call(t.Context(), a.method, a.path, a.body, nil)
	refused := api.HasStatus(err, http.StatusForbidden) || api.HasStatus(err, http.StatusUnauthorized)
	switch {
	case a.allowed && err != nil:
		t.Errorf("%s may not %s %s: %v", who, a.method, a.path, err)
	case !a.allowed && !refused:
		t.Errorf("%s may %s %s: %v", who, a.method, a.path, err)
	}
}

func register(node, service string) map[string]any {
	return map[string]any{"Node": node, "Address": "10.0.0.9", "Service": map[string]string{"Service": service}}
}

func (w *world) tryWithoutCertificate(t *testing.T) {
	anybody := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, port := range []int{spec.ConsulHTTPS, spec.NomadHTTP} {
		for _, scheme := range []string{"http", "https"} {
			resp, err := anybody.Get(fmt.Sprintf("%s://127.0.0.1:%d/v1/status/leader", scheme, w.ports[port]))
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					t.Errorf("port %d answers %s without a certificate", port, scheme)
				}
			}
		}
	}
}

func tryAnonymous(t *testing.T, g ground.Ground) {
	consul, nomad := as(g.Consul, "", ""), as(g.Nomad, "", "")
	for _, a := range []attempt{
		{method: "GET", path: "/v1/agent/self"}, {method: "PUT", path: "/v1/kv/flow/x", body: "x"}, {method: "GET", path: "/v1/acl/tokens"},
		{method: "PUT", path: "/v1/catalog/register", body: register("s1", "gateway")}, {method: "PUT", path: "/v1/session/create", body: map[string]string{}},
	} {
		a.by(t, "nobody", consul)
	}
	var nodes []struct{}
	if err := consul.Get(t.Context(), "/v1/catalog/nodes", &nodes); err == nil && len(nodes) > 0 {
		t.Error("nobody sees Consul's nodes")
	}
	for _, path := range []string{"/v1/jobs", "/v1/nodes", "/v1/agent/self", "/v1/var/nomad/jobs/gateway", "/v1/operator/raft/configuration"} {
		attempt{method: "GET", path: path}.by(t, "nobody", nomad)
	}
}

func (w *world) tryHosts(t *testing.T, g ground.Ground) {
	tokens, err := w.Keys.Tokens(w.tokenNames()...)
	if err != nil {
		t.Fatal(err)
	}
	agent := as(g.Consul, api.ConsulToken, tokens[access.ConsulAgent("s1")])
	for _, a := range []attempt{
		{"PUT", "/v1/catalog/register", map[string]any{"Node": "s1", "Address": "127.0.0.1", "SkipNodeUpdate": false}, true},
		{"GET", "/v1/agent/self", nil, true},
		{"PUT", "/v1/catalog/register", map[string]any{"Node": "w1", "Address": "10.0.0.66"}, false},
		{"PUT", "/v1/catalog/register", register("s1", "gateway"), false},
		{"PUT", "/v1/kv/flow/orchestrator/leader", "x", false},
		{"GET", "/v1/acl/tokens", nil, false},
		{"PUT", "/v1/agent/leave", nil, false},
	} {
		a.by(t, "the Consul agent of s1", agent)
	}
	nomad := as(g.Consul, api.ConsulToken, tokens[access.ConsulNomad("s1")])
	for _, a := range []attempt{
		{"GET", "/v1/agent/self", nil, true},
		{"PUT", "/v1/agent/service/register", map[string]any{"Name": "nomad", "ID": "_nomad-test"}, true},
		{"PUT", "/v1/agent/service/deregister/_nomad-test", nil, true},
		{"PUT", "/v1/agent/service/register", map[string]any{"Name": "bank"}, false},
		{"PUT", "/v1/kv/flow/settings/x", "x", false},
		{"PUT", "/v1/acl/token", map[string]string{}, false},
		{"PUT", "/v1/catalog/register", map[string]any{"Node": "s1", "Address": "10.0.0.66"}, false},
	} {
		a.by(t, "Nomad on s1", nomad)
	}
	attempt{"GET", "/v1/agent/self", nil, false}.by(t, "Nomad of w1 at the agent of s1", as(g.Consul, api.ConsulToken, tokens[access.ConsulNomad("w1")]))
}

// login changes a workload identity for a token of Consul.
func (w *world) login(t *testing.T, g ground.Ground, claims map[string]any) (*api.Client, error) {
	t.Helper()
	var token struct{ SecretID string }
	body := map[string]any{"AuthMethod": access.Method, "BearerToken": w.issuer.identity(t, claims)}
	err := g.Consul.Call(t.Context(), http.MethodPost, "/v1/acl/login", body, &token)
	return as(g.Consul, api.ConsulToken, token.SecretID), err
}

func (w *world) tryTasks(t *testing.T, g ground.Ground) {
	in := func(job, what, name string) *api.Client {
		t.Helper()
		c, err := w.login(t, g, map[string]any{"nomad_job_id": job, what: name})
		if err != nil {
			t.Fatalf("%s of job %s: %v", name, job, err)
		}
		return c
	}
	session := map[string]string{"Node": "s1", "TTL": "10s"}
	orchestrator := in("orchestrator", "nomad_task", "orchestrator")
	for _, a := range []attempt{
		{"GET", "/v1/health/service/gateway", nil, true},
		{"PUT", "/v1/session/create", session, true},
		{"PUT", "/v1/kv/flow/orchestrator/leader", "x", true},
		{"PUT", "/v1/kv/flow/orchestrator/other", "x", false},
		{"PUT", "/v1/kv/flow/settings/x", "x", false},
		{"GET", "/v1/kv/elsewhere", nil, false},
		{"PUT", "/v1/agent/service/register", map[string]any{"Name": "orchestrator"}, false},
		{"GET", "/v1/acl/policies", nil, false},
	} {
		a.by(t, "an orchestrator", orchestrator)
	}
	for _, job := range []string{"gateway", "worker", "worker-gpu", "front-door"} {
		task := in(job, "nomad_task", "any")
		for _, a := range []attempt{
			{"PUT", "/v1/kv/flow/orchestrator/leader", "x", false},
			{"GET", "/v1/kv/flow/orchestrator/leader", nil, false},
			{"PUT", "/v1/session/create", session, false},
			{"GET", "/v1/agent/self", nil, false},
			{"PUT", "/v1/agent/service/register", map[string]any{"Name": job}, false},
		} {
			a.by(t, "a task of "+job, task)
		}
	}
	attempt{"GET", "/v1/agent/self", nil, true}.by(t, "Prometheus", in("prometheus", "nomad_task", "prometheus"))
	service := in("gateway", "nomad_service", "gateway")
	attempt{"PUT", "/v1/agent/service/register", map[string]any{"Name": "gateway", "ID": "g1"}, true}.by(t, "service gateway", service)
	attempt{"PUT", "/v1/agent/service/register", map[string]any{"Name": "front-door"}, false}.by(t, "service gateway", service)
	attempt{"PUT", "/v1/agent/service/register", map[string]any{"Name": "worker", "ID": "p1"}, true}.by(t, "a pool's service", in("worker-gpu", "nomad_service", "worker"))

	for who, claims := range map[string]map[string]any{
		"a job that isn't the platform's":                 {"nomad_job_id": "mallory", "nomad_task": "x"},
		"another job that calls its service gateway":      {"nomad_job_id": "mallory", "nomad_service": "gateway"},
		"the gateway's job under a service not its own":   {"nomad_job_id": "gateway", "nomad_service": "front-door"},
		"a job of the platform's name elsewhere":          {"nomad_job_id": "orchestrator", "nomad_task": "orchestrator", "nomad_namespace": "other"},
		"an identity that is meant for somebody else":     {"nomad_job_id": "orchestrator", "nomad_task": "orchestrator", "aud": "vault.io"},
		"an identity that has ended":                      {"nomad_job_id": "orchestrator", "nomad_task": "orchestrator", "exp": 1000000000},
		"a job that is named a little like the platforms": {"nomad_job_id": "my-worker-gpu", "nomad_task": "x"},
	} {
		w.refused(t, g, who, claims)
	}
	w.issuer = newIssuer(t)
	w.refused(t, g, "an identity that another has signed", map[string]any{"nomad_job_id": "orchestrator", "nomad_task": "orchestrator"})
}

// refused wants Consul to answer, and not with a token. What it can't verify it calls an error of its own (500).
func (w *world) refused(t *testing.T, g ground.Ground, who string, claims map[string]any) {
	t.Helper()
	_, err := w.login(t, g, claims)
	var answer *api.StatusError
	if !errors.As(err, &answer) || answer.Status != http.StatusForbidden && !strings.Contains(answer.Body, "error verifying token") && !strings.Contains(answer.Body, "error validating claims") {
		t.Errorf("%s gets in: %v", who, err)
	}
}

// tryOrchestrator tries the policy that orchestrators' workload identity has, with a token of the same policy.
func tryOrchestrator(t *testing.T, g ground.Ground) {
	job := func(id string) map[string]any {
		return map[string]any{"Job": map[string]any{
			"ID": id, "Name": id, "Type": "batch", "Datacenters": []string{spec.Datacenter},
			"TaskGroups": []any{map[string]any{"Name": "worker", "Count": 1, "Tasks": []any{map[string]any{"Name": "worker", "Driver": "exec", "Config": map[string]any{"command": "/bin/true"}}}}},
		}}
	}
	attempt{"POST", "/v1/jobs", job("worker"), true}.by(t, "the operator", g.Nomad)
	var made struct{ SecretID string }
	if err := g.Nomad.Call(t.Context(), http.MethodPost, "/v1/acl/token", map[string]any{"Name": "t", "Type": "client", "Policies": []string{"flow-orchestrator"}}, &made); err != nil {
		t.Fatal(err)
	}
	leader := as(g.Nomad, api.NomadToken, made.SecretID)
	for _, a := range []attempt{
		{"GET", "/v1/job/worker", nil, true},
		{"GET", "/v1/job/worker/summary", nil, true},
		{"GET", "/v1/job/worker/deployment", nil, true},
		{"GET", "/v1/job/worker/evaluations", nil, true},
		{"POST", "/v1/job/worker/scale", map[string]any{"Count": 2, "Target": map[string]string{"Group": "worker"}}, true},
		{"POST", "/v1/jobs", job("mallory"), false},
		{"DELETE", "/v1/job/worker", nil, false},
		{"GET", "/v1/nodes", nil, false},
		{"GET", "/v1/var/nomad/jobs/gateway", nil, false},
		{"PUT", "/v1/var/nomad/jobs/gateway", map[string]any{"Items": map[string]string{"a": "b"}}, false},
		{"GET", "/v1/acl/tokens", nil, false},
	} {
		a.by(t, "an orchestrator", leader)
	}
}

// tryAnotherOperator is somebody with another directory, whose tokens Consul and Nomad don't know.
func tryAnotherOperator(t *testing.T, g ground.Ground) {
	other := ground.Ground{Consul: as(g.Consul, api.ConsulToken, "6b8c7fd4-0000-4000-8000-000000000001"), Nomad: as(g.Nomad, api.NomadToken, "6b8c7fd4-0000-4000-8000-000000000002")}
	if _, err := access.BootstrapConsul(t.Context(), other.Consul, "6b8c7fd4-0000-4000-8000-000000000001"); err == nil || !strings.Contains(err.Error(), "operator's directory") {
		t.Errorf("Consul: %v", err)
	}
	if _, err := access.BootstrapNomad(t.Context(), other.Nomad, "6b8c7fd4-0000-4000-8000-000000000002"); err == nil || !strings.Contains(err.Error(), "operator's directory") {
		t.Errorf("Nomad: %v", err)
	}
}

// cut is a way to the server that ends after a number of requests, as when the program is killed there.
type cut struct {
	http.RoundTripper
	left int
}

var errKilled = errors.New("killed here")

func (c *cut) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.left--; c.left < 0 {
		return nil, errKilled
	}
	return c.RoundTripper.RoundTrip(r)
}

// interrupt changes from one set of hosts to another and back, each time stopped after a few requests more, and finished by a second run.
func (w *world) interrupt(t *testing.T, g ground.Ground, plan access.Plan) {
	fewer := access.ForConsul(w.Cluster.Hosts[:2])
	fewer.Keys = plan.Keys
	all := w.tokenNames()
	stopped, before := 0, -1
	for step := 1; stopped > before; step += 4 {
		before = stopped
		for _, p := range []access.Plan{fewer, plan} {
			tokens, err := w.Keys.Tokens(all...)
			if err != nil {
				t.Fatal(err)
			}
			killed := *g.Consul
			killed.HTTP = &http.Client{Transport: &cut{g.Consul.HTTP.Transport, step}}
			if _, err := access.ApplyConsul(t.Context(), &killed, p, tokens); err != nil && !errors.Is(err, errKilled) {
				t.Fatalf("stopped after %d requests: %v", step, err)
			} else if err != nil {
				stopped++
			}
			if _, err := access.ApplyConsul(t.Context(), g.Consul, p, tokens); err != nil {
				t.Fatalf("after it was stopped after %d requests: %v", step, err)
			}
			if again, err := access.ApplyConsul(t.Context(), g.Consul, p, tokens); err != nil || again != 0 {
				t.Fatalf("once more after %d requests: %d changes, %v", step, again, err)
			}
			dead := as(g.Consul, api.ConsulToken, tokens[access.ConsulNomad("w2")])
			if err := dead.Get(t.Context(), "/v1/acl/token/self", nil); (err == nil) != (len(p.Tokens) == len(plan.Tokens)) {
				t.Fatalf("after %d requests, of %d hosts: the third host's token: %v", step, len(p.Tokens)/2, err)
			}
		}
	}
	if stopped < 5 {
		t.Errorf("only %d runs were interrupted", stopped)
	}
}

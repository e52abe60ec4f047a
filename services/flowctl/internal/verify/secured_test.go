package verify

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"flowplatform/services/flowctl/internal/client"
	"flowplatform/services/internal/testkit"
)

// door is a front door as far as the security area looks at it.
func door(t *testing.T, leaks bool) *client.Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case leaks:
		case strings.HasPrefix(r.URL.Path, "/api/v1"):
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	c, err := client.Anonymous(s.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func endpoints(t *testing.T, env map[string]string) (consul, nomad *Endpoint) {
	t.Helper()
	consul, err := Consul(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	nomad, err = Nomad(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	return consul, nomad
}

func rows(r Report) (map[string]Row, string) {
	all, text := map[string]Row{}, ""
	for _, row := range r.Rows {
		all[row.Area+": "+row.Check] = row
		text += fmt.Sprintf("%-8s %s: %s: %s\n", row.State, row.Area, row.Check, row.Detail)
	}
	return all, text
}

var doors = []string{"Consul refuses without a token", "Consul refuses a wrong token", "Consul takes nothing without a token", "Consul speaks TLS only", "Consul encrypts its gossip and its servers' talk",
	"Nomad refuses without a token", "Nomad refuses a wrong token", "Nomad speaks TLS only", "Nomad encrypts its gossip and its servers' talk"}

// TestSecuredGround: real servers with tokens and certificates pass, by trying; and the operator's own token and certificate get everywhere they must.
func TestSecuredGround(t *testing.T) {
	t.Parallel()
	s := testkit.SecuredServers(t, 5*24*time.Hour)
	consul, nomad := endpoints(t, map[string]string{"CONSUL_HTTP_ADDR": s.Consul, "CONSUL_HTTP_TOKEN": s.Token, "CONSUL_CACERT": s.CA, "CONSUL_CLIENT_CERT": s.Cert, "CONSUL_CLIENT_KEY": s.Key,
		"NOMAD_ADDR": s.Nomad, "NOMAD_TOKEN": s.Token, "NOMAD_CACERT": s.CA, "NOMAD_CLIENT_CERT": s.Cert, "NOMAD_CLIENT_KEY": s.Key})
	report := Run(t.Context(), Options{API: door(t, false), Consul: consul, Nomad: nomad, Only: []string{"consul", "nomad", "security", "hosts"}, Limit: time.Minute, CertificateDays: 14})
	all, text := rows(report)
	want := map[string]State{"consul: quorum": OK, "consul: members": OK, "consul: checks": OK, "nomad: quorum": OK, "nomad: hosts": Failed, "nomad: jobs": Failed, // it has neither
		"security: Consul wants a client's certificate": OK, "security: Nomad wants a client's certificate": OK, "security: front door refuses without a token": OK, "security: front door keeps the inside in": OK,
		"hosts: versions alike": OK, "hosts: certificates": Warning}
	for _, d := range doors {
		want["security: "+d] = OK
	}
	for name, state := range want {
		if all[name].State != state {
			t.Errorf("%s: %s, want %s", name, all[name].State, state)
		}
	}
	if !strings.Contains(all["hosts: certificates"].Detail, "days") {
		t.Errorf("certificates: %s", all["hosts: certificates"].Detail)
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestOpenGround: the same checks find that the doors of a cluster stand open; on a single machine they say that it is meant so.
func TestOpenGround(t *testing.T) {
	t.Parallel()
	s := testkit.OpenServers(t)
	consul, nomad := endpoints(t, map[string]string{"CONSUL_HTTP_ADDR": s.Consul, "NOMAD_ADDR": s.Nomad})
	o := Options{API: door(t, true), Consul: consul, Nomad: nomad, Limit: time.Minute}
	for hosts, want := range map[int]State{1: Skipped, 3: Failed} {
		r := &run{o: o, report: Report{Count: map[State]int{}}, ground: ground{members: make([]member, hosts), nodes: make([]node, hosts)}}
		r.security(t.Context())
		all, text := rows(r.report)
		for _, d := range doors {
			if got := all["security: "+d].State; got != want {
				t.Errorf("%d hosts: %s: %s, want %s", hosts, d, got, want)
			}
		}
		for _, d := range []string{"front door refuses without a token", "front door keeps the inside in"} {
			if got := all["security: "+d].State; got != Failed {
				t.Errorf("%d hosts: a door that lets everybody in: %s: %s", hosts, d, got)
			}
		}
		if t.Failed() {
			t.Log(text)
		}
	}
	if status, _, _, err := consul.do(t.Context(), request{path: "/v1/kv/" + nobodysKey}); err != nil || status != http.StatusNotFound {
		t.Errorf("what was tried to write is still there: %d %v", status, err)
	}
}

// TestNothingToAsk: what nobody has named is skipped, what was named and doesn't answer has failed, and the time that all may take is kept.
func TestNothingToAsk(t *testing.T) {
	t.Parallel()
	dead := fmt.Sprintf("http://127.0.0.1:%d", testkit.FreePort(t))
	consul, nomad := endpoints(t, map[string]string{"CONSUL_HTTP_ADDR": dead, "NOMAD_ADDR": dead})
	nomad.Given = false
	o := Options{API: door(t, false), Consul: consul, Nomad: nomad, Only: []string{"consul", "nomad", "drill"}, Disruptive: true, Limit: time.Minute}
	all, text := rows(Run(t.Context(), o))
	for name, want := range map[string]State{"consul: answers": Failed, "nomad: answers": Skipped, "drill: failover": Skipped} {
		if all[name].State != want {
			t.Errorf("%s: %s, want %s\n%s", name, all[name].State, want, text)
		}
	}
	o.Limit = time.Nanosecond
	report := Run(t.Context(), o)
	if report.Count[Failed] != len(report.Rows) || !strings.Contains(report.Rows[0].Detail, "the time is up") {
		t.Errorf("without time: %+v", report)
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flowplatform/scripts/internal/spec"
)

const management = "99999999-9999-4999-8999-999999999999"

// TestAgents starts a real Consul, Nomad server and client from what flownode renders for a host, in a network of its own, and tries what
// must not be: plain connections, ones without a certificate, and ones without a token.
func TestAgents(t *testing.T) {
	t.Parallel()
	bin := os.Getenv("FLOW_BIN_DIR")
	if bin == "" {
		t.Skip("FLOW_BIN_DIR doesn't say where consul and nomad are; make test and make check do")
	}
	const address = "10.9.0.1"
	ns := newNamespace(t, "agents")
	ns.ip(t, "addr add "+address+"/32 dev lo")
	n := serverNode(t, address)
	n.Peers = []string{address}
	d, err := desire(n, os.DirFS("../../configs"), facts{Interface: "lo", SSHPorts: []int{22}})
	if err != nil {
		t.Fatal(err)
	}
	root := materialize(t, d)
	config := root + spec.Configuration
	startAgent(t, ns, root, unitConsul, bin+"/consul", "agent", "-config-dir="+config+"/consul", "-config-file="+root+secretsDir+"/consul.hcl", "-config-file="+root+secretsDir+"/consul-gossip.hcl")
	startAgent(t, ns, root, unitNomadServer, bin+"/nomad", "agent", "-config="+config+"/nomad-server", "-config="+root+secretsDir+"/nomad.hcl", "-config="+root+secretsDir+"/nomad-gossip.hcl")
	w := world{ns: ns, node: n}
	consul, nomad, client := fmt.Sprintf("https://%s:%d", address, spec.ConsulHTTPS), fmt.Sprintf("https://%s:%d", address, spec.NomadHTTP), fmt.Sprintf("https://%s:%d", address, spec.NomadClient)

	// Both elect themselves, and take the management tokens that the operator has prepared.
	for url, header := range map[string]string{consul: "X-Consul-Token", nomad: "X-Nomad-Token"} {
		eventually(t, func() bool {
			return w.call("PUT", url+"/v1/acl/bootstrap", "", "", `{"BootstrapSecret":"`+management+`"}`).status == 200
		})
		if got := w.call("GET", url+"/v1/acl/token/self", header, management, ""); got.status != 200 {
			t.Errorf("the management token at %s: %s", url, got)
		}
	}
	// Not before: a client that finds no server ready asks again after 15 s.
	startAgent(t, ns, root, unitNomadClient, bin+"/nomad", "agent", "-config="+config+"/nomad-client", "-config="+root+secretsDir+"/nomad.hcl")
	t.Run("client", func(t *testing.T) { w.offersWhatJobsAskFor(t, nomad) })
	t.Run("plain", func(t *testing.T) {
		for _, url := range []string{consul, nomad, client} {
			if got := w.call("GET", strings.Replace(url, "https:", "http:", 1)+"/v1/status/leader", "", "", ""); got.err == nil && got.status != 400 {
				t.Errorf("%s answers without TLS: %s", url, got)
			}
		}
		if got := w.call("GET", fmt.Sprintf("http://%s:%d/v1/status/leader", address, spec.ConsulHTTP), "", "", ""); got.err == nil || !strings.Contains(got.err.Error(), "refused") {
			t.Errorf("Consul's plain port beyond the loopback: %s, want a refused connection", got)
		}
		for name, port := range map[string]int{"Consul's": spec.ConsulRPC, "Nomad's": spec.NomadRPC} {
			w.refusesPlainRPC(t, name, port)
		}
	})
	t.Run("no certificate", func(t *testing.T) {
		bare := w
		bare.bare = true
		for _, url := range []string{consul, nomad, client} {
			if got := bare.call("GET", url+"/v1/status/leader", "", "", ""); got.err == nil || !strings.Contains(got.err.Error(), "certificate required") {
				t.Errorf("%s doesn't ask for a certificate: %s", url, got)
			}
		}
	})
	t.Run("anonymous", func(t *testing.T) {
		for _, path := range []string{"/v1/agent/self", "/v1/kv/x", "/v1/acl/tokens", "/v1/operator/keyring"} {
			if got := w.call("GET", consul+path, "", "", ""); got.status != 403 {
				t.Errorf("Consul lets anybody read %s: %s", path, got)
			}
		}
		for _, path := range []string{"/v1/catalog/nodes", "/v1/catalog/services"} { // lists are filtered
			if got := w.call("GET", consul+path, "", "", ""); got.status == 200 && got.body != "[]" && got.body != "{}" {
				t.Errorf("Consul shows anybody %s: %s", path, got)
			}
		}
		for _, path := range []string{"/v1/jobs", "/v1/nodes", "/v1/agent/self", "/v1/vars"} {
			if got := w.call("GET", nomad+path, "", "", ""); got.status != 403 && got.body != "[]" {
				t.Errorf("Nomad lets anybody read %s: %s", path, got)
			}
		}
	})
	t.Run("jwks", func(t *testing.T) {
		p := publisher{client: w.client(), source: fmt.Sprintf("https://127.0.0.1:%d%s", spec.NomadHTTP, jwksPath), log: slog.New(slog.DiscardHandler)}
		eventually(t, func() bool {
			answer := httptest.NewRecorder()
			p.ServeHTTP(answer, httptest.NewRequest("GET", jwksPath, nil))
			return answer.Code == 200 && strings.Contains(answer.Body.String(), `"kid"`)
		})
	})
}

// offersWhatJobsAskFor waits until the client has joined, and looks at what jobs see of it.
func (w world) offersWhatJobsAskFor(t *testing.T, nomad string) {
	t.Helper()
	var node string
	eventually(t, func() bool {
		var nodes []struct{ ID, Status, NodeClass string }
		got := w.call("GET", nomad+"/v1/nodes", "X-Nomad-Token", management, "")
		if json.Unmarshal([]byte(got.body), &nodes) != nil || len(nodes) != 1 || nodes[0].Status != "ready" || nodes[0].NodeClass != "large" {
			return false
		}
		node = w.call("GET", nomad+"/v1/node/"+nodes[0].ID, "X-Nomad-Token", management, "").body
		return true
	})
	for _, want := range []string{`"services":"true"`, `"front_door":"true"`, `"data":"true"`, `"zone":"a"`, `"postgres"`, `"artifacts"`, `"usr"`} {
		if !strings.Contains(node, want) {
			t.Errorf("jobs don't find %s at this host", want)
		}
	}
}

// materialize writes files below a directory and moves every path in them there; credentials are where root keeps them.
func materialize(t *testing.T, d desired) string {
	t.Helper()
	root := t.TempDir()
	moved := []string{spec.Configuration, root + spec.Configuration, spec.DataDir, root + spec.DataDir}
	for _, name := range []string{unitConsul, unitNomadServer} {
		moved = append(moved, credentials+name+".service", root+tlsDir)
	}
	replacer := strings.NewReplacer(moved...)
	h := host{root: root}
	for _, dir := range d.Directories {
		if err := h.settle(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range d.Files {
		f.Content = []byte(replacer.Replace(string(f.Content)))
		if err := h.write(f); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func startAgent(t *testing.T, ns namespace, root, name string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(root, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := ns.command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = root, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + root}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the end of what %s said:\n%s", name, b[max(0, len(b)-3000):])
		}
	})
}

// world calls agents in a namespace, with the host's certificate or bare.
type world struct {
	ns   namespace
	node spec.Node
	bare bool
}

type answer struct {
	status int
	body   string
	err    error
}

func (a answer) String() string {
	return fmt.Sprintf("status %d, %.200s, %v", a.status, strings.TrimSpace(a.body), a.err)
}

func (w world) client() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.node.Secrets.CA))
	config := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	if pair, err := tls.X509KeyPair([]byte(w.node.Secrets.Certificate), []byte(w.node.Secrets.Key)); err == nil && !w.bare {
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: config, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return w.ns.dial(ctx, net.Dialer{}, address)
		},
	}}
}

func (w world) call(method, url, header, token, body string) answer {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	if header != "" {
		req.Header.Set(header, token)
	}
	res, err := w.client().Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, string(bytes.TrimSpace(b)), err}
}

// refusesPlainRPC speaks an agent's own protocol without TLS: the connection must be closed.
func (w world) refusesPlainRPC(t *testing.T, name string, port int) {
	t.Helper()
	c, err := w.ns.dial(t.Context(), net.Dialer{}, fmt.Sprintf("%s:%d", w.node.Host.PrivateAddress, port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	const rpcConsul = 0x00 // the first byte says what follows: calls, in plain
	if _, err := c.Write([]byte{rpcConsul}); err != nil {
		return
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%s RPC goes on without TLS: %d bytes", name, n)
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Errorf("%s RPC waits for calls without TLS", name)
	}
}

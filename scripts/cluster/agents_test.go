package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/spec"
)

// world is a real Consul and a real Nomad with TLS and ACLs on the loopback, and the directory of an operator who reaches them.
type world struct {
	*operator
	ports  map[int]int // of the cluster's, where they are here
	issuer *issuer     // signs workload identities as Nomad would
}

// through connects to a port as if it were the host's.
func (w *world) through(ctx context.Context, _ spec.Host, port int) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", w.ports[port]))
}

func binary(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("FLOW_BIN_DIR")
	if dir == "" {
		t.Skip("FLOW_BIN_DIR doesn't say where consul and nomad are; make test does")
	}
	return filepath.Join(dir, name)
}

func threeHosts() []spec.Host {
	return []spec.Host{
		{Name: "s1", Address: "10.0.0.1", PrivateAddress: "10.0.0.1", Roles: []string{spec.Server, spec.Data}},
		{Name: "w1", Address: "10.0.0.2", PrivateAddress: "10.0.0.2", Roles: []string{spec.Worker, spec.FrontDoor}},
		{Name: "w2", Address: "10.0.0.3", PrivateAddress: "10.0.0.3", Roles: []string{spec.Worker}},
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	consul, nomad := binary(t, "consul"), binary(t, "nomad")
	o, err := openDir(filepath.Join(t.TempDir(), "operator"))
	if err != nil {
		t.Fatal(err)
	}
	o.Cluster = spec.Cluster{Name: "test", Hosts: threeHosts(), FrontDoor: spec.Door{Port: 8080}}
	if err := o.makeKeys(); err != nil {
		t.Fatal(err)
	}
	pair, err := o.Keys.Host(o.Cluster.Hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	gossip, err := o.Keys.Gossip()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, dir, "cert.pem", pair.Certificate)
	put(t, dir, "key.pem", pair.Key)
	free := freePorts(t, 7)
	w := &world{operator: o, ports: map[int]int{spec.ConsulHTTPS: free[0], spec.NomadHTTP: free[3]}, issuer: newIssuer(t)}
	ca := o.Keys.Path("ca.pem")
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	start(t, dir, consul, "consul", map[string]any{
		"datacenter": spec.Datacenter, "node_name": "s1", "data_dir": filepath.Join(dir, "consul"), "bind_addr": "127.0.0.1", "server": true, "bootstrap_expect": 1,
		"encrypt": gossip.Consul, "connect": map[string]any{"enabled": false}, "performance": map[string]any{"raft_multiplier": 1},
		"ports": map[string]any{"http": -1, "https": free[0], "server": free[1], "serf_lan": free[2], "serf_wan": -1, "dns": -1, "grpc": -1, "grpc_tls": -1},
		"acl":   map[string]any{"enabled": true, "default_policy": "deny", "token_ttl": "0s"},
		"tls":   map[string]any{"defaults": map[string]any{"ca_file": ca, "cert_file": certificate, "key_file": key, "verify_incoming": true, "verify_outgoing": true}},
	})
	start(t, dir, nomad, "nomad", map[string]any{
		"datacenter": spec.Datacenter, "name": "s1", "data_dir": filepath.Join(dir, "nomad"), "bind_addr": "127.0.0.1",
		"advertise": map[string]any{"http": "127.0.0.1", "rpc": "127.0.0.1", "serf": "127.0.0.1"},
		"ports":     map[string]any{"http": free[3], "rpc": free[4], "serf": free[5]},
		"server":    map[string]any{"enabled": true, "bootstrap_expect": 1, "encrypt": gossip.Nomad},
		"acl":       map[string]any{"enabled": true},
		"consul":    map[string]any{"server_auto_join": false, "client_auto_join": false, "auto_advertise": false, "address": fmt.Sprintf("127.0.0.1:%d", free[6])},
		"tls": map[string]any{
			"http": true, "rpc": true, "ca_file": ca, "cert_file": certificate, "key_file": key, "verify_server_hostname": true, "verify_https_client": true,
		},
	})
	return w
}

func put(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs an agent until the test ends.
func start(t *testing.T, dir, program, name string, config map[string]any) {
	t.Helper()
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, name+".json", b)
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	flag := "-config="
	if name == "consul" {
		flag = "-config-file="
	}
	cmd := exec.Command(program, "agent", flag+filepath.Join(dir, name+".json"))
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the end of %s's log:\n%s", name, b[max(0, len(b)-3000):])
		}
	})
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// as is a client of the same server with another token.
func as(c *api.Client, header, token string) *api.Client {
	other := api.New(c.Base, header, token)
	other.HTTP = c.HTTP
	return other
}

// issuer stands for Nomad: it signs what a workload is, and its keys can be fetched.
type issuer struct {
	key *rsa.PrivateKey
	URL string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	set := map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
	}}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(set) }))
	t.Cleanup(s.Close)
	return &issuer{key: key, URL: s.URL}
}

// identity is a signed workload identity. Claims come on top of those that every one has.
func (i *issuer) identity(t *testing.T, claims map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	all := map[string]any{"aud": "consul.io", "iat": now, "nbf": now, "exp": now + 600, "sub": "test", "nomad_namespace": "default"}
	for name, value := range claims {
		all[name] = value
	}
	encode := base64.RawURLEncoding.EncodeToString
	header, _ := json.Marshal(map[string]string{"alg": "RS256", "kid": "1", "typ": "JWT"})
	body, _ := json.Marshal(all)
	signed := encode(header) + "." + encode(body)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode(signature)
}

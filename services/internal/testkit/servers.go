package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Servers are Consul and Nomad, one server each and nothing that runs tasks.
type Servers struct {
	Consul, Nomad string // URLs
	Token         string // may do everything in both
	CA, Cert, Key string // files of an operator
}

// OpenServers starts them as they come: plain, without tokens.
func OpenServers(t testing.TB) *Servers { return newServers(t, false, time.Hour) }

// SecuredServers starts them as a cluster has them: TLS both ways, everything denied to whoever has no token, gossip encrypted. Their certificates end after span.
func SecuredServers(t testing.TB, span time.Duration) *Servers { return newServers(t, true, span) }

func newServers(t testing.TB, secured bool, span time.Duration) *Servers {
	t.Helper()
	dir := t.TempDir()
	s := &Servers{Token: "11111111-2222-4333-8444-555555555555", CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "host.pem"), Key: filepath.Join(dir, "host-key.pem")}
	if err := s.certify(span); err != nil {
		t.Fatal(err)
	}
	gossip := make([]byte, 32)
	_, _ = rand.Read(gossip)
	key := base64.StdEncoding.EncodeToString(gossip)
	ports, err := freePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	scheme, http, https := "http", ports[0], -1
	consul, nomad := "", ""
	if secured {
		scheme, http, https = "https", -1, ports[0]
		consul = fmt.Sprintf(`, "encrypt": %q, "tls": {"defaults": {"ca_file": %q, "cert_file": %q, "key_file": %q, "verify_incoming": true, "verify_outgoing": true}, "internal_rpc": {"verify_server_hostname": true}},
			"acl": {"enabled": true, "default_policy": "deny", "tokens": {"initial_management": %q, "agent": %q}}`, key, s.CA, s.Cert, s.Key, s.Token, s.Token)
		nomad = fmt.Sprintf(`, "acl": {"enabled": true}, "tls": {"http": true, "rpc": true, "ca_file": %q, "cert_file": %q, "key_file": %q, "verify_server_hostname": true, "verify_https_client": true}`, s.CA, s.Cert, s.Key)
	} else {
		key = ""
	}
	s.Consul, s.Nomad = fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[0]), fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[3])
	consul = fmt.Sprintf(`{"server": true, "bootstrap_expect": 1, "node_name": "test", "data_dir": %q, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "warn",
		"ports": {"http": %d, "https": %d, "server": %d, "serf_lan": %d, "serf_wan": -1, "dns": -1, "grpc": -1, "grpc_tls": -1}, "performance": {"raft_multiplier": 1}, "connect": {"enabled": false}%s}`,
		filepath.Join(dir, "consul"), http, https, ports[1], ports[2], consul)
	nomad = fmt.Sprintf(`{"name": "test", "data_dir": %q, "bind_addr": "127.0.0.1", "log_level": "WARN", "disable_update_check": true, "ports": {"http": %d, "rpc": %d, "serf": %d},
		"advertise": {"http": "127.0.0.1", "rpc": "127.0.0.1", "serf": "127.0.0.1"}, "server": {"enabled": true, "bootstrap_expect": 1, "encrypt": %q, "raft_multiplier": 1},
		"consul": {"auto_advertise": false, "server_auto_join": false, "client_auto_join": false}%s}`, filepath.Join(dir, "nomad"), ports[3], ports[4], ports[5], key, nomad)
	for name, text := range map[string]string{"consul": consul, "nomad": nomad} {
		path, err := find(name, os.Getenv("FLOW_"+strings.ToUpper(name)+"_BIN"), name, "/opt/flowplatform/bin/"+name)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name+".json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		flag := map[string]string{"consul": "-config-file", "nomad": "-config"}[name]
		Run(t, ProcessOptions{Name: name, Path: path, Args: []string{"agent", flag, file}, Env: []string{"PATH=/usr/bin:/bin", "HOME=" + dir}})
	}
	s.await(t, secured)
	return s
}

// await waits for the leaders, and gives Nomad its first token.
func (s *Servers) await(t testing.TB, secured bool) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}}
	ask := func(method, url, header, body string, good ...int) error {
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set(header, s.Token)
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		for _, g := range good {
			if res.StatusCode == g {
				return nil
			}
		}
		return fmt.Errorf("%s %s: %d", method, url, res.StatusCode)
	}
	Eventually(t, time.Minute, "Consul leads", func() error {
		return ask("PUT", s.Consul+"/v1/kv/testkit", "X-Consul-Token", "x", 200)
	})
	if secured {
		Eventually(t, time.Minute, "Nomad has its token", func() error {
			return ask("PUT", s.Nomad+"/v1/acl/bootstrap", "X-Nomad-Token", fmt.Sprintf(`{"BootstrapSecret": %q}`, s.Token), 200, 400) // 400: an earlier try has done it
		})
	}
	// Autopilot looks for itself every few seconds: a server that leads is not called healthy before (then 429).
	Eventually(t, time.Minute, "Consul is well", func() error { return ask("GET", s.Consul+"/v1/operator/autopilot/health", "X-Consul-Token", "", 200) })
	Eventually(t, time.Minute, "Nomad is well", func() error { return ask("GET", s.Nomad+"/v1/operator/autopilot/health", "X-Nomad-Token", "", 200) })
}

// certify makes an authority and a certificate that is good for servers and for the operator.
func (s *Servers) certify(span time.Duration) error {
	now := time.Now()
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(10 * span), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return err
	}
	if err := writePEM(s.CA, "CERTIFICATE", der); err != nil {
		return err
	}
	host := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(span), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost", "server.dc1.consul", "server.global.nomad"}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if der, err = x509.CreateCertificate(rand.Reader, host, authority, &key.PublicKey, authorityKey); err != nil {
		return err
	}
	if err := writePEM(s.Cert, "CERTIFICATE", der); err != nil {
		return err
	}
	if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return err
	}
	return writePEM(s.Key, "PRIVATE KEY", der)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

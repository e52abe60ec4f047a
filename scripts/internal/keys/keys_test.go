package keys

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flowplatform/scripts/internal/spec"
)

func open(t *testing.T) *Keys {
	t.Helper()
	k, err := Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestADirectoryThatOthersCanReadIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory that the group can read: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link); err == nil {
		t.Error("a link is taken for a directory of its own")
	}
}

func TestEverythingIsMadeOnceAndForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	k := open(t)
	host := spec.Host{Name: "s1", PrivateAddress: "10.0.0.1", Roles: []string{spec.Server}}
	read := func() string {
		gossip, err := k.Gossip()
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := k.Tokens("a", "b")
		if err != nil {
			t.Fatal(err)
		}
		pair, err := k.Host(host)
		if err != nil {
			t.Fatal(err)
		}
		if tokens["a"] == tokens["b"] || gossip.Consul == gossip.Nomad {
			t.Error("two secrets are the same")
		}
		return gossip.Consul + gossip.Nomad + tokens["a"] + tokens["b"] + string(pair.Key) + string(pair.Certificate)
	}
	if first, second := read(), read(); first != second {
		t.Error("a second time gives something else")
	}
	err := filepath.WalkDir(k.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAHostsCertificateBearsItsNamesAndIsMadeAnewWhenTheyChange(t *testing.T) {
	t.Parallel()
	k := open(t)
	host := spec.Host{Name: "s1", PrivateAddress: "10.0.0.1", Roles: []string{spec.Server, spec.Worker}}
	pair, err := k.Host(host)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := k.Authority()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c, err := parseCertificate(pair.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"server.dc1.consul", "server.global.nomad", "client.global.nomad", "s1", "10.0.0.1", "127.0.0.1"} {
		if _, err := c.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if left := time.Until(c.NotAfter); left > certificateLasts || left < certificateLasts-time.Hour {
		t.Errorf("it lasts %v", left)
	}
	host.Roles = []string{spec.Worker}
	other, err := k.Host(host)
	if err != nil {
		t.Fatal(err)
	}
	worker, err := parseCertificate(other.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.VerifyHostname("server.global.nomad"); err == nil {
		t.Error("a worker's certificate passes for a server's")
	}
	operator, err := k.Operator()
	if err != nil {
		t.Fatal(err)
	}
	own, err := parseCertificate(operator.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("the operator's certificate passes for a server's")
	}
	if k.Signed(pair.Certificate) == open(t).Signed(pair.Certificate) {
		t.Error("another authority's certificate passes for this one's")
	}
	if _, err := tls.X509KeyPair(other.Certificate, pair.Key); err == nil {
		t.Error("the new certificate has the old key")
	}
}

func TestAnAuthorityWithoutItsKeyIsSaid(t *testing.T) {
	t.Parallel()
	k := open(t)
	if _, err := k.Authority(); err != nil {
		t.Fatal(err)
	}
	if err := k.Remove("ca-key.pem"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Authority(); err == nil || !strings.Contains(err.Error(), "bring it back") {
		t.Errorf("%v", err)
	}
}

func TestTokensCanBeChangedAndForgotten(t *testing.T) {
	t.Parallel()
	k := open(t)
	first, err := k.Tokens("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := k.SetTokens(map[string]string{"a": "other", "b": ""}); err != nil {
		t.Fatal(err)
	}
	again, err := k.Tokens("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if again["a"] != "other" || again["b"] == first["b"] {
		t.Error("the change didn't last")
	}
}

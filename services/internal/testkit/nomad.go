package testkit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// NomadServer is a Nomad agent of tests: server and client in one, with the raw_exec driver and no ACL.
type NomadServer struct {
	Port int // HTTP
	proc *Process
}

// Nomad starts one for a test. The processes that it starts die with it.
func Nomad(t testing.TB) *NomadServer {
	t.Helper()
	return startNomad(t, t.TempDir(), "")
}

// NomadWithACL starts one that asks everybody for a token; the second result is the management token. Its directory has a name short enough for the
// sockets of its tasks' API, which may have 107 letters.
func NomadWithACL(t testing.TB) (*NomadServer, string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // after the server has been killed, and its mounts with it
	s := startNomad(t, dir, "acl {\n  enabled = true\n}\n")
	var token struct{ SecretID string }
	client := http.Client{Timeout: 10 * time.Second}
	err = await(60*time.Second, s.proc, func() error { // until it has a leader
		res, err := client.Post(s.Address()+"/v1/acl/bootstrap", "application/json", nil)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("bootstrap: status %d", res.StatusCode)
		}
		return json.NewDecoder(res.Body).Decode(&token)
	})
	if err != nil {
		t.Fatalf("nomad: %v\n%s", err, s.proc.Output())
	}
	s.awaitNode(t, token.SecretID)
	return s, token.SecretID
}

func startNomad(t testing.TB, dir, more string) *NomadServer {
	t.Helper()
	home, err := os.UserCacheDir()
	if err != nil {
		home = os.TempDir()
	}
	path, err := find("Nomad", os.Getenv("FLOW_NOMAD_BIN"), "nomad", "/opt/flowplatform/bin/nomad", filepath.Join(home, "flowplatform", "nomad-*", "nomad"))
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	config := more + fmt.Sprintf(`
name = "test"
data_dir = %q
bind_addr = "127.0.0.1"
log_level = "WARN"
disable_update_check = true
ports {
  http = %d
  rpc  = %d
  serf = %d
}
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}
server {
  enabled          = true
  bootstrap_expect = 1
}
client {
  enabled           = true
  servers           = ["127.0.0.1:%d"]
  network_interface = "lo"
  options = {
    "driver.allowlist"     = "raw_exec"
    "fingerprint.denylist" = "env_aws,env_azure,env_gce,env_digitalocean"
  }
}
plugin "raw_exec" {
  config {
    enabled = true
  }
}
consul {
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
}
`, filepath.Join(dir, "data"), ports[0], ports[1], ports[2], ports[1])
	file := filepath.Join(dir, "nomad.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &NomadServer{Port: ports[0]}
	s.proc, err = StartProcess(ProcessOptions{Name: "nomad", Path: path, Args: []string{"agent", "-config", file}, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir}, Alone: true, Mounts: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.proc.Kill()
		if t.Failed() {
			t.Logf("nomad printed:\n%s", s.proc.Output())
		}
	})
	if more == "" {
		s.awaitNode(t, "")
	}
	return s
}

// awaitNode waits until its machine takes tasks.
func (s *NomadServer) awaitNode(t testing.TB, token string) {
	t.Helper()
	client := http.Client{Timeout: time.Second}
	err := await(60*time.Second, s.proc, func() error {
		req, err := http.NewRequest(http.MethodGet, s.Address()+"/v1/nodes?filter="+"Status==%22ready%22", nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-Nomad-Token", token)
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var b [64]byte
		n, _ := res.Body.Read(b[:])
		if res.StatusCode != 200 || n < 10 {
			return fmt.Errorf("status %d, %s", res.StatusCode, b[:n])
		}
		return nil
	})
	if err != nil {
		t.Fatalf("nomad: %v\n%s", err, s.proc.Output())
	}
}

// Address is the URL of its HTTP API.
func (s *NomadServer) Address() string { return fmt.Sprintf("http://127.0.0.1:%d", s.Port) }

// Process is the agent's, to kill or freeze it.
func (s *NomadServer) Process() *Process { return s.proc }

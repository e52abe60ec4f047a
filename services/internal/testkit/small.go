package testkit

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// RedisServer is a Redis of tests.
type RedisServer struct {
	Port int
	mu   sync.Mutex
	proc *Process
}

// Redis starts one for a test: it takes milliseconds.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	s := &RedisServer{Port: FreePort(t)}
	s.Start(t)
	t.Cleanup(func() { s.Kill() })
	return s
}

// URL of its first database.
func (s *RedisServer) URL() string { return fmt.Sprintf("redis://127.0.0.1:%d/0", s.Port) }

// Start starts it (again, empty).
func (s *RedisServer) Start(t testing.TB) {
	t.Helper()
	path, err := find("Redis", "redis-server", "/usr/bin/redis-server")
	if err != nil {
		t.Fatal(err)
	}
	p, err := StartProcess(ProcessOptions{Name: "redis", Path: path, Args: []string{"--bind", "127.0.0.1", "--port", fmt.Sprint(s.Port), "--save", "", "--appendonly", "no", "--dir", os.TempDir()}, Env: []string{"PATH=/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()
	if err := await(10*time.Second, p, func() error { return dials(fmt.Sprintf("127.0.0.1:%d", s.Port)) }); err != nil {
		t.Fatal(err)
	}
}

// Process is the server's, to kill or freeze it.
func (s *RedisServer) Process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Kill ends it with SIGKILL.
func (s *RedisServer) Kill() {
	s.Process().Thaw()
	s.Process().Kill()
}

// ConsulServer is a Consul agent of tests: one server, no ACL.
type ConsulServer struct {
	Port int // HTTP
	args []string
	path string
	dir  string
	mu   sync.Mutex
	proc *Process
}

// Consul starts one for a test. Its data survives Stop and Start.
func Consul(t testing.TB) *ConsulServer {
	t.Helper()
	path, err := find("Consul", os.Getenv("FLOW_CONSUL_BIN"), "consul", "/opt/flowplatform/bin/consul")
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(5)
	if err != nil {
		t.Fatal(err)
	}
	s := &ConsulServer{Port: ports[0], path: path, dir: t.TempDir()}
	config := fmt.Sprintf(`{"server": true, "bootstrap_expect": 1, "node_name": "test", "data_dir": %q, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "session_ttl_min": "1s", "log_level": "warn",
		"ports": {"http": %d, "server": %d, "serf_lan": %d, "serf_wan": -1, "dns": -1, "grpc": -1, "grpc_tls": -1}, "performance": {"raft_multiplier": 1}, "connect": {"enabled": false}, "ui_config": {"enabled": false}}`,
		filepath.Join(s.dir, "data"), ports[0], ports[1], ports[2])
	file := filepath.Join(s.dir, "consul.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{"agent", "-config-file", file}
	s.Start(t)
	t.Cleanup(func() { s.Kill() })
	return s
}

// Address is host:port of its HTTP API.
func (s *ConsulServer) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Start starts it (again) and waits until it leads.
func (s *ConsulServer) Start(t testing.TB) {
	t.Helper()
	p, err := StartProcess(ProcessOptions{Name: "consul", Path: s.path, Args: s.args, Env: []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir}})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()
	client := http.Client{Timeout: time.Second}
	err = await(30*time.Second, p, func() error {
		req, err := http.NewRequest("PUT", "http://"+s.Address()+"/v1/kv/testkit", strings.NewReader("x"))
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			return fmt.Errorf("status %d", res.StatusCode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Process is the agent's, to kill or freeze it.
func (s *ConsulServer) Process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Kill ends it with SIGKILL.
func (s *ConsulServer) Kill() {
	s.Process().Thaw()
	s.Process().Kill()
}

var built struct {
	mu    sync.Mutex
	paths map[string]string
	dir   string
}

// Build builds a program of this module, once a test binary, and gives its path. pkg is relative to the module: "./services/worker".
func Build(t testing.TB, pkg string) string {
	t.Helper()
	built.mu.Lock()
	defer built.mu.Unlock()
	if p, ok := built.paths[pkg]; ok {
		return p
	}
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "flow-test-bin-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.paths = dir, map[string]string{}
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("where is the module: %v", err)
	}
	path := filepath.Join(built.dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, pkg)
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	built.paths[pkg] = path
	return path
}

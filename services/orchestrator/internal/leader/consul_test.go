package leader

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var agent struct {
	once    sync.Once
	address string
	err     error
	stop    func()
}

func TestMain(m *testing.M) {
	code := m.Run()
	if agent.stop != nil {
		agent.stop()
	}
	os.Exit(code)
}

// startConsul returns the address of an agent that the tests of this package share; each has a key of its own.
func startConsul(t *testing.T) string {
	t.Helper()
	agent.once.Do(func() { agent.address, agent.err = runConsul() })
	if agent.err != nil {
		t.Fatal(agent.err)
	}
	return agent.address
}

func runConsul() (string, error) {
	bin, err := exec.LookPath("consul")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "consul")
	if err != nil {
		return "", err
	}
	ports := make([]int, 5)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	config := fmt.Sprintf(`session_ttl_min = "1s"
ports { http = %d, dns = -1, grpc = -1, grpc_tls = -1, server = %d, serf_lan = %d, serf_wan = -1 }`, ports[0], ports[1], ports[2])
	if err := os.WriteFile(filepath.Join(dir, "c.hcl"), []byte(config), 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command(bin, "agent", "-server", "-bootstrap-expect=1", "-bind=127.0.0.1", "-data-dir="+filepath.Join(dir, "data"), "-config-file="+filepath.Join(dir, "c.hcl"), "-log-level=warn")
	if err := cmd.Start(); err != nil {
		return "", err
	}
	agent.stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = os.RemoveAll(dir) }
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	for range 200 {
		resp, err := http.Get("http://" + address + "/v1/status/leader")
		if err == nil {
			body := make([]byte, 64)
			n, _ := resp.Body.Read(body)
			resp.Body.Close()
			if n > 4 {
				return address, nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "", fmt.Errorf("consul has no leader after 20 s")
}

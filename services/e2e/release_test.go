package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flowplatform/services/e2e/chaos"
	"flowplatform/services/internal/testkit"
)

// What make up starts, in a directory of its own: a gateway and a worker are released under load, and a gateway that never becomes ready is taken back. No
// request fails, nothing is lost or done twice. make demo-release is the whole of it, with the patience of earnest.
func TestReleasesUnderLoad(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("make up needs root: Nomad's exec driver")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	platform, demo := testkit.Build(t, "./scripts/platform"), testkit.Build(t, "./scripts/demo-release")
	base, err := os.MkdirTemp("", "up")
	if err != nil {
		t.Fatal(err)
	}
	data, figures := filepath.Join(base, "data"), filepath.Join(base, "release.json")
	env := append(os.Environ(), "FLOW_DATA_DIR="+data, "XDG_CONFIG_HOME="+base)
	names := []string{"FRONT_DOOR", "CONSUL", "CONSUL_RPC", "CONSUL_SERF", "NOMAD", "NOMAD_RPC", "NOMAD_SERF", "NOMAD_CLIENT", "POSTGRES", "RABBITMQ", "REDIS", "ARTIFACTS", "PROMETHEUS"}
	for i, first := 0, freeBlock(t, len(names)); i < len(names); i++ {
		env = append(env, fmt.Sprintf("%s_PORT=%d", names[i], first+i))
	}
	run := func(bound time.Duration, program string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), bound) // also when the test is over: what was started must be stopped
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir, cmd.Env = root, env
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = time.Minute
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	t.Cleanup(func() {
		if out, err := run(4*time.Minute, platform, "clean"); err != nil {
			t.Errorf("make clean: %v\n%s", err, out)
			return
		}
		_ = os.RemoveAll(base)
	})
	begun := time.Now()
	if out, err := run(8*time.Minute, platform, "up"); err != nil {
		if strings.Contains(out, "exec driver (it needs root and control groups)") {
			t.Skip("this machine gives Nomad no control groups")
		}
		t.Fatalf("make up: %v\n%s", err, out)
	}
	t.Logf("make up took %.0f s", time.Since(begun).Seconds())

	out, err := run(6*time.Minute, demo, "--quick", "--rate", "5", "--file", figures)
	t.Log(out)
	if err != nil {
		t.Fatalf("the releases: %v", err)
	}
	var r struct {
		Changes []struct{ Job, Outcome string }
		Counts  chaos.Counts
	}
	b, err := os.ReadFile(figures)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []string
	for _, c := range r.Changes {
		outcomes = append(outcomes, c.Job+" "+c.Outcome)
	}
	if got := strings.Join(outcomes, "; "); got != "gateway promoted, and everywhere; worker promoted, and everywhere; gateway failed, and taken back" {
		t.Errorf("releases: %s", got)
	}
	if c := r.Counts; c.Requests < 50 || c.Accepted != c.Requests || c.Succeeded != c.Requests || c.Lost+c.Repeated+c.Doubled != 0 {
		t.Errorf("counts: %+v", c)
	}
}

// freeBlock gives the first of n ports in a row that nobody listens on: below those that the kernel gives to connections and Nomad to tasks, for these are
// used only half a minute later; and not those that a make up on this machine looks for.
func freeBlock(t *testing.T, n int) int {
	t.Helper()
	const low, high = 10000, 15000
	for try := range 200 {
		first := low + (os.Getpid()*37+try*n)%(high-low-n)
		free := true
		for port := first; port < first+n && free; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row between %d and %d", n, low, high)
	return 0
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flowplatform/scripts/internal/running"
	"flowplatform/services/e2e/chaos"
)

// TestMain: a test starts this program again as a drill that stops a process and is then killed itself.
func TestMain(m *testing.M) {
	if pid, err := strconv.Atoi(os.Getenv("CHAOS_TEST_STOP")); err == nil {
		if _, err := stop("it", []int{pid}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("stopped")
		select {}
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	t.Parallel()
	for args, ok := range map[string]bool{
		"":                            true,
		"--seed 7 --duration 2m":      true,
		"--rate 50 --settle 30s":      true,
		"--duration 10s":              false,
		"--duration 2h":               false,
		"--rate 0":                    false,
		"--rate NaN":                  false,
		"--rate 1000":                 false,
		"--settle 0s":                 false,
		"--seed -1":                   false,
		"--seed 7 and something else": false,
	} {
		if _, err := parse(strings.Fields(args)); (err == nil) != ok {
			t.Errorf("%q: %v", args, err)
		}
	}
	if a, err := parse([]string{"--seed", "7"}); err != nil || a.seed != 7 || a.duration != 2*time.Minute {
		t.Errorf("%+v %v", a, err)
	}
}

// sleeper is a process to stop.
func sleeper(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process.Pid
}

func isStopped(pid int) bool {
	f := stat(pid)
	return len(f) > 0 && f[0] == "T"
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestStopAndMend(t *testing.T) {
	t.Parallel()
	one, two := sleeper(t), sleeper(t)
	b, err := stop("it", []int{one, two})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are stopped", func() bool { return isStopped(one) && isStopped(two) })
	if err := b.Mend(t.Context()); err != nil || isStopped(one) || isStopped(two) {
		t.Errorf("%v; stopped: %v, %v", err, isStopped(one), isStopped(two))
	}
}

// TestDrillKilledWhileSomethingIsStopped: a drill that is killed can mend nothing itself.
func TestDrillKilledWhileSomethingIsStopped(t *testing.T) {
	t.Parallel()
	pid := sleeper(t)
	drill := exec.Command(os.Args[0])
	drill.Env = append(os.Environ(), fmt.Sprintf("CHAOS_TEST_STOP=%d", pid))
	out, err := drill.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := drill.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 7)
	if _, err := out.Read(line); err != nil || string(line) != "stopped" {
		t.Fatalf("%q %v", line, err)
	}
	eventually(t, "it is stopped", func() bool { return isStopped(pid) })
	drill.Process.Kill()
	drill.Wait()
	eventually(t, "it goes on though the drill was killed", func() bool { return !isStopped(pid) })
	if _, alive := startTicks(pid); !alive {
		t.Error("it is gone")
	}
}

// TestAgentPID: a record of a process that is gone, or whose id another has now, names nobody.
func TestAgentPID(t *testing.T) {
	t.Parallel()
	p := &platform{&running.Platform{Dir: t.TempDir()}}
	pid := sleeper(t)
	ticks, _ := startTicks(pid)
	for name, record := range map[string]string{
		"right":   fmt.Sprintf(`{"pid":%d,"startTicks":%q}`, pid, ticks),
		"another": fmt.Sprintf(`{"pid":%d,"startTicks":"1"}`, pid),
		"gone":    `{"pid":4194304,"startTicks":"1"}`,
		"broken":  `{`,
	} {
		if err := os.MkdirAll(filepath.Join(p.Dir, "run"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.Dir, "run", "consul.json"), []byte(record), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := p.agentPID("consul")
		if (name == "right") != (err == nil && got == pid) || (name != "right" && err == nil) {
			t.Errorf("%s: %d %v", name, got, err)
		}
	}
}

// TestOthersAreNotTouched: allocations of another data directory, stopped ones, and a lock held by somebody else give no process to kill.
func TestOthersAreNotTouched(t *testing.T) {
	t.Parallel()
	nomad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/job/worker/allocations":
			fmt.Fprint(w, `[{"ID":"b","Name":"worker.worker[1]","ClientStatus":"running","DesiredStatus":"run"},{"ID":"a","Name":"worker.worker[0]","ClientStatus":"running","DesiredStatus":"run"},
				{"ID":"elsewhere","Name":"worker.worker[2]","ClientStatus":"running","DesiredStatus":"run"},{"ID":"old","Name":"worker.worker[0]","ClientStatus":"complete","DesiredStatus":"stop"}]`)
		case "/v1/job/orchestrator/allocations":
			fmt.Fprint(w, `[]`)
		case "/v1/kv/" + leaderKey:
			fmt.Fprint(w, `[{"Session":"s","Value":"eyJob2xkZXIiOiJzb21lYm9keSJ9"}]`) // {"holder":"somebody"}
		default:
			http.NotFound(w, r)
		}
	}))
	defer nomad.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(nomad.URL, "http://"), ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{&running.Platform{Dir: t.TempDir(), Ports: map[string]int{"NOMAD_PORT": number, "CONSUL_PORT": number}, Client: nomad.Client()}}
	for _, id := range []string{"a", "b", "old"} {
		if err := os.MkdirAll(filepath.Join(p.Dir, "nomad-client", "alloc", id), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	list, err := p.Running(t.Context(), "worker")
	if err != nil || len(list) != 2 || list[0].ID != "a" || list[1].ID != "b" {
		t.Errorf("%+v %v", list, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if b, err := p.breakOne(ctx, chaos.Step{Kind: chaos.Leader}); err == nil || !strings.Contains(err.Error(), "somebody") {
		t.Errorf("%+v %v", b, err)
	}
	if err := signalAll([]int{4194304}, syscall.SIGKILL); err != nil {
		t.Errorf("a process that is gone meanwhile: %v", err)
	}
}

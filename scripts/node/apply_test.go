package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/leftovers"
	"flowplatform/scripts/internal/spec"
)

// systemd is as much of it as apply needs: which units are active and enabled, and what it was told.
type systemd struct {
	mu      sync.Mutex
	active  map[string]bool
	enabled map[string]bool
	told    []string
	rules   string // what the kernel has
	dies    string // the call at which this run of flownode is killed, as far as a test can tell: it gets no further
}

func (s *systemd) run(_ context.Context, name string, args ...string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := strings.Join(append([]string{name}, args...), " ")
	if s.dies != "" && strings.Contains(call, s.dies) {
		return "", errors.New("killed")
	}
	if name == "nft" {
		return s.rules, nil
	}
	if name != "systemctl" {
		return "", nil
	}
	unit := strings.TrimSuffix(args[len(args)-1], ".service")
	no := errors.New("no")
	switch args[0] {
	case "is-active":
		if !s.active[unit] {
			return "inactive\n", no
		}
		return "active\n", nil
	case "is-enabled":
		if !s.enabled[unit] {
			return "", no
		}
		return "", nil
	case "enable":
		s.enabled[unit] = true
	case "disable":
		s.active[unit], s.enabled[unit] = false, false
	case "restart", "reload":
		s.active[unit] = true
	default:
		return "", nil
	}
	if args[0] != "enable" {
		s.told = append(s.told, args[0]+" "+unit)
	}
	return "", nil
}

// since returns what it was told since the last time.
func (s *systemd) since() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := strings.Join(s.told, ", ")
	s.told = nil
	return told
}

// testHost is a host below a directory, with programs, without systemd.
func testHost(t *testing.T) (h host, said func() string) {
	t.Helper()
	root := t.TempDir()
	out, err := os.Create(filepath.Join(root, "said"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	for _, program := range []string{"consul", "nomad", "flownode"} {
		if err := os.MkdirAll(filepath.Join(root, spec.Programs), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, spec.Programs, program), []byte("1"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &systemd{active: map[string]bool{}, enabled: map[string]bool{}}
	h = host{root: root, run: s.run, out: console.New(out), wait: func(context.Context, desired, unit) error { return nil }, left: func() []leftovers.Process { return nil }}
	return h, func() string {
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it has not come to pass within 60 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestApplyDoesOnlyTheDifference(t *testing.T) {
	t.Parallel()
	h, _ := testHost(t)
	s := &systemd{active: map[string]bool{}, enabled: map[string]bool{}}
	h.run = s.run
	n := serverNode(t, "10.9.0.1")
	step := func(what, want string) {
		t.Helper()
		d := desireOf(t, n)
		changes, err := h.changes(t.Context(), n, d)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.apply(t.Context(), n, d); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if told := s.since(); told != want {
			t.Errorf("%s: systemd was told %q, want %q", what, told, want)
		}
		starts := strings.Count(want, "restart ") + strings.Count(want, "reload ")
		if got := len(slices.DeleteFunc(changes, func(c string) bool { return !strings.Contains(c, "start flow-") })); got != starts {
			t.Errorf("%s: check says %d units would be started, apply started %d", what, got, starts)
		}
		left, err := h.changes(t.Context(), n, d)
		if err != nil || len(left) > 0 {
			t.Errorf("%s: afterwards check still says %q, %v", what, left, err)
		}
	}
	const all = "restart flow-firewall, restart flow-consul, restart flow-nomad-server, restart flow-jwks, restart flow-nomad-client"
	step("at first", all)
	step("again", "")
	n.Host.Class = "small"
	step("another class", "restart flow-nomad-client")
	n.FrontDoor.Networks = []string{"0.0.0.0/0"}
	step("another network", "reload flow-firewall")
	n.Secrets.ConsulGossip = "MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM="
	step("another gossip key, which the agents have been told by consul keyring", "")
	if content := desireOf(t, n).content(t, secretsDir+"/consul-gossip.hcl"); !strings.Contains(content, "MzMz") {
		t.Errorf("the new gossip key isn't in %q", content)
	}
	n.Secrets.ConsulAgent = "33333333-3333-4333-8333-333333333333"
	step("another token of Consul's agent", "restart flow-consul")
	if err := os.WriteFile(h.path(spec.Programs+"/nomad"), []byte("2"), 0o755); err != nil {
		t.Fatal(err)
	}
	step("another Nomad", "restart flow-nomad-server, restart flow-nomad-client")
	s.rules = "open to everybody"
	step("a firewall that was changed by hand", "reload flow-firewall")
	n.Servers = append(n.Servers, "10.9.0.2", "10.9.0.3")
	step("more servers", "")
	s.active["flow-jwks"] = false
	step("a unit that has been stopped", "restart flow-jwks")
	n.Host.Roles = []string{spec.Worker}
	n.Servers = []string{"10.9.0.2"}
	step("no server any more", "disable flow-jwks, disable flow-nomad-server, reload flow-firewall, restart flow-consul, restart flow-nomad-client")
	for _, gone := range []string{unitFile(unitJWKS), spec.Configuration + "/nomad-server", secretsDir + "/nomad-gossip.hcl"} {
		if _, err := os.Lstat(h.path(gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	n.Cluster = "another"
	if err := h.apply(t.Context(), n, desireOf(t, n)); err == nil || !strings.Contains(err.Error(), "flownode remove") {
		t.Errorf("a host of another cluster is taken over: %v", err)
	}
}

// TestAKilledApplyIsFinishedByTheNext ends a first apply at each of its calls.
func TestAKilledApplyIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	n := serverNode(t, "10.9.0.1")
	d := desireOf(t, n)
	for _, dies := range []string{
		"systemd-sysusers", "daemon-reload", "enable --quiet flow-firewall", "restart flow-firewall", "enable --quiet flow-consul", "restart flow-consul",
		"restart flow-nomad-server", "enable --quiet flow-jwks", "restart flow-nomad-client", "answers",
	} {
		h, _ := testHost(t)
		s := &systemd{active: map[string]bool{}, enabled: map[string]bool{}, dies: dies}
		h.run = s.run
		h.wait = func(context.Context, desired, unit) error {
			if s.dies == "answers" {
				return errors.New("killed while it waited")
			}
			return nil
		}
		if err := h.apply(t.Context(), n, d); err == nil {
			t.Fatalf("it wasn't killed at %q", dies)
		}
		// What is written half is no file of ours: the next run writes it again.
		if err := os.WriteFile(h.path(spec.Configuration+"/consul.flownode-new"), []byte("half"), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		s.dies = ""
		s.since()
		if err := h.apply(t.Context(), n, d); err != nil {
			t.Errorf("after it was killed at %q: %v", dies, err)
		}
		if dies == "answers" && !strings.Contains(s.since(), "restart flow-consul") {
			t.Errorf("nobody knows whether Consul answered, and it wasn't started again")
		}
		if left, err := h.changes(t.Context(), n, d); err != nil || len(left) > 0 {
			t.Errorf("after it was killed at %q, check says %q, %v", dies, left, err)
		}
	}
}

func TestRemoveLeavesTheVolumesOrNothing(t *testing.T) {
	t.Parallel()
	n := serverNode(t, "10.9.0.1")
	d := desireOf(t, n)
	for _, erase := range []bool{false, true} {
		h, _ := testHost(t)
		if err := h.apply(t.Context(), n, d); err != nil {
			t.Fatal(err)
		}
		data := h.path(spec.DataDir + "/volumes/postgres/15")
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := h.remove(t.Context(), erase); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(data); (err == nil) == erase {
			t.Errorf("erase %v: the volume: %v", erase, err)
		}
		for _, gone := range []string{spec.Configuration, spec.Programs, spec.Bundles, spec.NodeState, spec.DataDir + "/consul", spec.DataDir + "/nomad-client", sysusers, unitFile(unitConsul), unitFile(unitFirewall)} {
			if _, err := os.Lstat(h.path(gone)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("erase %v: %s is still there: %v", erase, gone, err)
			}
		}
		if _, err := os.Lstat(h.path(spec.DataDir)); erase != errors.Is(err, os.ErrNotExist) {
			t.Errorf("erase %v: %s: %v", erase, spec.DataDir, err)
		}
	}
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestStartTicksTellLifeFromDeath(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ticks, alive := startTicks(cmd.Process.Pid)
	if !alive || ticks == "" {
		t.Fatalf("a running process: ticks %q, alive %v", ticks, alive)
	}
	s := settings{DataDir: t.TempDir()}
	write := func(ticks string) {
		t.Helper()
		content := `{"pid":` + itoa(cmd.Process.Pid) + `,"startTicks":"` + ticks + `","fingerprint":"f"}`
		if err := writeFile(s.recordFile("consul"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ticks)
	if _, alive := s.running("consul"); !alive {
		t.Error("a running agent isn't seen")
	}
	write("1") // another process has the same id since
	if _, alive := s.running("consul"); alive {
		t.Error("a stranger with the agent's process id is taken for it")
	}
	write(ticks)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, alive := s.running("consul"); alive {
		t.Error("a dead agent is taken for a running one")
	}
}

func TestConfigurationChangesTheFingerprintAndOldLayersGo(t *testing.T) {
	t.Parallel()
	s := settings{Root: filepath.Join(t.TempDir(), "root"), DataDir: filepath.Join(t.TempDir(), "data"), Ports: map[string]int{"CONSUL_PORT": 8500}}
	put := func(path, content string) {
		t.Helper()
		if err := writeFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(s.Root, "configs", "consul", "base.hcl"), "a = 1\n")
	put(filepath.Join(s.Root, "configs", "consul", "machine.hcl.tmpl"), "port = ${CONSUL_PORT}\n")
	put(s.binary("consul"), "v1")
	a := agent{Name: "consul", Program: "consul", Layers: []string{"base.hcl", "machine.hcl.tmpl"}}

	fingerprint := func() string {
		t.Helper()
		dir, f, err := s.configure(a)
		if err != nil {
			t.Fatal(err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != len(a.Layers) {
			t.Fatalf("%d files in %s, want %d", len(entries), dir, len(a.Layers))
		}
		return f
	}
	first := fingerprint()
	if fingerprint() != first {
		t.Error("the same configuration has another fingerprint")
	}
	s.Ports["CONSUL_PORT"] = 8501
	moved := fingerprint()
	put(s.binary("consul"), "v2")
	upgraded := fingerprint()
	a.Layers = a.Layers[1:]
	shorter := fingerprint()
	for i, pair := range [][2]string{{first, moved}, {moved, upgraded}, {upgraded, shorter}} {
		if pair[0] == pair[1] {
			t.Errorf("change %d left the fingerprint as it was", i)
		}
	}
}

func TestPruneKeepsTheNewestAndTheCurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	current := "000-current"
	for i := range keptArtifacts + 5 {
		name := filepath.Join(dir, "release-"+itoa(100+i))
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		at := dateOf(i)
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, current), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, current), dateOf(-9), dateOf(-9)); err != nil {
		t.Fatal(err)
	}
	if err := prune(dir, current); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != keptArtifacts || entries[0].Name() != current || entries[1].Name() != "release-106" {
		t.Errorf("%d kept, first %q and %q; want %d, %q and release-106", len(entries), entries[0].Name(), entries[1].Name(), keptArtifacts, current)
	}
}

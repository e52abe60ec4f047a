package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func environment(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestDataDirThatNobodyCanMeanIsRefused(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{
		"", "relative/dir", "/", "/var", "/srv", "/var/lib", "/var/lib/", "/home/me", "/usr/share/flow", "/etc/flow", "/proc/1/x",
		"/var/lib/../lib", "/var/lib/postgresql", "/checkouts", "/checkouts/flow", "/data/$HOME", `/data/"x"`, link,
	} {
		if err := checkDataDir(dir, "/checkouts/flow", "/home/me"); err == nil {
			t.Errorf("checkDataDir(%q) accepts it", dir)
		}
	}
	for _, dir := range []string{defaultDataDir, "/tmp/flow", "/srv/flow", "/home/me/flow", "/checkouts/data", filepath.Join(t.TempDir(), "new")} {
		if err := checkDataDir(dir, "/checkouts/flow", "/home/me"); err != nil {
			t.Errorf("checkDataDir(%q) = %v", dir, err)
		}
	}
}

func TestDirectoryWithOthersFilesIsNotTaken(t *testing.T) {
	t.Parallel()
	s := settings{DataDir: filepath.Join(t.TempDir(), "data")}
	if err := s.ownDataDir(); err != nil {
		t.Fatalf("a new directory: %v", err)
	}
	if err := s.ownDataDir(); err != nil || !s.isOurs() {
		t.Fatalf("our own directory: %v, ours: %v", err, s.isOurs())
	}
	other := settings{DataDir: t.TempDir()}
	if err := os.WriteFile(other.path("thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := other.ownDataDir(); err == nil || other.isOurs() {
		t.Errorf("a directory with somebody's files was taken: err %v", err)
	}
}

func TestEveryWrongPortIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := readSettings(environment(map[string]string{dataDirVariable: "/tmp/flow-none", "FRONT_DOOR_PORT": "http", "NOMAD_PORT": "70000"}))
	if err == nil || !strings.Contains(err.Error(), "FRONT_DOOR_PORT") || !strings.Contains(err.Error(), "NOMAD_PORT") {
		t.Errorf("error = %v, want one that names both variables", err)
	}
}

func TestPortsAreRememberedAndFollowEachOther(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	s, err := readSettings(environment(map[string]string{dataDirVariable: dir, "CONSUL_PORT": "18500", "FRONT_DOOR_PORT": "9090"}))
	if err != nil {
		t.Fatal(err)
	}
	if s.Ports["CONSUL_RPC_PORT"] != 18300 || s.Ports["NOMAD_RPC_PORT"] != 4647 {
		t.Errorf("ports that follow another: Consul RPC %d, Nomad RPC %d", s.Ports["CONSUL_RPC_PORT"], s.Ports["NOMAD_RPC_PORT"])
	}
	taken := map[int]bool{15432: true, 15433: true}
	if err := s.search(func(n int) bool { return !taken[n] }); err != nil {
		t.Fatal(err)
	}
	if s.Ports["POSTGRES_PORT"] != 15434 {
		t.Errorf("POSTGRES_PORT = %d, want the next free one, 15434", s.Ports["POSTGRES_PORT"])
	}
	if err := s.remember(); err != nil {
		t.Fatal(err)
	}
	again, err := readSettings(environment(map[string]string{dataDirVariable: dir}))
	if err != nil {
		t.Fatal(err)
	}
	if again.Ports["FRONT_DOOR_PORT"] != 9090 || again.Ports["POSTGRES_PORT"] != 15434 {
		t.Errorf("remembered: front door %d, PostgreSQL %d", again.Ports["FRONT_DOOR_PORT"], again.Ports["POSTGRES_PORT"])
	}
	moved, err := readSettings(environment(map[string]string{dataDirVariable: dir, "CONSUL_PORT": "28500"}))
	if err != nil || moved.Ports["CONSUL_RPC_PORT"] != 28300 {
		t.Errorf("Consul moved, its RPC port is %d (%v), want it to follow to 28300", moved.Ports["CONSUL_RPC_PORT"], err)
	}
	// What runs there now is ours: a taken port is not searched for again.
	if err := again.search(func(int) bool { return false }); err != nil || again.Ports["POSTGRES_PORT"] != 15434 {
		t.Errorf("a settled port moved to %d (%v)", again.Ports["POSTGRES_PORT"], err)
	}
}

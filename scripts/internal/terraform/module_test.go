package terraform

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"flowplatform/scripts/internal/spec"
)

// The stand-in for flowcluster writes down what it is called with. It fails for the host in the file fail, and hangs for the one in the file hang.
const standIn = `#!/bin/sh
set -eu
top=$3
[ "$1" != host ] || top=$4
echo "$@" | sed "s| --dir $top||; s|--bundle .*|--bundle|" >>"$top/calls"
if [ "$1" = init ]; then cat >"$top/cluster.json"; fi
if [ -e "$top/fail" ] && [ "$*" = "host apply --dir $top $(cat "$top/fail")" ]; then echo "a stand-in fails" >&2; exit 1; fi
if [ -e "$top/hang" ] && [ "$*" = "host apply --dir $top $(cat "$top/hang")" ]; then : >"$top/hangs"; exec sleep 600; fi
`

// bundle makes a file like make bundle's, with the stand-in; spoiled, its sums don't hold.
func bundle(t *testing.T, spoiled bool) string {
	t.Helper()
	sum := sha256.Sum256([]byte(standIn))
	program := standIn
	if spoiled {
		program += "# another byte\n"
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zip)
	for _, f := range []struct{ name, content string }{{"bin/flowcluster", program}, {"SHA256SUMS", fmt.Sprintf("%x  bin/flowcluster\n", sum)}} {
		if err := archive.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if err := os.WriteFile(file, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// trial is bare metal's files with two hosts, on which nothing is done but by the stand-in.
type trial struct {
	*Run
	t   *testing.T
	dir string // the operator's directory
}

func newTrial(t *testing.T, spoiled bool) *trial {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skip("there is no terraform on this machine")
	}
	run, err := Copy("../../..", "bare-metal", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	x := &trial{Run: run, t: t, dir: filepath.Join(t.TempDir(), "operator")}
	x.hosts(bundle(t, spoiled), "w1")
	if err := run.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return x
}

// hosts sets s1 and workers.
func (x *trial) hosts(bundle string, workers ...string) {
	x.t.Helper()
	list := []map[string]any{{"name": "s1", "address": "198.51.100.1", "private_address": "10.0.0.1", "roles": []string{"server", "data"}}}
	for i, w := range workers {
		list = append(list, map[string]any{"name": w, "address": "198.51.100.2", "private_address": fmt.Sprintf("10.0.0.%d", i+2), "roles": []string{"worker", "front-door"}})
	}
	if err := x.Set(map[string]any{"name": "trial", "bundle": bundle, "operator_dir": x.dir, "ssh": map[string]any{"user": "debian"}, "allowed_networks": []string{"203.0.113.0/24"}, "hosts": list}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *trial) apply() {
	x.t.Helper()
	if err := x.Apply(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
}

// calls returns what the stand-in was called with since the last time, without the directory.
func (x *trial) calls() []string {
	x.t.Helper()
	file := filepath.Join(x.dir, "calls")
	content, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		x.t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		x.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

// expect compares calls; those within one stage may come in any order.
func (x *trial) expect(what string, stages ...[]string) {
	x.t.Helper()
	got := x.calls()
	rest := got
	for _, stage := range stages {
		if len(rest) < len(stage) {
			x.t.Fatalf("%s: flowcluster was called with %q", what, got)
		}
		now := slices.Sorted(slices.Values(rest[:len(stage)]))
		if !slices.Equal(now, slices.Sorted(slices.Values(stage))) {
			x.t.Fatalf("%s: flowcluster was called with %q", what, got)
		}
		rest = rest[len(stage):]
	}
	if len(rest) > 0 {
		x.t.Fatalf("%s: flowcluster was called with %q too", what, rest)
	}
}

func TestTheModuleCallsInTheRightOrder(t *testing.T) {
	t.Parallel()
	x := newTrial(t, false)
	file := bundle(t, false)
	x.hosts(file, "w1")
	x.apply()
	x.expect("the first apply", []string{"init --bundle"}, []string{"host apply s1", "host apply w1"}, []string{"converge"})

	var c spec.Cluster
	content, err := os.ReadFile(filepath.Join(x.dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewDecoder(bytes.NewReader(content))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&c); err != nil {
		t.Fatalf("cluster.json isn't what flowcluster knows: %v", err)
	}
	if err := c.Check(); err != nil {
		t.Errorf("cluster.json: %v", err)
	}
	if len(c.Bundle) != 64 {
		t.Errorf("the bundle's sum is %q", c.Bundle)
	}
	if info, err := os.Stat(x.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the operator's directory: %v %v", info.Mode(), err)
	}

	if changes, err := x.Changes(t.Context()); err != nil || changes != "" {
		t.Fatalf("a second apply would change something: %v\n%s", err, changes)
	}

	x.hosts(file, "w1", "w2")
	x.apply()
	x.expect("another host", []string{"init --bundle"}, []string{"host apply s1", "host apply w1", "host apply w2"}, []string{"converge"})

	// It is removed while cluster.json still knows it.
	x.hosts(file, "w1")
	x.apply()
	x.expect("a host less", []string{"host remove w2"}, []string{"init --bundle"}, []string{"host apply s1", "host apply w1"}, []string{"converge"})

	if err := x.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.expect("destroy", []string{"dismantle"}, []string{"host remove s1", "host remove w1"})
}

// What was interrupted is finished by the next apply, which takes nothing away first.
func TestTheModuleFinishesWhatWasInterrupted(t *testing.T) {
	t.Parallel()
	x := newTrial(t, false)
	mark := func(name, host string) {
		t.Helper()
		if err := os.MkdirAll(x.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(x.dir, name), []byte(host), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mark("fail", "w1")
	if err := x.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "a stand-in fails") {
		t.Fatalf("a host that fails: %v", err)
	}
	x.calls()

	if err := os.Remove(filepath.Join(x.dir, "fail")); err != nil {
		t.Fatal(err)
	}
	mark("hang", "w1")
	cmd := x.Command(context.Background(), "apply", "-auto-approve", "-input=false", "-no-color")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }() // the stand-in that hangs outlives its terraform
	hangs := filepath.Join(x.dir, "hangs")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(hangs); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the apply has not come to the host that hangs")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	x.calls()

	if err := os.Remove(filepath.Join(x.dir, "hang")); err != nil {
		t.Fatal(err)
	}
	x.apply()
	for _, call := range x.calls() {
		if strings.Contains(call, "remove") || strings.Contains(call, "dismantle") {
			t.Errorf("what was interrupted is taken away first: %s", call)
		}
	}
	if changes, err := x.Changes(t.Context()); err != nil || changes != "" {
		t.Fatalf("after that an apply would still change something: %v\n%s", err, changes)
	}
}

func TestADamagedBundleIsRefused(t *testing.T) {
	t.Parallel()
	x := newTrial(t, true)
	if err := x.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "does not have the sum") {
		t.Fatalf("a damaged bundle: %v", err)
	}
	if calls := x.calls(); len(calls) > 0 {
		t.Errorf("a program of a damaged bundle has run: %q", calls)
	}
}

// What terraform test says of the module, of bare metal, and of hosts on this machine.
func TestWhatTerraformTests(t *testing.T) {
	t.Parallel()
	x := newTrial(t, false)
	module := &Run{Dir: filepath.Join(x.Dir, "../../modules/cluster")}
	if err := module.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(x.Dir, "terraform.tfvars.json")); err != nil { // terraform test would take it
		t.Fatal(err)
	}
	local, err := Copy("../../..", "local", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := local.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Run{x.Run, module, local} {
		args := []string{"test", "-no-color"}
		if r == local {
			args = append(args, "-var-file=example.tfvars")
		}
		if said, err := r.do(t.Context(), args...); err != nil || !strings.Contains(said, " 0 failed") || strings.Contains(said, "Success! 0 passed") {
			t.Errorf("terraform test in %s: %v\n%s", r.Dir, err, said)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/bundle"
	"flowplatform/scripts/internal/parts"
)

// checkout is a second copy of what a release is made from, elsewhere: neither its place nor its times may show.
func checkout(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "elsewhere")
	out, err := exec.Command("git", "-C", "../..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join("../..", name))
		if err != nil {
			continue // deleted and not committed yet
		}
		content, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, info.Mode()&0o711); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReleaseIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	const version = "1.2.3"
	archs := []string{"amd64"} // the others would compile everything once more
	first := release{root: root, version: version, dir: filepath.Join(t.TempDir(), version), archs: archs, say: t.Logf}
	second := release{root: checkout(t), version: version, dir: filepath.Join(t.TempDir(), version), archs: archs, say: t.Logf}
	for _, r := range []*release{&first, &second} {
		r.bundle = func(_ context.Context, dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, bundle.LockFile), nil, 0o644), os.WriteFile(filepath.Join(dir, bundle.FileName(version, "amd64")), []byte("a bundle"), 0o644))
		}
		if err := r.make(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a, b := read(t, filepath.Join(first.dir, archive.SumsName)), read(t, filepath.Join(second.dir, archive.SumsName))
	if !bytes.Equal(a, b) {
		t.Errorf("two checkouts give two releases:\n%s\n%s", a, b)
	}
	if out, err := inDir(first.dir, "sha256sum", "--check", "--strict", "--quiet", archive.SumsName); err != nil {
		t.Errorf("the sums don't hold: %v\n%s", err, out)
	}
	if !bytes.Contains(a, []byte("  flowplatform-1.2.3-amd64.tar.gz\n")) || bytes.Contains(a, []byte(bundle.LockFile)) {
		t.Errorf("the bundle is not among what has sums, or its lock is:\n%s", a)
	}
	if err := first.make(t.Context()); err == nil {
		t.Error("a version was made twice")
	}

	unpacked := t.TempDir()
	if out, err := inDir(unpacked, "tar", "-xzf", filepath.Join(first.dir, "flowplatform-1.2.3-linux-amd64.tar.gz")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	content := filepath.Join(unpacked, "flowplatform-1.2.3-linux-amd64")
	if out, err := inDir(content, "sha256sum", "--check", "--strict", "--quiet", archive.SumsName); err != nil {
		t.Errorf("the sums of what was unpacked don't hold: %v\n%s", err, out)
	}
	for _, name := range []string{"bin/worker", "bin/flowctl", "scripts/install"} {
		if info, err := os.Stat(filepath.Join(content, name)); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	for _, name := range []string{"jobs/gateway.nomad.hcl", "configs/consul/server.hcl", "scripts/hashistack/nomad/go.mod"} {
		if _, err := os.Stat(filepath.Join(content, name)); err != nil {
			t.Error(err)
		}
	}
	sum, err := archive.Sum(filepath.Join(content, "bin/worker"))
	if err != nil {
		t.Fatal(err)
	}
	if hcl := read(t, filepath.Join(content, versionsName)); !regexp.MustCompile(`(?m)^  worker +\= "` + sum + `"$`).Match(hcl) {
		t.Errorf("%s doesn't name the worker's sum %s:\n%s", versionsName, sum, hcl)
	}
	var sbom struct {
		BomFormat  string
		Components []struct{ Name, Version, Purl string }
	}
	if err := json.Unmarshal(read(t, filepath.Join(content, parts.Name)), &sbom); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, c := range sbom.Components {
		found[c.Name] = true
	}
	for _, name := range []string{"worker", "stdlib", "github.com/jackc/pgx/v5", "github.com/hashicorp/nomad/api", "modernc.org/quickjs"} {
		if sbom.BomFormat != "CycloneDX" || !found[name] {
			t.Errorf("the parts list lacks %s", name)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func inDir(dir, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

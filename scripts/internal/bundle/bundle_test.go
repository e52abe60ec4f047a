package bundle

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/programs"
)

var smallest string // a program that does nothing

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bundle-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		panic(err)
	}
	smallest = filepath.Join(dir, "smallest")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", smallest, source).CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

// maker makes a bundle of this checkout with stand-ins for what takes minutes to build.
func maker(t *testing.T, out string) *Maker {
	t.Helper()
	put := func(dir string, names ...string) error {
		for _, name := range names {
			if err := archive.CopyTree(smallest, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return nil
	}
	return &Maker{
		Root: "../../..", Version: "1.2.3", Arch: "amd64", Out: out,
		Programs: func(_ context.Context, bin, released string) error {
			if err := put(released, programs.Released()...); err != nil {
				return err
			}
			return put(bin, programs.CommandLine, programs.Host, programs.Cluster)
		},
		Ground: func(_ context.Context, bin string) (string, string, error) {
			return "1.22.7", "1.11.3", put(bin, "consul", "nomad")
		},
	}
}

func TestABundleIsWholeAndAlwaysTheSame(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	first, err := maker(t, out).Make(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := read(t, first.File)
	second, err := maker(t, out).Make(t.Context()) // over the first: it is the same
	if err != nil {
		t.Fatal(err)
	}
	if first != second || !bytes.Equal(before, read(t, second.File)) {
		t.Errorf("two bundles of the same checkout: %+v, %+v", first, second)
	}
	left, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	if want := []string{".bundle.lock", "flowplatform-1.2.3-amd64.tar.gz", "flowplatform-1.2.3-amd64.tar.gz.sha256"}; !slices.Equal(names, want) {
		t.Errorf("beside the bundle there are %q", names)
	}
	if want := second.Sum + "  flowplatform-1.2.3-amd64.tar.gz\n"; string(read(t, second.File+".sha256")) != want {
		t.Errorf("the file of its sum says %q", read(t, second.File+".sha256"))
	}

	dir := filepath.Join(t.TempDir(), "opened")
	m, err := Open(t.Context(), second.File, dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Manifest{Version: "1.2.3", Arch: "amd64", Consul: "1.22.7", Nomad: "1.11.3"}); m != want {
		t.Errorf("it says that it is %+v", m)
	}
	for _, name := range []string{"VERSION", "install", "hashistack/nomad/go.mod", "bin/consul", "bin/nomad", "bin/flownode", "bin/flowcluster", "bin/flowctl", "programs/gateway",
		"programs/orchestrator", "programs/worker", "programs/migrate", "jobs/gateway.nomad.hcl", "configs/consul/base.hcl", "sample/hello.json", "sbom.cdx.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"install", "bin/nomad", "programs/worker"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s can't be run: %v", name, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "programs/worker")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "lacks programs/worker") {
		t.Errorf("a bundle without the worker: %v", err)
	}
}

func TestWhatCannotBeMadeLeavesNothing(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*Maker){
		"is no version": func(m *Maker) { m.Version = "next" },
		"lacks bin/consul": func(m *Maker) {
			m.Ground = func(context.Context, string) (string, string, error) { return "", "", nil }
		},
		"programs: no go": func(m *Maker) {
			m.Programs = func(context.Context, string, string) error { return errors.New("no go") }
		},
		"no such file": func(m *Maker) { m.Root = t.TempDir() },
	} {
		out := t.TempDir()
		m := maker(t, out)
		spoil(m)
		if _, err := m.Make(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("wanted %q, got %v", want, err)
		}
		if left, _ := filepath.Glob(filepath.Join(out, "flowplatform*")); len(left) > 0 {
			t.Errorf("%s: %q is left", want, left)
		}
		if _, err := os.Stat(filepath.Join(out, ".bundle")); err == nil {
			t.Errorf("%s: the place of work is left", want)
		}
	}
}

func TestOtherArchivesAreNoBundles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := archive.WriteSums(dir); err != nil {
		t.Fatal(err)
	}
	file, opened := filepath.Join(t.TempDir(), "other.tar.gz"), filepath.Join(t.TempDir(), "opened")
	if err := archive.Pack(t.Context(), dir, "", file, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), file, opened); err == nil || !strings.Contains(err.Error(), "is no bundle of the platform") {
		t.Errorf("another archive is taken: %v", err)
	}
	if _, err := os.Stat(opened); err == nil {
		t.Error("it was left where it was unpacked")
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for v, good := range map[string]bool{"1.2.3": true, "0.10.0-rc.1": true, "": false, "1.2": false, "v1.2.3": false, "../1.2.3": false, "1.2.3-": false, "1.2.3/x": false} {
		if VersionPattern.MatchString(v) != good {
			t.Errorf("%q: %v expected", v, good)
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

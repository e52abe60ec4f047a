package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/bundle"
	"flowplatform/scripts/internal/parts"
	"flowplatform/scripts/internal/programs"
)

// carried is what of the checkout goes along with the programs: what runs them, and what makes a machine ready for them.
var carried = []string{"jobs", "configs", "scripts/install", "scripts/hashistack"}

const (
	versionsName = "versions.hcl"
)

type release struct {
	root    string // of the checkout
	version string
	dir     string
	archs   []string // processors that it is for
	say     func(format string, args ...any)
	// bundle makes the bundle of a cluster in a directory, for the processor of this machine; nil makes none.
	bundle func(ctx context.Context, dir string) error
}

// make makes the release beside its place and moves it there when it is whole: a directory with the name of a version is never half of one.
func (r *release) make(ctx context.Context) error {
	if _, err := os.Stat(r.dir); err == nil {
		return fmt.Errorf("%s is there already: a version is made once; remove it, or take the next number", r.dir)
	}
	if err := os.MkdirAll(filepath.Dir(r.dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(r.dir), ".release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	for _, arch := range r.archs {
		if err := r.archived(ctx, work, arch); err != nil {
			return fmt.Errorf("linux-%s: %w", arch, err)
		}
	}
	if r.bundle != nil {
		r.say("bundle")
		if err := r.bundle(ctx, work); err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
		if err := os.Remove(filepath.Join(work, bundle.LockFile)); err != nil {
			return err
		}
	}
	if err := archive.WriteSums(work); err != nil {
		return err
	}
	return os.Rename(work, r.dir)
}

// archived makes the directory and the archive of one processor.
func (r *release) archived(ctx context.Context, work, arch string) error {
	name := "flowplatform-" + r.version + "-linux-" + arch
	dir := filepath.Join(work, name)
	bin := filepath.Join(dir, "bin")
	r.say("%s: programs", name)
	if err := programs.Build(ctx, r.root, bin, arch); err != nil {
		return err
	}
	versions := map[string]string{}
	for _, p := range programs.Released() {
		sum, err := archive.Sum(filepath.Join(bin, p))
		if err != nil {
			return err
		}
		versions[p] = sum
	}
	if err := os.WriteFile(filepath.Join(dir, versionsName), versionsHCL(r.version, versions), 0o644); err != nil {
		return err
	}
	r.say("%s: parts list", name)
	list, err := parts.List(bin, r.version, arch, append(programs.Released(), programs.CommandLine))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, parts.Name), list, 0o644); err != nil {
		return err
	}
	for _, path := range carried {
		if err := archive.CopyTree(filepath.Join(r.root, path), filepath.Join(dir, path)); err != nil {
			return err
		}
	}
	if err := archive.WriteSums(dir); err != nil {
		return err
	}
	r.say("%s: archive", name)
	return archive.Pack(ctx, dir, name, dir+".tar.gz", nil)
}

// versionsHCL is the var-file that the jobs take: a program's version is the sum of its bytes, which Nomad checks when it fetches it.
func versionsHCL(version string, versions map[string]string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Release %s: nomad job run -var-file=%s …\nversions = {\n", version, versionsName)
	for _, p := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintf(&b, "  %-12s = %q\n", p, versions[p])
	}
	b.WriteString("}\n")
	return []byte(b.String())
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"flowplatform/scripts/internal/programs"
)

// carried is what of the checkout goes along with the programs: what runs them, and what makes a machine ready for them.
var carried = []string{"jobs", "configs", "scripts/install", "scripts/hashistack"}

const (
	sumsName     = "SHA256SUMS"
	sbomName     = "sbom.cdx.json"
	versionsName = "versions.hcl"
)

type release struct {
	root    string // of the checkout
	version string
	dir     string
	archs   []string // processors that it is for
	say     func(format string, args ...any)
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
		if err := r.bundle(ctx, work, arch); err != nil {
			return fmt.Errorf("linux-%s: %w", arch, err)
		}
	}
	sums, err := sumsOf(work)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, sumsName), sums, 0o644); err != nil {
		return err
	}
	return os.Rename(work, r.dir)
}

// bundle makes the directory and the archive of one processor.
func (r *release) bundle(ctx context.Context, work, arch string) error {
	name := "flowplatform-" + r.version + "-linux-" + arch
	dir := filepath.Join(work, name)
	bin := filepath.Join(dir, "bin")
	r.say("%s: programs", name)
	if err := programs.Build(ctx, r.root, bin, arch); err != nil {
		return err
	}
	versions := map[string]string{}
	for _, p := range programs.Released() {
		sum, err := sumOf(filepath.Join(bin, p))
		if err != nil {
			return err
		}
		versions[p] = sum
	}
	if err := os.WriteFile(filepath.Join(dir, versionsName), versionsHCL(r.version, versions), 0o644); err != nil {
		return err
	}
	r.say("%s: parts list", name)
	parts, err := partsOf(bin, r.version, arch)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, sbomName), parts, 0o644); err != nil {
		return err
	}
	for _, path := range carried {
		if err := copyTree(filepath.Join(r.root, path), filepath.Join(dir, path)); err != nil {
			return err
		}
	}
	sums, err := sumsOf(dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, sumsName), sums, 0o644); err != nil {
		return err
	}
	r.say("%s: archive", name)
	return archive(dir, name, dir+".tar.gz")
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

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sumsOf lists the files below a directory as sha256sum --check reads it.
func sumsOf(dir string) ([]byte, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		sum, err := sumOf(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, filepath.ToSlash(name))
		return nil
	})
	return []byte(b.String()), err
}

// copyTree copies a file or a directory. Only plain files are carried.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is no plain file", path)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, content, modeOf(e))
	})
}

// modeOf is 0755 for what may be run and 0644 for the rest: what umask and checkout make of modes must not show.
func modeOf(e fs.DirEntry) fs.FileMode {
	if info, err := e.Info(); err == nil && info.Mode()&0o100 != 0 {
		return 0o755
	}
	return 0o644
}

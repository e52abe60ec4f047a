package bundle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/parts"
	"flowplatform/scripts/internal/programs"
)

// carried is what of the checkout goes along as it is, and where it lies in a bundle.
var carried = []struct{ from, to string }{
	{"scripts/install", InstallFile},
	{"scripts/hashistack", PinsDir},
	{"jobs", JobsDir},
	{"configs", ConfigsDir},
	{"scripts/sample/hello.json", SampleFile},
}

// tools are the programs that people and hosts run themselves.
func tools() []string {
	return []string{"consul", "nomad", programs.Host, programs.Cluster, programs.CommandLine}
}

// Expected are the files and directories that every bundle of this kind has.
func Expected(m Manifest) []string {
	names := []string{VersionFile, archive.SumsName, parts.Name}
	for _, c := range carried {
		names = append(names, c.to)
	}
	for _, name := range tools() {
		names = append(names, filepath.Join(BinDir, name))
	}
	for _, name := range programs.Released() {
		names = append(names, filepath.Join(ProgramsDir, name))
	}
	if m.Packages > 0 {
		names = append(names, filepath.Join(PackagesDir, "Packages"), DebianFile)
	}
	return names
}

// Maker makes a bundle out of a checkout.
type Maker struct {
	Root    string // of the checkout
	Version string
	Arch    string // of the machine that it is for
	Out     string // directory

	// Programs builds the platform's own into two directories, and Ground brings consul and nomad into one and says their versions.
	Programs func(ctx context.Context, bin, released string) error
	Ground   func(ctx context.Context, bin string) (consul, nomad string, err error)
	// Packages makes the apt repository in a directory; without it hosts use their own sources.
	Packages func(ctx context.Context, dir string) (debian string, count int, err error)

	Progress Progress
}

// Made is a finished bundle.
type Made struct {
	File, Sum string
	Size      int64
}

// Make makes the bundle, and beside it a file with its sum. The same checkout, ground and packages give the same bytes. It is made beside its place and
// moved there when it is whole.
func (m *Maker) Make(ctx context.Context) (Made, error) {
	if !VersionPattern.MatchString(m.Version) {
		return Made{}, fmt.Errorf("VERSION=%q is no version: three numbers and at most a suffix, like 1.4.0 or 1.5.0-rc.1", m.Version)
	}
	if err := os.MkdirAll(m.Out, 0o755); err != nil {
		return Made{}, err
	}
	unlock, err := m.lock()
	if err != nil {
		return Made{}, err
	}
	defer unlock()
	// One place, so that what an interrupted run has left there is removed by the next.
	work := filepath.Join(m.Out, ".bundle")
	if err := os.RemoveAll(work); err != nil {
		return Made{}, err
	}
	defer os.RemoveAll(work)
	dir := filepath.Join(work, "content")
	if err := m.fill(ctx, dir); err != nil {
		return Made{}, err
	}
	return m.pack(ctx, dir, filepath.Join(work, "bundle.tar.gz"))
}

// lock lets one make bundle work in a directory at a time.
func (m *Maker) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(m.Out, LockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		m.Progress.say("another make bundle works in %s: waiting for it", m.Out)
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
	return func() { f.Close() }, nil
}

func (m *Maker) fill(ctx context.Context, dir string) error {
	bin, released := filepath.Join(dir, BinDir), filepath.Join(dir, ProgramsDir)
	for _, d := range []string{bin, released} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	about := Manifest{Version: m.Version, Arch: m.Arch}
	if err := m.Progress.step("programs", dir, func() error { return m.Programs(ctx, bin, released) }); err != nil {
		return err
	}
	if err := m.Progress.step("consul, nomad", bin, func() (err error) {
		about.Consul, about.Nomad, err = m.Ground(ctx, bin)
		return err
	}); err != nil {
		return err
	}
	if m.Packages != nil {
		debs := filepath.Join(dir, PackagesDir)
		if err := m.Progress.step("Debian packages", debs, func() (err error) {
			about.Debian, about.Packages, err = m.Packages(ctx, debs)
			return err
		}); err != nil {
			return err
		}
	}
	for _, c := range carried {
		if err := archive.CopyTree(filepath.Join(m.Root, c.from), filepath.Join(dir, c.to)); err != nil {
			return err
		}
	}
	return m.describe(dir, about)
}

// describe writes what says what the rest is.
func (m *Maker) describe(dir string, about Manifest) error {
	manifest, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return err
	}
	var paths []string
	for _, d := range []string{BinDir, ProgramsDir} {
		entries, err := os.ReadDir(filepath.Join(dir, d))
		if err != nil {
			return err
		}
		for _, e := range entries {
			paths = append(paths, filepath.Join(d, e.Name()))
		}
	}
	list, err := parts.List(dir, m.Version, m.Arch, paths)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{VersionFile: []byte(m.Version + "\n"), ManifestFile: append(manifest, '\n'), parts.Name: list} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	if err := archive.WriteSums(dir); err != nil {
		return err
	}
	if _, err := Read(dir); err != nil {
		return err
	}
	return nil
}

func (m *Maker) pack(ctx context.Context, dir, packed string) (Made, error) {
	total, err := sizeOf(dir)
	if err != nil {
		return Made{}, err
	}
	began := time.Now()
	if err := archive.Pack(ctx, dir, "", packed, func(done int64) { m.Progress.part("packing", done, total, began) }); err != nil {
		return Made{}, err
	}
	made := Made{File: filepath.Join(m.Out, FileName(m.Version, m.Arch))}
	if made.Sum, err = archive.Sum(packed); err != nil {
		return Made{}, err
	}
	info, err := os.Stat(packed)
	if err != nil {
		return Made{}, err
	}
	made.Size = info.Size()
	if err := os.WriteFile(made.File+".sha256", []byte(made.Sum+"  "+filepath.Base(made.File)+"\n"), 0o644); err != nil {
		return Made{}, err
	}
	if err := os.Rename(packed, made.File); err != nil {
		return Made{}, err
	}
	m.Progress.done("packed", made.Size, began)
	return made, nil
}

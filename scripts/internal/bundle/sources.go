package bundle

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"

	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/programs"
)

// NewMaker makes a bundle for this machine's processor: Nomad needs cgo, so that it is built on one like those that it runs on.
func NewMaker(root, version, out string, packages bool, progress Progress) *Maker {
	m := &Maker{
		Root: root, Version: version, Arch: runtime.GOARCH, Out: out,
		Programs: BuildPrograms(root), Ground: Installed(root, filepath.Join(cacheDir(), "bin")), Progress: progress,
	}
	if packages {
		m.Packages = Debian{Root: root, Arch: m.Arch, Cache: filepath.Join(cacheDir(), "debian")}.Make
	}
	return m
}

// cacheDir is where the installer keeps Consul and Nomad too.
func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = filepath.Join(os.TempDir(), ".cache")
	}
	return filepath.Join(dir, "flowplatform")
}

// BuildPrograms builds the platform's own programs.
func BuildPrograms(root string) func(ctx context.Context, bin, released string) error {
	return func(ctx context.Context, bin, released string) error {
		if err := programs.Build(ctx, root, released, ""); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(released, programs.CommandLine), filepath.Join(bin, programs.CommandLine)); err != nil {
			return err
		}
		return programs.BuildClustering(ctx, root, bin, "")
	}
}

// Installed takes Consul and Nomad from where the installer puts them for builds and tests, after it has made sure that they are there in the pinned
// versions.
func Installed(root, from string) func(ctx context.Context, bin string) (consul, nomad string, err error) {
	return func(ctx context.Context, bin string) (consul, nomad string, err error) {
		cmd := exec.CommandContext(ctx, filepath.Join(root, "scripts/install"), "--role", "dev", "--bin-dir", from, "--quiet")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return "", "", fmt.Errorf("scripts/install: %w", err)
		}
		versions := map[string]string{}
		for _, name := range []string{"consul", "nomad"} {
			if err := archive.CopyTree(filepath.Join(from, name), filepath.Join(bin, name)); err != nil {
				return "", "", err
			}
			if versions[name], err = pinned(root, name); err != nil {
				return "", "", err
			}
		}
		return versions["consul"], versions["nomad"], nil
	}
}

// pinned is the version that the installer's pins name.
func pinned(root, name string) (string, error) {
	file := filepath.Join(root, "scripts/hashistack", name, "go.mod")
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`(?m)\bgithub\.com/hashicorp/` + name + ` v(\S+)`).FindSubmatch(content)
	if found == nil {
		return "", fmt.Errorf("%s names no version of %s", file, name)
	}
	return string(found[1]), nil
}

package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/spec"
)

// Debian makes an apt repository of every package that any role needs and everything that those depend on, down to the C library, for hosts of the Debian
// release that this machine has. apt finds out what that is and proves what it fetches, as it does for a host that has nothing installed: so whatever a host
// lacks is there, and what it has in a newer version stays.
type Debian struct {
	Root  string // of the checkout, for the installer's lists
	Arch  string
	Cache string // where packages are kept for the next time
}

// roles whose packages go along: all that a host of a cluster can have.
var roles = []string{spec.Server, spec.Data, spec.Worker, spec.FrontDoor}

// Make makes the repository in a directory.
func (d Debian) Make(ctx context.Context, dir string) (debian string, count int, err error) {
	if debian, err = release("/etc/os-release"); err != nil {
		return "", 0, err
	}
	args := []string{"--packages"}
	for _, role := range roles {
		args = append(args, "--role", role)
	}
	list, err := output(ctx, filepath.Join(d.Root, "scripts/install"), args...)
	if err != nil {
		return "", 0, err
	}
	fetched, err := d.fetch(ctx, strings.Fields(string(list)))
	if err != nil {
		return "", 0, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", 0, err
	}
	for _, file := range fetched {
		if err := archive.CopyTree(file, filepath.Join(dir, plainName(file))); err != nil {
			return "", 0, err
		}
	}
	if err := index(ctx, dir); err != nil {
		return "", 0, err
	}
	return debian, len(fetched), os.WriteFile(filepath.Join(dir, filepath.Base(DebianFile)), []byte(debian+"\n"), 0o644)
}

// release is the machine's Debian release.
func release(osRelease string) (string, error) {
	content, err := os.ReadFile(osRelease)
	if err != nil {
		return "", err
	}
	have := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), "="); found {
			have[key] = strings.Trim(value, `"`)
		}
	}
	if have["ID"] != "debian" || have["VERSION_ID"] == "" {
		return "", fmt.Errorf("this machine runs %s: a bundle with packages is made on the Debian release that its hosts have, because apt knows what depends on what there; "+
			"make it there, or without packages (PACKAGES=no) for hosts that reach Debian's mirrors", have["PRETTY_NAME"])
	}
	return have["VERSION_ID"], nil
}

// fetch lets apt fetch packages and everything that they depend on, with lists and a state of its own, so that it needs no root and what is installed here
// makes no difference. It returns the files in order.
func (d Debian) fetch(ctx context.Context, packages []string) ([]string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("there is no apt-get on this machine: %w", err)
	}
	archives, lists, status := filepath.Join(d.Cache, "archives"), filepath.Join(d.Cache, "lists"), filepath.Join(d.Cache, "status")
	for _, dir := range []string{filepath.Join(archives, "partial"), filepath.Join(lists, "partial")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	options := []string{
		"-qq", "-o", "Dir::State::status=" + status, "-o", "Dir::State::lists=" + lists, "-o", "Dir::Cache::archives=" + archives, "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
		"-o", "APT::Architecture=" + d.Arch, "-o", "APT::Architectures=" + d.Arch, "-o", "APT::Install-Recommends=false", "-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=true", "-o", "Acquire::Retries=3",
	}
	if _, err := output(ctx, "apt-get", append(options, "update")...); err != nil {
		return nil, err
	}
	// With no package kept, apt names all that it would fetch; with those that are kept, it fetches only the rest.
	none := filepath.Join(d.Cache, "none")
	if err := os.MkdirAll(filepath.Join(none, "partial"), 0o755); err != nil {
		return nil, err
	}
	uris, err := output(ctx, "apt-get", slices.Concat(options, []string{"-o", "Dir::Cache::archives=" + none, "--print-uris", "install"}, packages)...)
	if err != nil {
		return nil, err
	}
	if _, err := output(ctx, "apt-get", slices.Concat(options, []string{"--download-only", "-y", "install"}, packages)...); err != nil {
		return nil, err
	}
	return fetchedFiles(archives, uris)
}

// fetchedFiles are the files of what apt-get --print-uris has named: a line each of address, file name, size and sum.
func fetchedFiles(archives string, uris []byte) ([]string, error) {
	var files []string
	for line := range strings.Lines(string(uris)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || filepath.Base(fields[1]) != fields[1] || !strings.HasSuffix(fields[1], ".deb") {
			return nil, fmt.Errorf("apt-get --print-uris says %.200q, which names no package", line)
		}
		file := filepath.Join(archives, fields[1])
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("apt-get did not fetch %s: %w", fields[1], err)
		}
		if strconv.FormatInt(info.Size(), 10) != fields[2] {
			return nil, fmt.Errorf("%s has %d bytes, its repository says %s: remove it and try again", file, info.Size(), fields[2])
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		return nil, errors.New("apt-get --print-uris names no package")
	}
	slices.Sort(files)
	return files, nil
}

// plainName is a package's file name without what apt has escaped in it: the colon of an epoch, which is not part of names in a repository.
func plainName(file string) string {
	name := filepath.Base(file)
	if before, after, found := strings.Cut(name, "_"); found {
		if _, version, epoch := strings.Cut(after, "%3a"); epoch {
			return before + "_" + version
		}
	}
	return name
}

// index writes the repository's list of packages: what each says of itself, and its file's size and sum.
func index(ctx context.Context, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, file := range files {
		about, err := output(ctx, "dpkg-deb", "--field", file)
		if err != nil {
			return err
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		sum, err := archive.Sum(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n", bytes.TrimSpace(about), filepath.Base(file), info.Size(), sum)
	}
	return os.WriteFile(filepath.Join(dir, "Packages"), b.Bytes(), fs.FileMode(0o644))
}

// output runs a program and returns what it wrote; its complaints are in the error.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %.2000s", filepath.Base(name), err, bytes.TrimSpace(append(complaints.Bytes(), out.Bytes()...)))
	}
	return out.Bytes(), nil
}

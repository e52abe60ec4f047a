package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"flowplatform/terraform/contract"
)

// pin is a program of a Go module, at the version in pins/<name>/go.mod.
type pin struct {
	name    string
	program string // the package
	module  string // with its version
	version string // without its v
	address string // of the provider, for Terraform
	sum     string // of go.mod and go.sum: another sum is another build
}

// addresses are the providers that build from their Go modules; the others that we use aren't published as such (docs/deployment.md).
var addresses = map[string]string{
	"libvirt":   "dmacvicar/libvirt",
	"openstack": "terraform-provider-openstack/openstack",
	"vsphere":   "hashicorp/vsphere",
}

const pinned = "scripts/providers/pins"

var tool = regexp.MustCompile(`(?m)^tool (\S+)$`)

func readPin(name string) (pin, error) {
	mod, err := os.ReadFile(filepath.Join(pinned, name, "go.mod"))
	if err != nil {
		return pin{}, fmt.Errorf("no pin of %s: %w", name, err)
	}
	sums, err := os.ReadFile(filepath.Join(pinned, name, "go.sum"))
	if err != nil {
		return pin{}, fmt.Errorf("no pin of %s: %w", name, err)
	}
	p := pin{name: name, address: addresses[name], sum: fmt.Sprintf("%x", sha256.Sum256(append(mod, sums...)))[:12]}
	match := tool.FindSubmatch(mod)
	if match == nil {
		return pin{}, fmt.Errorf("%s/%s/go.mod names no tool", pinned, name)
	}
	p.program = string(match[1])
	for _, line := range strings.Split(string(mod), "\n") {
		fields := strings.Fields(line)
		if len(fields) >= 2 && strings.HasPrefix(p.program+"/", fields[0]+"/") && strings.HasPrefix(fields[1], "v") {
			p.module, p.version = fields[0]+" "+fields[1], strings.TrimPrefix(fields[1], "v")
		}
	}
	if p.version == "" {
		return pin{}, fmt.Errorf("%s/%s/go.mod requires no version of %s", pinned, name, p.program)
	}
	return p, nil
}

// build puts everything into the cache that isn't there yet.
func build(ctx context.Context) error {
	if err := os.MkdirAll(contract.Cache(), 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(contract.Cache(), "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	var failed []error
	if program := contract.Program(); program == "" || program == filepath.Join(contract.Cache(), "tofu") {
		p, err := readPin("opentofu")
		if err == nil {
			err = p.compile(ctx, filepath.Join(contract.Cache(), "tofu"))
		}
		failed = append(failed, err)
	}
	for name := range addresses {
		p, err := readPin(name)
		if err == nil {
			err = p.mirror(ctx)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// mirror builds a provider where Terraform looks for it; OpenTofu looks in a place of its own.
func (p pin) mirror(ctx context.Context) error {
	system := runtime.GOOS + "_" + runtime.GOARCH
	file := "terraform-provider-" + filepath.Base(p.address) + "_v" + p.version
	built := filepath.Join(contract.Mirror(), "registry.terraform.io", p.address, p.version, system, file)
	if err := p.compile(ctx, built); err != nil {
		return err
	}
	second := filepath.Join(contract.Mirror(), "registry.opentofu.org", p.address, p.version, system)
	if err := os.MkdirAll(second, 0o755); err != nil {
		return err
	}
	link := filepath.Join(second, file)
	if target, err := os.Readlink(link); err == nil && target == built {
		return nil
	}
	_ = os.Remove(link)
	return os.Symlink(built, link)
}

// compile builds the pinned program, unless the file was built from the same pin.
func (p pin) compile(ctx context.Context, file string) error {
	mark := filepath.Join(contract.Cache(), "built", p.name)
	if was, err := os.ReadFile(mark); err == nil && string(was) == p.sum {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
	}
	for _, dir := range []string{filepath.Dir(file), filepath.Dir(mark)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	began := time.Now()
	fmt.Printf("   %s %s: building it from its Go module, once\n", p.name, p.version)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", file+".new", p.program)
	cmd.Dir = filepath.Join(pinned, p.name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", p.program, err, tail(out))
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	fmt.Printf("   %s %s: built (%s)\n", p.name, p.version, time.Since(began).Round(time.Second))
	return os.WriteFile(mark, []byte(p.sum), 0o644)
}

// lock: one build at a time; a second one waits, then finds everything there.
func lock(file string) (func(), error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", file, err)
	}
	return func() { f.Close() }, nil
}

// tail is the end of what a command has said.
func tail(out []byte) string {
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return strings.Join(lines, "\n")
}

func trimData(name string) string { return strings.TrimPrefix(name, "data.") }

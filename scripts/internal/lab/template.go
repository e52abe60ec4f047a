package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	suite  = "bookworm" // Debian 12
	recipe = "2"        // of the files below: another number makes new templates
)

// What a plain Debian of a cloud has and debootstrap's smallest doesn't.
const plain = "systemd,systemd-sysv,dbus,openssh-server,iproute2,ca-certificates,sudo,procps,netbase,debian-archive-keyring"

// Roles whose packages the furnished template has.
var roles = []string{"server", "data", "worker", "front-door"}

// Services that Debian's packages would start at boot; scripts/install switches off those that it has installed itself.
var services = []string{"nginx", "postgresql", "rabbitmq-server", "epmd.socket", "epmd", "redis-server", "prometheus", "prometheus-node-exporter", "nftables"}

// templateFor returns the directory of the template that the options ask for, and makes it first where it is missing: minutes, once on a machine.
func templateFor(ctx context.Context, o Options) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	bare, err := made(ctx, o, cache, "plain", []string{recipe, suite, plain}, func(root string) error { return debootstrap(ctx, root) })
	if err != nil || o.Bare {
		return bare, err
	}
	packages, err := packagesOf(ctx, o.Install)
	if err != nil {
		return "", err
	}
	return made(ctx, o, cache, "roles", append([]string{filepath.Base(bare)}, packages...), func(root string) error {
		if err := run(ctx, "cp", "-a", "--reflink=auto", bare+"/.", root); err != nil {
			return err
		}
		return furnishRoles(ctx, root, packages)
	})
}

func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/root/.cache"
	}
	cache = filepath.Join(cache, "flowplatform", "lab")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	return cache, nil
}

// made makes a template under a name that says what it was made from, unless it is there. It appears whole or not at all.
func made(ctx context.Context, o Options, cache, kind string, inputs []string, do func(root string) error) (string, error) {
	sum := sha256.Sum256([]byte(strings.Join(inputs, "\n")))
	dir := filepath.Join(cache, kind+"-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	start := time.Now()
	o.Say(fmt.Sprintf("making the template %s, once on this machine", filepath.Base(dir)))
	root := dir + ".new"
	if err := os.RemoveAll(root); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	if err := do(root); err != nil {
		return "", fmt.Errorf("lab: template %s: %w", kind, err)
	}
	if err := os.Rename(root, dir); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	o.Say(fmt.Sprintf("template %s: %.0fs", filepath.Base(dir), time.Since(start).Seconds()))
	return dir, ctx.Err()
}

// debootstrap makes a plain Debian that boots in a namespace, and takes its identity away.
func debootstrap(ctx context.Context, root string) error {
	if err := run(ctx, "debootstrap", "--variant=minbase", "--include="+plain, suite, root, mirror()); err != nil {
		return err
	}
	for path, content := range map[string]string{
		"etc/machine-id": "",
		// A host has its own root of control groups, but read-only: Nomad makes groups for its tasks.
		"etc/systemd/system/lab-groups.service": `[Unit]
Description=Control groups that can be written
DefaultDependencies=no
Before=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for tree in /sys/fs/cgroup/*/; do mount -o remount,rw,bind "$tree" || true; done'
[Install]
WantedBy=sysinit.target
`,
		"etc/ssh/sshd_config.d/lab.conf": "UseDNS no\nPasswordAuthentication no\nMaxStartups 100\n",
		"etc/sudoers.d/debian":           "debian ALL=(ALL) NOPASSWD: ALL\n",
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
			return err
		}
	}
	keys, _ := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*"))
	for _, k := range keys {
		if err := os.Remove(k); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"useradd", "--create-home", "--shell", "/bin/bash", "debian"},
		{"systemctl", "enable", "systemd-networkd", "lab-groups", "ssh"},
		{"systemctl", "mask", "systemd-networkd-wait-online", "console-getty", "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "systemd-networkd.socket"},
		{"systemctl", "set-default", "multi-user.target"},
	} {
		if err := run(ctx, "chroot", append([]string{root}, args...)...); err != nil {
			return err
		}
	}
	return lent(root, "/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
}

// lent copies files of this machine into a root, where there are any.
func lent(root string, files ...string) error {
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, f), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// furnishRoles installs the packages of all roles into a template, with this machine's way to Debian's archive.
func furnishRoles(ctx context.Context, root string, packages []string) error {
	proxies, _ := filepath.Glob("/etc/apt/apt.conf.d/*proxy*")
	if err := lent(root, append(proxies, "/etc/resolv.conf", "/etc/hosts")...); err != nil {
		return err
	}
	policy := filepath.Join(root, "usr/sbin/policy-rc.d")
	if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		return err
	}
	unsafe := filepath.Join(root, "etc/dpkg/dpkg.cfg.d/lab")
	if err := os.WriteFile(unsafe, []byte("force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n"), 0o644); err != nil {
		return err
	}
	proc := filepath.Join(root, "proc")
	if err := syscall.Mount("proc", proc, "proc", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", proc, err)
	}
	defer func() { _ = syscall.Unmount(proc, syscall.MNT_DETACH) }()
	for _, args := range [][]string{
		{"apt-get", "update"},
		append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get", "install", "-y", "--no-install-recommends"}, packages...),
		{"apt-get", "clean"},
	} {
		if err := run(ctx, "chroot", append([]string{root}, args...)...); err != nil {
			return err
		}
	}
	for _, s := range services {
		_ = run(ctx, "chroot", root, "systemctl", "disable", s) // most belong to packages that some list doesn't have
	}
	lists, _ := filepath.Glob(filepath.Join(root, "var/lib/apt/lists/*"))
	for _, f := range append(lists, policy, unsafe) {
		if err := os.RemoveAll(f); err != nil {
			return err
		}
	}
	return nil
}

// packagesOf asks the installer what the packages of the roles are.
func packagesOf(ctx context.Context, install string) ([]string, error) {
	if install == "" {
		return nil, errors.New("lab: packages of the roles: no installer is named")
	}
	args := []string{"--packages"}
	for _, r := range roles {
		args = append(args, "--role", r)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, install, args...)
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("lab: %s %s: %w: %s", install, strings.Join(args, " "), err, tail(stderr.Bytes()))
	}
	return strings.Fields(string(output)), nil
}

var debianURI = regexp.MustCompile(`(?m)^(?:URIs:|deb )\s*(?:\[[^]]*\]\s*)?(https?://[^ \n]*debian)/?(?:\s|$)`)

// mirror is Debian's archive as this machine reaches it.
func mirror() string {
	if m := os.Getenv("DEBIAN_MIRROR"); m != "" {
		return m
	}
	for _, f := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		if content, err := os.ReadFile(f); err == nil {
			if m := debianURI.FindSubmatch(content); m != nil {
				return string(m[1])
			}
		}
	}
	return "http://deb.debian.org/debian"
}

// reachable says why no template can be made here, or nil: also where there is one already, and nothing has to be fetched.
func reachable(ctx context.Context) error {
	cache, _ := cacheDir()
	if templates, _ := filepath.Glob(filepath.Join(cache, "plain-*")); len(templates) > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, mirror()+"/dists/"+suite+"/InRelease", nil)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("lab: Debian's archive can't be reached, and there is no template yet (DEBIAN_MIRROR names another one): %w", err)
	}
	answer.Body.Close()
	return nil
}

// lock holds a file until the function that it returns is called; a second one waits.
func lock(file string) (func(), error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return func() { f.Close() }, nil
}

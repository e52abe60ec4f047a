package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// base is where a host's files are: root (what it sees), upper and work (what is its own in the overlay).
func (l *Lab) base(name string) string { return filepath.Join(l.Dir, "hosts", name) }

// Root is the host's root directory, as this machine sees it while the lab is up.
func (l *Lab) Root(name string) string { return filepath.Join(l.base(name), "root") }

// Running says whether the host's init lives.
func (l *Lab) Running(name string) bool { return len(supervisors(l.Root(name))) > 0 }

// Start starts a host, with the files that it had; on one that runs it does nothing.
func (l *Lab) Start(ctx context.Context, name string) error {
	h, err := l.Host(name)
	if err != nil {
		return err
	}
	if l.Running(name) {
		return nil
	}
	if err := l.furnish(ctx, h); err != nil {
		return err
	}
	dirs, err := l.group(h)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(l.base(name), "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer log.Close()
	// The shell puts itself into the host's control groups and then becomes the supervisor.
	args := []string{"-c", `nspawn=$1; shift; while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$nspawn" "$@"`, "lab", "systemd-nspawn"}
	args = append(args, dirs...)
	args = append(args, "--", "--quiet", "--boot", "--register=no", "--keep-unit", "--directory="+l.Root(name),
		"--machine="+l.Bridge()+"-"+name, "--hostname="+name, "--network-bridge="+l.Bridge(),
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe",
		"--system-call-filter=@keyring") // Nomad's executor gives each task a session keyring of its own
	cmd := exec.Command("sh", args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TERM=dumb"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the program that has started it, and its Ctrl-C
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("lab: start %s: %w", name, err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	if !until(ctx, 30*time.Second, func() bool {
		select {
		case <-ended:
			return true
		default:
			return l.Running(name)
		}
	}) || !l.Running(name) {
		return fmt.Errorf("lab: %s has not started. The end of %s:\n%s", name, log.Name(), l.Console(name))
	}
	return nil
}

// Console is the end of what the host's init has printed.
func (l *Lab) Console(name string) string {
	content, _ := os.ReadFile(filepath.Join(l.base(name), "console.log"))
	return tail(content)
}

// Kill ends a host as a power failure does: its init gets SIGKILL and with it all of its processes, at once. Its files stay as they are.
func (l *Lab) Kill(ctx context.Context, name string) error {
	root := l.Root(name)
	ended := until(ctx, 30*time.Second, func() bool {
		pids := supervisors(root)
		for _, pid := range pids {
			inits := children(pid)
			for _, init := range inits {
				_ = syscall.Kill(init, syscall.SIGKILL) // the kernel ends everything in its namespace before it reports the end
			}
			if len(inits) == 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL) // not begun yet, or about to end
			}
		}
		return len(pids) == 0
	})
	if !ended {
		return fmt.Errorf("lab: the processes of %s have not ended 30 s after SIGKILL", name)
	}
	return nil
}

// WaitSSH waits until the host's sshd says its greeting.
func (l *Lab) WaitSSH(ctx context.Context, name string, bound time.Duration) error {
	h, err := l.Host(name)
	if err != nil {
		return err
	}
	greets := func() bool {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(h.Address, "22"), time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		greeting := make([]byte, 4)
		_, err = conn.Read(greeting)
		return err == nil && string(greeting) == "SSH-"
	}
	if !until(ctx, bound, greets) {
		return fmt.Errorf("lab: SSH on %s (%s) does not answer. The end of its console:\n%s", name, h.Address, l.Console(name))
	}
	return nil
}

// SSH is a command on a host, run by root over SSH; of this machine's SSH configuration it takes nothing.
func (l *Lab) SSH(ctx context.Context, name string, command ...string) *exec.Cmd {
	h, _ := l.Host(name)
	return exec.CommandContext(ctx, "ssh", append([]string{"-F", "none", "-i", l.Key(), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@" + h.Address, "--"}, command...)...)
}

// furnish gives a host its root directory: the template below, its own files above.
func (l *Lab) furnish(ctx context.Context, h Host) error {
	base := l.base(h.Name)
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	if err := l.makeKey(ctx); err != nil {
		return err
	}
	root := l.Root(h.Name)
	if _, err := os.Stat(filepath.Join(root, "etc")); err != nil {
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", h.Template, filepath.Join(base, "upper"), filepath.Join(base, "work"))
		if err := syscall.Mount("overlay", root, "overlay", 0, options); err != nil {
			// Where the directory is on an overlay itself (in a container), a copy serves as well, and costs its size.
			if err := run(ctx, "cp", "-a", "--reflink=auto", h.Template+"/.", root); err != nil {
				return err
			}
		}
	}
	return l.identify(ctx, h)
}

// identify writes what makes the host itself: address, keys, who may come in.
func (l *Lab) identify(ctx context.Context, h Host) error {
	root := l.Root(h.Name)
	key, err := os.ReadFile(l.Key() + ".pub")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	key = append(key, strings.Join(append(l.Keys, ""), "\n")...)
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, other := range l.Hosts {
		fmt.Fprintf(&hosts, "%s %s\n", other.Address, other.Name)
	}
	for _, f := range []struct {
		path, content string
		mode          os.FileMode
	}{
		{"etc/systemd/network/10-lab.network", networkUnit(h), 0o644},
		{"etc/hosts", hosts.String(), 0o644},
		{"etc/hostname", h.Name + "\n", 0o644},
		{"etc/resolv.conf", "", 0o644},
		{"root/.ssh/authorized_keys", string(key), 0o600},
		{"home/debian/.ssh/authorized_keys", string(key), 0o600},
	} {
		path := filepath.Join(root, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if err := os.WriteFile(path, []byte(f.content), f.mode); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	for _, d := range []string{"root/.ssh", "home/debian/.ssh"} {
		if err := os.Chmod(filepath.Join(root, d), 0o700); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	if id, err := os.ReadFile(filepath.Join(root, "etc/machine-id")); err == nil && len(id) == 0 {
		// systemd would take it from this machine's firmware: the same one on all hosts.
		if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte(strings.ReplaceAll(uuid(), "-", "")+"\n"), 0o444); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	if err := run(ctx, "chroot", root, "chown", "-R", "debian:debian", "/home/debian"); err != nil {
		return err
	}
	return run(ctx, "chroot", root, "ssh-keygen", "-A") // only those that are missing
}

// uuid is a new one, from the kernel.
func uuid() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/uuid")
	return strings.TrimSpace(string(id))
}

func (l *Lab) makeKey(ctx context.Context) error {
	if _, err := os.Stat(l.Key() + ".pub"); err == nil {
		return nil
	}
	_ = os.Remove(l.Key())
	return run(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", l.Key())
}

// unmountBelow takes all mounts below a directory away, the innermost first.
func unmountBelow(dir string) error {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	lines := strings.Split(string(content), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 5 || !strings.HasPrefix(fields[4], dir+"/") {
			continue
		}
		if err := syscall.Unmount(fields[4], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("lab: unmount %s: %w", fields[4], err)
		}
	}
	return nil
}

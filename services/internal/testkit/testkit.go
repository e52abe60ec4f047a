// Package testkit starts real servers for tests, on ports of their own: PostgreSQL, RabbitMQ, Redis, Consul, and the platform's own binaries; it
// kills, freezes and cuts them. Production code may not import it.
//
// A server that is shared is started once for a test binary, the first time that a test asks; every test gets a database, a virtual host or a
// key space of its own in it. Tests that break a server start one for themselves. All processes die with the test binary, however it
// ends: the kernel is told so when they are started.
package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// FreePort gives a port of loopback that nobody listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}

// starter starts processes on one thread that lives as long as this process: the kernel's promise to kill a child with its parent holds for
// the parent's thread.
var starter = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startWithParent(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true
	err := make(chan error)
	starter() <- func() { err <- cmd.Start() }
	return <-err
}

// asUser makes a command run as a system user when we are root: PostgreSQL refuses root, and RabbitMQ's files should not be root's.
func asUser(cmd *exec.Cmd, name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := idsOf(name)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	return nil
}

func idsOf(name string) (uint32, uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("no user %s: %w (scripts/install --role dev brings it)", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(uid), uint32(gid), err
}

// directory makes one under the system's temporary directory that the user owns; its name holds the number of this process. Those that shared servers of test
// binaries have left which run no more are removed: a suite would fill gigabytes.
func directory(pattern, owner string) (string, error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), pattern+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		if left(strings.TrimPrefix(filepath.Base(dir), pattern)) {
			os.RemoveAll(dir)
		}
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-*", pattern, os.Getpid()))
	if err != nil {
		return "", err
	}
	if os.Geteuid() != 0 {
		return dir, nil
	}
	uid, gid, err := idsOf(owner)
	if err != nil {
		return "", err
	}
	return dir, os.Chown(dir, int(uid), int(gid))
}

// left tells from the end of a directory's name whether the process that made it has ended. Its servers died with it.
func left(name string) bool {
	number, _, ok := strings.Cut(name, "-")
	pid, err := strconv.Atoi(number)
	return ok && err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// find looks for a program in the places that it may be in.
func find(what string, places ...string) (string, error) {
	for _, p := range places {
		if p == "" {
			continue
		}
		if matches, _ := filepath.Glob(p); len(matches) > 0 {
			return matches[len(matches)-1], nil
		}
		if !strings.Contains(p, "/") {
			if path, err := exec.LookPath(p); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%s is not installed: run scripts/install --role dev (looked in %s)", what, strings.Join(places, ", "))
}

// tail keeps the end of what a process prints.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	if over := len(w.b) - 64<<10; over > 0 {
		w.b = append(w.b[:0], w.b[over:]...)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(bytes.Clone(w.b))
}

// Process is one that a test has started. Methods that end or stop it return when that is so.
type Process struct {
	Name string
	cmd  *exec.Cmd
	out  *tail
	done chan struct{}
	err  error
}

// ProcessOptions say how to start one.
type ProcessOptions struct {
	Name string
	Path string
	Args []string
	Env  []string // the whole environment
	User string   // when we are root; "" stays root
	Dir  string
	Log  io.Writer // gets all that it prints, too
	// Alone gives it a PID namespace of its own (as root): when it dies the kernel kills all that it has started, daemons too.
	Alone bool
	// Mounts gives it mounts of its own (as root), which go with it.
	Mounts bool
}

// StartProcess starts one that dies with this process.
func StartProcess(o ProcessOptions) (*Process, error) {
	cmd := exec.Command(o.Path, o.Args...)
	cmd.Env, cmd.Dir = o.Env, o.Dir
	if o.User != "" {
		if err := asUser(cmd, o.User); err != nil {
			return nil, err
		}
	}
	if o.Alone && os.Geteuid() == 0 {
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	}
	if o.Mounts && os.Geteuid() == 0 {
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNS
	}
	p := &Process{Name: o.Name, cmd: cmd, out: &tail{}, done: make(chan struct{})}
	var out io.Writer = p.out
	if o.Log != nil {
		out = io.MultiWriter(p.out, o.Log)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := startWithParent(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run starts one for a test: it is killed at the test's end, and what it printed is shown if the test has failed.
func Run(t testing.TB, o ProcessOptions) *Process {
	t.Helper()
	p, err := StartProcess(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Thaw()
		p.Kill()
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.Name, p.Output())
		}
	})
	return p
}

// Output is the end of what it has printed.
func (p *Process) Output() string { return p.out.String() }

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends one to the whole process group.
func (p *Process) Signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Freeze stops it where it stands; Thaw lets it go on.
func (p *Process) Freeze() { p.Signal(syscall.SIGSTOP) }

// Thaw is the end of Freeze.
func (p *Process) Thaw() {
	select {
	case <-p.done:
	default:
		p.Signal(syscall.SIGCONT)
	}
}

// Terminate sends SIGTERM and waits for the end; false when it took longer than the bound.
func (p *Process) Terminate(bound time.Duration) bool {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return true
	case <-time.After(bound):
		return false
	}
}

// Err is why it ended, after Done.
func (p *Process) Err() error { return p.err }

// Eventually asks until the answer is nil, at the most for the bound.
func Eventually(t testing.TB, bound time.Duration, what string, ask func() error) {
	t.Helper()
	if err := await(bound, nil, ask); err != nil {
		t.Fatalf("%s: not after %s: %v", what, bound, err)
	}
}

func await(bound time.Duration, p *Process, ask func() error) error {
	var gone <-chan struct{}
	if p != nil {
		gone = p.Done()
	}
	deadline := time.Now().Add(bound)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-gone:
			return fmt.Errorf("%s has ended (%v):\n%s", p.Name, p.Err(), p.Output())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func dials(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

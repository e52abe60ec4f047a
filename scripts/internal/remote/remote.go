// Package remote reaches the hosts of a cluster with the system's own ssh: it runs scripts there and connects to ports behind them.
//
// Each host has one connection that everything else goes through (ssh's ControlMaster). It lives as long as this program: it is a process that reads from a pipe
// of ours, so that it ends with us, however we end. Secrets travel on standard input only: arguments stand in the list of processes of both machines.
package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Network is the hosts of a cluster, as an ssh_config names them.
type Network struct {
	config  string
	sudo    bool   // the user isn't root
	sockets string // directory of the masters' sockets

	mu    sync.Mutex
	hosts map[string]*Host
}

// Open prepares to reach hosts. Close ends all connections.
func Open(config string, user string) (*Network, error) {
	if _, err := exec.LookPath("ssh"); err != nil {
		return nil, errors.New("no ssh here: apt-get install openssh-client")
	}
	// Not below a long TMPDIR: a socket's path has room for 108 letters.
	sockets, err := os.MkdirTemp("/tmp", "flow-ssh-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for ssh's sockets: %w", err)
	}
	return &Network{config: config, sudo: user != "root", sockets: sockets, hosts: map[string]*Host{}}, nil
}

// Close ends the connections.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.hosts {
		h.end()
	}
	os.RemoveAll(n.sockets)
}

// Host is one of them, by its name in the cluster.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = &Host{network: n, Name: name}
		n.hosts[name] = h
	}
	return h
}

// Host is a machine that ssh reaches.
type Host struct {
	Name    string
	network *Network

	mu     sync.Mutex
	master *exec.Cmd
	hold   io.Closer // the master's standard input
}

func (h *Host) socket() string { return filepath.Join(h.network.sockets, h.Name) }

// ssh is the beginning of a command line.
func (h *Host) ssh(args ...string) []string {
	return append([]string{"-F", h.network.config, "-S", h.socket()}, args...)
}

// Connect opens the connection, if it isn't open: once.
func (h *Host) Connect(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.master != nil {
		return nil
	}
	const hello = "flowcluster-is-connected"
	cmd := exec.Command("ssh", h.ssh("-o", "ControlMaster=yes", "-T", h.Name, "echo "+hello+"; exec cat >/dev/null")...)
	// Not in our process group: an interrupt from the keyboard is for us, and what we then still say needs the connection.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var complaint tail
	cmd.Stderr = &complaint
	hold, err1 := cmd.StdinPipe()
	output, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("connect to %s: %w", h.Name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("connect to %s: %w", h.Name, err)
	}
	connected := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(output) // a login shell may say something first
		for lines.Scan() {
			if strings.TrimSpace(lines.Text()) == hello {
				connected <- true
				io.Copy(io.Discard, output)
				return
			}
		}
		connected <- false
	}()
	select {
	case <-ctx.Done():
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("connect to %s: %w", h.Name, ctx.Err())
	case ok := <-connected:
		if ok {
			h.master, h.hold = cmd, hold
			return nil
		}
	}
	hold.Close()
	err := cmd.Wait()
	return &ConnectError{Host: h.Name, Said: complaint.String(), err: err}
}

// end ends the connection.
func (h *Host) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.master == nil {
		return
	}
	h.hold.Close()
	h.master.Process.Signal(syscall.SIGTERM)
	h.master.Wait()
	h.master = nil
}

// ConnectError says that ssh didn't get in, with what it said and what to do.
type ConnectError struct {
	Host, Said string
	err        error
}

func (e *ConnectError) Error() string {
	advice := "is the machine up, and is SSH open from here (allowed_networks)?"
	switch {
	case e.hasKeyChanged():
		advice = "its host key is another than before. If the machine was rebuilt, flowcluster replace " + e.Host + " forgets the old one; if it wasn't, somebody is in between"
	case strings.Contains(e.Said, "Permission denied"):
		advice = "the host doesn't take this key: look at ssh.user and ssh.private_key_file"
	case strings.Contains(e.Said, "Could not resolve"):
		advice = "its address is no name that is known here"
	}
	return fmt.Sprintf("ssh doesn't reach %s: %s; %s", e.Host, firstOf(e.Said, "it ended without a word"), advice)
}

func (e *ConnectError) hasKeyChanged() bool {
	return strings.Contains(e.Said, "Host key verification failed") || strings.Contains(e.Said, "REMOTE HOST IDENTIFICATION HAS CHANGED")
}

// Hopeless says that trying again changes nothing.
func (e *ConnectError) Hopeless() bool {
	return e.hasKeyChanged() || strings.Contains(e.Said, "Bad configuration option") || strings.Contains(e.Said, "no such identity")
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Await connects to a machine that may still be starting: it tries for as long as limit says, and tells each time what it is waiting for.
func (h *Host) Await(ctx context.Context, limit time.Duration, waiting func(why string)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := h.Connect(ctx)
		if err == nil {
			return nil
		}
		var refused *ConnectError
		if errors.As(err, &refused) {
			last = err
			if refused.Hopeless() {
				return err
			}
			waiting(firstOf(lastLine(refused.Said), "no answer"))
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && last != nil {
				return fmt.Errorf("not after %s: %w", limit, last)
			}
			return fmt.Errorf("connect to %s: %w", h.Name, ctx.Err())
		case <-time.After(2 * time.Second):
		}
	}
}

// Script is what Run runs on a host, as root.
type Script struct {
	Text   string // for sh; it stands in the list of processes: no secrets
	Input  io.Reader
	Output io.Writer // its standard output
	Errors io.Writer // its standard error; an error of Run's has the end of it in any case
}

// Run runs a script on the host.
func (h *Host) Run(ctx context.Context, s Script) error {
	command := "sh -c " + quote(s.Text)
	if h.network.sudo {
		command = "sudo -n " + command
	}
	cmd := exec.CommandContext(ctx, "ssh", h.ssh("-o", "ControlMaster=no", "-T", h.Name, command)...)
	cmd.Stdin, cmd.Stdout = s.Input, s.Output
	var said tail
	cmd.Stderr = &said
	if s.Errors != nil {
		cmd.Stderr = io.MultiWriter(&said, s.Errors)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var status *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("on %s: %w", h.Name, ctx.Err())
	case errors.As(err, &status) && status.ExitCode() == 255:
		return &ConnectError{Host: h.Name, Said: said.String(), err: err}
	case strings.Contains(said.String(), "sudo: a password is required"):
		return fmt.Errorf("on %s: the user of SSH may not sudo without a password: say root as ssh.user, or give it NOPASSWD", h.Name)
	}
	return &RunError{Host: h.Name, Said: said.String(), err: err}
}

// RunError says that a script failed on a host, with the end of what it said.
type RunError struct {
	Host, Said string
	err        error
}

func (e *RunError) Error() string { return fmt.Sprintf("on %s: %v: %s", e.Host, e.err, e.Said) }

// Status is the script's exit status.
func (e *RunError) Status() int {
	var status *exec.ExitError
	if errors.As(e.err, &status) {
		return status.ExitCode()
	}
	return -1
}

// Output runs a script and returns what it wrote.
func (h *Host) Output(ctx context.Context, text string) (string, error) {
	var out bytes.Buffer
	err := h.Run(ctx, Script{Text: text, Output: &out})
	return strings.TrimSpace(out.String()), err
}

// Dial connects to an address as the host sees it. The connection is the two ends of a socket, one of which is ssh's standard input and output: it knows deadlines.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to %s by way of %s: %w", address, h.Name, err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "tunnel"), os.NewFile(uintptr(ends[1]), "tunnel")
	defer ours.Close()
	defer theirs.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("connect to %s by way of %s: %w", address, h.Name, err)
	}
	t := &tunnel{Conn: c, host: h.Name, address: address, done: make(chan struct{})}
	cmd := exec.Command("ssh", h.ssh("-o", "ControlMaster=no", "-W", address, h.Name)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, &t.said
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s by way of %s: %w", address, h.Name, err)
	}
	t.end = func() { cmd.Process.Kill() }
	go func() {
		cmd.Wait()
		close(t.done)
	}()
	if ctx.Err() != nil {
		t.Close()
		return nil, ctx.Err()
	}
	return t, nil
}

// tunnel is a connection through ssh.
type tunnel struct {
	net.Conn
	host, address string
	said          tail
	end           func()
	done          chan struct{}
	once          sync.Once
}

// Read says what ssh said when there is nothing to read: "connection refused" is of more use than an end.
func (t *tunnel) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if err == io.EOF { //nolint:errorlint // net.Conn returns it as it is
		select { // ssh has ended, or waits for our end
		case <-t.done:
		case <-time.After(2 * time.Second):
		}
		if said := t.said.String(); said != "" {
			return n, fmt.Errorf("connect to %s by way of %s: %s", t.address, t.host, said)
		}
	}
	return n, err
}

func (t *tunnel) Close() error {
	t.once.Do(t.end)
	err := t.Conn.Close()
	<-t.done
	return err
}

// CloseWrite lets the other side know that no more comes.
func (t *tunnel) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// quote makes one word of sh out of a text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func lastLine(text string) string {
	return text[strings.LastIndex(text, "\n")+1:]
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if cut := len(t.text) - 4096; cut > 0 {
		t.text = t.text[cut:]
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}

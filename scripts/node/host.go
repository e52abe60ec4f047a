package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/leftovers"
	"flowplatform/scripts/internal/spec"
)

// host is the machine that flownode works on. Tests give it a root directory and a runner of their own.
type host struct {
	root string // before every path; "" on a real host
	run  func(ctx context.Context, name string, args ...string) (string, error)
	left func() []leftovers.Process                         // what Nomad's client has left in its control group
	wait func(ctx context.Context, d desired, u unit) error // until a unit answers
	out  *console.Console
}

func thisHost(out *os.File) host {
	h := host{run: command, out: console.New(out)}
	h.wait = h.answers
	h.left = func() []leftovers.Process { return leftovers.InUnit(unitNomadClient + ".service") }
	return h
}

// path is where a path of a host really is.
func (h host) path(p string) string { return filepath.Join(h.root, p) }

// command runs a program of the system and returns what it printed.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ready says whether flownode can work here at all.
func (h host) ready() error {
	if os.Geteuid() != 0 {
		return errors.New("run it as root: it writes units, users and the firewall")
	}
	if _, err := os.Stat(h.path("/run/systemd/system")); err != nil {
		return errors.New("this host isn't run by systemd, which starts the agents; on a machine without it: make up")
	}
	if _, err := os.Stat(h.path(spec.DataDir + "/.flowplatform")); err == nil {
		return fmt.Errorf("%s is make up's: its platform on this one machine and a cluster's host exclude each other. Take it away first: make clean", spec.DataDir)
	}
	return nil
}

// lock makes sure that one flownode at a time works here. A second one waits and says so.
func (h host) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(h.path(spec.NodeState), 0o700); err != nil {
		return nil, fmt.Errorf("lock this host: %w", err)
	}
	f, err := os.OpenFile(h.path(spec.NodeState+"/lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock this host: %w", err)
	}
	for said := false; ; said = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && h.replaced(f) { // a remove that we waited for has taken the file away
			f.Close()
			return h.lock(ctx)
		}
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock this host: %w", err)
		}
		if !said {
			h.out.Line("Another flownode is at work on this host: waiting for it")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// replaced says whether the lock's file is another one by now.
func (h host) replaced(f *os.File) bool {
	mine, err1 := f.Stat()
	there, err2 := os.Stat(f.Name())
	return err1 != nil || err2 != nil || !os.SameFile(mine, there)
}

// learn finds out what only the host knows.
func (h host) learn(ctx context.Context, n spec.Node) (facts, error) {
	name, err := interfaceOf(n.Host.PrivateAddress)
	if err != nil {
		return facts{}, err
	}
	return facts{Interface: name, SSHPorts: h.sshPorts(ctx, n.Host, sessionOf(os.Getpid()))}, nil
}

// interfaceOf finds the interface that bears an address.
func interfaceOf(address string) (string, error) {
	wanted := netip.MustParseAddr(address)
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("list this host's interfaces: %w", err)
	}
	var seen []string
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			if prefix.Addr().Unmap() == wanted {
				return i.Name, nil
			}
			seen = append(seen, prefix.Addr().String())
		}
	}
	return "", fmt.Errorf("private_address %s is on no interface of this host, which has %s; behind address translation private_address is the inner one", address, strings.Join(seen, ", "))
}

// session is an SSH session: where its client is, and the port of the daemon that it came to.
type session struct {
	From netip.Addr
	Port int
}

// sessionOf finds the SSH session that a process runs in. sudo drops SSH_CONNECTION, so its parents are asked too.
func sessionOf(pid int) session {
	for range 64 {
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil {
			if s, found := parseSession(string(environment)); found {
				return s
			}
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			break
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 {
			break
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil || pid <= 1 {
			break
		}
	}
	return session{}
}

// parseSession reads SSH_CONNECTION, "client port server port", from an environment.
func parseSession(environment string) (session, bool) {
	for _, variable := range strings.Split(environment, "\x00") {
		value, found := strings.CutPrefix(variable, "SSH_CONNECTION=")
		fields := strings.Fields(value)
		if !found || len(fields) != 4 {
			continue
		}
		from, err1 := netip.ParseAddr(fields[0])
		port, err2 := strconv.Atoi(fields[3])
		if err := errors.Join(err1, err2); err != nil {
			continue
		}
		return session{From: from.Unmap().WithZone(""), Port: port}, true
	}
	return session{}, false
}

// sshPorts are the ports that the SSH daemon listens on. Behind a translation they aren't the one that the operator knows.
func (h host) sshPorts(ctx context.Context, me spec.Host, s session) []int {
	var ports []int
	if said, err := h.run(ctx, "sshd", "-T"); err == nil {
		for line := range strings.Lines(said) {
			if value, found := strings.CutPrefix(strings.TrimSpace(line), "port "); found {
				if port, err := strconv.Atoi(value); err == nil {
					ports = append(ports, port)
				}
			}
		}
	}
	if s.Port > 0 {
		ports = append(ports, s.Port)
	}
	if len(ports) == 0 {
		ports = append(ports, cmp.Or(me.Port, 22))
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// lockedOut is the error that keeps an operator from closing the door behind him.
func lockedOut(n spec.Node, s session) error {
	if !s.From.IsValid() || s.From.IsLoopback() || s.From.IsLinkLocalUnicast() || slices.Contains(n.Peers, s.From.String()) {
		return nil
	}
	for _, network := range n.AllowedNetworks {
		if netip.MustParsePrefix(network).Contains(s.From) {
			return nil
		}
	}
	return fmt.Errorf("you come from %s, which is neither in allowed_networks (%s) nor a host of the cluster: the firewall would lock you out. Add it, for example %s/%d; nothing was changed",
		s.From, strings.Join(n.AllowedNetworks, ", "), s.From, s.From.BitLen())
}

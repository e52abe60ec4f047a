package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// network makes the bridge and the namespace of the one outside; what is there stays.
func (l *Lab) network(ctx context.Context) error {
	bridge, outside := l.Bridge(), l.namespace()
	if !isInterface(bridge) {
		if err := run(ctx, "ip", "link", "add", bridge, "type", "bridge"); err != nil {
			return err
		}
	}
	steps := [][]string{
		{"link", "set", bridge, "up"},
		{"address", "replace", l.Machine() + "/24", "dev", bridge},
	}
	if _, err := os.Stat(filepath.Join("/run/netns", outside)); err != nil {
		steps = append(steps,
			[]string{"netns", "add", outside},
			[]string{"link", "add", bridge + "o", "master", bridge, "type", "veth", "peer", "name", "eth0", "netns", outside},
			[]string{"link", "set", bridge + "o", "up"},
			[]string{"-n", outside, "address", "add", l.Outside() + "/24", "dev", "eth0"},
			[]string{"-n", outside, "link", "set", "eth0", "up"},
			[]string{"-n", outside, "link", "set", "lo", "up"},
		)
	}
	for _, args := range steps {
		if err := run(ctx, "ip", args...); err != nil {
			return err
		}
	}
	return l.passBridge(ctx, "-C", "-I")
}

// passBridge lets hosts talk to each other where the machine's own firewall (Docker's) drops what crosses a bridge.
func (l *Lab) passBridge(ctx context.Context, unless, then string) error {
	iptables, err := exec.LookPath("iptables")
	if err != nil {
		return nil
	}
	rule := []string{"FORWARD", "-i", l.Bridge(), "-o", l.Bridge(), "-j", "ACCEPT"}
	if there := exec.CommandContext(ctx, iptables, append([]string{unless}, rule...)...).Run() == nil; there == (then == "-I") {
		return nil
	}
	return run(ctx, iptables, append([]string{then}, rule...)...)
}

func (l *Lab) removeNetwork(ctx context.Context) error {
	if err := l.passBridge(ctx, "-C", "-D"); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join("/run/netns", l.namespace())); err == nil {
		if err := run(ctx, "ip", "netns", "delete", l.namespace()); err != nil {
			return err
		}
	}
	for _, name := range []string{l.Bridge() + "o", l.Bridge()} {
		if !isInterface(name) {
			continue
		}
		// The kernel takes the pair away by itself once its namespace has ended, maybe at this moment.
		if err := run(ctx, "ip", "link", "delete", name); err != nil && isInterface(name) {
			return err
		}
	}
	return nil
}

func (l *Lab) namespace() string { return l.Bridge() + "-out" }

// Command is a program that runs in the namespace of the one outside: it reaches the hosts as a stranger on their network does.
func (l *Lab) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.namespace(), name}, args...)...)
}

func isInterface(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", name))
	return err == nil
}

// networkUnit gives a host its address, and no way further.
func networkUnit(h Host) string {
	return fmt.Sprintf("[Match]\nName=host0\n\n[Network]\nAddress=%s/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n", h.Address)
}

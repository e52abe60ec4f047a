package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network of its own: its ports are all free, its firewall is nobody else's.
type namespace string

func newNamespace(t *testing.T, name string) namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root")
	}
	ns := namespace(fmt.Sprintf("flownode-%d-%s", os.Getpid(), name))
	system(t, "ip", "netns", "add", string(ns))
	t.Cleanup(func() { system(t, "ip", "netns", "delete", string(ns)) })
	ns.ip(t, "link set lo up")
	return ns
}

// system runs a program of the system, which must succeed.
func system(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

func (ns namespace) ip(t *testing.T, command string) {
	t.Helper()
	system(t, "ip", append([]string{"-n", string(ns)}, strings.Fields(command)...)...)
}

// inside runs a function in the namespace: a socket belongs to the namespace of the thread that makes it, for ever.
func (ns namespace) inside(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		f, err := os.Open("/run/netns/" + string(ns))
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// listen listens in the namespace and closes what comes.
func (ns namespace) listen(t *testing.T, network, address string) {
	t.Helper()
	err := ns.inside(func() error {
		l, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// dial connects from the namespace; address must be one of IP, for which Go makes the socket on this thread.
func (ns namespace) dial(ctx context.Context, d net.Dialer, address string) (c net.Conn, err error) {
	err = ns.inside(func() error {
		c, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}

// command is a program that runs in the namespace and dies with this test.
func (ns namespace) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + string(ns), name}, args...)...)
}

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The programs that a lab is made with, and the Debian packages that they are in.
var needed = map[string]string{
	"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "ssh-keygen": "openssh-client", "ip": "iproute2", "chroot": "coreutils",
}

// able says why this machine can't have a lab.
func able() error {
	if os.Geteuid() != 0 {
		return errors.New("lab: hosts on this machine take root: they are namespaces with an init of their own")
	}
	var missing []string
	for program, pkg := range needed {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("lab: these Debian packages are missing: %s. Install them: scripts/install --role dev", strings.Join(missing, " "))
	}
	return nil
}

// run runs a program of the machine and says in its error what that said.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab: %s %s: %w: %s", name, strings.Join(args, " "), err, tail(output))
	}
	return nil
}

// tail is the end of what a program said.
func tail(output []byte) string {
	output = bytes.TrimSpace(output)
	if len(output) > 2000 {
		output = output[len(output)-2000:]
	}
	return string(output)
}

// born says when a process began, in the kernel's own words; "" when there is none.
func born(pid int) string {
	if pid == 0 {
		return ""
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// Fields are counted from behind the name, which may hold anything.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// supervisors finds the systemd-nspawn processes whose root is below a directory: their own arguments say it, so that no file with a process id
// has to be believed.
func supervisors(root string) []int {
	entries, _ := os.ReadDir("/proc")
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(string(cmdline), "\x00")
		if filepath.Base(args[0]) != "systemd-nspawn" {
			continue
		}
		for _, a := range args {
			if a == "--directory="+root {
				found = append(found, pid)
			}
		}
	}
	return found
}

// children are the processes that one has started.
func children(pid int) []int {
	var found []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		content, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(content)) {
			if child, err := strconv.Atoi(f); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}

// until asks again and again, for what tells nobody when it becomes true.
func until(ctx context.Context, bound time.Duration, ask func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

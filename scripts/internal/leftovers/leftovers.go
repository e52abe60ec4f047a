// Package leftovers finds and ends what Nomad's client may leave on a machine when it isn't there any more: processes of tasks, and what
// was mounted for them.
package leftovers

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Process is one that was left.
type Process struct {
	PID  int
	Name string
}

func (p Process) String() string { return fmt.Sprintf("%s (process %d)", p.Name, p.PID) }

// Signal sends it a signal. That it has ended in the meantime is no error.
func (p Process) Signal(s syscall.Signal) error {
	if err := syscall.Kill(p.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end %s: %w", p, err)
	}
	return nil
}

// Tasks are the processes in control groups of allocations, whose directories are in allocDir. The agent must not be running.
func Tasks(allocDir string) []Process {
	entries, err := os.ReadDir(allocDir)
	if err != nil {
		return nil
	}
	ours := map[string]bool{}
	for _, e := range entries {
		ours[e.Name()] = true
	}
	return inGroups(func(cgroup string) bool { return InGroupOf(cgroup, ours) })
}

// InUnit are the processes in the control group of a unit of systemd, for example what a service with KillMode=process has left. A
// container on this machine may have a unit of the same name: its processes, in a process namespace of their own, aren't meant.
func InUnit(service string) []Process {
	mine, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(inGroups(func(cgroup string) bool {
		for line := range strings.Lines(cgroup) {
			if strings.HasSuffix(strings.TrimSpace(line), "/"+service) {
				return true
			}
		}
		return false
	}), func(p Process) bool {
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.PID))
		return err != nil || its != mine
	})
}

func inGroups(match func(cgroup string) bool) []Process {
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	var found []Process
	for _, file := range groups {
		b, err := os.ReadFile(file)
		if err != nil || !match(string(b)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && alive(pid) {
			found = append(found, Process{PID: pid, Name: name(pid)})
		}
	}
	return found
}

// InGroupOf reads a /proc/<pid>/cgroup: does a path end in <allocation>.<task>, with .scope where there is systemd?
func InGroupOf(cgroup string, allocations map[string]bool) bool {
	for line := range strings.Lines(cgroup) {
		last := strings.TrimSpace(line[strings.LastIndex(line, "/")+1:])
		if id, _, found := strings.Cut(last, "."); found && allocations[id] {
			return true
		}
	}
	return false
}

// alive says whether a process is more than an entry that waits for its parent.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The name is in parentheses and may hold anything; the fields after it are plain.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	return len(fields) > 0 && !bytes.Equal(fields[0], []byte("Z")) && !bytes.Equal(fields[0], []byte("X"))
}

func name(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "an unknown program"
	}
	return strings.TrimSpace(string(b))
}

// Unmount unmounts what Nomad has left mounted for tasks below a directory: their secrets, and directories of the machine itself, which
// must not be removed with the rest.
func Unmount(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for _, point := range MountsBelow(string(b), dir) {
		if err := syscall.Unmount(point, 0); err != nil {
			return fmt.Errorf("unmount %s: %w; nothing was removed", point, err)
		}
	}
	return nil
}

// MountsBelow returns the mount points in a directory, itself included, the innermost first.
func MountsBelow(mountinfo, dir string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if point := unescape.Replace(fields[4]); point == dir || strings.HasPrefix(point, strings.TrimRight(dir, "/")+"/") {
			points = append(points, point)
		}
	}
	slices.Reverse(points) // the kernel lists them in the order in which they were made
	return points
}

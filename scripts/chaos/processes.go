package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// processesOf lists the processes of an allocation's tasks: those in its control group.
func (p *platform) processesOf(a allocation) ([]int, error) {
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range groups {
		b, err := os.ReadFile(file)
		if err != nil || !inGroupOf(string(b), a.ID) {
			continue // it ended meanwhile, or is not ours
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("%s (allocation %s) has no process on this machine", a.Name, a.ID)
	}
	return pids, nil
}

// inGroupOf reads a /proc/<pid>/cgroup: does a path end in <allocation>.<task>, with .scope where there is systemd?
func inGroupOf(cgroup, allocation string) bool {
	for line := range strings.Lines(cgroup) {
		last := strings.TrimSpace(line[strings.LastIndex(line, "/")+1:])
		if id, _, found := strings.Cut(last, "."); found && id == allocation {
			return true
		}
	}
	return false
}

// agentPID is the process of an agent that make up started, as it wrote it down. The start time tells it from a later process with the same id.
func (p *platform) agentPID(name string) (int, error) {
	var r struct {
		PID        int    `json:"pid"`
		StartTicks string `json:"startTicks"`
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "run", name+".json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	if ticks, alive := startTicks(r.PID); !alive || ticks != r.StartTicks {
		return 0, fmt.Errorf("%s is not running: process %d is gone", name, r.PID)
	}
	return r.PID, nil
}

// stat gives the fields of /proc/<pid>/stat after the name, which is in parentheses and may hold anything: the state first.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// startTicks is the time at which a process began, in clock ticks since boot; false when it is gone or a zombie.
func startTicks(pid int) (string, bool) {
	f := stat(pid)
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return "", false
	}
	return f[19], true
}

// signalAll sends a signal to each; those that are gone meanwhile don't matter.
func signalAll(pids []int, s syscall.Signal) error {
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("%s to process %d: %w", s, pid, err))
		}
	}
	return errors.Join(errs...)
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// agentPID is the process of an agent that make up started, as it wrote it down. The start time tells it from a later process with the same id.
func (p *platform) agentPID(name string) (int, error) {
	var r struct {
		PID        int    `json:"pid"`
		StartTicks string `json:"startTicks"`
	}
	b, err := os.ReadFile(filepath.Join(p.Dir, "run", name+".json"))
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

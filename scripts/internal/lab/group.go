package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const groups = "/sys/fs/cgroup"

// hierarchies are the trees of control groups of this machine: one with version 2, one a controller with version 1.
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(groups, "cgroup.controllers")); err == nil {
		return []string{groups}
	}
	found, _ := filepath.Glob(filepath.Join(groups, "*", "cgroup.procs"))
	for i, f := range found {
		found[i] = filepath.Dir(f)
	}
	return found
}

// group makes a host's control groups, with its limit, and returns their directories. Its init begins in them and, in a namespace, sees them as
// the roots: hosts can't see each other's, and what Nomad makes on one is below the host's own.
func (l *Lab) group(h Host) ([]string, error) {
	var dirs []string
	for _, tree := range hierarchies() {
		dir := filepath.Join(tree, l.Bridge(), h.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		switch filepath.Base(tree) {
		case "cpuset": // a new group has none of either, and takes no process
			for _, d := range []string{filepath.Dir(dir), dir} {
				for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
					if err := inherit(d, file); err != nil {
						return nil, err
					}
				}
				_ = os.WriteFile(filepath.Join(d, "cgroup.clone_children"), []byte("1"), 0o644) // so that the ones below have them at once
			}
		case "memory":
			if h.MemoryMB > 0 {
				if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.Itoa(h.MemoryMB<<20)), 0o644); err != nil {
					return nil, fmt.Errorf("lab: limit the memory of %s: %w", h.Name, err)
				}
			}
		case filepath.Base(groups):
			// Version 2 hands controllers down one by one, and not every machine hands all of them to us: a limit that can't be had is no reason
			// not to have a lab.
			for _, d := range []string{tree, filepath.Dir(dir)} {
				for _, controller := range []string{"+cpu", "+memory", "+pids", "+cpuset", "+io"} {
					_ = os.WriteFile(filepath.Join(d, "cgroup.subtree_control"), []byte(controller), 0o644)
				}
			}
			if h.MemoryMB > 0 {
				_ = os.WriteFile(filepath.Join(dir, "memory.max"), []byte(strconv.Itoa(h.MemoryMB<<20)), 0o644)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// inherit gives a group what the one above it has.
func inherit(dir, file string) error {
	above, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strings.TrimSpace(string(above))), 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// removeGroups removes the control groups of a host, or ("") of all of the lab, the lowest first. The processes in them have ended, but the kernel may take a moment to know.
func (l *Lab) removeGroups(host string) error {
	for _, tree := range hierarchies() {
		root := filepath.Join(tree, l.Bridge(), host)
		var dirs []string
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			var err error
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if err = os.Remove(dirs[i]); err == nil || errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
					break
				}
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("lab: %w", err)
			}
		}
	}
	return nil
}

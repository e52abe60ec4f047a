package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"flowplatform/scripts/internal/running"
	"flowplatform/services/e2e/chaos"
)

// world is the server that every execution calls once. It counts, and finds out which worker calls.
type world struct {
	target *chaos.Target
	owner  func(pid int) string // allocation of a process; "": it is no worker

	mu       sync.Mutex
	keys     map[string]int // calls, by idempotency key
	calls    int
	answered int
	callers  map[string]*caller // by address
	unknown  chan struct{}      // an address came whose worker isn't known yet
	over     chan struct{}
	done     sync.WaitGroup
}

// caller is one connection of a worker.
type caller struct {
	allocation  string
	tried       int // times that its process was looked for
	first, last time.Time
}

// newWorld starts it. owner names the allocation of a process.
func newWorld(owner func(pid int) string) (*world, error) {
	w := &world{owner: owner, keys: map[string]int{}, callers: map[string]*caller{}, unknown: make(chan struct{}, 1), over: make(chan struct{})}
	var err error
	if w.target, err = chaos.NewTarget(w.hold); err != nil {
		return nil, err
	}
	w.done.Go(w.name)
	return w, nil
}

func (w *world) close() {
	w.target.Close()
	close(w.over)
	w.done.Wait()
}

// hold is a call: it takes its time.
func (w *world) hold(r *http.Request) {
	now := time.Now()
	w.mu.Lock()
	w.calls++
	w.keys[r.Header.Get("Idempotency-Key")]++
	c := w.callers[r.RemoteAddr]
	if c == nil {
		c = &caller{first: now}
		w.callers[r.RemoteAddr] = c
		select {
		case w.unknown <- struct{}{}:
		default:
		}
	}
	c.last = now
	w.mu.Unlock()
	t := time.NewTimer(takes)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
	w.mu.Lock()
	w.answered++
	w.mu.Unlock()
}

// name finds the workers of connections, all that are unknown with one look.
func (w *world) name() {
	for {
		select {
		case <-w.over:
			return
		case <-w.unknown:
		}
		w.mu.Lock()
		var addresses []string
		for address, c := range w.callers {
			if c.allocation == "" && c.tried < 3 {
				c.tried++
				addresses = append(addresses, address)
			}
		}
		w.mu.Unlock()
		found := owners(addresses, w.owner)
		w.mu.Lock()
		for address, allocation := range found {
			w.callers[address].allocation = allocation
		}
		w.mu.Unlock()
	}
}

// firstBut is the first call of a worker that isn't among the old ones.
func (w *world) firstBut(old []running.Allocation) (at time.Time, allocation string) {
	known := map[string]bool{"": true}
	for _, a := range old {
		known[a.ID] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.callers {
		if !known[c.allocation] && (at.IsZero() || c.first.Before(at)) {
			at, allocation = c.first, c.allocation
		}
	}
	return at, allocation
}

// now is how many calls have come and were answered, and how many workers have called within the last second.
func (w *world) now() (calls, answered, busy int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lately := map[string]bool{}
	for _, c := range w.callers {
		if c.allocation != "" && time.Since(c.last) < time.Second {
			lately[c.allocation] = true
		}
	}
	return w.calls, w.answered, len(lately)
}

// counts is how many calls there were, and how many of them repeated one.
func (w *world) counts() (calls, repeated int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls, w.calls - len(w.keys)
}

// owners finds the allocations whose processes have these sockets, by their local addresses (IPv4).
func owners(addresses []string, owner func(pid int) string) map[string]string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil
	}
	local := map[string]string{} // address as the kernel writes it: as we do
	for _, a := range addresses {
		if hex, ok := kernelAddress(a); ok {
			local[hex] = a
		}
	}
	sockets := map[string]string{} // the link of a descriptor: address
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 9 && f[9] != "0" {
			if a, ok := local[f[1]]; ok {
				sockets["socket:["+f[9]+"]"] = a
			}
		}
	}
	out := map[string]string{}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		allocation := owner(pid)
		if allocation == "" {
			continue
		}
		descriptors, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue // it is gone
		}
		for _, d := range descriptors {
			if link, err := os.Readlink(dir + "/fd/" + d.Name()); err == nil {
				if a, ok := sockets[link]; ok {
					out[a] = allocation
				}
			}
		}
	}
	return out
}

// kernelAddress is 127.0.0.1:8080 as /proc/net/tcp has it: 0100007F:1F90.
func kernelAddress(address string) (string, bool) {
	host, port, ok := strings.Cut(address, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if !ok || host != "127.0.0.1" || err != nil {
		return "", false
	}
	hex := strings.ToUpper(strconv.FormatUint(n, 16))
	return "0100007F:" + strings.Repeat("0", 4-len(hex)) + hex, true
}

// workerOf reads a process's control group, which ends in <allocation>.worker.
func workerOf(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		last := strings.TrimSuffix(strings.TrimSpace(line[strings.LastIndex(line, "/")+1:]), ".scope")
		if allocation, task, ok := strings.Cut(last, "."); ok && task == "worker" {
			return allocation
		}
	}
	return ""
}

package script

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	idleFor     = time.Minute
	maxScripts  = 2000     // that one child runs before another takes its place
	maxResident = 96 << 20 // bytes; a child that kept more than this goes
)

// ErrDied says that a child ended while it ran a script.
var ErrDied = errors.New("the script's process ended")

// Host runs scripts in its children. The zero value has none and must not be used: NewHost.
type Host struct {
	path  string
	slots chan struct{}

	mu   sync.Mutex
	idle []*child
}

// NewHost makes a host with at most max children at once; 0: one for each processor, two at least. path is the program to start; "": this one.
func NewHost(path string, max int) *Host {
	if max <= 0 {
		max = runtime.GOMAXPROCS(0)
		if max < 2 {
			max = 2
		}
	}
	if path == "" {
		path = "/proc/self/exe"
	}
	return &Host{path: path, slots: make(chan struct{}, max)}
}

// child is one process.
type child struct {
	cmd     *exec.Cmd
	in      *bufio.Writer
	close   io.Closer
	out     *bufio.Reader
	scripts int
	since   time.Time
}

// Run runs a script. An error is ctx's, ErrDied, or one of the machine; what the script did wrong is in the response.
func (h *Host) Run(ctx context.Context, q Request) (Response, error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return Response{}, ctx.Err()
	}
	c, err := h.take()
	if err != nil {
		return Response{}, fmt.Errorf("script: start a process: %w", err)
	}
	var a Response
	stop := context.AfterFunc(ctx, c.kill)
	err = writeFrame(c.in, q)
	if err == nil {
		err = readFrame(c.out, &a)
	}
	if !stop() || err != nil {
		c.kill()
		go c.wait()
		if ctx.Err() != nil {
			return Response{}, ctx.Err()
		}
		return Response{}, fmt.Errorf("%w: %w", ErrDied, err)
	}
	c.scripts++
	if c.scripts >= maxScripts || a.Resident*os.Getpagesize() > maxResident {
		c.end()
		return a, nil
	}
	h.give(c)
	return a, nil
}

func (h *Host) take() (*child, error) {
	h.mu.Lock()
	if n := len(h.idle); n > 0 {
		c := h.idle[n-1]
		h.idle = h.idle[:n-1]
		h.mu.Unlock()
		return c, nil
	}
	h.mu.Unlock()
	return h.start()
}

func (h *Host) give(c *child) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.since = time.Now()
	h.idle = append(h.idle, c)
	if len(h.idle) == 1 {
		time.AfterFunc(idleFor, h.sweep)
	}
}

// sweep ends the children that had nothing to do for a while.
func (h *Host) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := h.idle[:0]
	for _, c := range h.idle {
		if time.Since(c.since) >= idleFor {
			c.end()
			continue
		}
		kept = append(kept, c)
	}
	clear(h.idle[len(kept):])
	h.idle = kept
	if len(kept) > 0 {
		time.AfterFunc(idleFor, h.sweep)
	}
}

// Close ends the children that have nothing to do; the others end with this process.
func (h *Host) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.idle {
		c.end()
	}
	h.idle = nil
}

func (h *Host) start() (*child, error) {
	cmd := &exec.Cmd{Path: h.path, Args: []string{childName}, Env: []string{"TZ=UTC", "GOMAXPROCS=2", "GOTRACEBACK=none"}, Dir: "/", SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd, in: bufio.NewWriter(in), close: in, out: bufio.NewReader(out)}, nil
}

func (c *child) kill() { _ = c.cmd.Process.Kill() } // it may have ended

func (c *child) wait() { _ = c.cmd.Wait() } // killed: its status says nothing

// end lets a child go that has nothing to do: its input ends.
func (c *child) end() {
	_ = c.close.Close()
	go c.wait()
}

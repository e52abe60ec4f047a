package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"flowplatform/services/e2e/chaos"
)

// guard is a small process that lets stopped processes go on when it is told to, and also when nobody is left to tell it: it reads from a pipe whose other
// end dies with the drill, even if that is killed with SIGKILL. It has a session of its own, so that a Ctrl-C doesn't reach it.
type guard struct {
	cmd *exec.Cmd
	tie io.Closer
}

func newGuard(pids []int) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r _; kill -CONT "$@" 2>/dev/null; true`, "chaos-guard")
	for _, pid := range pids {
		cmd.Args = append(cmd.Args, fmt.Sprint(pid))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	tie, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start what lets it go on should the drill die: %w", err)
	}
	return &guard{cmd, tie}, nil
}

// release lets them go on, and waits until the guard has done so.
func (g *guard) release(ctx context.Context) error {
	g.tie.Close()
	done := make(chan error, 1)
	go func() { done <- g.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop stops processes until they are mended.
func stop(what string, pids []int) (chaos.Broken, error) {
	g, err := newGuard(pids)
	if err != nil {
		return chaos.Broken{What: what}, err
	}
	b := chaos.Broken{What: what, At: time.Now(), Mend: func(ctx context.Context) error {
		// Both: the guard may have been killed.
		return errors.Join(signalAll(pids, syscall.SIGCONT), g.release(ctx), goesOn(ctx, what, pids))
	}}
	return b, signalAll(pids, syscall.SIGSTOP)
}

// goesOn sees that none of them is stopped any more.
func goesOn(ctx context.Context, what string, pids []int) error {
	for {
		var still []string
		for _, pid := range pids {
			if f := stat(pid); len(f) > 0 && f[0] == "T" {
				still = append(still, fmt.Sprint(pid))
			}
		}
		if len(still) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still stopped: kill -CONT %s", what, strings.Join(still, " "))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

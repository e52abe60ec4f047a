package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"flowplatform/services/flowctl/internal/client"
	"flowplatform/services/flowctl/internal/dev"
)

type devCommand struct {
	Dir     string `help:"Where everything is kept; default: .flow-dev, for root /var/lib/flow-dev, since PostgreSQL doesn't run as root and may not enter root's home." placeholder:"DIR"`
	Port    int    `help:"Of the API, on this machine only; 0: any that is free." default:"8080"`
	Verbose bool   `short:"v" help:"Log more to DIR/dev.log."`
}

// devDir is where a platform keeps its data unless told otherwise.
func devDir(given string) string {
	switch {
	case given != "":
		return given
	case os.Geteuid() == 0:
		return "/var/lib/flow-dev"
	}
	return ".flow-dev"
}

func (d *devCommand) Run(a *app) error {
	if d.Port < 0 || d.Port > 65535 {
		return fmt.Errorf("--port is %d: it must be from 0 to 65535", d.Port)
	}
	begun := time.Now()
	o := dev.Options{Dir: devDir(d.Dir), Port: d.Port}
	if d.Verbose {
		o.LogLevel = "debug"
	}
	p, err := dev.Start(a.ctx, o)
	if a.ctx.Err() != nil && err != nil {
		return errors.New("stopped before it was ready")
	}
	if err != nil {
		return err
	}
	d.tell(a, p, o.Dir, time.Since(begun))
	failed := error(nil)
	select {
	case <-a.ctx.Done():
	case <-p.Failed():
		failed = fmt.Errorf("PostgreSQL ended by itself: see %s", filepath.Join(o.Dir, "postgres.log"))
	}
	fmt.Fprintln(a.errs, "Stopping: what runs is handed back and goes on at the next start. Ctrl-C again doesn't wait for steps in flight.")
	again := make(chan os.Signal, 1) // only now: it would hear the first signal too
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		select {
		case <-again:
			p.Hurry()
		case <-stopped:
		}
	}()
	return errors.Join(failed, p.Stop(context.WithoutCancel(a.ctx)))
}

// tell says where it is, how to get in, and what it is not.
func (d *devCommand) tell(a *app, p *dev.Platform, dir string, took time.Duration) {
	server := strings.Replace(p.Server(), "127.0.0.1", "localhost", 1)
	login := filepath.Join(dir, "login.json")
	user := fmt.Sprintf("%s, password in %s", p.Login.Email, login)
	if p.First {
		user = fmt.Sprintf("%s, password %s (kept in %s)", p.Login.Email, p.Login.Password, login)
	}
	access := "logged in on this machine"
	if kept, err := client.Saved(); err == nil && kept.Server != "" && kept.Server != server {
		access = fmt.Sprintf("logged in to %s; for this one: export FLOW_SERVER=%s FLOW_TOKEN=$(sed -n 's/.*\"token\": \"\\(.*\\)\".*/\\1/p' %s)", kept.Server, server, login)
	} else if err = client.Save(client.Login{Server: server, Token: p.Login.Token}); err != nil {
		access = "not logged in: " + err.Error()
	}
	fmt.Fprintf(a.out, `API      %s (documentation at /api/docs)
login    %s
flowctl  %s
Ready after %.1f s. For trying flows out, no more: nothing is highly available, there is one worker, its queue is in memory (after a kill what waits is handed out again).
`, server, user, access, took.Seconds())
}

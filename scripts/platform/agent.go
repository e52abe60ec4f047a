package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/layers"
)

// agent is a daemon of the ground.
type agent struct {
	Name    string
	Program string   // in bin/; its configuration is in configs/<program>
	Layers  []string // in the order in which the daemon merges them; *.tmpl are filled in
	Ports   []string // variables of the ports that it listens on
}

// agents are started in this order. Nomad's server and client are two processes, as on machines of their own: a client that
// shares a process with the server asks it before it is ready, and then not again for 15 s.
func agents() []agent {
	return []agent{
		{
			Name: "consul", Program: "consul",
			Layers: []string{"base.hcl", "server.hcl", "machine.hcl.tmpl"},
			Ports:  []string{"CONSUL_PORT", "CONSUL_RPC_PORT", "CONSUL_SERF_PORT"},
		},
		{
			Name: "nomad-server", Program: "nomad",
			Layers: []string{"base.hcl", "server.hcl", "machine-server.hcl.tmpl"},
			Ports:  []string{"NOMAD_PORT", "NOMAD_RPC_PORT", "NOMAD_SERF_PORT"},
		},
		{
			Name: "nomad-client", Program: "nomad",
			Layers: []string{"base.hcl", "client.hcl", "templates.hcl", "system.hcl", "all-roles.hcl", "artifacts.hcl.tmpl", "volumes.hcl.tmpl", "machine-client.hcl.tmpl"},
			Ports:  []string{"NOMAD_CLIENT_PORT"},
		},
	}
}

// record is what is written down about a started agent. The start time tells it from a later process with the same id.
type record struct {
	PID         int    `json:"pid"`
	StartTicks  string `json:"startTicks"`
	Fingerprint string `json:"fingerprint"` // of the binary and the configuration
}

func (s settings) binary(name string) string { return s.path("bin", name) }

func (s settings) logFile(name string) string { return s.path("log", name+".log") }

func (s settings) recordFile(name string) string { return s.path("run", name+".json") }

// running returns the record of an agent if its process lives.
func (s settings) running(name string) (record, bool) {
	var r record
	b, err := os.ReadFile(s.recordFile(name))
	if err != nil || json.Unmarshal(b, &r) != nil {
		return record{}, false
	}
	ticks, alive := startTicks(r.PID)
	return r, alive && ticks == r.StartTicks
}

// startTicks is the time at which a process began, in clock ticks since boot; false when it is gone or a zombie.
func startTicks(pid int) (string, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// The name is in parentheses and may hold anything; the fields after it are plain.
	_, rest, found := bytes.Cut(b[bytes.LastIndexByte(b, '('):], []byte(") "))
	fields := strings.Fields(string(rest))
	if !found || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", false
	}
	return fields[19], true
}

// configure renders an agent's layers into the data directory and returns their directory and the fingerprint of all that
// the agent is made from.
func (s settings) configure(a agent) (dir, fingerprint string, err error) {
	dir = s.path("config", a.Name)
	sum := sha256.New()
	files, err := layers.Render(os.DirFS(filepath.Join(s.Root, "configs", a.Program)), a.Layers, s.placeholders())
	if err != nil {
		return "", "", fmt.Errorf("configure %s: %w", a.Name, err)
	}
	wanted := map[string]bool{}
	for _, f := range files {
		wanted[f.Name] = true
		fmt.Fprintf(sum, "%s\n%s\n", f.Name, f.Content)
		if err := writeFile(filepath.Join(dir, f.Name), f.Content, 0o644); err != nil {
			return "", "", err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", "", fmt.Errorf("configure %s: %w", a.Name, err)
	}
	for _, e := range entries {
		if !wanted[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return "", "", fmt.Errorf("configure %s: remove an old layer: %w", a.Name, err)
			}
		}
	}
	f, err := os.Open(s.binary(a.Program))
	if err != nil {
		return "", "", fmt.Errorf("configure %s: %w", a.Name, err)
	}
	defer f.Close()
	if _, err := io.Copy(sum, f); err != nil {
		return "", "", fmt.Errorf("configure %s: read its binary: %w", a.Name, err)
	}
	return dir, hex.EncodeToString(sum.Sum(nil)), nil
}

// placeholders are the values that templates of configs/ may name.
func (s settings) placeholders() map[string]string {
	values := map[string]string{
		"DATA_DIR":          s.DataDir,
		"NODE_NAME":         s.NodeName,
		"BIND_ADDRESS":      loopback,
		"NETWORK_INTERFACE": loopbackDevice,
		"SERVER_COUNT":      "1",
	}
	for variable, number := range s.Ports {
		values[variable] = strconv.Itoa(number)
	}
	return values
}

// ensure starts an agent, or restarts it when its binary or configuration has changed. It returns what it did.
func (s settings) ensure(ctx context.Context, p *console.Part, a agent, ready func(context.Context) (bool, string, error)) (string, error) {
	dir, fingerprint, err := s.configure(a)
	if err != nil {
		return "", err
	}
	did := "started"
	current, alive := s.running(a.Name)
	switch {
	case alive && current.Fingerprint == fingerprint:
		did = "unchanged"
	case alive:
		did = "restarted: its configuration or binary has changed"
		if err := s.stop(ctx, p, a.Name); err != nil {
			return "", err
		}
	}
	if did != "unchanged" {
		for _, variable := range a.Ports {
			if err := requireFree(s, variable); err != nil {
				return "", err
			}
		}
		if current, err = s.start(a, dir, fingerprint); err != nil {
			return "", err
		}
	}
	err = console.Until(ctx, p, 90*time.Second, func(ctx context.Context) (bool, string, error) {
		if ticks, alive := startTicks(current.PID); !alive || ticks != current.StartTicks {
			return false, "", fmt.Errorf("%s ended. The end of %s:\n%s", a.Name, s.logFile(a.Name), tail(s.logFile(a.Name), 15))
		}
		return ready(ctx)
	})
	if err != nil {
		return "", fmt.Errorf("%w (log: %s)", err, s.logFile(a.Name))
	}
	return did, nil
}

// start runs an agent in a session of its own, with an environment of its own: Nomad's fingerprinters and Go's TLS read
// variables that this shell may have for quite other reasons.
func (s settings) start(a agent, dir, fingerprint string) (record, error) {
	for _, d := range []string{s.path("log"), s.path("run")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return record{}, fmt.Errorf("start %s: %w", a.Name, err)
		}
	}
	logFile := s.logFile(a.Name)
	if err := os.Rename(logFile, logFile+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return record{}, fmt.Errorf("start %s: keep its old log: %w", a.Name, err)
	}
	output, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return record{}, fmt.Errorf("start %s: %w", a.Name, err)
	}
	defer output.Close()

	if err := raiseOpenFiles(); err != nil {
		return record{}, fmt.Errorf("start %s: %w", a.Name, err)
	}
	cmd := exec.Command(s.binary(a.Program), "agent", dirFlag(a.Program, dir))
	cmd.Dir = s.DataDir
	cmd.Env = s.agentEnvironment()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return record{}, fmt.Errorf("start %s: %w", a.Name, err)
	}
	go cmd.Wait() // reaps it if it dies while this program runs
	ticks, alive := startTicks(cmd.Process.Pid)
	if !alive {
		return record{}, fmt.Errorf("start %s: it ended at once. The end of %s:\n%s", a.Name, logFile, tail(logFile, 15))
	}
	r := record{PID: cmd.Process.Pid, StartTicks: ticks, Fingerprint: fingerprint}
	b, err := json.Marshal(r)
	if err != nil {
		return record{}, fmt.Errorf("start %s: %w", a.Name, err)
	}
	return r, writeFile(s.recordFile(a.Name), append(b, '\n'), 0o644)
}

func dirFlag(program, dir string) string {
	if program == "consul" {
		return "-config-dir=" + dir
	}
	return "-config=" + dir
}

func (s settings) agentEnvironment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + s.DataDir,
		"LANG=C.UTF-8",
	}
	if s.ConsulToken != "" {
		env = append(env, consulTokenName+"="+s.ConsulToken)
	}
	if s.NomadToken != "" {
		env = append(env, nomadTokenName+"="+s.NomadToken)
	}
	return env
}

// raiseOpenFiles gives this process, and so the agents and their tasks, as many open files as the system lets it.
func raiseOpenFiles() error {
	const enough = 1 << 16
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Max < enough {
		more := syscall.Rlimit{Cur: enough, Max: enough}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) == nil {
			return nil
		}
	}
	limit.Cur = limit.Max // a container may not let even root have more than that
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return nil
}

// stop ends an agent: asked first, killed after half a minute.
func (s settings) stop(ctx context.Context, p *console.Part, name string) error {
	r, alive := s.running(name)
	if alive {
		if err := syscall.Kill(r.PID, syscall.SIGTERM); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		gone := func(context.Context) (bool, string, error) {
			ticks, alive := startTicks(r.PID)
			return !alive || ticks != r.StartTicks, "waiting for " + name + " to end", nil
		}
		if err := console.Until(ctx, p, 30*time.Second, gone); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.Say("%s did not end within 30 s of SIGTERM: killed", name)
			if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil {
				return fmt.Errorf("kill %s: %w", name, err)
			}
			if err := console.Until(ctx, p, 10*time.Second, gone); err != nil {
				return fmt.Errorf("stop %s: %w", name, err)
			}
		}
	}
	if err := os.Remove(s.recordFile(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return nil
}

// tail returns the last lines of a file, indented.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "   (" + err.Error() + ")"
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "   | " + strings.Join(all, "\n   | ")
}

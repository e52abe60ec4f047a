package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/lab"
	"flowplatform/scripts/internal/spec"
	"flowplatform/scripts/internal/terraform"
)

// play is one cluster on hosts of this machine, and what happens to it.
type play struct {
	root    string // of the checkout
	dir     string
	bundle  string
	offline bool // hosts have nothing, the bundle has everything
	console *console.Console
	report  report

	lab      *lab.Lab
	hosts    []spec.Host
	tf       *terraform.Run
	log      *log
	operator string // the operator's directory
	watch    *watcher
}

func newPlay(root, dir string, c *console.Console) *play {
	return &play{root: root, dir: dir, console: c, operator: filepath.Join(dir, "operator"), log: &log{file: filepath.Join(dir, "terraform.log")}}
}

// roles of the lab's hosts. Three servers, so that one may die. The data host is one of them: it is the one that isn't killed, since what is on it
// isn't there twice. Two workers, each with a front door, so that one may die with all that it has.
func fiveHosts() map[string][]string {
	return map[string][]string{
		"s1": {spec.Server}, "s2": {spec.Server}, "d1": {spec.Server, spec.Data},
		"w1": {spec.Worker, spec.FrontDoor}, "w2": {spec.Worker, spec.FrontDoor},
	}
}

// phase does a part of the play and writes down what it took.
func (p *play) phase(name string, do func(*console.Part) error) error {
	start := time.Now()
	err := p.console.Part(name, func(part *console.Part) error {
		p.log.tell(func(line string) { part.Doing("%s", line) })
		return do(part)
	})
	p.report.Phases = append(p.report.Phases, phase{name, time.Since(start).Seconds(), err == nil})
	return err
}

// makeBundle makes the bundle of this checkout, unless one was given.
func (p *play) makeBundle(ctx context.Context) error {
	if p.bundle != "" {
		return nil
	}
	return p.phase("Bundle", func(part *console.Part) error {
		cmd := exec.CommandContext(ctx, "go", "run", "./scripts/bundle", "--version", "0.0.1-lab", "--out", filepath.Join(p.dir, "dist"), "--packages", map[bool]string{false: "no", true: "yes"}[p.offline])
		cmd.Dir = p.root
		output, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, bytes.TrimSpace(output))
		}
		files, _ := filepath.Glob(filepath.Join(p.dir, "dist", "*.tar.gz"))
		if len(files) != 1 {
			return fmt.Errorf("make bundle has made %d files", len(files))
		}
		p.bundle = files[0]
		if info, err := os.Stat(p.bundle); err == nil {
			part.Done("%.0f MB", float64(info.Size())/1e6)
		}
		return nil
	})
}

// makeHosts makes the hosts, with these roles.
func (p *play) makeHosts(ctx context.Context, roles map[string][]string, memory int) error {
	return p.phase("Hosts", func(part *console.Part) error {
		l, err := lab.Up(ctx, filepath.Join(p.dir, "lab"), lab.Options{
			Names: sorted(roles), MemoryMB: memory, Bare: p.offline, Owner: os.Getpid(), Install: filepath.Join(p.root, "scripts/install"),
			Say: func(line string) { part.Doing("%s", line) },
		})
		p.lab = l
		if err != nil {
			return err
		}
		for _, h := range l.Hosts {
			p.hosts = append(p.hosts, spec.Host{Name: h.Name, Address: h.Address, PrivateAddress: h.Address, Roles: roles[h.Name]})
		}
		part.Done("%d", len(l.Hosts))
		return nil
	})
}

// configure writes what a user writes: the platform's files with their variables.
func (p *play) configure(ctx context.Context, name string, hosts []spec.Host) error {
	bundle, err := filepath.Abs(p.bundle)
	if err != nil {
		return err
	}
	p.tf, err = terraform.Copy(p.root, "bare-metal", filepath.Join(p.dir, "checkout"))
	if err != nil {
		return err
	}
	p.tf.Output = p.log
	// With Terraform's own log, which is where a secret would come to light first.
	p.tf.Env = []string{"TF_LOG=trace", "TF_LOG_PATH=" + filepath.Join(p.dir, "terraform-trace.log")}
	err = p.tf.Set(map[string]any{
		"name": name, "bundle": bundle, "operator_dir": p.operator, "hosts": hosts, "on_destroy": "erase",
		"ssh":              map[string]any{"user": "debian", "private_key_file": p.lab.Key()},
		"allowed_networks": []string{p.lab.Machine() + "/32"},
		"front_door":       map[string]any{"port": doorPort, "networks": []string{"0.0.0.0/0"}},
	})
	if err != nil {
		return err
	}
	return p.tf.Init(ctx)
}

const doorPort = 8443

// flowcluster runs the operator's program and returns what it printed.
func (p *play) flowcluster(ctx context.Context, args ...string) (string, error) {
	program := filepath.Join(p.operator, "bundle/current/bin/flowcluster")
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, append(args[:1:1], append([]string{"--dir", p.operator}, args[1:]...)...)...)
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return string(output), fmt.Errorf("flowcluster %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()+string(output)))
	}
	return strings.TrimSpace(string(output)), nil
}

// inside runs a command as the operator does: with the way to Consul and Nomad in its environment.
func (p *play) inside(ctx context.Context, command ...string) (string, error) {
	return p.flowcluster(ctx, append([]string{"exec", "--"}, command...)...)
}

// awaitWhole waits until every host is ready in Nomad and alive in Consul, and every job has what it should have.
func (p *play) awaitWhole(ctx context.Context, part *console.Part, hosts []spec.Host) error {
	return console.Until(ctx, part, 5*time.Minute, func(ctx context.Context) (bool, string, error) {
		members, err := p.inside(ctx, "consul", "members")
		if err != nil {
			return false, "Consul doesn't answer: " + lastLine(err.Error()), nil
		}
		for _, h := range hosts {
			if !isAlive(members, h.Name) {
				return false, h.Name + " is not alive in Consul", nil
			}
		}
		said, err := p.inside(ctx, "nomad", "node", "status", "-json")
		if err != nil {
			return false, "Nomad doesn't answer: " + lastLine(err.Error()), nil
		}
		var nodes []struct{ Name, Status, SchedulingEligibility string }
		if err := json.Unmarshal([]byte(said), &nodes); err != nil {
			return false, "", fmt.Errorf("nomad node status: %w", err)
		}
		ready := map[string]bool{}
		for _, n := range nodes {
			ready[n.Name] = ready[n.Name] || n.Status == "ready" && n.SchedulingEligibility == "eligible"
		}
		for _, h := range hosts {
			if h.IsClient() && !ready[h.Name] {
				return false, h.Name + " is not ready in Nomad", nil
			}
		}
		return true, "", nil
	})
}

// isAlive reads consul members: a name alone in the first column, alive in the third.
func isAlive(members, name string) bool {
	for line := range strings.Lines(members) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == name {
			return f[2] == "alive"
		}
	}
	return false
}

// end takes down what was made, also after a failure and an interruption.
func (p *play) end() error {
	if p.watch != nil {
		p.watch.stop()
	}
	if p.lab == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return p.lab.Down(ctx)
}

// log keeps what terraform says, in a file, and shows its last line.
type log struct {
	file string
	mu   sync.Mutex
	show func(string)
	rest []byte
	all  bytes.Buffer // since clear
}

func (l *log) tell(show func(string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.show = show
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(b)
	l.rest = append(l.rest, b...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			break
		}
		l.rest = rest
		if text := strings.TrimSpace(string(line)); text != "" && l.show != nil {
			l.show(shortened(text))
		}
	}
	f, err := os.OpenFile(l.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = f.Write(b)
	return len(b), errors.Join(err, f.Close())
}

// text is what terraform has said since clear.
func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// said says whether terraform has said something since clear.
func (l *log) said(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.all.Bytes(), []byte(text))
}

func (l *log) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Reset()
}

var _ io.Writer = (*log)(nil)

func shortened(s string) string {
	if r := []rune(s); len(r) > 110 {
		return string(r[:110]) + "…"
	}
	return s
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return shortened(lines[len(lines)-1])
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/spec"
)

// prepare makes the bundle and the hosts.
func (p *play) prepare(ctx context.Context, roles map[string][]string) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if err := p.makeBundle(ctx); err != nil {
		return err
	}
	if err := p.makeHosts(ctx, roles, 4096); err != nil {
		return err
	}
	p.watch = watch()
	return nil
}

// begin makes five hosts, and of them a cluster.
func (p *play) begin(ctx context.Context) error {
	if err := p.prepare(ctx, fiveHosts()); err != nil {
		return err
	}
	return p.phase("Apply", func(part *console.Part) error {
		if err := p.configure(ctx, "lab", p.hosts); err != nil {
			return err
		}
		defer part.Done("%d hosts", len(p.hosts))
		return p.tf.Apply(ctx)
	})
}

// whole is all of it, but for day two.
func (p *play) whole(ctx context.Context, load time.Duration) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{p.verify, p.nothingToChange, p.failover, p.scanAll} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	for _, what := range []string{serverDies, workerDies} {
		if err := p.killUnderLoad(ctx, what, load); err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context) error{p.nothingToChange, p.searchSecrets, p.destroy} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return p.interrupted(ctx)
}

// verify runs a flow as a user does, and then flowctl verify, both from outside the cluster.
func (p *play) verify(ctx context.Context) error {
	return p.phase("Verify", func(part *console.Part) error {
		said, err := p.inside(ctx, "flowctl", "run", "Hello", "--input", `{"name":"lab"}`, "--wait")
		if err != nil {
			return fmt.Errorf("run the sample flow: %w", err)
		}
		if !strings.Contains(said, "Hello, lab") {
			return fmt.Errorf("the sample flow gave:\n%s", said)
		}
		if said, err = p.inside(ctx, "flowctl", "verify"); err != nil {
			return err
		}
		part.Done("%s", lastLine(said))
		return nil
	})
}

// failover stops and kills parts of the platform, one after the other, under flowctl's own load.
func (p *play) failover(ctx context.Context) error {
	return p.phase("Failover drill", func(part *console.Part) error {
		said, err := p.inside(ctx, "flowctl", "verify", "--disruptive", "--only", "drill")
		if err != nil {
			return err
		}
		part.Done("%s", lastLine(said))
		return nil
	})
}

// nothingToChange proves that the cluster is what it should be: Terraform sees no difference, and neither do the hosts themselves.
func (p *play) nothingToChange(ctx context.Context) error {
	return p.phase("Second apply", func(part *console.Part) error {
		if err := p.awaitWhole(ctx, part, p.hosts); err != nil {
			return err
		}
		changes, err := p.tf.Changes(ctx)
		if err != nil {
			return err
		}
		if changes != "" {
			return fmt.Errorf("a second apply would change something:\n%s", changes)
		}
		for _, h := range p.hosts {
			if said, err := p.flowcluster(ctx, "host", "check", h.Name); err != nil {
				return fmt.Errorf("host check %s finds something to change: %w\n%s", h.Name, err, said)
			}
		}
		part.Done("no changes")
		return nil
	})
}

// scanAll tries every port of every host from an address that is nobody's.
func (p *play) scanAll(ctx context.Context) error {
	var all []int
	for port := 1; port <= 65535; port++ {
		all = append(all, port)
	}
	return p.scan(ctx, all)
}

// scanListening tries the ports on which anything listens on any of the hosts, and some on which nothing does.
func (p *play) scanListening(ctx context.Context) error {
	ports := []int{1, 80, 443, 1024, 65535}
	for _, h := range p.hosts {
		said, err := p.lab.SSH(ctx, h.Name, "cat /proc/net/tcp /proc/net/tcp6").Output()
		if err != nil {
			return fmt.Errorf("what listens on %s: %w", h.Name, err)
		}
		ports = append(ports, listening(string(said))...)
	}
	if len(ports) < 15 {
		return fmt.Errorf("hardly anything listens on the hosts: %v", ports)
	}
	slices.Sort(ports)
	return p.scan(ctx, slices.Compact(ports))
}

// listening reads the ports of the kernel's table that somebody listens on.
func listening(table string) (ports []int) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "0A" {
			continue
		}
		if port, err := strconv.ParseUint(f[1][strings.LastIndexByte(f[1], ':')+1:], 16, 16); err == nil {
			ports = append(ports, int(port))
		}
	}
	return ports
}

func (p *play) scan(ctx context.Context, ports []int) error {
	return p.phase("Port scan", func(part *console.Part) error {
		var addresses, doors []string
		for _, h := range p.hosts {
			addresses = append(addresses, h.Address)
			if h.Has(spec.FrontDoor) {
				doors = append(doors, fmt.Sprintf("%s:%d", h.Address, doorPort))
			}
		}
		f, err := scan(ctx, p.lab, addresses, ports)
		if err != nil {
			return err
		}
		p.report.Ports, p.report.Open = len(ports)*len(addresses), len(f.Open)
		slices.Sort(doors)
		if !slices.Equal(f.Open, doors) || len(f.Refused) > 0 {
			return fmt.Errorf("from outside these ports are open: %s; and these answer that they are not: %s; only %s should answer at all",
				strings.Join(f.Open, " "), strings.Join(f.Refused, " "), strings.Join(doors, " "))
		}
		part.Done("only the front doors answer: %s", strings.Join(doors, ", "))
		return nil
	})
}

const (
	serverDies = "a server host dies"
	workerDies = "a worker host dies"
)

// victim is whom the play kills: of the servers the one that leads Nomad, unless its death would be that of the data.
func (p *play) victim(ctx context.Context, what string) (spec.Host, error) {
	role := spec.Worker
	if what == serverDies {
		role = spec.Server
	}
	leader, err := p.inside(ctx, "nomad", "operator", "api", "/v1/status/leader")
	if err != nil {
		return spec.Host{}, err
	}
	var chosen spec.Host
	for _, h := range p.hosts {
		if !h.Has(role) || h.Has(spec.Data) {
			continue
		}
		if chosen.Name == "" || strings.Contains(leader, h.PrivateAddress+":") {
			chosen = h
		}
	}
	if chosen.Name == "" {
		return chosen, fmt.Errorf("there is no host of role %s that may die", role)
	}
	return chosen, nil
}

// killUnderLoad kills a host while executions are started, starts it again, and counts.
func (p *play) killUnderLoad(ctx context.Context, what string, goesOn time.Duration) error {
	k := kill{What: what}
	err := p.phase("Kill: "+what, func(part *console.Part) error {
		victim, err := p.victim(ctx, what)
		if err != nil {
			return err
		}
		k.Host = victim.Name
		c, err := p.newClient()
		if err != nil {
			return err
		}
		world, err := newOutside(p.lab.Machine())
		if err != nil {
			return err
		}
		defer world.server.Close()
		flow, err := c.applyFlow(ctx, what, world.url)
		if err != nil {
			return fmt.Errorf("make the flow: %w", err)
		}
		l := startLoad(ctx, c, flow)
		defer l.end()
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
		killed := time.Now()
		if err := p.lab.Kill(ctx, victim.Name); err != nil {
			return err
		}
		if victim.Has(spec.Server) {
			if err := console.Until(ctx, part, 2*time.Minute, func(ctx context.Context) (bool, string, error) {
				said, err := p.inside(ctx, "nomad", "operator", "api", "/v1/status/leader")
				return err == nil && !strings.Contains(said, victim.PrivateAddress+":") && strings.Contains(said, ":"), "Nomad has no new leader", nil
			}); err != nil {
				return err
			}
			k.Elected = time.Since(killed).Seconds()
		}
		if err := pause(ctx, time.Until(killed.Add(goesOn))); err != nil {
			return err
		}
		started := time.Now()
		if err := p.lab.Start(ctx, victim.Name); err != nil {
			return err
		}
		if err := p.awaitWhole(ctx, part, p.hosts); err != nil {
			return err
		}
		k.Recovered = time.Since(started).Seconds()
		l.end()
		if err := l.count(ctx, killed, &k); err != nil {
			return err
		}
		k.Repeated, _ = world.repeated()
		part.Done("%s: %d of %d requests failed, %d of %d executions lost", victim.Name, k.Failed, k.Requests, k.Lost, k.Accepted)
		if k.Failed > 0 || k.Lost > 0 {
			return fmt.Errorf("the death of %s has cost %d requests and %d executions: %w", victim.Name, k.Failed, k.Lost, errors.Join(l.failed[:min(5, len(l.failed))]...))
		}
		return nil
	})
	p.report.Kills = append(p.report.Kills, k)
	return err
}

// pause lets the load go on for a time: what is measured is what happens meanwhile.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// searchSecrets looks for every secret of the cluster where none may be.
func (p *play) searchSecrets(ctx context.Context) error {
	return p.phase("Secrets", func(part *console.Part) error {
		secrets, err := p.secretsOf(ctx)
		if err != nil {
			return err
		}
		if len(secrets) < 20 {
			return fmt.Errorf("only %d secrets to look for: the play doesn't know where they are any more", len(secrets))
		}
		// A plan as a file, as some pipelines keep it, and as text.
		if said, err := p.tf.Command(ctx, "plan", "-out=kept.plan", "-input=false", "-no-color").CombinedOutput(); err != nil {
			return fmt.Errorf("terraform plan: %w: %s", err, said)
		}
		shown, err := p.tf.Command(ctx, "show", "-json", "kept.plan").Output()
		if err != nil {
			return err
		}
		hits := searchIn(shown, secrets, "the plan as JSON")
		in, size, err := searchFiles(secrets, filepath.Join(p.dir, "checkout"))
		if err != nil {
			return err
		}
		hits = append(hits, in...)
		for _, f := range []string{p.log.file, filepath.Join(p.dir, "terraform-trace.log")} {
			in, n, err := searchFiles(secrets, f)
			if err != nil {
				return err
			}
			hits, size = append(hits, in...), size+n
		}
		seen := p.watch.seen()
		hits, size = append(hits, searchIn(seen, secrets, "a command line")...), size+int64(len(seen)+len(shown))
		for _, h := range p.hosts {
			in, n, err := p.searchHost(ctx, h, secrets)
			if err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			hits, size = append(hits, in...), size+n
		}
		p.report.Secrets, p.report.Searched = len(secrets), size
		if len(hits) > 0 {
			return fmt.Errorf("secrets are where none may be:\n  %s", strings.Join(hits, "\n  "))
		}
		part.Done("%d secrets, %d MB: in no state, plan, log, command line and stranger's environment", len(secrets), size>>20)
		return nil
	})
}

// What a user of a host without rights may read of others' processes, and what root finds in the host's logs.
const (
	strangersView = `for d in /proc/[0-9]*; do cat $d/environ $d/cmdline 2>/dev/null; echo; done; cat /etc/flowplatform/* /etc/flowplatform/*/* /opt/flowplatform/*/* /var/lib/flowplatform/* 2>/dev/null | head -c 50M; true`
	logs          = `sudo -n journalctl --no-pager -o cat; sudo -n sh -c "find /var/log -type f ! -path '*/journal/*' -exec cat {} +"`
)

func (p *play) searchHost(ctx context.Context, h spec.Host, secrets []string) (hits []string, size int64, err error) {
	for what, script := range map[string]string{"what user debian sees": strangersView, "the logs": logs} {
		output, err := p.asDebian(ctx, h, script).Output()
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", what, err)
		}
		hits, size = append(hits, searchIn(output, secrets, what+" on "+h.Name)...), size+int64(len(output))
	}
	return hits, size, nil
}

// asDebian runs a script on a host as a user without rights of his own.
func (p *play) asDebian(ctx context.Context, h spec.Host, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", p.lab.Key(), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "debian@"+h.Address, "--", "sh -s")
	cmd.Stdin = strings.NewReader(script)
	return cmd
}

// destroy takes the cluster away and looks what is left of it on the hosts.
func (p *play) destroy(ctx context.Context) error {
	return p.phase("Destroy", func(part *console.Part) error {
		if err := p.tf.Destroy(ctx); err != nil {
			return err
		}
		for _, h := range p.hosts {
			output, err := p.lab.SSH(ctx, h.Name, leftoversScript).CombinedOutput()
			if err != nil {
				return fmt.Errorf("look what is left on %s: %w: %s", h.Name, err, output)
			}
			if left := strings.TrimSpace(string(output)); left != "" {
				return fmt.Errorf("after destroy there is still on %s:\n%s", h.Name, left)
			}
		}
		part.Done("nothing is left on the hosts")
		return nil
	})
}

const leftoversScript = `
for d in /etc/flowplatform /opt/flowplatform /var/lib/flowplatform; do [ ! -e $d ] || find $d | head -n 5; done
ls /etc/systemd/system /etc/systemd/system/*.wants 2>/dev/null | grep flow- || true
systemctl list-units --all --no-legend 'flow-*' | grep -v not-found || true
ps -eo user,args | grep -E 'flowplatform|flow-(consul|nomad)|[n]omad|[c]onsul|[p]ostgres:|[b]eam|[r]edis-server|[n]ginx' | grep -v grep || true
awk '$2 ~ /flowplatform|nomad/' /proc/mounts
if command -v nft >/dev/null; then nft list tables | grep flow || true; fi
`

// interruptedAlone is the end of the whole play, on a host of its own.
func (p *play) interruptedAlone(ctx context.Context) error {
	if err := p.prepare(ctx, map[string][]string{"s1": nil}); err != nil {
		return err
	}
	return p.interrupted(ctx)
}

// interrupted makes a small cluster of one of the hosts, kills the first apply at three points, and finishes it.
func (p *play) interrupted(ctx context.Context) error {
	one := p.hosts[:1:1]
	one[0].Roles = []string{spec.Server, spec.Data, spec.Worker, spec.FrontDoor}
	p.hosts = one
	p.operator = filepath.Join(p.dir, "operator-2")
	if err := p.phase("Interrupted applies", func(part *console.Part) error {
		if err := p.configure(ctx, "lab-two", one); err != nil {
			return err
		}
		return p.killApplies(ctx, points)
	}); err != nil {
		return err
	}
	if err := p.phase("Apply after them", func(*console.Part) error { return p.tf.Apply(ctx) }); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{p.verify, p.nothingToChange, p.searchSecrets, p.destroy} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Points of an apply, as flowcluster says them when it has come there: the release is on the host, the agents are coming up, the rights are there and
// the jobs begin.
var points = []string{"✓ Install", "✓ Reach  ", "✓ Secrets"}

// killApplies kills an apply at each point: Terraform alone the first time, so that what it has started goes on beside the next apply; all of it after that.
func (p *play) killApplies(ctx context.Context, points []string) error {
	for i, point := range points {
		p.log.clear()
		cmd := p.tf.Command(ctx, "apply", "-auto-approve", "-input=false", "-no-color")
		cmd.Stdout, cmd.Stderr = p.log, p.log
		cmd.WaitDelay = time.Second // what goes on holds the output open
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		tick := time.NewTicker(20 * time.Millisecond)
		for here := false; !here; {
			select {
			case err := <-ended:
				tick.Stop()
				return fmt.Errorf("the apply has ended (%w) before it said %q:\n%s", errors.Join(err), point, p.log.text())
			case <-tick.C:
				here = p.log.said(point)
			}
		}
		tick.Stop()
		target := -cmd.Process.Pid
		if i == 0 {
			target = cmd.Process.Pid
		}
		if err := syscall.Kill(target, syscall.SIGKILL); err != nil {
			return err
		}
		<-ended
	}
	return nil
}

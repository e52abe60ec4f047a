package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"flowplatform/scripts/internal/archive"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/lab"
	"flowplatform/scripts/internal/spec"
)

// dayTwo is what is done to a cluster that runs: each part by the one command that the documents name, under load, which may cost no request and no execution. Last
// a backup is brought back into a cluster that is new.
func (p *play) dayTwo(ctx context.Context) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	for _, c := range []struct {
		what string
		do   func(context.Context, *console.Part) error
	}{
		{"a worker host comes", p.addWorker},
		{"a worker host goes", p.removeWorker},
		{"a worker host is drained, and back", p.drainWorker},
		{"a server is replaced", p.replaceServer},
		{"new gossip keys", p.rotateGossip},
		{"new certificates", p.rotateCertificates},
		{"new tokens", p.rotateTokens},
		{"another Consul and Nomad", p.upgrade},
	} {
		if err := p.changeUnderLoad(ctx, c.what, c.do); err != nil {
			return err
		}
	}
	return p.backupAndRestore(ctx)
}

// changeUnderLoad does something to the cluster while executions are started, and counts.
func (p *play) changeUnderLoad(ctx context.Context, what string, do func(context.Context, *console.Part) error) error {
	ch := change{What: what}
	err := p.phase("Day two: "+what, func(part *console.Part) error {
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
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		began := time.Now()
		if err := do(ctx, part); err != nil {
			return err
		}
		ch.Seconds = time.Since(began).Seconds()
		if err := p.awaitWhole(ctx, part, p.hosts); err != nil {
			return err
		}
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		l.end()
		var k kill
		if err := l.count(ctx, began, &k); err != nil {
			return err
		}
		ch.Requests, ch.Again, ch.Failed, ch.GapMax, ch.Accepted, ch.Lost = k.Requests, k.Again, k.Failed, k.GapMax, k.Accepted, k.Lost
		ch.Repeated, _ = world.repeated()
		part.Done("%d of %d requests failed, %d of %d executions lost", ch.Failed, ch.Requests, ch.Lost, ch.Accepted)
		if ch.Failed > 0 || ch.Lost > 0 {
			return fmt.Errorf("%s has cost %d requests and %d executions: %w", what, ch.Failed, ch.Lost, errors.Join(l.failed[:min(5, len(l.failed))]...))
		}
		return nil
	})
	p.report.Changes = append(p.report.Changes, ch)
	return err
}

// newHost makes one more host of the lab; place is its name, or its name and the last number of its address.
func (p *play) newHost(ctx context.Context, place string) (lab.Host, error) {
	l, err := lab.Up(ctx, p.lab.Dir, lab.Options{Names: []string{place}, MemoryMB: 4096, Owner: os.Getpid(), Install: filepath.Join(p.root, "scripts/install")})
	if err != nil {
		return lab.Host{}, err
	}
	p.lab = l
	name, _, _ := strings.Cut(place, ":")
	return l.Host(name)
}

func (p *play) addWorker(ctx context.Context, _ *console.Part) error {
	h, err := p.newHost(ctx, "w3")
	if err != nil {
		return err
	}
	p.hosts = append(p.hosts, spec.Host{Name: h.Name, Address: h.Address, PrivateAddress: h.Address, Roles: []string{spec.Worker}})
	return p.applyHosts(ctx)
}

func (p *play) removeWorker(ctx context.Context, _ *console.Part) error {
	p.hosts = slices.DeleteFunc(p.hosts, func(h spec.Host) bool { return h.Name == "w3" })
	if err := p.applyHosts(ctx); err != nil {
		return err
	}
	members, err := p.inside(ctx, "consul", "members")
	if err != nil {
		return err
	}
	nodes, err := p.inside(ctx, "nomad", "node", "status")
	if err != nil {
		return err
	}
	if strings.Contains(members, "w3") || strings.Contains(nodes, "w3") {
		return fmt.Errorf("w3 was removed and is still known:\n%s\n%s", members, nodes)
	}
	left, err := p.lab.SSH(ctx, "w3", leftoversScript).CombinedOutput()
	if err != nil || strings.TrimSpace(string(left)) != "" {
		return fmt.Errorf("left on w3, which was removed: %w\n%s", errors.Join(err), left)
	}
	return p.lab.Remove(ctx, "w3")
}

// applyHosts is terraform apply with another list of hosts.
func (p *play) applyHosts(ctx context.Context) error {
	if err := p.configure(ctx, "lab", p.hosts); err != nil {
		return err
	}
	return p.tf.Apply(ctx)
}

func (p *play) drainWorker(ctx context.Context, _ *console.Part) error {
	if _, err := p.flowcluster(ctx, "drain", "w1"); err != nil {
		return err
	}
	_, err := p.flowcluster(ctx, "drain", "--undo", "w1")
	return err
}

// replaceServer takes a server away for good, and puts a new machine of its name and address in its place.
func (p *play) replaceServer(ctx context.Context, _ *console.Part) error {
	dead, err := p.victim(ctx, serverDies)
	if err != nil {
		return err
	}
	if err := p.lab.Remove(ctx, dead.Name); err != nil {
		return err
	}
	if _, err := p.newHost(ctx, dead.Name+":"+dead.Address[strings.LastIndexByte(dead.Address, '.')+1:]); err != nil {
		return err
	}
	if _, err := p.flowcluster(ctx, "replace", dead.Name); err != nil {
		return err
	}
	for _, program := range []string{"consul", "nomad"} {
		said, err := p.inside(ctx, program, "operator", "raft", "list-peers")
		if err != nil {
			return err
		}
		if n := strings.Count(said, "\n"); n != 3 || !strings.Contains(said, dead.PrivateAddress+":") {
			return fmt.Errorf("%s has %d voters, and %s should be one of three:\n%s", program, n, dead.Name, said)
		}
	}
	return nil
}

// rotateGossip looks from outside that the key list has one key, and which one it isn't.
func (p *play) rotateGossip(ctx context.Context, _ *console.Part) error {
	var before, after struct{ Consul, Nomad string }
	if err := p.readKeys("gossip.json", &before); err != nil {
		return err
	}
	if _, err := p.flowcluster(ctx, "rotate", "gossip"); err != nil {
		return err
	}
	if err := p.readKeys("gossip.json", &after); err != nil {
		return err
	}
	for path, keys := range map[string][2]string{"consul": {before.Consul, after.Consul}, "nomad": {before.Nomad, after.Nomad}} {
		command := []string{"consul", "keyring", "-list"}
		if path == "nomad" {
			command = []string{"nomad", "operator", "api", "/v1/agent/keyring/list"}
		}
		said, err := p.inside(ctx, command...)
		if err != nil {
			return err
		}
		if keys[0] == keys[1] || strings.Contains(said, keys[0]) || !strings.Contains(said, keys[1]) {
			return fmt.Errorf("%s's list of gossip keys isn't the new one alone", path)
		}
	}
	return nil
}

func (p *play) readKeys(name string, into any) error {
	content, err := os.ReadFile(filepath.Join(p.operator, "keys", name))
	if err != nil {
		return err
	}
	return json.Unmarshal(content, into)
}

// rotateCertificates looks at the certificates that the servers and the front doors show.
func (p *play) rotateCertificates(ctx context.Context, part *console.Part) error {
	before, err := p.serials(ctx)
	if err != nil {
		return err
	}
	if _, err := p.flowcluster(ctx, "rotate", "certificates"); err != nil {
		return err
	}
	return console.Until(ctx, part, time.Minute, func(ctx context.Context) (bool, string, error) { // the front door takes its own in within seconds
		after, err := p.serials(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		for where, serial := range before {
			if after[where] == serial {
				return false, where + " still shows its old certificate", nil
			}
		}
		return true, "", nil
	})
}

// serials are the serial numbers of the certificates that are shown, by who shows them.
func (p *play) serials(ctx context.Context) (map[string]string, error) {
	shown := map[string]string{}
	for _, h := range p.hosts {
		if h.Has(spec.FrontDoor) {
			address := fmt.Sprintf("%s:%d", h.Address, doorPort)
			d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // it is looked at, not trusted
			conn, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			shown["front door "+address] = conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
			conn.Close()
		}
		if !h.Has(spec.Server) {
			continue
		}
		for _, port := range []int{spec.ConsulHTTPS, spec.NomadHTTP} {
			at := fmt.Sprintf("%s:%d", h.PrivateAddress, port)
			serial, err := p.lab.SSH(ctx, h.Name, "true | openssl s_client -connect "+at+" 2>/dev/null | openssl x509 -noout -serial").Output()
			if err != nil || len(serial) == 0 {
				return nil, fmt.Errorf("the certificate of %s: %w", at, errors.Join(err))
			}
			shown[at] = strings.TrimSpace(string(serial))
		}
	}
	return shown, nil
}

// rotateTokens tries every token from before: none may be known any more.
func (p *play) rotateTokens(ctx context.Context, _ *console.Part) error {
	before := map[string]string{}
	if err := p.readKeys("tokens.json", &before); err != nil {
		return err
	}
	if _, err := p.flowcluster(ctx, "rotate", "tokens"); err != nil {
		return err
	}
	after := map[string]string{}
	if err := p.readKeys("tokens.json", &after); err != nil {
		return err
	}
	for name, old := range before {
		if after[name] == old {
			return fmt.Errorf("token %s is the old one", name)
		}
		for _, program := range []string{
			`CONSUL_HTTP_TOKEN=$OLD_TOKEN consul acl token read -self`, `NOMAD_TOKEN=$OLD_TOKEN nomad operator api /v1/acl/token/self`,
		} {
			cmd := exec.CommandContext(ctx, filepath.Join(p.operator, "bundle/current/bin/flowcluster"), "exec", "--dir", p.operator, "--", "sh", "-c", program)
			cmd.Env = append(os.Environ(), "OLD_TOKEN="+old)
			said, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(said), "403") {
				return fmt.Errorf("the old token %s isn't refused with 403 (%s): %v", name, strings.Fields(program)[1], err)
			}
		}
	}
	return nil
}

// otherBundle is the same release with other bytes of Consul and Nomad: what is behind the end of a program is read by nobody.
func (p *play) otherBundle(ctx context.Context) (file string, err error) {
	dir := filepath.Join(p.dir, "other")
	if err := archive.Unpack(ctx, p.bundle, dir); err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for _, program := range []string{"consul", "nomad"} {
		f, err := os.OpenFile(filepath.Join(dir, "bin", program), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		_, err = f.WriteString("another one")
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	if err := archive.WriteSums(dir); err != nil {
		return "", err
	}
	file = filepath.Join(p.dir, "other.tar.gz")
	return file, archive.Pack(ctx, dir, "", file, nil)
}

// betweenServers is the least time from the last start of an agent on one server to the first on the next: less than the gate waits.
const betweenServers = 5 * time.Second

// withoutLeader is the most that an election may take here: heartbeats are missed for seconds before it begins, and all hosts share a machine.
const withoutLeader = 20 * time.Second

// upgrade rolls another Consul and Nomad out, and looks meanwhile whether there is a leader, and afterwards when each server's agents were started.
func (p *play) upgrade(ctx context.Context, _ *console.Part) error {
	file, err := p.otherBundle(ctx)
	if err != nil {
		return err
	}
	before, err := p.starts(ctx)
	if err != nil {
		return err
	}
	stop := p.watchLeaders(ctx)
	_, err = p.flowcluster(ctx, "upgrade", "--bundle", file)
	gaps := stop()
	if err != nil {
		return err
	}
	p.bundle = file
	p.report.Leaderless = gaps
	for program, gap := range gaps {
		if gap > withoutLeader.Seconds() {
			return fmt.Errorf("%s had no leader for %.1f s", program, gap)
		}
	}
	after, err := p.starts(ctx)
	if err != nil {
		return err
	}
	return oneAtATime(before, after)
}

// starts are the times since the machine's start at which the agents of each server were started: Consul's, and Nomad's. All hosts have the kernel's clock.
func (p *play) starts(ctx context.Context) (map[string][]time.Duration, error) {
	times := map[string][]time.Duration{}
	for _, h := range p.hosts {
		if !h.Has(spec.Server) {
			continue
		}
		said, err := p.lab.SSH(ctx, h.Name, "systemctl show --value -p ExecMainStartTimestampMonotonic flow-consul flow-nomad-server").Output()
		if err != nil {
			return nil, fmt.Errorf("when the agents of %s were started: %w", h.Name, err)
		}
		for f := range strings.FieldsSeq(string(said)) {
			us, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("when the agents of %s were started: %w", h.Name, err)
			}
			times[h.Name] = append(times[h.Name], time.Duration(us)*time.Microsecond)
		}
	}
	return times, nil
}

// oneAtATime says whether every agent was started anew, and no two servers' at the same time.
func oneAtATime(before, after map[string][]time.Duration) error {
	names := sorted(after)
	for _, name := range names {
		if len(after[name]) != 2 || len(before[name]) != 2 || after[name][0] <= before[name][0] || after[name][1] <= before[name][1] {
			return fmt.Errorf("the agents of %s weren't started anew: %v, before %v", name, after[name], before[name])
		}
	}
	slices.SortFunc(names, func(a, b string) int { return int(slices.Min(after[a]) - slices.Min(after[b])) })
	for i, name := range names[1:] {
		if gap := slices.Min(after[name]) - slices.Max(after[names[i]]); gap < betweenServers {
			return fmt.Errorf("the agents of %s were started %s after those of %s", name, gap, names[i])
		}
	}
	return nil
}

// watchLeaders asks, over and over, what only a leader answers, until stopped; it returns the longest time without an answer, in seconds.
func (p *play) watchLeaders(ctx context.Context) (stop func() map[string]float64) {
	ctx, cancel := context.WithCancel(ctx)
	gaps := map[string]float64{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, program := range []string{"consul", "nomad"} {
		all.Go(func() {
			last := time.Now()
			for ctx.Err() == nil {
				short, done := context.WithTimeout(ctx, 5*time.Second)
				_, err := p.inside(short, program, "operator", "raft", "list-peers")
				done()
				if err != nil && ctx.Err() == nil {
					continue
				}
				mu.Lock()
				gaps[program] = max(gaps[program], time.Since(last).Seconds())
				mu.Unlock()
				last = time.Now()
			}
		})
	}
	return func() map[string]float64 {
		cancel()
		all.Wait()
		return gaps
	}
}

// backupAndRestore takes the cluster away, makes a new one of the same operator's directory, and brings back what was there.
func (p *play) backupAndRestore(ctx context.Context) error {
	c, err := p.newClient()
	if err != nil {
		return err
	}
	var finished, waiting string
	target := filepath.Join(p.dir, "backup")
	steps := []struct {
		name string
		do   func(*console.Part) error
	}{
		{"Backup", func(part *console.Part) error {
			if finished, err = p.execution(ctx, part, c, "Before: one that ends", "1ms", "succeeded"); err != nil {
				return err
			}
			if waiting, err = p.execution(ctx, part, c, "Before: one that waits", "2m", "waiting"); err != nil {
				return err
			}
			_, err := p.flowcluster(ctx, "backup", target)
			return err
		}},
		{"Destroy before a restore", func(*console.Part) error { return p.tf.Destroy(ctx) }},
		{"A new cluster of the same directory", func(*console.Part) error { return p.applyHosts(ctx) }},
		{"Restore", func(part *console.Part) error {
			if _, err := c.call(ctx, http.MethodGet, "/executions/"+finished, "", nil, nil, 10*time.Second); err == nil {
				return errors.New("the new cluster has the old one's executions before they were brought back")
			}
			if _, err := p.flowcluster(ctx, "restore", "--yes", target); err != nil {
				return err
			}
			for _, id := range []string{finished, waiting} {
				if err := awaitStatus(ctx, part, c, id, "succeeded"); err != nil {
					return err
				}
			}
			part.Done("what had ended is there, and what waited has gone on")
			return nil
		}},
	}
	for _, s := range steps {
		if err := p.phase(s.name, s.do); err != nil {
			return err
		}
	}
	if err := p.verify(ctx); err != nil {
		return err
	}
	return p.destroy(ctx)
}

// execution starts a flow that waits for some time, and returns when it has come to a status.
func (p *play) execution(ctx context.Context, part *console.Part, c *client, name, lasts, status string) (id string, err error) {
	document := map[string]any{
		"name": name,
		"nodes": []any{
			map[string]any{"id": "start", "type": "trigger.manual"},
			map[string]any{"id": "wait", "type": "flow.delay", "config": map[string]any{"duration": lasts}},
		},
		"edges": []any{map[string]any{"from": "start", "to": "wait"}},
	}
	var flow, made struct{ ID string }
	if _, err := c.call(ctx, http.MethodPost, "/flows", "", document, &flow, time.Minute); err != nil {
		return "", err
	}
	if _, err := c.call(ctx, http.MethodPost, "/flows/"+flow.ID+"/executions", name, map[string]any{}, &made, time.Minute); err != nil {
		return "", err
	}
	return made.ID, awaitStatus(ctx, part, c, made.ID, status)
}

func awaitStatus(ctx context.Context, part *console.Part, c *client, id, status string) error {
	return console.Until(ctx, part, 4*time.Minute, func(ctx context.Context) (bool, string, error) {
		var e struct{ Status string }
		if _, err := c.call(ctx, http.MethodGet, "/executions/"+id, "", nil, &e, time.Minute); err != nil {
			return false, "", fmt.Errorf("execution %s: %w", id, err)
		}
		return e.Status == status, fmt.Sprintf("execution %s is %s", id, e.Status), nil
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/jobs"
	"flowplatform/scripts/internal/secrets"
	"flowplatform/scripts/internal/spec"
)

// agentsStart is how long agents may take to find each other and to elect leaders.
const agentsStart = 3 * time.Minute

// converge turns the hosts' agents into a platform.
func converge(ctx context.Context, c *console.Console, dir string, args []string) error {
	if len(args) > 0 {
		return usageError("converge takes no arguments")
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	unlock, err := o.lock("cluster", func() { c.Line("waiting for another flowcluster that works on the cluster") })
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(o.path(dismantledMark)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take the mark of dismantle away: %w", err)
	}
	return o.converge(ctx, c)
}

func (o *operator) converge(ctx context.Context, c *console.Console) error {
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	if err := o.reachServers(ctx, c); err != nil {
		return err
	}
	plan, _, err := o.plan()
	if err != nil {
		return err
	}
	if err := o.grant(ctx, c, g, plan); err != nil {
		return err
	}
	if err := c.Part("Hosts", func(p *console.Part) error {
		err := console.Until(ctx, p, agentsStart, func(ctx context.Context) (bool, string, error) { return o.hostsReady(ctx, g) })
		p.Done("%d", len(o.Cluster.Hosts))
		return err
	}); err != nil {
		return err
	}
	if err := c.Part("Secrets", func(p *console.Part) error { return o.ensureVariables(ctx, p, g) }); err != nil {
		return err
	}
	runner, err := o.runner(ctx, g)
	if err != nil {
		return err
	}
	for _, st := range jobs.Stages() {
		if err := c.Part(st.Name, func(p *console.Part) error {
			changed, err := runner.Run(ctx, p, st.Jobs)
			p.Done("%s", either(len(changed) == 0, "unchanged", strings.Join(changed, ", ")))
			return err
		}); err != nil {
			return err
		}
	}
	return o.welcome(ctx, c, g)
}

// reachServers waits until SSH reaches a majority of the servers: whoever is still starting is waited for, a dead one isn't needed.
func (o *operator) reachServers(ctx context.Context, c *console.Console) error {
	servers := o.with(spec.Server)
	return c.Part("Reach", func(p *console.Part) error {
		network, err := o.reach()
		if err != nil {
			return err
		}
		answers := make(chan error, len(servers))
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for _, h := range servers {
			go func() {
				answers <- network.Host(h.Name).Await(ctx, machineStarts, func(why string) { p.Doing("%s: %s", h.Name, why) })
			}()
		}
		reached := 0
		var wrong []error
		for range servers {
			if err := <-answers; err != nil {
				wrong = append(wrong, err)
			} else {
				reached++
			}
			if reached > len(servers)/2 {
				p.Done("%d of %d servers", reached, len(servers))
				return nil
			}
		}
		return errors.Join(wrong...)
	})
}

// grant makes both systems of rights what they should be.
func (o *operator) grant(ctx context.Context, c *console.Console, g ground.Ground, plan access.Plan) error {
	if _, err := o.Keys.Tokens(o.tokenNames()...); err != nil {
		return err
	}
	tokens, err := o.Keys.AllTokens()
	if err != nil {
		return err
	}
	if err := c.Part("Consul", func(p *console.Part) error {
		if err := awaitLeader(ctx, p, "Consul", g.Consul.Get); err != nil {
			return err
		}
		// A new leader takes a moment until it answers for its ACL.
		made := false
		err := console.Until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) {
			did, err := access.BootstrapConsul(ctx, g.Consul, tokens[access.ConsulManagement])
			made = made || did
			return settled(err, "waiting for Consul's ACL")
		})
		if err != nil {
			return err
		}
		changed := 0
		err = console.Until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) {
			n, err := access.ApplyConsul(ctx, g.Consul, plan, tokens)
			changed += n
			return settled(err, "waiting for Consul's ACL")
		})
		p.Done("%s", either(!made && changed == 0, "unchanged", fmt.Sprintf("%d policies, roles, rules and tokens written", changed)))
		return err
	}); err != nil {
		return err
	}
	defer o.markConverged()
	return c.Part("Nomad", func(p *console.Part) error {
		if err := awaitLeader(ctx, p, "Nomad", g.Nomad.Get); err != nil {
			return err
		}
		made := false
		err := console.Until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) {
			did, err := access.BootstrapNomad(ctx, g.Nomad, tokens[access.NomadManagement])
			made = made || did
			return settled(err, "waiting for Nomad's ACL")
		})
		if err != nil {
			return err
		}
		changed, err := access.ApplyNomad(ctx, g.Nomad)
		if err != nil {
			return err
		}
		p.Done("%s", either(!made && !changed, "unchanged", "rights written"))
		return console.Until(ctx, p, agentsStart, g.ServerReady)
	})
}

const convergedMark = ".converged"

// markConverged notes that the cluster has rights: from now on a restart of its servers can harm somebody.
func (o *operator) markConverged() {
	_ = replaceFile(o.path(convergedMark), []byte("flowcluster converge has been here.\n"))
}

func (o *operator) hasConverged() bool {
	_, err := os.Stat(o.path(convergedMark))
	return err == nil
}

// settled says whether a step has come to its end: an answer that Consul or Nomad give for a moment after an election is waited out.
func settled(err error, waitingFor string) (bool, string, error) {
	var answer *api.StatusError
	if errors.As(err, &answer) && answer.Status >= 500 {
		return false, waitingFor + ": " + answer.Body, nil
	}
	return err == nil, waitingFor, err
}

func awaitLeader(ctx context.Context, p *console.Part, name string, get func(context.Context, string, any) error) error {
	return console.Until(ctx, p, agentsStart, func(ctx context.Context) (bool, string, error) {
		var leader string
		err := get(ctx, "/v1/status/leader", &leader)
		if err != nil {
			return false, fmt.Sprintf("waiting for %s: %v", name, err), nil
		}
		return strings.Trim(leader, "\"\n ") != "", "waiting for " + name + " to elect its leader", nil
	})
}

// hostsReady says whether every host is a member of both: alive in Consul, and where it runs tasks, ready in Nomad with what jobs need.
func (o *operator) hostsReady(ctx context.Context, g ground.Ground) (bool, string, error) {
	var members []struct {
		Name   string
		Status int
	}
	if err := g.Consul.Get(ctx, "/v1/agent/members", &members); err != nil {
		return false, "waiting for Consul's members", nil
	}
	nodes, err := listNodes(ctx, g)
	if err != nil {
		return false, "waiting for Nomad's list of hosts", nil
	}
	const alive = 1
	var waiting []string
	for _, h := range o.Cluster.Hosts {
		if !slices.ContainsFunc(members, func(m struct {
			Name   string
			Status int
		}) bool {
			return m.Name == h.Name && m.Status == alive
		}) {
			waiting = append(waiting, h.Name+" (Consul)")
			continue
		}
		if h.IsClient() && !slices.ContainsFunc(nodes, func(n node) bool { return n.Name == h.Name && n.Status == "ready" && n.Drivers["exec"].Healthy }) {
			waiting = append(waiting, h.Name+" (Nomad)")
		}
	}
	return len(waiting) == 0, "waiting for " + strings.Join(waiting, ", "), nil
}

// node is what Nomad says of a client.
type node struct {
	ID, Name, Status, SchedulingEligibility string
	Drain                                   bool
	ModifyIndex                             uint64
	Drivers                                 map[string]struct{ Healthy bool }
}

func listNodes(ctx context.Context, g ground.Ground) ([]node, error) {
	var nodes []node
	if err := g.Nomad.Get(ctx, "/v1/nodes", &nodes); err != nil {
		return nil, fmt.Errorf("list Nomad's hosts: %w", err)
	}
	return nodes, nil
}

// ensureVariables makes the platform's secrets, and writes beside them what only this cluster knows.
func (o *operator) ensureVariables(ctx context.Context, p *console.Part, g ground.Ground) error {
	written, err := secrets.Ensure(ctx, g)
	if err != nil {
		return err
	}
	var networks []string
	for _, h := range o.Cluster.Hosts {
		networks = append(networks, h.PrivateAddress+either(strings.Contains(h.PrivateAddress, ":"), "/128", "/32"))
	}
	door, err := o.frontDoorPair()
	if err != nil {
		return err
	}
	ca, metrics, err := o.metricsPair()
	if err != nil {
		return err
	}
	for path, items := range map[string]map[string]string{
		"nomad/jobs/postgres":   {"networks": strings.Join(networks, ",")},
		"nomad/jobs/prometheus": {"ca": string(ca), "certificate": string(metrics.Certificate), "key": string(metrics.Key)},
		"nomad/jobs/front-door": {"certificate": string(door.Certificate), "key": string(door.Key)},
	} {
		changed, err := putItems(ctx, g, path, items)
		if err != nil {
			return err
		}
		if changed {
			written++
		}
	}
	p.Done("%s", either(written == 0, "unchanged", fmt.Sprintf("%d Nomad Variables written", written)))
	return nil
}

// putItems makes a variable have these items; what else it has stays.
func putItems(ctx context.Context, g ground.Ground, path string, items map[string]string) (bool, error) {
	v, err := g.ReadVariable(ctx, path)
	if err != nil {
		return false, err
	}
	if v == nil {
		v = &ground.Variable{Path: path}
	}
	if v.Items == nil {
		v.Items = map[string]string{}
	}
	changed := false
	for key, value := range items {
		if v.Items[key] != value {
			v.Items[key] = value
			changed = true
		}
	}
	if !changed {
		return false, nil
	}
	return true, g.WriteVariable(ctx, v)
}

// runner gives Nomad the jobs of the release.
func (o *operator) runner(ctx context.Context, g ground.Ground) (jobs.Runner, error) {
	if err := o.jobVariables(ctx); err != nil {
		return jobs.Runner{}, err
	}
	return jobs.Runner{Ground: g, Renderer: jobs.Renderer{
		Program:  o.bundle("bin", "nomad"),
		Root:     o.bundle(),
		VarFiles: []string{o.bundle("jobs", "vars", "cluster.hcl"), o.path("jobs.hcl")},
	}}, nil
}

// jobVariables writes jobs.hcl: what only this cluster knows. Together with jobs/vars/cluster.hcl it is all that a job needs, also by hand:
//
//	cd bundle/current && flowcluster exec -- nomad job run -preserve-counts -hcl2-strict=false -var-file=jobs/vars/cluster.hcl -var-file=../../jobs.hcl jobs/gateway.nomad.hcl
func (o *operator) jobVariables(ctx context.Context) error {
	data := o.with(spec.Data)[0]
	network, err := o.reach()
	if err != nil {
		return err
	}
	if err := network.Host(data.Name).Connect(ctx); err != nil {
		return err
	}
	bin, err := network.Host(data.Name).Output(ctx, postgresBin)
	if err != nil {
		return fmt.Errorf("find PostgreSQL: %w", err)
	}
	versions, err := o.versions()
	if err != nil {
		return err
	}
	return replaceFile(o.path("jobs.hcl"), []byte(renderVariables(o.Cluster, data, bin, versions)))
}

// postgresBin finds PostgreSQL's programs on the data host: those of the version that made the data, else the newest.
var postgresBin = fmt.Sprintf(`set -eu
made=$(ls -d %s/volumes/postgres/[0-9]*/PG_VERSION 2>/dev/null | sort -V | tail -n 1 || true)
if [ -n "$made" ]; then version=$(basename "$(dirname "$made")")
else version=$(ls -d /usr/lib/postgresql/*/bin/postgres | cut -d/ -f5 | sort -V | tail -n 1); fi
[ -x "/usr/lib/postgresql/$version/bin/postgres" ] || { echo "PostgreSQL $version, which made the data, is not installed" >&2; exit 1; }
echo "/usr/lib/postgresql/$version/bin"
`, spec.DataDir)

func renderVariables(c spec.Cluster, data spec.Host, postgresBin string, versions map[string]string) string {
	var b strings.Builder
	b.WriteString("# Written by flowcluster: what only this cluster knows. No secrets.\n")
	fmt.Fprintf(&b, "front_door_port  = %d\n", c.FrontDoor.Port)
	fmt.Fprintf(&b, "postgres_address = %q\n", address(data.PrivateAddress, spec.Postgres))
	fmt.Fprintf(&b, "postgres_bin     = %q\n", postgresBin)
	fmt.Fprintf(&b, "rabbitmq_address = %q\n", address(data.PrivateAddress, spec.RabbitMQ))
	fmt.Fprintf(&b, "redis_address    = %q\n", address(data.PrivateAddress, spec.Redis))
	b.WriteString("\nversions = {\n")
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintf(&b, "  %-12s = %q\n", name, versions[name])
	}
	b.WriteString("}\n")
	return b.String()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/jobs"
	"flowplatform/scripts/internal/spec"
)

// drainLasts bounds a drain: what a worker can't finish in that time is handed back.
const drainLasts = 10 * time.Minute

// deadAfter is how long a host may stay silent that is to be removed, before it is taken for dead.
const deadAfter = 20 * time.Second

// hostRemove takes a host out of the cluster. A dead one is forgotten by the others; one that lives is drained and cleaned. That a cluster which is being destroyed
// has no quorum any more stops nobody: what only a quorum could do is then left out, and said.
func hostRemove(ctx context.Context, c *console.Console, dir string, args []string) error {
	name, err := oneName(args)
	if err != nil {
		return err
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	h, known := o.remembered(name)
	if !known {
		if h, err = o.host(name); err != nil {
			c.Line("There is no host " + name + " any more")
			return nil
		}
	}
	unlock, err := o.lock("host-"+name, func() { c.Line("waiting for another flowcluster that works on " + name) })
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := o.reach(); err != nil {
		return err
	}
	others := o.others(name)
	var g *ground.Ground
	if o.isDismantled() || len(others.with(spec.Server)) == 0 {
		c.Line("The cluster is being taken apart: nothing is drained")
	} else if g, err = others.reachGround(ctx, c); err != nil {
		return err
	}
	if g != nil && h.IsClient() {
		if err := c.Part("Drain "+name, func(p *console.Part) error { return drain(ctx, p, *g, name, drainLasts) }); err != nil {
			return err
		}
	}
	if err := c.Part("Clean "+name, func(p *console.Part) error { return o.cleanHost(ctx, p, h) }); err != nil {
		return err
	}
	if g != nil {
		if err := c.Part("Forget "+name, func(p *console.Part) error { return forget(ctx, p, *g, h) }); err != nil {
			return err
		}
	}
	return o.forgetKeys(ctx, h)
}

// others is the cluster without one host: who is asked about it.
func (o *operator) others(name string) *operator {
	rest := *o
	rest.Cluster.Hosts = slices.DeleteFunc(slices.Clone(o.Cluster.Hosts), func(h spec.Host) bool { return h.Name == name })
	return &rest
}

// reachGround returns Consul and Nomad when they have leaders, nil when they don't answer within a moment.
func (o *operator) reachGround(ctx context.Context, c *console.Console) (*ground.Ground, error) {
	if _, err := o.reach(); err != nil {
		return nil, err
	}
	g, err := o.ground(o.tunnel)
	if err != nil {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for name, client := range map[string]*api.Client{"Consul": g.Consul, "Nomad": g.Nomad} {
		var self struct{}
		if err := client.Get(short, "/v1/acl/token/self", &self); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			c.Line(fmt.Sprintf("%s doesn't answer (%v): what only it could do is left out", name, err))
			return nil, nil
		}
	}
	return &g, nil
}

// asksAgain is how long tasks of system jobs may be the last ones on a host that is drained. Nomad stops them when the others have ended, which it sometimes doesn't
// notice: it then waits for its deadline (seen with 1.11.3). Being asked again it looks again.
const asksAgain = 5 * time.Second

// drainedTask is an allocation on a host that is drained.
type drainedTask struct {
	jobs.Allocation
	JobType string
}

// stillThere counts what hasn't ended yet, and of it what isn't of system jobs.
func stillThere(list []drainedTask) (left, others int) {
	for _, a := range list {
		if a.IsTerminal() {
			continue
		}
		left++
		if a.JobType != "system" {
			others++
		}
	}
	return left, others
}

// drain moves a host's tasks elsewhere and waits for it. No new ones come.
func drain(ctx context.Context, p *console.Part, g ground.Ground, name string, limit time.Duration) error {
	nodes, err := listNodes(ctx, g)
	if err != nil {
		return err
	}
	moved := 0
	for _, n := range nodes {
		if n.Name != name || n.Status == "down" {
			continue
		}
		ask := func(ctx context.Context) error {
			body := map[string]any{"DrainSpec": map[string]any{"Deadline": limit.Nanoseconds(), "IgnoreSystemJobs": false}, "MarkEligible": false}
			if err := g.Nomad.Call(ctx, http.MethodPost, "/v1/node/"+n.ID+"/drain", body, nil); err != nil {
				return fmt.Errorf("drain %s: %w", name, err)
			}
			return nil
		}
		if err := ask(ctx); err != nil {
			return err
		}
		var stuck steady
		err := console.Until(ctx, p, limit+2*time.Minute, func(ctx context.Context) (bool, string, error) {
			var list []drainedTask
			if err := g.Nomad.Get(ctx, "/v1/node/"+n.ID+"/allocations", &list); err != nil {
				return false, "waiting for Nomad", nil
			}
			left, others := stillThere(list)
			moved = max(moved, left)
			if stuck.note(left > 0 && others == 0, time.Now()) >= asksAgain {
				stuck = steady{}
				_ = ask(ctx) // an answer that fails is asked for again
			}
			return left == 0, fmt.Sprintf("%d tasks are still here", left), nil
		})
		if err != nil {
			return fmt.Errorf("drain %s: %w", name, err)
		}
	}
	p.Done("%d tasks moved", moved)
	return nil
}

// cleanHost removes from the host what was put there; a host that doesn't answer is dead.
func (o *operator) cleanHost(ctx context.Context, p *console.Part, h spec.Host) error {
	network, err := o.reach()
	if err != nil {
		return err
	}
	host := network.Host(h.Name)
	if err := host.Await(ctx, deadAfter, func(why string) { p.Doing("%s", why) }); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.Say("%v", err)
		p.Done("it doesn't answer: taken for dead, nothing was removed from it")
		return nil
	}
	script := fmt.Sprintf(`set -eu
if [ -x %[1]s/flownode ]; then %[1]s/flownode remove --data %[2]s; fi
rm -rf %[3]s %[1]s
rmdir /opt/flowplatform 2>/dev/null || true
`, spec.Programs, o.Cluster.OnDestroy, spec.Bundles)
	if o.Cluster.OnDestroy == "erase" {
		script += "rm -rf " + spec.DataDir + "\n"
	}
	return runOn(ctx, p, host, script, nil)
}

// forget makes the others forget a host: its votes first, then that it was a member, then its rights.
func forget(ctx context.Context, p *console.Part, g ground.Ground, h spec.Host) error {
	if h.Has(spec.Server) {
		if err := removePeers(ctx, g, h); err != nil {
			return err
		}
		name := url.QueryEscape(h.Name + ".global")
		if err := g.Nomad.Call(ctx, http.MethodPut, "/v1/agent/force-leave?prune=true&node="+name, nil, nil); err != nil && !isUnknown(err) {
			return fmt.Errorf("take %s out of Nomad's servers: %w", h.Name, err)
		}
	}
	if err := g.Consul.Call(ctx, http.MethodPut, "/v1/agent/force-leave/"+url.PathEscape(h.Name)+"?prune=true", nil, nil); err != nil && !isUnknown(err) {
		return fmt.Errorf("take %s out of Consul: %w", h.Name, err)
	}
	if err := g.Consul.Call(ctx, http.MethodPut, "/v1/catalog/deregister", map[string]string{"Node": h.Name}, nil); err != nil && !isUnknown(err) {
		return fmt.Errorf("take %s out of Consul's catalogue: %w", h.Name, err)
	}
	nodes, err := listNodes(ctx, g)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Name != h.Name {
			continue
		}
		if err := g.Nomad.Call(ctx, http.MethodPost, "/v1/node/"+n.ID+"/purge", nil, nil); err != nil && !isUnknown(err) {
			return fmt.Errorf("take %s out of Nomad: %w", h.Name, err)
		}
	}
	p.Done("it has no vote, no place and no rights any more")
	return nil
}

// isUnknown says that there was nothing to take away.
func isUnknown(err error) bool {
	var answer *api.StatusError
	return errors.As(err, &answer) && (answer.Status == http.StatusNotFound || strings.Contains(answer.Body, "not found") || strings.Contains(answer.Body, "No node found") ||
		strings.Contains(answer.Body, "unknown member"))
}

// removePeers takes a server's votes away: a dead voter counts against the majority.
func removePeers(ctx context.Context, g ground.Ground, h spec.Host) error {
	for name, client := range map[string]*api.Client{"Consul": g.Consul, "Nomad": g.Nomad} {
		var raft struct {
			Servers []struct{ ID, Node, Address string }
		}
		if err := client.Get(ctx, "/v1/operator/raft/configuration", &raft); err != nil {
			return fmt.Errorf("list %s's voters: %w", name, err)
		}
		for _, s := range raft.Servers {
			if !strings.HasPrefix(s.Address, h.PrivateAddress+":") && !strings.HasPrefix(s.Address, "["+h.PrivateAddress+"]:") {
				continue
			}
			err := client.Call(ctx, http.MethodDelete, "/v1/operator/raft/peer?id="+url.QueryEscape(s.ID), nil, nil)
			if err != nil && !isUnknown(err) && !isGone(ctx, client, s.ID) {
				return fmt.Errorf("take %s's vote in %s: %w", h.Name, name, err)
			}
		}
	}
	return nil
}

// isGone says whether a voter has gone by itself: a server that leaves in order takes its vote along.
func isGone(ctx context.Context, client *api.Client, id string) bool {
	var raft struct{ Servers []struct{ ID string } }
	err := client.Get(ctx, "/v1/operator/raft/configuration", &raft)
	return err == nil && !slices.ContainsFunc(raft.Servers, func(s struct{ ID string }) bool { return s.ID == id })
}

// forgetKeys removes what the operator's directory has of a host that is gone. Its rights in Consul go with the next converge, or here if it answers.
func (o *operator) forgetKeys(ctx context.Context, h spec.Host) error {
	unlock, err := o.Keys.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := o.revoke(ctx, h.Name); err != nil {
		return err
	}
	if err := o.Keys.Forget("hosts/" + h.Name); err != nil {
		return err
	}
	if err := o.Keys.SetTokens(map[string]string{access.ConsulAgent(h.Name): "", access.ConsulNomad(h.Name): ""}); err != nil {
		return err
	}
	if err := o.forgetHostKey(ctx, h.Name); err != nil {
		return err
	}
	if err := os.Remove(o.path("hosts", h.Name+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", h.Name, err)
	}
	return nil
}

// revoke takes a host's tokens out of Consul where Consul can be reached.
func (o *operator) revoke(ctx context.Context, name string) error {
	others := o.others(name)
	if o.isDismantled() || len(others.with(spec.Server)) == 0 {
		return nil
	}
	g, err := others.ground(others.tunnel)
	if err != nil {
		return err
	}
	tokens, err := o.Keys.Tokens(access.ConsulAgent(name), access.ConsulNomad(name))
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, secret := range tokens {
		_ = access.Revoke(short, g.Consul, secret) // else with the next converge, which knows the host no longer
	}
	return ctx.Err()
}

// forgetHostKey lets a machine of the same name come with another host key.
func (o *operator) forgetHostKey(ctx context.Context, name string) error {
	known := o.path("known_hosts")
	if _, err := os.Stat(known); err != nil {
		return nil
	}
	unlock, err := o.lock("known-hosts", func() {})
	if err != nil {
		return err
	}
	defer unlock()
	out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-R", name, "-f", known).CombinedOutput()
	if err != nil {
		return fmt.Errorf("forget the host key of %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	os.Remove(known + ".old")
	return nil
}

const dismantledMark = ".dismantled"

// isDismantled says whether the jobs were stopped for good: what follows are removals.
func (o *operator) isDismantled() bool {
	_, err := os.Stat(o.path(dismantledMark))
	return err == nil
}

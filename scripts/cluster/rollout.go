package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/remote"
	"flowplatform/scripts/internal/spec"
)

// becomesHealthy is how long servers may take to be well again after one of them was restarted.
const becomesHealthy = 5 * time.Minute

// applyServer makes a server what it should be, when it is its turn: of the servers of a cluster that runs only one at a time is changed, the others being well
// before and all of them afterwards. That holds for commands side by side, such as Terraform's, too.
func (o *operator) applyServer(ctx context.Context, c *console.Console, h spec.Host, host *remote.Host, node []byte) error {
	var unlock func()
	if err := c.Part("Its turn", func(p *console.Part) error {
		var err error
		if unlock, err = o.lock("servers", func() { p.Doing("waiting for another server") }); err != nil {
			return err
		}
		unlock = sync.OnceFunc(unlock)
		return nil
	}); err != nil {
		return err
	}
	defer unlock()
	gated := false
	var g ground.Ground
	if err := c.Part("Others", func(p *console.Part) error {
		if !differs(ctx, host, node) {
			p.Done("nothing changes here")
			return nil
		}
		runs, err := o.runsAlready(ctx, h)
		if err != nil || !runs {
			p.Done("%s", either(len(o.with(spec.Server)) == 1, "it is the only server", "there is no cluster yet"))
			return err
		}
		gated = true
		if g, err = o.others(h.Name).ground(o.tunnel); err != nil {
			return err
		}
		err = console.Until(ctx, p, becomesHealthy, func(ctx context.Context) (bool, string, error) { return o.healthyWithout(ctx, g, h.Name) })
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%w; with %s away too there would be no majority. Mend the others first, or take a dead one out: flowcluster host remove NAME", err, h.Name)
		}
		p.Done("are well")
		return err
	}); err != nil {
		return err
	}
	if !gated {
		unlock() // new servers come up side by side: the first of them waits for the others anyway
	}
	if err := c.Part("Apply", func(p *console.Part) error { return runOn(ctx, p, host, spec.Programs+"/flownode apply", node) }); err != nil {
		return err
	}
	if !gated {
		return nil
	}
	return c.Part("Health", func(p *console.Part) error { return o.awaitHealth(ctx, p, h) })
}

// staysWell is how long servers must be well without a break: autopilot looks every two seconds, and says meanwhile what it saw before a restart.
const staysWell = 5 * time.Second

// awaitHealth waits until a server that was restarted knows its leaders, and all servers are well and stay so.
func (o *operator) awaitHealth(ctx context.Context, p *console.Part, restarted spec.Host) error {
	alone := *o
	alone.Cluster.Hosts = []spec.Host{restarted}
	self, err := alone.ground(o.tunnel)
	if err != nil {
		return err
	}
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	var well steady
	err = console.Until(ctx, p, becomesHealthy, func(ctx context.Context) (bool, string, error) {
		ok, why, err := o.healthyWithout(ctx, g, "")
		for name, client := range map[string]*api.Client{"Consul": self.Consul, "Nomad": self.Nomad} {
			var leader string
			if client.Get(ctx, "/v1/status/leader", &leader) != nil || strings.Trim(leader, "\"\n ") == "" {
				ok, why = false, "waiting for "+name+" on "+restarted.Name+" to find its leader"
			}
		}
		long := well.note(ok && err == nil, time.Now()) >= staysWell
		if !ok || err != nil {
			return false, why, err
		}
		return long, "all servers are well; waiting to see that they stay so", nil
	})
	p.Done("all servers are well")
	return err
}

// steady measures how long something has been so without a break.
type steady struct{ since time.Time }

// note takes what was just seen, and says for how long it has been so: nothing, when it isn't.
func (s *steady) note(ok bool, now time.Time) time.Duration {
	switch {
	case !ok:
		s.since = time.Time{}
		return 0
	case s.since.IsZero():
		s.since = now
	}
	return now.Sub(s.since)
}

// differs asks flownode whether applying would change anything. One that doesn't know is taken to say yes.
func differs(ctx context.Context, host *remote.Host, node []byte) bool {
	err := host.Run(ctx, remote.Script{Text: spec.Programs + "/flownode check", Input: bytes.NewReader(node), Output: io.Discard})
	return err != nil
}

// runsAlready says whether the other servers are a cluster that was given its rights: before that there is nothing that a restart could harm.
func (o *operator) runsAlready(ctx context.Context, h spec.Host) (bool, error) {
	rest := o.others(h.Name)
	if len(rest.with(spec.Server)) == 0 {
		return false, nil // it is the only one: who changes it has it away for that time
	}
	g, err := rest.ground(o.tunnel)
	if err != nil {
		return false, err
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = g.Consul.Get(short, "/v1/acl/token/self", nil)
	var answer *api.StatusError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &answer) && answer.Status < 500:
		return false, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	}
	return o.hasConverged(), nil // silent: new, or in trouble
}

// health is what autopilot says of the servers, Consul's and Nomad's alike.
type health struct {
	Healthy bool
	Servers []struct {
		Name           string
		Healthy, Voter bool
	}
}

// unwell is the first of the servers that isn't well: not alive, not up to date, without a vote, or not known at all. One is excepted.
func (h health) unwell(servers []spec.Host, except string) (name string, found bool) {
	well := map[string]bool{}
	for _, s := range h.Servers {
		well[strings.TrimSuffix(s.Name, ".global")] = s.Healthy && s.Voter // Nomad adds its region
	}
	for _, s := range servers {
		if s.Name != except && !well[s.Name] {
			return s.Name, true
		}
	}
	return "", false
}

// healthyWithout says whether all servers but one are well: alive, up to date, with a vote. With "" all of them must be.
func (o *operator) healthyWithout(ctx context.Context, g ground.Ground, except string) (bool, string, error) {
	for _, side := range []struct {
		name   string
		client *api.Client
	}{{"Consul", g.Consul}, {"Nomad", g.Nomad}} {
		var now health
		// 429 says that they aren't all well, which the list tells better.
		if err := getTolerant(ctx, side.client, "/v1/operator/autopilot/health", &now); err != nil {
			return false, "waiting for " + side.name + " to answer", nil
		}
		if h, ill := now.unwell(o.with(spec.Server), except); ill {
			return false, fmt.Sprintf("waiting for %s's server on %s", side.name, h), nil
		}
	}
	return true, "", nil
}

// getTolerant also takes the body of an answer that says "too many requests": so do servers say that they are unwell.
func getTolerant(ctx context.Context, client *api.Client, path string, into any) error {
	err := client.Get(ctx, path, into)
	var answer *api.StatusError
	if errors.As(err, &answer) && answer.Status == 429 {
		return answer.Decode(into)
	}
	return err
}

// applyAll makes all hosts what they should be: servers one after another, then the others, a few at a time.
func (o *operator) applyAll(ctx context.Context, c *console.Console) error {
	for _, h := range o.with(spec.Server) {
		if err := o.applyAlone(ctx, c, h); err != nil {
			return err
		}
	}
	var rest []spec.Host
	for _, h := range o.Cluster.Hosts {
		if !h.Has(spec.Server) {
			rest = append(rest, h)
		}
	}
	const aFew = 4
	room := make(chan struct{}, aFew)
	wrong := make([]error, len(rest))
	var all sync.WaitGroup
	for i, h := range rest {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if ctx.Err() == nil {
				wrong[i] = o.applyAlone(ctx, c, h)
			}
		})
	}
	all.Wait()
	return errors.Join(append(wrong, ctx.Err())...)
}

// applyAlone is host apply, among others.
func (o *operator) applyAlone(ctx context.Context, c *console.Console, h spec.Host) error {
	unlock, err := o.lock("host-"+h.Name, func() { c.Line("waiting for another flowcluster that works on " + h.Name) })
	if err != nil {
		return err
	}
	defer unlock()
	if err := o.applyHost(ctx, c.Named(h.Name), h); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// applyEverything is the command apply: all hosts, then the platform on them.
func applyEverything(ctx context.Context, c *console.Console, dir string, args []string) error {
	if len(args) > 0 {
		return usageError("apply takes no arguments")
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	return o.rollOut(ctx, c)
}

func (o *operator) rollOut(ctx context.Context, c *console.Console) error {
	if err := o.applyAll(ctx, c); err != nil {
		return err
	}
	unlock, err := o.lock("cluster", func() { c.Line("waiting for another flowcluster that works on the cluster") })
	if err != nil {
		return err
	}
	defer unlock()
	return o.converge(ctx, c)
}

// upgrade takes another release, of the programs, of Consul and of Nomad, or of any of them, and rolls it out.
func upgrade(ctx context.Context, c *console.Console, dir string, args []string) error {
	file, err := oneFlag("upgrade", "bundle", args)
	if err != nil {
		return err
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	before := o.Cluster.Bundle
	o.Cluster.Bundle = ""
	if err := c.Part("Release", func(p *console.Part) error { return o.takeBundle(ctx, p, file) }); err != nil {
		return err
	}
	if err := o.writeCluster(); err != nil {
		return err
	}
	if err := o.rollOut(ctx, c); err != nil {
		return fmt.Errorf("%w\nThe same command goes on from here; upgrade --bundle %s goes back", err, o.path("bundle", before+".tar.gz"))
	}
	return nil
}

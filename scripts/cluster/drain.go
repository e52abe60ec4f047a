package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/keys"
	"flowplatform/scripts/internal/spec"
)

// drainHost moves a host's tasks elsewhere, or lets them come back.
func drainHost(ctx context.Context, c *console.Console, dir string, args []string) error {
	undo := slices.Contains(args, "--undo")
	name, err := oneName(slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--undo" }))
	if err != nil {
		return err
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	h, err := o.host(name)
	if err != nil {
		return err
	}
	if !h.IsClient() {
		return fmt.Errorf("%s runs no tasks: it is a server only", name)
	}
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	if !undo {
		if h.Has(spec.Data) {
			c.Line("This is the data host: the platform stands still until flowcluster drain --undo " + name)
		}
		return c.Part("Drain "+name, func(p *console.Part) error { return drain(ctx, p, g, name, drainLasts) })
	}
	return c.Part("Take tasks again", func(p *console.Part) error {
		nodes, err := listNodes(ctx, g)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Name != name || n.Status == "down" {
				continue
			}
			body := map[string]any{"DrainSpec": nil, "MarkEligible": true}
			if err := g.Nomad.Call(ctx, http.MethodPost, "/v1/node/"+n.ID+"/drain", body, nil); err != nil {
				return fmt.Errorf("let %s take tasks: %w", name, err)
			}
			return nil
		}
		return errors.New("Nomad doesn't know it as a host that is up")
	})
}

// replaceHost puts a new machine in the place of a dead one, under its name. What the old one had is forgotten first: a dead voter counts against the majority, and
// its host key isn't the new one's.
func replaceHost(ctx context.Context, c *console.Console, dir string, args []string) error {
	name, err := oneName(args)
	if err != nil {
		return err
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	h, err := o.host(name)
	if err != nil {
		return err
	}
	if h.Has(spec.Data) {
		return fmt.Errorf("%s has the data: flowcluster host apply %s makes a new machine what it was, then flowcluster converge, then flowcluster restore DIR", name, name)
	}
	if _, err := o.reach(); err != nil {
		return err
	}
	g, err := o.others(name).ground(o.tunnel)
	if err != nil {
		return err
	}
	if err := c.Part("Others", func(p *console.Part) error {
		err := console.Until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) { return o.healthyWithout(ctx, g, name) })
		p.Done("are well")
		return err
	}); err != nil {
		return fmt.Errorf("%w; one server at a time is replaced, while the others are well", err)
	}
	if err := c.Part("Forget the old", func(p *console.Part) error {
		if err := forget(ctx, p, g, h); err != nil {
			return err
		}
		if err := o.forgetHostKey(ctx, name); err != nil {
			return err
		}
		// Whoever has the old machine's disk has its keys: they are worth nothing from here on. The certificate ends with its year; gossip keys are rotated apart.
		if err := o.Keys.Forget("hosts/" + name); err != nil {
			return err
		}
		return o.Keys.SetTokens(map[string]string{access.ConsulAgent(name): keys.UUID(), access.ConsulNomad(name): keys.UUID()})
	}); err != nil {
		return err
	}
	if err := o.applyAlone(ctx, c, h); err != nil {
		return err
	}
	unlock, err := o.lock("cluster", func() { c.Line("waiting for another flowcluster that works on the cluster") })
	if err != nil {
		return err
	}
	defer unlock()
	return o.converge(ctx, c)
}

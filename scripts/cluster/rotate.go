package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/keys"
	"flowplatform/scripts/internal/spec"
)

// What is being rotated has a second name: the one that comes is made valid first, and the one that goes stays valid until nobody uses it any more. Both are in
// tokens.json, so that a run that was killed is finished by the next, and converge leaves both alone.
const (
	coming = "/next"
	going  = "/old"
)

// rotate puts new keys in the place of old ones.
func rotate(ctx context.Context, c *console.Console, dir string, args []string) error {
	what, err := oneName(args)
	if err != nil {
		return usageError("rotate gossip, certificates or tokens")
	}
	rotations := map[string]func(*operator, context.Context, *console.Console) error{
		"gossip": (*operator).rotateGossip, "certificates": (*operator).rotateCertificates, "tokens": (*operator).rotateTokens,
	}
	do := rotations[what]
	if do == nil {
		return usageError("rotate gossip, certificates or tokens")
	}
	o, err := open(dir)
	if err != nil {
		return err
	}
	defer o.Close()
	if !o.hasConverged() {
		return errors.New("there is no cluster yet: flowcluster converge")
	}
	unlock, err := o.lock("rotate", func() { c.Line("waiting for another flowcluster that rotates keys") })
	if err != nil {
		return err
	}
	defer unlock()
	return do(o, ctx, c)
}

// everybodyIsThere refuses to go on while a host is away: it would come back with keys that nobody knows any more.
func (o *operator) everybodyIsThere(ctx context.Context, c *console.Console, g ground.Ground) error {
	return c.Part("Hosts", func(p *console.Part) error {
		err := console.Until(ctx, p, 30*time.Second, func(ctx context.Context) (bool, string, error) {
			if ok, why, err := o.healthyWithout(ctx, g, ""); !ok || err != nil {
				return ok, why, err
			}
			return o.hostsReady(ctx, g)
		})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%w; every host must be there, or be taken out before: flowcluster host remove NAME", err)
		}
		p.Done("all %d are there", len(o.Cluster.Hosts))
		return err
	})
}

// rotateGossip installs new gossip keys everywhere, uses them, and takes the old ones away.
func (o *operator) rotateGossip(ctx context.Context, c *console.Console) error {
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	if err := o.everybodyIsThere(ctx, c, g); err != nil {
		return err
	}
	keyring, err := o.Keys.Gossip()
	if err != nil {
		return err
	}
	if keyring.ConsulNext == "" {
		keyring.ConsulNext, keyring.NomadNext = keys.GossipKey(), keys.GossipKey()
		if err := o.Keys.WriteJSON("gossip.json", keyring); err != nil {
			return err
		}
	}
	if err := c.Part("Install and use", func(p *console.Part) error {
		return errors.Join(consulKeyring(ctx, g, keyring.ConsulNext), nomadKeyring(ctx, g, keyring.NomadNext))
	}); err != nil {
		return err
	}
	// From here on a host that starts for the first time begins with the new ones.
	done := keys.Gossip{Consul: keyring.ConsulNext, Nomad: keyring.NomadNext}
	if err := c.Part("Take the old away", func(p *console.Part) error {
		n, err := removeOtherKeys(ctx, g, done)
		p.Done("%d", n)
		return err
	}); err != nil {
		return err
	}
	if err := o.Keys.WriteJSON("gossip.json", done); err != nil {
		return err
	}
	return o.applyAll(ctx, c)
}

func consulKeyring(ctx context.Context, g ground.Ground, key string) error {
	body := map[string]string{"Key": key}
	if err := g.Consul.Call(ctx, http.MethodPost, "/v1/operator/keyring", body, nil); err != nil {
		return fmt.Errorf("install Consul's new gossip key: %w", err)
	}
	if err := g.Consul.Call(ctx, http.MethodPut, "/v1/operator/keyring", body, nil); err != nil {
		return fmt.Errorf("use Consul's new gossip key: %w", err)
	}
	return nil
}

func nomadKeyring(ctx context.Context, g ground.Ground, key string) error {
	for _, step := range []string{"install", "use"} {
		if err := g.Nomad.Call(ctx, http.MethodPut, "/v1/agent/keyring/"+step, map[string]string{"Key": key}, nil); err != nil {
			return fmt.Errorf("%s Nomad's new gossip key: %w", step, err)
		}
	}
	return nil
}

// removeOtherKeys takes every key but these out of both keyrings.
func removeOtherKeys(ctx context.Context, g ground.Ground, keep keys.Gossip) (int, error) {
	removed := 0
	var rings []struct{ Keys map[string]int }
	if err := g.Consul.Get(ctx, "/v1/operator/keyring", &rings); err != nil {
		return 0, fmt.Errorf("list Consul's gossip keys: %w", err)
	}
	for _, ring := range rings {
		for key := range ring.Keys {
			if key == keep.Consul {
				continue
			}
			if err := g.Consul.Call(ctx, http.MethodDelete, "/v1/operator/keyring", map[string]string{"Key": key}, nil); err != nil {
				return removed, fmt.Errorf("take Consul's old gossip key away: %w", err)
			}
			removed++
		}
	}
	var ring struct{ Keys map[string]int }
	if err := g.Nomad.Get(ctx, "/v1/agent/keyring/list", &ring); err != nil {
		return removed, fmt.Errorf("list Nomad's gossip keys: %w", err)
	}
	for key := range ring.Keys {
		if key == keep.Nomad {
			continue
		}
		if err := g.Nomad.Call(ctx, http.MethodPut, "/v1/agent/keyring/remove", map[string]string{"Key": key}, nil); err != nil {
			return removed, fmt.Errorf("take Nomad's old gossip key away: %w", err)
		}
		removed++
	}
	return removed, nil
}

// rotateCertificates makes all certificates anew, from the same authority, so that old and new ones trust each other while the hosts take their turns.
func (o *operator) rotateCertificates(ctx context.Context, c *console.Console) error {
	if err := c.Part("Certificates", func(p *console.Part) error {
		unlock, err := o.Keys.Lock()
		if err != nil {
			return err
		}
		files := []string{"operator", "front-door"}
		for _, h := range o.Cluster.Hosts {
			files = append(files, "hosts/"+h.Name)
		}
		err = o.Keys.Forget(files...)
		unlock()
		if err != nil {
			return err
		}
		p.Done("%d made", len(files))
		return o.makeKeys()
	}); err != nil {
		return err
	}
	return o.rollOut(ctx, c)
}

// rotateTokens changes every token: those of the hosts' agents, one host after another, then the operator's own.
func (o *operator) rotateTokens(ctx context.Context, c *console.Console) error {
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	if err := o.everybodyIsThere(ctx, c, g); err != nil {
		return err
	}
	if err := c.Part("New tokens", func(p *console.Part) error {
		for _, h := range o.Cluster.Hosts {
			for _, name := range []string{access.ConsulAgent(h.Name), access.ConsulNomad(h.Name)} {
				if err := o.beginToken(name); err != nil {
					return err
				}
			}
		}
		return o.applyConsul(ctx, g)
	}); err != nil {
		return err
	}
	for _, h := range slices.Concat(o.with(spec.Server), o.without(spec.Server)) {
		names := []string{access.ConsulAgent(h.Name), access.ConsulNomad(h.Name)}
		for _, name := range names {
			if err := o.swapToken(name); err != nil {
				return err
			}
		}
		if err := o.applyAlone(ctx, c, h); err != nil {
			return err
		}
		if err := o.Keys.SetTokens(map[string]string{names[0] + going: "", names[1] + going: ""}); err != nil {
			return err
		}
	}
	if err := c.Part("Take the old away", func(p *console.Part) error { return o.applyConsul(ctx, g) }); err != nil {
		return err
	}
	return c.Part("Operator's own", func(p *console.Part) error {
		for _, rotate := range []func(context.Context) error{func(ctx context.Context) error { return o.rotateConsulManagement(ctx, g) }, o.rotateNomadManagement} {
			if err := console.Until(ctx, p, time.Minute, func(ctx context.Context) (bool, string, error) {
				err := rotate(ctx)
				if answer := (*api.StatusError)(nil); errors.As(err, &answer) && answer.Status >= 500 { // servers that look for a leader
					return false, err.Error(), nil
				}
				return err == nil, "", err
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// without are the hosts that don't have a role.
func (o *operator) without(role string) []spec.Host {
	return slices.DeleteFunc(slices.Clone(o.Cluster.Hosts), func(h spec.Host) bool { return h.Has(role) })
}

// plan is what Consul should know, with the tokens that come and go while a rotation is under way.
func (o *operator) plan() (access.Plan, map[string]string, error) {
	p := access.ForConsul(o.Cluster.Hosts)
	if _, err := o.Keys.Tokens(o.tokenNames()...); err != nil {
		return p, nil, err
	}
	all, err := o.Keys.AllTokens()
	if err != nil {
		return p, nil, err
	}
	for _, t := range slices.Clone(p.Tokens) {
		for _, suffix := range []string{coming, going} {
			if all[t.Name+suffix] != "" {
				second := t
				second.Name += suffix
				p.Tokens = append(p.Tokens, second)
			}
		}
	}
	return p, all, nil
}

func (o *operator) applyConsul(ctx context.Context, g ground.Ground) error {
	plan, tokens, err := o.plan()
	if err != nil {
		return err
	}
	_, err = access.ApplyConsul(ctx, g.Consul, plan, tokens)
	return err
}

// beginToken draws the token that comes; one that an interrupted rotation has drawn, or has already swapped, stays.
func (o *operator) beginToken(name string) error {
	all, err := o.Keys.AllTokens()
	if err != nil || all[name+coming] != "" || all[name+going] != "" {
		return err
	}
	return o.Keys.SetTokens(map[string]string{name + coming: keys.UUID()})
}

// swapToken makes the token that comes the one that is used.
func (o *operator) swapToken(name string) error {
	all, err := o.Keys.AllTokens()
	if err != nil || all[name+coming] == "" {
		return err
	}
	return o.Keys.SetTokens(map[string]string{name: all[name+coming], name + going: all[name], name + coming: ""})
}

func (o *operator) rotateConsulManagement(ctx context.Context, g ground.Ground) error {
	const name = access.ConsulManagement
	if err := o.beginToken(name); err != nil {
		return err
	}
	all, err := o.Keys.AllTokens()
	if err != nil {
		return err
	}
	if next := all[name+coming]; next != "" {
		if err := access.AddManagement(ctx, g.Consul, next); err != nil {
			return err
		}
	}
	if err := o.swapToken(name); err != nil {
		return err
	}
	if g, err = o.ground(o.tunnel); err != nil {
		return err
	}
	if all, err = o.Keys.AllTokens(); err != nil {
		return err
	}
	if err := access.Revoke(ctx, g.Consul, all[name+going]); err != nil {
		return err
	}
	return o.Keys.SetTokens(map[string]string{name + going: ""})
}

// rotateNomadManagement differs: Nomad draws its tokens itself. One whose answer was lost is known to nobody, and taken away by the next rotation.
func (o *operator) rotateNomadManagement(ctx context.Context) error {
	const name, called = access.NomadManagement, "flow operator"
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	var made struct{ SecretID, AccessorID string }
	if err := g.Nomad.Call(ctx, http.MethodPost, "/v1/acl/token", map[string]any{"Name": called, "Type": "management"}, &made); err != nil {
		return fmt.Errorf("make Nomad's new management token: %w", err)
	}
	all, err := o.Keys.AllTokens()
	if err != nil {
		return err
	}
	if err := o.Keys.SetTokens(map[string]string{name: made.SecretID, name + going: all[name]}); err != nil {
		return err
	}
	if g, err = o.ground(o.tunnel); err != nil {
		return err
	}
	var there []struct{ AccessorID, Name, Type string }
	if err := g.Nomad.Get(ctx, "/v1/acl/tokens", &there); err != nil {
		return fmt.Errorf("list Nomad's tokens: %w", err)
	}
	for _, t := range there {
		if t.AccessorID == made.AccessorID || t.Type != "management" || t.Name != called && !strings.HasPrefix(t.Name, "Bootstrap") {
			continue
		}
		if err := g.Nomad.Call(ctx, http.MethodDelete, "/v1/acl/token/"+t.AccessorID, nil, nil); err != nil && !api.HasStatus(err, http.StatusNotFound) {
			return fmt.Errorf("take Nomad's old management token away: %w", err)
		}
	}
	return o.Keys.SetTokens(map[string]string{name + going: ""})
}

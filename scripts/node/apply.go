package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/spec"
)

// apply makes this host what standard input says.
func apply(ctx context.Context, args []string) error {
	o, err := parseOptions("apply", args)
	if err != nil {
		return err
	}
	n, err := readNode(os.Stdin)
	if err != nil {
		return err
	}
	h := thisHost(os.Stdout)
	if err := h.ready(); err != nil {
		return err
	}
	if err := lockedOut(n, sessionOf(os.Getpid())); err != nil {
		return err
	}
	unlock, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := h.learn(ctx, n)
	if err != nil {
		return err
	}
	d, err := desire(n, os.DirFS(o.Configs), f)
	if err != nil {
		return err
	}
	return h.apply(ctx, n, d)
}

// apply does the difference between what is and what should be.
func (h host) apply(ctx context.Context, n spec.Node, d desired) error {
	s, err := h.readState()
	if err != nil {
		return err
	}
	if s.Cluster != "" && (s.Cluster != n.Cluster || s.Host != n.Host.Name) {
		return fmt.Errorf("this host is %s of cluster %s; to make it %s of %s, take it away first: flownode remove --data keep", s.Host, s.Cluster, n.Host.Name, n.Cluster)
	}
	s.Cluster, s.Host = n.Cluster, n.Host.Name
	// Before anything else: whatever happens from here on, remove knows that there is something to take away.
	if err := h.writeState(s); err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func() (string, error)
	}{
		{"Units not wanted", func() (string, error) { return h.dropUnits(ctx, d, &s) }},
		{"Users", func() (string, error) { return h.users(ctx, d) }},
		{"Directories", func() (string, error) { return h.directories(d) }},
		{"Configuration", func() (string, error) { return h.files(ctx, d) }},
	}
	for _, u := range d.Units {
		steps = append(steps, struct {
			name string
			do   func() (string, error)
		}{u.Name, func() (string, error) { return h.unit(ctx, d, u, &s) }})
	}
	for _, step := range steps {
		if err := h.out.Part(step.name, func(p *console.Part) error {
			did, err := step.do()
			p.Done("%s", did)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

const unchanged = "unchanged"

// dropUnits stops and removes our units that this host, whose roles may have changed, has no longer.
func (h host) dropUnits(ctx context.Context, d desired, s *state) (string, error) {
	dropped := h.unwanted(d)
	slices.Reverse(dropped)
	for _, name := range dropped {
		if err := h.dropUnit(ctx, name); err != nil {
			return "", err
		}
		delete(s.Units, name)
		if err := h.writeState(*s); err != nil {
			return "", err
		}
	}
	if len(dropped) == 0 {
		return "none", nil
	}
	return "stopped and removed " + strings.Join(dropped, ", "), nil
}

// unwanted are our units that are here and shouldn't be.
func (h host) unwanted(d desired) []string {
	var found []string
	for _, name := range allUnits() {
		_, err := os.Lstat(h.path(unitFile(name)))
		if err == nil && !slices.ContainsFunc(d.Units, func(u unit) bool { return u.Name == name }) {
			found = append(found, name)
		}
	}
	return found
}

// dropUnit stops a unit for good. What tasks a client leaves behind is for remove to end.
func (h host) dropUnit(ctx context.Context, name string) error {
	if _, err := os.Lstat(h.path(unitFile(name))); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := h.run(ctx, "systemctl", "disable", "--now", "--quiet", name+".service"); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if err := os.Remove(h.path(unitFile(name))); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if _, err := h.run(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	// That it has failed once is of no interest any more; of a unit that hasn't, systemd says that it doesn't know it.
	_, _ = h.run(ctx, "systemctl", "reset-failed", name+".service")
	return nil
}

// users makes the users that agents run as.
func (h host) users(ctx context.Context, d desired) (string, error) {
	i := slices.IndexFunc(d.Files, func(f file) bool { return f.Path == sysusers })
	same, err := h.same(d.Files[i])
	if err == nil && !same {
		err = h.write(d.Files[i])
	}
	if err != nil {
		return "", err
	}
	// Also when the file was there: a killed run may have got no further.
	if _, err := h.run(ctx, "systemd-sysusers", h.path(sysusers)); err != nil {
		return "", err
	}
	if same {
		return unchanged, nil
	}
	return "flow-consul, flow-nomad", nil
}

func (h host) directories(d desired) (string, error) {
	made := 0
	for _, dir := range d.Directories {
		settled, err := h.settled(dir)
		if err == nil && !settled {
			made++
			err = h.settle(dir)
		}
		if err != nil {
			return "", err
		}
	}
	if made == 0 {
		return unchanged, nil
	}
	return fmt.Sprintf("%d made or mended", made), nil
}

// files writes what differs, removes what isn't wanted, and tells systemd.
func (h host) files(ctx context.Context, d desired) (string, error) {
	written := 0
	for _, f := range d.Files {
		same, err := h.same(f)
		if err == nil && !same {
			written++
			err = h.write(f)
		}
		if err != nil {
			return "", err
		}
	}
	strangers, err := h.strangers(d)
	if err != nil {
		return "", err
	}
	for _, path := range strangers {
		if err := os.RemoveAll(h.path(path)); err != nil {
			return "", err
		}
	}
	// Also when nothing was written: it takes milliseconds, and a killed run may have got no further.
	if _, err := h.run(ctx, "systemctl", "daemon-reload"); err != nil {
		return "", err
	}
	if written+len(strangers) == 0 {
		return unchanged, nil
	}
	return fmt.Sprintf("%d files written, %d removed", written, len(strangers)), nil
}

// unit makes sure that a unit runs, from what it should be made from, and answers.
func (h host) unit(ctx context.Context, d desired, u unit, s *state) (string, error) {
	fingerprint, err := h.fingerprint(d, u)
	if err != nil {
		return "", err
	}
	service := u.Name + ".service"
	active := h.is(ctx, "is-active", service)
	inForce := active && (u.Name != unitFirewall || h.rules(ctx) == s.Rules)
	if !h.is(ctx, "is-enabled", service) {
		if _, err := h.run(ctx, "systemctl", "enable", "--quiet", service); err != nil {
			return "", err
		}
	}
	if inForce && s.Units[u.Name] == fingerprint {
		return unchanged, nil
	}
	verb, did := "restart", "started"
	switch {
	case u.Name == unitFirewall && active:
		verb, did = "reload", "reloaded" // a restart would leave the host open in between
	case active:
		did = "restarted: its files or its program have changed"
	}
	start := time.Now()
	if _, err := h.run(ctx, "systemctl", verb, service); err != nil {
		return "", h.explain(ctx, u, err)
	}
	if u.URL != "" {
		if err := h.wait(ctx, d, u); err != nil {
			return "", h.explain(ctx, u, err)
		}
		did += fmt.Sprintf(", answered after %.1f s", time.Since(start).Seconds())
	}
	s.Units[u.Name] = fingerprint
	if u.Name == unitFirewall {
		s.Rules = h.rules(ctx)
	}
	return did, h.writeState(*s)
}

// rules is a fingerprint of the firewall as the kernel has it: somebody may have flushed it, or opened it by hand.
func (h host) rules(ctx context.Context) string {
	said, err := h.run(ctx, "nft", "--stateless", "list", "table", "inet", "flowplatform")
	if err != nil {
		return "none"
	}
	sum := sha256.Sum256([]byte(said))
	return hex.EncodeToString(sum[:])
}

// is asks systemd a question about a unit.
func (h host) is(ctx context.Context, question, service string) bool {
	_, err := h.run(ctx, "systemctl", question, "--quiet", service)
	return err == nil
}

// explain adds what the unit has said last.
func (h host) explain(ctx context.Context, u unit, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	said, _ := h.run(ctx, "journalctl", "-u", u.Name+".service", "-n", "15", "--no-pager", "-o", "cat")
	if said = strings.TrimSpace(said); said == "" {
		said = "(nothing)"
	}
	return fmt.Errorf("%w. What it said last (journalctl -u %s):\n   | %s", err, u.Name, strings.ReplaceAll(said, "\n", "\n   | "))
}

// bundle is the sum of the bundle that this host has, as its directory is called.
func (h host) bundle() string {
	target, err := os.Readlink(h.path(spec.Bundles + "/current"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

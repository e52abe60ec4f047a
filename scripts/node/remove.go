package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/leftovers"
	"flowplatform/scripts/internal/spec"
)

// remove takes away what apply has made. It needs no document: everything of ours has a name of ours. Debian's packages stay.
func remove(ctx context.Context, args []string) error {
	flags := quiet("remove")
	data := flags.String("data", "", "")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *data != "keep" && *data != "erase" {
		return fmt.Errorf("%w: --data keep leaves the volumes (databases, queues), --data erase leaves nothing", errUsage)
	}
	h := thisHost(os.Stdout)
	if err := h.ready(); err != nil {
		return err
	}
	if _, err := os.Stat(h.path(spec.NodeState)); errors.Is(err, fs.ErrNotExist) {
		h.out.Line("Nothing to remove: no flownode apply has been here")
		return nil
	}
	unlock, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return h.remove(ctx, *data == "erase")
}

func (h host) remove(ctx context.Context, erase bool) error {
	steps := []struct {
		name string
		do   func(context.Context, *console.Part) (string, error)
	}{
		{"Agents", h.stopAgents},
		{"What tasks left", h.endTasks},
		{"Configuration", func(context.Context, *console.Part) (string, error) { return h.erase(configured()) }},
		{"Data", func(context.Context, *console.Part) (string, error) { return h.eraseData(erase) }},
		// Last, and the firewall with it: while anything of ours runs, nobody from outside reaches it.
		{"Firewall", func(ctx context.Context, _ *console.Part) (string, error) {
			return "its table is gone", h.dropUnit(ctx, unitFirewall)
		}},
		{"Programs, state", func(ctx context.Context, _ *console.Part) (string, error) { return h.eraseRest(ctx, erase) }},
	}
	for _, step := range steps {
		if err := h.out.Part(step.name, func(p *console.Part) error {
			did, err := step.do(ctx, p)
			p.Done("%s", did)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (h host) stopAgents(ctx context.Context, _ *console.Part) (string, error) {
	stopping := allUnits()[1:]
	slices.Reverse(stopping)
	for _, name := range stopping {
		if err := h.dropUnit(ctx, name); err != nil {
			return "", err
		}
	}
	return "stopped", nil
}

// endTasks ends what outlives the client: asked first, killed after a while. On a drained host there is nothing.
func (h host) endTasks(ctx context.Context, p *console.Part) (string, error) {
	left := func() []leftovers.Process { return leftovers.Tasks(h.path(spec.DataDir + "/nomad-client/alloc")) }
	asked := left()
	for _, process := range asked {
		if err := process.Signal(syscall.SIGTERM); err != nil {
			return "", err
		}
	}
	const patience = 30 * time.Second
	for start := time.Now(); len(left()) > 0; {
		kill := time.Since(start) > patience
		p.Doing("waiting for %d processes of tasks to end", len(left()))
		for _, process := range left() {
			if !kill {
				break
			}
			if err := process.Signal(syscall.SIGKILL); err != nil {
				return "", err
			}
		}
		if time.Since(start) > 2*patience {
			return "", fmt.Errorf("processes of tasks don't end, also when killed: %v; they wait for a disk, perhaps: restart the host, then run it again", left())
		}
		if err := pause(ctx); err != nil {
			return "", err
		}
	}
	// Nomad's own helpers, one a task, which the service has left for the next agent.
	for _, process := range h.left() {
		if err := process.Signal(syscall.SIGKILL); err != nil {
			return "", err
		}
	}
	for start := time.Now(); len(h.left()) > 0; {
		if time.Since(start) > patience {
			return "", errors.New("Nomad's helpers don't end, also when killed")
		}
		if err := pause(ctx); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{"nomad-client", "alloc_mounts"} {
		if err := leftovers.Unmount(h.path(spec.DataDir + "/" + dir)); err != nil {
			return "", err
		}
	}
	if len(asked) == 0 {
		return "nothing", nil
	}
	return fmt.Sprintf("%d processes ended", len(asked)), nil
}

// pause is for what the system sends no signal about: the end of other processes' children.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}

// configured is what holds secrets and rendered files.
func configured() []string { return []string{spec.Configuration} }

// eraseData removes what agents and tasks have written; the volumes only if that is wanted.
func (h host) eraseData(erase bool) (string, error) {
	paths := []string{}
	for _, name := range []string{"consul", "nomad-server", "nomad-client", "alloc_mounts", "artifacts"} {
		paths = append(paths, spec.DataDir+"/"+name)
	}
	if erase {
		for _, v := range volumes() {
			paths = append(paths, v.Path)
		}
	}
	did, err := h.erase(paths)
	if err != nil {
		return "", err
	}
	// A disk of its own may be mounted there: then it stays, empty.
	all := spec.DataDir + "/volumes"
	if os.Remove(h.path(all)) != nil && !erase {
		if _, err := os.Stat(h.path(all)); err == nil {
			did += "; kept " + all
		}
	}
	return did, nil
}

// eraseRest removes the programs, this one too, and what was written down, the last of all: as long as it is there, remove can go on.
func (h host) eraseRest(ctx context.Context, erase bool) (string, error) {
	did, err := h.erase([]string{spec.Bundles, spec.Programs, filepath.Dir(spec.Programs), sysusers})
	if err != nil {
		return "", err
	}
	if erase {
		for _, user := range []string{"flow-consul", "flow-nomad"} {
			// Of users that were never made, or are gone, it says so and fails.
			_, _ = h.run(ctx, "userdel", user)
		}
	}
	if _, err := h.run(ctx, "systemctl", "daemon-reload"); err != nil {
		return "", err
	}
	if err := os.RemoveAll(h.path(spec.NodeState)); err != nil {
		return "", err
	}
	// With the volumes in it, it stays.
	_ = os.Remove(h.path(spec.DataDir))
	return did, nil
}

// erase removes trees. Nothing may be mounted in them: a mount is somebody else's data.
func (h host) erase(paths []string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	var removed []string
	for _, path := range paths {
		if _, err := os.Lstat(h.path(path)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if inside := leftovers.MountsBelow(string(mounts), h.path(path)); len(inside) > 0 {
			return "", fmt.Errorf("%s is mounted: unmount it first; nothing in %s was removed", strings.Join(inside, ", "), path)
		}
		if err := os.RemoveAll(h.path(path)); err != nil {
			return "", err
		}
		removed = append(removed, path)
	}
	if len(removed) == 0 {
		return "nothing", nil
	}
	return "removed " + strings.Join(removed, ", "), nil
}

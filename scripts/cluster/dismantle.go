package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"flowplatform/scripts/internal/access"
	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/jobs"
)

// dismantle stops the jobs in order, as the last thing before hosts are removed. What was never there, or can no longer be reached, is left as it is: destroying
// must not fail over a cluster that is dead already.
func dismantle(ctx context.Context, c *console.Console, dir string, args []string) error {
	if len(args) > 0 {
		return usageError("dismantle takes no arguments")
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
	if err := replaceFile(o.path(dismantledMark), []byte("flowcluster converge takes this away.\n")); err != nil {
		return err
	}
	// What may be made of these hosts, or of others, by the same directory is new: no server of it has to wait for one that is gone.
	if err := os.Remove(o.path(convergedMark)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget that the cluster runs: %w", err)
	}
	g, err := o.ground(o.tunnel)
	if err != nil {
		return err
	}
	var leader string
	if err := g.Nomad.Get(ctx, "/v1/status/leader", &leader); err != nil || leader == "" {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.Line(fmt.Sprintf("Nomad doesn't answer (%v): its jobs are left to the removal of the hosts", err))
		return nil
	}
	tokens, err := o.Keys.Tokens(access.NomadManagement)
	if err != nil {
		return err
	}
	if _, err := access.BootstrapNomad(ctx, g.Nomad, tokens[access.NomadManagement]); err != nil {
		return err
	}
	runner := jobs.Runner{Ground: g}
	for _, st := range jobs.Stopping() {
		if err := c.Part(st.Name, func(p *console.Part) error { return runner.Stop(ctx, p, st.Jobs) }); err != nil {
			return err
		}
	}
	return nil
}

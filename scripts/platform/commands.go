package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/jobs"
	"flowplatform/scripts/internal/leftovers"
	"flowplatform/scripts/internal/login"
	"flowplatform/scripts/internal/secrets"
)

// up makes everything what it should be.
func up(ctx context.Context, s settings, c *console.Console) error {
	g := s.ground()
	unlock, err := s.prepare(ctx, c, g)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.Part("Build", func(p *console.Part) error { return s.release(ctx, p) }); err != nil {
		return err
	}
	if err := s.upAgents(ctx, c, g); err != nil {
		return err
	}
	for _, st := range jobs.Stages() {
		if err := s.upStage(ctx, c, g, st); err != nil {
			return err
		}
	}
	return s.welcome(ctx, c, g)
}

// servers brings up the ground alone: for work on a service that runs outside of Nomad, or on the ground itself.
func servers(ctx context.Context, s settings, c *console.Console) error {
	g := s.ground()
	unlock, err := s.prepare(ctx, c, g)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.describe(nil); err != nil {
		return err
	}
	if err := s.upAgents(ctx, c, g); err != nil {
		return err
	}
	if err := s.upStage(ctx, c, g, jobs.Stages()[0]); err != nil {
		return err
	}
	for _, row := range s.addresses()[2:] {
		c.Line(fmt.Sprintf(" %-12s %s", row[0], row[1]))
	}
	return nil
}

// prepare does what comes before anything runs: the data directory, its lock, the ports, and what must be installed.
func (s settings) prepare(ctx context.Context, c *console.Console, g ground.Ground) (unlock func(), err error) {
	if unlock, err = s.begin(true); err != nil {
		return nil, err
	}
	err = errors.Join(s.search(isFree), s.remember(), s.checkFrontDoorPort(ctx, g))
	if err == nil {
		err = c.Part("Install", func(p *console.Part) error { return s.install(ctx, c) })
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

func (s settings) upStage(ctx context.Context, c *console.Console, g ground.Ground, st jobs.Stage) error {
	return c.Part(st.Name, func(p *console.Part) error {
		changed, err := s.runner(g).Run(ctx, p, st.Jobs)
		p.Done("%s", either(len(changed) == 0, "unchanged", strings.Join(changed, ", ")))
		return err
	})
}

// release builds, publishes, and writes down what the jobs need to know.
func (s settings) release(ctx context.Context, p *console.Part) error {
	p.Doing("gateway, orchestrator, worker, migrate, flowctl")
	if err := s.build(ctx); err != nil {
		return err
	}
	versions, fresh, err := s.publish()
	if err != nil {
		return err
	}
	p.Done("%s", either(len(fresh) == 0, "unchanged", "new: "+strings.Join(fresh, ", ")))
	return s.describe(versions)
}

// describe makes the volumes and writes down what jobs need to know of this machine.
func (s settings) describe(versions map[string]string) error {
	if err := s.makeVolumes(); err != nil {
		return err
	}
	bin, err := s.postgresBin()
	if err != nil {
		return err
	}
	return s.jobVariables(versions, bin)
}

func (s settings) upAgents(ctx context.Context, c *console.Console, g ground.Ground) error {
	ready := map[string]func(context.Context) (bool, string, error){
		"consul":       g.ConsulReady,
		"nomad-server": g.ServerReady,
		"nomad-client": s.clientReady(g),
	}
	for _, a := range agents() {
		name := strings.ReplaceAll(strings.ToUpper(a.Name[:1])+a.Name[1:], "-", " ")
		if err := c.Part(name, func(p *console.Part) error {
			did, err := s.ensure(ctx, p, a, ready[a.Name])
			p.Done("%s", did)
			return err
		}); err != nil {
			return err
		}
	}
	return c.Part("Secrets", func(p *console.Part) error {
		written, err := secrets.Ensure(ctx, g)
		p.Done("%s", either(written == 0, "unchanged", fmt.Sprintf("%d Nomad Variables written", written)))
		return err
	})
}

// welcome makes the first user, logs flowctl in, proves that a flow runs, and says where everything is.
func (s settings) welcome(ctx context.Context, c *console.Console, g ground.Ground) error {
	var first *login.User
	err := c.Part("First user", func(p *console.Part) (err error) {
		if first, err = login.FirstUser(ctx, g, login.User{}, nil); err != nil {
			return err
		}
		said, err := s.logIn(ctx, g)
		p.Done("%s", either(first == nil, "is there; ", "made; ")+said)
		return err
	})
	// Whatever goes wrong from here on: this password is never shown again.
	if first != nil {
		defer c.Line(fmt.Sprintf("\n First login (shown this once):  %s  %s", first.Email, first.Password))
	}
	if err != nil {
		return err
	}
	if err := c.Part("Sample flow", func(p *console.Part) error {
		result, err := login.Sample(ctx, s.flowctl(), withoutLogin(), filepath.Join(s.Root, "scripts", "sample", "hello.json"))
		p.Done("%s", result)
		return err
	}); err != nil {
		return err
	}
	c.Line(fmt.Sprintf(" ─ %-22s %6.1fs\n", "all", time.Since(c.Started).Seconds()))
	for _, row := range s.addresses() {
		c.Line(fmt.Sprintf(" %-12s %s", row[0], row[1]))
	}
	return nil
}

func (s settings) addresses() [][2]string {
	return [][2]string{
		{"Front door", s.frontDoor()},
		{"API docs", s.frontDoor() + "/api/docs"},
		{"Consul", fmt.Sprintf("http://localhost:%d/ui", s.Ports["CONSUL_PORT"])},
		{"Nomad", fmt.Sprintf("http://localhost:%d/ui", s.Ports["NOMAD_PORT"])},
		{"Prometheus", fmt.Sprintf("http://localhost:%d", s.Ports["PROMETHEUS_PORT"])},
		{"Data, logs", s.DataDir},
	}
}

// checkFrontDoorPort finds out before anything is started that users' address is somebody else's.
func (s settings) checkFrontDoorPort(ctx context.Context, g ground.Ground) error {
	var taken *portTaken
	if err := requireFree(s, "FRONT_DOOR_PORT"); !errors.As(err, &taken) {
		return err
	}
	if _, alive := s.running("nomad-server"); !alive {
		return taken
	}
	var instances []struct{ ServicePort int }
	if err := g.Consul.Get(ctx, "/v1/catalog/service/front-door", &instances); err != nil {
		return taken
	}
	for _, i := range instances {
		if i.ServicePort == taken.Port {
			return nil // it is ours
		}
	}
	return taken
}

// down stops the jobs, those first that others need least, then the agents.
func down(ctx context.Context, s settings, c *console.Console) error {
	if !s.isOurs() {
		c.Line("Nothing is running: there is no " + s.DataDir)
		return nil
	}
	unlock, err := s.begin(false)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.downJobs(ctx, c); err != nil {
		return err
	}
	stopping := agents()
	slices.Reverse(stopping)
	for _, a := range stopping {
		if _, alive := s.running(a.Name); !alive {
			continue
		}
		if err := c.Part("Stop "+strings.ReplaceAll(a.Name, "-", " "), func(p *console.Part) error { return s.stop(ctx, p, a.Name) }); err != nil {
			return err
		}
	}
	if err := c.Part("Look for orphans", func(p *console.Part) error { return s.endOrphans(ctx, p) }); err != nil {
		return err
	}
	c.Line("\n Everything is stopped; the data is in " + s.DataDir)
	return nil
}

func (s settings) downJobs(ctx context.Context, c *console.Console) error {
	if _, alive := s.running("nomad-server"); !alive {
		return nil
	}
	g := s.ground()
	if err := c.Part("Reach Nomad", func(p *console.Part) error {
		return console.Until(ctx, p, 30*time.Second, func(ctx context.Context) (bool, string, error) {
			var leader string
			err := g.Nomad.Get(ctx, "/v1/status/leader", &leader)
			return err == nil && leader != "", "waiting for Nomad to answer", nil
		})
	}); err != nil {
		return err
	}
	for _, st := range jobs.Stopping() {
		if err := c.Part(st.Name, func(p *console.Part) error { return s.runner(g).Stop(ctx, p, st.Jobs) }); err != nil {
			return err
		}
	}
	return nil
}

// clean takes everything down and removes the data directory.
func clean(ctx context.Context, s settings, c *console.Console) error {
	if _, err := os.Stat(s.DataDir); errors.Is(err, os.ErrNotExist) {
		c.Line("Nothing to remove: there is no " + s.DataDir)
		return nil
	}
	if !s.isOurs() {
		return fmt.Errorf("%s bears no mark of the platform (%s): not removed", s.DataDir, markerName)
	}
	if err := down(ctx, s, c); err != nil {
		return err
	}
	return c.Part("Remove the data", func(p *console.Part) error {
		if err := leftovers.Unmount(s.DataDir); err != nil {
			return err
		}
		// rm stays on this file system, whatever may be mounted there.
		out, err := exec.CommandContext(ctx, "rm", "-rf", "--one-file-system", "--", s.DataDir).CombinedOutput()
		if err != nil {
			return fmt.Errorf("remove %s: %w: %s", s.DataDir, err, strings.TrimSpace(string(out)))
		}
		p.Done("%s is gone", s.DataDir)
		return nil
	})
}

// endOrphans kills what is left of tasks whose executor died before them: nobody else would, and they would go on writing
// to their volumes.
func (s settings) endOrphans(ctx context.Context, p *console.Part) error {
	killed := map[string]bool{}
	err := console.Until(ctx, p, 15*time.Second, func(context.Context) (bool, string, error) {
		left := leftovers.Tasks(s.path("nomad-client", "alloc"))
		for _, o := range left {
			killed[o.String()] = true
			if err := o.Signal(syscall.SIGKILL); err != nil {
				return false, "", err
			}
		}
		return len(left) == 0, "killing what is left of tasks", nil
	})
	p.Done("%s", either(len(killed) == 0, "none", "killed "+strings.Join(slices.Sorted(maps.Keys(killed)), ", ")))
	return err
}

// status says what runs and where.
func status(ctx context.Context, s settings, c *console.Console) error {
	for _, a := range agents() {
		r, alive := s.running(a.Name)
		c.Line(fmt.Sprintf(" %-14s %s", a.Name, either(alive, fmt.Sprintf("process %d", r.PID), "not running")))
	}
	if _, alive := s.running("nomad-server"); !alive {
		return nil
	}
	g := s.ground()
	for _, stage := range jobs.Stages() {
		for _, name := range stage.Jobs {
			ok, why, err := s.runner(g).Healthy(ctx, name)
			switch {
			case err != nil:
				why = err.Error()
			case ok:
				why = "healthy"
			}
			c.Line(fmt.Sprintf(" %-14s %s", name, strings.TrimPrefix(why, name+": ")))
		}
	}
	c.Line(fmt.Sprintf(" %-14s %s", "scraped", s.sayTargets(ctx)))
	for _, row := range s.addresses() {
		c.Line(fmt.Sprintf(" %-14s %s", row[0], row[1]))
	}
	return nil
}

// begin makes sure that nobody else brings up or takes down the same platform at the same time.
func (s settings) begin(create bool) (unlock func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("run as root: tasks run in chroots, each as a user of its own")
	}
	syscall.Umask(0o022)
	if create {
		if err := s.ownDataDir(); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(s.path(markerName), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", s.DataDir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another make up, down or clean is at work on %s", s.DataDir)
	}
	return func() { f.Close() }, nil
}

func either(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

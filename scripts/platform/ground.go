package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// volume is a directory that outlives tasks, owned by the user that its job runs as.
type volume struct{ Name, User string }

func volumes() []volume {
	return []volume{{"postgres", "postgres"}, {"rabbitmq", "rabbitmq"}, {"redis", "redis"}}
}

// makeVolumes makes the directories that Nomad's host volumes point at.
func (s settings) makeVolumes() error {
	for _, v := range volumes() {
		owner, err := user.Lookup(v.User)
		if err != nil {
			return fmt.Errorf("volume %s: %w; Debian's package should have made this user", v.Name, err)
		}
		uid, err1 := strconv.Atoi(owner.Uid)
		gid, err2 := strconv.Atoi(owner.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		dir := s.path("volumes", v.Name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	if err := os.MkdirAll(s.path("artifacts"), 0o755); err != nil {
		return fmt.Errorf("make the directory of artifacts: %w", err)
	}
	return nil
}

// postgresBin finds PostgreSQL's programs: those of the version that made the cluster on the volume, else the newest.
func (s settings) postgresBin() (string, error) {
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	newest := 0
	for _, program := range installed {
		if version, err := strconv.Atoi(strings.Split(program, "/")[4]); err == nil {
			newest = max(newest, version)
		}
	}
	clusters, _ := filepath.Glob(s.path("volumes", "postgres", "*", "PG_VERSION"))
	version := 0
	for _, file := range clusters {
		if v, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			version = max(version, v)
		}
	}
	if version == 0 {
		version = newest
	}
	bin := fmt.Sprintf("/usr/lib/postgresql/%d/bin", version)
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err != nil {
		return "", fmt.Errorf("PostgreSQL %d, which made the data in %s, is not installed: apt-get install postgresql-%d", version, s.path("volumes", "postgres"), version)
	}
	return bin, nil
}

// ground is the pair of agents as their HTTP APIs show them.
type ground struct {
	consul *api
	nomad  *api
}

func (s settings) ground() ground {
	return ground{
		consul: newAPI(s.url("CONSUL_PORT"), "X-Consul-Token", s.ConsulToken),
		nomad:  newAPI(s.url("NOMAD_PORT"), "X-Nomad-Token", s.NomadToken),
	}
}

// consulReady says whether Consul has a leader and answers from its catalogue.
func (g ground) consulReady(ctx context.Context) (bool, string, error) {
	var leader string
	if err := g.consul.get(ctx, "/v1/status/leader", &leader); err != nil || leader == "" {
		return false, "waiting for Consul to elect its leader", nil
	}
	if err := g.consul.get(ctx, "/v1/catalog/service/consul", nil); err != nil {
		return false, "waiting for Consul's catalogue", nil
	}
	return true, "", nil
}

// nomadReady says whether Nomad has a leader and this machine offers what jobs need.
func (g ground) nomadReady(node string) func(context.Context) (bool, string, error) {
	return func(ctx context.Context) (bool, string, error) {
		var leader string
		if err := g.nomad.get(ctx, "/v1/status/leader", &leader); err != nil || leader == "" {
			return false, "waiting for Nomad to elect its leader", nil
		}
		var nodes []struct {
			Name, Status, SchedulingEligibility string
			Drivers                             map[string]struct{ Healthy bool }
		}
		if err := g.nomad.get(ctx, "/v1/nodes", &nodes); err != nil {
			return false, "waiting for Nomad's list of nodes", nil
		}
		for _, n := range nodes {
			if n.Name != node || n.Status != "ready" {
				continue
			}
			if n.SchedulingEligibility != "eligible" {
				return false, "this node is not eligible: nomad node eligibility -self -enable", nil
			}
			if !n.Drivers["exec"].Healthy {
				return false, "waiting for Nomad's exec driver (it needs root and cgroups)", nil
			}
			return true, "", nil
		}
		return false, "waiting for Nomad's client to join", nil
	}
}

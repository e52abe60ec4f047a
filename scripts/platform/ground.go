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

	"flowplatform/scripts/internal/api"
	"flowplatform/scripts/internal/ground"
)

// volume is a directory that outlives tasks, owned by the user that its job runs as.
type volume struct{ Name, User string }

func volumes() []volume {
	return []volume{{"postgres", "postgres"}, {"rabbitmq", "rabbitmq"}, {"redis", "redis"}, {"prometheus", "prometheus"}}
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

func (s settings) ground() ground.Ground {
	return ground.Ground{
		Consul: api.New(s.url("CONSUL_PORT"), api.ConsulToken, s.ConsulToken),
		Nomad:  api.New(s.url("NOMAD_PORT"), api.NomadToken, s.NomadToken),
	}
}

// clientReady says whether this machine, as its own client sees itself, has joined and offers what jobs need.
func (s settings) clientReady(g ground.Ground) func(context.Context) (bool, string, error) {
	client := api.New(s.url("NOMAD_CLIENT_PORT"), api.NomadToken, s.NomadToken)
	return func(ctx context.Context) (bool, string, error) {
		var self struct {
			Stats map[string]map[string]string
		}
		if err := client.Get(ctx, "/v1/agent/self", &self); err != nil {
			return false, "waiting for Nomad's client to answer", nil
		}
		id := self.Stats["client"]["node_id"]
		var node struct {
			Status, SchedulingEligibility string
			Drivers                       map[string]struct{ Healthy bool }
		}
		if err := g.Nomad.Get(ctx, "/v1/node/"+id, &node); err != nil {
			return false, "waiting for Nomad's client to join", nil
		}
		switch {
		case node.Status != "ready":
			return false, "this machine is " + node.Status + " to Nomad", nil
		case node.SchedulingEligibility != "eligible":
			return false, "this machine takes no tasks: nomad node eligibility -enable " + id, nil
		case !node.Drivers["exec"].Healthy:
			return false, "waiting for Nomad's exec driver (it needs root and control groups)", nil
		}
		return true, "", nil
	}
}

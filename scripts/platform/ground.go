package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// serverReady says whether Nomad has a leader that has read its state and has its keys.
func (g ground) serverReady(ctx context.Context) (bool, string, error) {
	var leader string
	if err := g.nomad.get(ctx, "/v1/status/leader", &leader); err != nil || leader == "" {
		return false, "waiting for Nomad to elect its leader", nil
	}
	var keys []struct{ State string }
	if err := g.nomad.get(ctx, "/v1/operator/keyring/keys", &keys); err != nil {
		return false, "waiting for Nomad's keys", nil
	}
	active := slices.ContainsFunc(keys, func(k struct{ State string }) bool { return k.State == "active" })
	return active, "waiting for Nomad to make its keys", nil
}

// clientReady says whether this machine, as its own client sees itself, has joined and offers what jobs need.
func (s settings) clientReady(g ground) func(context.Context) (bool, string, error) {
	client := newAPI(s.url("NOMAD_CLIENT_PORT"), "X-Nomad-Token", s.NomadToken)
	return func(ctx context.Context) (bool, string, error) {
		var self struct {
			Stats map[string]map[string]string
		}
		if err := client.get(ctx, "/v1/agent/self", &self); err != nil {
			return false, "waiting for Nomad's client to answer", nil
		}
		id := self.Stats["client"]["node_id"]
		var node struct {
			Status, SchedulingEligibility string
			Drivers                       map[string]struct{ Healthy bool }
		}
		if err := g.nomad.get(ctx, "/v1/node/"+id, &node); err != nil {
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

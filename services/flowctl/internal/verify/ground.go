package verify

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// ground is what Consul and Nomad said at first, which several areas go by.
type ground struct {
	members                 []member
	nodes                   []node
	consulAway, nomadAway   error // why they can't be asked
	consulUnset, nomadUnset bool  // nobody has said that there is one
}

// look asks once. Errors come up again in the rows.
func (g *ground) look(ctx context.Context, o Options) {
	if g.consulAway = o.Consul.get(ctx, "/v1/agent/members", &g.members); g.consulAway != nil {
		g.consulUnset = !o.Consul.Given
	}
	if g.nomadAway = o.Nomad.get(ctx, "/v1/nodes", &g.nodes); g.nomadAway != nil {
		g.nomadUnset = !o.Nomad.Given
	}
}

// single says that this is one machine, as make up makes it: its agents listen on the loopback alone and know no tokens.
func (g *ground) single() bool { return max(len(g.members), len(g.nodes)) <= 1 }

// member of Consul's gossip.
type member struct {
	Name, Addr string
	Status     int
	Tags       map[string]string
}

// node is a host that runs tasks.
type node struct {
	ID, Name, Address, Status, SchedulingEligibility, Version string
	Drain                                                     bool
}

// autopilot is what Consul and Nomad alike say of their servers.
type autopilot struct {
	Healthy          bool
	FailureTolerance int
	Servers          []server
}

type server struct {
	Name, Address, SerfStatus, Version string
	Leader, Healthy, Voter             bool
}

// away gives the row for an endpoint that can't be asked: a failure only where somebody has said that it is there.
func away(e *Endpoint, unset bool, err error) finding {
	variable := map[string]string{"Consul": "CONSUL_HTTP_ADDR", "Nomad": "NOMAD_ADDR"}[e.Name]
	if unset {
		return skipped("%s can't be asked: %s isn't set, and %s doesn't answer (inside `flowcluster exec` it is)", e.Name, variable, e.URL)
	}
	return failed("%s at %s can't be asked: %v", e.Name, e.URL, err)
}

func (r *run) consul(ctx context.Context) {
	c := r.o.Consul
	if r.ground.consulAway != nil {
		r.check(ctx, "consul", "answers", func(context.Context) finding { return away(c, r.ground.consulUnset, r.ground.consulAway) })
		return
	}
	r.check(ctx, "consul", "quorum", func(ctx context.Context) finding { return quorum(ctx, c, r.ground.single()) })
	r.check(ctx, "consul", "members", func(context.Context) finding { return judgeMembers(r.ground.members) })
	r.check(ctx, "consul", "checks", func(ctx context.Context) finding {
		var all []healthCheck
		if err := c.get(ctx, "/v1/health/state/any", &all); err != nil {
			return failed("%v", err)
		}
		return judgeChecks(all)
	})
}

// quorum asks who leads and whether the servers that vote are well.
func quorum(ctx context.Context, e *Endpoint, single bool) finding {
	var leader string
	if err := e.get(ctx, "/v1/status/leader", &leader); err != nil {
		return failed("%v", err)
	}
	var peers []string
	if err := e.get(ctx, "/v1/status/peers", &peers); err != nil {
		return failed("%v", err)
	}
	var a autopilot
	if err := e.call(ctx, http.MethodGet, "/v1/operator/autopilot/health", nil, &a, http.StatusTooManyRequests); err != nil { // 429: not healthy
		return failed("%v", err)
	}
	return judgeQuorum(leader, peers, a, single)
}

func judgeQuorum(leader string, peers []string, a autopilot, single bool) finding {
	if leader == "" {
		return failed("there is no leader: more than half of the servers must be up")
	}
	var bad []string
	leaders, voters := 0, 0
	for _, s := range a.Servers {
		switch {
		case !s.Healthy:
			bad = append(bad, fmt.Sprintf("server %s (%s) is not healthy: %s", s.Name, s.Address, s.SerfStatus))
		case !s.Voter:
			bad = append(bad, fmt.Sprintf("server %s has no vote yet", s.Name))
		}
		if s.Leader {
			leaders++
		}
		if s.Voter {
			voters++
		}
	}
	if leaders != 1 {
		bad = append(bad, fmt.Sprintf("%d servers say that they lead", leaders))
	}
	if voters != len(peers) {
		bad = append(bad, fmt.Sprintf("%d servers vote, %d are in the log's configuration", voters, len(peers)))
	}
	if len(bad) > 0 || !a.Healthy {
		return failed("%s", cmp.Or(strings.Join(bad, "; "), "the servers say that they are not healthy"))
	}
	if a.FailureTolerance == 0 && !single {
		return warning("%s leads %d voters, all healthy; the loss of one server stops all of it", leader, voters)
	}
	return ok("%s leads; voters %d, all healthy; the loss of %d is survived", leader, voters, a.FailureTolerance)
}

func judgeMembers(all []member) finding {
	const alive, left = 1, 3
	var bad []string
	for _, m := range all {
		if m.Status != alive && m.Status != left {
			bad = append(bad, fmt.Sprintf("%s (%s) is gone without having left", m.Name, m.Addr))
		}
	}
	if len(bad) > 0 {
		return failed("%s", strings.Join(bad, "; "))
	}
	return ok("%d alive", len(all))
}

// healthCheck is one in Consul.
type healthCheck struct{ Node, Name, Status, Output, ServiceName string }

func judgeChecks(all []healthCheck) finding {
	var critical, warn []string
	services := map[string]bool{}
	for _, c := range all {
		services[cmp.Or(c.ServiceName, "the host itself")] = true
		text := fmt.Sprintf("%s on %s: %s: %s", cmp.Or(c.ServiceName, "host"), c.Node, c.Name, c.Output)
		switch c.Status {
		case "passing":
		case "warning":
			warn = append(warn, text)
		default:
			critical = append(critical, text)
		}
	}
	switch {
	case len(critical) > 0:
		return failed("%d of %d don't pass: %s", len(critical), len(all), strings.Join(critical, "; "))
	case len(warn) > 0:
		return warning("%d of %d warn: %s", len(warn), len(all), strings.Join(warn, "; "))
	case len(all) == 0:
		return failed("there are none, or the token may not see them")
	}
	return ok("%d, of %d services and hosts: all pass", len(all), len(services))
}

func (r *run) nomad(ctx context.Context) {
	n := r.o.Nomad
	if r.ground.nomadAway != nil {
		r.check(ctx, "nomad", "answers", func(context.Context) finding { return away(n, r.ground.nomadUnset, r.ground.nomadAway) })
		return
	}
	r.check(ctx, "nomad", "quorum", func(ctx context.Context) finding { return quorum(ctx, n, r.ground.single()) })
	r.check(ctx, "nomad", "hosts", func(context.Context) finding { return judgeNodes(r.ground.nodes) })
	var jobs []job
	r.check(ctx, "nomad", "jobs", func(ctx context.Context) finding {
		if err := n.get(ctx, "/v1/jobs?namespace=*", &jobs); err != nil {
			return failed("%v", err)
		}
		jobs = slices.DeleteFunc(jobs, func(j job) bool { return j.Stop || j.ParentID != "" })
		if len(jobs) == 0 {
			return failed("there are none, or the token may not see them")
		}
		return ok("%d", len(jobs))
	})
	const most = 200
	for _, j := range jobs[:min(len(jobs), most)] {
		r.check(ctx, "nomad", "job "+j.ID, func(ctx context.Context) finding {
			full, allocations, d, err := readJob(ctx, n, j)
			if err != nil {
				return failed("%v", err)
			}
			return judgeJob(full, allocations, d, len(r.ground.nodes), time.Now())
		})
	}
}

func judgeNodes(all []node) finding {
	var bad, warn []string
	for _, n := range all {
		switch {
		case n.Status != "ready":
			bad = append(bad, fmt.Sprintf("%s (%s) is %s", n.Name, n.Address, n.Status))
		case n.Drain:
			warn = append(warn, n.Name+" is drained")
		case n.SchedulingEligibility != "eligible":
			warn = append(warn, n.Name+" takes nothing new")
		}
	}
	switch {
	case len(all) == 0:
		return failed("no host runs tasks, or the token may not see them")
	case len(bad) > 0:
		return failed("%s", strings.Join(append(bad, warn...), "; "))
	case len(warn) > 0:
		return warning("%s", strings.Join(warn, "; "))
	}
	return ok("%d ready", len(all))
}

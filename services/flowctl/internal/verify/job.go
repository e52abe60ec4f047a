package verify

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// job is one as Nomad lists it, and, read alone, with its groups.
type job struct {
	ID, Namespace, Type, Status, ParentID string
	Stop                                  bool
	Version                               uint64
	TaskGroups                            []struct {
		Name        string
		Count       int
		Constraints []any
	}
	Constraints                []any
	Queued                     map[string]int // by group: not placed yet, for want of room
	Periodic, ParameterizedJob any
}

type allocation struct {
	ID, Name, JobID, TaskGroup, NodeID, NodeName, ClientStatus, DesiredStatus string
	JobVersion                                                                uint64
	CreateIndex                                                               uint64
	DeploymentStatus                                                          *struct {
		Healthy *bool
		Canary  bool
	}
	TaskStates map[string]struct {
		State       string
		Failed      bool
		Restarts    int
		LastRestart *time.Time
	}
}

func (a allocation) runs() bool { return a.ClientStatus == "running" && a.DesiredStatus == "run" }

type deployment struct {
	Status, StatusDescription string
	JobVersion                uint64
}

// recent is how long a restart is worth telling.
const recent = 10 * time.Minute

func readJob(ctx context.Context, n *Endpoint, j job) (job, []allocation, *deployment, error) {
	at := "/v1/job/" + url.PathEscape(j.ID)
	query := "?namespace=" + url.QueryEscape(j.Namespace)
	var full job
	if err := n.get(ctx, at+query, &full); err != nil {
		return full, nil, nil, err
	}
	var summary struct {
		Summary map[string]struct{ Queued int }
	}
	if err := n.get(ctx, at+"/summary"+query, &summary); err != nil {
		return full, nil, nil, err
	}
	full.Queued = map[string]int{}
	for group, s := range summary.Summary {
		full.Queued[group] = s.Queued
	}
	var all []allocation
	if err := n.get(ctx, at+"/allocations"+query, &all); err != nil {
		return full, nil, nil, err
	}
	var d *deployment
	if err := n.get(ctx, at+"/deployment"+query, &d); err != nil {
		return full, nil, nil, err
	}
	return full, all, d, nil
}

// judgeJob says whether as many run as there should, are well, and no release hangs.
func judgeJob(j job, all []allocation, d *deployment, hosts int, now time.Time) finding {
	if d != nil && d.JobVersion == j.Version {
		switch d.Status {
		case "failed", "cancelled":
			return failed("its release %s: %s", d.Status, d.StatusDescription)
		case "successful":
		default:
			return warning("a release is under way: %s", d.StatusDescription)
		}
	}
	if j.Type == "batch" || j.Type == "sysbatch" {
		return judgeBatch(j, all)
	}
	var notes []finding
	for _, g := range j.TaskGroups {
		runs, starting := 0, 0
		for _, a := range all {
			if a.TaskGroup != g.Name || a.DesiredStatus != "run" {
				continue
			}
			if a.ClientStatus == "pending" {
				starting++
			}
			if !a.runs() {
				continue
			}
			runs++
			notes = append(notes, judgeAllocation(a, now)...)
		}
		want := g.Count
		if j.Type == "system" {
			want = hosts
			if len(j.Constraints)+len(g.Constraints) > 0 { // then only Nomad knows on how many hosts
				want = max(1, runs+starting+j.Queued[g.Name])
			}
		}
		switch {
		case runs < want && j.Type == "system":
			notes = append(notes, warning("group %s runs on %d of %d hosts", g.Name, runs, want))
		case runs < want:
			notes = append(notes, failed("group %s: %d of %d run", g.Name, runs, want))
		default:
			notes = append(notes, ok("%d of %d run", runs, want))
		}
	}
	if len(j.TaskGroups) == 0 {
		return failed("it has no groups")
	}
	return worst(notes...)
}

func judgeAllocation(a allocation, now time.Time) (notes []finding) {
	if s := a.DeploymentStatus; s != nil && s.Healthy != nil && !*s.Healthy {
		notes = append(notes, failed("%s on %s is not healthy", a.Name, a.NodeName))
	}
	for task, s := range a.TaskStates {
		if s.LastRestart != nil && now.Sub(*s.LastRestart) < recent {
			notes = append(notes, warning("%s on %s: task %s was restarted %s ago (%d times since it was placed)", a.Name, a.NodeName, task, now.Sub(*s.LastRestart).Round(time.Second), s.Restarts))
		}
	}
	return notes
}

// judgeBatch looks at the newest allocation of what should have ended well.
func judgeBatch(j job, all []allocation) finding {
	if (j.Periodic != nil && j.Periodic != false) || (j.ParameterizedJob != nil && j.ParameterizedJob != false) {
		return ok("runs when it is asked to")
	}
	var newest *allocation
	for i, a := range all {
		if a.JobVersion == j.Version && (newest == nil || a.CreateIndex > newest.CreateIndex) {
			newest = &all[i]
		}
	}
	switch {
	case newest == nil && j.Status == "dead":
		return ok("has ended; Nomad has forgotten how")
	case newest == nil:
		return warning("is not placed yet")
	case newest.ClientStatus == "complete":
		return ok("has ended well")
	case newest.ClientStatus == "running" || newest.ClientStatus == "pending":
		return warning("is still %s", newest.ClientStatus)
	}
	return failed("%s: `nomad alloc logs %s` says why", newest.ClientStatus, strings.SplitN(newest.ID, "-", 2)[0])
}

// place says where an allocation is, for people.
func (a allocation) place() string {
	return fmt.Sprintf("%s on %s", a.ID[:min(8, len(a.ID))], a.NodeName)
}

package verify

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// lookedWithin is how old the leader's last look may be: it looks every second.
const lookedWithin = 20 * time.Second

// reportsWithin is when each worker has reported to a new leader: they do every 15 s (HEALTH_REPORT_INTERVAL).
const reportsWithin = 20 * time.Second

func (r *run) platform(ctx context.Context) {
	r.check(ctx, "platform", "login", func(ctx context.Context) finding {
		var me struct{ Email, Role string }
		if _, err := r.o.API.Do(ctx, http.MethodGet, "/auth/me", nil, &me); err != nil {
			return failed("%v", err)
		}
		if me.Role != "operator" && me.Role != "admin" {
			return warning("%s has the role %s: some of what follows needs operator", me.Email, me.Role)
		}
		return ok("%s, %s", me.Email, me.Role)
	})
	r.check(ctx, "platform", "orchestrators' leader", func(ctx context.Context) finding {
		s, err := r.scaling(ctx)
		if err != nil {
			return failed("%v", err)
		}
		return judgeLeader(s, time.Now())
	})
	r.check(ctx, "platform", "workers", r.heardOf)
	r.check(ctx, "platform", "queues", func(ctx context.Context) finding {
		var q queues
		if _, err := r.o.API.Do(ctx, http.MethodGet, "/queues", nil, &q); err != nil {
			return failed("%v", err)
		}
		return judgeQueues(q)
	})
	r.check(ctx, "platform", "dead letters", func(ctx context.Context) finding {
		var page struct{ Items []struct{} }
		if _, err := r.o.API.Do(ctx, http.MethodGet, "/dead-letters?limit=500", nil, &page); err != nil {
			return failed("%v", err)
		}
		switch n := len(page.Items); {
		case n >= 500:
			return warning("500 or more: `flowctl deadletter list` has them")
		case n > 0:
			return warning("%d: `flowctl deadletter list` has them", n)
		}
		return ok("none")
	})
}

// scaling is what the orchestrators' leader has seen last.
type scaling struct {
	At     time.Time
	Leader string
	Pools  []struct {
		Pool                               string
		Desired, Wanted, Placed, Reporting int
		Code, Reason                       string
	}
}

func (r *run) scaling(ctx context.Context) (s scaling, err error) {
	_, err = r.o.API.Do(ctx, http.MethodGet, "/scaling?limit=1", nil, &s)
	return s, err
}

func judgeLeader(s scaling, now time.Time) finding {
	if s.At.IsZero() || s.Leader == "" {
		return failed("nobody leads, or nobody has said so within 20 s")
	}
	if old := now.Sub(s.At); old > lookedWithin {
		return failed("%s has not looked for %s", s.Leader, old.Round(time.Second))
	}
	var short []string
	for _, p := range s.Pools {
		if p.Placed < p.Desired || p.Reporting < p.Placed {
			short = append(short, fmt.Sprintf("pool %s: %d wanted, %d placed, %d report: %s", p.Pool, p.Desired, p.Placed, p.Reporting, p.Reason))
		}
	}
	if len(short) > 0 {
		return warning("%s leads; %s", s.Leader, strings.Join(short, "; "))
	}
	return ok("%s leads", s.Leader)
}

type worker struct{ ID, Pool, State, Allocation, Host string }

func (r *run) workers(ctx context.Context) ([]worker, error) {
	var page struct{ Items []worker }
	_, err := r.o.API.Do(ctx, http.MethodGet, "/workers", nil, &page)
	return page.Items, err
}

// heardOf judges the workers when the leader has heard of each: one who leads since a moment ago knows that they are there, and how they are with their next report.
func (r *run) heardOf(ctx context.Context) finding {
	for until := time.Now().Add(reportsWithin); ; {
		all, err := r.workers(ctx)
		if err != nil {
			return failed("%v", err)
		}
		if !slices.ContainsFunc(all, func(w worker) bool { return w.State == "unknown" }) || time.Now().After(until) {
			return judgeWorkers(all)
		}
		select {
		case <-ctx.Done():
			return judgeWorkers(all)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func judgeWorkers(all []worker) finding {
	ready, hosts := 0, map[string]bool{}
	var other []string
	for _, w := range all {
		if hosts[w.Host] = true; w.State == "ready" {
			ready++
		} else {
			other = append(other, w.ID+" is "+w.State)
		}
	}
	switch {
	case ready == 0:
		return failed("none is ready: %s", strings.Join(other, "; "))
	case len(other) > 0:
		return warning("%d ready; %s", ready, strings.Join(other, "; "))
	}
	return ok("%d ready, on %d hosts", ready, len(hosts))
}

type queue struct {
	Name, Kind, Error string
	Ready, Consumers  int
}

type queues struct {
	Pools []struct {
		Pool    string
		Backlog int
		Queues  []queue
	}
	Other []queue
}

// judgeQueues: every queue can be read, and those of tasks and reports have somebody who takes from them.
func judgeQueues(q queues) finding {
	var bad, note []string
	all := q.Other
	for _, p := range q.Pools {
		all = append(all, p.Queues...)
		if p.Backlog > 1000 {
			note = append(note, fmt.Sprintf("%d wait in pool %s", p.Backlog, p.Pool))
		}
	}
	for _, one := range all {
		switch {
		case one.Error != "":
			bad = append(bad, one.Name+": "+one.Error)
		case one.Consumers == 0 && (one.Kind == "tasks" || one.Kind == "reports"):
			bad = append(bad, one.Name+": nobody takes from it")
		}
	}
	switch {
	case len(all) == 0:
		return failed("there are none")
	case len(bad) > 0:
		return failed("%s", strings.Join(bad, "; "))
	case len(note) > 0:
		return warning("%s", strings.Join(note, "; "))
	}
	return ok("%d, all can be read and have who takes from them", len(all))
}

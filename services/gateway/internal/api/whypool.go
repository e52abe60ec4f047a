package api

import (
	"context"
	"slices"
	"time"

	"flowplatform/services/internal/live"
	"flowplatform/services/internal/store"
)

// WhyPool is how the pool stands whose workers an execution waits for, as the leader saw it last.
type WhyPool struct {
	Pool     string `json:"pool"`
	Priority string `json:"priority"`
	// Queued and the rest are of At.
	At       time.Time `json:"at" doc:"When the leader looked"`
	Queued   int       `json:"queued" doc:"Tasks in the queue of its pool and priority: its place is one of them, or it is with a worker by now"`
	Backlog  int       `json:"backlog" doc:"Tasks of the pool that wait, of all priorities: queued, or held by workers and not begun"`
	Workers  int       `json:"workers" doc:"That report"`
	Slots    int       `json:"slots" doc:"Executions that they may run at once"`
	Running  int       `json:"running"`
	Desired  int       `json:"desired" doc:"Workers that there shall be"`
	Wanted   int       `json:"wanted" doc:"Workers that there should be; differs from desired while something stands in the way"`
	Code     string    `json:"code" doc:"Of what the autoscaler thinks of the pool now, as in GET /scaling"`
	Reason   string    `json:"reason" doc:"Why it wants no more and no fewer"`
	Decision *Decision `json:"decision,omitempty" doc:"What was changed last about the number of its workers"`
}

// recentDecisions is how many decisions are looked through for the last of a pool.
const recentDecisions = 50

// whyWorkers says how the pool of a queued execution stands; nil: nobody has looked lately, and the reasons say so.
func (a *API) whyWorkers(ctx context.Context, x *store.Execution, add func(code, format string, args ...any)) (*WhyPool, error) {
	pool := poolName(x.Pool)
	f, err := a.o.Fleet(ctx)
	if err != nil { // Redis is away, or nobody leads: what is known otherwise is told all the same
		add("not-seen", "how long the queue is isn't known now: no orchestrator leads, or Redis is away")
		return nil, nil
	}
	i := slices.IndexFunc(f.Scaling, func(s live.Scaling) bool { return s.Pool == pool })
	if i < 0 {
		add("not-seen", "the leader has not seen the pool %q yet", pool)
		return nil, nil
	}
	s := &f.Scaling[i]
	w := &WhyPool{Pool: pool, Priority: x.Priority, At: f.At, Backlog: s.Backlog, Workers: s.Reporting, Slots: s.Slots, Running: s.Running, Desired: s.Desired, Wanted: s.Wanted, Code: s.Code, Reason: s.Reason}
	for _, q := range f.Queues {
		if q.Kind == "tasks" && q.Pool == pool && q.Priority == x.Priority {
			w.Queued = q.Ready
		}
	}
	rows, _, err := a.o.DB.ListDecisions(ctx, "scale", store.Page{Limit: recentDecisions})
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(rows, func(d store.Decision) bool { return d.Subject == pool }); i >= 0 {
		d := viewDecision(&rows[i])
		w.Decision = &d
	}
	if x.Handed >= x.Attempt {
		add("queue", "%d tasks are in the queue of its pool and priority, %d of the pool wait in all; %d workers run %d executions in %d slots", w.Queued, w.Backlog, w.Workers, w.Running, w.Slots)
	}
	last := ""
	if d := w.Decision; d != nil {
		last = ". The last change, at " + d.At.UTC().Format(time.RFC3339) + ": " + d.Reason
		if d.Outcome != "" {
			last += " (" + d.Outcome + ")"
		}
	}
	add("scaling", "%d workers are wanted, %d shall be (%s: %s)%s", w.Wanted, w.Desired, w.Code, w.Reason, last)
	return w, nil
}

// alive tells whether a worker of a pool has a session.
func (a *API) alive(ctx context.Context, pool string) (bool, error) {
	sessions, err := a.o.DB.ListSessions(ctx, a.o.Now())
	return slices.ContainsFunc(sessions, func(s store.WorkerSession) bool { return s.Alive && poolName(s.Pool) == poolName(pool) }), err
}

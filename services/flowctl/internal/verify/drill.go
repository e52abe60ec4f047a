package verify

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// drillDelay is what each execution of the drill waits for: longer than a second, so that it is the leader's timer.
const drillDelay = "1100ms"

// blow is one thing that the drill does to the platform.
type blow struct {
	name string
	job  string
	kill bool // SIGKILL in place of an orderly stop
}

func blows() []blow {
	return []blow{
		{"leading orchestrator stopped", "orchestrator", false}, {"leading orchestrator killed", "orchestrator", true},
		{"worker stopped", "worker", false}, {"worker killed", "worker", true},
		{"gateway stopped", "gateway", false}, {"gateway killed", "gateway", true},
	}
}

// drill stops and kills parts under a small load, waits until the platform is whole again, and counts.
func (r *run) drill(ctx context.Context) {
	if r.ground.nomadAway != nil {
		r.check(ctx, "drill", "failover", func(context.Context) finding { return away(r.o.Nomad, r.ground.nomadUnset, r.ground.nomadAway) })
		return
	}
	w := newWorkshop(r.o.API)
	defer r.cleaned(ctx, "drill", w)
	var l *load
	if r.check(ctx, "drill", "load", func(ctx context.Context) finding {
		id, err := w.drillFlow(ctx)
		if err != nil {
			return failed("%v", err)
		}
		if e, err := w.start(ctx, id, object{"i": -1}, runWait); err != nil || e.Status != "succeeded" {
			return failed("the flow of the drill doesn't run: %s %v", e, err)
		}
		l = &load{workshop: w, flow: id, settle: r.o.Settle}
		return ok("%.3g executions a second begin, each with a wait", r.o.Rate)
	}) != OK {
		return
	}
	loading, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { l.begin(loading, r.o.Rate) })
	defer func() { stop(); done.Wait() }()
	for _, b := range blows() {
		if r.bounded(ctx, r.o.Recovery+checkLimit, "drill", b.name, func(ctx context.Context) finding { return r.strike(ctx, b, l) }) == Failed {
			break // one thing at a time
		}
	}
	stop()
	done.Wait()
	r.bounded(ctx, r.o.Recovery, "drill", "nothing lost", func(ctx context.Context) finding { return l.reckon(ctx) })
}

// drillFlow has an effect where the workers have a broker for flows, and a wait.
func (w *workshop) drillFlow(ctx context.Context) (string, error) {
	start, wait := step("start", "trigger.manual", nil), step("wait", "flow.delay", object{"duration": drillDelay})
	id, err := w.flow(ctx, "drill", chain(start, published(), wait))
	if err != nil {
		return "", err
	}
	if e, err := w.start(ctx, id, nil, runWait); err == nil && e.Status == "succeeded" {
		return id, nil
	}
	return w.flow(ctx, "drill without effects", chain(start, wait))
}

// strike does one blow and watches until all is whole and the load untroubled.
func (r *run) strike(ctx context.Context, b blow, l *load) finding {
	before, err := r.running(ctx, b.job)
	if err != nil {
		return failed("%v", err)
	}
	victim, leader, err := r.victim(ctx, b.job, before)
	if err != nil {
		return failed("%v", err)
	}
	r.doing("drill: %s: %s", b.name, victim.place())
	struck := time.Now()
	if err := r.hit(ctx, victim, b.kill); err != nil {
		return failed("%v", err)
	}
	whole, led := time.Time{}, time.Time{}
	err = until(ctx, 250*time.Millisecond, func() error {
		if leader && led.IsZero() {
			s, err := r.scaling(ctx)
			if err != nil {
				return err
			}
			if s.Leader == "" || s.At.Before(struck) || !b.kill && s.Leader == victim.ID {
				return fmt.Errorf("nobody leads the orchestrators since")
			}
			led = time.Now()
		}
		if whole.IsZero() {
			if err := r.whole(ctx, b, victim, len(before)); err != nil {
				return err
			}
			whole = time.Now()
		}
		return l.calm(whole)
	})
	if err != nil {
		return failed("%s: not whole again after %s: %v", victim.place(), time.Since(struck).Round(time.Second), err)
	}
	return l.judge(b, struck, whole, led, len(before))
}

// running lists what runs of a job.
func (r *run) running(ctx context.Context, name string) ([]allocation, error) {
	var all []allocation
	if err := r.o.Nomad.get(ctx, "/v1/job/"+url.PathEscape(name)+"/allocations", &all); err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(a allocation) bool { return !a.runs() })
	slices.SortFunc(all, func(a, b allocation) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	if len(all) == 0 {
		return nil, fmt.Errorf("no allocation of job %s runs", name)
	}
	return all, nil
}

// victim is the leader, of orchestrators, and else the first.
func (r *run) victim(ctx context.Context, name string, all []allocation) (allocation, bool, error) {
	if name != "orchestrator" {
		return all[0], false, nil
	}
	s, err := r.scaling(ctx)
	if err != nil {
		return allocation{}, false, err
	}
	for _, a := range all {
		if a.ID == s.Leader {
			return a, true, nil
		}
	}
	return allocation{}, false, fmt.Errorf("the leader is %q, and no allocation of job %s", s.Leader, name)
}

func (r *run) hit(ctx context.Context, a allocation, kill bool) error {
	if !kill {
		return r.o.Nomad.call(ctx, http.MethodPut, "/v1/allocation/"+a.ID+"/stop", nil, nil)
	}
	if len(a.TaskStates) == 0 {
		return fmt.Errorf("%s has no task to kill", a.place())
	}
	for task := range a.TaskStates {
		if err := r.o.Nomad.call(ctx, http.MethodPut, "/v1/client/allocation/"+a.ID+"/signal", object{"Signal": "SIGKILL", "Task": task}, nil); err != nil {
			return err
		}
	}
	return nil
}

// whole says whether as many run as before and are well, and, of workers, whether they have reported.
func (r *run) whole(ctx context.Context, b blow, victim allocation, want int) error {
	all, err := r.running(ctx, b.job)
	if err != nil {
		return err
	}
	n := 0
	for _, a := range all {
		if a.ID == victim.ID && !b.kill {
			continue // it is still going
		}
		if a.ID == victim.ID && !restartedSince(victim, a) {
			return fmt.Errorf("%s has not been started again", a.place())
		}
		n++
	}
	if n < want {
		return fmt.Errorf("%d of %d run", n, want)
	}
	if r.ground.consulAway == nil {
		var passing []struct{}
		if err := r.o.Consul.get(ctx, "/v1/health/service/"+url.PathEscape(b.job)+"?passing=true", &passing); err != nil {
			return err
		}
		if len(passing) < want {
			return fmt.Errorf("%d of %d pass their checks", len(passing), want)
		}
	}
	if b.job == "worker" {
		ready := 0
		workers, err := r.workers(ctx)
		if err != nil {
			return err
		}
		for _, w := range workers {
			if w.State == "ready" {
				ready++
			}
		}
		if ready < want {
			return fmt.Errorf("%d of %d workers are ready", ready, want)
		}
	}
	return nil
}

// restartedSince says whether one of its tasks was started again, and all run.
func restartedSince(before, now allocation) bool {
	again := false
	for task, s := range now.TaskStates {
		if s.State != "running" {
			return false
		}
		again = again || s.Restarts > before.TaskStates[task].Restarts
	}
	return again
}

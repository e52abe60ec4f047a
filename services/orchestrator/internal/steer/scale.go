package steer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/orchestrator/internal/autoscale"
	"flowplatform/services/orchestrator/internal/balance"
	"flowplatform/services/orchestrator/internal/fleet"
)

func isNoQueue(err error) bool { return errors.Is(err, broker.ErrNoQueue) }

// balance gives the workers of each pool their slots, and tells those whose slots have changed.
func (t *run) balance(ctx context.Context, members []member) error {
	change := map[protocol.ID]int{}
	var orders []protocol.TuneOrder
	for _, name := range poolsOf(members, nil) {
		var of []member
		var workers []balance.Worker
		for _, m := range membersOf(members, name) {
			if m.Drain != "" || m.load == nil || m.load.State == "draining" { // it takes nothing any more, or nothing is known of it yet
				continue
			}
			of = append(of, m)
			workers = append(workers, balance.Worker{Session: m.ID, Own: m.Slots, Weight: m.Weight, Load: balance.Load(m.load.Heartbeat), Tuned: m.Tuned})
		}
		for i, slots := range balance.Slots(t.values.Strategy, workers) {
			if slots != of[i].Tuned {
				change[of[i].ID] = slots
				orders = append(orders, protocol.TuneOrder{Session: of[i].ID, Slots: slots})
			}
		}
	}
	if len(change) == 0 {
		return nil
	}
	if err := t.o.Store.Tune(ctx, t.number, change); err != nil {
		return err
	}
	t.metrics.tuned.Add(float64(len(change)))
	t.o.Log.Info("slots of workers are tuned", "strategy", t.values.Strategy, "workers", len(change))
	return t.o.Tell(protocol.Control{V: protocol.SchemaVersion, Tune: orders, Term: t.number}) // for speed: renewals carry the same
}

// observe puts together what is seen of a pool.
func (t *run) observe(ctx context.Context, name string, p *pool, members []member, unseen error, queues []live.Queue, ended float64, now time.Time) (autoscale.Observation, fleet.Group) {
	o := autoscale.Observation{At: now}
	if unseen != nil {
		o.Missing = unseen.Error()
	}
	for _, q := range queues {
		if q.Kind != "tasks" || q.Pool != name {
			continue
		}
		if q.Error != "" {
			o.Missing = q.Error
		}
		o.Ready += q.Ready
	}
	o.Ready = p.tasks(o.Ready) // the broker counts messages
	for _, m := range members {
		if m.load == nil || !m.fresh {
			o.Partial = fmt.Sprintf("worker %s has not reported lately", m.Worker)
		}
		if m.load == nil {
			continue
		}
		o.Workers++
		o.Slots += m.load.Slots
		o.Running += m.load.Running
		o.Buffered += m.load.Buffered
	}
	var g fleet.Group
	if t.o.Fleet == nil {
		o.Desired, o.Missing = len(members), "there is no NOMAD_ADDR: nobody starts or stops workers"
	} else {
		var err error
		if g, err = t.o.Fleet.Group(ctx, name); err != nil {
			o.Missing = err.Error()
			o.Desired = len(members)
		} else {
			o.Desired, o.Placed, o.Deploying, o.NoRoom = g.Desired, g.Placed(), g.Deploying, g.NoRoom
		}
	}
	if o.Missing != "" {
		p.rates.Forget()
	} else {
		o.Arrival, o.Completion = p.rates.Look(now, o.Backlog()+o.Running, ended)
	}
	return o, g
}

// scale decides on a pool, does it, and shows it.
func (t *run) scale(ctx context.Context, name string, p *pool, members []member, unseen error, queues []live.Queue, ended float64, now time.Time) live.Scaling {
	o, g := t.observe(ctx, name, p, members, unseen, queues, ended, now)
	v := t.values
	p.above = o.Backlog() >= v.HighWaterMark
	policy := autoscale.Policy{Enabled: v.AutoScaling, Min: v.MinWorkers, Max: v.MaxWorkers, High: v.HighWaterMark, Low: v.LowWaterMark, Drain: v.DrainTime, DownWindow: v.DownWindow}
	var d autoscale.Decision
	if g.Index == 0 { // Nomad can't be asked, so nothing can be decided
		d = autoscale.Decision{Count: o.Desired, Want: o.Desired, Code: autoscale.Unseen, Reason: o.Missing}
		_, p.state = autoscale.Decide(policy, o, p.state)
	} else {
		d, p.state = autoscale.Decide(policy, o, p.state)
	}
	t.metrics.watch(name, o, d)
	if g.Index != 0 {
		t.note(ctx, "scale "+name, t.act(ctx, name, p, o, g, d, now))
	}
	p.decision = d
	return live.Scaling{Pool: name, Job: g.Job, Desired: o.Desired, Wanted: d.Want, Placed: o.Placed, Reporting: o.Workers, Backlog: o.Backlog(), Buffered: o.Buffered, Running: o.Running, Slots: o.Slots,
		Arrival: o.Arrival, Completion: o.Completion, Utilisation: o.Utilisation(), Code: string(d.Code), Reason: d.Reason}
}

// act writes the decision, and carries it out.
func (t *run) act(ctx context.Context, name string, p *pool, o autoscale.Observation, g fleet.Group, d autoscale.Decision, now time.Time) error {
	row := store.Decision{Term: t.number, Kind: "scale", Subject: name, Reason: d.Reason}
	var err error
	if row.Detail, err = json.Marshal(detail{From: g.Desired, To: d.Count, Wanted: d.Want, Code: d.Code, Backlog: o.Backlog(), Running: o.Running, Slots: o.Slots, Arrival: o.Arrival, Completion: o.Completion}); err != nil {
		return err
	}
	if d.Count == g.Desired {
		return t.held(ctx, p, row, d, now)
	}
	p.held = ""
	if !t.term.Valid() {
		return nil
	}
	id, err := t.o.Store.Decide(ctx, row)
	if err != nil {
		return err
	}
	err = t.o.Fleet.Scale(ctx, g, d.Count, d.Reason, map[string]any{"decision": id.String(), "term": t.number, "backlog": o.Backlog(), "code": string(d.Code)})
	outcome := "done"
	switch {
	case err == nil:
		t.metrics.scaled.WithLabelValues(name, string(d.Code)).Inc()
		t.o.Log.Info("the number of workers is changed", "pool", name, "from", g.Desired, "to", d.Count, "why", d.Reason)
	case errors.Is(err, fleet.ErrDeploying), errors.Is(err, fleet.ErrChanged): // the next look decides again
		outcome, err = "refused: "+err.Error(), nil
	default:
		outcome = "failed: " + err.Error()
	}
	return errors.Join(err, t.o.Store.Decided(ctx, id, outcome))
}

// held writes why nothing was done although something was wanted, once for each reason.
func (t *run) held(ctx context.Context, p *pool, row store.Decision, d autoscale.Decision, now time.Time) error {
	switch d.Code {
	case autoscale.Deploying, autoscale.NoRoom, autoscale.AtMax, autoscale.Unseen, autoscale.Off:
	default:
		p.held = ""
		return nil
	}
	if d.Code == p.held || now.Sub(p.heldAt) < heldEvery {
		return nil
	}
	row.DoneAt, row.Outcome = now, "held: "+string(d.Code)
	if _, err := t.o.Store.Decide(ctx, row); err != nil {
		return err
	}
	p.held, p.heldAt = d.Code, now
	if d.Code == autoscale.NoRoom {
		t.o.Log.Warn("more workers are wanted, and no machine has room for them", "reason", d.Reason)
	}
	return nil
}

// detail of a decision on the count of a pool.
type detail struct {
	From       int            `json:"from"`
	To         int            `json:"to"`
	Wanted     int            `json:"wanted"`
	Code       autoscale.Code `json:"code"`
	Backlog    int            `json:"backlog"`
	Running    int            `json:"running"`
	Slots      int            `json:"slots"`
	Arrival    float64        `json:"arrival"`
	Completion float64        `json:"completion"`
}

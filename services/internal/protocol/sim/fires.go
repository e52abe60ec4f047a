package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"

	"flowplatform/services/internal/protocol"
)

// Fires: schedules with instants every few ticks, leaders with terms that make plans of what they have read, backfills beside them, people who pause. What may not happen: an
// instant with two executions; one without any that nobody paused; a cursor that goes back; a fire of a schedule that is paused; a start beside an execution that isn't over
// where overlap is skip.

type sched struct {
	protocol.Schedule
	first int64 // ticks
	every int64
	last  int64
	lock  rowLock
	moved bool // it has been paused: instants are left out
}

func (c *sched) instant(n int64) protocol.Fire {
	return protocol.Fire{Schedule: c.ID, Due: epoch.Add(ticks(n))}
}

// next is the first instant after a tick; zero: none.
func (c *sched) next(after int64) (at int64, ok bool) {
	at = max(c.first, c.first+((after-c.first)/c.every+1)*c.every)
	return at, at <= c.last
}

func (s *Sim) schedule(id protocol.ID) *sched {
	if i := indexOf(id); id[0] == 'c' && i < len(s.db.scheds) {
		return s.db.scheds[i]
	}
	return nil
}

// addSchedules makes schedules, one of each overlap policy.
func (s *Sim) addSchedules() {
	for i, policy := range []string{protocol.OverlapAllow, protocol.OverlapSkip, protocol.OverlapCancel} {
		c := &sched{first: 10 + s.n(20), every: 25 + s.n(60), last: s.endFaults + 60}
		c.Schedule = protocol.Schedule{ID: idOf('c', i), Revision: 1, Overlap: policy, Due: epoch.Add(ticks(c.first))}
		s.db.scheds = append(s.db.scheds, c)
	}
}

// fireTx implements protocol.FireTx.
type fireTx struct {
	protocol.Tx
	t      *txn
	shapes map[protocol.ID]int
}

func (st store) fire(name string, shapes map[protocol.ID]int, fn func(protocol.FireTx) error) error {
	return st.Txn(bg, name, func(tx protocol.Tx) error { return fn(&fireTx{tx, st.p.tx, shapes}) })
}

// at names a step of a fire, at which a history may kill the leader.
func (x *fireTx) at(step string) { x.t.p.s.firing(x.t.p, x.t.name, step) }

func (s *Sim) firing(p *proc, name, step string) {
	if name == "fire" && s.killAt == step {
		s.killAt = ""
		h := p.h
		s.script = append(s.script, planned{func() bool { return true }, func() { s.kill(h, "at the fire's step "+step) }})
	}
	p.step()
}

func (x *fireTx) HoldTerm(context.Context) (int64, error) {
	x.at("begin")
	if err := x.t.statement(); err != nil {
		return 0, err
	}
	if err := x.t.acquire(&x.t.s.db.termLock); err != nil {
		return 0, err
	}
	defer x.at("term")
	if x.t.s.broken.FireBlind {
		return x.t.p.h.term, nil
	}
	return x.t.s.db.terms, nil
}

func (x *fireTx) LockSchedules(_ context.Context, ids []protocol.ID) ([]protocol.Schedule, error) {
	if err := x.t.statement(); err != nil {
		return nil, err
	}
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b protocol.ID) int { return slices.Compare(a[:], b[:]) })
	var out []protocol.Schedule
	for _, id := range ids {
		c := x.t.s.schedule(id)
		if err := x.t.acquire(&c.lock); err != nil {
			return nil, err
		}
		row := c.Schedule
		switch believed := x.t.p.h.believed[id]; { // as the plan believes it to be
		case x.t.s.broken.FireUnfit:
			row = believed
		case x.t.s.broken.FireBlind:
			row.Due = believed.Due
		}
		out = append(out, row)
	}
	x.at("schedules locked")
	return out, nil
}

func (x *fireTx) Fired(_ context.Context, fires []protocol.Fire) (out []protocol.Fire, err error) {
	if err := x.t.statement(); err != nil {
		return nil, err
	}
	for _, f := range fires {
		for _, there := range x.t.s.db.fires {
			if there.Schedule == f.Schedule && there.Due.Equal(f.Due) && !x.t.s.broken.FireNoRow {
				out = append(out, there)
			}
		}
	}
	x.at("fires looked at")
	return out, nil
}

func (x *fireTx) Unfinished(_ context.Context, schedules []protocol.ID) (map[protocol.ID][]protocol.ID, error) {
	if err := x.t.statement(); err != nil {
		return nil, err
	}
	out := map[protocol.ID][]protocol.ID{}
	for _, f := range x.t.s.db.fires {
		if slices.Contains(schedules, f.Schedule) && !f.Execution.IsZero() && !x.t.s.execution(f.Execution).row.State.Final() {
			out[f.Schedule] = append(out[f.Schedule], f.Execution)
		}
	}
	x.at("overlap looked at")
	return out, nil
}

func (x *fireTx) Fire(_ context.Context, fires []protocol.Fire) error {
	if err := x.t.statement(); err != nil {
		return err
	}
	s := x.t.s
	fires = slices.Clone(fires)
	for _, f := range fires {
		if f.Execution.IsZero() {
			continue
		}
		i := indexOf(f.Execution)
		if err := x.t.insert(i, x.shapes[f.Execution]); err != nil {
			return err
		}
		x.t.ops = append(x.t.ops, func() { s.want = append(s.want, i) })
	}
	x.t.ops = append(x.t.ops, func() {
		for _, f := range fires {
			s.fired(f, x.t)
		}
	})
	x.at("fires written")
	return nil
}

func (x *fireTx) Move(_ context.Context, rows []protocol.Schedule) error {
	if err := x.t.statement(); err != nil {
		return err
	}
	s := x.t.s
	rows = slices.Clone(rows)
	x.t.ops = append(x.t.ops, func() {
		for _, row := range rows {
			c := s.schedule(row.ID)
			if !row.Due.IsZero() && (c.Due.IsZero() || row.Due.Before(c.Due)) {
				s.fail("16 a schedule goes back", "%v → %v by term %d of %s", c.Due, row.Due, x.t.p.h.term, x.t.p.h.name())
			}
			c.Due = row.Due
		}
	})
	x.at("moved on")
	return nil
}

// fired checks a fire when it is committed.
func (s *Sim) fired(f protocol.Fire, t *txn) {
	c := s.schedule(f.Schedule)
	s.Counts.Fires++
	s.tr("%s %s: schedule %d at %v: %s %s", t.p.h.name(), t.name, indexOf(f.Schedule), f.Due.Sub(epoch)/Tick, f.Outcome, f.Reason)
	if c.Paused && t.name == "fire" {
		s.fail("16 fired while paused", "schedule %d", indexOf(c.ID))
	}
	for i, there := range s.db.fires {
		if there.Schedule != f.Schedule {
			continue
		}
		if there.Due.Equal(f.Due) {
			if !there.Execution.IsZero() {
				s.fail("16 fired twice", "schedule %d at %v by %s of %s", indexOf(c.ID), f.Due.Sub(epoch)/Tick, t.name, t.p.h.name())
			}
			s.db.fires[i] = f
			return
		}
		if c.Overlap == protocol.OverlapSkip && t.name == "fire" && !f.Execution.IsZero() && !there.Execution.IsZero() && !s.execution(there.Execution).row.State.Final() {
			s.fail("16 started beside another", "schedule %d", indexOf(c.ID))
		}
	}
	s.db.fires = append(s.db.fires, f)
}

// planOf makes what a leader wants of a schedule that it has read: to start an execution for each instant that is due.
func (s *Sim) planOf(c protocol.Schedule, now int64, shapes map[protocol.ID]int) protocol.FirePlan {
	of := s.schedule(c.ID)
	p := protocol.FirePlan{Schedule: c.ID, Revision: c.Revision, Due: c.Due}
	at := int64(c.Due.Sub(epoch) / Tick)
	for ok := at <= of.last; ok && at <= now && len(p.Fires) < 4; at, ok = of.next(at) {
		p.Fires = append(p.Fires, s.startAt(of.instant(at), shapes))
	}
	if at <= of.last {
		p.Next = epoch.Add(ticks(at))
	}
	return p
}

// startAt makes the execution of an instant, not stored yet.
func (s *Sim) startAt(f protocol.Fire, shapes map[protocol.ID]int) protocol.Fire {
	f.Execution, f.Outcome = idOf('e', len(s.db.execs)), protocol.FireStarted
	shapes[f.Execution] = s.r.IntN(3)
	s.db.execs = append(s.db.execs, &execution{shape: shapes[f.Execution], cancelled: s.schedule(f.Schedule).Overlap == protocol.OverlapCancel})
	return f
}

// fires is the leader's clockwork: a term of its own, then look, plan, fire, hand out.
func (o *server) fires(p *proc) {
	s, h := o.s, o.h
	h.term = 0
	for {
		p.sleep(2 + s.n(8))
		if !h.leader {
			h.term = 0
			continue
		}
		if h.term == 0 && !s.raise(p) {
			continue
		}
		var due []protocol.Schedule
		if (store{p}).read() != nil {
			continue
		}
		h.believed = map[protocol.ID]protocol.Schedule{}
		for _, c := range s.db.scheds {
			if !c.Paused && !c.Due.IsZero() && !c.Due.After(s.time()) {
				due = append(due, c.Schedule)
				h.believed[c.ID] = c.Schedule
			}
		}
		now := s.now
		p.step()
		if len(due) == 0 {
			continue
		}
		shapes := map[protocol.ID]int{}
		var plans []protocol.FirePlan
		for _, c := range due {
			plans = append(plans, s.planOf(c, now, shapes))
		}
		var out protocol.Outcome
		err := store{p}.fire("fire", shapes, func(tx protocol.FireTx) error {
			var err error
			var dropped int
			out, _, dropped, err = protocol.FireDue(bg, tx, h.term, plans)
			s.Counts.FiresDropped += dropped
			return err
		})
		s.firing(p, "fire", "committed")
		switch {
		case errors.Is(err, protocol.ErrFenced):
			s.Counts.FiresFenced++
			h.term = 0
			p.sleep(60)
		case err == nil:
			protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut)
			s.firing(p, "fire", "handed out")
		}
	}
}

// raise begins a term.
func (s *Sim) raise(p *proc) bool {
	var term int64
	err := store{p}.Txn(bg, "term", func(protocol.Tx) error {
		if err := p.tx.statement(); err != nil {
			return err
		}
		if err := p.tx.acquire(&s.db.termLock); err != nil {
			return err
		}
		term = s.db.terms + 1
		p.tx.ops = append(p.tx.ops, func() { s.db.terms = term })
		return nil
	})
	if err == nil {
		p.h.term = term
	}
	return err == nil
}

// backfill fires what is in the past, as somebody who believes that it wasn't.
func (s *Sim) backfill(p *proc) {
	for s.faulty {
		p.sleep(60 + s.n(200))
		c := s.db.scheds[s.r.IntN(len(s.db.scheds))]
		shapes := map[protocol.ID]int{}
		var fires []protocol.Fire
		for at, ok := c.next(s.now - 3*c.every); ok && at <= s.now; at, ok = c.next(at) {
			fires = append(fires, s.startAt(c.instant(at), shapes))
		}
		if len(fires) == 0 {
			continue
		}
		p.h.believed = map[protocol.ID]protocol.Schedule{c.ID: c.Schedule}
		var out protocol.Outcome
		err := store{p}.fire("backfill", shapes, func(tx protocol.FireTx) error {
			var err error
			out, _, err = protocol.Backfill(bg, tx, c.ID, fires)
			return err
		})
		if err == nil {
			s.Counts.Backfills++
			protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut)
		}
	}
}

// people pause a schedule and let it go on: from then, what was due meanwhile isn't.
func (s *Sim) people(p *proc) {
	for s.faulty {
		p.sleep(100 + s.n(300))
		c := s.db.scheds[s.r.IntN(len(s.db.scheds))]
		err := store{p}.Txn(bg, "pause", func(protocol.Tx) error {
			if err := p.tx.statement(); err != nil {
				return err
			}
			if err := p.tx.acquire(&c.lock); err != nil {
				return err
			}
			p.tx.ops = append(p.tx.ops, func() {
				c.Paused, c.moved = !c.Paused, true
				c.Revision++
				if at, ok := c.next(s.now); !c.Paused && ok && c.Due.Before(epoch.Add(ticks(at))) {
					c.Due = epoch.Add(ticks(at))
				}
			})
			return nil
		})
		if err != nil {
			p.sleep(10)
		}
	}
	for _, c := range s.db.scheds { // at the end nothing is paused
		c.Paused = false
	}
}

// over tells whether every schedule has come to its end.
func (s *Sim) over() bool {
	return !slices.ContainsFunc(s.db.scheds, func(c *sched) bool { return !c.Due.IsZero() })
}

// firesEnded: every instant of a schedule that nobody paused was decided on, once.
func (s *Sim) firesEnded() {
	for _, c := range s.db.scheds {
		n := 0
		for at, ok := c.first, true; ok && !c.moved; at, ok = c.next(at) {
			if i := slices.IndexFunc(s.db.fires, func(f protocol.Fire) bool { return f.Schedule == c.ID && f.Due.Equal(epoch.Add(ticks(at))) }); i < 0 {
				s.fail("16 an instant is lost", "schedule %d at %d", indexOf(c.ID), at)
			}
			n++
		}
	}
	for _, f := range s.db.fires {
		if !f.Execution.IsZero() && !s.execution(f.Execution).exists {
			s.fail("16 a fire without its execution", "%v", f)
		}
	}
}

// RunFires runs the schedule of a seed with schedules that fire: two orchestrators that lead in turn or both at once, backfills, pauses, and faults of every kind.
func RunFires(seed uint64, o Options) *Sim {
	s := newSim(seed, o)
	s.endFaults = 300 + s.n(400)
	n := 1 + s.r.IntN(10)
	for i, f := range plan(seed, s.n(60), 2*s.endFaults/int64(n+1)+1, n) {
		if !o.Without[i] {
			s.plan = append(s.plan, f)
		}
	}
	s.cast(2)
	s.addSchedules()
	s.r = rand.New(rand.NewPCG(seed, 1<<33+o.Order))
	for _, h := range s.hosts {
		s.start(h)
	}
	for range 6 { // leaders change more often than the plan's faults make them
		at := s.n(int(s.endFaults))
		s.after(at, func() {
			if h := s.orchs[s.r.IntN(len(s.orchs))]; s.faulty {
				h.leader = !h.leader
			}
		})
	}
	s.loop(6000)
	s.ended()
	s.firesEnded()
	return s
}

package sim

import (
	"slices"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// worker drives protocol.Run as the worker service does: sessions, claims, calls, reports; every outside step may be late, lost or cut.
type worker struct {
	s     *Sim
	h     *host
	lease *leased // the session that is open; nil: none
	runs  []*run

	file   *lockFile
	parked []*delivery // suspects wait here until nothing else runs, the others until no suspect is left
	alone  bool        // a suspect runs
}

// lockFile stands in the directory of an allocation and survives the process.
type lockFile struct {
	ids    []int // sessions
	holder *host // of the lock on it
}

// leased is a session as its worker sees it.
type leased struct {
	id        protocol.ID
	trustFrom int64 // in the host's ticks
	renewed   int64 // when the last renewal that succeeded was sent
	dead      bool
}

type run struct {
	w     *worker
	d     *delivery
	m     *protocol.Run
	shape int
	cut   map[flow.Key]bool
	lost  bool // forgotten by its worker

	granted   int64              // when it heard so
	reporting protocol.EntryKind // what its last report says

	attempt int
	exec    int
}

func (w *worker) local() int64 { return int64(float64(w.s.now) * w.h.rate) }

func (w *worker) window() int64 { return lease - margin }

// open tells whether effects may start under the session.
func (w *worker) open(l *leased) bool {
	return w.s.broken.IgnoreWindow || (l != nil && !l.dead && w.local() < l.trustFrom+w.window())
}

func (w *worker) current() (protocol.ID, bool) {
	if w.lease == nil || w.lease.dead {
		return protocol.ID{}, false
	}
	return w.lease.id, w.open(w.lease)
}

// accept takes a delivery. A suspect runs alone, so that its next death harms nobody.
func (w *worker) accept(d *delivery) {
	w.parked = append(w.parked, d)
	w.next()
}

// next starts what may start.
func (w *worker) next() {
	for len(w.parked) > 0 && w.h.up && !w.alone && (!w.h.draining || len(w.runs) == 0) {
		d := w.parked[0]
		suspect := d.m.task.Suspect && !w.s.broken.SuspectsInCompany
		if suspect && len(w.runs) > 0 {
			return
		}
		w.parked = w.parked[1:]
		w.alone = suspect
		w.begin(d)
	}
}

// begin starts a run for a delivery.
func (w *worker) begin(d *delivery) {
	s := w.s
	t := d.m.task
	events, err := protocol.DecodeEvents(t.Steps)
	if err != nil {
		s.fail("bad task", "%v", err)
		return
	}
	rec := flow.Record{Execution: flow.ExecutionView{ID: t.ID.String(), CreatedAt: t.CreatedAt, Trigger: t.Trigger}}
	s.draws++
	m, err := protocol.NewRun(t, shapes()[t.Version].program, rec, events, s.draws, d.m.redelivered)
	if err != nil {
		s.fail("bad task", "%v", err)
		return
	}
	m.CheckpointAfter(checkpointAfter)
	r := &run{w: w, d: d, m: m, shape: t.Version, cut: map[flow.Key]bool{}, attempt: t.Attempt, exec: indexOf(t.ID)}
	w.runs = append(w.runs, r)
	id, open := w.current()
	r.do(r.m.Start(s.time(), id, open))
	if w.h.draining {
		r.do(r.m.Drain())
	}
}

// end forgets a run; its slot is free.
func (w *worker) end(r *run) {
	w.runs = slices.DeleteFunc(w.runs, func(o *run) bool { return o == r })
	if len(w.runs) == 0 {
		w.alone = false
	}
	w.next()
}

// do performs what a run asks for.
func (r *run) do(actions []protocol.Action) {
	w, s := r.w, r.w.s
	if r.lost {
		return
	}
	for _, a := range actions {
		switch a.Op {
		case protocol.DoAck:
			w.h.ack(r.d)
		case protocol.DoDone:
			w.end(r)
		case protocol.DoClaim:
			l := w.lease
			s.spawn(w.h, func(p *proc) { r.claim(p, a.Claim, l) })
		case protocol.DoReport:
			if a.Entry.Kind == protocol.EntryYield {
				s.Counts.Yields++
			}
			r.reporting = a.Entry.Kind
			s.spawn(w.h, func(p *proc) { r.report(p, a.Entry) })
		case protocol.DoCut:
			r.cut[a.Key] = true
		case protocol.DoSleep:
			s.spawn(w.h, func(p *proc) {
				p.sleep(max(1, int64(a.Command.Until.Sub(s.time())/Tick)))
				r.completed(a.Key, flow.Event{Type: flow.EventMet, At: s.time()})
			})
		case protocol.DoExecute:
			if a.Command.Kind == flow.KindEffect {
				delete(r.cut, a.Key)
				l := w.lease
				s.spawn(w.h, func(p *proc) { r.call(p, a.Command, l) })
				continue
			}
			r.completed(a.Key, s.compute(r.exec, a.Command))
		}
	}
}

func (r *run) completed(key flow.Key, e flow.Event) {
	if r.lost {
		return
	}
	actions, err := r.m.Completed(key, e)
	if err != nil {
		r.w.s.fail("engine refuses", "%v", err)
		return
	}
	r.do(actions)
}

// claim asks until there is an answer or the session is over: a run never gives up while its session lives.
func (r *run) claim(p *proc, c protocol.Claim, l *leased) {
	s := r.w.s
	if s.broken.SkipClaim {
		r.do(r.m.Claimed(c, protocol.Granted))
		return
	}
	for !l.dead {
		req := &request{claim: c}
		if s.rpc(p, req) {
			if req.answer != protocol.Granted {
				s.Counts.Refused++
			}
			r.granted = s.now
			r.do(r.m.Claimed(c, req.answer))
			return
		}
		s.Counts.ClaimUnknown++
		if s.broken.GiveUpClaim {
			m := r.d.m
			r.do(r.m.Claimed(c, protocol.Stale))
			s.after(3, func() { s.tasks = append(s.tasks, m) })
			return
		}
		p.sleep(3)
	}
}

// call is one effect: the window is looked at last, the call ends when it is cut.
func (r *run) call(p *proc, cmd flow.Command, l *leased) {
	w, s := r.w, r.w.s
	p.step()
	if r.m.Done() || r.lost {
		return
	}
	if !w.open(l) || r.cut[cmd.Key] {
		s.Counts.Held++
		if s.broken.DropOnClosed {
			w.h.ack(r.d)
			w.end(r)
			return
		}
		r.do(r.m.Cut(cmd.Key))
		return
	}
	if s.r.IntN(2) == 0 {
		p.step() // the hole that is left: paused exactly between the check and the call
	}
	act := s.act(r, l, cmd)
	d := s.n(25)
	if s.r.IntN(8) == 0 {
		d = s.n(200)
	}
	end := s.now + d
	slow := cmd.Timeout > 0 && d > int64(cmd.Timeout/Tick)
	if slow {
		end = s.now + int64(cmd.Timeout/Tick)
	}
	if cmd.Key.Node[0] == 'k' {
		s.after(1+d/2, func() { s.kill(w.h, "poison") })
	}
	p.wait(func() bool { return s.now >= end || r.cut[cmd.Key] || r.lost }, end)
	act.inflight = false
	if r.lost {
		return
	}
	if cmd.Key.Node[0] == 'h' && s.now >= end {
		if e, ok := r.places(p, cmd); ok {
			r.completed(cmd.Key, e)
			return
		}
		if r.lost || r.m.Done() {
			return
		}
		end = s.now + 1 // cut while it asked
	}
	if s.now < end {
		act.cut = true
		s.Counts.Cuts++
		s.tr("%s: E%d %s is cut", w.h.name(), r.exec, cmd.Key.Node)
		r.do(r.m.Cut(cmd.Key))
		return
	}
	if slow {
		s.Counts.Failures++
		r.completed(cmd.Key, flow.Event{Type: flow.EventFailed, Error: &flow.Failure{Code: "timeout", Message: "too slow", Retryable: cmd.Try < 6}, At: s.time()})
		return
	}
	r.completed(cmd.Key, s.result(cmd))
}

// report publishes the same entry until it is confirmed or its run is over.
func (r *run) report(p *proc, e *protocol.Entry) {
	s := r.w.s
	for !r.m.Done() && !r.lost {
		if p.publishReport(&protocol.Report{V: protocol.SchemaVersion, Shard: r.d.m.task.Shard, Entries: []protocol.Entry{*e}}) {
			if r.m.Done() || r.lost {
				return
			}
			s.confirmed(r, e)
			r.do(r.m.Confirmed(e.Seq))
			return
		}
		p.sleep(4)
	}
}

func (w *worker) each(do func(*run) []protocol.Action) {
	for _, r := range slices.Clone(w.runs) {
		r.do(do(r))
	}
}

// sessions opens and renews them.
func (w *worker) sessions(p *proc) {
	s, h := w.s, w.h
	if f := w.file; f.holder != nil && f.holder != h && !s.broken.EndWithoutLock {
		s.tr("%s waits for the lock of %s", h.name(), f.holder.name())
		p.wait(func() bool { return f.holder == nil }, 1<<60)
	}
	w.file.holder = h
	for {
		ended := w.file.ids
		id := idOf('s', len(s.db.sessions))
		s.db.sessions = append(s.db.sessions, &session{Session: protocol.Session{ID: id, Worker: h.name()}, host: h.id, inst: h.inst})
		w.file.ids = append(slices.Clone(ended), indexOf(id)) // before it asks
		l := &leased{id: id, trustFrom: w.local()}
		req := &request{open: id, previous: ended}
		if !s.rpc(p, req) || req.answer != protocol.Granted {
			p.sleep(3)
			continue
		}
		w.file.ids = []int{indexOf(id)}
		w.lease = l
		w.each(func(r *run) []protocol.Action { return r.m.Session(id, w.open(l)) })
		s.spawn(h, func(p *proc) { w.watch(p, l) })
		for !l.dead {
			p.sleep(int64(lease / 3 / h.rate))
			sent, at := w.local(), s.now
			req := &request{renew: id, runs: w.numbers(), owned: w.owned()}
			if !s.rpc(p, req) {
				p.sleep(3)
				continue
			}
			if req.answer == protocol.SessionDead {
				l.dead = true
				break
			}
			l.trustFrom, l.renewed = max(l.trustFrom, sent), at
			w.each(func(r *run) []protocol.Action { return r.m.Session(id, w.open(l)) })
			w.disown(id, req.orphans)
			for _, n := range s.broken.gone(req.gone) {
				w.each(func(r *run) []protocol.Action {
					if r.m.Number() != n {
						return nil
					}
					s.Counts.Gone++
					return r.m.Gone()
				})
			}
			for _, id := range req.pauses {
				w.each(func(r *run) []protocol.Action {
					if r.m.Execution() != id || r.m.Owner().IsZero() {
						return nil
					}
					return r.m.Drain()
				})
			}
			for _, c := range req.cancels {
				w.each(func(r *run) []protocol.Action {
					if r.m.Execution() != c.Execution {
						return nil
					}
					return r.m.Cancel(c.As)
				})
			}
		}
		w.lease = nil
		w.each(func(r *run) []protocol.Action { return r.m.SessionDied(id) })
	}
}

func (w *worker) numbers() []int64 {
	var out []int64
	for _, r := range w.runs {
		out = append(out, r.m.Number())
	}
	return out
}

// owned lists the runs that own their attempts.
func (w *worker) owned() []int64 {
	var out []int64
	for _, r := range w.runs {
		if !r.m.Owner().IsZero() {
			out = append(out, r.m.Number())
		}
	}
	return out
}

// disown hands back what the session owns and no run works on.
func (w *worker) disown(session protocol.ID, orphans []protocol.Orphan) {
	if !w.s.nets {
		return
	}
	have := w.numbers()
	for _, o := range orphans {
		if slices.Contains(have, o.Run) {
			continue // begun since the renewal was sent
		}
		w.s.Counts.Orphans++
		w.s.spawn(w.h, func(p *proc) {
			p.publishReport(&protocol.Report{V: protocol.SchemaVersion, Shard: o.Shard, Entries: []protocol.Entry{o.Yield(session)}})
		})
	}
}

// forget loses a run, as a mistake of ours would: nothing of it goes on, nobody is told.
func (w *worker) forget(r *run) {
	r.lost = true
	w.end(r)
	for _, a := range w.s.world.acts {
		if a.run == r && a.inflight {
			a.inflight, a.cut = false, true
		}
	}
}

// watch closes the window when its time has come.
func (w *worker) watch(p *proc, l *leased) {
	for !l.dead {
		p.wait(func() bool { return l.dead || !w.open(l) }, 1<<60)
		if l.dead {
			return
		}
		w.each(func(r *run) []protocol.Action { return r.m.Session(l.id, false) })
		p.wait(func() bool { return l.dead || w.open(l) }, 1<<60)
	}
}

// drain is what SIGTERM begins: no more tasks, what is in flight ends, the rest is handed back; then the session is ended and the process is gone.
func (w *worker) drain(p *proc) {
	p.wait(func() bool { return w.h.draining }, 1<<60)
	w.each(func(r *run) []protocol.Action { return r.m.Drain() })
	p.wait(func() bool { return len(w.runs) == 0 }, 1<<60)
	w.s.after(1, func() { w.s.kill(w.h, "drained") })
	p.sleep(1000)
}

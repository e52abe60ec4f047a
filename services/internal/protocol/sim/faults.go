package sim

import (
	"math/rand/v2"
	"slices"

	"flowplatform/services/internal/protocol"
)

// span is how long a fault lasts: often short, sometimes longer than a lease.
func (s *Sim) span() int64 {
	if s.r.IntN(2) == 0 {
		return 5 + s.n(60)
	}
	return 60 + s.n(300)
}

func (s *Sim) pause(h *host, d int64) {
	if h.up {
		h.pausedTill, h.pausedAt = s.now+d, s.now
		s.tr("%s pauses for %d", h.name(), d)
	}
}

// fault is one planned thing that goes wrong. What it is follows from the schedule's seed and its own number alone, so that it stays the same when others are
// left out (shrink.go).
type fault struct {
	at int64
	r  *rand.Rand
}

// plan draws the faults of a schedule.
func plan(seed uint64, from, every int64, n int) []fault {
	out := make([]fault, n)
	for i := range out {
		r := rand.New(rand.NewPCG(seed, 1000+uint64(i)))
		out[i] = fault{at: from, r: r}
		from += r.Int64N(every)
	}
	return out
}

// inject makes the fault.
func (f fault) inject(s *Sim) {
	defer func(r *rand.Rand) { s.r = r }(s.r)
	s.r = f.r
	s.Counts.Faults++
	w := s.workers[s.r.IntN(len(s.workers))]
	o := s.orchs[s.r.IntN(len(s.orchs))]
	k := s.r.IntN(shards)
	switch x := s.r.IntN(18); x {
	case 0, 1, 2:
		h := w
		if x == 1 {
			h = o
		} else if s.r.IntN(8) == 0 {
			h = s.gateway
		}
		s.pause(h, s.span())
	case 3, 4:
		s.kill(w, "SIGKILL")
	case 5:
		s.kill(o, "SIGKILL")
	case 6:
		if s.r.IntN(3) == 0 {
			s.kill(s.gateway, "SIGKILL")
		} else {
			s.kill(o, "SIGKILL")
		}
	case 7:
		s.tr("%s loses its task channel", w.name())
		s.loseChannel(w)
	case 8, 9:
		s.moveConsumer(k, s.broken.CancelOverBatch)
	case 10:
		s.databaseAway(s.span())
	case 11:
		s.double(w, k)
	case 12:
		if w.up {
			s.tr("%s gets SIGTERM", w.name())
			w.draining = true
		}
	case 13:
		s.cutOff(w)
	case 14:
		o.leader = !o.leader // both may believe, or none
	case 15:
		s.loseRun(w)
	case 16:
		s.orphan(w)
	case 17:
		s.loseReport(k)
	}
}

func (s *Sim) databaseAway(d int64) {
	s.tr("database away for %d", d)
	if s.now >= s.db.downTill {
		s.db.downFrom = s.now
	}
	s.db.downTill = max(s.db.downTill, s.now+d)
}

// loseRun makes a worker forget a run that owns its attempt, as a mistake of ours would.
func (s *Sim) loseRun(w *host) {
	if !w.up || !s.nets {
		return
	}
	for _, r := range w.worker.runs {
		if !r.m.Owner().IsZero() {
			s.tr("%s forgets its run of E%d", w.name(), r.exec)
			w.worker.forget(r)
			return
		}
	}
}

// orphan starts another process in a worker's allocation while the old one lives on: its executor was killed.
func (s *Sim) orphan(w *host) {
	if !w.up || w.ghost {
		return
	}
	s.tr("%s is left alone: its allocation starts another process", w.name())
	s.Counts.Ghosts++
	w.ghost = true
	h := s.host('w', w.id)
	h.pool = w.pool
	h.inst = w.inst
	h.worker = &worker{s: s, h: h, file: w.worker.file}
	s.workers = append(s.workers, h)
	s.start(h)
	s.after(s.span(), func() { s.kill(w, "the orphan ends") })
}

// loseReport arms the loss of the next report that reaches the queue and is confirmed: the one promise that rests on the broker, broken.
func (s *Sim) loseReport(k int) {
	if s.nets {
		s.queue[k].lossy = true
	}
}

// lost tells whether the queue loses this report. Those of runs without an owner are left alone: only the net by age finds such an execution again, and that is
// off here.
func (q *reportQueue) lost(s *Sim, rep *protocol.Report) bool {
	e := rep.Entries[0]
	if !q.lossy || e.Session.IsZero() {
		return false
	}
	q.lossy = false
	s.tr("the broker confirms and loses a %s of E%d a%d/%d", e.Kind, indexOf(e.Execution), e.Attempt, e.Seq)
	s.Counts.LostReports++
	if x := s.execution(e.Execution); x != nil && e.Kind != protocol.EntryRecover {
		x.blind = max(x.blind, e.Attempt)
	}
	return true
}

func (s *Sim) double(w *host, k int) {
	again := func(m taskMessage) {
		s.after(1+s.n(150), func() { s.tasks = append(s.tasks, &m) })
	}
	if len(s.tasks) > 0 {
		again(*s.tasks[s.r.IntN(len(s.tasks))])
	}
	for _, r := range w.worker.runs {
		again(*r.d.m)
	}
	if q := &s.queue[k]; len(q.unacked) > 0 {
		m := q.unacked[s.r.IntN(len(q.unacked))]
		s.after(1+s.n(150), func() { q.ready = append(q.ready, m) })
	}
}

func (s *Sim) cutOff(w *host) {
	d := s.span()
	if s.r.IntN(2) == 0 {
		s.tr("%s reaches no orchestrator for %d", w.name(), d)
		w.cutOrch = s.now + d
		return
	}
	s.tr("%s is cut from the broker for %d", w.name(), d)
	w.cutBroker = s.now + d
	if s.r.IntN(2) == 0 {
		s.loseChannel(w)
	}
}

func (s *Sim) stopFaults() {
	s.faulty = false
	s.tr("faults end")
	s.db.downTill = min(s.db.downTill, s.now)
	for _, h := range s.hosts {
		h.pausedTill, h.cutBroker, h.cutOrch = min(h.pausedTill, s.now), 0, 0
		if h.ghost {
			s.kill(h, "the orphan ends")
		} else if !h.up {
			h.restartAt = min(h.restartAt, s.now+5)
		}
	}
	for i, o := range s.orchs {
		o.leader = i == 0
	}
}

func (s *Sim) afterKill(h *host) {
	h.restartAt = s.now + 2 + s.n(120)
	h.pausedTill = 0
	switch h.kind {
	case 'w':
		s.loseChannel(h)
		h.worker.runs = nil
		if h.worker.file.holder == h {
			h.worker.file.holder = nil
		}
		for _, a := range s.world.acts {
			if a.run.w == h.worker {
				a.inflight = false
			}
		}
		if s.r.IntN(3) == 0 { // its allocation is gone, with the lock file: only the lease tells
			h.worker.file = &lockFile{}
		}
	case 'o':
		for k := range s.queue {
			q := &s.queue[k]
			for epoch, held := range q.held {
				q.ready = append(slices.Clone(held), q.ready...)
				delete(q.held, epoch)
			}
			if q.active == h.id {
				s.moveConsumer(k, false)
			}
		}
	}
}

// start starts a host's process.
func (s *Sim) start(h *host) {
	h.inst++
	h.up, h.draining = true, false
	switch h.kind {
	case 'w':
		w := &worker{s: s, h: h, file: &lockFile{}}
		if h.worker != nil {
			w.file = h.worker.file
		}
		h.worker = w
		s.spawn(h, w.sessions)
		s.spawn(h, w.drain)
	case 'o':
		o := &server{s: s, h: h}
		h.server = o
		s.spawn(h, o.serveSessions)
		s.spawn(h, o.serveClaims)
		s.spawn(h, o.serveCalls)
		s.spawn(h, o.lead)
		if len(s.db.scheds) > 0 {
			s.spawn(h, o.fires)
		}
		if len(s.db.catching.triggers) > 0 {
			s.spawn(h, o.catches)
		}
		if len(s.arrivals) > 0 {
			s.spawn(h, o.admits)
		}
		for k := range shards {
			s.spawn(h, func(p *proc) { o.collect(p, k) })
		}
	case 'm':
		s.spawn(h, s.polls)
	case 'g': // what clients ask again: an accept that they have no answer to
		for _, i := range s.want {
			if !s.db.execs[i].exists {
				s.spawn(h, func(p *proc) { s.accept(p, i) })
			}
		}
		for _, a := range s.arrivals {
			if !a.answered {
				s.spawn(h, func(p *proc) { s.insists(p, a) })
			}
		}
		for _, m := range s.sendings {
			s.spawn(h, func(p *proc) { s.sends(p, m) })
		}
		s.spawn(h, s.tidy)
		if len(s.db.scheds) > 0 && !s.quiet {
			s.spawn(h, s.backfill)
			s.spawn(h, s.people)
		}
	}
}

// ---- the gateway

func (s *Sim) accept(p *proc, i int) {
	e := s.db.execs[i]
	for {
		err := store{p}.Txn(bg, "accept", func(tx protocol.Tx) error { return p.tx.insert(i, e.shape) })
		if err == nil {
			protocol.HandOut(bg, store{p}, publisher{p}, []protocol.ID{idOf('e', i)})
			return
		}
		p.sleep(10)
	}
}

func (s *Sim) cancel(p *proc, i int) {
	s.db.execs[i].cancelled = true // it may be committed though nobody hears so
	for {
		var out protocol.Outcome
		err := store{p}.Txn(bg, "cancel", func(tx protocol.Tx) error {
			var err error
			out, err = protocol.Cancel(bg, tx, []protocol.ID{idOf('e', i)}, protocol.Cancelled)
			return err
		})
		if err == nil {
			protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut)
			s.tr("user cancels E%d", i)
			s.Counts.Cancels++
			return
		}
		p.sleep(10)
	}
}

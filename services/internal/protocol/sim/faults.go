package sim

import (
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

// inject makes one fault, by chance.
func (s *Sim) inject() {
	s.Counts.Faults++
	w := s.workers[s.r.IntN(len(s.workers))]
	o := s.orchs[s.r.IntN(len(s.orchs))]
	k := s.r.IntN(shards)
	switch x := s.r.IntN(16); x {
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
		d := s.span()
		s.tr("database away for %d", d)
		if s.now >= s.db.downTill {
			s.db.downFrom = s.now
		}
		s.db.downTill = max(s.db.downTill, s.now+d)
	case 11:
		s.double(w, k)
	case 12:
		if w.up {
			s.tr("%s gets SIGTERM", w.name())
			w.draining = true
		}
	case 13:
		s.cutOff(w)
	case 15:
		if w.up && s.nets {
			for _, r := range w.worker.runs {
				if !r.m.Owner().IsZero() {
					s.tr("%s forgets its run of E%d", w.name(), r.exec)
					w.worker.forget(r)
					break
				}
			}
		}
	case 14:
		o.leader = !o.leader // both may believe, or none
	}
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
		if !h.up {
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
		for _, a := range s.world.acts {
			if a.run.w == h.worker {
				a.inflight = false
			}
		}
		if s.r.IntN(3) == 0 { // its allocation is gone, with the lock file: only the lease tells
			h.worker.file = nil
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
		w := &worker{s: s, h: h}
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
		s.spawn(h, o.lead)
		for k := range shards {
			s.spawn(h, func(p *proc) { o.collect(p, k) })
		}
	case 'g': // what clients ask again: an accept that they have no answer to
		for _, i := range s.want {
			if !s.db.execs[i].exists {
				s.spawn(h, func(p *proc) { s.accept(p, i) })
			}
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
	for {
		err := store{p}.Txn(bg, "cancel", func(tx protocol.Tx) error {
			_, err := protocol.Cancel(bg, tx, []protocol.ID{idOf('e', i)}, protocol.Cancelled)
			return err
		})
		if err == nil {
			s.tr("user cancels E%d", i)
			s.Counts.Cancels++
			return
		}
		p.sleep(10)
	}
}

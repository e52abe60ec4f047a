package sim

import (
	"context"
	"errors"
	"time"

	"flowplatform/services/internal/protocol"
)

// server is an orchestrator: sessions and claims for workers, a collector for each report queue, and what the leader does. The loops
// call the protocol's own code.
type server struct {
	s        *Sim
	h        *host
	sessions []*request
	claims   []*request
	calls    []*request
	batches  [shards][]*reportBatch
}

// request is a call of a worker to an orchestrator; which field is set says what it asks.
type request struct {
	open     protocol.ID
	previous []int
	renew    protocol.ID
	runs     []int64
	owned    []int64
	claim    protocol.Claim
	call     *protocol.CallRequest

	called  protocol.CallAnswer
	done    bool
	answer  protocol.Answer
	cancels []protocol.CancelOrder
	orphans []protocol.Orphan
	gone    []int64
	pauses  []protocol.ID
}

var bg = context.Background()

// rpc sends a request; it and the answer may be late or lost. false: no answer.
func (s *Sim) rpc(p *proc, r *request) bool {
	p.step()
	if s.now < p.h.cutOrch {
		p.sleep(20)
		return false
	}
	o := s.orchs[s.r.IntN(len(s.orchs))]
	if !o.up {
		p.sleep(5)
		return false
	}
	inst := o.inst
	d := 1 + s.n(3)
	if s.noise(5) {
		d += s.n(150)
	}
	s.after(d, func() {
		switch {
		case !o.up || o.inst != inst:
		case r.call != nil:
			o.server.calls = append(o.server.calls, r)
		case r.claim.Execution.IsZero():
			o.server.sessions = append(o.server.sessions, r)
		default:
			o.server.claims = append(o.server.claims, r)
		}
	})
	return p.wait(func() bool { return r.done }, s.now+60)
}

func (s *Sim) reply(r *request, a protocol.Answer) {
	if s.noise(5) {
		return
	}
	s.after(1+s.n(3), func() { r.answer, r.done = a, true })
}

func (o *server) serveSessions(p *proc) {
	for {
		p.wait(func() bool { return len(o.sessions) > 0 }, 1<<60)
		batch := o.sessions
		o.sessions = nil
		var renewals []protocol.RenewRequest
		for _, r := range batch {
			if !r.renew.IsZero() {
				renewals = append(renewals, protocol.RenewRequest{Session: r.renew, Runs: r.runs, Owned: r.owned})
				if o.s.broken.AnswerBeforeCommit {
					o.s.reply(r, protocol.Granted)
				}
			}
		}
		var renewed map[protocol.ID]protocol.SessionResponse
		opened := map[protocol.ID]bool{}
		var ended []protocol.ID
		err := store{p}.Txn(bg, "sessions", func(tx protocol.Tx) error {
			ended = nil
			for _, r := range batch {
				if r.open.IsZero() {
					continue
				}
				req := protocol.OpenSessionRequest{Session: r.open}
				for _, n := range r.previous {
					req.Ended = append(req.Ended, idOf('s', n))
				}
				_, gone, err := protocol.OpenSession(bg, tx, req)
				if err != nil {
					return err
				}
				opened[r.open] = true
				ended = append(ended, gone...)
			}
			var err error
			renewed, err = protocol.Renew(bg, tx, renewals)
			return err
		})
		if err != nil {
			continue // no answer: they ask again
		}
		for _, r := range batch {
			switch {
			case opened[r.open]:
				o.s.reply(r, protocol.Granted)
			case renewed[r.renew].Alive:
				a := renewed[r.renew]
				r.cancels, r.orphans, r.gone, r.pauses = a.Cancels, a.Orphans, a.Gone, a.Pauses
				o.s.reply(r, protocol.Granted)
			default:
				o.s.reply(r, protocol.SessionDead)
			}
		}
		o.recover(p, ended)
	}
}

// recover sends what takes back all that dead sessions own, through every report queue.
func (o *server) recover(p *proc, sessions []protocol.ID) {
	for _, id := range sessions {
		for k := range shards {
			if o.s.broken.RecoverBeside {
				c := protocol.Collector{Shard: k, Store: store{p}}
				if out, err := c.Apply(bg, []protocol.Entry{protocol.RecoverEntry(id)}); err == nil {
					protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut)
				}
				continue
			}
			p.publishReport(&protocol.Report{V: protocol.SchemaVersion, Shard: k, Entries: []protocol.Entry{protocol.RecoverEntry(id)}})
		}
	}
}

func (o *server) serveClaims(p *proc) {
	for {
		p.wait(func() bool { return len(o.claims) > 0 }, 1<<60)
		batch := o.claims
		o.claims = nil
		claims := make([]protocol.Claim, len(batch))
		for i, r := range batch {
			claims[i] = r.claim
		}
		var answers []protocol.Answer
		err := store{p}.Txn(bg, "claims", func(tx protocol.Tx) error {
			p.tx.claims = claims
			var err error
			answers, err = protocol.GrantClaims(bg, tx, claims)
			return err
		})
		if err != nil {
			continue // unknown or failed: no answer
		}
		for i, r := range batch {
			if answers[i] == protocol.Granted {
				o.s.Counts.Claims++
			}
			o.s.reply(r, answers[i])
		}
	}
}

func (o *server) collect(p *proc, k int) {
	s := o.s
	c := protocol.Collector{Shard: k, Store: store{p}}
	for {
		p.wait(func() bool { return len(o.batches[k]) > 0 }, 1<<60)
		b := o.batches[k][0]
		o.batches[k] = o.batches[k][1:]
		var entries []protocol.Entry
		for _, rep := range b.reports {
			entries = append(entries, rep.Entries...)
		}
		entries = s.broken.entries(entries)
		for {
			q := &s.queue[k]
			if b.epoch != q.epoch && q.held[b.epoch] == nil && s.r.IntN(3) == 0 {
				break // sometimes it has noticed that the channel is gone
			}
			p.part = "collector"
			out, err := c.Apply(bg, entries)
			p.part = ""
			if errors.Is(err, protocol.ErrComeBack) {
				s.Counts.ComeBacks++
				if b.epoch == q.epoch {
					s.moveConsumer(k, false)
				}
				break
			}
			if err != nil {
				p.sleep(5)
				continue
			}
			if b.epoch != q.epoch {
				s.Counts.Old++ // a zombie: its consumer has moved, its commit came through
			}
			protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut) // what fails here is the reconciler's
			if !s.alone && s.r.IntN(2) == 0 {                         // else the follow-up is lost
				s.spawn(o.h, func(p *proc) { p.part = "follow-up"; s.post(p, out.Mail) })
			}
			s.freed(o.h, out.Freed)
			break
		}
		p.step()
		if q := &s.queue[k]; b.epoch == q.epoch {
			q.unacked = nil
		} else {
			delete(q.held, b.epoch)
		}
	}
}

// lead is what the leader does. Two may believe that they lead; all that they do is compare-and-set.
func (o *server) lead(p *proc) {
	s, h := o.s, o.h
	judge := &protocol.Judge{Store: s.broken.sight(store{p}), Lease: ticks(lease), Clock: h.clock}
	rec := &protocol.Reconciler{Store: store{p}, Publisher: publisher{p}}
	for {
		p.sleep(6)
		if !h.leader {
			judge.Forget()
			continue
		}
		if ended, err := judge.Look(bg); err == nil {
			o.recover(p, ended)
		}
		if dead, err := (store{p}).DeadOwners(bg, 100); err == nil && s.r.IntN(3) == 0 {
			o.recover(p, dead)
		}
		if s.r.IntN(3) == 0 {
			n, _ := rec.Unhanded(bg)
			s.Counts.Reconciled += n
		}
		p.part = "timers"
		rec.Due(bg, 2*time.Second)
		p.part = ""
		if s.r.IntN(3) == 0 {
			p.part = "sweep"
			out, found, _ := rec.Mail(bg, time.Second)
			p.part = ""
			s.Counts.Swept += found
			s.post(p, out.Mail)
		}
		if s.r.IntN(3) == 0 {
			rec.Overdue(bg)
		}
		s.lost(p, rec)
	}
}

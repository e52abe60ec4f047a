package sim

import (
	"context"
	"slices"

	"flowplatform/services/internal/protocol"
)

// What users do while executions run: retry what ended badly, pause and resume. Each crosses with everything else.

// Pauses implements protocol.Tx: the simulation's flows are never paused as a whole.
func (t *txn) Pauses(context.Context, []protocol.ID) (protocol.Pauses, error) {
	if err := t.statement(); err != nil {
		return protocol.Pauses{}, err
	}
	return protocol.Pauses{}, nil
}

// restart begins a deadline anew.
func (db *database) restart(id protocol.ID, s *Sim) {
	e := db.execs[indexOf(id)]
	if e.facts.Deadline.IsZero() {
		return
	}
	began := e.restarted
	if began.IsZero() {
		began = epoch
	}
	e.facts.Deadline = s.time().Add(e.facts.Deadline.Sub(began))
	e.restarted = s.time()
}

// user runs a script on an execution until its outcome is known, as somebody at the API would: again after an unknown commit. It tells whether it was done by
// the last try.
func (s *Sim) user(p *proc, name string, i int, script func(protocol.Tx, []protocol.ID) (protocol.Outcome, []protocol.Verdict, error)) bool {
	for {
		var out protocol.Outcome
		var verdicts []protocol.Verdict
		err := store{p}.Txn(bg, name, func(tx protocol.Tx) error {
			var err error
			out, verdicts, err = script(tx, []protocol.ID{idOf('e', i)})
			return err
		})
		if err == nil {
			protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut) // what fails here is the reconciler's
			return verdicts[0].Done
		}
		p.sleep(10)
	}
}

// retries retries an execution that ends badly, a few times.
func (s *Sim) retries(p *proc, i, times int) {
	e := s.db.execs[i]
	for range times {
		p.wait(func() bool { return e.exists && e.row.State.Final() }, 1<<60)
		p.sleep(s.n(40))
		if !s.faulty {
			return
		}
		if s.user(p, "retry", i, func(tx protocol.Tx, ids []protocol.ID) (protocol.Outcome, []protocol.Verdict, error) {
			return protocol.Retry(bg, tx, ids)
		}) {
			s.Counts.Retries++
			s.tr("user retries E%d", i)
		}
	}
}

// pauses pauses an execution for a while.
func (s *Sim) pauses(p *proc, i int, d int64) {
	if !s.user(p, "pause", i, func(tx protocol.Tx, ids []protocol.ID) (protocol.Outcome, []protocol.Verdict, error) {
		return protocol.Pause(bg, tx, ids, protocol.PausedBy("somebody", "to look"))
	}) {
		return
	}
	s.Counts.Pauses++
	s.tr("user pauses E%d", i)
	p.sleep(d)
	s.resume(p, i)
}

func (s *Sim) resume(p *proc, i int) {
	if s.user(p, "resume", i, func(tx protocol.Tx, ids []protocol.ID) (protocol.Outcome, []protocol.Verdict, error) {
		return protocol.Resume(bg, tx, ids, true)
	}) {
		s.Counts.Resumes++
		s.tr("user resumes E%d", i)
	}
}

// tidy resumes what is still paused when the faults are over: who paused it may be gone.
func (s *Sim) tidy(p *proc) {
	for {
		i := -1
		p.wait(func() bool {
			i = slices.IndexFunc(s.db.execs, func(e *execution) bool { return e.exists && e.row.Paused != "" })
			return !s.faulty && i >= 0
		}, 1<<60)
		s.resume(p, i)
	}
}

// steered draws what users do with the executions beside cancels.
func (s *Sim) steered() {
	for _, i := range s.want {
		if s.r.IntN(3) == 0 && !shapes()[s.db.execs[i].shape].program.Undoes() { // retried, these begin anew: another history
			s.atGateway(1, func(p *proc) { s.retries(p, i, 2) })
		}
		for range s.r.IntN(3) {
			d := s.n(150)
			s.atGateway(10+s.n(int(s.endFaults)), func(p *proc) { s.pauses(p, i, d) })
		}
	}
}

func (s *Sim) atGateway(at int64, do func(*proc)) {
	s.after(at, func() {
		if s.gateway.up {
			s.spawn(s.gateway, do)
		}
	})
}

// retryCommitted checks what a retry may do to an end, and what counts as not tried from then on.
func (s *Sim) retryCommitted(i int, o, n protocol.Row) {
	if o.State == protocol.Succeeded || n.State != protocol.Queued || n.Attempt != o.Attempt+1 || n.Retries != o.Retries+1 || n.Deaths != 0 {
		s.fail("16 retry", "E%d %s a%d → %s a%d", i, o.State, o.Attempt, n.State, n.Attempt)
	}
	s.db.execs[i].fresh = o.Attempt
}

// lie hides pauses from claims (Broken.ClaimPaused), and remembers them so that they are not written away.
func (x *brokenTx) lie(r *protocol.Row) {
	if x.b.ClaimPaused && x.t.name == "claims" && r.Paused != "" {
		if x.hidden == nil {
			x.hidden = map[protocol.ID]string{}
		}
		x.hidden[r.ID], r.Paused = r.Paused, ""
	}
}

// twist changes what retries and resumes write.
func (x *brokenTx) twist(rows []protocol.Row) {
	for i := range rows {
		r := &rows[i]
		r.Paused += x.hidden[r.ID]
		if x.b.RetrySameAttempt && x.t.name == "retry" || x.b.ResumeSameAttempt && x.t.name == "resume" && r.State == protocol.Queued {
			r.Attempt--
			r.Handed = min(r.Handed, r.Attempt)
		}
	}
}

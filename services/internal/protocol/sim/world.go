package sim

import (
	"encoding/json"
	"slices"
	"strings"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// The outside world, which sees every call, and the invariants.

type world struct {
	acts []*act
	conf map[place]int // tries whose report was confirmed while their run had the right to act, by the attempt that did
	good map[place]int // nodes (try 0) that succeeded and were confirmed, by attempt
}

type act struct {
	exec, attempt int
	node          string
	try           int
	session       int
	run           *run
	at            int64
	inflight, cut bool
	hole          bool
}

type place struct {
	exec int
	node string
	try  int
}

// compute is what pure and waiting nodes do.
func (s *Sim) compute(exec int, cmd flow.Command) flow.Event {
	if cmd.Kind == flow.KindWait {
		return flow.Event{Type: flow.EventWaiting, Wait: s.opens(exec, cmd), At: s.time()}
	}
	return flow.Event{Type: flow.EventSucceeded, At: s.time()}
}

// result is what an effect comes to.
func (s *Sim) result(cmd flow.Command) flow.Event {
	failed := func(code string, again bool) flow.Event {
		s.Counts.Failures++
		return flow.Event{Type: flow.EventFailed, Error: &flow.Failure{Code: code, Message: "failed", Retryable: again}, At: s.time()}
	}
	switch cmd.Key.Node[0] {
	case 'r', 'z':
		if cmd.Try < 6 && s.r.IntN(3) == 0 {
			return failed("sim", true)
		}
	case 'x', 'c':
		if s.r.IntN(2) == 0 {
			return failed("sim-final", false)
		}
	case 'v':
		if s.r.IntN(3) == 0 {
			return flow.Event{Type: flow.EventSucceeded, Output: refusedValue, At: s.time()}
		}
	}
	return flow.Event{Type: flow.EventSucceeded, At: s.time()}
}

// refusedValue is what the database doesn't take.
const refusedValue = "a value that the database refuses"

// tooSlow is the timeout of o nodes in ticks.
const tooSlow = 60

// confirmed: the run has read the confirm of a report, and has the right to act on it.
func (s *Sim) confirmed(r *run, e *protocol.Entry) {
	if r.w.lease == nil || !r.w.open(r.w.lease) {
		return
	}
	events, err := protocol.DecodeEvents(lists(e.Events))
	if err != nil {
		s.fail("bad report", "%v", err)
	}
	for _, ev := range events {
		if ev.Node == "" || !isEffect(rune(ev.Node[0])) {
			continue
		}
		node := placeOf(ev.Node, ev.Iteration)
		switch ev.Type {
		case flow.EventSucceeded:
			s.world.good[place{r.exec, node, 0}] = r.attempt
			fallthrough
		case flow.EventFailed:
			s.world.conf[place{r.exec, node, ev.Try}] = r.attempt
			s.tr("%s: E%d a%d %s try %d confirmed", r.w.h.name(), r.exec, r.attempt, node, ev.Try)
		}
	}
}

// act is a call that begins. It says what is wrong with that, if anything is.
func (s *Sim) act(r *run, l *leased, cmd flow.Command) *act {
	w := r.w
	hole := !w.open(l) && !s.broken.IgnoreWindow
	a := &act{exec: r.exec, attempt: r.attempt, node: placeOf(cmd.Key.Node, cmd.Key.Iteration), try: cmd.Try, session: indexOf(l.id), run: r, at: s.now, inflight: true, hole: hole}
	s.Counts.Acts++
	if (a.node[0] == 'g') != (w.h.pool == otherPool) {
		s.fail("7 a step of another pool", "E%d %s by %s of %s", a.exec, a.node, w.h.name(), w.h.pool)
	}
	s.tr("%s: ACT E%d a%d %s try %d under S%d (window ended: %v)", w.h.name(), a.exec, a.attempt, a.node, a.try, a.session, hole)
	harm := s.harm(a)
	switch {
	case hole:
		s.Counts.Holes++
		if harm != "" {
			s.Counts.HoleHarm++
		}
	case harm != "":
		s.fail(harm, "E%d a%d %s try %d by %s under S%d", a.exec, a.attempt, a.node, a.try, w.h.name(), a.session)
	}
	s.world.acts = append(s.world.acts, a)
	return a
}

func (s *Sim) harm(a *act) string {
	row, blind, fresh := s.db.execs[a.exec].row, s.db.execs[a.exec].blind, s.db.execs[a.exec].fresh
	if a.attempt <= blind {
		if a.attempt < row.Attempt || row.State.Final() {
			s.Counts.BlindActs++ // a report of this attempt was lost or refused after its confirm: until the next renewal its owner can't know
			if l := a.run.w.lease; l != nil && !a.run.m.Done() && l.renewed > max(s.db.execs[a.exec].over, a.run.granted) {
				return "15 acts though a renewal could tell that the attempt is over"
			}
		}
		return ""
	}
	switch {
	case row.State.Final():
		return "5 act after the end"
	case s.world.conf[place{a.exec, a.node, a.try}] > max(blind, fresh), s.world.good[place{a.exec, a.node, 0}] > blind:
		return "2 confirmed step acts again"
	}
	for _, b := range s.world.acts {
		if b.exec != a.exec || b.attempt <= blind {
			continue
		}
		same := b.node == a.node && b.try == a.try
		switch {
		case b.hole && b.attempt < a.attempt:
		case b.attempt > a.attempt:
			return "3 older owner acts"
		case b.attempt == a.attempt && b.run != a.run:
			return "3 two owners of one attempt"
		case b.attempt < a.attempt && b.inflight && b.run.w.h.up:
			if h := b.run.w.h; h.pausedTill > s.now || h.pausedAt > b.at {
				s.Counts.Overlaps++ // paused during the call: the one overlap that is promised to be possible
				continue
			}
			return "3b older act still in flight"
		case b.attempt == a.attempt && same && !b.cut:
			return "4 acts again in one attempt"
		case b.attempt < a.attempt && b.attempt > fresh && same && s.db.sessions[b.session].Alive && !b.cut && !b.run.lost:
			return "4 acts again, no owner died"
		}
	}
	return ""
}

// committed checks a row's change.
func (s *Sim) committed(i int, o, n protocol.Row, t *txn) {
	if s.tracing {
		s.tr("%s %s: E%d %s a%d/%d S%d cancel %q → %s a%d/%d S%d cancel %q", t.p.h.name(), t.name, i, o.State, o.Attempt, o.Seq, indexOf(o.Owner), o.Cancel, n.State, n.Attempt, n.Seq, indexOf(n.Owner), n.Cancel)
	}
	s.fell(o, n)
	if n.Attempt != o.Attempt || n.State.Final() {
		s.db.execs[i].over = s.now
	}
	if o.State.Final() && t.name == "retry" {
		s.retryCommitted(i, o, n)
	} else if o.State.Final() && n != o {
		s.fail("1 end overwritten", "E%d %s → %s by %s", i, o.State, n.State, t.name)
	}
	if n.Attempt < o.Attempt || n.Attempt > o.Attempt+2 || (n.Attempt == o.Attempt && n.Seq < o.Seq) {
		s.fail("9 attempt or seq back", "E%d a%d/%d → a%d/%d", i, o.Attempt, o.Seq, n.Attempt, n.Seq)
	}
	if n.Owner != o.Owner && !o.Owner.IsZero() && !n.Owner.IsZero() {
		s.fail("3 owner replaced", "E%d S%d → S%d", i, indexOf(o.Owner), indexOf(n.Owner))
	}
	if o.Cancel != "" && !o.Undoes && (n.State == protocol.Queued || n.State == protocol.Waiting) {
		s.fail("11 cancelled execution goes on", "E%d by %s", i, t.name)
	}
	if o.State == protocol.Waiting && n.State == protocol.Running {
		s.fail("7 a waiting row was claimed", "E%d by %s", i, t.name)
	}
	if o.State == protocol.Waiting && n.State == protocol.Queued && n.Attempt == o.Attempt {
		s.fail("7 wake without a new attempt", "E%d by %s", i, t.name)
	}
	if o.State == protocol.Queued && n.State == protocol.Running && o.Paused != "" {
		s.fail("17 what is paused was claimed", "E%d by %s", i, t.name)
	}
	if !n.Owner.IsZero() && n.State == protocol.Queued {
		s.fail("12 queued with an owner", "E%d", i)
	}
}

// ended checks an execution that succeeded: every step was recorded once, and every effect was made.
func (s *Sim) ended() {
	s.lettersEnded()
	for i, e := range s.db.execs {
		if !e.exists || !e.row.State.Final() {
			continue
		}
		s.Counts.Finals++
		done := map[string]int{}
		for _, rep := range e.reports {
			events, err := protocol.DecodeEvents(lists(rep.Events))
			if err != nil {
				s.fail("bad report", "%v", err)
				return
			}
			for _, ev := range events {
				if ev.Type == flow.EventSucceeded && !ev.Pure {
					done[placeOf(ev.Node, ev.Iteration)]++
				}
			}
		}
		for node, n := range done {
			if n > 1 {
				s.fail("2 step recorded twice", "E%d %s", i, node)
			}
		}
		if e.row.State != protocol.Succeeded {
			s.unsuccessful(i, e)
			continue
		}
		for _, node := range effectsOf(e.shape) {
			if done[node] != 1 && node[0] != 'c' {
				s.fail("10 step skipped", "E%d %s", i, node)
			}
		}
		if e.result == nil {
			s.fail("10 no result", "E%d", i)
		}
	}
}

// unsuccessful checks that an execution had a reason to end without success.
func (s *Sim) unsuccessful(i int, e *execution) {
	drawing := shapes()[e.shape].drawing
	s.undone(i, e)
	switch {
	case e.row.State == protocol.Cancelled && (e.cancelled || s.orphaned(e) || s.endedByLimit(idOf('e', i))):
	case e.result != nil && e.result.Error != nil && e.result.Error.Code == "child-failed" && calls(drawing):
	case e.row.State == protocol.TimedOut && !e.facts.Deadline.IsZero() && !epoch.Add(ticks(e.over)).Before(e.facts.Deadline): // FinishedAt is older: from before the row's lock was had
		s.Counts.TimedOut++
	case e.row.State != protocol.Failed || e.result == nil || e.result.Error == nil:
		s.fail("10 ended without a reason", "E%d %s %s: %+v", i, drawing, e.row.State, e.result)
	case e.result.Error.Code == "poison" && e.row.Deaths >= protocol.PoisonDeaths:
	case e.result.Error.Code == "sim-final" && strings.Contains(drawing, "x"):
	case remote(drawing) && slices.Contains([]string{"sim-remote", "remote-lost", "timeout"}, e.result.Error.Code):
	case e.result.Error.Code == "refused-value" && strings.Contains(drawing, "v"):
	default:
		s.fail("10 failed", "E%d %s: %+v", i, drawing, e.result.Error)
	}
}

// drained: all is settled, nothing is on its way.
func (s *Sim) drained() bool {
	if !s.over() || !s.arrived() || !s.calm() {
		return false
	}
	for _, i := range s.want {
		if e := s.db.execs[i]; !e.exists || !e.row.State.Final() {
			return false
		}
	}
	for k := range s.queue {
		if q := &s.queue[k]; len(q.ready)+len(q.unacked)+len(q.held) > 0 {
			return false
		}
	}
	for _, h := range s.workers {
		if len(h.worker.runs) > 0 || len(h.unacked) > 0 || h.ghost && h.up {
			return false
		}
	}
	return len(s.tasks) == 0 && len(s.wire) == 0
}

func (s *Sim) stuck() {
	for i, e := range s.db.execs {
		if r := e.row; !s.joined(i) && (!e.exists || !r.State.Final()) {
			s.fail("6 stuck", "E%d %s exists %v, %s a%d/%d handed %d held %q owner S%d cancel %q deaths %d", i, shapes()[e.shape].drawing, e.exists, r.State, r.Attempt, r.Seq, r.Handed, r.Hold, indexOf(r.Owner), r.Cancel, r.Deaths)
			return
		}
	}
	for _, h := range s.workers {
		for _, r := range h.worker.runs {
			s.fail("6 a run never ends", "%s: E%d a%d %+v", h.name(), r.exec, r.attempt, r.m)
			return
		}
	}
	s.fail("6 queues not empty", "tasks %d", len(s.tasks))
}

func lists(events json.RawMessage) []json.RawMessage {
	if len(events) == 0 {
		return nil
	}
	return []json.RawMessage{events}
}

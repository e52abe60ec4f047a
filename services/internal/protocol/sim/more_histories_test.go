package sim

import (
	"slices"
	"testing"

	"flowplatform/services/internal/protocol"
)

// H7 and H9 to H12; H7's race with a signal and H8 are in letters_test.go.

// TestH7_TwoWakes: both orchestrators believe that they lead and see the same wait come due, and the one that wakes dies between commit and publish.
func TestH7_TwoWakes(t *testing.T) {
	waiting := func(s *Sim) bool { return s.db.execs[0].row.State == protocol.Waiting }
	t.Run("two leaders, one dies before it publishes", func(t *testing.T) {
		play(t, "ptep", func(s *Sim) []planned {
			return []planned{
				{func() bool { return waiting(s) }, func() { s.orchs[1].leader = true }},
				{func() bool {
					r := s.db.execs[0].row
					return r.State == protocol.Queued && r.Attempt == 2 && r.Handed < 2
				}, func() {
					for _, o := range s.orchs {
						if s.r.IntN(2) == 0 {
							s.kill(o, "SIGKILL")
						}
					}
				}},
			}
		}, func(s *Sim) bool {
			return s.Counts.Timers == 1 && s.db.execs[0].row.Attempt == 2 && s.db.execs[0].row.State == protocol.Succeeded
		})
	})
	t.Run("due before the suspend is written", func(t *testing.T) {
		suspended := func(s *Sim) bool {
			for _, r := range slices.Concat(s.queue[0].ready, s.queue[0].unacked) {
				if r.Entries[0].Kind == protocol.EntrySuspend {
					return true
				}
			}
			return false
		}
		play(t, "ptep", func(s *Sim) []planned {
			return []planned{{func() bool { return suspended(s) }, func() { s.databaseAway(200) }}}
		}, func(s *Sim) bool { return s.Counts.Timers == 1 && s.db.execs[0].row.State == protocol.Succeeded })
	})
}

// away is twenty minutes.
const away = 20 * 60 * 20

// TestH9_DatabaseAway: the database goes for twenty minutes while owners are at work and final reports wait. What the workers held goes on, once.
func TestH9_DatabaseAway(t *testing.T) {
	var deaths int
	playAll(t, []string{"pepetepe", "ptep", "rer"}, func(s *Sim) []planned {
		return []planned{
			{func() bool { return s.ownerOf(0) != nil && s.Counts.Acts > 0 }, func() {
				deaths = s.Counts.Deaths
				s.endFaults += away
				s.databaseAway(away)
			}},
			{func() bool { return s.now >= s.db.downTill && s.now-s.db.downTill < lease/2 }, func() {
				if s.Counts.Deaths > deaths {
					s.fail("13 judged without sight", "%d sessions ended within half a lease of the database's return", s.Counts.Deaths-deaths)
				}
			}},
		}
	}, func(s *Sim) bool {
		if s.now < away {
			return false
		}
		for i := range s.want { // nobody has died: no attempt more than the timers gave
			if r := s.db.execs[i].row; r.Deaths != 0 || r.State != protocol.Succeeded {
				return false
			}
		}
		return true
	})
}

// TestH10_BadNeighbour: a poison kills every worker that runs it, among innocents, during a release. One dead letter; the innocents end well, and from its
// second death on it harms nobody.
func TestH10_BadNeighbour(t *testing.T) {
	flows := []string{"ek"}
	for range 12 {
		flows = append(flows, "ppe")
	}
	plan := func(s *Sim) []planned {
		return []planned{{func() bool { return s.db.execs[0].row.Deaths >= 1 }, func() { s.workers[s.r.IntN(2)].draining = true }}}
	}
	harmed := func(s *Sim) int {
		n := 0
		for _, i := range s.want[1:] {
			r := s.db.execs[i].row
			if r.State != protocol.Succeeded || r.Deaths > protocol.SuspectDeaths {
				return 99
			}
			n += r.Deaths
		}
		return n
	}
	playAll(t, flows, plan, func(s *Sim) bool {
		poison := s.db.execs[0]
		return poison.row.State == protocol.Failed && poison.row.Deaths == protocol.PoisonDeaths && len(s.db.dead) == 1 && s.db.dead[0].Reason == "poison" && harmed(s) <= 2*prefetch
	})
	t.Run("a suspect in company harms more", func(t *testing.T) {
		var shape []int
		for _, d := range flows {
			shape = append(shape, shapeOf(t, d))
		}
		alone, company := 0, 0
		for seed := uint64(1); seed <= 50; seed++ {
			alone += harmed(history(seed, Options{}, shape, plan))
			company += harmed(history(seed, Options{Broken: Broken{SuspectsInCompany: true}}, shape, plan))
		}
		t.Logf("innocents' deaths in 50 orders: %d beside a suspect that runs alone, %d in company", alone, company)
		if company <= alone {
			t.Error("running suspects alone shows no difference")
		}
	})
}

// TestH11_LeaderFromThePast: the leader is paused with recoveries and timers decided, another leads and does them; then the first wakes and does what it
// had in hand. Each timer is met once, each attempt raised once. Fires, scaling and terms are not in the protocol: services/orchestrator tests them.
func TestH11_LeaderFromThePast(t *testing.T) {
	play(t, "ptep", func(s *Sim) []planned {
		return []planned{
			{func() bool { return s.db.execs[0].row.State == protocol.Waiting }, func() {}},
			{func() bool { return s.inTransaction(s.orchs[0], "timers") }, func() { s.pause(s.orchs[0], 2000); s.orchs[1].leader = true }},
			{func() bool { return s.db.execs[0].row.Attempt >= 2 }, func() { s.orchs[0].pausedTill = s.now }},
		}
	}, func(s *Sim) bool {
		r := s.db.execs[0].row
		return r.State == protocol.Succeeded && r.Attempt == 2 && s.Counts.Timers == 1
	})
	play(t, "pepetepe", func(s *Sim) []planned {
		return []planned{
			{func() bool { return s.ownerOf(0) != nil && s.Counts.Acts > 0 }, func() {
				h := s.ownerOf(0)
				s.kill(h, "SIGKILL")
				h.worker.file = &lockFile{} // no successor: the leader must judge
			}},
			{func() bool { return s.inTransaction(s.orchs[0], "judge") }, func() { s.pause(s.orchs[0], 2000); s.orchs[1].leader = true }},
			{func() bool { return s.db.execs[0].row.Attempt >= 2 }, func() { s.orchs[0].pausedTill = s.now }},
		}
	}, func(s *Sim) bool {
		return s.db.execs[0].row.State == protocol.Succeeded && s.db.execs[0].row.Deaths == 1
	})
}

// inTransaction tells whether a host is in a transaction of that name.
func (s *Sim) inTransaction(h *host, name string) bool {
	for _, p := range s.procs {
		if p.h == h && !p.done && p.tx != nil && p.tx.name == name {
			return true
		}
	}
	return false
}

// TestH12_EndsCollide: a cancel whose commit is unknown, the report of the success and the deadline cross; then the reports of the ended attempt come again. One
// end, and it stays. (A user's retry is not in the protocol yet.)
func TestH12_EndsCollide(t *testing.T) {
	ended := map[protocol.State]int{}
	play(t, "pepetepe", func(s *Sim) []planned {
		var late []*protocol.Report
		acts := 2 + int(s.n(4)) // of four; five: the final report is on its way
		return []planned{
			{func() bool { return s.ownerOf(0) != nil && (s.Counts.Acts >= acts || s.reportsItsEnd(0)) }, func() {
				late = slices.Concat(s.queue[0].unacked, s.queue[0].ready)
				s.db.execs[0].facts.Deadline = s.time()
				s.unknownCommits = 2
				s.spawn(s.gateway, func(p *proc) { s.cancel(p, 0) })
			}},
			{func() bool { return s.db.execs[0].row.State.Final() }, func() { s.queue[0].ready = append(s.queue[0].ready, late...) }},
		}
	}, func(s *Sim) bool {
		ended[s.db.execs[0].row.State]++
		return s.Counts.UnknownCommits > 0 && s.Counts.Cancels > 0
	})
	t.Logf("ends: %v", ended)
	if len(ended) < 2 {
		t.Errorf("only %v won", ended)
	}
}

// TestH12_RetryCrosses: cancel with an unknown commit, the report of the success, and a user's retry of whatever came of it cross; the reports of the ended attempt come again behind
// it. What was retried ends once more, and nothing of the old attempt counts.
func TestH12_RetryCrosses(t *testing.T) {
	play(t, "pepetepe", func(s *Sim) []planned {
		var late []*protocol.Report
		acts := 1 + int(s.n(4))
		return []planned{
			{func() bool { return s.ownerOf(0) != nil && (s.Counts.Acts >= acts || s.reportsItsEnd(0)) }, func() {
				late = slices.Concat(s.queue[0].unacked, s.queue[0].ready)
				s.unknownCommits = 2
				s.spawn(s.gateway, func(p *proc) { s.cancel(p, 0) })
				s.spawn(s.gateway, func(p *proc) { s.retries(p, 0, 1) })
			}},
			{func() bool { r := s.db.execs[0].row; return r.Retries > 0 || r.State == protocol.Succeeded }, func() { s.queue[0].ready = append(s.queue[0].ready, late...) }},
		}
	}, func(s *Sim) bool {
		r := s.db.execs[0].row
		return r.Retries == 1 && r.State == protocol.Succeeded && s.Counts.UnknownCommits > 0
	})
}

// reportsItsEnd tells whether a final report of the execution is on its way to its row.
func (s *Sim) reportsItsEnd(i int) bool {
	for _, h := range s.workers {
		for _, r := range h.worker.runs {
			if r.exec == i && r.reporting == protocol.EntryFinal {
				return true
			}
		}
	}
	return false
}

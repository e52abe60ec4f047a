package sim

import (
	"slices"
	"strings"
	"testing"

	"flowplatform/services/internal/protocol"
)

// The histories that break naive designs (H1 to H6 here, the others in more_histories_test.go): each is played in many orders, nothing else goes wrong, and each must have happened in the
// schedules that count for it.

func (s *Sim) ownerOf(i int) *host {
	e := s.db.execs[i]
	if e.row.Owner.IsZero() {
		return nil
	}
	se := s.session(e.row.Owner)
	for _, h := range s.workers {
		if h.id == se.host && h.inst == se.inst {
			return h
		}
	}
	return nil
}

func (s *Sim) taker(i int) *host {
	for _, h := range s.workers {
		for _, r := range h.worker.runs {
			if r.exec == i {
				return h
			}
		}
	}
	return nil
}

// double puts a copy of the task of an execution back into the queue.
func (s *Sim) copyTask(i int) {
	for _, h := range s.workers {
		for _, r := range h.worker.runs {
			if r.exec == i {
				m := *r.d.m
				m.redelivered = false
				s.tasks = append(s.tasks, &m)
				return
			}
		}
	}
}

func shapeOf(t *testing.T, drawing string) int {
	if i := slices.IndexFunc(shapes(), func(s shape) bool { return s.drawing == drawing }); i >= 0 {
		return i
	}
	t.Fatalf("no shape %s", drawing)
	return 0
}

func play(t *testing.T, drawing string, plan func(s *Sim) []planned, happened func(s *Sim) bool) {
	t.Helper()
	playAll(t, []string{drawing}, plan, happened)
}

// playAll plays a history with an execution of each drawing.
func playAll(t *testing.T, drawings []string, plan func(s *Sim) []planned, happened func(s *Sim) bool) {
	t.Helper()
	var shape []int
	for _, d := range drawings {
		shape = append(shape, shapeOf(t, d))
	}
	hits := 0
	for seed := uint64(1); seed <= 100; seed++ {
		s := history(seed, Options{}, shape, plan)
		if s.Violation != "" {
			traced := history(seed, Options{Tracing: true}, shape, plan)
			t.Fatalf("seed %d: %s: %s\n%s", seed, s.Violation, s.Detail, strings.Join(traced.Trace, "\n"))
		}
		if len(s.script) == 0 && happened(s) {
			hits++
		}
	}
	t.Logf("it happened in %d of 100 orders", hits)
	if hits < 10 {
		t.Errorf("the history happened in %d of 100 orders: it shows nothing", hits)
	}
}

func TestH1_TwoCopies(t *testing.T) {
	plan := func(s *Sim) []planned {
		return []planned{{func() bool { return s.taker(0) != nil }, func() { s.copyTask(0) }}}
	}
	t.Run("with effects", func(t *testing.T) {
		play(t, "pepetepe", plan, func(s *Sim) bool { return s.Counts.Refused > 0 })
	})
	t.Run("pure", func(t *testing.T) {
		play(t, "pp", plan, func(s *Sim) bool { return s.Counts.Claims == 0 })
	})
}

func TestH2_LateClaim(t *testing.T) {
	var late *host
	play(t, "ptep", func(s *Sim) []planned {
		return []planned{
			{func() bool { return s.taker(0) != nil }, func() { s.copyTask(0); late = s.taker(0); s.pause(late, 2000) }},
			{func() bool { return s.db.execs[0].row.Attempt >= 2 }, func() { late.pausedTill = s.now }},
		}
	}, func(s *Sim) bool {
		return s.db.execs[0].row.State == protocol.Succeeded && s.db.execs[0].row.Attempt == 2
	})
	play(t, "pepetepe", func(s *Sim) []planned {
		return []planned{
			{func() bool { return s.taker(0) != nil }, func() { s.copyTask(0); late = s.taker(0); s.pause(late, 2000) }},
			{func() bool { return s.db.execs[0].row.Attempt >= 2 }, func() { late.pausedTill = s.now }},
		}
	}, func(s *Sim) bool { return s.Counts.Refused > 0 })
}

func TestH3_CutConsumerLiveOwner(t *testing.T) {
	play(t, "pepetepe", func(s *Sim) []planned {
		return []planned{
			{func() bool { return s.ownerOf(0) != nil && s.taker(0) != nil }, func() { s.copyTask(0) }},
			{func() bool { return s.Counts.Refused > 0 && s.ownerOf(0) != nil }, func() { s.kill(s.ownerOf(0), "SIGKILL") }},
		}
	}, func(s *Sim) bool {
		return s.db.execs[0].row.Deaths == 1 && s.db.execs[0].row.State == protocol.Succeeded
	})
}

func TestH4_PausedOwner(t *testing.T) {
	var old *host
	play(t, "pepetepe", func(s *Sim) []planned {
		return []planned{
			{func() bool { return s.ownerOf(0) != nil }, func() { old = s.ownerOf(0); s.pause(old, 3000) }},
			{func() bool { r := s.db.execs[0].row; return r.Deaths > 0 && s.ownerOf(0) != nil && s.ownerOf(0) != old }, func() { old.pausedTill = s.now }},
		}
	}, func(s *Sim) bool { return s.Counts.Deaths > 0 && s.db.execs[0].row.State == protocol.Succeeded })
}

func TestH5_HalfARecovery(t *testing.T) {
	play(t, "pepetepe", func(s *Sim) []planned {
		return []planned{
			{func() bool { return s.ownerOf(0) != nil && s.Counts.Acts > 0 }, func() { s.kill(s.ownerOf(0), "SIGKILL") }},
			{func() bool { r := s.db.execs[0].row; return r.Deaths == 1 && r.Handed < r.Attempt }, func() { s.kill(s.orchs[s.queue[0].active], "SIGKILL") }},
			{func() bool { return true }, func() {
				s.queue[0].ready = append(s.queue[0].ready, &protocol.Report{V: 1, Entries: []protocol.Entry{protocol.RecoverEntry(idOf('s', 0)), protocol.RecoverEntry(idOf('s', 1))}})
			}},
		}
	}, func(s *Sim) bool { return s.db.execs[0].row.Deaths == 1 && s.Counts.Reconciled > 0 })
}

func TestH6_ZombieCollector(t *testing.T) {
	suspends := func(s *Sim) bool {
		for _, r := range s.queue[0].unacked {
			for _, e := range r.Entries {
				if e.Kind == protocol.EntrySuspend {
					return true
				}
			}
		}
		return false
	}
	var zombie *host
	play(t, "ptep", func(s *Sim) []planned {
		return []planned{
			{func() bool { return suspends(s) }, func() { zombie = s.orchs[s.queue[0].active]; s.pause(zombie, 2000); s.moveConsumer(0, false) }},
			{func() bool { return s.db.execs[0].row.Attempt >= 2 }, func() { zombie.pausedTill = s.now }},
		}
	}, func(s *Sim) bool { return s.Counts.Old > 0 })
}

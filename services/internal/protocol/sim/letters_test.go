package sim

import (
	"encoding/json"
	"slices"
	"testing"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// met counts how often waits of a node were met, by the port that they were met with.
func (s *Sim) met(exec int, node string) map[string]int {
	out := map[string]int{}
	for _, rep := range s.db.execs[exec].reports {
		var events []struct {
			Type string `json:"t"`
			Node string `json:"n"`
			Port string `json:"p"`
		}
		if json.Unmarshal(rep.Events, &events) != nil {
			continue
		}
		for _, ev := range events {
			if ev.Type == flow.EventMet && ev.Node == node {
				out[ev.Port]++
			}
		}
	}
	return out
}

func (s *Sim) signals(at int64) {
	s.sendings = append(s.sendings, &sending{letter: protocol.Letter{ID: idOf('l', len(s.sendings)+1), Kind: flow.WaitSignal, Key: s.signalKey(0, "s1"), Output: json.RawMessage(`1`)}, at: at})
	m := s.sendings[len(s.sendings)-1]
	s.spawn(s.gateway, func(p *proc) { s.sends(p, m) })
}

// TestH7_SignalAndExpiry: a signal and the end of the patience for it come at the same moment, by a gateway and by two leaders. One resume, one outcome; and a signal
// that did not meet the wait is kept.
func TestH7_SignalAndExpiry(t *testing.T) {
	var signal, expired int
	play(t, "sp", func(s *Sim) []planned {
		s.patience = 60
		due := func() int64 {
			if w := s.db.execs[0].waits; len(w) > 0 && s.db.execs[0].row.State == protocol.Waiting {
				return int64(w[0].Due.Sub(epoch) / Tick)
			}
			return 1 << 60
		}
		return []planned{{func() bool { return s.now >= due()-6 }, func() {
			s.orchs[1].leader = true
			s.signals(due() - 3 + s.n(8))
		}}}
	}, func(s *Sim) bool {
		met := s.met(0, "s1")
		signal += met[""]
		expired += met[protocol.PortExpired]
		return met[""]+met[protocol.PortExpired] == 1 && s.db.execs[0].row.Attempt == 2 && s.db.execs[0].row.State == protocol.Succeeded
	})
	if t.Logf("met by the signal %d times, by its time %d", signal, expired); signal == 0 || expired == 0 {
		t.Error("one of them always wins: they don't race")
	}
}

// TestH8_EarlyChild: the child ends while its parent's suspend is on its way, the parent's shard being slow.
func TestH8_EarlyChild(t *testing.T) {
	child := func(s *Sim) *execution {
		if len(s.db.execs) < 2 || !s.db.execs[1].exists {
			return nil
		}
		return s.db.execs[1]
	}
	slow := func(s *Sim) bool { // the suspend of the parent is in its queue
		for _, r := range slices.Concat(s.queue[0].ready, s.queue[0].unacked) {
			if r.Entries[0].Kind == protocol.EntrySuspend && indexOf(r.Entries[0].Execution) == 0 {
				return true
			}
		}
		return false
	}
	t.Run("before its parent waits", func(t *testing.T) {
		play(t, "ehp", func(s *Sim) []planned {
			return []planned{{func() bool { return child(s) != nil && slow(s) && s.db.execs[0].row.State == protocol.Running }, func() {
				s.spawn(s.gateway, func(p *proc) { s.cancel(p, 1) })
			}}}
		}, func(s *Sim) bool {
			return s.met(0, "h2")[""] == 1 && child(s).row.State.Final() && s.db.execs[0].row.State.Final()
		})
	})
	t.Run("its parent is cancelled", func(t *testing.T) {
		play(t, "ehp", func(s *Sim) []planned {
			return []planned{{func() bool { return child(s) != nil }, func() { s.spawn(s.gateway, func(p *proc) { s.cancel(p, 0) }) }}}
		}, func(s *Sim) bool {
			return s.db.execs[0].row.State == protocol.Cancelled && child(s).row.State == protocol.Cancelled
		})
	})
}

// TestWakesSurviveKills kills whoever takes part in a wake at every step that it makes: nothing is lost, nothing comes twice.
func TestWakesSurviveKills(t *testing.T) {
	tests := []struct {
		part, drawing, node string
		plan                func(*Sim)
	}{
		{"gateway", "sp", "s1", func(s *Sim) { s.signals(40) }},
		{"collector", "sp", "s1", func(s *Sim) { s.signals(1) }},
		{"timers", "ptep", "t2", func(*Sim) {}},
		{"follow-up", "ehp", "h2", func(*Sim) {}},
		{"sweep", "ehp", "h2", func(s *Sim) { s.alone = true }},
	}
	for _, tt := range tests {
		t.Run(tt.part, func(t *testing.T) {
			t.Parallel()
			most, runs, killed := 0, 0, 0
			for seed := uint64(1); seed <= 12; seed++ {
				for n := 1; ; n++ {
					count := 0
					s := history(seed, Options{}, []int{shapeOf(t, tt.drawing)}, func(s *Sim) []planned {
						tt.plan(s)
						s.killing = func(p *proc) bool {
							if p.part == tt.part && s.db.execs[0].exists {
								count++
								return count == n
							}
							return false
						}
						return nil
					})
					runs++
					met := 0
					for _, k := range s.met(0, tt.node) {
						met += k
					}
					if s.Violation == "" && (met != 1 || s.db.execs[0].row.State != protocol.Succeeded) {
						s.fail("a wake", "met %d times, %s", met, s.db.execs[0].row.State)
					}
					if s.Violation != "" {
						t.Fatalf("seed %d, killed at step %d: %s: %s", seed, n, s.Violation, s.Detail)
					}
					if count < n || n >= 60 {
						break
					}
					killed, most = killed+1, max(most, n)
				}
			}
			t.Logf("%-10s %s: killed at each of up to %d steps, %d kills in %d runs: one wake each", tt.part, tt.drawing, most, killed, runs)
			if killed == 0 {
				t.Error("it made no step")
			}
		})
	}
}

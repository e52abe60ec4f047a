package sim

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"flowplatform/services/internal/protocol"
)

// Workers of the users' own that die, forget, are late and say everything twice, over a gateway that dies and commits that nobody knows of: what was answered is done, once.
func TestRemoteTasks(t *testing.T) {
	n := max(*seeds/10, 100)
	bad, total := sweepOf(RunRemote, Options{}, *first, n, false)
	t.Logf("%d seeds: %d leases, %d ends, %d refused, %d lost, %d expired, %d retries by users, %d cancels, %d unknown commits", n,
		total.RemoteLeases, total.RemoteEnds, total.RemoteRefused, total.RemoteLost, total.RemoteExpired, total.Retries, total.Cancels, total.UnknownCommits)
	for _, seed := range slices.Sorted(maps.Keys(bad))[:min(1, len(bad))] {
		s := RunRemote(seed, Options{Tracing: true})
		t.Fatalf("%d of %d seeds are bad; seed %d: %s: %s\n%s", len(bad), n, seed, s.Violation, s.Detail, strings.Join(s.Trace, "\n"))
	}
	if total.RemoteEnds < n || total.RemoteLeases <= total.RemoteEnds || total.RemoteRefused == 0 || total.RemoteLost == 0 || total.RemoteExpired == 0 || total.Retries == 0 || total.Cancels == 0 {
		t.Errorf("the schedules don't show what they should: %+v", total)
	}
}

// Each rule of remote tasks, broken on purpose, is caught, on a seed that is good while nothing is broken.
func TestRemoteBroken(t *testing.T) {
	for name, b := range map[string]Broken{
		"a completion that doesn't look at its lease":     {RemoteBlind: true},
		"a task that is handed out after its end":         {RemoteAgain: true},
		"an end and its letter, one commit after another": {RemoteApart: true},
	} {
		t.Run(name, func(t *testing.T) {
			bad, _ := sweepOf(RunRemote, Options{Broken: b}, 1, 5000, true)
			for seed, s := range bad {
				t.Logf("seed %d: %s: %s", seed, s.Violation, s.Detail)
				if !strings.HasPrefix(s.Violation, "18") && s.Violation != "6 stuck" {
					t.Errorf("caught as %q, which is not about remote tasks", s.Violation)
				}
				if whole := RunRemote(seed, Options{}); whole.Violation != "" {
					t.Errorf("the whole protocol fails there too (%s): the rule is not what is caught", whole.Violation)
				}
				return
			}
			t.Error("not caught in 5,000 seeds")
		})
	}
}

// TestRemoteTasksSurviveKills kills whoever opens, leases, completes, loses or expires a task at every step that it makes: its execution goes on, once.
func TestRemoteTasksSurviveKills(t *testing.T) {
	made := func(p *proc) bool { return len(p.s.db.remote) > 0 }
	tests := []struct {
		part, drawing string
		from          func(*proc) bool // its steps from then on
		deaf          bool             // nobody completes it
		end           protocol.State
	}{
		{"collector", "pmp", func(p *proc) bool { return p.s.db.execs[0].exists }, false, protocol.Succeeded},
		{"lease", "pmp", made, false, protocol.Succeeded},
		{"complete", "pmp", made, false, protocol.Succeeded},
		{"complete", "[m|e]p", made, false, protocol.Succeeded}, // before it waits, too
		{"lost", "pmp", made, true, protocol.Failed},
		{"timers", "eqe", func(p *proc) bool { return p.tx != nil }, true, protocol.Failed},
	}
	for _, tt := range tests {
		t.Run(tt.part+" "+tt.drawing, func(t *testing.T) {
			t.Parallel()
			most, runs, killed := 0, 0, 0
			for seed := uint64(1); seed <= 6; seed++ {
				for n := 1; ; n++ {
					count, begun := 0, false
					s := history(seed, Options{}, []int{shapeOf(t, tt.drawing)}, func(s *Sim) []planned {
						s.addRemotes(2)
						s.remote.deaf = tt.deaf
						for _, h := range s.remote.hosts {
							s.start(h)
						}
						s.killing = func(p *proc) bool {
							if begun = begun || p.part == tt.part && tt.from(p); begun && p.part == tt.part {
								count++
								return count == n
							}
							return false
						}
						return nil
					})
					s.remoteEnded()
					runs++
					if state := s.db.execs[0].row.State; s.Violation == "" && state != tt.end {
						s.fail("a remote task", "%s", state)
					}
					for _, r := range s.db.remote {
						if s.remote.met[r.ID] != 1 {
							s.fail("a remote task", "its execution went on %d times with try %d", s.remote.met[r.ID], r.Try)
						}
					}
					if s.Violation != "" {
						t.Fatalf("seed %d, killed at step %d: %s: %s", seed, n, s.Violation, s.Detail)
					}
					if count < n || n >= 40 {
						break
					}
					killed, most = killed+1, max(most, n)
				}
			}
			t.Logf("%-10s %s: killed at each of up to %d steps, %d kills in %d runs", tt.part, tt.drawing, most, killed, runs)
			if killed == 0 {
				t.Error("it made no step")
			}
		})
	}
}

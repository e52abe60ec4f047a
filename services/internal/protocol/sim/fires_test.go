package sim

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Two leaders with terms, unknown commits, pauses of hosts, backfills beside: every instant is fired once.
func TestFires(t *testing.T) {
	n := max(*seeds/10, 50)
	bad, total := sweepOf(RunFires, Options{}, *first, n, false)
	t.Logf("%d seeds: %d fires, %d plans dropped, %d fenced, %d backfills, %d unknown commits, %d deaths", n, total.Fires, total.FiresDropped, total.FiresFenced, total.Backfills, total.UnknownCommits, total.Deaths)
	for _, seed := range slices.Sorted(maps.Keys(bad))[:min(1, len(bad))] {
		s := RunFires(seed, Options{Tracing: true})
		t.Fatalf("%d of %d seeds are bad; seed %d: %s: %s\n%s", len(bad), n, seed, s.Violation, s.Detail, strings.Join(s.Trace, "\n"))
	}
	if total.Fires < 10*n || total.FiresDropped == 0 || total.FiresFenced == 0 || total.Backfills == 0 {
		t.Errorf("the schedules don't show what they should: %+v", total)
	}
}

// Each rule of fires, broken on purpose, is caught.
func TestFiresBroken(t *testing.T) {
	for name, b := range map[string]Broken{
		"fires without the unique row":                    {FireNoRow: true},
		"plans of a schedule as it was":                   {FireUnfit: true},
		"leaders of the past, with what was due for them": {FireBlind: true},
	} {
		t.Run(name, func(t *testing.T) {
			bad, _ := sweepOf(RunFires, Options{Broken: b}, 1, 5000, true)
			for seed, s := range bad {
				t.Logf("seed %d: %s: %s", seed, s.Violation, s.Detail)
				if !strings.HasPrefix(s.Violation, "16") {
					t.Errorf("caught as %q, which is not about fires", s.Violation)
				}
				return
			}
			t.Error("not caught in 5,000 seeds")
		})
	}
}

// The leader is killed at every step of a fire: the instant has its fire, once, made by it or by the next leader.
func TestLeaderDiesAtEveryStepOfAFire(t *testing.T) {
	for _, step := range []string{"begin", "term", "schedules locked", "fires looked at", "overlap looked at", "fires written", "moved on", "committed", "handed out"} {
		t.Run(step, func(t *testing.T) {
			for seed := uint64(1); seed <= 20; seed++ {
				s := newSim(seed, Options{Tracing: true})
				s.quiet = true
				s.endFaults = 300
				s.cast(2)
				s.addSchedules()
				s.killAt = step
				for _, h := range s.hosts {
					s.start(h)
				}
				s.orchs[1].leader = true
				s.script = nil
				s.loop(6000)
				s.ended()
				s.firesEnded()
				if s.Violation != "" {
					t.Fatalf("seed %d: %s: %s\n%s", seed, s.Violation, s.Detail, strings.Join(s.Trace, "\n"))
				}
				if s.killAt != "" {
					t.Fatalf("seed %d: nobody was killed at %q", seed, step)
				}
			}
		})
	}
}

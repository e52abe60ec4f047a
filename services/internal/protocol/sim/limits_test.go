package sim

import (
	"slices"
	"strings"
	"testing"

	"flowplatform/services/internal/protocol"
)

// sweepLimits runs seeds one after another until one is bad, in one of the ways given if there are any.
func sweepLimits(o Options, from uint64, n int, ways ...string) (bad *Sim, seed uint64, total Counts) {
	for seed = from; seed < from+uint64(n); seed++ {
		s := RunLimits(seed, o)
		total.Add(s.Counts)
		if s.Violation != "" && (len(ways) == 0 || slices.Contains(ways, s.Violation)) {
			return s, seed, total
		}
	}
	return nil, 0, total
}

// Starts of limited flows, two leaders who let in, unknown commits, deaths, cancels, retries and pauses: never over the limit, nothing left behind, no start lost.
func TestLimits(t *testing.T) {
	t.Parallel()
	n := max(*seeds/10, 50)
	bad, seed, total := sweepLimits(Options{}, *first, n)
	t.Logf("%d seeds: %d starts, %d refused, %d merged, %d let in, %d released, %d cancels, %d retries, %d unknown commits, %d deaths", n, total.Starts, total.StartsRefused,
		total.StartsMerged, total.LetIn, total.Released, total.Cancels, total.Retries, total.UnknownCommits, total.Deaths)
	if bad != nil {
		s := RunLimits(seed, Options{Tracing: true})
		t.Fatalf("seed %d: %s: %s\n%s", seed, s.Violation, s.Detail, strings.Join(s.Trace, "\n"))
	}
	if total.Starts < 5*n || min(total.StartsRefused, total.StartsMerged, total.LetIn, total.Released, total.Retries, total.Cancels, total.UnknownCommits) == 0 {
		t.Errorf("the schedules don't show what they should: %+v", total)
	}
}

// Each rule of flow control, broken on purpose, is caught.
func TestLimitsBroken(t *testing.T) {
	for _, tt := range []struct {
		name   string
		broken Broken
		caught []string
	}{
		{"slots are freed beside the final transaction", Broken{FreeBeside: true}, []string{"16 a slot that doesn't end with its execution"}},
		{"who lets in doesn't lock the key", Broken{AdmitWithoutKey: true}, []string{"16 over the limit"}},
		{"who arrives doesn't lock the key", Broken{ArriveWithoutKey: true}, []string{"16 over the limit", "18 a start is lost", "18 the last start is lost"}},
		{"a debounce is released without its lock", Broken{ReleaseWithoutLock: true}, []string{"18 a start joined what had begun"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, seed, _ := sweepLimits(Options{Broken: tt.broken}, 1, 3000, tt.caught...)
			if s == nil {
				t.Fatalf("not caught as %q in 3,000 seeds", tt.caught)
			}
			t.Logf("seed %d: %s: %s", seed, s.Violation, s.Detail)
			if whole := RunLimits(seed, Options{}); whole.Violation != "" {
				t.Errorf("seed %d is bad though nothing is broken: %s", seed, whole.Violation)
			}
		})
	}
}

// Whoever takes part in letting in or releasing is killed at every step that it makes: nothing is lost, nothing comes twice, nobody is over the limit.
func TestLimitsSurviveKills(t *testing.T) {
	one := concurrency("one", 1, protocol.OnLimitQueue)
	tests := []struct {
		part string
		plan func(*Sim)
	}{
		{"arrive", func(*Sim) {}},
		{"admit", func(*Sim) {}},
		{"look", func(s *Sim) { s.alone = true }},
		{"release", func(*Sim) {}},
	}
	for _, tt := range tests {
		t.Run(tt.part, func(t *testing.T) {
			t.Parallel()
			most, runs, killed := 0, 0, 0
			for seed := uint64(1); seed <= 4; seed++ {
				for n := 1; n < 100; n++ {
					count := 0
					s := limitedHistory(seed, t, func(s *Sim) {
						tt.plan(s)
						for _, at := range []int64{1, 10, 20} {
							s.starts(shapeOf(t, "ppe"), at, one)
							s.starts(shapeOf(t, "ppe"), at, debounce("all", 15, true, 40), one)
						}
						s.killing = func(p *proc) bool {
							busy := slices.ContainsFunc(s.arrivals, func(a *start) bool { return a.stored && !a.refused && !s.db.execs[a.into].row.State.Final() })
							if p.part == tt.part && (busy || p.part == "arrive") {
								count++
								return count == n
							}
							return false
						}
					})
					runs++
					if s.Violation != "" {
						t.Fatalf("seed %d, killed at step %d: %s: %s\n%s", seed, n, s.Violation, s.Detail, strings.Join(s.Trace, "\n"))
					}
					for i, e := range s.db.execs {
						if e.exists && e.row.State != protocol.Succeeded {
							t.Fatalf("seed %d, killed at step %d: E%d is %s", seed, n, i, e.row.State)
						}
					}
					if count < n {
						break
					}
					killed, most = killed+1, max(most, n)
				}
			}
			t.Logf("%-8s killed at each of up to %d steps, %d kills in %d runs", tt.part, most, killed, runs)
			if killed == 0 {
				t.Error("it made no step")
			}
		})
	}
}

// limitedHistory runs starts in which nothing goes wrong but what is planned, with two who believe that they lead.
func limitedHistory(seed uint64, t *testing.T, plan func(*Sim)) *Sim {
	t.Helper()
	s := newSim(seed, Options{Tracing: true})
	s.quiet = true
	s.endFaults = 3000
	s.cast(2)
	plan(s)
	for _, h := range s.hosts {
		s.start(h)
	}
	s.orchs[1].leader = true
	s.loop(6000)
	s.ended()
	s.limitsEnded()
	return s
}

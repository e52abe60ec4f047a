package sim

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", fromEnvironment("FLOW_SIM_SEEDS", 200), "schedules to run in TestSeeds")
	first = flag.Uint64("first", 1, "the first seed")
)

func fromEnvironment(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// sweep runs n seeds on all cores and returns the violations by seed, and the counts.
func sweep(o Options, from uint64, n int, stopAtFirst bool) (map[uint64]*Sim, Counts) {
	var mu sync.Mutex
	bad, total := map[uint64]*Sim{}, Counts{}
	next := make(chan uint64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				s := Run(seed, o)
				mu.Lock()
				total.Add(s.Counts)
				if s.Violation != "" {
					bad[seed] = s
				}
				mu.Unlock()
			}
		})
	}
	for i := range n {
		mu.Lock()
		enough := stopAtFirst && len(bad) > 0
		mu.Unlock()
		if enough {
			break
		}
		next <- from + uint64(i)
	}
	close(next)
	wg.Wait()
	return bad, total
}

func TestSeeds(t *testing.T) {
	begun := time.Now()
	bad, total := sweep(Options{}, *first, *seeds, false)
	t.Logf("%d seeds, %.0f a second: %+v", *seeds, float64(*seeds)/time.Since(begun).Seconds(), total)
	for seed, s := range bad {
		traced := Run(seed, Options{Tracing: true})
		t.Errorf("seed %d: %s: %s\n%s", seed, s.Violation, s.Detail, strings.Join(traced.Trace[max(0, len(traced.Trace)-80):], "\n"))
		break
	}
	if len(bad) > 0 {
		t.Fatalf("%d of %d seeds are bad", len(bad), *seeds)
	}
	for name, n := range map[string]int{"acts": total.Acts, "refused claims": total.Refused, "holds": total.Held, "cuts": total.Cuts, "deaths": total.Deaths, "unknown commits": total.UnknownCommits,
		"timers": total.Timers, "cancels": total.Cancels, "yields": total.Yields, "reconciled": total.Reconciled, "failing tries": total.Failures, "orphans": total.Orphans} {
		if n == 0 {
			t.Errorf("no %s in %d seeds: the schedules don't show what they should", name, *seeds)
		}
	}
}

func TestSeedsRepeat(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		a, b := Run(seed, Options{Tracing: true}), Run(seed, Options{Tracing: true})
		if strings.Join(a.Trace, "\n") != strings.Join(b.Trace, "\n") {
			t.Errorf("seed %d gives two schedules", seed)
		}
	}
}

// TestBroken sees that each rule, broken on purpose, is caught.
func TestBroken(t *testing.T) {
	for name, b := range map[string]Broken{
		"skip the claim":                    {SkipClaim: true},
		"claim a row that waits":            {ClaimWaiting: true},
		"give up a claim":                   {GiveUpClaim: true},
		"ignore the window":                 {IgnoreWindow: true},
		"drop a run whose window closed":    {DropOnClosed: true},
		"ignore seq":                        {IgnoreSeq: true},
		"ignore owner":                      {IgnoreOwner: true},
		"recover beside the queue":          {RecoverBeside: true},
		"recover other shards' rows":        {RecoverAllShards: true},
		"wake without the attempt":          {WakeSameAttempt: true},
		"cancel looked at by recover alone": {CancelOnlyRecover: true},
		"dead without unbroken sight":       {JudgeBlind: true},
		"answer before commit":              {AnswerBeforeCommit: true},
		"cancel over a batch":               {CancelOverBatch: true},
	} {
		t.Run(name, func(t *testing.T) {
			bad, _ := sweep(Options{Broken: b}, 1, 20000, true)
			for seed, s := range bad {
				t.Logf("seed %d: %s: %s", seed, s.Violation, s.Detail)
				return
			}
			t.Error("not caught in 20,000 seeds")
		})
	}
}

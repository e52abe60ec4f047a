package sim

import (
	"flag"
	"maps"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", fromEnvironment("FLOW_SIM_SEEDS", 2000), "schedules to run in TestSeeds")
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
	return sweepOf(Run, o, from, n, stopAtFirst)
}

// sweepOf is sweep for schedules of another kind.
func sweepOf(run func(uint64, Options) *Sim, o Options, from uint64, n int, stopAtFirst bool) (map[uint64]*Sim, Counts) {
	var mu sync.Mutex
	bad, total := map[uint64]*Sim{}, Counts{}
	next := make(chan uint64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				s := run(seed, o)
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
	for _, seed := range slices.Sorted(maps.Keys(bad))[:min(1, len(bad))] {
		show(t, seed, Options{})
	}
	if len(bad) > 0 {
		t.Fatalf("%d of %d seeds are bad", len(bad), *seeds)
	}
	v := reflect.ValueOf(total)
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Name; name {
		case "Fires", "FiresDropped", "FiresFenced", "Backfills": // TestFires has them
		case "RemoteLeases", "RemoteEnds", "RemoteRefused", "RemoteLost", "RemoteExpired": // TestRemoteTasks has them
		case "Starts", "StartsRefused", "StartsMerged", "LetIn", "Released": // TestLimits has them
		case "Catches": // TestCatches has them
		case "Holes", "HoleHarm", "LockTimeouts", "Overlaps": // rare, and not wanted
		default:
			if v.Field(i).Int() == 0 {
				t.Errorf("no %s in %d seeds: the schedules don't show what they should", name, *seeds)
			}
		}
	}
}

// show prints the shortest schedule that shows what is wrong with a seed.
func show(t *testing.T, seed uint64, o Options) {
	t.Helper()
	shrunk, s := Shrink(seed, o)
	t.Errorf("seed %d: %s: %s\nshown by %d faults, %d executions, in %d ticks of %s (%s):\n%s",
		seed, s.Violation, s.Detail, s.Counts.Faults, len(s.want), s.now, Tick, shrunk, strings.Join(s.Trace, "\n"))
}

// TestShrink: of a schedule that shows a mistake little is left.
func TestShrink(t *testing.T) {
	o := Options{Broken: Broken{IgnoreWindow: true}}
	bad, _ := sweep(o, 1, 2000, true)
	for seed, full := range bad {
		shrunk, s := Shrink(seed, o)
		t.Logf("seed %d: %d faults, %d executions, %d ticks; shrunk to %d, %d, %d (%s): %s", seed, full.Counts.Faults, len(full.want), full.now, s.Counts.Faults, len(s.want), s.now, shrunk, s.Violation)
		if s.Violation != full.Violation {
			t.Errorf("the shrunk schedule shows %q, not %q", s.Violation, full.Violation)
		}
		if s.Counts.Faults > 3 || len(s.want) > 2 {
			t.Errorf("too much is left")
		}
		return
	}
	t.Error("nothing is caught")
}

func TestSeedsRepeat(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		a, b := Run(seed, Options{Tracing: true}), Run(seed, Options{Tracing: true})
		if strings.Join(a.Trace, "\n") != strings.Join(b.Trace, "\n") {
			t.Errorf("seed %d gives two schedules", seed)
		}
		a, b = RunLimits(seed, Options{Tracing: true}), RunLimits(seed, Options{Tracing: true})
		if strings.Join(a.Trace, "\n") != strings.Join(b.Trace, "\n") {
			t.Errorf("seed %d gives two schedules of limited starts", seed)
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
		"claim known by session alone":      {ClaimBySession: true},
		"dead on an old look":               {JudgeOldLook: true},
		"sessions ended without the lock":   {EndWithoutLock: true},
		"a gap between reports ignored":     {IgnoreGap: true},
		"an attempt that is over goes on":   {KeepGone: true},
		"claim what is paused":              {ClaimPaused: true},
		"retry without the attempt":         {RetrySameAttempt: true},
		"resume without the attempt":        {ResumeSameAttempt: true},
		"a letter without the key's lock":   {SendWithoutKey: true},
		"a suspend that doesn't look":       {SuspendBlind: true},
		"an end without its letter":         {EndWithoutLetter: true},
		"a wake as a bare UPDATE":           {WakeOldRow: true},
		"a pool that is never left":         {StayInPool: true},
		"ends though it has to undo":        {EndUndoing: true},
	} {
		t.Run(name, func(t *testing.T) {
			bad, _ := sweep(Options{Broken: b}, 1, 20000, true)
			for seed, s := range bad {
				t.Logf("seed %d: %s: %s", seed, s.Violation, s.Detail)
				if whole := Run(seed, Options{}); whole.Violation != "" {
					t.Errorf("the whole protocol fails there too (%s): the rule is not what is caught", whole.Violation)
				}
				return
			}
			t.Error("not caught in 20,000 seeds")
		})
	}
}

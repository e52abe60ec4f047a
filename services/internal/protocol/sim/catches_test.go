package sim

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"flowplatform/services/internal/protocol"
)

// Executions fail, time out, are cancelled and retried, leaders come and go: each bad end starts each error flow that asks for it, once.
func TestCatches(t *testing.T) {
	n := max(*seeds/10, 50)
	bad, total := sweepOf(RunCatches, Options{}, *first, n, false)
	t.Logf("%d seeds: %d catches, %d retries, %d cancels, %d timed out, %d unknown commits, %d deaths", n, total.Catches, total.Retries, total.Cancels, total.TimedOut, total.UnknownCommits, total.Deaths)
	for _, seed := range slices.Sorted(maps.Keys(bad))[:min(1, len(bad))] {
		s := RunCatches(seed, Options{Tracing: true})
		t.Fatalf("%d of %d seeds are bad; seed %d: %s: %s\n%s", len(bad), n, seed, s.Violation, s.Detail, strings.Join(s.Trace, "\n"))
	}
	if total.Catches < 3*n || total.Retries == 0 || total.Cancels == 0 || total.TimedOut == 0 || total.UnknownCommits == 0 {
		t.Errorf("the schedules don't show what they should: %+v", total)
	}
}

// Each rule of catches, broken on purpose, is caught.
func TestCatchesBroken(t *testing.T) {
	for name, b := range map[string]Broken{
		"a failure taken by two":     {CatchAgain: true},
		"an end that leaves nothing": {EndWithoutFailure: true},
	} {
		t.Run(name, func(t *testing.T) {
			bad, _ := sweepOf(RunCatches, Options{Broken: b}, 1, 5000, true)
			for seed, s := range bad {
				t.Logf("seed %d: %s: %s", seed, s.Violation, s.Detail)
				if !strings.HasPrefix(s.Violation, "19") {
					t.Errorf("caught as %q, which is not about catches", s.Violation)
				}
				return
			}
			t.Error("not caught in 5,000 seeds")
		})
	}
}

// Whoever ends an execution, and the leader that catches it, are killed at every step: the end is there and starts each error flow once.
func TestCatchesSurviveKills(t *testing.T) {
	for _, part := range []string{"collector", "catch"} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			most, killed := 0, 0
			for seed := uint64(1); seed <= 6; seed++ {
				for n := 1; ; n++ {
					count := 0
					s := newSim(seed, Options{})
					s.quiet = true
					s.endFaults = 3000
					s.cast(2)
					s.addErrorFlows()
					s.wants(shapeIndex("[ex|pee]e"))
					s.wants(shapeIndex("utpux"))
					s.killing = func(p *proc) bool {
						if p.part == part {
							count++
							return count == n
						}
						return false
					}
					for _, h := range s.hosts {
						s.start(h)
					}
					s.orchs[1].leader = true
					s.loop(6000)
					s.ended()
					s.caughtEnded()
					if s.Violation != "" {
						t.Fatalf("seed %d, killed at step %d: %s: %s", seed, n, s.Violation, s.Detail)
					}
					if count < n || n >= 40 {
						break
					}
					killed, most = killed+1, max(most, n)
				}
			}
			t.Logf("%-10s killed at each of up to %d steps, %d kills: one start for each end and error flow", part, most, killed)
			if killed == 0 {
				t.Error("it made no step")
			}
		})
	}
}

// Which triggers ask for a failure, and where a chain of error flows ends.
func TestCatchesOf(t *testing.T) {
	t.Parallel()
	x, a, b := idOf('f', 1), idOf('f', 2), idOf('f', 3)
	trigger := func(flow protocol.ID, flows ...string) protocol.ErrorTrigger {
		return protocol.ErrorTrigger{Flow: flow, Flows: flows, States: []protocol.State{protocol.Failed, protocol.TimedOut}}
	}
	all := []protocol.ErrorTrigger{trigger(a), trigger(b, "orders", x.String())}
	long := make([]protocol.ID, 40)
	for i := range long {
		long[i] = idOf('g', i)
	}
	for name, tc := range map[string]struct {
		flow  protocol.ID
		name  string
		state protocol.State
		above []protocol.ID
		want  string
	}{
		"by name, and all others":      {idOf('f', 9), "orders", protocol.Failed, nil, "a started, b started"},
		"by id":                        {x, "x", protocol.TimedOut, nil, "a started, b started"},
		"another name":                 {idOf('f', 9), "refunds", protocol.Failed, nil, "a started"},
		"an end that nobody asks for":  {x, "orders", protocol.Cancelled, nil, ""},
		"never its own":                {a, "orders", protocol.Failed, nil, "b started"},
		"what it has led to":           {idOf('f', 9), "orders", protocol.Failed, []protocol.ID{a}, "a skipped, b started"},
		"a circle of two":              {a, "orders", protocol.Failed, []protocol.ID{x, b}, "b skipped"},
		"after the most in one chain":  {idOf('f', 9), "orders", protocol.Failed, long, "a skipped, b skipped"},
		"its own, after another's end": {b, "orders", protocol.Failed, []protocol.ID{x}, "a started"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := protocol.FailureView{Failure: protocol.Failure{State: tc.state}, Flow: tc.flow, FlowName: tc.name, Above: tc.above}
			var got []string
			for _, c := range protocol.CatchesOf(&f, all) {
				got = append(got, map[protocol.ID]string{a: "a", b: "b"}[c.Flow]+" "+c.Outcome)
				if c.Above[len(c.Above)-1] != tc.flow || len(c.Above) != len(tc.above)+1 {
					t.Errorf("above: %v", c.Above)
				}
			}
			if s := strings.Join(got, ", "); s != tc.want {
				t.Errorf("%q, want %q", s, tc.want)
			}
		})
	}
}

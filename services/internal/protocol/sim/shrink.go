package sim

import (
	"fmt"
	"maps"
)

// A schedule that breaks something is long, and most of it has nothing to do with the mistake. Shrink leaves out what it can: the noise on the wire, faults,
// executions. What is left out changes the order of all that follows, so each candidate is tried in several orders of its steps.

// tries is in how many orders a smaller schedule is tried before what was left out counts as needed.
const tries = 40

// Shrink looks for the shortest schedule of the seed that shows the same kind of violation, and gives it with its options, traced.
func Shrink(seed uint64, o Options) (Options, *Sim) {
	full := Run(seed, o)
	best, found := o, full
	take := func(c Options) bool {
		for order := range uint64(tries) {
			c.Order = order
			if s := Run(seed, c); s.Violation == full.Violation {
				best, found = c, s
				return true
			}
		}
		return false
	}
	calm := best
	calm.Calm = true
	take(calm)
	for again := true; again; {
		again = false
		for _, i := range full.want {
			if len(full.want)-len(best.Absent) > 1 && !best.Absent[i] {
				again = take(best.absent(i)) || again
			}
		}
		for i := range full.Counts.Faults {
			if !best.Without[i] {
				again = take(best.without(i)) || again
			}
		}
	}
	for order := range uint64(10 * tries) { // the same faults in the order that shows it soonest
		c := best
		c.Order = order
		if s := Run(seed, c); s.Violation == full.Violation && s.now < found.now {
			best, found = c, s
		}
	}
	best.Tracing = true
	return best, Run(seed, best)
}

func with(m map[int]bool, i int) map[int]bool {
	out := maps.Clone(m)
	if out == nil {
		out = map[int]bool{}
	}
	out[i] = true
	return out
}

func (o Options) without(i int) Options { o.Without = with(o.Without, i); return o }
func (o Options) absent(i int) Options  { o.Absent = with(o.Absent, i); return o }

// String tells what is left of the seed's schedule.
func (o Options) String() string {
	return fmt.Sprintf("calm %v, %d faults and %d executions left out, order %d", o.Calm, len(o.Without), len(o.Absent), o.Order)
}

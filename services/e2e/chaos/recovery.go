package chaos

import (
	"slices"
	"sort"
	"time"
)

// Recovery is one fault, and how the platform came back from it. Times are seconds from the fault; each looks as far as the next fault.
type Recovery struct {
	Kind     Kind     `json:"fault"`
	What     string   `json:"what"`
	At       float64  `json:"atSeconds"` // after the load's beginning
	Held     float64  `json:"heldSeconds,omitempty"`
	First    *float64 `json:"firstEnd"`        // until the first execution ended; null: none before the next fault
	Silence  float64  `json:"silence"`         // the longest time without an end
	Steady   *float64 `json:"steady"`          // until executions ended at the steady rate again; null: not before the next fault
	Troubled float64  `json:"troubled"`        // until the last client who noticed was served: a request failed, or an execution took longer than usual
	Failed   int      `json:"failed"`          // requests
	Late     int      `json:"late"`            // executions that took longer than usual
	Error    string   `json:"error,omitempty"` // it could not be done, or not mended
}

// fault is one that was done.
type fault struct {
	Step
	what string
	at   time.Time
	held time.Duration
	err  error
}

// span is an execution's life as its user sees it.
type span struct{ begun, ended time.Time }

// spans pairs requests with records. An execution that nobody was told of begins when the database says so.
func spans(e evidence) []span {
	sent := map[string]time.Time{}
	for _, r := range e.requests {
		if r.ID != "" {
			sent[r.ID] = r.Sent
		}
	}
	var out []span
	for id, rec := range e.records {
		if !rec.final() {
			continue
		}
		begun, told := sent[id]
		if !told {
			begun = rec.Created
		}
		out = append(out, span{begun, rec.Finished})
	}
	return out
}

// usual is how long an execution takes at most when all is well: a second more than what 19 of 20 took before the first fault.
func usual(all []span, before time.Time) time.Duration {
	var took []time.Duration
	for _, s := range all {
		if s.ended.Before(before) {
			took = append(took, s.ended.Sub(s.begun))
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(len(took)-1, len(took)*95/100)] + time.Second
}

// recoveries measures each fault until the next one, the last one until the end. rate is how many executions the load begins in a second.
func recoveries(faults []fault, e evidence, begun, end time.Time, rate float64) (out []Recovery, bound time.Duration) {
	all := spans(e)
	ends := make([]time.Time, len(all))
	for i, s := range all {
		ends[i] = s.ended
	}
	slices.SortFunc(ends, time.Time.Compare)
	if len(faults) > 0 {
		bound = usual(all, faults[0].at)
	}
	for i, f := range faults {
		next := end
		if i+1 < len(faults) {
			next = faults[i+1].at
		}
		r := Recovery{Kind: f.Kind, What: f.what, At: f.at.Sub(begun).Seconds(), Held: f.held.Seconds()}
		if f.err != nil {
			r.Error = f.err.Error()
		}
		within := between(ends, f.at, next)
		r.First, r.Silence = quiet(within, f.at, next)
		r.Steady = settled(within, f.at, next, rate)
		noticed := f.at
		for _, q := range e.requests {
			if q.Fail != "" && !q.Ended.Before(f.at) && q.Ended.Before(next) {
				r.Failed++
				noticed = later(noticed, q.Ended)
			}
		}
		for _, s := range all {
			// Late because of this fault: open at it or begun since, and due before the next one, which is to blame for the rest.
			if due := later(s.begun, f.at).Add(bound); !due.After(next) && s.ended.After(due) {
				r.Late++
				noticed = later(noticed, s.ended)
			}
		}
		r.Troubled = noticed.Sub(f.at).Seconds()
		out = append(out, r)
	}
	return out, bound
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// between gives those of the sorted instants in [from, to).
func between(sorted []time.Time, from, to time.Time) []time.Time {
	i := sort.Search(len(sorted), func(i int) bool { return !sorted[i].Before(from) })
	j := sort.Search(len(sorted), func(i int) bool { return !sorted[i].Before(to) })
	return sorted[i:j]
}

// quiet gives the time until the first end, and the longest time without one.
func quiet(ends []time.Time, from, to time.Time) (first *float64, longest float64) {
	last := from
	for _, e := range ends {
		if first == nil {
			f := e.Sub(from).Seconds()
			first = &f
		}
		longest = max(longest, e.Sub(last).Seconds())
		last = e
	}
	return first, max(longest, to.Sub(last).Seconds())
}

// settled gives the time until executions end at the steady rate again: of the seconds that begin each tenth of a second it takes the one in which
// fewest ended, and from there the first in which at least four of five did. 0: the worst second was above half of the rate, so there was no dip to speak
// of. Nil: not before the end. Not the last bad second: on a busy machine a bad one comes along without any fault.
func settled(ends []time.Time, from, to time.Time, rate float64) *float64 {
	const window, stride = time.Second, 100 * time.Millisecond
	var counts []int
	for t := from; !t.Add(window).After(to); t = t.Add(stride) {
		counts = append(counts, len(between(ends, t, t.Add(window))))
	}
	if len(counts) == 0 {
		return nil
	}
	s := 0.0
	worst := slices.Index(counts, slices.Min(counts))
	if float64(counts[worst]) >= rate/2 {
		return &s
	}
	for i, n := range counts[worst:] {
		if float64(n) >= rate*4/5 {
			s = (time.Duration(worst+i)*stride + window).Seconds() // when that second is over
			return &s
		}
	}
	return nil
}

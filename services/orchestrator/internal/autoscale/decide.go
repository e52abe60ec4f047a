// Package autoscale decides how many workers a pool should have. It is pure: what is seen and the time go in, a count and its reason come out.
//
//	need = clamp(ceil((λ + backlog / T) / μ), MIN, MAX)     λ arrivals a second · T drain time · μ what one worker ends a second at 70 % of its slots
//
// What it does with the need, in this order:
//
//   - Nothing known (no depth, or a worker's report is missing): nothing changes. What can't be seen counts as need for as many as there are.
//   - Below MIN or above MAX: to the limit, at once.
//   - Backlog at or above the high mark, or utilisation above 80 %: up to the need, at once. μ is an estimate; a backlog that is still above the mark after T
//     shows that it is wrong, and then it is half as many again, whatever the formula says.
//   - Backlog at or below the low mark and utilisation below 60 %: down, but only to the largest need of the last minutes (the down window).
//   - Between the marks: nothing. That is the dead band which keeps a queue that breathes from moving the fleet.
//
// Nomad's own state only says whether a wish can be carried out now: a deployment that is under way refuses it (tried again every second, without a
// cooldown), a machine without room makes more wishes pointless until there is some.
package autoscale

import (
	"fmt"
	"math"
	"time"
)

// Utilisation that is aimed at, and the band around it in which nothing is done.
const (
	target   = 0.7
	tooBusy  = 0.8
	tooIdle  = 0.6
	maxNeeds = 4000 // samples of the down window that are kept; older ones are thinned out
)

// Policy is how to scale: the settings.
type Policy struct {
	Enabled    bool
	Min, Max   int
	High, Low  int           // marks of the backlog
	Drain      time.Duration // T
	DownWindow time.Duration
}

// Observation is what is seen of a pool at one moment.
type Observation struct {
	At      time.Time
	Missing string // what can't be seen; "": all can
	Partial string // what is not seen of the workers: enough to go up, not to go down

	Ready    int // tasks in the queues
	Buffered int // tasks that workers hold and have not begun
	Running  int // executions that run
	Slots    int // of all workers together
	Workers  int // that report

	Arrival    float64 // executions a second that come
	Completion float64 // executions a second that end

	Desired   int    // what the group should have, by Nomad
	Placed    int    // allocations that run or are about to
	Deploying bool   // a deployment is under way: Nomad refuses a new count
	NoRoom    string // why allocations can't be placed; "": they can
}

// Backlog is what waits.
func (o *Observation) Backlog() int { return o.Ready + o.Buffered }

// Utilisation is the share of slots in use.
func (o *Observation) Utilisation() float64 {
	if o.Slots == 0 {
		return 0
	}
	return float64(o.Running) / float64(o.Slots)
}

// State is what is remembered between two decisions. The zero value knows nothing: it does not scale down before it has seen a whole down window.
type State struct {
	Begun   time.Time // of unbroken decisions
	Needs   []Need    // of the down window, oldest first
	High    time.Time // since when the backlog is above the high mark; zero: it isn't
	Raised  time.Time // when the count was raised last for a backlog that doesn't shrink
	PerSlot float64   // executions a second that one slot ends; 0: not known yet
}

// Need is how many workers were needed at a moment.
type Need struct {
	At    time.Time
	Count int
}

// Code of a decision: a stable name for programs.
type Code string

// The codes.
const (
	Up        Code = "up"
	Down      Code = "down"
	Steady    Code = "steady"
	Off       Code = "off"
	Unseen    Code = "missing-data"
	Deploying Code = "deployment"
	NoRoom    Code = "no-room"
	AtMax     Code = "at-max"
	Band      Code = "between-marks"
	Window    Code = "down-window"
)

// Decision is what should be, and why. Count is what the group shall have now: it differs from what it has only for Up and Down. Want is what it would
// have if nothing stood in the way.
type Decision struct {
	Count  int
	Want   int
	Code   Code
	Reason string
}

// Decide says how many workers there should be.
func Decide(p Policy, o Observation, s State) (Decision, State) {
	s.learn(&o)
	if s.Begun.IsZero() {
		s.Begun = o.At
	}
	have := o.Desired
	hold := func(want int, code Code, format string, args ...any) (Decision, State) {
		return Decision{Count: have, Want: want, Code: code, Reason: fmt.Sprintf(format, args...)}, s
	}
	switch {
	case !p.Enabled:
		s.Needs, s.Begun, s.High = nil, time.Time{}, time.Time{}
		return hold(have, Off, "autoscaling is off (AUTO_SCALING_ENABLED)")
	case o.Missing != "":
		s.note(p, o.At, max(have, p.Min))
		if have >= p.Min {
			return hold(have, Unseen, "nothing is changed while not all is seen: %s", o.Missing)
		}
	}
	need, why := s.need(p, &o)
	want, code, reason := s.aim(p, &o, need, why)
	if want == have {
		return hold(want, code, "%s", reason)
	}
	switch {
	case o.Deploying:
		return hold(want, Deploying, "%s; waits for the deployment that is under way", reason)
	case want > have && o.NoRoom != "":
		return hold(want, NoRoom, "%s; but no machine has room for those that are wanted already: %s", reason, o.NoRoom)
	}
	return Decision{Count: want, Want: want, Code: code, Reason: reason}, s
}

// learn estimates what one slot ends a second, from what was ended and what ran: by Little's law that is one over the time that an execution takes
// here, waiting for processors included.
func (s *State) learn(o *Observation) {
	if o.Missing != "" || o.Partial != "" || o.Running < 1 || o.Completion <= 0 {
		return
	}
	now := o.Completion / float64(o.Running)
	if s.PerSlot == 0 {
		s.PerSlot = now
		return
	}
	s.PerSlot += 0.2 * (now - s.PerSlot)
}

// need is the formula, and what went into it.
func (s *State) need(p Policy, o *Observation) (int, string) {
	slots := 0.0
	if o.Workers > 0 {
		slots = float64(o.Slots) / float64(o.Workers)
	}
	each := s.PerSlot * slots * target
	if each <= 0 { // nothing has ended yet: what runs shows at least how many are busy
		need := p.Min
		if o.Backlog() >= p.High {
			need = 2 * max(o.Desired, 1)
		} else if slots > 0 {
			need = max(need, int(math.Ceil(float64(o.Running)/(slots*target))))
		}
		return clamp(need, p.Min, p.Max), fmt.Sprintf("%d wait, %d run, none has ended yet", o.Backlog(), o.Running)
	}
	rate := o.Arrival + float64(o.Backlog())/p.Drain.Seconds()
	exact := rate / each
	why := fmt.Sprintf("%.0f/s come and %d wait, to be worked off in %s; one worker ends %.0f/s at 70 %% of its slots: %.1f are needed", o.Arrival, o.Backlog(), p.Drain, each, exact)
	return clamp(int(math.Ceil(min(exact, 1e6)-0.01)), p.Min, p.Max), why
}

// aim says what should be, were Nomad to do it at once.
func (s *State) aim(p Policy, o *Observation, need int, why string) (int, Code, string) {
	have, backlog, used := o.Desired, o.Backlog(), o.Utilisation()
	above := backlog >= p.High
	if !above {
		s.High = time.Time{}
	} else if s.High.IsZero() {
		s.High = o.At
	}
	if o.Missing == "" {
		s.note(p, o.At, need)
	}
	switch {
	case have < p.Min:
		return max(p.Min, need), Up, fmt.Sprintf("MIN_WORKERS is %d; %s", p.Min, why)
	case have > p.Max:
		return p.Max, Down, fmt.Sprintf("MAX_WORKERS is %d", p.Max)
	case above || used > tooBusy:
		stuck := above && o.At.Sub(later(s.High, s.Raised)) >= p.Drain
		if stuck && need <= have {
			need = clamp(have+max(1, have/2), p.Min, p.Max)
			why = fmt.Sprintf("the backlog (%d) has been above its high mark (%d) for %s, so one worker ends less than was thought", backlog, p.High, o.At.Sub(s.High).Round(time.Second))
		}
		if need > have {
			s.Raised = o.At
			s.note(p, o.At, need)
			return need, Up, why
		}
		if have >= p.Max {
			return have, AtMax, fmt.Sprintf("MAX_WORKERS (%d) is reached; %s", p.Max, why)
		}
		return have, Steady, why
	case need >= have:
		return have, Steady, why
	case o.Partial != "":
		s.note(p, o.At, have)
		return have, Unseen, "never down while not all is seen: " + o.Partial
	case backlog > p.Low || used >= tooIdle:
		return have, Band, fmt.Sprintf("in the dead band: %d wait (marks %d and %d), %.0f %% of the slots are in use; %s", backlog, p.Low, p.High, 100*used, why)
	}
	least := s.largest()
	if o.At.Sub(s.Begun) < p.DownWindow {
		return have, Window, fmt.Sprintf("down only after %s of sight; %s", p.DownWindow, why)
	}
	if least >= have {
		return have, Window, fmt.Sprintf("down only to what was needed within %s, which is %d; %s", p.DownWindow, least, why)
	}
	return least, Down, fmt.Sprintf("no more than %d were needed within %s; %s", least, p.DownWindow, why)
}

// note remembers a need, as a queue whose counts only fall: a need is of no interest once a later one is as large.
func (s *State) note(p Policy, at time.Time, count int) {
	kept := make([]Need, 0, len(s.Needs)+1)
	for _, n := range s.Needs {
		if n.Count > count && at.Sub(n.At) < p.DownWindow {
			kept = append(kept, n)
		}
	}
	s.Needs = append(kept, Need{at, count})
	if over := len(s.Needs) - maxNeeds; over > 0 {
		s.Needs = s.Needs[over:]
	}
}

// largest need that is remembered.
func (s *State) largest() int {
	most := 0
	for _, n := range s.Needs {
		most = max(most, n.Count)
	}
	return most
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func clamp(n, low, high int) int { return max(low, min(n, high)) }

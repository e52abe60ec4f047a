// Package sim runs the protocol's real code (rows, rules, transaction scripts, the worker's run, collectors, reconciler, judge) on a broker,
// a database, clocks and an outside world of its own, and breaks them: hosts that pause, die and lose connections, commits whose
// answer is lost, messages that come late, twice or never, consumers that move, clocks that drift. A schedule follows from its seed alone.
//
// Time runs in ticks of Tick. Every process is a coroutine that yields at each step; the kernel picks who goes on. What may not
// happen is checked from outside (world.go) and in every commit (database.go); what is deliberately broken to see that the checks
// bite is listed in Broken. A schedule that shows a mistake is made as short as it goes before it is printed (shrink.go).
package sim

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"time"

	"flowplatform/services/internal/protocol"
)

// Tick is what one tick of the simulation means to the code under test.
const Tick = 50 * time.Millisecond

const (
	shards = 2
	lease  = 120 // ticks
	margin = 24
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func ticks(n int64) time.Duration { return time.Duration(n) * Tick }

// killed ends a coroutine whose host has died.
type killed struct{}

// host is a machine with one process of ours on it.
type host struct {
	s          *Sim
	kind       byte // w worker, o orchestrator, g gateway
	id, inst   int
	pool       string // of a worker
	up         bool
	leader     bool
	term       int64                             // under which it fires
	believed   map[protocol.ID]protocol.Schedule // as it has read them
	rate       float64                           // of its clock
	pausedTill int64
	pausedAt   int64
	cutOrch    int64 // until then it reaches no orchestrator
	cutBroker  int64
	restartAt  int64
	draining   bool
	ghost      bool // lives on though its allocation has another process: it is not started again

	worker  *worker
	server  *server
	channel int // epoch of its task consumer
	unacked []*delivery
}

func (h *host) name() string { return fmt.Sprintf("%c%d.%d", h.kind-32, h.id, h.inst) }

// clock is the host's monotonic clock.
func (h *host) clock() time.Duration { return time.Duration(float64(h.s.now) * h.rate * float64(Tick)) }

// proc is a coroutine on a host.
type proc struct {
	s     *Sim
	h     *host
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	cond  func() bool
	until int64
	done  bool
	tx    *txn
	part  string // of the protocol that it plays now, for kills at its steps
}

func (s *Sim) spawn(h *host, fn func(p *proc)) *proc {
	p := &proc{s: s, h: h}
	p.next, p.stop = iter.Pull(func(y func(struct{}) bool) {
		p.yield = y
		defer func() {
			p.done = true
			if p.tx != nil {
				p.tx.release()
				p.tx = nil
			}
			if r := recover(); r != nil {
				if _, ok := r.(killed); !ok {
					panic(r)
				}
			}
		}()
		fn(p)
	})
	s.procs = append(s.procs, p)
	return p
}

func (p *proc) pass() {
	if !p.yield(struct{}{}) {
		panic(killed{})
	}
}

// step lets others go on.
func (p *proc) step() {
	p.cond, p.until = nil, 0
	if p.s.killing != nil && p.part != "" && p.s.killing(p) {
		p.s.after(0, func() { p.s.kill(p.h, "killed in "+p.part) })
		p.cond, p.until = func() bool { return false }, 1<<60
	}
	p.pass()
}

func (p *proc) sleep(d int64) { p.cond, p.until = nil, p.s.now+d; p.pass() }

// wait goes on when the condition holds or at the deadline; it tells which.
func (p *proc) wait(cond func() bool, deadline int64) bool {
	for {
		if cond() {
			return true
		}
		if p.s.now >= deadline {
			return false
		}
		p.cond, p.until = cond, deadline
		p.pass()
	}
}

func (s *Sim) n(k int) int64 { return int64(s.r.IntN(k)) }

// chance is true in so many of a hundred cases, while faults last.
func (s *Sim) chance(percent float64) bool { return s.faulty && s.r.Float64()*100 < percent }

// noise is chance for what goes wrong by itself, beside the schedule's faults: late and lost messages, commits.
func (s *Sim) noise(percent float64) bool { return !s.quiet && s.chance(percent) }

func (s *Sim) tr(f string, a ...any) {
	if s.tracing {
		s.Trace = append(s.Trace, fmt.Sprintf("%5d  ", s.now)+fmt.Sprintf(f, a...))
	}
}

func (s *Sim) fail(kind, f string, a ...any) {
	if s.Violation == "" {
		s.Violation, s.Detail = kind, fmt.Sprintf(f, a...)
		s.tr("VIOLATION %s: %s", kind, s.Detail)
	}
}

// after runs fn so many ticks from now: the wire.
func (s *Sim) after(d int64, fn func()) { s.wire = append(s.wire, parcel{s.now + d, fn}) }

type parcel struct {
	at int64
	fn func()
}

func (s *Sim) deliverParcels() {
	for i := 0; i < len(s.wire); {
		w := s.wire[i]
		if w.at > s.now {
			i++
			continue
		}
		last := len(s.wire) - 1
		s.wire[i] = s.wire[last]
		s.wire = s.wire[:last]
		w.fn()
	}
}

func (s *Sim) kill(h *host, why string) {
	if !h.up {
		return
	}
	s.tr("%s dies (%s)", h.name(), why)
	h.up = false
	for _, p := range s.procs {
		if p.h == h && !p.done {
			p.stop()
			p.done = true
			if p.tx != nil {
				p.tx.release()
				p.tx = nil
			}
		}
	}
	s.afterKill(h)
}

// loop runs the schedule until everything is settled, or something is broken, or it takes too long.
func (s *Sim) loop(limit int64) {
	defer func() {
		for _, p := range s.procs {
			if !p.done {
				p.stop()
			}
		}
	}()
	for s.Violation == "" {
		s.Steps++
		if s.faulty && s.now >= s.endFaults {
			s.stopFaults()
		}
		for len(s.script) > 0 && s.script[0].when() {
			f := s.script[0]
			s.script = s.script[1:]
			f.do()
		}
		for s.faulty && len(s.plan) > 0 && s.now >= s.plan[0].at {
			f := s.plan[0]
			s.plan = s.plan[1:]
			f.inject(s)
		}
		s.deliverParcels()
		s.pumpBroker()
		for _, h := range s.hosts {
			if !h.up && !h.ghost && s.now >= h.restartAt {
				s.start(h)
			}
		}
		if !s.runOne() {
			s.now++
		} else if s.r.IntN(5) == 0 {
			s.now++
		}
		if (!s.faulty || s.quiet && len(s.script)+len(s.plan) == 0) && s.now&31 == 0 && s.drained() {
			return
		}
		if s.now > s.endFaults+limit {
			s.stuck()
			return
		}
	}
}

func (s *Sim) runOne() bool {
	s.runnable = s.runnable[:0]
	live := s.procs[:0]
	for _, p := range s.procs {
		if p.done {
			continue
		}
		live = append(live, p)
		if p.h.pausedTill > s.now {
			continue
		}
		if (p.cond == nil && p.until <= s.now) || (p.cond != nil && (p.until <= s.now || p.cond())) {
			s.runnable = append(s.runnable, p)
		}
	}
	clear(s.procs[len(live):])
	s.procs = live
	if len(s.runnable) == 0 {
		return false
	}
	s.runnable[s.r.IntN(len(s.runnable))].next()
	return true
}

// Sim is one schedule.
type Sim struct {
	// What was found.
	Violation string // "" is none
	Detail    string
	Trace     []string // when traced
	Counts    Counts
	Steps     int

	broken  Broken
	r       *rand.Rand
	now     int64
	tracing bool

	faulty         bool
	endFaults      int64
	plan           []fault
	script         []planned
	nets           bool // runs are forgotten, and handed back by the list in renewals; off in half of the schedules, since a net hides mistakes
	unknownCommits int  // of the next commits: their answers are lost, whatever came of them
	quiet          bool // no random faults on the wire, in commits and answers: histories

	killAt string // the step of a fire at which its leader is killed

	hosts    []*host
	workers  []*host
	orchs    []*host
	gateway  *host
	procs    []*proc
	runnable []*proc
	wire     []parcel

	db       database
	tasks    []*taskMessage
	queue    [shards]reportQueue
	draws    int64
	world    world
	sendings []*sending
	remote   remoteWorld
	killing  func(*proc) bool // tells of a step whether its host dies in it
	patience int64            // of waits for signals, in ticks; 0: they wait without an end
	alone    bool             // follow-ups of collectors are all lost: the leader finds what they left

	want     []int    // executions that clients want accepted
	arrivals []*start // of flows with limits
}

// Counts says what happened, to see that a schedule isn't empty.
type Counts struct {
	Faults, Acts, Claims, Refused, ClaimUnknown, Held, Cuts, Deaths, Old, Timers, Cancels, TimedOut, Undone, Yields, UnknownCommits, RefusedCommits,
	LockTimeouts, Reconciled, Finals, Holes, HoleHarm, Overlaps, ComeBacks, Parked, Failures, Orphans, Ghosts, LostReports, RefusedValues, Checkpoints, Gone, BlindActs, Retries, Pauses, Resumes, Fires, FiresDropped, FiresFenced, Backfills, Posts, Swept, Children, Taken,
	RemoteLeases, RemoteEnds, RemoteRefused, RemoteLost, RemoteExpired,
	Starts, StartsRefused, StartsMerged, LetIn, Released, Catches int
}

// Add sums two counts.
func (c *Counts) Add(o Counts) {
	a, b := c.fields(), o.fields()
	for i := range a {
		*a[i] += *b[i]
	}
}

func (c *Counts) fields() []*int {
	v := reflect.ValueOf(c).Elem()
	out := make([]*int, v.NumField())
	for i := range out {
		out[i] = v.Field(i).Addr().Interface().(*int)
	}
	return out
}

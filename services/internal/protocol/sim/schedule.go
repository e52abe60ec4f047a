package sim

import (
	"math/rand/v2"

	"flowplatform/services/internal/protocol"
)

// Options of one schedule.
type Options struct {
	Broken  Broken
	Tracing bool

	// For short traces (shrink.go): what is left of the schedule that the seed gives.
	Calm    bool         // nothing goes wrong by itself: only the planned faults
	Without map[int]bool // faults that are left out, by number
	Absent  map[int]bool // executions that nobody wants
	Order   uint64       // of the steps: 0 is the seed's own
}

func newSim(seed uint64, o Options) *Sim {
	s := &Sim{broken: o.Broken, r: rand.New(rand.NewPCG(seed, 7)), tracing: o.Tracing, faulty: true, quiet: o.Calm}
	s.world = world{conf: map[place]int{}, good: map[place]int{}}
	return s
}

func (s *Sim) host(kind byte, id int) *host {
	h := &host{s: s, kind: kind, id: id, rate: 0.96 + 0.08*s.r.Float64()}
	s.hosts = append(s.hosts, h)
	return h
}

func (s *Sim) cast(workers int) {
	for i := range workers {
		s.workers = append(s.workers, s.host('w', i))
		s.workers[i].pool = protocol.DefaultPool
	}
	for i := range 2 {
		s.orchs = append(s.orchs, s.host('o', i))
	}
	s.orchs[0].leader = true
	s.gateway = s.host('g', 0)
}

func (s *Sim) wants(shape int) {
	s.want = append(s.want, len(s.db.execs))
	s.db.execs = append(s.db.execs, &execution{shape: shape})
}

// Run runs the schedule of a seed: executions of several shapes, cancels, deadlines, and faults of every kind, until all is settled.
func Run(seed uint64, o Options) *Sim {
	s := newSim(seed, o)
	s.nets = seed%2 == 0
	s.endFaults = 300 + s.n(700)
	n := 1 + s.r.IntN(14)
	for i, f := range plan(seed, s.n(60), 2*s.endFaults/int64(n+1)+1, n) {
		if !o.Without[i] {
			s.plan = append(s.plan, f)
		}
	}
	workers := 2 + s.r.IntN(2)
	s.cast(workers + 1)
	s.workers[workers].pool = otherPool
	s.wants(s.r.IntN(len(drawings)))
	for shape := range drawings {
		if s.r.IntN(3) == 0 {
			s.wants(shape)
		}
	}
	s.endings(o)
	s.steered()
	s.writeLetters()
	s.r = rand.New(rand.NewPCG(seed, 1<<32+o.Order)) // from here on: the order of the steps
	for _, h := range s.hosts {
		s.start(h)
	}
	s.loop(6000)
	s.ended()
	return s
}

// endings draws which executions are cancelled or have a deadline, and leaves out those that are absent.
func (s *Sim) endings(o Options) {
	wanted := s.want
	s.want = nil
	for _, i := range wanted {
		at, deadline := int64(0), int64(0)
		if s.r.IntN(4) == 0 {
			at = 10 + s.n(int(s.endFaults))
		}
		if s.r.IntN(8) == 0 {
			deadline = 20 + s.n(int(s.endFaults))
		}
		if o.Absent[i] {
			continue
		}
		s.want = append(s.want, i)
		if deadline > 0 {
			s.db.execs[i].facts.Deadline = epoch.Add(ticks(deadline))
		}
		if at > 0 {
			s.after(at, func() {
				if s.gateway.up {
					s.spawn(s.gateway, func(p *proc) { s.cancel(p, i) })
				}
			})
		}
	}
}

// planned is one event of a history: it is done as soon as the condition holds, after those before it.
type planned struct {
	when func() bool
	do   func()
}

// history runs a schedule with two workers and the executions given, in which nothing goes wrong but what is planned.
func history(seed uint64, o Options, shapes []int, plan func(s *Sim) []planned) *Sim {
	s := newSim(seed, o)
	s.quiet = true
	s.endFaults = 3000
	s.cast(2)
	for _, shape := range shapes {
		s.wants(shape)
	}
	for _, h := range s.hosts {
		s.start(h)
	}
	s.script = plan(s)
	s.loop(6000)
	s.ended()
	return s
}

package sim

import "math/rand/v2"

// Options of one schedule.
type Options struct {
	Broken  Broken
	Tracing bool
	Small   bool // few executions and faults: for short traces
}

func newSim(seed uint64, o Options) *Sim {
	s := &Sim{broken: o.Broken, r: rand.New(rand.NewPCG(seed, 7)), tracing: o.Tracing, faulty: true}
	s.world = world{conf: map[place]bool{}, good: map[place]bool{}}
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

// Run runs the schedule of a seed: executions of several shapes, cancels, and faults of every kind, until all is settled.
func Run(seed uint64, o Options) *Sim {
	s := newSim(seed, o)
	s.nets = seed%2 == 0
	s.endFaults = 300 + s.n(700)
	s.maxFaults = 1 + s.r.IntN(14)
	if o.Small {
		s.endFaults = 200 + s.n(300)
		s.maxFaults = 1 + s.r.IntN(3)
	}
	s.nextFault = s.n(60)
	s.cast(2 + s.r.IntN(2))
	s.wants(s.r.IntN(len(drawings)))
	for shape := range drawings {
		if !o.Small && s.r.IntN(3) == 0 {
			s.wants(shape)
		}
	}
	for _, h := range s.hosts {
		s.start(h)
	}
	for _, i := range s.want {
		if s.r.IntN(4) == 0 {
			s.after(10+s.n(int(s.endFaults)), func() {
				if s.gateway.up {
					s.spawn(s.gateway, func(p *proc) { s.cancel(p, i) })
				}
			})
		}
	}
	s.loop(6000)
	s.ended()
	return s
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
	s.endFaults, s.nextFault = 3000, 1<<60
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

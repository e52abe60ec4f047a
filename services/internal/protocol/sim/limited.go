package sim

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"flowplatform/services/internal/protocol"
)

// Limited arrivals: starts whose flow has limits, as clients ask for them until they have an answer. They begin, are held, are refused, make room for themselves, or become
// part of an execution that waits for starts to cease. What may not happen: more than may hold a key; a slot of an execution that is over; one that waits for ever; a start that
// was answered and whose input no execution has.

// start is what a client wants accepted. Its id is that of the execution that it may become.
type start struct {
	exec     int
	at       int64
	limits   []protocol.Limit
	stored   bool // a commit has decided on it
	refused  bool
	into     int // of which execution it is part; its own index: it has one of its own
	answered bool
}

// limitedShapes are short, so that many of them run in one schedule.
var limitedShapes = []string{"pp", "ppe", "ptep", "rer", "ehp", "[ex|pee]e"}

func concurrency(key string, most int, onLimit string) protocol.Limit {
	return protocol.Limit{Kind: protocol.HoldConcurrency, Key: "concurrency/" + key, Value: key, Most: most, OnLimit: onLimit}
}

func debounce(key string, delay int64, collect bool, longest int64) protocol.Limit {
	return protocol.Limit{Kind: protocol.HoldDebounce, Key: "debounce/" + key, Value: key, Delay: ticks(delay), Longest: ticks(longest), Collect: collect}
}

func rate(key string, per int64) protocol.Limit {
	return protocol.Limit{Kind: protocol.HoldRate, Key: "rate/" + key, Value: key, Most: 1, Per: ticks(per)}
}

// starts adds a start that is asked for at a time.
func (s *Sim) starts(shape int, at int64, limits ...protocol.Limit) {
	s.arrivals = append(s.arrivals, &start{exec: len(s.db.execs), at: at, limits: limits})
	s.db.execs = append(s.db.execs, &execution{shape: shape})
}

// drawStarts draws a schedule's starts: few keys, so that they meet.
func (s *Sim) drawStarts() {
	for range 6 + s.r.IntN(8) {
		name := limitedShapes[s.r.IntN(len(limitedShapes))]
		shape := slices.IndexFunc(shapes(), func(x shape) bool { return x.drawing == name })
		one, two := concurrency("one", 1, protocol.OnLimitQueue), concurrency("two", 2, protocol.OnLimitQueue)
		var l []protocol.Limit
		switch s.r.IntN(11) {
		case 0, 1:
			l = []protocol.Limit{one}
		case 2:
			l = []protocol.Limit{two}
		case 3, 4:
			l = []protocol.Limit{one, two}
		case 5:
			l = []protocol.Limit{rate("r", 40), one}
		case 6:
			l = []protocol.Limit{concurrency("old", 1, protocol.OnLimitCancelOldest)}
		case 7:
			l = []protocol.Limit{concurrency("no", 1, protocol.OnLimitReject), two}
		case 8:
			l = []protocol.Limit{debounce("all", 30, true, 90), one}
		case 9:
			l = []protocol.Limit{debounce("last", 30, false, 90)}
		case 10:
			l = []protocol.Limit{debounce("slow", 20, true, 60), rate("r", 40), {Kind: protocol.HoldFairness, Key: "fairness/g", Value: strconv.Itoa(s.r.IntN(2)), Weight: 1}}
		}
		s.starts(shape, s.n(int(s.endFaults)), l...)
	}
}

// steeredStarts draws what users do with them.
func (s *Sim) steeredStarts() {
	for _, a := range s.arrivals {
		i := a.exec
		if s.r.IntN(4) == 0 {
			s.atGateway(a.at+s.n(150), func(p *proc) { s.cancel(p, i) })
		}
		if s.r.IntN(2) == 0 {
			s.atGateway(1, func(p *proc) { s.retries(p, i, 2) })
		}
		if s.r.IntN(6) == 0 {
			d := s.n(100)
			s.atGateway(a.at+s.n(100), func(p *proc) { s.pauses(p, i, d) })
		}
	}
}

// insists is a client who wants a start accepted, until there is an answer.
func (s *Sim) insists(p *proc, a *start) {
	p.sleep(max(1, a.at-s.now))
	p.part = "arrive"
	for !a.answered {
		var out protocol.Outcome
		err := store{p}.Txn(bg, "arrive", func(tx protocol.Tx) (err error) {
			out, err = s.arrive(p, tx, a)
			return err
		})
		if err != nil {
			p.sleep(10)
			continue
		}
		a.answered = true
		switch e := s.db.execs[a.exec]; {
		case !a.stored:
			s.fail("18 answered and not stored", "start %d", a.exec)
		case e.exists && !e.row.Held():
			protocol.HandOut(bg, store{p}, publisher{p}, []protocol.ID{idOf('e', a.exec)})
		}
		s.letIn(p, out.Freed)
	}
}

// arrive is the transaction of a start, the same however often it is asked for.
func (s *Sim) arrive(p *proc, tx protocol.Tx, a *start) (protocol.Outcome, error) {
	t := p.tx
	if err := t.acquire(&s.db.execs[a.exec].lock); err != nil || a.stored { // as its idempotency key
		return protocol.Outcome{}, err
	}
	arrival := protocol.Arrival{ID: idOf('e', a.exec), Input: []byte(strconv.Itoa(a.exec)), Limits: a.limits}
	return protocol.PlaceArrivals(bg, tx, []protocol.Arrival{arrival}, func(places []protocol.Place) error {
		place := places[0]
		a := a
		own := place.Refused == nil && place.Into.IsZero()
		if own {
			if err := t.insert(a.exec, s.db.execs[a.exec].shape); err != nil {
				return err
			}
		}
		t.ops = append(t.ops, func() {
			a.stored, a.refused, a.into = true, place.Refused != nil, a.exec
			s.Counts.Starts++
			switch e := s.db.execs[a.exec]; {
			case own:
				e.row.Hold, e.row.Limited = place.Hold, true
				e.input = []int{a.exec}
				s.want = append(s.want, a.exec)
				s.tr("%s: start %d is E%d, held for %q", p.h.name(), a.exec, a.exec, place.Hold)
			case a.refused:
				s.Counts.StartsRefused++
			default:
				a.into = indexOf(place.Into)
				s.Counts.StartsMerged++
				s.tr("%s: start %d becomes part of E%d", p.h.name(), a.exec, a.into)
			}
		})
		return nil
	})
}

// letIn looks at keys at which others may be let in, as whoever made room does. What fails is the leader's.
func (s *Sim) letIn(p *proc, keys []string) {
	if len(keys) == 0 {
		return
	}
	a := protocol.Admitter{Store: store{p}, Publisher: publisher{p}}
	n, _ := a.Admit(bg, keys)
	s.Counts.LetIn += n
}

// freed is the follow-up of a commit that made room; half of them are lost.
func (s *Sim) freed(h *host, keys []string) {
	if len(keys) > 0 && !s.alone && s.r.IntN(2) == 0 {
		s.spawn(h, func(p *proc) { p.part = "admit"; s.letIn(p, keys) })
	}
}

// admits is what the leader does for flow control. Two may believe that they lead.
func (o *server) admits(p *proc) {
	s := o.s
	a := protocol.Admitter{Store: store{p}, Publisher: publisher{p}}
	for {
		p.sleep(3 + s.n(8))
		if !o.h.leader {
			continue
		}
		p.part = "release"
		n, _, _ := a.Due(bg, 2*time.Second, 100)
		p.part = ""
		s.Counts.Released += n
		if s.r.IntN(2) == 0 {
			continue
		}
		p.part = "look"
		keys, err := store{p}.Roomy(bg, "", 100)
		if err == nil {
			s.letIn(p, keys)
		}
		p.part = ""
	}
}

// released makes the inputs that were collected the input, when that is committed.
func (s *Sim) released(id protocol.ID) {
	e := s.execution(id)
	var all []int
	for _, m := range s.db.control.merged[id] {
		if i := indexOf(m.Start); m.Collect && !slices.Contains(all, i) {
			all = append(all, i)
		}
	}
	if all != nil {
		e.input = all
	}
	delete(s.db.control.merged, id)
}

// merge is a start that becomes part of an execution, at its commit.
func (s *Sim) merge(m protocol.Merge) {
	e := s.execution(m.Execution)
	if m.Execution != m.Start && (e.row.State != protocol.Queued || e.row.Hold != protocol.HoldDebounce) {
		s.fail("18 a start joined what had begun", "start %d: E%d is %s, held for %q", indexOf(m.Start), indexOf(m.Execution), e.row.State, e.row.Hold)
	}
	if !m.Collect {
		e.input = []int{indexOf(m.Start)}
	}
}

// arrived tells whether every start has its answer.
func (s *Sim) arrived() bool {
	return !slices.ContainsFunc(s.arrivals, func(a *start) bool { return !a.answered })
}

// joined tells whether this is no execution but a start that became part of another, or was refused.
func (s *Sim) joined(i int) bool {
	return slices.ContainsFunc(s.arrivals, func(a *start) bool { return a.exec == i && a.stored && (a.refused || a.into != i) })
}

// limitsEnded: all slots are free, nothing waits, and every start is in the input of its execution, or the last of them is.
func (s *Sim) limitsEnded() {
	for _, slot := range s.db.control.slots {
		if slot.State != protocol.SlotFree {
			s.fail("16 a slot is left", "E%d %s %s", indexOf(slot.Execution), slot.Key, slot.State)
		}
	}
	for key, d := range s.db.control.debounces {
		s.fail("18 a debounce is left", "%s: E%d", key, indexOf(d.Execution))
	}
	last := map[int]int{}
	for _, a := range s.arrivals {
		switch l := a.limits[0]; {
		case !a.stored || a.refused || l.Kind != protocol.HoldDebounce:
		case l.Collect && !slices.Contains(s.db.execs[a.into].input, a.exec):
			s.fail("18 a start is lost", "start %d is not among %v, the input of E%d", a.exec, s.db.execs[a.into].input, a.into)
		case !l.Collect && slices.Contains(s.db.execs[a.into].input, a.exec):
			last[a.into]++
		}
	}
	for _, a := range s.arrivals {
		if a.stored && !a.refused && a.limits[0].Kind == protocol.HoldDebounce && !a.limits[0].Collect && last[a.into] != 1 {
			s.fail("18 the last start is lost", "E%d has the input of %v", a.into, s.db.execs[a.into].input)
		}
	}
}

// endedByLimit tells whether flow control had a reason to cancel it.
func (s *Sim) endedByLimit(id protocol.ID) bool {
	return slices.ContainsFunc(s.db.control.slots, func(slot protocol.Slot) bool { return slot.Execution == id && slot.Reason != "" })
}

// RunLimits runs the schedule of a seed with starts of limited flows: clients that ask again, two orchestrators that lead in turn or both at once, users who cancel, retry and
// pause, and faults of every kind.
func RunLimits(seed uint64, o Options) *Sim {
	s := newSim(seed, o)
	s.nets = seed%2 == 0
	s.endFaults = 300 + s.n(400)
	n := 1 + s.r.IntN(10)
	for i, f := range plan(seed, s.n(60), 2*s.endFaults/int64(n+1)+1, n) {
		if !o.Without[i] {
			s.plan = append(s.plan, f)
		}
	}
	s.cast(2)
	s.drawStarts()
	s.steeredStarts()
	s.r = rand.New(rand.NewPCG(seed, 1<<34+o.Order))
	for _, h := range s.hosts {
		s.start(h)
	}
	for range 4 { // leaders change more often than the plan's faults make them
		at := s.n(int(s.endFaults))
		s.after(at, func() {
			if h := s.orchs[s.r.IntN(len(s.orchs))]; s.faulty {
				h.leader = !h.leader
			}
		})
	}
	s.loop(6000)
	s.ended()
	s.limitsEnded()
	return s
}

// ---- broken on purpose

// keyless tells whether a transaction takes the locks of keys of flow control (Broken.AdmitWithoutKey, Broken.ArriveWithoutKey).
func (x *brokenTx) keyless() bool {
	return x.b.AdmitWithoutKey && x.t.name == "admit" || x.b.ArriveWithoutKey && x.t.name == "arrive"
}

// unlocked reads rows without their locks (Broken.ReleaseWithoutLock).
func (x *brokenTx) unlocked(ids []protocol.ID) ([]protocol.Row, error) {
	if err := x.t.statement(); err != nil {
		return nil, err
	}
	var rows []protocol.Row
	for _, id := range ids {
		if e := x.t.s.execution(id); e != nil && e.exists {
			rows = append(rows, e.row)
		}
	}
	return rows, nil
}

// freeBeside frees the slots of an end after its transaction (Broken.FreeBeside): lost when nobody lives to do it, and late.
func (db *database) freeBeside(s *Sim, id protocol.ID, free func()) {
	h := s.orchs[0]
	inst := h.inst
	s.after(1+s.n(20), func() {
		if h.up && h.inst == inst {
			free()
		}
	})
}

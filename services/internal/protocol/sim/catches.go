package sim

import (
	"context"
	"math/rand/v2"
	"slices"

	"flowplatform/services/internal/protocol"
)

// Error flows: two of them catch the bad ends of all others, each other's too, while executions fail, time out, are cancelled and retried. What may not happen: an end that
// a trigger asks for and that started nothing, or started twice; a catch of an end that there never was; a circle.

// catching is what of the simulation is about them.
type catching struct {
	triggers []protocol.ErrorTrigger
	failures []*failure
	catches  []protocol.Catch
	ends     map[protocol.End]protocol.State // bad ends that were committed
}

type failure struct {
	protocol.Failure
	lock rowLock
}

// errorFlows are the flows that catch.
var errorFlows = []protocol.ID{idOf('f', 1), idOf('f', 2)}

func (s *Sim) addErrorFlows() {
	c := &s.db.catching
	c.ends = map[protocol.End]protocol.State{}
	c.triggers = []protocol.ErrorTrigger{
		{Flow: errorFlows[0], Node: "start", States: []protocol.State{protocol.Failed, protocol.TimedOut}},
		{Flow: errorFlows[1], Node: "start", States: []protocol.State{protocol.Failed, protocol.TimedOut, protocol.Cancelled}},
	}
}

// fell notes a bad end when it is committed.
func (s *Sim) fell(o, n protocol.Row) {
	if ends := s.db.catching.ends; ends != nil && n.State.Final() && n.State != protocol.Succeeded && !o.State.Final() {
		ends[protocol.End{Execution: n.ID, Retries: n.Retries}] = n.State
	}
}

// takeFailures inserts what a batch has left, where a trigger asks for it.
func (db *database) takeFailures(c *protocol.Changes) {
	for _, f := range c.Failures {
		asked := slices.ContainsFunc(db.catching.triggers, func(t protocol.ErrorTrigger) bool { return slices.Contains(t.States, f.State) })
		if asked && !slices.ContainsFunc(db.catching.failures, func(o *failure) bool { return o.End == f.End }) {
			db.catching.failures = append(db.catching.failures, &failure{Failure: f})
		}
	}
}

// catchTx implements protocol.CatchTx.
type catchTx struct {
	t      *txn
	shapes map[protocol.ID]int
}

func (x *catchTx) TakeFailures(_ context.Context, ends []protocol.End) (out []protocol.End, err error) {
	if err := x.t.statement(); err != nil {
		return nil, err
	}
	db := &x.t.s.db
	if x.t.s.broken.CatchAgain {
		out = ends
	}
	for _, f := range db.catching.failures {
		if !slices.Contains(ends, f.End) || f.lock.held != nil { // SKIP LOCKED
			continue
		}
		if err := x.t.acquire(&f.lock); err != nil {
			return nil, err
		}
		x.t.ops = append(x.t.ops, func() {
			db.catching.failures = slices.DeleteFunc(db.catching.failures, func(o *failure) bool { return o == f })
		})
		if !x.t.s.broken.CatchAgain {
			out = append(out, f.End)
		}
	}
	return out, nil
}

func (x *catchTx) Catch(_ context.Context, catches []protocol.Catch) error {
	if err := x.t.statement(); err != nil {
		return err
	}
	s := x.t.s
	for _, c := range catches {
		if c.Started.IsZero() {
			continue
		}
		i := indexOf(c.Started)
		if err := x.t.insert(i, x.shapes[c.Started]); err != nil {
			return err
		}
		x.t.ops = append(x.t.ops, func() { s.db.execs[i].row.Flow = c.Flow; s.want = append(s.want, i) })
	}
	x.t.ops = append(x.t.ops, func() {
		for _, c := range catches {
			s.caught(c)
		}
	})
	return nil
}

// caught checks a catch when it is committed.
func (s *Sim) caught(c protocol.Catch) {
	s.Counts.Catches++
	s.tr("the end of E%d after %d retries, at error flow %d: %s E%d %s", indexOf(c.Execution), c.Retries, indexOf(c.Flow), c.Outcome, indexOf(c.Started), c.Reason)
	if s.db.catching.ends[c.End] != c.State {
		s.fail("19 caught what never was", "E%d after %d retries as %s", indexOf(c.Execution), c.Retries, c.State)
	}
	if !c.Started.IsZero() && (slices.Contains(c.Above, c.Flow) || s.execution(c.Execution).row.Flow == c.Flow) {
		s.fail("19 in a circle", "error flow %d starts for E%d", indexOf(c.Flow), indexOf(c.Execution))
	}
	for _, there := range s.db.catching.catches {
		if there.End == c.End && there.Flow == c.Flow {
			s.fail("19 caught twice", "E%d after %d retries by error flow %d", indexOf(c.Execution), c.Retries, indexOf(c.Flow))
		}
	}
	s.db.catching.catches = append(s.db.catching.catches, c)
}

// view is what a leader reads of a failure.
func (s *Sim) view(f protocol.Failure) protocol.FailureView {
	root := s.execution(f.Execution)
	for !root.row.Parent.IsZero() {
		root = s.execution(root.row.Parent)
	}
	v := protocol.FailureView{Failure: f, Flow: s.execution(f.Execution).row.Flow}
	for _, c := range s.db.catching.catches {
		if c.Started == root.row.ID {
			v.Above = slices.Clone(c.Above)
			if c.Flow != v.Flow {
				v.Above = append(v.Above, c.Flow)
			}
		}
	}
	return v
}

// catches is the leader's loop: look, plan, catch, hand out.
func (o *server) catches(p *proc) {
	s := o.s
	for {
		p.part = ""
		p.sleep(3 + s.n(8))
		if !o.h.leader || (store{p}).read() != nil {
			continue
		}
		var ends []protocol.End
		var catches []protocol.Catch
		shapes := map[protocol.ID]int{}
		for _, f := range s.db.catching.failures {
			ends = append(ends, f.End)
			v := s.view(f.Failure)
			for _, c := range protocol.CatchesOf(&v, s.db.catching.triggers) {
				if c.Outcome == protocol.CatchStarted {
					c.Started = idOf('e', len(s.db.execs))
					shapes[c.Started] = shapeIndex(failing[s.r.IntN(len(failing))])
					s.db.execs = append(s.db.execs, &execution{shape: shapes[c.Started]})
				}
				catches = append(catches, c)
			}
		}
		if len(ends) == 0 {
			continue
		}
		p.part = "catch"
		p.step() // it has made what it wants of what it read
		var out protocol.Outcome
		err := store{p}.Txn(bg, "catch", func(protocol.Tx) (err error) {
			out, _, err = protocol.CatchFailures(bg, &catchTx{p.tx, shapes}, ends, catches)
			return err
		})
		if err == nil {
			protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut)
		}
	}
}

func shapeIndex(drawing string) int {
	return slices.IndexFunc(shapes(), func(x shape) bool { return x.drawing == drawing })
}

// failing are the drawings of which many fail.
var failing = []string{"pp", "ppe", "[ex|pee]e", "utpux"}

// caughtEnded: every bad end that a trigger asks for was decided on.
func (s *Sim) caughtEnded() {
	if s.Violation != "" {
		return
	}
	for end, state := range s.db.catching.ends {
		flow := s.execution(end.Execution).row.Flow
		for _, t := range s.db.catching.triggers {
			if t.Flow == flow || !slices.Contains(t.States, state) {
				continue
			}
			if !slices.ContainsFunc(s.db.catching.catches, func(c protocol.Catch) bool { return c.End == end && c.Flow == t.Flow }) {
				s.fail("19 an end is lost", "E%d, %s after %d retries, of error flow %d", indexOf(end.Execution), state, end.Retries, indexOf(t.Flow))
			}
		}
	}
	for _, c := range s.db.catching.catches {
		if !c.Started.IsZero() && !s.execution(c.Started).exists {
			s.fail("19 a catch without its execution", "%v", c)
		}
	}
}

// RunCatches runs the schedule of a seed with executions that end badly and error flows that catch them: two orchestrators that lead in turn or both at once, and faults of every kind.
func RunCatches(seed uint64, o Options) *Sim {
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
	s.addErrorFlows()
	for range 3 + s.r.IntN(4) {
		s.wants(shapeIndex(append(failing, "ehp", "(te)")[s.r.IntN(len(failing)+2)]))
	}
	s.endings(o)
	s.steered()
	s.r = rand.New(rand.NewPCG(seed, 1<<35+o.Order))
	for _, h := range s.hosts {
		s.start(h)
	}
	for range 6 { // leaders change more often than the plan's faults make them
		s.after(s.n(int(s.endFaults)), func() {
			if h := s.orchs[s.r.IntN(len(s.orchs))]; s.faulty {
				h.leader = !h.leader
			}
		})
	}
	s.loop(6000)
	s.ended()
	s.caughtEnded()
	return s
}

// calm tells whether nothing is left to be caught.
func (s *Sim) calm() bool { return len(s.db.catching.failures) == 0 }

// silence loses what ends leave (Broken.EndWithoutFailure).
func (b *Broken) silence(c *protocol.Changes) {
	if b.EndWithoutFailure {
		c.Failures = nil
	}
}

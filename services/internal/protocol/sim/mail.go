package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// Whom letters come from: people who signal by a key or to an execution, sooner or later than it waits, twice, from a gateway that dies; and children.

// sending is a signal that somebody wants sent: they ask until they know that it was.
type sending struct {
	letter protocol.Letter
	exec   int
	at     int64
}

// childShape is what h nodes call.
const childShape = "ptep"

// opens is the wait that a node opens.
func (s *Sim) opens(exec int, cmd flow.Command) *flow.Wait {
	switch cmd.Key.Node[0] {
	case 'm', 'q':
		return s.opensRemote(exec, cmd)
	case 's', 'a':
		w := &flow.Wait{Kind: flow.WaitSignal, Key: s.signalKey(exec, cmd.Key.Node), Reason: "a signal"}
		if s.patience > 0 {
			w.Due = s.time().Add(ticks(s.patience))
		}
		return w
	}
	return &flow.Wait{Kind: flow.WaitTimer, Due: s.time().Add(ticks(21 + s.n(100))), Reason: "a timer"}
}

func (s *Sim) signalKey(exec int, node string) string {
	return protocol.SignalKey(node, fmt.Sprint(exec))
}

// letters draws the signals of the executions: each once or twice, the second is the first again.
func (s *Sim) writeLetters() {
	for _, i := range s.want {
		n := 0
		for _, c := range shapes()[s.db.execs[i].shape].drawing {
			if c == '[' || c == '|' || c == ']' || c == ')' {
				continue
			}
			if n++; c != 's' && c != 'a' {
				continue
			}
			node := fmt.Sprintf("%c%d", c, n)
			l := protocol.Letter{ID: idOf('l', len(s.sendings)+1), Kind: flow.WaitSignal, Output: json.RawMessage(`1`)}
			if c == 's' {
				l.Key = s.signalKey(i, node)
			} else {
				l.Execution, l.Key = idOf('e', i), node
			}
			for range 1 + s.r.IntN(2) {
				s.sendings = append(s.sendings, &sending{letter: l, exec: i, at: s.n(int(s.endFaults))})
			}
		}
	}
}

// sends sends a signal until it is known to be stored. One to an execution that has ended waits for a retry.
func (s *Sim) sends(p *proc, m *sending) {
	p.sleep(max(1, m.at-s.now))
	p.part = "gateway"
	for {
		var d []protocol.Delivery
		out, d, err := protocol.Send(bg, store{p}, []protocol.Letter{m.letter})
		if err == nil {
			protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut)
			if d[0].Status != protocol.LetterRefused {
				s.tr("E%d: signal %s %s", m.exec, m.letter.Key, d[0].Status)
				return
			}
		}
		p.sleep(10 + s.n(40))
	}
}

// post acts on what a commit has left, as a follow-up does; what fails here is the leader's.
func (s *Sim) post(p *proc, ids []protocol.ID) {
	for len(ids) > 0 {
		s.Counts.Posts++
		var out protocol.Outcome
		err := store{p}.Txn(bg, "post", func(tx protocol.Tx) (err error) {
			out, err = protocol.Post(bg, tx, ids)
			return err
		})
		if err != nil {
			return
		}
		protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut)
		ids = out.Mail
	}
}

// places starts a child for a step, until an orchestrator has said that it is there.
func (r *run) places(p *proc, cmd flow.Command) (flow.Event, bool) {
	s := r.w.s
	req := &protocol.CallRequest{Execution: idOf('e', r.exec), Attempt: r.attempt, Node: cmd.Key.Node, Iteration: cmd.Key.Iteration, Flow: childShape, Wait: true}
	for !r.m.Done() && !r.lost && !r.cut[cmd.Key] {
		ask := &request{call: req}
		if s.rpc(p, ask) {
			if ask.called.Stale { // as flow.call does: whoever ended the attempt, or flagged it, ends this too
				p.wait(func() bool { return r.m.Done() || r.lost || r.cut[cmd.Key] }, 1<<60)
				break
			}
			return flow.Event{Type: flow.EventWaiting, Wait: &flow.Wait{Kind: flow.WaitChildren, Key: ask.called.Child.String(), Reason: "a child"}, At: s.time()}, true
		}
		p.sleep(3)
	}
	return flow.Event{}, false
}

// serveCalls places the children that steps ask for.
func (o *server) serveCalls(p *proc) {
	s := o.s
	shape := slices.IndexFunc(shapes(), func(x shape) bool { return x.drawing == childShape })
	for {
		p.wait(func() bool { return len(o.calls) > 0 }, 1<<60)
		r := o.calls[0]
		o.calls = o.calls[1:]
		i := len(s.db.execs)
		s.db.execs = append(s.db.execs, &execution{shape: shape, child: true})
		var out protocol.Outcome
		err := store{p}.Txn(bg, "call", func(tx protocol.Tx) (err error) {
			t := p.tx
			out, r.called, err = protocol.PlaceCall(bg, tx, r.call, idOf('e', i), func(protocol.ID) error {
				if err := t.insert(i, shape); err != nil {
					return err
				}
				parent := r.call.Execution
				t.ops = append(t.ops, func() {
					e := s.db.execs[i]
					e.row.Parent, e.callRetries = parent, s.execution(parent).row.Retries
					s.want = append(s.want, i)
					s.Counts.Children++
				})
				return nil
			})
			return err
		})
		if err != nil {
			continue // no answer: the step asks again
		}
		s.reply(r, protocol.Granted)
		protocol.HandOut(bg, store{p}, publisher{p}, out.HandOut)
	}
}

// lettersEnded checks that nothing that was sent is lost or was taken twice.
func (s *Sim) lettersEnded() {
	taken := map[string]int{}
	for i, e := range s.db.execs {
		for _, rep := range e.reports {
			var events []struct {
				Type   string `json:"t"`
				Node   string `json:"n"`
				Letter string `json:"m"`
			}
			if json.Unmarshal(rep.Events, &events) != nil {
				continue
			}
			for _, ev := range events {
				if ev.Type != flow.EventMet || ev.Letter == "" {
					continue
				}
				if taken[ev.Letter]++; taken[ev.Letter] > 1 {
					s.fail("17 a letter twice", "E%d %s: the letter %s is in two reports", i, ev.Node, ev.Letter)
				}
			}
		}
	}
	for _, o := range s.db.letters {
		e := s.execution(o.Execution)
		if o.Kind == protocol.KindDown || e == nil {
			continue
		}
		if !o.Taken.IsZero() {
			s.Counts.Taken++
		}
		if e.row.State == protocol.Succeeded && o.Taken.IsZero() && o.Kind == flow.WaitSignal {
			s.fail("17 a letter passed over", "E%d succeeded without its signal %s", indexOf(o.Execution), o.Key)
		}
	}
}

// orphaned: the child of one that has ended, or was retried since, may be cancelled.
func (s *Sim) orphaned(e *execution) bool {
	p := s.execution(e.row.Parent)
	return e.child && p != nil && (p.row.State.Final() || p.row.Retries > e.callRetries)
}

func calls(drawing string) bool { return strings.Contains(drawing, "h") }

// LockKeys leaves the sender's lock out (Broken.SendWithoutKey), or those of flow control.
func (x *brokenTx) LockKeys(ctx context.Context, names []string) error {
	if x.b.SendWithoutKey && x.t.name == "letters" || x.keyless() {
		return nil
	}
	return x.Tx.LockKeys(ctx, names)
}

// Letters hides from a suspend what came first (Broken.SuspendBlind).
func (x *brokenTx) Letters(ctx context.Context, waits []protocol.OpenWait) ([]protocol.Letter, error) {
	if x.b.SuspendBlind && x.t.name == "collect" {
		return nil, nil
	}
	return x.Tx.Letters(ctx, waits)
}

// forget loses the letters of ends (Broken.EndWithoutLetter).
func (b *Broken) forget(c *protocol.Changes) {
	if b.EndWithoutLetter {
		c.Posted = slices.DeleteFunc(slices.Clone(c.Posted), func(l protocol.Letter) bool { return l.Pending })
	}
}

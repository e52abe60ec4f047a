package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// Workers of the users' own: they poll a queue through the gateway, send heartbeats, complete, complete twice, fail, die, forget, and complete when their lease is over. What
// may not happen: a task that is handed out after its end; an end by an older lease; an end that was answered and is lost, or is refused when it is said again; an execution that
// goes on twice with one task, or with anything but what the task ended with.

// remoteDrawings are shapes with remote tasks, for RunRemote alone. m is a task without an end of its own; q has a timeout and is tried again.
var remoteDrawings = []string{"m", "pmp", "eqe", "[m|e]p", "[q|me]q", "(m)p", "e(eqe)"}

const (
	remoteQueue   = "work"
	remoteTimeout = 120 // ticks, of q nodes
)

// remoteWorld is what users' workers know, and what was seen of their tasks.
type remoteWorld struct {
	hosts []*host
	deaf  bool // they poll, and do nothing with what they get
	said  map[string]spoken
	done  map[protocol.ID]string // ends that were answered
	met   map[protocol.ID]int    // how often an execution went on with a task's end, or its time
}

// spoken is who said what a task may end with; every worker says something of its own.
type spoken struct {
	task  protocol.ID
	lease int
}

func (s *Sim) addRemotes(n int) {
	s.remote = remoteWorld{said: map[string]spoken{}, done: map[protocol.ID]string{}, met: map[protocol.ID]int{}}
	for i := range n {
		s.remote.hosts = append(s.remote.hosts, s.host('m', i))
	}
}

// opensRemote is the wait that a remote step opens.
func (s *Sim) opensRemote(exec int, cmd flow.Command) *flow.Wait {
	open, _ := json.Marshal(protocol.RemoteOpen{Queue: remoteQueue, Try: cmd.Try, Heartbeat: ticks(20 + s.n(30)).Milliseconds()}) // numbers and a text
	w := &flow.Wait{Kind: flow.WaitRemote, Key: protocol.RemoteTaskID(idOf('e', exec), cmd.Key.Node, cmd.Key.Iteration, cmd.Try, cmd.Retries).String(), Reason: "a remote worker", Open: open}
	if cmd.Timeout > 0 {
		w.Due = s.time().Add(cmd.Timeout)
	}
	return w
}

func remote(drawing string) bool { return strings.ContainsAny(drawing, "mq") }

// asks is a call of a user's worker over HTTP: a gateway does it; the question, the answer or the gateway may be lost. false: no answer.
func (s *Sim) asks(p *proc, part string, do func(*proc) error) bool {
	p.step()
	d, answered := 1+s.n(3), false
	if s.noise(5) {
		d += s.n(150)
	}
	s.after(d, func() {
		if !s.gateway.up {
			return
		}
		s.spawn(s.gateway, func(g *proc) {
			g.part = part
			err := do(g)
			g.part = ""
			if err == nil && !s.noise(5) {
				s.after(1+s.n(3), func() { answered = true })
			}
		})
	})
	return p.wait(func() bool { return answered }, s.now+60)
}

// polls is a user's worker: it works on several tasks at once.
func (s *Sim) polls(p *proc) {
	for {
		p.sleep(5 + s.n(15))
		if s.settled() {
			continue
		}
		var got []protocol.RemoteTask
		limit := 1 + s.r.IntN(2)
		if !s.asks(p, "lease", func(g *proc) error {
			return store{g}.Txn(bg, "poll", func(tx protocol.Tx) (err error) {
				got, err = protocol.PollRemote(bg, tx, protocol.ID{}, remoteQueue, p.h.name(), limit)
				return err
			})
		}) {
			continue
		}
		for _, t := range got {
			s.Counts.RemoteLeases++
			if !s.remote.deaf {
				s.spawn(p.h, func(p *proc) { s.works(p, t) })
			}
		}
	}
}

func (s *Sim) settled() bool {
	for _, i := range s.want {
		if e := s.db.execs[i]; !e.exists || !e.row.State.Final() {
			return false
		}
	}
	return true
}

// works is what a user's worker does with a task.
func (s *Sim) works(p *proc, t protocol.RemoteTask) {
	beat := int64(t.Heartbeat / Tick)
	end := s.word(p, t, false)
	fate := 0
	if s.faulty && !s.quiet {
		fate = s.r.IntN(10)
	}
	switch fate {
	case 1: // it forgets the task
		return
	case 2:
		h := p.h
		s.after(s.n(10), func() { s.kill(h, "a user's worker dies") })
	case 3:
		end = s.word(p, t, true)
	case 4, 5: // it takes longer than its lease, without a sign of life
		p.sleep(beat/2 + s.n(int(2*beat)))
	case 6: // it takes longer, with signs
		for range 2 + s.n(6) {
			p.sleep(beat / 3)
			if !s.beats(p, t) {
				break
			}
		}
	case 7: // the same, by two threads at once
		s.spawn(p.h, func(p *proc) { s.ends(p, end) })
	case 8: // it believes to be somebody else afterwards
		s.ends(p, end)
		end = s.word(p, t, s.r.IntN(2) == 0)
	case 9:
		s.ends(p, end)
	}
	p.sleep(s.n(8))
	s.ends(p, end)
}

// word makes an end that nobody else says.
func (s *Sim) word(p *proc, t protocol.RemoteTask, failed bool) protocol.RemoteEnd {
	text := fmt.Sprintf("%s, lease %d, word %d", p.h.name(), t.Lease, len(s.remote.said))
	s.remote.said[text] = spoken{t.ID, t.Lease}
	e := protocol.RemoteEnd{Task: t.ID, Lease: t.Lease}
	if failed {
		e.Error = &flow.Failure{Code: "sim-remote", Message: text, Retryable: true}
	} else {
		e.Output, _ = json.Marshal(text)
	}
	return e
}

func textOf(output json.RawMessage, f *flow.Failure) (text string) {
	if f != nil {
		return f.Message
	}
	_ = json.Unmarshal(output, &text) // what isn't a text is nobody's word
	return text
}

// beats sends a heartbeat and tells whether the task is still the worker's, as far as it knows.
func (s *Sim) beats(p *proc, t protocol.RemoteTask) bool {
	var v protocol.RemoteVerdict
	return !s.asks(p, "heartbeat", func(g *proc) error {
		return store{g}.Txn(bg, "heartbeat", func(tx protocol.Tx) (err error) {
			_, v, err = protocol.BeatRemote(bg, tx, t.ID, t.Lease, nil)
			return err
		})
	}) || v == protocol.SaidDone
}

// ends says an end until there is an answer. Each call brings its own copy, as a body over HTTP is.
func (s *Sim) ends(p *proc, e protocol.RemoteEnd) {
	for {
		call := e
		if e.Error != nil {
			f := *e.Error
			call.Error = &f
		}
		if s.asks(p, "complete", func(g *proc) error { return s.endsRemote(g, call) }) {
			return
		}
		p.sleep(5 + s.n(20))
	}
}

// endsRemote is the gateway's part: once more when the commit is unknown.
func (s *Sim) endsRemote(g *proc, e protocol.RemoteEnd) error {
	text := textOf(e.Output, e.Error)
	var out protocol.Outcome
	var v protocol.RemoteVerdict
	var err error
	for range 2 {
		var t *txn
		err = store{g}.Txn(bg, "remote", func(tx protocol.Tx) (err error) {
			t = g.tx
			t.speaks = e.Lease
			out, _, v, err = protocol.EndRemote(bg, tx, e)
			return err
		})
		if err == nil && t.late != nil { // Broken.RemoteApart
			err = store{g}.Txn(bg, "letters", func(tx protocol.Tx) (err error) {
				out, _, err = protocol.Deliver(bg, tx, []protocol.Letter{*t.late})
				return err
			})
		}
		if !errors.Is(err, protocol.ErrUnknown) {
			break
		}
	}
	if err != nil {
		return err
	}
	s.answered(e, text, v)
	protocol.HandOut(bg, store{g}, publisher{g}, out.HandOut)
	return nil
}

// answered checks what a gateway is about to answer.
func (s *Sim) answered(e protocol.RemoteEnd, text string, v protocol.RemoteVerdict) {
	r, before := s.db.remoteTask(e.Task), s.remote.done[e.Task]
	switch {
	case v != protocol.SaidDone:
		s.Counts.RemoteRefused++
		if before == text {
			s.fail("18 an end said again is refused", "%q is %s", text, v)
		}
		return
	case e.Lease != r.Lease:
		s.fail("18 an older lease ends a task", "%q, and lease %d has begun", text, r.Lease)
	case before != "" && before != text:
		s.fail("18 a task ends twice", "by %q and by %q", before, text)
	case r.Outcome != protocol.RemoteCompleted && r.Outcome != protocol.RemoteFailed:
		s.fail("18 an end that is none", "%q is done, and the task is %q", text, r.Outcome)
	}
	if before == "" {
		s.Counts.RemoteEnds++
	}
	s.remote.done[e.Task] = text
	s.tr("gateway: %q is done", text)
}

// remoteCommitted checks what a commit does to tasks, and to those who wait for them, after it is done.
func (s *Sim) remoteCommitted(c *protocol.Changes) {
	byLetter := map[protocol.ID]bool{}
	for _, rep := range c.Reports {
		var events []struct {
			Type   string          `json:"t"`
			Output json.RawMessage `json:"o"`
			Error  *flow.Failure   `json:"e"`
			Letter protocol.ID     `json:"m"`
		}
		if err := json.Unmarshal(rep.Events, &events); err != nil {
			s.fail("bad report", "%v", err)
			return
		}
		for _, ev := range events {
			if r := s.db.remoteTask(ev.Letter); ev.Type == flow.EventMet && r != nil {
				byLetter[r.ID] = true
				s.goesOn(r, textOf(ev.Output, ev.Error), rep.Execution)
			}
		}
	}
	for _, w := range c.Met {
		id, err := protocol.ParseID(w.Key)
		if w.Kind != flow.WaitRemote || err != nil {
			continue
		}
		if s.remote.met[id]++; s.remote.met[id] > 1 {
			s.fail("18 goes on twice", "E%d %s", indexOf(w.Execution), w.Node)
		}
		if r := s.db.remoteTask(id); !byLetter[id] {
			s.Counts.RemoteExpired++
			if r == nil || r.Outcome != protocol.RemoteExpired {
				s.fail("18 goes on without the end", "E%d %s: its time came, and the task %+v", indexOf(w.Execution), w.Node, r)
			}
		}
	}
}

// goesOn checks what an execution goes on with.
func (s *Sim) goesOn(r *remoteTask, text string, by protocol.ID) {
	if r.Outcome == protocol.RemoteLost {
		s.Counts.RemoteLost++
		return
	}
	said, ok := s.remote.said[text]
	if !ok || said.task != r.ID || said.lease != r.Lease || by != r.Execution || r.Outcome != protocol.RemoteCompleted && r.Outcome != protocol.RemoteFailed {
		s.fail("18 goes on with another end", "E%d %s with %q, said with lease %d; the task is %s, lease %d", indexOf(by), r.Node, text, said.lease, r.Outcome, r.Lease)
	}
}

// remoteEnded checks that what was answered has come to something.
func (s *Sim) remoteEnded() {
	for id, text := range s.remote.done {
		r := s.db.remoteTask(id)
		e := s.execution(r.Execution)
		try := protocol.RemoteTaskID(r.Execution, r.Node, r.Iteration, r.Try, e.row.Retries)
		switch {
		case r.Outcome != protocol.RemoteCompleted && r.Outcome != protocol.RemoteFailed:
			s.fail("18 an answered end is lost", "%q: the task is %q", text, r.Outcome)
		case e.row.State == protocol.Succeeded && try == id && s.remote.met[id] != 1:
			s.fail("18 an answered end is passed over", "E%d %s: %q", indexOf(r.Execution), r.Node, text)
		}
	}
	for _, r := range s.db.remote {
		if r.Ended.IsZero() {
			s.fail("18 a task outlives its execution", "E%d %s, lease %d", indexOf(r.Execution), r.Node, r.Lease)
		}
	}
}

// RunRemote runs the schedule of a seed with executions that wait for workers of the users' own.
func RunRemote(seed uint64, o Options) *Sim {
	s := newSim(seed, o)
	s.nets = seed%2 == 0
	s.endFaults = 300 + s.n(500)
	n := 1 + s.r.IntN(10)
	for i, f := range plan(seed, s.n(60), 2*s.endFaults/int64(n+1)+1, n) {
		if !o.Without[i] {
			s.plan = append(s.plan, f)
		}
	}
	s.cast(2)
	s.addRemotes(2 + s.r.IntN(2))
	of := len(shapes()) - len(remoteDrawings)
	for range 2 + s.r.IntN(4) {
		s.wants(of + s.r.IntN(len(remoteDrawings)))
	}
	s.endings(o)
	s.steered()
	for range 3 { // whoever has a task, or takes its end, is killed or frozen more often than the plan's faults do it
		s.after(s.n(int(s.endFaults)), func() {
			switch h := s.remote.hosts[s.r.IntN(len(s.remote.hosts))]; s.r.IntN(3) {
			case 0:
				s.pause(h, s.span())
			case 1:
				s.kill(h, "SIGKILL")
			default:
				s.kill(s.gateway, "SIGKILL")
			}
		})
	}
	s.r = rand.New(rand.NewPCG(seed, 1<<34+o.Order))
	for _, h := range s.hosts {
		s.start(h)
	}
	s.loop(6000)
	s.ended()
	s.remoteEnded()
	return s
}

// lost is the leader's look for tasks that were leased too often in vain.
func (s *Sim) lost(p *proc, rec *protocol.Reconciler) {
	if len(s.db.remote) == 0 || s.r.IntN(3) > 0 {
		return
	}
	p.part = "lost"
	_, _, _ = rec.Lost(bg) // what fails here is the next look's
	p.part = ""
}

var remoteRetry = &flow.Retry{MaxAttempts: 6, Backoff: "exponential", InitialDelay: flow.Duration(600 * time.Millisecond), MaxDelay: flow.Duration(4 * time.Second)}

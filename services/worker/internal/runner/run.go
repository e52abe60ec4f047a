package runner

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// run is one delivery being worked on: a protocol.Run with a mailbox.
type run struct {
	r        *Runner
	delivery Delivery
	shard    int
	id       protocol.ID
	text     string // id, as text
	attempt  int
	owns     atomic.Bool // its claim was granted

	mu        sync.Mutex
	queue     []news
	busy      bool               // somebody is at work on this run
	interrupt context.CancelFunc // ends the pure node that is executed now
	lines     lines              // what nodes have logged
	held      int                // bytes of the memory budget; guarded by memory.mu
	stored    map[string]bool    // refs of large values that are in the payloads for sure
	// Bytes of outputs that stand in messages themselves: those of the next report, and those of all reports so far, which the next task carries.
	inlineReport, inlineTask int

	// Touched only by whoever is at work.
	machine *protocol.Run
	pure    []flow.Command // to be executed, one after the other
	calls   map[flow.Key]*call
	sleeps  map[flow.Key]*time.Timer
	out     *outgoing // the last report
}

// newsKind says what happened to a run.
type newsKind uint8

const (
	newsStart newsKind = iota
	newsSession
	newsDied
	newsClaimed
	newsCompleted
	newsCut
	newsConfirmed
	newsCancel
	newsGone
	newsDrain
	newsAbandon
	newsHeld   // a step was not begun: its type is paused
	newsStored // the output of the final report is stored, or can't be
)

// news is one thing that happened; which fields count depends on the kind.
type news struct {
	kind    newsKind
	open    bool
	seq     int
	session protocol.ID
	key     flow.Key
	event   flow.Event
	ref     *protocol.Value // where the event's output is, if not in it
	entry   *protocol.Entry // newsStored
	err     error
	claim   protocol.Claim
	answer  protocol.Answer
	state   protocol.State
	text    string // newsHeld: what the execution is handed back with
}

// tell brings news. The caller works it off itself if nobody is at work; one who must not be kept (inline false) leaves pure nodes to another goroutine.
func (t *run) tell(n news, inline bool) {
	t.mu.Lock()
	t.queue = append(t.queue, n)
	if n.kind == newsCancel || n.kind == newsAbandon || n.kind == newsDied || n.kind == newsGone {
		if t.interrupt != nil {
			t.interrupt()
		}
	}
	if t.busy {
		t.mu.Unlock()
		return
	}
	t.busy = true
	t.mu.Unlock()
	t.work(inline)
}

// step is what is to be done next for a run.
type step uint8

const (
	stepNone step = iota // and nobody is at work any more
	stepNews
	stepPure
)

// next takes the oldest news. With nothing to do the caller's turn ends.
func (t *run) next() (news, step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) > 0 {
		n := t.queue[0]
		t.queue[0] = news{}
		t.queue = t.queue[1:]
		return n, stepNews
	}
	t.queue = nil
	if len(t.pure) > 0 {
		return news{}, stepPure
	}
	t.busy = false
	return news{}, stepNone
}

// work does what there is: news first, then pure nodes one by one.
func (t *run) work(inline bool) {
	for {
		switch n, what := t.next(); what {
		case stepNone:
			return
		case stepNews:
			t.perform(t.apply(n))
		case stepPure:
			if !inline {
				go t.work(true)
				return
			}
			cmd := t.pure[0]
			t.pure[0] = flow.Command{}
			t.pure = t.pure[1:]
			t.compute(cmd)
		}
	}
}

// apply tells the machine.
func (t *run) apply(n news) []protocol.Action {
	m := t.machine
	switch n.kind {
	case newsStart:
		session, open := t.r.window.Current()
		return m.Start(t.r.now(), session, open)
	case newsSession:
		return m.Session(n.session, n.open)
	case newsDied:
		return m.SessionDied(n.session)
	case newsClaimed:
		actions := m.Claimed(n.claim, n.answer)
		t.owns.Store(!m.Owner().IsZero())
		return actions
	case newsCompleted:
		delete(t.calls, n.key)
		delete(t.sleeps, n.key)
		return t.completed(n.key, n.event, n.ref)
	case newsCut:
		delete(t.calls, n.key)
		actions := m.Cut(n.key)
		// The machine holds now until it hears of the window again; the next renewal may be seconds away, and the window open since.
		if session, open := t.r.window.Current(); open && (m.Owner().IsZero() || m.Owner() == session) {
			actions = append(actions, m.Session(session, open)...)
		}
		return actions
	case newsConfirmed:
		return m.Confirmed(n.seq)
	case newsCancel:
		return m.Cancel(n.state)
	case newsGone:
		return m.Gone()
	case newsHeld:
		return m.Hold(n.key, n.text)
	case newsStored:
		t.outputStored(n.entry, n.ref, n.err)
		return nil
	case newsDrain:
		return m.Drain()
	default:
		return m.Abandon()
	}
}

// completed brings a result to the machine. What the engine refuses can only be a mistake of ours: the run is abandoned, so that the platform
// hands the execution out again, counts it, and ends it as poison should it come back each time.
func (t *run) completed(key flow.Key, e flow.Event, ref *protocol.Value) []protocol.Action {
	actions, err := t.machine.CompletedStored(key, e, ref)
	if err != nil {
		t.r.log.Error("the engine refuses a step's result: the run is handed back", "error", err, "execution", t.text, "node", key.Node)
		t.r.metrics.refused.Inc()
		return t.machine.Abandon()
	}
	return actions
}

// perform does what the machine asks for, in order; pure nodes wait until the rest is done.
func (t *run) perform(actions []protocol.Action) {
	for i := range actions {
		a := &actions[i]
		switch a.Op {
		case protocol.DoExecute:
			if text, paused := t.r.pausedType(a.Command.Type); paused && !a.Command.Undo { // what is undone isn't held up
				t.post(news{kind: newsHeld, key: a.Command.Key, text: text})
			} else if a.Command.Kind == flow.KindEffect {
				t.call(a.Command)
			} else {
				t.pure = append(t.pure, a.Command)
			}
		case protocol.DoSleep:
			t.sleep(a.Key, a.Command.Until)
		case protocol.DoCut:
			t.cut(a.Key)
		case protocol.DoClaim:
			t.r.claims.add(t, a.Claim)
		case protocol.DoReport:
			t.report(a.Entry)
		case protocol.DoAck:
			t.delivery.Receipt.Ack()
		case protocol.DoDone:
			t.done()
		}
	}
}

// sleep is a pause in memory.
func (t *run) sleep(key flow.Key, until time.Time) {
	if t.sleeps == nil {
		t.sleeps = map[flow.Key]*time.Timer{}
	}
	t.sleeps[key] = time.AfterFunc(max(0, until.Sub(t.r.now())), func() {
		t.tell(news{kind: newsCompleted, key: key, event: flow.Event{Type: flow.EventMet, At: t.r.now()}}, true)
	})
}

// cut ends what is in flight under the key.
func (t *run) cut(key flow.Key) {
	if c := t.calls[key]; c != nil {
		t.r.metrics.cuts.Inc()
		if t.r.effects.cut(c) { // it had not begun: nobody else will tell
			t.post(news{kind: newsCut, key: key})
		}
		return
	}
	if timer := t.sleeps[key]; timer != nil {
		timer.Stop()
		delete(t.sleeps, key)
		return
	}
	for i, cmd := range t.pure {
		if cmd.Key == key {
			t.pure = append(t.pure[:i:i], t.pure[i+1:]...)
			t.post(news{kind: newsCut, key: key})
			return
		}
	}
}

// post puts news into the mailbox for whoever is at work now: the caller itself.
func (t *run) post(n news) {
	t.mu.Lock()
	t.queue = append(t.queue, n)
	t.mu.Unlock()
}

// done forgets the run.
func (t *run) done() {
	for _, timer := range t.sleeps {
		timer.Stop()
	}
	t.pure, t.sleeps = nil, nil
	if t.out != nil {
		t.out.over.Store(true)
	}
	t.r.forget(t)
}

package protocol

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"flowplatform/services/internal/flow"
)

// Run is one delivery of a task, worked on: the worker's side of the protocol as a value. Methods tell it what happened; each returns what is
// to be done now, in order. It does no I/O, has no clock and no goroutine: the worker's runner drives it over sockets, the simulator over
// its own broker, with the same code deciding. It is not safe for concurrent use.
//
//	Start ──► pure steps at once ──► first effect: Claim ──granted──► Execute ─► Completed ─► Report ─► Confirmed ─► …
//	                │                     └─ stale ─► Ack, Done                                            │
//	                └─► nothing left: Report(final | suspend) ─► Confirmed ─► Ack (if unclaimed), Done ◄───┘
//
// Rules that live here: claim before the first effect, and before anything when the task was redelivered or its execution is a suspect [4];
// no effect starts before what it may depend on is confirmed [6]; a wait of the outside is reported when it opens; one unconfirmed report at most, a repeat has the same bytes [6]; outside the
// window nothing starts and calls are cut, the run holds and is dropped only when its session is dead [5]; suspend when
// nothing is in flight or runnable [7], or go to the pool whose workers must do what is left [7]; yield when stopping [9].
type Run struct {
	task    Task
	state   *flow.State
	home    string // the flow's pool
	number  int64  // drawn for this delivery
	started time.Time

	session   ID   // the session that is open now; zero: none
	open      bool // its trust window, as last told
	owner     ID   // the session under which the attempt was granted
	claiming  ID   // the session under which it was asked for
	mustClaim bool
	acked     bool
	done      bool
	draining  bool
	cancel    State
	pause     string // what it is handed back with (Entry.Pause)

	ready    []waiting // commands that may not start yet
	inflight map[flow.Key]flow.Command

	pending     []recorded // not in any report yet
	log         log
	voids       int        // State.Voids when void commands were last withdrawn
	dirty       bool       // pending holds results of effects
	opened      []flow.Key // steps that have opened a wait of the outside since the last report
	seq         int        // of the last report made
	base        int        // of the last report confirmed
	unconfirmed *Entry
}

type waiting struct {
	cmd  flow.Command
	need int // seq that must be confirmed before it starts
}

// ActionOp is the kind of an Action.
type ActionOp string

// What a Run asks for.
const (
	DoClaim   ActionOp = "claim"   // send Claim until there is an answer or its session is over, then call Claimed
	DoExecute ActionOp = "execute" // run Command once, then call Completed; an effect: look at the window last thing before it, and if it is closed call Cut
	DoSleep   ActionOp = "sleep"   // at Command.Until call Completed with EventMet
	DoCut     ActionOp = "cut"     // end the call of Key in flight; call Cut, or Completed if its result came first
	DoReport  ActionOp = "report"  // publish Entry until it is confirmed or its session is dead, the same bytes each time; then call Confirmed
	DoAck     ActionOp = "ack"     // acknowledge the task
	DoDone    ActionOp = "done"    // forget the run; its slot is free
)

// Action is one thing that a Run asks for.
type Action struct {
	Op      ActionOp
	Claim   Claim
	Command flow.Command
	Key     flow.Key
	Entry   *Entry
}

// NewRun makes the run of a delivery. number is drawn by the worker, unique in its session; events are those of the task's Steps.
func NewRun(task Task, program *flow.Program, record flow.Record, events []flow.Event, number int64, redelivered bool) (*Run, error) {
	st, err := flow.Restore(program, record, events)
	if err != nil {
		return nil, fmt.Errorf("run %s: the recorded steps don't fit the flow's version: %w", task.ID, err)
	}
	return &Run{task: task, state: st, cancel: task.Cancel, home: program.Definition().Settings.Pool, number: number, mustClaim: redelivered || task.Suspect, inflight: map[flow.Key]flow.Command{}, log: newLog(program, task.Steps)}, nil
}

// Execution names the execution that is run.
func (r *Run) Execution() ID { return r.task.ID }

// Number is the run's number.
func (r *Run) Number() int64 { return r.number }

// Owner is the session under which the run owns its attempt; zero: it doesn't.
func (r *Run) Owner() ID { return r.owner }

// Done tells whether the run is over.
func (r *Run) Done() bool { return r.done }

// Start begins. session is the one that is open now (zero: none), open its trust window.
func (r *Run) Start(now time.Time, session ID, open bool) []Action {
	r.started, r.session, r.open = now, session, open
	return r.advance(nil)
}

// Session tells of the session that is open now, and whether its trust window is: at every change of either, and at every renewal.
func (r *Run) Session(session ID, open bool) []Action {
	if r.done {
		return nil
	}
	r.session, r.open = session, open
	var out []Action
	if !open { // whatever we believed before: cutting what is cut already does nothing
		out = r.cutEffects()
	}
	return r.advance(out)
}

// cutEffects ends the calls in flight.
func (r *Run) cutEffects() []Action {
	var out []Action
	for key, cmd := range r.inflight {
		if cmd.Kind == flow.KindEffect && cmd.Op == flow.OpRun {
			out = append(out, Action{Op: DoCut, Key: key})
		}
	}
	sortCuts(out)
	return out
}

// SessionDied tells that a session is over. A run that owns its attempt under it is dropped: the platform hands the execution out again.
func (r *Run) SessionDied(session ID) []Action {
	if r.done {
		return nil
	}
	if r.session == session {
		r.session, r.open = ID{}, false
	}
	if r.claiming == session {
		r.claiming = ID{} // asked again under the next one
	}
	if r.owner != session || session.IsZero() {
		return nil
	}
	return r.drop()
}

// Gone tells that the attempt which the run owned is over, though its session lives [12]: the run is dropped.
func (r *Run) Gone() []Action {
	if r.done || r.owner.IsZero() {
		return nil
	}
	return r.drop()
}

func (r *Run) drop() []Action {
	r.done = true
	var out []Action
	for key := range r.inflight {
		out = append(out, Action{Op: DoCut, Key: key})
	}
	sortCuts(out)
	if !r.acked {
		r.acked = true
		out = append(out, Action{Op: DoAck})
	}
	return append(out, Action{Op: DoDone})
}

// Claimed brings the answer to a claim.
func (r *Run) Claimed(c Claim, a Answer) []Action {
	if r.done || r.claiming != c.Session || !r.owner.IsZero() {
		return nil
	}
	r.claiming = ID{}
	switch a {
	case Granted:
		r.owner, r.acked = c.Session, true
		return r.advance([]Action{{Op: DoAck}})
	case SessionDead:
		if r.session == c.Session {
			r.session, r.open = ID{}, false
		}
		return r.advance(nil)
	default:
		return r.drop()
	}
}

// Completed brings what a command came to: EventSucceeded, EventFailed, EventWaiting, or EventMet for a sleep. Node, Iteration and Try are
// filled in here.
func (r *Run) Completed(key flow.Key, e flow.Event) ([]Action, error) {
	return r.CompletedStored(key, e, nil)
}

// CompletedStored is Completed for an event whose output was stored under ref before, because it is too large to stand in a message: the report names ref.
func (r *Run) CompletedStored(key flow.Key, e flow.Event, ref *Value) ([]Action, error) {
	cmd, ok := r.inflight[key]
	if r.done || !ok {
		return nil, nil
	}
	delete(r.inflight, key)
	e.Node, e.Iteration = key.Node, key.Iteration
	if cmd.Op == flow.OpRun {
		e.Try = cmd.Try
	}
	e.Pure = cmd.Op == flow.OpRun && cmd.Kind == flow.KindPure
	if err := r.state.Apply(e); err != nil {
		return nil, fmt.Errorf("run %s: %w", r.task.ID, err)
	}
	r.note(recorded{e, ref})
	if !e.Pure {
		r.dirty = r.dirty || cmd.Kind == flow.KindEffect
	}
	if e.Type == flow.EventWaiting && e.Wait.Kind != flow.WaitTimer && e.Wait.Kind != flow.WaitRetry {
		r.opened = append(r.opened, key)
	}
	return r.advance(nil), nil
}

// Cut tells that an effect was not begun, or was ended with its outcome unknown, because the window had closed or the run is stopping. It is
// run again, under the same idempotency key, when the window opens, or by the next attempt.
func (r *Run) Cut(key flow.Key) []Action {
	cmd, ok := r.inflight[key]
	if r.done || !ok {
		return nil
	}
	delete(r.inflight, key)
	if r.withdraw(key) { // its round was given up meanwhile: nobody runs it again
		return r.advance(nil)
	}
	r.ready = append(r.ready, waiting{cmd: cmd, need: r.base})
	if cmd.Kind != flow.KindEffect || r.stopping() {
		return r.advance(nil)
	}
	r.open = false // the runner looked later than it told us: hold until Session says more
	return r.advance(r.cutEffects())
}

// Confirmed tells that the broker has confirmed the report with this seq.
func (r *Run) Confirmed(seq int) []Action {
	if r.done || r.unconfirmed == nil || r.unconfirmed.Seq != seq {
		return nil
	}
	e := r.unconfirmed
	r.unconfirmed, r.base = nil, seq
	if e.Kind == EntryStep {
		return r.advance(nil)
	}
	r.done = true
	if r.acked {
		return []Action{{Op: DoDone}}
	}
	r.acked = true
	return []Action{{Op: DoAck}, {Op: DoDone}}
}

// Cancel tells the owner that the execution shall end as Cancelled or TimedOut: calls in flight are cut, nothing new starts.
func (r *Run) Cancel(as State) []Action {
	if r.done || r.owner.IsZero() || r.cancel != "" || r.state.Undoing() { // it ends badly already
		return nil
	}
	r.cancel = as
	return r.advance(r.cutAll())
}

// Drain stops the run at the next step: what is in flight ends and is reported, the rest is handed back [9].
func (r *Run) Drain() []Action {
	if r.done || r.draining {
		return nil
	}
	r.draining = true
	return r.advance(nil)
}

// Hold tells that a step was not begun because its type is paused: what is in flight ends, and the execution is handed back with that pause.
func (r *Run) Hold(key flow.Key, pause string) []Action {
	cmd, ok := r.inflight[key]
	if r.done || !ok {
		return nil
	}
	delete(r.inflight, key)
	if !r.withdraw(key) {
		r.ready = append(r.ready, waiting{cmd: cmd, need: r.base})
		r.pause, r.draining = pause, true
	}
	return r.advance(nil)
}

// Abandon is Drain without patience: calls in flight are cut, their outcome unknown.
func (r *Run) Abandon() []Action {
	if r.done {
		return nil
	}
	r.draining = true
	return r.advance(r.cutAll())
}

func (r *Run) cutAll() []Action {
	var out []Action
	for key, cmd := range r.inflight {
		if cmd.Op == flow.OpRun {
			out = append(out, Action{Op: DoCut, Key: key})
		}
	}
	sortCuts(out)
	return out
}

// stopping: nothing new may start.
func (r *Run) stopping() bool { return r.draining || r.cancel != "" && !r.state.Undoing() }

// advance takes the engine's new commands, starts what may start, and reports what is to be reported.
func (r *Run) advance(out []Action) []Action {
	if r.done {
		return out
	}
	r.take()
	if r.cancel != "" || r.state.Closing() {
		r.giveUp()
		r.take()
	}
	switch {
	case r.stopping():
		r.forgetSleeps(false)
	case r.state.Closing() && !r.state.Undoing(): // what is in flight ends and is recorded
	case r.mustClaim && r.owner.IsZero():
		return r.claim(out)
	default:
		out = r.startReady(out)
	}
	return r.report(out)
}

// take takes the engine's new commands.
func (r *Run) take() {
	for _, cmd := range r.next() {
		need := 0
		switch { // what this command may depend on is confirmed with the next report, or with the one on its way
		case cmd.Kind != flow.KindEffect || cmd.Op != flow.OpRun:
		case r.dirty:
			need = r.seq + 1
		case r.unconfirmed != nil:
			need = r.seq
		}
		r.ready = append(r.ready, waiting{cmd, need})
	}
}

func (r *Run) startReady(out []Action) []Action {
	keep := r.ready[:0]
	for _, w := range r.ready {
		effect := w.cmd.Kind == flow.KindEffect && w.cmd.Op == flow.OpRun
		switch {
		case effect && r.foreign(w.cmd):
			keep = append(keep, w)
		case effect && r.owner.IsZero():
			out = r.claim(out)
			keep = append(keep, w)
		case effect && (!r.open || r.base < w.need):
			keep = append(keep, w)
		default:
			r.inflight[w.cmd.Key] = w.cmd
			op := DoExecute
			if w.cmd.Op == flow.OpSleep {
				op = DoSleep
			}
			out = append(out, Action{Op: op, Command: w.cmd, Key: w.cmd.Key})
		}
	}
	clear(r.ready[len(keep):])
	r.ready = keep
	return out
}

func (r *Run) claim(out []Action) []Action {
	if !r.claiming.IsZero() || r.session.IsZero() {
		return out
	}
	r.claiming = r.session
	c := Claim{Session: r.session, Execution: r.task.ID, Attempt: r.task.Attempt, Run: r.number}
	return append(out, Action{Op: DoClaim, Claim: c})
}

// forgetSleeps drops pauses in memory: they follow from the events, so whoever goes on takes them again.
func (r *Run) forgetSleeps(butUndo bool) {
	for key, cmd := range r.inflight {
		if cmd.Op == flow.OpSleep && !(butUndo && cmd.Undo) {
			delete(r.inflight, key)
		}
	}
}

// report makes the next report, if one is due and none is on its way.
func (r *Run) report(out []Action) []Action {
	if r.unconfirmed != nil || !r.claiming.IsZero() { // whose the attempt is must be known before anything is said of it
		return out
	}
	idle, undoing := len(r.inflight) == 0, r.state.Undoing()
	e := &Entry{Kind: EntryStep}
	switch outcome := r.state.Outcome(); {
	case idle && !undoing && r.state.Failure() != nil:
		e.Kind, e.State, e.Error = EntryFinal, Failed, r.state.Failure()
	case idle && !undoing && (outcome == flow.Succeeded || r.state.Closing() && r.cancel == ""):
		e.Kind, e.State = EntryFinal, Succeeded
		e.Output = encodeOutput(r.state.Output())
	case idle && r.cancel != "" && !r.state.Undoes():
		e.Kind, e.State, e.Error = EntryFinal, r.cancel, endedBy(r.cancel)
		if left := r.state.Undone(); left != "" {
			e.Error.Message += "; " + left
		}
	case idle && r.draining:
		e.Kind, e.Pause = EntryYield, r.pause
	case idle && r.leaves() != "":
		e.Kind, e.Pool = EntryYield, r.leaves()
	case idle && len(r.ready) == 0 && outcome == flow.Suspended:
		e.Kind, e.Undo = EntrySuspend, undoing
		for _, w := range r.state.OpenWaits() {
			entry := waitEntry(w)
			if !slices.Contains(r.opened, w.Key) { // what it opens was made when a report first told of it
				entry.Open = nil
			}
			e.Waits = append(e.Waits, entry)
		}
	case (r.dirty || len(r.opened) > 0) && !r.owner.IsZero():
	default:
		return out
	}
	r.seq++
	e.Execution, e.Attempt, e.Seq, e.Base, e.Started, e.Parent = r.task.ID, r.task.Attempt, r.seq, r.base, r.started, r.task.Parent
	if !r.owner.IsZero() {
		e.Session, e.Run = r.owner, r.number
	}
	switch e.Kind {
	case EntrySuspend:
	case EntryFinal: // what an end leaves open is closed with it
		for _, w := range r.state.OpenWaits() {
			e.Waits = append(e.Waits, waitEntry(w))
		}
	default:
		e.Waits = r.openedWaits()
	}
	if r.fill(e); len(r.pending) == 0 {
		r.opened = nil
	}
	r.unconfirmed = e
	return append(out, Action{Op: DoReport, Entry: e})
}

// openedWaits are those of the open waits that no report has told of yet: the platform opens them at once, so that an approval or a task of the users' own
// worker doesn't stay hidden for as long as a call in a parallel branch takes.
func (r *Run) openedWaits() (out []WaitEntry) {
	if len(r.opened) == 0 {
		return nil
	}
	for _, w := range r.state.OpenWaits() {
		if slices.Contains(r.opened, w.Key) {
			out = append(out, waitEntry(w))
		}
	}
	return out
}

func encodeOutput(v any) json.RawMessage {
	b, err := flow.EncodeValue(v)
	if err != nil { // outputs were made of values that were encoded before
		return json.RawMessage("null")
	}
	return b
}

package protocol

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"flowplatform/services/internal/flow"
)

// Remote tasks: what workers of the users' own do, in any language. A step of task.remote opens a wait; the transaction that opens it makes the task. Whoever polls its queue
// leases it, keeps the lease by heartbeats, and ends it with a letter to the wait. A lease is judged by the database's clock and fenced by a number, so that of two workers
// that both believe to have a task the later one has it.
//
//	waiting ──poll──► leased ──complete, fail──► ended: completed, failed
//	   ▲                │  ╲ heartbeat: the lease begins anew
//	   └─ lease is over ┘
//
// It ends as lost after MaxDeliveries leases that nobody ended, as expired with its wait, and as cancelled with its execution. To lease touches no execution; everything that
// ends a task locks the execution's row first and the task's then.

// Limits of remote tasks.
const (
	MaxDeliveries    = 5              // leases of one task that are over without an end; then it is lost
	DefaultHeartbeat = time.Minute    // within which a worker gives a sign of life
	MinHeartbeat     = time.Second    // shorter leases would end by a slow network
	MaxHeartbeat     = 24 * time.Hour // longer ones would make nobody notice a dead worker
	MaxRemoteQueue   = 64             // characters of a queue's name
	MaxRemoteWorker  = 100            // characters of a worker's name
	MaxPoll          = 16 << 20       // bytes of inputs that one poll gives, unless one alone has more
	MaxProgress      = 4 << 10        // bytes of a progress
)

// RemoteTask is one try of a task.remote step, as workers get it.
type RemoteTask struct {
	ID        ID
	Project   ID
	Execution ID
	Node      string
	Iteration string
	Try       int
	Queue     string
	Priority  string // of the execution
	Input     json.RawMessage
	InputRef  *Value        // in place of Input: it stands in the execution's payloads
	Heartbeat time.Duration // how long a lease lasts without a sign of life
	Created   time.Time
	Due       time.Time // zero: it may take any time

	Lease    int       // number of the last lease, which fences older ones; 0: nobody has leased it yet
	Worker   string    // who has or had it
	Until    time.Time // end of the lease; zero: nobody has leased it yet
	Seen     time.Time // last sign of life
	Progress json.RawMessage

	Ended   time.Time // zero: it hasn't
	Outcome RemoteOutcome
	Answer  []byte // SHA-256 of what it was ended with
}

// RemoteOutcome is how a remote task ended.
type RemoteOutcome string

// The outcomes.
const (
	RemoteCompleted RemoteOutcome = "completed"
	RemoteFailed    RemoteOutcome = "failed"
	RemoteLost      RemoteOutcome = "lost"      // MaxDeliveries leases ended without a sign of life
	RemoteExpired   RemoteOutcome = "expired"   // the node's timeout
	RemoteCancelled RemoteOutcome = "cancelled" // its execution ended otherwise
)

// RemoteOpen is what a wait of the kind remote makes (flow.Wait.Open).
type RemoteOpen struct {
	Queue     string          `json:"queue"`
	Try       int             `json:"try"`
	Heartbeat int64           `json:"heartbeat"` // milliseconds
	Input     json.RawMessage `json:"input,omitempty"`
	InputRef  *Value          `json:"ref,omitempty"`
}

// RemoteTaskID is the id of a step's task, and the key of its wait: a step that is run again, by another worker of ours, makes no second one. Another try is another task, and so
// is what a user's retry of the execution begins.
func RemoteTaskID(execution ID, node, iteration string, try, retries int) (id ID) {
	h := sha256.New()
	h.Write(execution[:])
	h.Write([]byte(node + "\x00" + iteration + "\x00"))
	h.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(try)), uint32(retries)))
	copy(id[:], h.Sum(nil))
	copy(id[:6], execution[:6]) // of its execution's time: what is deleted together lies together
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return id
}

// openRemote makes the task of a wait that opens. What can't be read makes none, and the wait ends by its execution; our own node wrote it.
func (b *batch) openRemote(r *Row, w *WaitEntry) {
	var o RemoteOpen
	id, err := ParseID(w.Key)
	if len(w.Open) == 0 || err != nil || json.Unmarshal(w.Open, &o) != nil {
		return
	}
	t := RemoteTask{ID: id, Project: r.Project, Execution: r.ID, Node: w.Node, Iteration: w.Iteration, Try: o.Try, Queue: o.Queue, Priority: r.Priority, Input: o.Input, InputRef: o.InputRef,
		Heartbeat: time.Duration(o.Heartbeat) * time.Millisecond, Created: b.now, Due: w.Due}
	b.changes.RemoteMade = append(b.changes.RemoteMade, t)
	b.remote = append(b.remote, News{Execution: r.ID, Queue: o.Queue, At: b.now})
}

// expireRemote ends the task of a wait whose time came before its letter.
func (b *batch) expireRemote(w *OpenWait) {
	if id, err := ParseID(w.Key); err == nil {
		b.changes.RemoteEnded = append(b.changes.RemoteEnded, RemoteTask{ID: id, Ended: b.now, Outcome: RemoteExpired})
	}
}

// expired is why a remote step failed whose time came first.
func (w *OpenWait) expired() *flow.Failure {
	return &flow.Failure{Code: "timeout", Node: w.Node, Retryable: true, Message: "no remote worker completed the task within the node's timeout: raise it, or look at the workers that poll its queue"}
}

// free tells whether a poll may lease it.
func (t *RemoteTask) free(now time.Time) bool {
	return t.Ended.IsZero() && t.Lease < MaxDeliveries && !t.Until.After(now)
}

// lost tells whether all its leases are over.
func (t *RemoteTask) lost(now time.Time) bool {
	return t.Ended.IsZero() && t.Lease >= MaxDeliveries && !t.Until.After(now)
}

func (t *RemoteTask) inputSize() int {
	if t.InputRef != nil {
		return t.InputRef.Size
	}
	return len(t.Input)
}

func (t *RemoteTask) lease(worker string, now time.Time) {
	t.Lease++
	t.Worker, t.Until, t.Seen, t.Progress = worker, now.Add(t.Heartbeat), now, nil
}

// RemoteVerdict is what became of a worker's word.
type RemoteVerdict string

// The verdicts of RemoteVerdict.
const (
	SaidDone    RemoteVerdict = "done"    // now, or by the same call before
	SaidUnknown RemoteVerdict = "unknown" // there is no such task
	SaidTaken   RemoteVerdict = "taken"   // another lease began since
	SaidOver    RemoteVerdict = "over"    // the task has ended otherwise
)

// holds judges who speaks: a lease that is over is as good as any, until somebody else has the task.
func (t *RemoteTask) holds(lease int) RemoteVerdict {
	switch {
	case lease != t.Lease || lease == 0:
		return SaidTaken
	case !t.Ended.IsZero():
		return SaidOver
	}
	return SaidDone
}

// PollRemote leases tasks of a queue: those whose lease is over and those that wait, by priority and then by age.
func PollRemote(ctx context.Context, tx Tx, project ID, queue, worker string, limit int) ([]RemoteTask, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	found, err := tx.FreeRemote(ctx, project, queue, limit)
	if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	var out []RemoteTask
	size := 0
	for _, t := range found {
		if size += t.inputSize(); size > MaxPoll && len(out) > 0 {
			break
		}
		if t.free(now) {
			t.lease(worker, now)
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	if err := tx.Write(ctx, &Changes{RemoteHeld: out}); err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	return out, nil
}

// BeatRemote lets a lease begin anew. The task tells, when the verdict is SaidOver, how it ended.
func BeatRemote(ctx context.Context, tx Tx, id ID, lease int, progress json.RawMessage) (RemoteTask, RemoteVerdict, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return RemoteTask{}, "", fmt.Errorf("heartbeat: %w", err)
	}
	found, err := tx.RemoteTasks(ctx, []ID{id}, true)
	if err != nil {
		return RemoteTask{}, "", fmt.Errorf("heartbeat: %w", err)
	}
	if len(found) == 0 {
		return RemoteTask{}, SaidUnknown, nil
	}
	t := found[0]
	if v := t.holds(lease); v != SaidDone {
		return t, v, nil
	}
	t.Until, t.Seen = now.Add(t.Heartbeat), now
	if progress != nil {
		t.Progress = progress
	}
	if err := tx.Write(ctx, &Changes{RemoteHeld: []RemoteTask{t}}); err != nil {
		return RemoteTask{}, "", fmt.Errorf("heartbeat: %w", err)
	}
	return t, SaidDone, nil
}

// RemoteEnd is what a task ends with: an output, or an error.
type RemoteEnd struct {
	Task      ID
	Lease     int
	Output    json.RawMessage
	OutputRef *Value // in place of Output: it stands in the execution's payloads
	Error     *flow.Failure
}

// digest names an end, so that the same one again is known.
func (e *RemoteEnd) digest() []byte {
	h := sha256.New()
	switch {
	case e.Error != nil:
		b, _ := json.Marshal(e.Error) // texts and a flag
		h.Write(append([]byte("error "), b...))
	case e.OutputRef != nil:
		h.Write([]byte("ref " + e.OutputRef.Ref))
	default:
		h.Write(append([]byte("output "), e.Output...))
	}
	return h.Sum(nil)
}

func (e *RemoteEnd) outcome() RemoteOutcome {
	if e.Error != nil {
		return RemoteFailed
	}
	return RemoteCompleted
}

// EndRemote ends a task by the word of its worker: in one transaction the task's row ends, and the letter to the step's wait is stored, or taken where the execution waits. The same
// end again is SaidDone and changes nothing. The task is that which was ended, or which stood in the way.
func EndRemote(ctx context.Context, tx Tx, e RemoteEnd) (Outcome, RemoteTask, RemoteVerdict, error) {
	sum := e.digest()
	return endRemote(ctx, tx, e, e.outcome(), sum, func(t *RemoteTask, _ time.Time) RemoteVerdict {
		v := t.holds(e.Lease)
		if v == SaidOver && t.Outcome == e.outcome() && bytes.Equal(t.Answer, sum) {
			return saidAgain
		}
		return v
	})
}

// LoseRemote ends a task that was leased MaxDeliveries times in vain; it does nothing when that isn't so (any more).
func LoseRemote(ctx context.Context, tx Tx, id ID) (Outcome, error) {
	e := RemoteEnd{Task: id, Error: &flow.Failure{Code: "remote-lost", Retryable: true,
		Message: fmt.Sprintf("the task was given to remote workers %d times, and none of them completed it or sent a heartbeat in time: they die of it, or take longer than the heartbeat allows without sending one", MaxDeliveries)}}
	out, _, _, err := endRemote(ctx, tx, e, RemoteLost, nil, func(t *RemoteTask, now time.Time) RemoteVerdict {
		if t.lost(now) {
			return SaidDone
		}
		return SaidOver
	})
	return out, err
}

// saidAgain is SaidDone without anything left to write.
const saidAgain RemoteVerdict = "again"

func endRemote(ctx context.Context, tx Tx, e RemoteEnd, as RemoteOutcome, sum []byte, judge func(*RemoteTask, time.Time) RemoteVerdict) (Outcome, RemoteTask, RemoteVerdict, error) {
	fail := func(err error) (Outcome, RemoteTask, RemoteVerdict, error) {
		return Outcome{}, RemoteTask{}, "", fmt.Errorf("remote task: %w", err)
	}
	found, err := tx.RemoteTasks(ctx, []ID{e.Task}, false) // only to know whose it is: nothing of it changes but under its execution's lock
	if err != nil {
		return fail(err)
	}
	if len(found) == 0 {
		return Outcome{}, RemoteTask{}, SaidUnknown, nil
	}
	t := found[0]
	if e.Error != nil { // a copy: whoever calls may say the same end again, and its digest is of what was said
		f := *e.Error
		f.Node = t.Node
		e.Error = &f
	}
	l := Letter{ID: t.ID, Project: t.Project, Execution: t.Execution, Kind: flow.WaitRemote, Key: t.ID.String(), Output: e.Output, OutputRef: e.OutputRef, Error: e.Error, Sender: t.Worker, Once: true}
	b, d, err := deliver(ctx, tx, []Letter{l})
	if err != nil {
		return fail(err)
	}
	if found, err = tx.RemoteTasks(ctx, []ID{e.Task}, true); err != nil {
		return fail(err)
	}
	if len(found) == 0 {
		return Outcome{}, RemoteTask{}, SaidUnknown, nil
	}
	t = found[0]
	switch v := judge(&t, b.now); {
	case v == saidAgain:
		return Outcome{}, t, SaidDone, nil
	case v != SaidDone:
		return Outcome{}, t, v, nil
	case d[0].Status == LetterRefused: // its time has come, which the timers are about to see
		return Outcome{}, t, SaidOver, nil
	}
	t.Ended, t.Outcome, t.Answer = b.now, as, sum
	b.changes.RemoteEnded = append(b.changes.RemoteEnded, t)
	if err := b.write(ctx, tx); err != nil {
		return fail(err)
	}
	return b.out, t, SaidDone, nil
}

// Lost ends tasks that were leased too often in vain. It tells what is to be done after COMMIT, and how many it ended.
func (r *Reconciler) Lost(ctx context.Context) (out Outcome, ended int, err error) {
	ids, err := r.Store.LostRemote(ctx, r.limit())
	for _, id := range ids { // one each: there are few
		var one Outcome
		if err = r.Store.Txn(ctx, "lost", func(tx Tx) (err error) {
			one, err = LoseRemote(ctx, tx, id)
			return err
		}); err != nil {
			break
		}
		if len(one.News) > 0 {
			ended++
		}
		out.News, out.HandOut, out.Mail = append(out.News, one.News...), append(out.HandOut, one.HandOut...), append(out.Mail, one.Mail...)
	}
	if len(out.HandOut) > 0 {
		if _, handErr := HandOut(ctx, r.Store, r.Publisher, out.HandOut); err == nil {
			err = handErr
		}
	}
	return out, ended, err
}

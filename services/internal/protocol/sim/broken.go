package sim

import (
	"context"
	"slices"

	"flowplatform/services/internal/protocol"
)

// Broken breaks one rule of the protocol on purpose, each at a seam: the code under test has no switches. A test sees that each is caught.
type Broken struct {
	SkipClaim          bool // acts without asking
	ClaimWaiting       bool // a row that waits may be claimed
	GiveUpClaim        bool // a claim without an answer is dropped and the task handed back
	IgnoreWindow       bool // acts whatever the window says
	DropOnClosed       bool // a run is dropped because its window closed
	IgnoreSeq          bool // a report's number is not looked at
	IgnoreOwner        bool // a report's owner and run are not looked at
	RecoverBeside      bool // recover is applied beside the report queue
	RecoverAllShards   bool // recover takes other shards' rows
	WakeSameAttempt    bool // a wake doesn't raise the attempt
	CancelOnlyRecover  bool // suspend and yield don't look at the flag
	JudgeBlind         bool // a failed look doesn't break the sight
	AnswerBeforeCommit bool // a renewal is answered before it is committed
	CancelOverBatch    bool // basic.cancel over unacknowledged reports
	ClaimBySession     bool // a claim is known by its session alone, whatever the run
	JudgeOldLook       bool // a session is marked dead whatever its beat is by then
	EndWithoutLock     bool // the sessions of the lock file are ended before its lock is had
	IgnoreGap          bool // a report is applied though a confirmed one before it is missing
	SuspectsInCompany  bool // a suspect runs beside others
	ClaimPaused        bool // a claim doesn't look at pauses
	RetrySameAttempt   bool // a user's retry doesn't raise the attempt
	ResumeSameAttempt  bool // a resume doesn't raise the attempt, though the task may have been refused
	StayInPool         bool // what goes to another pool comes back to the same queue
	EndUndoing         bool // a cancelled execution ends when its owner lets go, whatever it has to undo
	FireNoRow          bool // an instant that was fired may be fired again
	FireUnfit          bool // a plan fires whatever its schedule has become
	FireBlind          bool // a plan fires whatever the newest term is and whatever is due by now
	SendWithoutKey     bool // a letter to whoever waits is sent without the lock on its key
	SuspendBlind       bool // a suspend doesn't look for letters that came first
	EndWithoutLetter   bool // an end leaves no letter: its caller is told beside it, once
	WakeOldRow         bool // a wake is a bare UPDATE: it decides on the row as it was before the lock was had
	RemoteBlind        bool // a completion doesn't look at its lease
	RemoteAgain        bool // a poll doesn't look whether a task has ended
	RemoteApart        bool // the end of a remote task and its letter are committed one after the other
	KeepGone           bool // a renewal's word that an attempt is over is not heard
	FreeBeside         bool // slots are freed beside the transaction that ends their execution, not by it
	AdmitWithoutKey    bool // whoever lets others in doesn't lock the keys
	ArriveWithoutKey   bool // starts take room without the locks of the keys
	ReleaseWithoutLock bool // a debounce is released on rows that are not locked
	CatchAgain         bool // whoever catches a failure doesn't look whether it is still there
	EndWithoutFailure  bool // a bad end leaves no failure: its error flows are started beside it, once
}

// brokenTx tells lies about rows to the transaction that it wraps.
type brokenTx struct {
	protocol.Tx
	b     *Broken
	t     *txn
	shard int // that the transaction believes in

	hidden map[protocol.ID]string // pauses
}

func (b *Broken) wrap(t *txn) protocol.Tx {
	if *b == (Broken{}) {
		return t
	}
	return &brokenTx{Tx: t, b: b, t: t}
}

func (x *brokenTx) Lock(ctx context.Context, ids []protocol.ID) ([]protocol.Row, error) {
	if x.b.ReleaseWithoutLock && x.t.name == "release" {
		return x.unlocked(ids)
	}
	seen := map[protocol.ID]protocol.State{}
	for _, id := range ids {
		if e := x.t.s.execution(id); e != nil {
			seen[id] = e.row.State
		}
	}
	rows, err := x.Tx.Lock(ctx, ids)
	for i := range rows {
		r := &rows[i]
		if x.b.WakeOldRow && x.t.name == "letters" && r.State == protocol.Waiting && seen[r.ID] != protocol.Waiting {
			r.State = seen[r.ID] // nothing is written of it: a letter that wakes nobody touches no row
		}
		x.lie(r)
		switch {
		case x.b.ClaimWaiting && x.t.name == "claims" && r.State == protocol.Waiting:
			r.State = protocol.Queued
		case x.b.IgnoreSeq && x.t.name == "collect":
			r.Seq = 0
		case x.b.IgnoreOwner && x.t.name == "collect":
			r.Owner, r.Run = protocol.ID{}, 0
		case x.b.EndUndoing && x.t.name == "collect":
			r.Undoes = false
		case x.b.RecoverAllShards && x.t.name == "collect":
			r.Shard = x.shard
		case x.b.CancelOnlyRecover && x.t.name == "collect" && x.t.s.session(r.Owner) != nil && x.t.s.session(r.Owner).Alive:
			r.Cancel = ""
		case x.b.ClaimBySession && x.t.name == "claims":
			for _, c := range x.t.claims {
				if c.Execution == r.ID && c.Session == r.Owner {
					r.Run = c.Run
				}
			}
		}
	}
	return rows, err
}

func (x *brokenTx) EndSessions(ctx context.Context, ends []protocol.SessionEnd) ([]protocol.ID, error) {
	if x.b.JudgeOldLook && x.t.name == "judge" {
		ends = slices.Clone(ends)
		for i := range ends {
			ends[i].Beat = -1
		}
	}
	return x.Tx.EndSessions(ctx, ends)
}

func (x *brokenTx) Owned(ctx context.Context, session protocol.ID, shard, limit int) ([]protocol.ID, error) {
	x.shard = shard
	out, err := x.Tx.Owned(ctx, session, shard, limit)
	if err == nil && x.b.RecoverAllShards {
		for k := range shards {
			if k == shard {
				continue
			}
			more, err := x.Tx.Owned(ctx, session, k, limit)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
	}
	return out, err
}

func (x *brokenTx) Write(ctx context.Context, c *protocol.Changes) error {
	if x.b.WakeSameAttempt && x.t.name == "timers" {
		for i := range c.Rows {
			c.Rows[i].Attempt--
			c.Rows[i].Handed = min(c.Rows[i].Handed, c.Rows[i].Attempt-1)
		}
	}
	x.twist(c.Rows)
	x.b.forget(c)
	x.b.silence(c)
	c = x.apart(c)
	for i := range c.Rows {
		c.Rows[i].Shard = indexOf(c.Rows[i].ID) % shards
	}
	return x.Tx.Write(ctx, c)
}

// entries is what a collector reads of a batch.
func (b *Broken) entries(in []protocol.Entry) []protocol.Entry {
	if !b.IgnoreSeq && !b.IgnoreOwner && !b.IgnoreGap && !b.StayInPool {
		return in
	}
	out := make([]protocol.Entry, len(in))
	for i, e := range in {
		if b.IgnoreSeq || b.IgnoreGap {
			e.Base = 0
		}
		if b.StayInPool {
			e.Pool = ""
		}
		if b.IgnoreOwner && e.Kind != protocol.EntryRecover {
			e.Session, e.Run = protocol.ID{}, 0
		}
		out[i] = e
	}
	return out
}

func (b *Broken) gone(runs []int64) []int64 {
	if b.KeepGone {
		return nil
	}
	return runs
}

// blind shows the last look again when a look fails.
type blind struct {
	store
	last *[]protocol.Session
}

func (b blind) LiveSessions(ctx context.Context) ([]protocol.Session, error) {
	out, err := b.store.LiveSessions(ctx)
	if err != nil {
		return *b.last, nil
	}
	*b.last = out
	return out, nil
}

func (b *Broken) sight(st store) protocol.Store {
	if b.JudgeBlind {
		return blind{st, new([]protocol.Session)}
	}
	return st
}

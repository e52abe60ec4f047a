package protocol

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"flowplatform/services/internal/flow"
)

// ErrUnknown says that a commit's outcome is not known: the transaction may have happened. Read the rows before you conclude anything.
var ErrUnknown = errors.New("the outcome of the commit is unknown")

// ErrData says that a value was refused by the database (SQLSTATE class 22 or 23): the batch is bisected and one entry parked.
var ErrData = errors.New("the database refuses a value of this batch")

// Store is the truth, on the primary.
type Store interface {
	// Txn runs fn in one READ COMMITTED transaction. Deadlocks and lock timeouts (40P01, 55P03, 40001) run fn again, a few times.
	// An error of fn rolls back and is returned. A COMMIT is never given a context that can end; ErrUnknown when its answer was lost.
	Txn(ctx context.Context, name string, fn func(Tx) error) error

	// Tasks rebuilds the tasks of those of the ids that are queued, not held and not owned. Others are left out.
	Tasks(ctx context.Context, ids []ID) ([]Task, error)
	// MarkHanded raises handed to the attempts given, for rows that are still queued; rows locked by others are left out.
	MarkHanded(ctx context.Context, tasks []Handed) error
	// Unhanded lists rows queued for at least age (database's clock) that are not held and have handed < attempt, oldest first.
	Unhanded(ctx context.Context, age time.Duration, limit int) ([]ID, error)
	// DueWaits lists open waits of waiting executions that are due within the horizon, soonest first, with the database's clock.
	DueWaits(ctx context.Context, horizon time.Duration, limit int) (waits []OpenWait, now time.Time, err error)
	// Overdue lists executions that are not final, not flagged for cancel and past their deadline.
	Overdue(ctx context.Context, limit int) ([]ID, error)
	// Mail lists executions with letters that have been pending for at least age, oldest first.
	Mail(ctx context.Context, age time.Duration, limit int) ([]ID, error)
	// LostRemote lists remote tasks that were leased MaxDeliveries times, and the last lease is over.
	LostRemote(ctx context.Context, limit int) ([]ID, error)
	// DueHolds lists open waits of executions that are held by a rate or a debounce and due within the horizon, soonest first, with the database's clock.
	DueHolds(ctx context.Context, horizon time.Duration, limit int) (waits []OpenWait, now time.Time, err error)
	// Roomy lists keys of flow control, in their order after one, at which somebody waits though there may be room.
	Roomy(ctx context.Context, after string, limit int) ([]string, error)
	// LiveSessions lists the sessions that are alive, with their beats.
	LiveSessions(ctx context.Context) ([]Session, error)
	// DeadOwners lists dead sessions that still own executions.
	DeadOwners(ctx context.Context, limit int) ([]ID, error)
}

// Handed is an attempt whose task the broker has confirmed.
type Handed struct {
	ID      ID
	Attempt int
}

// Tx is one transaction. Every method is one statement (or one round trip), so that what it reads is what was committed when it began.
type Tx interface {
	// Now is the database's clock.
	Now(ctx context.Context) (time.Time, error)
	// Lock locks the executions by id, in the order of their ids, and returns those that exist, as they are now. Duplicates are fine.
	Lock(ctx context.Context, ids []ID) ([]Row, error)
	// Alive reads (without locking) which of the sessions are alive.
	Alive(ctx context.Context, sessions []ID) (map[ID]bool, error)
	// Owned lists executions of the shard that the session owns, without locking them.
	Owned(ctx context.Context, session ID, shard int, limit int) ([]ID, error)
	// OpenWaits lists the open waits of executions that are locked.
	OpenWaits(ctx context.Context, executions []ID) ([]OpenWait, error)
	// LockKeys takes locks on names until the transaction ends; they are sorted.
	LockKeys(ctx context.Context, names []string) error
	// Waiters lists for each key executions that are waiting and have an open wait for it, longest first, some of each, without locking them.
	Waiters(ctx context.Context, keys []Waiter, each int) (map[Waiter][]ID, error)
	// Known tells of each letter what is stored.
	Known(ctx context.Context, letters []Letter) ([]KnownLetter, error)
	// Letters lists untaken letters that may meet the waits, which needn't be written yet: those to the wait's execution, and those to whoever waits for its key that
	// have not expired, the oldest, no more than there are waits for it.
	Letters(ctx context.Context, waits []OpenWait) ([]Letter, error)
	// KnownCall tells what is known of a call of an execution that is locked.
	KnownCall(ctx context.Context, c Call) (KnownCall, error)
	// Pending lists the pending letters to executions: ID, Execution and Kind.
	Pending(ctx context.Context, executions []ID) ([]Letter, error)
	// FreeRemote locks tasks of a queue that may be leased, and returns them by priority and age, no more than limit; those that others hold locked are left out.
	FreeRemote(ctx context.Context, project ID, queue string, limit int) ([]RemoteTask, error)
	// RemoteTasks reads remote tasks by id, and locks them if that is asked for.
	RemoteTasks(ctx context.Context, ids []ID, lock bool) ([]RemoteTask, error)
	// Children lists children of executions that are waited for, not final and not flagged, without locking them.
	Children(ctx context.Context, parents []ID, limit int) ([]Child, error)
	// Pauses reads what is paused beyond single executions, of the flows given.
	Pauses(ctx context.Context, flows []ID) (Pauses, error)
	// Standing answers what flow control asks; the keys that matter are locked.
	Standing(ctx context.Context, ask Ask) (Standing, error)
	// Slots lists the slots of executions, by execution and key.
	Slots(ctx context.Context, executions []ID) ([]Slot, error)
	// Write applies everything that a batch has decided, for rows that are locked.
	Write(ctx context.Context, c *Changes) error

	// OpenSession inserts a session that is alive with beat 1; it does nothing when the id exists already.
	OpenSession(ctx context.Context, s OpenSessionRequest) error
	// Beat raises the beat of those sessions that are alive and returns them, with what the platform asks of each.
	Beat(ctx context.Context, sessions []ID) (map[ID]Orders, error)
	// EndSessions marks sessions dead that are alive (and stand at the beat given, unless it is -1), and returns those that it ended.
	EndSessions(ctx context.Context, ends []SessionEnd) ([]ID, error)
	// Runs lists what each session owns, without locking it.
	Runs(ctx context.Context, sessions []ID) (map[ID][]Orphan, error)
	// Cancels lists, for each session, the executions that it owns and that are flagged, or paused: those have no As.
	Cancels(ctx context.Context, sessions []ID) (map[ID][]CancelOrder, error)
}

// Orders is what the platform asks of a worker, beside cancels.
type Orders struct {
	Drain       bool              // stop in order
	Slots       int               // use so many; 0: your own limit
	PausedTypes map[string]string // as in SessionResponse
	PausedPool  string
}

// SessionEnd names a session that is to be marked dead.
type SessionEnd struct {
	ID     ID
	Beat   int64 // -1: whatever it is
	Reason string
}

// Changes is what one transaction writes. All rows named in it are locked by the transaction.
type Changes struct {
	Rows    []Row // written whole (the columns of Row)
	Reports []StoredReport
	Results []FinalResult
	Opened  []OpenWait   // inserted; one that exists for (execution, node, iteration) and is open stays as it is
	Met     []OpenWait   // Met is set where the wait is open
	Closed  []ID         // ended in their first attempt with waits open
	Dead    []DeadLetter // a zero ID or At is filled in by the store
	Posted  []Letter     // inserted as they are; one whose id exists stays as it is. The executions that they are to need not be locked
	Taken   []Letter     // stored ones that were taken: Execution and Taken are written. One that was taken before is an error
	Called  []Call       // written down; their executions know from now on that they have children
	Looked  []ID         // letters that are pending no more
	// Failures are inserted where an error trigger asks for such ends; one that is there stays as it is.
	Failures []Failure
	// RemoteMade are inserted; one whose id exists stays as it is. RemoteHeld are locked ones: what a lease says of them is written. RemoteEnded end where they haven't yet. With
	// the waits of an execution that ends its remote tasks end too, as cancelled.
	RemoteMade, RemoteHeld, RemoteEnded []RemoteTask
	Limits                              *LimitChanges
	// Restarted are rows whose deadline begins anew: as long from now as it was from their accept.
	Restarted []ID
}

// StoredReport is one row of the reports table; /steps and tasks are made from it.
type StoredReport struct {
	Execution ID
	Attempt   int
	Seq       int // 0: written by the platform itself (a wake)
	Events    json.RawMessage
	Whole     bool            // older reports of the execution lose their events: these replace them. What was logged with them stays
	Logs      json.RawMessage // JSON list of LogLine; nil: none
}

// FinalResult is what an execution ended with.
type FinalResult struct {
	ID        ID
	Output    json.RawMessage // nil: none
	OutputRef *Value          // in place of Output: it stands in the payloads
	Error     *flow.Failure
}

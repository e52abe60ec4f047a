package protocol

import (
	"encoding/json"
	"time"

	"flowplatform/services/internal/flow"
)

// SchemaVersion of the messages. A reader hands back what is newer than it knows, and parks what it can't read.
const SchemaVersion = 1

// Task asks a worker to advance an execution. It is rebuilt from the row and its reports at every hand-out.
type Task struct {
	V         int               `json:"v"`
	ID        ID                `json:"id"`
	Attempt   int               `json:"attempt"`
	Shard     int               `json:"shard"`
	Project   ID                `json:"project,omitzero"`
	Flow      ID                `json:"flow"`
	Version   int               `json:"version"`
	Pool      string            `json:"pool,omitempty"`
	Priority  string            `json:"priority,omitempty"`
	Trigger   string            `json:"trigger,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	CreatedAt time.Time         `json:"createdAt"`
	Deadline  time.Time         `json:"deadline,omitzero"`
	Parent    ID                `json:"parent,omitzero"`
	Suspect   bool              `json:"suspect,omitempty"` // runs alone on its worker
	Cancel    State             `json:"cancel,omitempty"`  // it ends so; it is handed out to undo what it did
	Input     json.RawMessage   `json:"input,omitempty"`
	InputRef  *Value            `json:"inputRef,omitempty"`
	// Steps holds the events of all reports so far, one raw JSON list of flow events per report, oldest first.
	Steps []json.RawMessage `json:"steps,omitempty"`
}

// EntryKind says what a report's entry asks of the row.
type EntryKind string

// Kinds of entries. All but EntryStep and EntryRecover end the attempt.
const (
	EntryStep    EntryKind = "step"
	EntrySuspend EntryKind = "suspend"
	EntryYield   EntryKind = "yield"
	EntryFinal   EntryKind = "final"
	EntryRecover EntryKind = "recover" // names a dead session in Session, and no execution
)

// Entry is one execution's part of a report.
type Entry struct {
	Kind      EntryKind       `json:"kind"`
	Execution ID              `json:"execution,omitzero"`
	Attempt   int             `json:"attempt,omitempty"`
	Session   ID              `json:"session,omitzero"` // zero: the run never claimed
	Run       int64           `json:"run,omitempty"`    // zero: the run never claimed
	Seq       int             `json:"seq,omitempty"`
	Base      int             `json:"base,omitempty"`      // seq of the run's last confirmed report
	Events    json.RawMessage `json:"events,omitempty"`    // JSON list of flow events
	Whole     bool            `json:"whole,omitempty"`     // Events are a checkpoint: they replace all that was recorded before
	State     State           `json:"state,omitempty"`     // EntryFinal
	Output    json.RawMessage `json:"output,omitempty"`    // EntryFinal
	OutputRef *Value          `json:"outputRef,omitempty"` // EntryFinal: where the output is, when it is larger than MaxInline
	Error     *flow.Failure   `json:"error,omitempty"`     // EntryFinal
	Waits     []WaitEntry     `json:"waits,omitempty"`     // EntrySuspend, EntryFinal: everything that is open; EntryStep, EntryYield: what has been opened since the last report, but for pauses
	Pause     string          `json:"pause,omitempty"`     // EntryYield: the next step is of a type that is paused (NodeTypePaused)
	Started   time.Time       `json:"started,omitzero"`    // when the run began, for people
	Parent    ID              `json:"parent,omitzero"`
	Undo      bool            `json:"undo,omitempty"` // EntrySuspend: while what the execution did is being undone
	Pool      string          `json:"pool,omitempty"` // EntryYield: whose queue the execution goes to; "": it stays in the one that it is in
	Logs      json.RawMessage `json:"logs,omitempty"` // JSON list of LogLine: what nodes have logged since the last report. For people; no promise holds for it
}

// LogLine is one line that a node has logged.
type LogLine struct {
	At        time.Time       `json:"at"`
	Level     string          `json:"l"` // "debug", "info", "warn", "error"
	Node      string          `json:"n"`
	Iteration string          `json:"i,omitempty"`
	Try       int             `json:"try,omitempty"`
	Message   string          `json:"m"`
	Fields    json.RawMessage `json:"f,omitempty"` // JSON object
}

// WaitEntry is an open wait in a suspend.
type WaitEntry struct {
	Node      string    `json:"node"`
	Iteration string    `json:"iteration,omitempty"`
	Kind      string    `json:"kind"`
	Key       string    `json:"key,omitempty"`
	Reason    string    `json:"reason"`
	Due       time.Time `json:"due,omitzero"`
	// Open is what the platform makes when the wait opens (flow.Wait.Open).
	Open json.RawMessage `json:"o,omitempty"`
}

func waitEntry(w flow.OpenWait) WaitEntry {
	return WaitEntry{Node: w.Key.Node, Iteration: w.Key.Iteration, Kind: w.Wait.Kind, Key: w.Wait.Key, Reason: w.Wait.Reason, Due: w.Wait.Due, Open: w.Wait.Open}
}

// Report is the message with which a worker says what happened, of many executions at once.
type Report struct {
	V       int     `json:"v"`
	Shard   int     `json:"shard"`
	Entries []Entry `json:"entries"`
}

// Answer to a claim.
type Answer string

// The answers. No answer at all means: ask again.
const (
	Granted     Answer = "granted"
	Stale       Answer = "stale"        // drop the run, acknowledge the task
	SessionDead Answer = "session_dead" // claim again under the next session
)

// Claim asks for an attempt, before its first effect.
type Claim struct {
	Session   ID    `json:"session"`
	Execution ID    `json:"execution"`
	Attempt   int   `json:"attempt"`
	Run       int64 `json:"run"`
}

// ClaimsRequest is the body of POST /internal/v1/claims; the answers come in the order of the claims.
type ClaimsRequest struct {
	Claims []Claim `json:"claims"`
}

// ClaimsResponse answers a ClaimsRequest.
type ClaimsResponse struct {
	Answers []Answer `json:"answers"`
}

// OpenSessionRequest is the body of POST /internal/v1/sessions/open. Ended names sessions whose death the caller has proven by their lock file.
type OpenSessionRequest struct {
	Session    ID     `json:"session"`
	Worker     string `json:"worker"`
	Pool       string `json:"pool"`
	Host       string `json:"host,omitempty"`
	Version    string `json:"version,omitempty"`
	Allocation string `json:"allocation,omitempty"`
	Slots      int    `json:"slots"`
	Weight     int    `json:"weight"`
	Ended      []ID   `json:"ended,omitempty"`
}

// RenewRequest is the body of POST /internal/v1/sessions/renew. Runs lists every run that the worker holds, claimed or being claimed; Owned those whose claim
// was granted.
type RenewRequest struct {
	Session ID      `json:"session"`
	Runs    []int64 `json:"runs,omitempty"`
	Owned   []int64 `json:"owned,omitempty"`
}

// SessionResponse answers open and renew. It is sent after COMMIT.
type SessionResponse struct {
	Alive   bool          `json:"alive"`
	LeaseMS int64         `json:"leaseMs"`
	Cancels []CancelOrder `json:"cancels,omitempty"`
	// Pauses are executions of the session that are paused: hand them back at their next step. PausedTypes are the node types of which no step may
	// begin, each with what its executions are handed back with (NodeTypePaused). PausedPool says that nothing new may begin on this worker, and why.
	Pauses      []ID              `json:"pauses,omitempty"`
	PausedTypes map[string]string `json:"pausedTypes,omitempty"`
	PausedPool  string            `json:"pausedPool,omitempty"`
	Drain       bool              `json:"drain,omitempty"`
	Orphans     []Orphan          `json:"orphans,omitempty"`
	Gone        []int64           `json:"gone,omitempty"`  // of the runs that the renewal said it owned: those whose attempt is over
	Slots       int               `json:"slots,omitempty"` // tuned by the leader; 0: the worker's own
	Shards      int               `json:"shards,omitempty"`
}

// CancelOrder tells the owner of an execution to let it end.
type CancelOrder struct {
	Execution ID    `json:"execution"`
	As        State `json:"as"`
}

// Orphan is an execution that a session owns and whose run was not in the list of its renewal: begun since, or lost. The worker that has
// no such run any more hands it back with Orphan.Yield, behind all that the run has reported.
type Orphan struct {
	Execution ID    `json:"execution"`
	Attempt   int   `json:"attempt"`
	Run       int64 `json:"run"`
	Seq       int   `json:"seq"` // of the last report applied
	Shard     int   `json:"shard"`
}

// Yield is the entry that hands the execution back.
func (o Orphan) Yield(session ID) Entry {
	return Entry{Kind: EntryYield, Execution: o.Execution, Attempt: o.Attempt, Session: session, Run: o.Run, Seq: o.Seq + 1, Base: o.Seq}
}

// EndSessionsRequest is the body of POST /internal/v1/sessions/end: a worker that stops ends its own session, when nothing is left in it.
type EndSessionsRequest struct {
	Sessions []ID   `json:"sessions"`
	Reason   string `json:"reason"`
}

// Control is a message on control.#: for speed only, the renewal's answer carries the same.
type Control struct {
	V      int          `json:"v"`
	Cancel *CancelOrder `json:"cancel,omitempty"`
	Pause  *ID          `json:"pause,omitempty"` // an execution
	Drain  string       `json:"drain,omitempty"` // worker id
	Tune   []TuneOrder  `json:"tune,omitempty"`  // by the leader of Term: a worker ignores what an older one says
	Term   int64        `json:"term,omitempty"`
}

// TuneOrder tells the worker of a session how many slots it shall use; 0: its own limit.
type TuneOrder struct {
	Session ID  `json:"session"`
	Slots   int `json:"slots"`
}

// Heartbeat is a worker's health report on heartbeat.#.
type Heartbeat struct {
	V        int     `json:"v"`
	Worker   string  `json:"worker"`
	Session  ID      `json:"session,omitzero"`
	Pool     string  `json:"pool"`
	Slots    int     `json:"slots"`
	Running  int     `json:"running"`
	Buffered int     `json:"buffered"`
	Ended    uint64  `json:"ended,omitempty"` // executions that it has ended, handed back or suspended since it began
	MemoryMB int     `json:"memoryMb"`
	CPU      float64 `json:"cpu"` // cores in use
	// What it may use, by its own environment.
	MemoryLimitMB int     `json:"memoryLimitMb,omitempty"`
	CPULimit      float64 `json:"cpuLimit,omitempty"`
	EveryMS       int64   `json:"everyMs,omitempty"` // how often it reports though nothing happens
	// What it has taken from its queues since it began: a message may carry several tasks, and the depth of a queue counts messages.
	Messages uint64    `json:"messages,omitempty"`
	Tasks    uint64    `json:"tasks,omitempty"`
	Version  string    `json:"version"`
	State    string    `json:"state"` // "ready", "draining", "holding"
	At       time.Time `json:"at"`
}

// DeadLetter is what could not be processed, with its reason.
type DeadLetter struct {
	ID        ID        `json:"id"`
	Kind      string    `json:"kind"`   // "task", "report", "execution"
	Reason    string    `json:"reason"` // stable code: "poison", "unparseable", "schema", "behind", "unknown-execution", …
	Detail    string    `json:"detail"`
	Origin    string    `json:"origin"` // queue or process
	Execution ID        `json:"execution,omitzero"`
	Body      []byte    `json:"body,omitempty"`
	Count     int       `json:"count"`
	At        time.Time `json:"at"`
}

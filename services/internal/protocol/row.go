package protocol

import (
	"encoding/json"
	"time"
)

// State of an execution.
type State string

// The states. The last four are final.
const (
	Queued    State = "queued"
	Running   State = "running"
	Waiting   State = "waiting"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	TimedOut  State = "timed_out"
)

// Final tells whether nothing but a user's retry can change the state.
func (s State) Final() bool {
	return s == Succeeded || s == Failed || s == Cancelled || s == TimedOut
}

// Limits on deaths: from SuspectDeaths on an execution runs alone on its worker, at PoisonDeaths it fails.
const (
	SuspectDeaths = 2
	PoisonDeaths  = 5
)

// Row is the part of an execution that the rules read and write: the truth that everything is compared with.
type Row struct {
	ID         ID
	Project    ID // never changes, like Flow, Shard, Parent and Priority
	Flow       ID
	State      State
	Attempt    int    // hand-outs so far, from 1; fences everything an older one still sends
	Seq        int    // of the last report applied in this attempt
	Owner      ID     // session that claimed it; zero: none
	Run        int64  // number that the owner drew for its delivery; zero: none
	Handed     int    // highest attempt whose task the broker has confirmed
	Shard      int    // report queue, fixed at accept
	Hold       string // what of flow control it waits for before it may be handed out ("": nothing)
	Paused     string // who paused it, and why ("": nobody)
	Limited    bool   // flow control has rows of it: its end frees them. Fixed at accept
	Calls      bool   // it has started children that it waits for: they end with it. Set when it calls
	Undoes     bool   // its flow has compensations: a cancel lets them run before it ends. Fixed at accept
	Cancel     State  // "" or what it shall end as (Cancelled, TimedOut) when its owner lets go
	Deaths     int    // sessions that died while owning it
	Retries    int    // by users
	Parent     ID     // that waits for it; zero: nobody does
	Priority   string
	Pool       string    // whose queue it is in, or was in last
	QueuedAt   time.Time // database's clock
	StartedAt  time.Time
	FinishedAt time.Time
}

// Held tells whether it must not be handed out now.
func (r *Row) Held() bool { return r.Hold != "" || r.Paused != "" }

// Value is a JSON value as it is stored and sent. Data is the value's JSON under CodecJSON; nil is "no value", which is not JSON null.
// Values over MaxInline bytes travel by reference: Ref is then the SHA-256 (hex) and Data is nil.
type Value struct {
	Codec string `json:"c,omitempty"` // "" is CodecJSON
	Data  []byte `json:"-"`
	Ref   string `json:"r,omitempty"`
	Size  int    `json:"s,omitempty"` // of the value behind Ref
}

// Codecs of a Value.
const (
	CodecJSON = ""
	CodecZstd = "zstd"
)

// Limits of values. Larger ones than MaxInline don't stand in messages and rows themselves but in the payloads, by SHA-256.
const (
	MaxInline   = 256 << 10
	MaxValue    = 16 << 20
	MaxPayloads = 64 << 20 // of one execution, all together
)

// Session leases a worker the right to act.
type Session struct {
	ID     ID
	Worker string // WORKER_ID
	Beat   int64
	Alive  bool
}

// OpenWait is one row of the waits table: a wait that an execution has, open until Met.
type OpenWait struct {
	Execution ID
	Node      string
	Iteration string
	Kind      string
	Key       string
	Reason    string
	Due       time.Time // zero: no time meets it
	Since     time.Time
	Met       time.Time // zero: still open
	// Open is what is made in the transaction that opens the wait; it isn't kept with the wait, so it is nil in one that was read.
	Open json.RawMessage
}

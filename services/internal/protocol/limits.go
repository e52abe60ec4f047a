package protocol

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// Flow control: how many executions with one key run at once, how many start in a time, whose turn it is, and many starts that become one.
//
// An execution is held (Row.Hold) until it has passed debounce, rate, and then concurrency and fairness together: for these two it has a slot
// for each key. A slot waits, is held from when the execution is let in until it is final, and is free afterwards; it is kept free for a retry, which takes it
// anew. Slots are freed by the very transaction that ends their execution (batch.write sees to it for every script), so that no death and no cancel can leak one.
//
// Locks: the keys first (LockKeys, sorted), then executions by id, then everything else. Whoever ends an execution locks no key: slots of an execution are
// written only under its row's lock, and room only grows by an end. Whoever takes room (Place, Admit) holds the locks of all keys that it takes, so two can't
// take the same room. A slot that is let in holds all its keys or none: one that waits for another key holds this one not up, nor those behind it.

// What an execution is held for, in this order.
const (
	HoldDebounce    = "debounce"
	HoldRate        = "rate"
	HoldConcurrency = "concurrency"
	HoldFairness    = "fairness"
)

// What happens when a concurrency limit is reached.
const (
	OnLimitQueue        = "queue"
	OnLimitReject       = "reject"
	OnLimitCancelOldest = "cancel_oldest"
	OnLimitCancelNewest = "cancel_newest"
)

// Bounds of one collecting debounce.
const (
	MaxCollected = 1000
	// MinWindow is the least number of executions of a fair flow that are let into their pool's queue at once.
	MinWindow = 64
)

// Limit is one setting of flow control with its key computed for an execution.
type Limit struct {
	Kind    string        `json:"kind"` // HoldConcurrency, HoldRate, HoldFairness, HoldDebounce
	Key     string        `json:"key"`  // what is counted by: names kind, flow, setting and value. Of fairness: the group that takes turns
	Value   string        `json:"value,omitempty"`
	Most    int           `json:"most,omitempty"`
	Per     time.Duration `json:"per,omitempty"`     // of a rate
	OnLimit string        `json:"onLimit,omitempty"` // of concurrency
	Weight  float64       `json:"weight,omitempty"`  // of fairness
	Pool    string        `json:"pool,omitempty"`    // of fairness: whose slots bound the window
	Delay   time.Duration `json:"delay,omitempty"`   // of debounce
	Longest time.Duration `json:"longest,omitempty"`
	Collect bool          `json:"collect,omitempty"`
}

// SlotState is where a slot stands.
type SlotState string

// The states of a slot.
const (
	SlotWaiting SlotState = "waiting"
	SlotHeld    SlotState = "held"
	SlotFree    SlotState = "free" // its execution is final
)

// Slot is a place at one key, of one execution.
type Slot struct {
	Execution ID
	Key       string
	Kind      string
	Value     string   // for people
	Keys      []string // of all slots of the execution, this one too
	Most      int      // how many may hold the key; 0: as many as the window of Pool
	Pool      string
	Rank      float64 // order of those that wait, before the id
	State     SlotState
	Reason    string // its execution is being cancelled to make room, or ""
}

// Ask is what flow control wants to know in one statement; what is empty isn't asked.
type Ask struct {
	Slots     []string // keys: how many hold, how many wait
	First     bool     // and those of Slots that wait first and could be let in
	Members   []string // keys: all who hold or wait
	Rates     []string
	Groups    []string // of fairness: the virtual times, of the groups and of Values in them
	Values    []string
	Pools     []string
	Debounces []string // keys
	Debounced []ID     // executions
}

// Standing is how flow control stands.
type Standing struct {
	Slots     map[string]SlotCount // keys without slots are missing
	First     []Slot               // one for each execution and key asked, in the order of rank and id
	Members   map[string][]Slot    // oldest first
	Rates     map[string]time.Time // when the bucket is full again
	Virtual   map[VirtualKey]float64
	Windows   map[string]int // slots of the pools asked; and with First, by the keys of groups, of their pools
	Debounces map[string]Debounced
	Debounced map[ID]Debounced
}

// SlotCount counts the slots of one key.
type SlotCount struct {
	Held, Waiting int
	Most          int // as the newest that waits says; 0 when none waits
}

// VirtualKey names a virtual time: of a group (Value ""), or of one value in it.
type VirtualKey struct{ Group, Value string }

// Debounced is an execution that waits for starts with its key to cease.
type Debounced struct {
	Key       string
	Execution ID
	First     time.Time
	Longest   time.Time // it begins then at the latest
	Count     int       // starts
	Size      int       // bytes of their inputs, when they are collected
	Rates     []Limit   // that it meets afterwards
}

// LimitChanges is what flow control writes.
type LimitChanges struct {
	Slots    []Slot // inserted
	Admitted []ID   // their slots are held now
	Retaken  []ID   // their free slots wait again
	Marked   map[ID]string
	Rates    map[string]time.Time
	Virtual  map[VirtualKey]float64
	Opened   []Debounced // by key: the latest counts
	Merged   []Merge
	Released []ID // debounced ones that go on: collected inputs become the input
}

// Merge adds a start to a debounced execution.
type Merge struct {
	Execution ID
	Start     ID // the same start twice counts once
	Input     json.RawMessage
	Collect   bool
	Due       time.Time // when it begins if nothing more comes
}

func (b *batch) limits() *LimitChanges {
	if b.changes.Limits == nil {
		b.changes.Limits = &LimitChanges{Marked: map[ID]string{}, Rates: map[string]time.Time{}, Virtual: map[VirtualKey]float64{}}
	}
	return b.changes.Limits
}

// hold opens the wait that a hold is.
func (b *batch) hold(id ID, kind, value, reason string, due time.Time) {
	b.changes.Opened = append(b.changes.Opened, OpenWait{Execution: id, Iteration: kind, Kind: kind, Key: value, Reason: reason, Due: due, Since: b.now})
}

func (b *batch) pass(id ID, kind string) {
	b.changes.Met = append(b.changes.Met, OpenWait{Execution: id, Iteration: kind, Kind: kind, Met: b.now})
}

// free is called for every transaction before it writes: ends free slots, and what comes back from an end takes its slots anew.
func (b *batch) free(ctx context.Context, tx Tx) error {
	var ended, back []ID
	for _, id := range b.order {
		switch r := b.rows[id]; {
		case !r.Limited:
		case r.State.Final():
			if r.Hold == HoldDebounce { // what came together is its input, should it be retried
				b.limits().Released = append(b.limits().Released, id)
			}
			r.Hold = ""
			ended = append(ended, id)
		case b.ended[id]:
			r.Hold = "" // debounce and rate are behind it
			back = append(back, id)
		}
	}
	if len(ended)+len(back) == 0 {
		return nil
	}
	slots, err := tx.Slots(ctx, slices.Concat(ended, back))
	if err != nil {
		return err
	}
	for _, s := range slots {
		b.out.Freed = append(b.out.Freed, s.Key)
		if s.Reason != "" && b.rows[s.Execution].State == Cancelled {
			b.because(s.Execution, s.Reason)
		}
	}
	held := map[ID]bool{}
	for _, s := range slots {
		r := b.rows[s.Execution]
		if r.State.Final() || held[r.ID] && s.Kind != HoldConcurrency {
			continue
		}
		if !held[r.ID] {
			held[r.ID] = true
			b.limits().Retaken = append(b.limits().Retaken, r.ID)
		}
		r.Hold = s.Kind
	}
	for _, id := range back {
		if held[id] {
			b.hold(id, b.rows[id].Hold, "", "retried: it takes its places anew", time.Time{})
		}
	}
	return nil
}

// because says why an execution was cancelled.
func (b *batch) because(id ID, reason string) {
	for i := range b.changes.Results {
		if f := b.changes.Results[i].Error; b.changes.Results[i].ID == id && f != nil && f.Code == endedBy(Cancelled).Code {
			told := *f
			told.Message = reason
			b.changes.Results[i].Error = &told
		}
	}
}

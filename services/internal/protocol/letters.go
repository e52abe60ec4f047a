package protocol

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"flowplatform/services/internal/flow"
)

// A letter is what meets a wait from outside: a signal, a decision on an approval, the end of a child, the completion of a remote task. It is stored first and taken
// then, exactly once, by the transaction that wakes the execution; it may come before the wait it is for.
//
// Letters to an execution are ordered by its row's lock: who delivers one looks at the waits behind the lock, and the suspend looks for letters behind it. Letters to whoever
// waits have no row in common with the one who begins to wait: both take a lock on the key first (Tx.LockKeys), before any row's.
type Letter struct {
	ID        ID // the same letter sent again is the same letter: nothing is done twice
	Project   ID
	Execution ID     // to whom; zero: to whoever waits for (Project, Kind, Key), who waits longest first
	Kind      string // the wait's: flow.WaitSignal, …
	Key       string // the wait's; of a signal to an execution: its name, whatever the wait's key
	Port      string // by which the step leaves; "" is flow.PortMain
	Output    json.RawMessage
	OutputRef *Value // in place of Output: it stands in the payloads
	From      ID     // execution in whose payloads OutputRef stands; zero: Execution itself
	Error     *flow.Failure
	Sender    string
	Once      bool      // only for a wait that is open, and only the first for it: else it is refused
	At        time.Time // database's clock; set when it is delivered
	Expires   time.Time // zero: with its execution
	Pending   bool      // somebody has yet to look who waits for it: Post does
	Taken     time.Time // zero: nobody has taken it

	fresh bool // it isn't stored yet
}

// KindDown is the kind of the letter that an execution leaves to itself when it ends: its children are to be cancelled.
const KindDown = "down"

// Limits of letters that nobody has taken.
const (
	KeepLetter     = 7 * 24 * time.Hour // to whoever waits
	MaxKept        = 100                // for one execution
	MaxKeptKey     = 1000               // for one key
	maxWaiters     = 10                 // looked at for one letter at once
	maxDown        = 500                // children cancelled in one transaction
	maxSignalTries = 10
)

// SignalKey is the key of a wait for a signal. Names hold no slash.
func SignalKey(name, key string) string {
	if key == "" {
		return name
	}
	return name + "/" + key
}

// Approval is what an approval says to those who decide (flow.Wait.Open). No approvers: every operator may decide.
type Approval struct {
	Title     string          `json:"title,omitempty"`
	Approvers []string        `json:"approvers"`
	Fields    json.RawMessage `json:"fields,omitempty"` // JSON Schemas by name
}

// ApprovalKey is the key of a wait for an approval.
func ApprovalKey(node, iteration string) string {
	if iteration == "" {
		return node
	}
	return node + "/" + iteration
}

// Delivered says what became of a letter.
type Delivered string

// What becomes of letters. Refused ones are not stored; Delivery.Reason says why.
const (
	LetterTaken   Delivered = "taken"
	LetterKept    Delivered = "kept"
	LetterRefused Delivered = "refused"
)

// Reasons of a refusal.
const (
	RefusedUnknown  = "unknown"  // there is no such execution
	RefusedEnded    = "ended"    // it has ended
	RefusedNoWait   = "no-wait"  // it doesn't wait for this (any more)
	RefusedDecided  = "decided"  // another letter came first
	RefusedFull     = "full"     // too many wait to be taken
	RefusedConflict = "conflict" // another letter has this id
)

// Delivery tells what became of a letter.
type Delivery struct {
	Status    Delivered
	Execution ID // whom it went to; zero: nobody yet
	Reason    string
}

// Waiter addresses letters to whoever waits.
type Waiter struct {
	Project   ID
	Kind, Key string
}

// lock names what LockKeys locks.
func (w Waiter) lock() string { return w.Kind + "\x00" + w.Key }

// Child is an execution that another has called, and waits for.
type Child struct {
	ID, Parent ID
	Retries    int // of the parent when it called
}

// KnownLetter is what is stored already of a letter: itself, or nothing, and how many untaken ones have its address.
type KnownLetter struct {
	Letter *Letter
	Kept   int
}

// errAgain asks for the transaction again: all those who waited were woken otherwise this moment, and there may be more.
var errAgain = errors.New("those who waited were all woken this moment")

// keyed tells whether a letter to nobody in particular can meet a wait of this kind.
func keyed(kind, key string) bool { return kind == flow.WaitSignal && key != "" }

// fromOutside tells whether letters can meet a wait of this kind.
func fromOutside(kind string) bool { return kind != flow.WaitTimer && kind != flow.WaitRetry }

// lockKeys takes the locks that a batch of reports needs before it locks rows: those of the keys that somebody begins to wait for.
func lockKeys(ctx context.Context, tx Tx, entries []Entry) error {
	var keys []string
	for i := range entries {
		if entries[i].Kind != EntrySuspend {
			continue
		}
		for _, w := range entries[i].Waits {
			if keyed(w.Kind, w.Key) {
				keys = append(keys, Waiter{Kind: w.Kind, Key: w.Key}.lock())
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	return tx.LockKeys(ctx, slices.Compact(keys))
}

// letters lists what is there for waits; nothing is asked when all of them are for times.
func letters(ctx context.Context, tx Tx, open []OpenWait) ([]Letter, error) {
	open = slices.DeleteFunc(slices.Clone(open), func(w OpenWait) bool { return !fromOutside(w.Kind) })
	if len(open) == 0 {
		return nil, nil
	}
	return tx.Letters(ctx, open)
}

// met is a wait with the letter that met it; nil: its time came.
type met struct {
	wait   OpenWait
	letter *Letter
}

// match finds which of the open waits are met: by the oldest letter that came before its time, else by its time. Who began to wait first takes first; a
// wait that is listed twice counts once. waiting tells whether an execution is one that can be woken.
func match(open []OpenWait, letters []Letter, waiting func(ID) (project ID, ok bool), now time.Time) []met {
	type place struct {
		id              ID
		node, iteration string
	}
	type address struct {
		id        ID // of the execution, or of the project
		kind, key string
	}
	open = slices.Clone(open)
	slices.SortStableFunc(open, func(a, b OpenWait) int { return a.Since.Compare(b.Since) })
	var waits []met
	seen := map[place]bool{}
	byLetter := map[address][]int{}
	for _, w := range open {
		p := place{w.Execution, w.Node, w.Iteration}
		project, ok := waiting(w.Execution)
		if !ok || seen[p] {
			continue
		}
		seen[p] = true
		i := len(waits)
		waits = append(waits, met{wait: w})
		if len(letters) == 0 || !fromOutside(w.Kind) {
			continue
		}
		to := []address{{w.Execution, w.Kind, w.Key}}
		if keyed(w.Kind, w.Key) {
			to = append(to, address{project, w.Kind, w.Key})
			if name, _, ok := strings.Cut(w.Key, "/"); ok {
				to = append(to, address{w.Execution, w.Kind, name})
			}
		}
		for _, a := range to {
			byLetter[a] = append(byLetter[a], i)
		}
	}
	letters = slices.Clone(letters)
	slices.SortStableFunc(letters, func(a, b Letter) int { return cmp.Or(a.At.Compare(b.At), bytes.Compare(a.ID[:], b.ID[:])) })
	for k := range letters {
		l := &letters[k]
		a := address{l.Execution, l.Kind, l.Key}
		if l.Execution.IsZero() {
			a.id = l.Project
		}
		for _, i := range byLetter[a] {
			if w := &waits[i]; w.letter == nil && (w.wait.Due.IsZero() || l.At.Before(w.wait.Due)) {
				w.letter = l
				break
			}
		}
	}
	return slices.DeleteFunc(waits, func(m met) bool { return m.letter == nil && (m.wait.Due.IsZero() || m.wait.Due.After(now)) })
}

// wake hands executions out again whose waits are met, with what met them.
func (b *batch) wake(waits []met) error {
	events := map[ID][]wireEvent{}
	var order []ID
	for _, m := range waits {
		id := m.wait.Execution
		if len(events[id]) == 0 {
			order = append(order, id)
		}
		events[id] = append(events[id], m.event(b.now))
		w := m.wait
		w.Met = b.now
		b.changes.Met = append(b.changes.Met, w)
		if m.letter == nil && w.Kind == flow.WaitRemote {
			b.expireRemote(&w)
		}
		if m.letter != nil && !m.letter.fresh {
			l := *m.letter
			l.Execution, l.Taken = id, b.now
			b.changes.Taken = append(b.changes.Taken, l)
		}
	}
	for _, id := range order {
		r := b.rows[id]
		r.wake(b.now)
		b.touch(r)
		list, err := json.Marshal(events[id])
		if err != nil {
			return fmt.Errorf("what met the waits of %s: %w", id, err)
		}
		b.changes.Reports = append(b.changes.Reports, StoredReport{Execution: id, Attempt: r.Attempt, Events: list})
	}
	return nil
}

// event is what the execution records of a wait that was met. The letter's id in it makes it traceable.
func (m *met) event(now time.Time) wireEvent {
	e := wireEvent{Event: flow.Event{Type: flow.EventMet, Node: m.wait.Node, Iteration: m.wait.Iteration, At: now}}
	switch l := m.letter; {
	case l != nil:
		e.Port, e.Error, e.Letter = l.Port, l.Error, l.ID
		e.Output, e.Ref = l.Output, l.OutputRef
	case m.wait.Kind == flow.WaitRemote:
		e.Error = m.wait.expired()
	case fromOutside(m.wait.Kind):
		e.Port = PortExpired
	}
	return e
}

// PortExpired is the port of a wait that was met by its time alone.
const PortExpired = "expired"

// meet wakes the waiting executions among the waits' owners that have one that is met.
func (b *batch) meet(open []OpenWait, letters []Letter) error {
	return b.wake(match(open, letters, b.waiting, b.now))
}

func (b *batch) waiting(id ID) (ID, bool) {
	r, ok := b.rows[id]
	if !ok || r.State != Waiting {
		return ID{}, false
	}
	return r.Project, true
}

// Deliver stores letters and wakes those who wait for them [7]. Deliveries are in the order of the letters. Run it through Send, unless all letters are to executions
// and what they say must be in one transaction with something else.
func Deliver(ctx context.Context, tx Tx, mail []Letter) (Outcome, []Delivery, error) {
	b, d, err := deliver(ctx, tx, mail)
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("letters: %w", err)
	}
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, nil, fmt.Errorf("letters: %w", err)
	}
	return b.out, d, nil
}

func deliver(ctx context.Context, tx Tx, mail []Letter) (*batch, []Delivery, error) {
	var ids []ID
	keys := map[Waiter]int{} // how many letters there are for each
	for _, l := range mail {
		if !l.Execution.IsZero() {
			ids = append(ids, l.Execution)
		} else {
			keys[Waiter{l.Project, l.Kind, l.Key}]++
		}
	}
	waiters, full, err := find(ctx, tx, keys)
	if err != nil {
		return nil, nil, err
	}
	ids = append(ids, waiters...)
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return nil, nil, err
	}
	known, err := tx.Known(ctx, mail)
	if err != nil {
		return nil, nil, err
	}
	open, err := tx.OpenWaits(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	stored, err := letters(ctx, tx, open)
	if err != nil {
		return nil, nil, err
	}
	out := make([]Delivery, len(mail))
	fresh := b.accept(mail, known, open, stored, out)
	waits := match(open, append(stored, fresh...), b.waiting, b.now)
	taken := map[ID]ID{}
	for _, m := range waits {
		if m.letter != nil {
			taken[m.letter.ID] = m.wait.Execution
		}
	}
	for i := range mail {
		l, k := mail[i], known[i]
		if out[i].Status != "" {
			continue
		}
		l.At = b.now
		l.fresh = false
		who, ok := taken[l.ID]
		switch limit := MaxKept; {
		case ok:
			out[i] = Delivery{Status: LetterTaken, Execution: who}
			l.Execution, l.Taken, l.Expires = who, b.now, time.Time{}
			b.changes.Posted = append(b.changes.Posted, l)
			continue
		case l.Execution.IsZero():
			if w := (Waiter{l.Project, l.Kind, l.Key}); full[w] {
				return nil, nil, errAgain
			}
			l.Expires, limit = b.now.Add(KeepLetter), MaxKeptKey
			fallthrough
		default:
			if k.Kept >= limit && l.Kind != flow.WaitRemote { // of remote tasks there are as many as the execution has opened
				out[i] = Delivery{Status: LetterRefused, Execution: l.Execution, Reason: RefusedFull}
				continue
			}
			out[i] = Delivery{Status: LetterKept, Execution: l.Execution}
			b.changes.Posted = append(b.changes.Posted, l)
		}
	}
	return b, out, b.wake(waits)
}

// find looks for those who wait for keys, behind the keys' locks. full: there may be more than it gives.
func find(ctx context.Context, tx Tx, keys map[Waiter]int) (ids []ID, full map[Waiter]bool, err error) {
	if len(keys) == 0 {
		return nil, nil, nil
	}
	var names []string
	most := 0
	list := make([]Waiter, 0, len(keys))
	for w, n := range keys {
		list = append(list, w)
		names = append(names, w.lock())
		most = max(most, n)
	}
	slices.Sort(names)
	if err := tx.LockKeys(ctx, slices.Compact(names)); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(list, func(a, b Waiter) int {
		return cmp.Or(bytes.Compare(a.Project[:], b.Project[:]), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	found, err := tx.Waiters(ctx, list, most+maxWaiters)
	if err != nil {
		return nil, nil, err
	}
	full = map[Waiter]bool{}
	for _, w := range list {
		full[w] = len(found[w]) >= most+maxWaiters
		ids = append(ids, found[w]...)
	}
	return ids, full, nil
}

// accept tells of each letter that can't be stored what became of it, and gives the others as they may be taken.
func (b *batch) accept(mail []Letter, known []KnownLetter, open []OpenWait, stored []Letter, out []Delivery) []Letter {
	var fresh []Letter
	for i := range mail {
		l := mail[i]
		l.At, l.fresh = b.now, true
		if k := known[i].Letter; k != nil {
			out[i] = k.delivery(&l)
			continue
		}
		if slices.ContainsFunc(fresh, func(o Letter) bool { return o.ID == l.ID }) {
			out[i] = Delivery{Status: LetterRefused, Reason: RefusedConflict}
			continue
		}
		if !l.Execution.IsZero() {
			if why := b.refuses(&l, open, append(stored, fresh...)); why != "" {
				out[i] = Delivery{Status: LetterRefused, Execution: l.Execution, Reason: why}
				continue
			}
		}
		fresh = append(fresh, l)
	}
	return fresh
}

// delivery of a letter that is stored already, asked for again.
func (l *Letter) delivery(again *Letter) Delivery {
	who := l.Execution
	if !again.Execution.IsZero() && who != again.Execution || l.Kind != again.Kind || l.Key != again.Key || l.Port != again.Port || !bytes.Equal(l.Output, again.Output) {
		return Delivery{Status: LetterRefused, Reason: RefusedConflict}
	}
	if l.Taken.IsZero() {
		return Delivery{Status: LetterKept, Execution: who}
	}
	return Delivery{Status: LetterTaken, Execution: who}
}

// refuses tells why an execution doesn't take a letter, now or later; "": it does.
func (b *batch) refuses(l *Letter, open []OpenWait, others []Letter) string {
	r, ok := b.rows[l.Execution]
	switch {
	case !ok:
		return RefusedUnknown
	case r.State.Final():
		return RefusedEnded
	case !l.Once:
		return ""
	}
	if !slices.ContainsFunc(open, func(w OpenWait) bool {
		return w.Execution == l.Execution && w.Kind == l.Kind && w.Key == l.Key && (w.Due.IsZero() || b.now.Before(w.Due))
	}) {
		return RefusedNoWait
	}
	if slices.ContainsFunc(others, func(o Letter) bool { return o.Execution == l.Execution && o.Kind == l.Kind && o.Key == l.Key }) {
		return RefusedDecided
	}
	return ""
}

// Send delivers letters in a transaction of their own. An unknown commit is resolved by sending them again: a letter has its id.
func Send(ctx context.Context, st Store, mail []Letter) (out Outcome, d []Delivery, err error) {
	for try := range maxSignalTries {
		err = st.Txn(ctx, "letters", func(tx Tx) error {
			var err error
			out, d, err = Deliver(ctx, tx, mail)
			return err
		})
		if !errors.Is(err, errAgain) && !(errors.Is(err, ErrUnknown) && try == 0) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return Outcome{}, nil, err
	}
	return out, d, nil
}

package protocol

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"flowplatform/services/internal/flow"
)

// The scripts: what one transaction does. Every script locks the executions first, by id and in id order, and looks at sessions and waits only
// then, in another statement; the rules decide; one Write ends it. They may run several times for one call (deadlocks), so they
// keep nothing between runs.

// News is what a transaction made of an execution: for live events, after COMMIT, never before.
type News struct {
	Execution ID
	Flow      ID
	State     State
	Attempt   int
	At        time.Time
	Queue     string // in place of all but Execution and At: a task for remote workers waits in it now
}

// Outcome is what a script leaves to be done after COMMIT.
type Outcome struct {
	HandOut []ID // queued now: publish their tasks
	News    []News
	Told    []CancelOrder // owners that should hear of a cancel soon
	Mail    []ID          // executions with pending letters: Post acts on them
	Hushed  []ID          // executions whose owners should hear of a pause soon
	Freed   []string      // keys of flow control at which others may be let in now: Admit
	Parked  int           // entries of a batch that went to the dead letters
	Behind  []ID          // executions whose reports came with a gap; nothing of this batch was written when the caller asked for that
}

// batch is the working memory of one run of a script.
type batch struct {
	now     time.Time
	rows    map[ID]*Row
	touched map[ID]bool
	ended   map[ID]bool // were final when they were locked, and have limits
	order   []ID
	changes Changes
	remote  []News
	out     Outcome
}

func lock(ctx context.Context, tx Tx, ids []ID) (*batch, error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return nil, err
	}
	b := &batch{now: now, rows: map[ID]*Row{}, touched: map[ID]bool{}, ended: map[ID]bool{}}
	if len(ids) == 0 {
		return b, nil
	}
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b ID) int { return cmp.Compare(string(a[:]), string(b[:])) })
	rows, err := tx.Lock(ctx, slices.Compact(ids))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		b.rows[rows[i].ID] = &rows[i]
		if rows[i].Limited && rows[i].State.Final() {
			b.ended[rows[i].ID] = true
		}
	}
	return b, nil
}

func (b *batch) touch(r *Row) {
	if !b.touched[r.ID] {
		b.touched[r.ID] = true
		b.order = append(b.order, r.ID)
	}
}

func (b *batch) take(r *Row, ef effect) {
	b.touch(r)
	if ef.result != nil {
		b.changes.Results = append(b.changes.Results, *ef.result)
	}
	if ef.dead != nil {
		b.changes.Dead = append(b.changes.Dead, *ef.dead)
	}
}

// write sends what was decided, and fills the outcome from the rows as they stand at the end.
func (b *batch) write(ctx context.Context, tx Tx) error {
	if err := b.free(ctx, tx); err != nil {
		return err
	}
	for _, id := range b.order {
		r := b.rows[id]
		b.changes.Rows = append(b.changes.Rows, *r)
		b.out.News = append(b.out.News, News{Execution: r.ID, Flow: r.Flow, State: r.State, Attempt: r.Attempt, At: b.now})
		if r.State == Queued && r.Handed < r.Attempt && !r.Held() {
			b.out.HandOut = append(b.out.HandOut, id)
		}
	}
	b.out.News = append(b.out.News, b.remote...)
	b.post()
	c := &b.changes
	if len(c.Rows)+len(c.Reports)+len(c.Opened)+len(c.Met)+len(c.Dead)+len(c.Posted)+len(c.Taken)+len(c.Looked)+len(c.RemoteMade)+len(c.RemoteEnded)+len(c.Called) == 0 && c.Limits == nil {
		return nil
	}
	return tx.Write(ctx, c)
}

// GrantClaims decides on claims [4], in the order given.
func GrantClaims(ctx context.Context, tx Tx, claims []Claim) ([]Answer, error) {
	ids := make([]ID, len(claims))
	sessions := make([]ID, 0, 4)
	for i, c := range claims {
		ids[i] = c.Execution
		if !slices.Contains(sessions, c.Session) {
			sessions = append(sessions, c.Session)
		}
	}
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	alive, err := tx.Alive(ctx, sessions)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	answers := make([]Answer, len(claims))
	for i, c := range claims {
		r, ok := b.rows[c.Execution]
		if !ok {
			answers[i] = Stale
			continue
		}
		before := *r
		answers[i] = r.claim(c, alive[c.Session], b.now)
		if *r != before {
			b.touch(r)
		}
	}
	if err := b.write(ctx, tx); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return answers, nil
}

// ApplyReports applies a batch of entries of one shard, in their order [6, 7, 9, 11]. Entries of executions that don't exist are parked.
// Entries with a gap before them: with park false nothing is written and Behind names their executions (come back on a new channel: the
// missing report may be on its way); with park true they are parked and the execution goes on from its row in a new attempt.
func ApplyReports(ctx context.Context, tx Tx, shard int, entries []Entry, park bool) (Outcome, error) {
	ids := make([]ID, 0, len(entries))
	var dead []ID
	owned := map[ID][]ID{}
	for i := range entries {
		e := &entries[i]
		if e.Kind != EntryRecover {
			ids = append(ids, e.Execution)
			continue
		}
		if _, ok := owned[e.Session]; ok {
			continue
		}
		list, err := tx.Owned(ctx, e.Session, shard, maxRecover)
		if err != nil {
			return Outcome{}, fmt.Errorf("reports: %w", err)
		}
		owned[e.Session] = list
		dead = append(dead, e.Session)
		ids = append(ids, list...)
	}
	if err := lockKeys(ctx, tx, entries); err != nil {
		return Outcome{}, fmt.Errorf("reports: %w", err)
	}
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, fmt.Errorf("reports: %w", err)
	}
	alive := map[ID]bool{}
	if len(dead) > 0 {
		if alive, err = tx.Alive(ctx, dead); err != nil {
			return Outcome{}, fmt.Errorf("reports: %w", err)
		}
	}
	var suspended []ID
	for i := range entries {
		e := &entries[i]
		if e.Kind == EntryRecover {
			if alive[e.Session] {
				continue
			}
			for _, id := range owned[e.Session] {
				r, ok := b.rows[id]
				if !ok || r.Shard != shard || r.Owner != e.Session {
					continue
				}
				b.take(r, r.recover(e.Session, b.now))
			}
			continue
		}
		r, ok := b.rows[e.Execution]
		if !ok {
			b.park(e, "unknown-execution", "no execution has this id: it was deleted, or the database lost its last writes in a failover")
			continue
		}
		switch r.judge(e) {
		case oldNews:
		case behind:
			b.out.Behind = append(b.out.Behind, r.ID)
			if park {
				b.park(e, "behind", fmt.Sprintf("the report says that %d came before it, the row has %d: a confirmed report was lost; the execution goes on from its row", e.Base, r.Seq))
				b.take(r, r.letGo(b.now))
			}
		case accepts:
			b.take(r, r.apply(e, b.now))
			if len(e.Events) > 0 || len(e.Logs) > 0 {
				b.changes.Reports = append(b.changes.Reports, StoredReport{Execution: r.ID, Attempt: e.Attempt, Seq: e.Seq, Events: e.Events, Logs: e.Logs, Whole: e.Whole})
			}
			if e.Kind == EntrySuspend && r.State == Waiting {
				suspended = append(suspended, r.ID)
			}
			switch {
			case r.State.Final() && len(e.Waits) > 0:
				b.changes.Closed = append(b.changes.Closed, r.ID)
			case !r.State.Final() && (r.Cancel == "" || r.State == Waiting):
				b.openWaits(r, e)
			}
		}
	}
	if len(b.out.Behind) > 0 && !park {
		return Outcome{Behind: b.out.Behind}, errBehind
	}
	if len(suspended) > 0 {
		if err := b.look(ctx, tx, suspended); err != nil {
			return Outcome{}, fmt.Errorf("reports: %w", err)
		}
	}
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, fmt.Errorf("reports: %w", err)
	}
	return b.out, nil
}

// maxRecover bounds how many executions one recover takes in one transaction; the leader repeats it until none is left.
const maxRecover = 1000

func (b *batch) park(e *Entry, reason, detail string) {
	body, err := json.Marshal(e)
	if err != nil {
		body = []byte(fmt.Sprintf("%+v", *e))
	}
	b.out.Parked++
	id := LetterID(e.Started, e.Execution.String(), fmt.Sprint(e.Attempt, e.Run, e.Seq), reason)
	b.changes.Dead = append(b.changes.Dead, DeadLetter{ID: id, Kind: "report", Reason: reason, Detail: detail, Origin: "reports", Execution: e.Execution, Body: body, Count: 1})
}

func (b *batch) openWaits(r *Row, e *Entry) {
	for i := range e.Waits {
		w := &e.Waits[i]
		if w.Kind == flow.WaitRemote {
			b.openRemote(r, w)
		}
		b.changes.Opened = append(b.changes.Opened, OpenWait{Execution: e.Execution, Node: w.Node, Iteration: w.Iteration, Kind: w.Kind, Key: w.Key, Reason: w.Reason, Due: w.Due, Since: b.now, Open: w.Open})
	}
}

// look wakes executions that suspend in this very transaction and have a wait that is met already: its time came while
// another of the execution's waits was being worked on, or a letter for it came first.
func (b *batch) look(ctx context.Context, tx Tx, suspended []ID) error {
	open, err := tx.OpenWaits(ctx, suspended)
	if err != nil {
		return err
	}
	open = append(open, b.changes.Opened...)
	there, err := letters(ctx, tx, open)
	if err != nil {
		return err
	}
	return b.meet(open, there)
}

// WakeDue wakes executions whose waits are due by the database's clock [7].
func WakeDue(ctx context.Context, tx Tx, ids []ID) (Outcome, error) {
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, fmt.Errorf("timers: %w", err)
	}
	open, err := tx.OpenWaits(ctx, ids)
	if err != nil {
		return Outcome{}, fmt.Errorf("timers: %w", err)
	}
	if err := b.meet(open, nil); err != nil {
		return Outcome{}, fmt.Errorf("timers: %w", err)
	}
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, fmt.Errorf("timers: %w", err)
	}
	return b.out, nil
}

// Cancel ends executions that nobody owns and flags the others [8]; as is Cancelled or TimedOut. News tells which changed; ids that are
// unknown or final are left alone.
func Cancel(ctx context.Context, tx Tx, ids []ID, as State) (Outcome, error) {
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, fmt.Errorf("cancel: %w", err)
	}
	for _, id := range ids {
		r, ok := b.rows[id]
		if !ok {
			continue
		}
		b.cancel(r, as)
	}
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, fmt.Errorf("cancel: %w", err)
	}
	return b.out, nil
}

func (b *batch) cancel(r *Row, as State) {
	changed, owned, ef := r.cancel(as, b.now)
	if changed {
		b.take(r, ef)
	}
	if owned {
		b.out.Told = append(b.out.Told, CancelOrder{Execution: r.ID, As: r.Cancel})
	}
}

// OpenSession ends the sessions whose death the caller has proven, and opens its own [3, 10]. It tells which it ended.
func OpenSession(ctx context.Context, tx Tx, req OpenSessionRequest) (alive bool, ended []ID, err error) {
	if len(req.Ended) > 0 {
		if ended, err = EndSessions(ctx, tx, req.Ended, "its successor holds the lock of its file"); err != nil {
			return false, nil, err
		}
	}
	if err := tx.OpenSession(ctx, req); err != nil {
		return false, nil, fmt.Errorf("session: %w", err)
	}
	live, err := tx.Alive(ctx, []ID{req.Session})
	if err != nil {
		return false, nil, fmt.Errorf("session: %w", err)
	}
	return live[req.Session], ended, nil
}

// EndSessions marks sessions dead, whatever their beat: for those whose end is proven.
func EndSessions(ctx context.Context, tx Tx, sessions []ID, reason string) ([]ID, error) {
	ends := make([]SessionEnd, len(sessions))
	for i, id := range sessions {
		ends[i] = SessionEnd{ID: id, Beat: -1, Reason: reason}
	}
	ended, err := tx.EndSessions(ctx, ends)
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	return ended, nil
}

// Renew renews all the sessions given in one statement, and brings what their workers must know [3, 12]. Answer it after COMMIT.
func Renew(ctx context.Context, tx Tx, renewals []RenewRequest) (map[ID]SessionResponse, error) {
	sessions := make([]ID, 0, len(renewals))
	listed := make(map[ID]RenewRequest, len(renewals))
	for _, r := range renewals {
		if _, ok := listed[r.Session]; !ok {
			sessions = append(sessions, r.Session)
		}
		listed[r.Session] = r
	}
	alive, err := tx.Beat(ctx, sessions)
	if err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	cancels, err := tx.Cancels(ctx, sessions)
	if err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	owned, err := tx.Runs(ctx, sessions)
	if err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	out := make(map[ID]SessionResponse, len(sessions))
	for _, id := range sessions {
		orders, beats := alive[id]
		told, hushed := split(cancels[id])
		out[id] = SessionResponse{Alive: beats, Drain: orders.Drain, Slots: orders.Slots, Cancels: told, Pauses: hushed, PausedTypes: orders.PausedTypes, PausedPool: orders.PausedPool,
			Orphans: orphans(owned[id], listed[id].Runs), Gone: gone(owned[id], listed[id].Owned)}
	}
	return out, nil
}

// maxOrphans bounds an answer; the next renewal brings the rest.
const maxOrphans = 1000

// orphans are those of the owned executions whose runs are not listed.
func orphans(owned []Orphan, runs []int64) []Orphan {
	if len(owned) == 0 {
		return nil
	}
	has := make(map[int64]bool, len(runs))
	for _, n := range runs {
		has[n] = true
	}
	var out []Orphan
	for _, o := range owned {
		if !has[o.Run] && len(out) < maxOrphans {
			out = append(out, o)
		}
	}
	return out
}

// gone are those of the runs that no longer own their attempts, though they did when the renewal was sent: a report of theirs that the broker had
// confirmed was lost or could not be applied, and the execution went on from its row, or ended. Nothing else tells their worker so: its session lives, and it would
// go on to act, confirmed step by confirmed step, beside the attempt that follows.
func gone(owned []Orphan, runs []int64) []int64 {
	if len(runs) == 0 {
		return nil
	}
	has := make(map[int64]bool, len(owned))
	for _, o := range owned {
		has[o.Run] = true
	}
	var out []int64
	for _, n := range runs {
		if !has[n] {
			out = append(out, n)
		}
	}
	return out
}

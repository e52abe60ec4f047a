package sim

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"flowplatform/services/internal/protocol"
)

// The database: READ COMMITTED with row locks. What a transaction writes is seen by others at its commit and not before; a commit may
// be known, refused or unknown; a lock is waited for, up to lock_timeout; who sleeps in a transaction loses it.

var errAway = errors.New("the database is away, or a lock was not to be had")

type database struct {
	execs    []*execution
	sessions []*session
	dead     []protocol.DeadLetter
	scheds   []*sched
	fires    []protocol.Fire
	terms    int64
	termLock rowLock
	letters  []*letter // oldest first
	remote   []*remoteTask
	calls    []protocol.Call
	keys     map[string]*rowLock
	downTill int64
	downFrom int64
	control  control
	catching catching
}

type execution struct {
	exists  bool
	row     protocol.Row
	shape   int           // index into shapes
	facts   protocol.Task // what the task says that is not in the row
	reports []protocol.StoredReport
	waits   []protocol.OpenWait
	result  *protocol.FinalResult
	lock    rowLock

	child       bool
	callRetries int // of its parent when it was called

	over      int64     // when its last attempt ended
	cancelled bool      // a user asked for it
	blind     int       // newest attempt of which a confirmed report was lost, or refused by the database
	restarted time.Time // when its deadline began anew
	input     []int     // starts that it runs for
	fresh     int       // attempt that the last retry took back: what failed up to it is as if it had not been tried
}

type session struct {
	protocol.Session
	host, inst int
	lock       rowLock
}

type rowLock struct{ held *txn }

func idOf(kind byte, n int) (id protocol.ID) {
	id[0] = kind
	binary.BigEndian.PutUint32(id[12:], uint32(n))
	return id
}

func indexOf(id protocol.ID) int { return int(binary.BigEndian.Uint32(id[12:])) }

type txn struct {
	s      *Sim
	p      *proc
	name   string
	locks  []*rowLock
	ops    []func()
	writes map[int]protocol.Row
	dead   bool
	at     int64
	claims []protocol.Claim // what it decides on, for Broken.ClaimBySession
	speaks int              // the lease whose word it takes, for Broken.RemoteBlind
	late   *protocol.Letter // that comes in a transaction of its own, for Broken.RemoteApart
}

func (t *txn) release() {
	for _, l := range t.locks {
		if l.held == t {
			l.held = nil
		}
	}
	t.locks, t.dead = nil, true
}

// statement begins one: others may go on first, and it may find the database away.
func (t *txn) statement() error {
	t.p.step()
	if t.dead {
		return errAway
	}
	return t.s.db.reach(t.s.now)
}

func (db *database) reach(now int64) error {
	if now < db.downTill {
		return errAway
	}
	return nil
}

// sinceOutage is how long ago an outage ended that no unbroken sight can have bridged; long ago when there was none.
func (db *database) sinceOutage(now int64) int64 {
	if db.downTill-db.downFrom <= lease/3 {
		return 1 << 60
	}
	return now - db.downTill
}

func (t *txn) acquire(l *rowLock) error {
	deadline := t.s.now + 150
	for l.held != nil && l.held != t {
		if o := l.held; o.p.h.pausedTill > t.s.now && t.s.now-o.at > 100 { // idle_in_transaction_session_timeout
			o.release()
			continue
		}
		if t.s.now >= deadline {
			t.s.Counts.LockTimeouts++
			return errAway
		}
		t.p.cond, t.p.until = func() bool { return t.dead || l.held == nil }, t.s.now+20
		t.p.pass()
		if t.dead || t.s.now < t.s.db.downTill {
			return errAway
		}
	}
	if l.held == nil {
		l.held = t
		t.locks = append(t.locks, l)
	}
	return nil
}

func (s *Sim) time() time.Time { return epoch.Add(ticks(s.now)) }

// store is the database as one process sees it. It implements protocol.Store.
type store struct{ p *proc }

func (st store) Txn(_ context.Context, name string, fn func(protocol.Tx) error) error {
	p := st.p
	t := &txn{s: p.s, p: p, at: p.s.now, name: name, writes: map[int]protocol.Row{}}
	p.tx = t
	err := t.run(fn)
	p.tx = nil // not deferred: a coroutine that is killed in here leaves its locks to spawn
	return err
}

func (t *txn) run(fn func(protocol.Tx) error) error {
	s, p := t.s, t.p
	if err := t.statement(); err != nil {
		t.release()
		return err
	}
	if err := fn(s.broken.wrap(t)); err != nil {
		t.release()
		return err
	}
	p.step() // COMMIT is on the wire
	if t.dead {
		return errAway
	}
	if s.now < s.db.downTill {
		t.release()
		return protocol.ErrUnknown
	}
	if s.noise(1) { // a deadlock, a serialization failure: known not to have happened
		s.Counts.RefusedCommits++
		t.release()
		return errAway
	}
	if s.unknownCommits > 0 || s.noise(2) {
		s.unknownCommits = max(0, s.unknownCommits-1)
		s.Counts.UnknownCommits++
		if s.r.IntN(2) == 0 {
			t.release()
		} else {
			s.tr("%s %s: committed, the answer is lost", p.h.name(), t.name)
			t.commit()
		}
		p.step()
		return protocol.ErrUnknown
	}
	t.commit()
	p.step()
	return nil
}

func (t *txn) commit() {
	for i := range t.s.db.execs {
		if row, ok := t.writes[i]; ok {
			e := t.s.db.execs[i]
			old := e.row
			e.row = row
			t.s.committed(i, old, row, t)
		}
	}
	for _, op := range t.ops {
		op()
	}
	t.release()
}

// ---- protocol.Tx

func (t *txn) Now(context.Context) (time.Time, error) { return t.s.time(), nil }

func (t *txn) Lock(_ context.Context, ids []protocol.ID) ([]protocol.Row, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	var rows []protocol.Row
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b protocol.ID) int { return slices.Compare(a[:], b[:]) })
	for _, id := range slices.Compact(ids) {
		e := t.s.execution(id)
		if e == nil || !e.exists {
			continue
		}
		if err := t.acquire(&e.lock); err != nil {
			return nil, err
		}
		rows = append(rows, e.row)
	}
	return rows, nil
}

func (t *txn) Alive(_ context.Context, ids []protocol.ID) (map[protocol.ID]bool, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	out := map[protocol.ID]bool{}
	for _, id := range ids {
		if se := t.s.session(id); se != nil {
			out[id] = se.Alive
		}
	}
	return out, nil
}

func (t *txn) Owned(_ context.Context, session protocol.ID, shard, limit int) ([]protocol.ID, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	var out []protocol.ID
	for i, e := range t.s.db.execs {
		if e.exists && e.row.Owner == session && e.row.Shard == shard && len(out) < limit {
			out = append(out, idOf('e', i))
		}
	}
	return out, nil
}

func (t *txn) OpenWaits(_ context.Context, ids []protocol.ID) ([]protocol.OpenWait, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	var out []protocol.OpenWait
	for _, id := range ids {
		for _, w := range t.s.execution(id).waits {
			if w.Met.IsZero() {
				out = append(out, w)
			}
		}
	}
	return out, nil
}

func (t *txn) Write(_ context.Context, c *protocol.Changes) error {
	if err := t.statement(); err != nil {
		return err
	}
	for _, r := range c.Reports {
		if strings.Contains(string(r.Events), refusedValue) {
			t.s.Counts.RefusedValues++
			t.s.execution(r.Execution).blind = r.Attempt
			return protocol.ErrData
		}
	}
	for _, row := range c.Rows {
		t.writes[indexOf(row.ID)] = row
	}
	changes := *c
	t.ops = append(t.ops, func() { t.s.db.take(&changes, t.s) })
	return nil
}

func (db *database) take(c *protocol.Changes, s *Sim) {
	defer db.takeLimits(c, s) // after the waits
	for _, r := range c.Reports {
		e := db.execs[indexOf(r.Execution)]
		if r.Whole {
			s.Counts.Checkpoints++
			e.reports = slices.DeleteFunc(e.reports, func(o protocol.StoredReport) bool {
				return cmp.Or(cmp.Compare(o.Attempt, r.Attempt), cmp.Compare(o.Seq, r.Seq)) < 0
			})
		}
		e.reports = append(e.reports, r)
		slices.SortStableFunc(e.reports, func(a, b protocol.StoredReport) int {
			return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Seq, b.Seq))
		})
	}
	for _, id := range c.Restarted {
		db.restart(id, s)
	}
	for _, r := range c.Results {
		db.execs[indexOf(r.ID)].result = &r
	}
	same := func(a, b protocol.OpenWait) bool { return a.Node == b.Node && a.Iteration == b.Iteration }
	for _, w := range c.Opened {
		e := db.execs[indexOf(w.Execution)]
		if !slices.ContainsFunc(e.waits, func(o protocol.OpenWait) bool { return same(o, w) && o.Met.IsZero() }) {
			e.waits = append(e.waits, w)
		}
	}
	for _, w := range c.Met {
		e := db.execs[indexOf(w.Execution)]
		for i := range e.waits {
			if same(e.waits[i], w) && e.waits[i].Met.IsZero() {
				e.waits[i].Met = w.Met
				s.Counts.Timers++
			}
		}
	}
	db.takeLetters(c, s)
	db.takeFailures(c)
	db.takeRemote(c, s)
	for _, d := range c.Dead {
		if slices.ContainsFunc(db.dead, func(o protocol.DeadLetter) bool { return o.ID == d.ID }) {
			continue
		}
		if d.ID.IsZero() {
			d.ID = idOf('d', len(db.dead)+1)
		}
		d.At = s.time()
		db.dead = append(db.dead, d)
		s.tr("dead letter: %s %s", d.Reason, d.Detail)
		s.Counts.Parked++
		if e := s.execution(d.Execution); d.Reason != "poison" && (e == nil || e.blind == 0) {
			s.fail("14 parked without a reason", "%s: %s", d.Reason, d.Detail)
		}
	}
}

func (s *Sim) execution(id protocol.ID) *execution {
	if i := indexOf(id); id[0] == 'e' && i < len(s.db.execs) {
		return s.db.execs[i]
	}
	return nil
}

func (s *Sim) session(id protocol.ID) *session {
	for _, se := range s.db.sessions {
		if se.ID == id && !id.IsZero() {
			return se
		}
	}
	return nil
}

func (t *txn) OpenSession(_ context.Context, req protocol.OpenSessionRequest) error {
	if err := t.statement(); err != nil {
		return err
	}
	t.ops = append(t.ops, func() {
		se := t.s.session(req.Session)
		if se == nil {
			se = &session{Session: protocol.Session{ID: req.Session, Worker: req.Worker}}
			t.s.db.sessions = append(t.s.db.sessions, se)
		}
		if se.Beat == 0 {
			se.Beat, se.Alive = 1, true
		}
	})
	return nil
}

func (t *txn) Beat(_ context.Context, ids []protocol.ID) (map[protocol.ID]protocol.Orders, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	out := map[protocol.ID]protocol.Orders{}
	for _, id := range ids {
		se := t.s.session(id)
		if _, done := out[id]; done || se == nil || !se.Alive {
			continue
		}
		if err := t.acquire(&se.lock); err != nil {
			return nil, err
		}
		if se.Alive {
			out[id] = protocol.Orders{}
			t.ops = append(t.ops, func() { se.Beat++ })
		}
	}
	return out, nil
}

func (t *txn) EndSessions(_ context.Context, ends []protocol.SessionEnd) ([]protocol.ID, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	var out []protocol.ID
	for _, end := range ends {
		se := t.s.session(end.ID)
		if se == nil || !se.Alive || (end.Beat >= 0 && se.Beat != end.Beat) {
			continue
		}
		if err := t.acquire(&se.lock); err != nil {
			return nil, err
		}
		if !se.Alive || (end.Beat >= 0 && se.Beat != end.Beat) {
			continue
		}
		out = append(out, end.ID)
		t.ops = append(t.ops, func() {
			if se.Alive {
				se.Alive = false
				t.s.Counts.Deaths++
				if since := t.s.db.sinceOutage(t.s.now); end.Beat >= 0 && t.at > t.s.db.downFrom && since < 9*lease/10 {
					t.s.fail("13 judged without sight", "session %d, %d ticks after the database was away", indexOf(end.ID), since)
				}
				t.s.tr("session %d ends: %s", indexOf(end.ID), end.Reason)
			}
		})
	}
	return out, nil
}

func (t *txn) Runs(_ context.Context, ids []protocol.ID) (map[protocol.ID][]protocol.Orphan, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	out := map[protocol.ID][]protocol.Orphan{}
	for i, e := range t.s.db.execs {
		if r := e.row; e.exists && !r.Owner.IsZero() && slices.Contains(ids, r.Owner) {
			out[r.Owner] = append(out[r.Owner], protocol.Orphan{Execution: idOf('e', i), Attempt: r.Attempt, Run: r.Run, Seq: r.Seq, Shard: r.Shard})
		}
	}
	return out, nil
}

func (t *txn) Cancels(_ context.Context, ids []protocol.ID) (map[protocol.ID][]protocol.CancelOrder, error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	out := map[protocol.ID][]protocol.CancelOrder{}
	for i, e := range t.s.db.execs {
		if e.exists && (e.row.Cancel != "" || e.row.Paused != "") && !e.row.Owner.IsZero() && slices.Contains(ids, e.row.Owner) {
			out[e.row.Owner] = append(out[e.row.Owner], protocol.CancelOrder{Execution: idOf('e', i), As: e.row.Cancel})
		}
	}
	return out, nil
}

// ---- protocol.Store, outside transactions: each one statement.

func (st store) read() error {
	st.p.step()
	return st.p.s.db.reach(st.p.s.now)
}

func (st store) Tasks(_ context.Context, ids []protocol.ID) ([]protocol.Task, error) {
	if err := st.read(); err != nil {
		return nil, err
	}
	var out []protocol.Task
	for _, id := range ids {
		e := st.p.s.execution(id)
		if e == nil || !e.exists {
			continue
		}
		r := e.row
		if r.State != protocol.Queued || r.Held() || !r.Owner.IsZero() {
			continue
		}
		t := e.facts
		t.V, t.Pool, t.ID, t.Attempt, t.Shard, t.Suspect = protocol.SchemaVersion, r.Pool, id, r.Attempt, r.Shard, r.Deaths >= protocol.SuspectDeaths
		t.Cancel = r.Cancel
		for _, rep := range e.reports {
			t.Steps = append(t.Steps, rep.Events)
		}
		out = append(out, t)
	}
	return out, nil
}

func (st store) MarkHanded(_ context.Context, handed []protocol.Handed) error {
	if err := st.read(); err != nil {
		return err
	}
	for _, h := range handed {
		if e := st.p.s.execution(h.ID); e != nil && e.row.State == protocol.Queued && e.lock.held == nil {
			e.row.Handed = max(e.row.Handed, h.Attempt)
		}
	}
	return nil
}

func (st store) Unhanded(_ context.Context, age time.Duration, limit int) ([]protocol.ID, error) {
	if err := st.read(); err != nil {
		return nil, err
	}
	var out []protocol.ID
	for i, e := range st.p.s.db.execs {
		if r := e.row; e.exists && r.State == protocol.Queued && !r.Held() && r.Handed < r.Attempt && st.p.s.time().Sub(r.QueuedAt) >= age && len(out) < limit {
			out = append(out, idOf('e', i))
		}
	}
	return out, nil
}

func (st store) DueWaits(_ context.Context, horizon time.Duration, limit int) ([]protocol.OpenWait, time.Time, error) {
	if err := st.read(); err != nil {
		return nil, time.Time{}, err
	}
	now := st.p.s.time()
	var out []protocol.OpenWait
	for _, e := range st.p.s.db.execs {
		for _, w := range e.waits {
			if e.row.State == protocol.Waiting && w.Met.IsZero() && !w.Due.IsZero() && !w.Due.After(now.Add(horizon)) {
				out = append(out, w)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b protocol.OpenWait) int { return a.Due.Compare(b.Due) })
	return out[:min(len(out), limit)], now, nil
}

func (st store) Overdue(_ context.Context, limit int) ([]protocol.ID, error) {
	if err := st.read(); err != nil {
		return nil, err
	}
	var out []protocol.ID
	for i, e := range st.p.s.db.execs {
		if d := e.facts.Deadline; e.exists && !e.row.State.Final() && e.row.Cancel == "" && !d.IsZero() && !d.After(st.p.s.time()) && len(out) < limit {
			out = append(out, idOf('e', i))
		}
	}
	return out, nil
}

func (st store) LiveSessions(context.Context) ([]protocol.Session, error) {
	if err := st.read(); err != nil {
		return nil, err
	}
	var out []protocol.Session
	for _, se := range st.p.s.db.sessions {
		if se.Alive {
			out = append(out, se.Session)
		}
	}
	return out, nil
}

func (st store) DeadOwners(_ context.Context, limit int) ([]protocol.ID, error) {
	if err := st.read(); err != nil {
		return nil, err
	}
	var out []protocol.ID
	for _, e := range st.p.s.db.execs {
		if se := st.p.s.session(e.row.Owner); se != nil && !se.Alive && !slices.Contains(out, se.ID) && len(out) < limit {
			out = append(out, se.ID)
		}
	}
	return out, nil
}

var _ protocol.Store = store{}

// insert accepts an execution, unless it is there already.
func (t *txn) insert(i, shape int) error {
	if err := t.statement(); err != nil {
		return err
	}
	e := t.s.db.execs[i]
	if err := t.acquire(&e.lock); err != nil || e.exists {
		return err
	}
	at := t.s.time()
	t.ops = append(t.ops, func() {
		e.exists, e.shape = true, shape
		e.facts.Version, e.facts.Trigger, e.facts.CreatedAt = shape, "manual", epoch
		e.row = protocol.Row{ID: idOf('e', i), State: protocol.Queued, Attempt: 1, Shard: i % shards, Pool: protocol.DefaultPool, QueuedAt: at, Undoes: shapes()[shape].program.Undoes()}
	})
	return nil
}

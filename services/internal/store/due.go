package store

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/protocol"
)

// DueWaits implements protocol.Store. Clock and waits are of the same transaction, so that "due now" is the server's own judgement. now(), not
// clock_timestamp(), here as in Overdue: a volatile function can't bound an index scan, nor tell the planner how few waits are meant.
func (db *DB) DueWaits(ctx context.Context, horizon time.Duration, limit int) ([]protocol.OpenWait, time.Time, error) {
	var now time.Time
	var out []protocol.OpenWait
	err := db.read(ctx, db.primary, "DueWaits", func(c *pgxpool.Conn) error {
		var err error
		now, out, err = withClock(ctx, c, scanWait, `
			SELECT `+waitColumns+` FROM waits w JOIN executions e ON e.id = w.execution_id AND e.state = 'waiting'
			WHERE w.met_at IS NULL AND w.closed_at IS NULL AND w.due IS NOT NULL AND w.due <= now() + $1::interval
			ORDER BY w.due, w.id LIMIT $2`, horizon, limit)
		return err
	})
	return out, now, err
}

// withClock runs a query and reads now() of the same transaction, in one round trip.
func withClock[T any](ctx context.Context, c *pgxpool.Conn, scan func(pgx.Rows, *T) error, sql string, args ...any) (now time.Time, out []T, err error) {
	var b pgx.Batch
	b.Queue(`SELECT now()`)
	b.Queue(sql, args...)
	res := c.SendBatch(ctx, &b)
	defer res.Close()
	if err := res.QueryRow().Scan(dbTime{&now}); err != nil {
		return now, nil, err
	}
	rows, err := res.Query()
	if err != nil {
		return now, nil, err
	}
	if out, err = collect(rows, scan); err != nil {
		return now, nil, err
	}
	return now, out, res.Close()
}

// overdueScan is how far Overdue has looked. As for Unhanded, no index knows which executions are final; deadlines stand in an index that no update touches,
// and the scan goes along it once, a little behind, for rows that were committed later than others.
type overdueScan struct {
	mu     sync.Mutex
	loaded bool
	from   time.Time
	saved  time.Time
	next   time.Time
}

// overdueLag is by how much a commit may come after its execution's deadline and still be seen.
const overdueLag = 10 * time.Second

// Overdue implements protocol.Store. Those listed are listed again until they are flagged.
func (db *DB) Overdue(ctx context.Context, limit int) ([]protocol.ID, error) {
	s := &db.overdue
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		rows, err := list(ctx, db, db.primary, "Overdue", `SELECT position FROM cursors WHERE name = 'overdue'`, func(r pgx.Rows, v *int64) error { return r.Scan(v) })
		if err != nil {
			return nil, err
		}
		s.loaded = true
		if len(rows) > 0 {
			s.from = time.UnixMicro(rows[0])
			s.saved = s.from
		}
	}
	type row struct {
		id       protocol.ID
		deadline time.Time
	}
	var now time.Time
	var found []row
	err := db.read(ctx, db.primary, "Overdue", func(c *pgxpool.Conn) error {
		var err error
		now, found, err = withClock(ctx, c, func(r pgx.Rows, v *row) error { return r.Scan((*dbID)(&v.id), dbTime{&v.deadline}) }, `
			SELECT id, deadline FROM executions WHERE deadline IS NOT NULL AND deadline >= $1 AND deadline <= now()
			AND state IN ('queued', 'running', 'waiting') AND cancel = '' ORDER BY deadline LIMIT $2`, s.from, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	ids := make([]protocol.ID, len(found))
	to := now.Add(-overdueLag)
	for i, r := range found {
		ids[i] = r.id
		if i == 0 && r.deadline.Before(to) {
			to = r.deadline
		}
	}
	if to.After(s.from) {
		s.from = to
	}
	if s.from.Sub(s.saved) > cursorEvery && time.Now().After(s.next) {
		if err := db.saveCursor(ctx, "overdue", s.from.UnixMicro()); err != nil {
			return nil, err
		}
		s.saved, s.next = s.from, time.Now().Add(cursorEvery)
	}
	return ids, nil
}

// LiveSessions implements protocol.Store.
func (db *DB) LiveSessions(ctx context.Context) ([]protocol.Session, error) {
	return list(ctx, db, db.primary, "LiveSessions", `SELECT id, worker, beat, alive FROM sessions WHERE alive ORDER BY id`, func(r pgx.Rows, s *protocol.Session) error {
		return r.Scan((*dbID)(&s.ID), &s.Worker, &s.Beat, &s.Alive)
	})
}

// settleAfter is how long a dead session must own nothing before it is never looked at again. A claim that saw it alive may commit after its end,
// but not later than transactions live: statement, lock and idle timeouts of the roles end them long before.
const settleAfter = time.Hour

// DeadOwners implements protocol.Store. In passing it settles sessions that are dead for long and own nothing.
func (db *DB) DeadOwners(ctx context.Context, limit int) ([]protocol.ID, error) {
	return write(ctx, db, "DeadOwners", `
		WITH dead AS MATERIALIZED (
			SELECT s.id, s.ended_at, EXISTS (SELECT FROM executions e WHERE e.owner = s.id) AS owns
			FROM sessions s WHERE NOT s.alive AND s.settled_at IS NULL),
		settled AS (
			UPDATE sessions s SET settled_at = clock_timestamp() FROM dead
			WHERE s.id = dead.id AND NOT dead.owns AND dead.ended_at < clock_timestamp() - $2::interval)
		SELECT id FROM dead WHERE owns ORDER BY id LIMIT $1`, scanID, limit, settleAfter)
}

package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/protocol"
)

// unhandedScan is how far Unhanded has looked.
//
// What it must find are rows that are queued with handed < attempt. An index that knows them would be touched by every update of every execution:
// updates would not be HOT, for rows that nearly all are past the point before anybody looks. So each row carries the number of
// the transaction that last made it queued, in an index that the way queued -> running -> final never touches, and the scan goes along it once.
//
// Its cursor is exact, not a guess by clocks: a row that a look could not see was written by a transaction that had not ended then, so its number is at least
// the xmin of that moment, and xmin is where the next look begins. Rows seen and still unhanded are remembered, so that one that can't be published
// doesn't hold the cursor back. The position is kept in a table, so that a new leader doesn't begin at the first row.
type unhandedScan struct {
	mu     sync.Mutex
	loaded bool
	from   int64                 // the next look begins here
	open   map[protocol.ID]int64 // seen, unhanded: queued_tx
	saved  int64                 // position in the table
	life   string                // timeline of the server that the position belongs to
	next   time.Time             // when to save again
}

// maxRemembered bounds the memory; beyond it the cursor stands until some are handed.
const maxRemembered = 20000

const unhandedWhere = `e.state = 'queued' AND e.hold = '' AND e.paused = '' AND e.handed < e.attempt`

type unhandedRow struct {
	id  protocol.ID
	tx  int64
	old bool
}

// Unhanded implements protocol.Store. Meant for one caller at a time (the leader); more are slow, not wrong.
func (db *DB) Unhanded(ctx context.Context, age time.Duration, limit int) ([]protocol.ID, error) {
	s := &db.unhanded
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := db.lookUnhanded(ctx, s, age, limit)
	if errors.Is(err, errNewLife) {
		s.loaded = false
		found, err = db.lookUnhanded(ctx, s, age, limit)
	}
	if err != nil {
		s.loaded = false // whatever it was: the next look begins where the table says
		return nil, err
	}
	out := make([]protocol.ID, 0, min(limit, len(found)))
	for _, u := range found {
		if u.old && len(out) < limit {
			out = append(out, u.id)
		}
	}
	return out, db.saveUnhanded(ctx, s)
}

// errNewLife says that the server is another than the one that the cursor counts for: a standby was promoted, and numbers that its predecessor
// had given may come again.
var errNewLife = errors.New("the server was promoted")

func (db *DB) lookUnhanded(ctx context.Context, s *unhandedScan, age time.Duration, limit int) ([]unhandedRow, error) {
	if err := db.loadUnhanded(ctx, s); err != nil {
		return nil, err
	}
	open := make([]protocol.ID, 0, len(s.open))
	for id := range s.open {
		open = append(open, id)
	}
	lo, hi := bounds(open)
	room := maxRemembered - len(open) + limit
	var xmin int64
	var life string
	var rows, kept []unhandedRow
	err := db.read(ctx, db.primary, "Unhanded", func(c *pgxpool.Conn) error {
		var b pgx.Batch
		// xmin first: what commits between the two statements is seen by the second and looked at again next time.
		b.Queue(`SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, left(pg_walfile_name(pg_current_wal_lsn()), 8)`)
		b.Queue(`SELECT e.id, e.queued_tx, e.queued_at <= clock_timestamp() - $1::interval FROM executions e WHERE e.queued_tx >= $2 AND `+unhandedWhere+` ORDER BY e.queued_tx LIMIT $3`, age, s.from, room)
		b.Queue(`SELECT e.id, e.queued_tx, e.queued_at <= clock_timestamp() - $1::interval FROM executions e WHERE e.id = ANY($2) AND e.id BETWEEN $3 AND $4 AND `+unhandedWhere+` ORDER BY e.queued_tx`, age, dbIDs(open), lo, hi)
		res := c.SendBatch(ctx, &b)
		defer res.Close()
		if err := res.QueryRow().Scan(&xmin, &life); err != nil {
			return err
		}
		for _, into := range []*[]unhandedRow{&rows, &kept} {
			r, err := res.Query()
			if err != nil {
				return err
			}
			if *into, err = collect(r, func(r pgx.Rows, u *unhandedRow) error { return r.Scan((*dbID)(&u.id), &u.tx, &u.old) }); err != nil {
				return err
			}
		}
		return res.Close()
	})
	if err != nil {
		return nil, err
	}
	if s.life != "" && s.life != life {
		s.life = ""
		return nil, errNewLife
	}
	s.life = life
	return s.take(kept, rows, xmin, len(rows) == room), nil
}

// take moves the cursor and the memory on, and gives all that is unhanded, oldest first.
func (s *unhandedScan) take(kept, rows []unhandedRow, xmin int64, full bool) []unhandedRow {
	s.open = make(map[protocol.ID]int64, len(kept)+len(rows))
	found := make([]unhandedRow, 0, len(kept)+len(rows))
	for _, list := range [][]unhandedRow{kept, rows} {
		for _, u := range list {
			if _, twice := s.open[u.id]; !twice {
				s.open[u.id] = u.tx
				found = append(found, u)
			}
		}
	}
	switch {
	case full && len(rows) > 0:
		s.from = rows[len(rows)-1].tx
	case xmin > s.from:
		s.from = xmin
	}
	slices.SortStableFunc(found, func(a, b unhandedRow) int { return cmp.Compare(a.tx, b.tx) })
	return found
}

// position is where another process would have to begin.
func (s *unhandedScan) position() int64 {
	p := s.from
	for _, tx := range s.open {
		p = min(p, tx)
	}
	return p
}

func (db *DB) loadUnhanded(ctx context.Context, s *unhandedScan) error {
	if s.loaded {
		return nil
	}
	// A position beyond the server's own numbers is from another life (the database was restored from a dump): begin at the first row.
	rows, err := list(ctx, db, db.primary, "Unhanded", `SELECT position FROM cursors WHERE name = 'unhanded' AND position <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint`,
		func(r pgx.Rows, v *int64) error { return r.Scan(v) })
	if err != nil {
		return err
	}
	s.loaded, s.from, s.open = true, 0, nil
	if len(rows) > 0 {
		s.from, s.saved = rows[0], rows[0]
	}
	return nil
}

func (db *DB) saveUnhanded(ctx context.Context, s *unhandedScan) error {
	p := s.position()
	if p == s.saved || time.Now().Before(s.next) {
		return nil
	}
	if err := db.saveCursor(ctx, "unhanded", p); err != nil {
		return err
	}
	s.saved, s.next = p, time.Now().Add(cursorEvery)
	return nil
}

// cursorEvery is how often positions are saved: a new leader repeats at most that much.
const cursorEvery = 10 * time.Second

func (db *DB) saveCursor(ctx context.Context, name string, position int64) error {
	_, err := exec(ctx, db, "saveCursor", `INSERT INTO cursors (name, position) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET position = excluded.position, updated_at = clock_timestamp()`, name, position)
	return err
}

// UnhandedCount tells how many queued executions the broker hasn't confirmed, up to 100,000: what a throttle compares with its limit.
func (db *DB) UnhandedCount(ctx context.Context) (int, error) {
	return scalar[int](ctx, db, db.primary, "UnhandedCount", `
		SELECT count(*) FROM (SELECT FROM executions e
			WHERE e.queued_tx >= coalesce((SELECT position FROM cursors WHERE name = 'unhanded' AND position <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint), 0)
			AND `+unhandedWhere+` LIMIT 100000) AS u`)
}

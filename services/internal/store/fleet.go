package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// ErrFenced says that a newer term has begun: what was to be written for an older one was not.
var ErrFenced = protocol.ErrFenced

// fenced runs fn in a transaction that only the newest term may have. It holds off RaiseTerm until it has ended, so that nothing of an older term is
// committed after a newer one has begun.
func (db *DB) fenced(ctx context.Context, op string, term int64, fn func(*tx) error) error {
	return db.txn(ctx, op, func(t *tx) error {
		newest, err := t.HoldTerm(ctx)
		if err != nil {
			return err
		}
		if newest != term {
			return fmt.Errorf("store.%s: term %d: %w", op, term, ErrFenced)
		}
		return fn(t)
	})
}

// WorkerSession is a session with the facts that a worker told when it opened it, and what the platform asks of it.
type WorkerSession struct {
	protocol.Session
	Pool, Host, Version, Allocation string
	Slots, Weight                   int
	Tuned                           int    // slots that the leader wants it to use; 0: its own
	Drain                           string // who asked it to stop; "": nobody
	OpenedAt, BeatAt, EndedAt       time.Time
	EndReason                       string
}

const sessionColumns = `id, worker, beat, alive, pool, host, version, allocation, slots, weight, tuned, drain, opened_at, beat_at, ended_at, end_reason`

func scanSession(r pgx.Rows, s *WorkerSession) error {
	return r.Scan((*dbID)(&s.ID), &s.Worker, &s.Beat, &s.Alive, &s.Pool, &s.Host, &s.Version, &s.Allocation, &s.Slots, &s.Weight, &s.Tuned, &s.Drain, dbTime{&s.OpenedAt}, dbTime{&s.BeatAt}, dbTime{&s.EndedAt}, &s.EndReason)
}

// ListSessions lists the sessions that are alive, and those that ended after since.
func (db *DB) ListSessions(ctx context.Context, since time.Time) ([]WorkerSession, error) {
	return list(ctx, db, db.replica, "ListSessions", `SELECT `+sessionColumns+` FROM sessions WHERE alive OR ended_at >= $1 ORDER BY id`, scanSession, at(since))
}

// AliveSessions lists the sessions that are alive, on the primary.
func (db *DB) AliveSessions(ctx context.Context) ([]WorkerSession, error) {
	return list(ctx, db, db.primary, "AliveSessions", `SELECT `+sessionColumns+` FROM sessions WHERE alive ORDER BY id`, scanSession)
}

// DrainWorker asks the live sessions of a worker to stop, and gives their ids; ErrNotFound when it has none.
func (db *DB) DrainWorker(ctx context.Context, worker, by string) ([]protocol.ID, error) {
	ids, err := write(ctx, db, "DrainWorker", `UPDATE sessions SET drain = $2 WHERE worker = $1 AND alive RETURNING id`, scanID, clean(worker), clean(by))
	return ids, found(len(ids), err, "DrainWorker")
}

// Tune writes how many slots sessions shall use, under the leader's term; those that are dead or stand there already are left alone.
func (db *DB) Tune(ctx context.Context, term int64, slots map[protocol.ID]int) error {
	ids, counts := make([]protocol.ID, 0, len(slots)), make([]int32, 0, len(slots))
	for id, n := range slots {
		ids, counts = append(ids, id), append(counts, int32(n))
	}
	return db.fenced(ctx, "Tune", term, func(t *tx) error {
		_, err := t.conn.Exec(ctx, `
			WITH wanted AS (SELECT * FROM unnest($1::uuid[], $2::int[]) AS u (id, slots)),
			held AS MATERIALIZED (SELECT s.id, wanted.slots FROM sessions s JOIN wanted ON wanted.id = s.id WHERE s.alive AND s.tuned <> wanted.slots ORDER BY s.id FOR NO KEY UPDATE OF s)
			UPDATE sessions s SET tuned = held.slots FROM held WHERE s.id = held.id`, dbIDs(ids), counts)
		return err
	})
}

// Decision is what a leader decided, and why.
type Decision struct {
	ID      protocol.ID
	Term    int64
	Kind    string // "scale"
	Subject string // of a scale: the pool
	Reason  string
	Detail  json.RawMessage
	At      time.Time
	DoneAt  time.Time // zero: not done (yet)
	Outcome string
}

// Decide writes a decision before it is acted on, under the leader's term. A zero ID is made and returned.
func (db *DB) Decide(ctx context.Context, d Decision) (protocol.ID, error) {
	if d.ID.IsZero() {
		d.ID = NewID()
	}
	return d.ID, db.fenced(ctx, "Decide", d.Term, func(t *tx) error {
		_, err := t.conn.Exec(ctx, `INSERT INTO decisions (id, term, kind, subject, reason, detail, done_at, outcome) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING`,
			dbID(d.ID), d.Term, d.Kind, clean(d.Subject), clean(d.Reason), nilIfEmpty(d.Detail), at(d.DoneAt), clean(d.Outcome))
		return err
	})
}

// Decided writes what became of a decision.
func (db *DB) Decided(ctx context.Context, id protocol.ID, outcome string) error {
	_, err := exec(ctx, db, "Decided", `UPDATE decisions SET done_at = clock_timestamp(), outcome = $2 WHERE id = $1`, dbID(id), clean(outcome))
	return err
}

// ListDecisions lists decisions of a kind, newest first.
func (db *DB) ListDecisions(ctx context.Context, kind string, p Page) ([]Decision, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.primary, "ListDecisions", `SELECT id, term, kind, subject, reason, detail, at, done_at, outcome FROM decisions WHERE kind = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3`,
		func(r pgx.Rows, d *Decision) error {
			return r.Scan((*dbID)(&d.ID), &d.Term, &d.Kind, &d.Subject, &d.Reason, (*[]byte)(&d.Detail), dbTime{&d.At}, dbTime{&d.DoneAt}, &d.Outcome)
		}, kind, after, p.limit()+1)
	rows, next := cut(rows, p, func(d *Decision) protocol.ID { return d.ID })
	return rows, next, err
}

// PutLeaderState writes what the leader holds to be so, under its term.
func (db *DB) PutLeaderState(ctx context.Context, term int64, name string, value json.RawMessage) error {
	return db.fenced(ctx, "PutLeaderState", term, func(t *tx) error {
		_, err := t.conn.Exec(ctx, `INSERT INTO leader_state (name, term, value) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET term = excluded.term, value = excluded.value, at = clock_timestamp()`, name, term, []byte(value))
		return err
	})
}

// LeaderState reads what a leader wrote last; ErrNotFound when none has.
func (db *DB) LeaderState(ctx context.Context, name string) (json.RawMessage, error) {
	return scalar[[]byte](ctx, db, db.primary, "LeaderState", `SELECT value FROM leader_state WHERE name = $1`, name)
}

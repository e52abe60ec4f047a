package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// Letter is a dead letter with what people did about it.
type Letter struct {
	protocol.DeadLetter
	AskedAt  time.Time // zero: nobody wants it back
	AskedBy  string
	DoneAt   time.Time // zero: open
	Outcome  string    // what became of the last requeue
	EditedBy string
}

// LetterFilter chooses dead letters; the zero value is all that are open.
type LetterFilter struct {
	IDs       []protocol.ID // nil: any
	Reason    string
	Kind      string
	Origin    string
	Execution protocol.ID
	Done      bool // those that are done with, too
}

const letterColumns = `id, kind, reason, detail, origin, execution_id, body, count, at, asked_at, asked_by, done_at, outcome, edited_by`

func scanLetter(r pgx.Rows, l *Letter) error {
	return r.Scan((*dbID)(&l.ID), &l.Kind, &l.Reason, &l.Detail, &l.Origin, (*dbID)(&l.Execution), &l.Body, &l.Count, dbTime{&l.At}, dbTime{&l.AskedAt}, &l.AskedBy, dbTime{&l.DoneAt}, &l.Outcome, &l.EditedBy)
}

// letterWhere has the filter as $1…$6.
const letterWhere = `($1::uuid[] IS NULL OR id = ANY($1)) AND ($2 = '' OR reason = $2) AND ($3 = '' OR kind = $3) AND ($4 = '' OR origin = $4) AND ($5::uuid IS NULL OR execution_id = $5) AND ($6 OR done_at IS NULL)`

func (f *LetterFilter) args(more ...any) []any {
	var ids any
	if f.IDs != nil {
		ids = dbIDs(f.IDs)
	}
	var execution any
	if !f.Execution.IsZero() {
		execution = dbID(f.Execution)
	}
	return append([]any{ids, clean(f.Reason), clean(f.Kind), clean(f.Origin), execution, f.Done}, more...)
}

// Letters lists dead letters, newest first, with their bodies.
func (db *DB) Letters(ctx context.Context, f LetterFilter, p Page) ([]Letter, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.primary, "Letters", `SELECT `+letterColumns+` FROM dead_letters WHERE `+letterWhere+` AND ($7::uuid IS NULL OR id < $7) ORDER BY id DESC LIMIT $8`, scanLetter, f.args(after, p.limit()+1)...)
	rows, next := cut(rows, p, func(l *Letter) protocol.ID { return l.ID })
	return rows, next, err
}

// LetterOf reads one, done with or not.
func (db *DB) LetterOf(ctx context.Context, id protocol.ID) (Letter, error) {
	return one(ctx, db, db.primary, "LetterOf", `SELECT `+letterColumns+` FROM dead_letters WHERE id = $1`, scanLetter, dbID(id))
}

// LetterGroup is how many dead letters have one reason.
type LetterGroup struct {
	Reason, Kind, Origin string
	Count                int
	Oldest, Newest       time.Time
}

// maxGroups bounds LetterGroups.
const maxGroups = 500

// LetterGroups counts dead letters by reason, kind and origin, the most first.
func (db *DB) LetterGroups(ctx context.Context, f LetterFilter) ([]LetterGroup, error) {
	return list(ctx, db, db.primary, "LetterGroups", `SELECT reason, kind, origin, count(*), min(at), max(at) FROM dead_letters WHERE `+letterWhere+` GROUP BY reason, kind, origin ORDER BY count(*) DESC, reason, kind, origin LIMIT $7`,
		func(r pgx.Rows, g *LetterGroup) error {
			return r.Scan(&g.Reason, &g.Kind, &g.Origin, &g.Count, dbTime{&g.Oldest}, dbTime{&g.Newest})
		}, f.args(maxGroups)...)
}

// MaxLetters is how many dead letters one call requeues or purges.
const MaxLetters = 10_000

// AskRequeue asks the leader to bring dead letters back, and tells how many; those that are asked for already are counted too.
func (db *DB) AskRequeue(ctx context.Context, f LetterFilter, by string) (int, error) {
	f.Done = false
	return exec(ctx, db, "AskRequeue", `UPDATE dead_letters SET asked_at = clock_timestamp(), asked_by = $7, outcome = '' WHERE id IN (SELECT id FROM dead_letters WHERE `+letterWhere+` ORDER BY id LIMIT $8 FOR UPDATE)`, f.args(clean(by), MaxLetters)...)
}

// EditLetter changes the body of one that is open and that nobody has asked for; ErrStale when it isn't so.
func (db *DB) EditLetter(ctx context.Context, id protocol.ID, body []byte, by string) error {
	n, err := exec(ctx, db, "EditLetter", `UPDATE dead_letters SET body = $2, edited_by = $3 WHERE id = $1 AND done_at IS NULL AND asked_at IS NULL`, dbID(id), body, clean(by))
	if err == nil && n == 0 {
		if _, err = db.LetterOf(ctx, id); err == nil {
			err = fmt.Errorf("store.EditLetter: %w", ErrStale)
		}
	}
	return err
}

// PurgeLetters removes dead letters for good, and tells how many.
func (db *DB) PurgeLetters(ctx context.Context, f LetterFilter) (int, error) {
	return exec(ctx, db, "PurgeLetters", `DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE `+letterWhere+` ORDER BY id LIMIT $7 FOR UPDATE)`, f.args(MaxLetters)...)
}

// AskedLetters lists those that people want back, the oldest first.
func (db *DB) AskedLetters(ctx context.Context, limit int) ([]Letter, error) {
	return list(ctx, db, db.primary, "AskedLetters", `SELECT `+letterColumns+` FROM dead_letters WHERE asked_at IS NOT NULL AND done_at IS NULL ORDER BY id LIMIT $1`, scanLetter, limit)
}

const finishLetter = `UPDATE dead_letters SET done_at = CASE WHEN $3 THEN clock_timestamp() END, asked_at = CASE WHEN $3 THEN asked_at END, outcome = $2 WHERE id = $1 AND asked_at IS NOT NULL AND done_at IS NULL`

// FinishLetter writes what became of a requeue: done, or refused; then it is open again, with the reason.
func (db *DB) FinishLetter(ctx context.Context, id protocol.ID, outcome string, done bool) error {
	_, err := exec(ctx, db, "FinishLetter", finishLetter, dbID(id), clean(outcome), done)
	return err
}

var errLetterGone = errors.New("the letter is done with already")

// RequeueExecution hands the execution of a letter out again and finishes the letter, in one transaction: of two leaders one does it. What is left to be done after
// COMMIT is in the outcome.
func (db *DB) RequeueExecution(ctx context.Context, letter, execution protocol.ID) (out protocol.Outcome, outcome string, err error) {
	err = db.txn(ctx, "RequeueExecution", func(t *tx) error {
		var found map[protocol.ID]protocol.State
		var err error
		if out, found, err = protocol.Requeue(ctx, t, []protocol.ID{execution}); err != nil {
			return err
		}
		state, ok := found[execution]
		switch {
		case !ok:
			outcome = "refused: no execution has this id any more"
		case state == protocol.Failed:
			outcome = "requeued: the execution goes on from its last confirmed step"
		case state == protocol.Queued:
			outcome = "requeued: its task is published again"
		default:
			outcome = "nothing to do: the execution is " + string(state)
		}
		tag, err := t.conn.Exec(ctx, finishLetter, dbID(letter), outcome, ok)
		if err == nil && tag.RowsAffected() == 0 {
			err = errLetterGone
		}
		return err
	})
	if errors.Is(err, errLetterGone) {
		return protocol.Outcome{}, "", nil
	}
	return out, outcome, err
}

// ShardOf is the report queue of an execution; ErrNotFound when there is none.
func (db *DB) ShardOf(ctx context.Context, execution protocol.ID) (int, error) {
	return scalar[int](ctx, db, db.primary, "ShardOf", `SELECT shard FROM executions WHERE id = $1`, dbID(execution))
}

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// Limits of bulk jobs.
const (
	MaxBulkItems = 100_000
	MaxBulkOpen  = 20 // jobs that are not finished
)

// Actions of bulk jobs.
const (
	BulkCancel = "cancel"
	BulkRetry  = "retry"
	BulkReplay = "replay"
)

// Bulk is one action over many executions.
type Bulk struct {
	ID         protocol.ID
	Action     string
	AskedBy    string
	Rate       int // items a second
	Total      int
	Done       int
	Failed     int
	Skipped    int
	CreatedAt  time.Time
	StartedAt  time.Time
	FinishedAt time.Time
	StoppedBy  string
}

// Position is how many items are behind it: they are worked off in their order.
func (b *Bulk) Position() int { return b.Done + b.Failed + b.Skipped }

// BulkItem is one execution of a job.
type BulkItem struct {
	N         int
	Execution protocol.ID
	Outcome   string // "": not yet; done, failed, skipped
	Reason    string
	Result    protocol.ID // the replay
	At        time.Time
}

const bulkColumns = `id, action, asked_by, rate, total, done, failed, skipped, created_at, started_at, finished_at, stopped_by`

func scanBulk(r pgx.Rows, b *Bulk) error {
	return r.Scan((*dbID)(&b.ID), &b.Action, &b.AskedBy, &b.Rate, &b.Total, &b.Done, &b.Failed, &b.Skipped, dbTime{&b.CreatedAt}, dbTime{&b.StartedAt}, dbTime{&b.FinishedAt}, &b.StoppedBy)
}

// ErrTooMany says that a filter meets more than a job may have.
var ErrTooMany = fmt.Errorf("more than %d executions", MaxBulkItems)

// ErrKeyReused says that an Idempotency-Key was used before with another body.
var ErrKeyReused = errors.New("the key was used before with another body")

// CreateBulk stores a job over the ids, or over what a filter meets now, the oldest first. With a key that was used before it gives the job of that time.
// ErrFull: too many jobs are open. ErrTooMany. ErrKeyReused.
func (db *DB) CreateBulk(ctx context.Context, b Bulk, ids []protocol.ID, f *ExecutionFilter, key IdempotencyKey) (made Bulk, again bool, err error) {
	err = db.txn(ctx, "CreateBulk", func(t *tx) error {
		made, again = Bulk{}, false
		if _, err := t.conn.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('flow_bulk'))`); err != nil {
			return err
		}
		if key.Key != "" {
			rows, err := t.conn.Query(ctx, `SELECT `+bulkColumns+` FROM bulk_jobs WHERE scope = $1 AND key = $2`, key.Scope, key.Key)
			if err != nil {
				return err
			}
			known, err := collect(rows, scanBulk)
			if err != nil {
				return err
			}
			if len(known) == 1 {
				var hash []byte
				if err := t.conn.QueryRow(ctx, `SELECT body_hash FROM bulk_jobs WHERE id = $1`, dbID(known[0].ID)).Scan(&hash); err != nil {
					return err
				}
				if !slices.Equal(hash, key.BodyHash) {
					return ErrKeyReused
				}
				made, again = known[0], true
				return nil
			}
		}
		var open int
		if err := t.conn.QueryRow(ctx, `SELECT count(*) FROM bulk_jobs WHERE finished_at IS NULL`).Scan(&open); err != nil {
			return err
		}
		if open >= MaxBulkOpen {
			return ErrFull
		}
		return t.insertBulk(ctx, b, ids, f, key, &made)
	})
	return made, again, err
}

func (t *tx) insertBulk(ctx context.Context, b Bulk, ids []protocol.ID, f *ExecutionFilter, key IdempotencyKey, made *Bulk) error {
	if _, err := t.conn.Exec(ctx, `INSERT INTO bulk_jobs (id, action, asked_by, rate, total, scope, key, body_hash) VALUES ($1, $2, $3, $4, 0, $5, $6, $7)`,
		dbID(b.ID), b.Action, clean(b.AskedBy), b.Rate, key.Scope, key.Key, nilIfEmpty(key.BodyHash)); err != nil {
		return err
	}
	sql, args := `INSERT INTO bulk_items (job_id, n, execution_id) SELECT $1, row_number() OVER (ORDER BY min(u.n)), u.id FROM unnest($2::uuid[]) WITH ORDINALITY AS u (id, n) GROUP BY u.id`, []any{dbID(b.ID), dbIDs(ids)}
	if f != nil {
		var where strings.Builder
		args = []any{dbID(b.ID), MaxBulkItems + 1}
		f.narrow(func(cond string, v any) {
			args = append(args, v)
			where.WriteString(" AND " + strings.ReplaceAll(cond, "$", fmt.Sprintf("$%d", len(args))))
		})
		sql = `INSERT INTO bulk_items (job_id, n, execution_id) SELECT $1, row_number() OVER (ORDER BY x.id), x.id FROM (SELECT e.id FROM executions e WHERE true` + where.String() + ` ORDER BY e.id LIMIT $2) AS x`
	}
	tag, err := t.conn.Exec(ctx, sql, args...)
	if err != nil {
		return err
	}
	if tag.RowsAffected() > MaxBulkItems {
		return ErrTooMany
	}
	rows, err := t.conn.Query(ctx, `UPDATE bulk_jobs SET total = $2 WHERE id = $1 RETURNING `+bulkColumns, dbID(b.ID), tag.RowsAffected())
	if err != nil {
		return err
	}
	all, err := collect(rows, scanBulk)
	if err == nil {
		*made = all[0]
	}
	return err
}

// BulkByID reads a job.
func (db *DB) BulkByID(ctx context.Context, id protocol.ID) (Bulk, error) {
	return one(ctx, db, db.primary, "BulkByID", `SELECT `+bulkColumns+` FROM bulk_jobs WHERE id = $1`, scanBulk, dbID(id))
}

// ListBulk lists jobs, the newest first.
func (db *DB) ListBulk(ctx context.Context, p Page) ([]Bulk, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.primary, "ListBulk", `SELECT `+bulkColumns+` FROM bulk_jobs WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2`, scanBulk, after, p.limit()+1)
	rows, next := cut(rows, p, func(b *Bulk) protocol.ID { return b.ID })
	return rows, next, err
}

// BulkItems lists a job's items in their order, after the n-th; outcome "": whatever became of them.
func (db *DB) BulkItems(ctx context.Context, job protocol.ID, after int, outcome string, limit int) ([]BulkItem, error) {
	return list(ctx, db, db.primary, "BulkItems", `SELECT n, execution_id, outcome, reason, result_id, at FROM bulk_items WHERE job_id = $1 AND n > $2 AND ($3 = '' OR outcome = $3) ORDER BY n LIMIT $4`, func(r pgx.Rows, i *BulkItem) error {
		return r.Scan(&i.N, (*dbID)(&i.Execution), &i.Outcome, &i.Reason, (*dbID)(&i.Result), dbTime{&i.At})
	}, dbID(job), after, outcome, limit)
}

// StopBulk asks for the end of a job: what isn't done yet is skipped. It tells whether that changed anything.
func (db *DB) StopBulk(ctx context.Context, id protocol.ID, by string) (bool, error) {
	n, err := exec(ctx, db, "StopBulk", `UPDATE bulk_jobs SET stopped_by = $2 WHERE id = $1 AND finished_at IS NULL AND stopped_by = ''`, dbID(id), clean(by))
	return n > 0, err
}

// OpenBulk lists the jobs that are not finished, the oldest first.
func (db *DB) OpenBulk(ctx context.Context) ([]Bulk, error) {
	return list(ctx, db, db.primary, "OpenBulk", `SELECT `+bulkColumns+` FROM bulk_jobs WHERE finished_at IS NULL ORDER BY id`, scanBulk)
}

// PurgeBulk removes jobs that were finished before an age, a few at a time.
func (db *DB) PurgeBulk(ctx context.Context, age time.Duration) (int, error) {
	return exec(ctx, db, "PurgeBulk", `DELETE FROM bulk_jobs WHERE id IN (SELECT id FROM bulk_jobs WHERE finished_at < now() - $1::interval ORDER BY id LIMIT 10)`, age)
}

// BulkStep works off the next n items of a job, in one transaction with what is done to their executions: of two leaders one does an item, and what was not
// committed is not done. do is given the transaction and the items' executions, in their order, and says what became of each; it may be called again.
//
// The job's row is locked first: nobody who holds an execution's lock asks for it.
func (db *DB) BulkStep(ctx context.Context, id protocol.ID, n int, do func(t *BulkTx, executions []protocol.ID) ([]BulkItem, error)) (job Bulk, err error) {
	err = db.txn(ctx, "BulkStep", func(t *tx) error {
		rows, err := t.conn.Query(ctx, `SELECT `+bulkColumns+` FROM bulk_jobs WHERE id = $1 FOR UPDATE`, dbID(id))
		if err != nil {
			return err
		}
		jobs, err := collect(rows, scanBulk)
		if err != nil || len(jobs) == 0 {
			return errors.Join(err, noJob(jobs))
		}
		job = jobs[0]
		switch {
		case !job.FinishedAt.IsZero():
			return nil
		case job.StoppedBy != "":
			_, err = t.conn.Exec(ctx, `UPDATE bulk_items SET outcome = 'skipped', reason = $3, at = clock_timestamp() WHERE job_id = $1 AND n > $2`, dbID(id), job.Position(), "the job was cancelled by "+job.StoppedBy)
			job.Skipped = job.Total - job.Done - job.Failed
		default:
			err = t.bulkItems(ctx, &job, n, do)
		}
		if err != nil {
			return err
		}
		return t.conn.QueryRow(ctx, `UPDATE bulk_jobs SET done = $2::int, failed = $3::int, skipped = $4::int, started_at = coalesce(started_at, clock_timestamp()), finished_at = CASE WHEN $2::int + $3::int + $4::int >= total THEN clock_timestamp() END
			WHERE id = $1 RETURNING finished_at`, dbID(id), job.Done, job.Failed, job.Skipped).Scan(dbTime{&job.FinishedAt})
	})
	return job, err
}

func noJob(jobs []Bulk) error {
	if len(jobs) == 0 {
		return fmt.Errorf("store.BulkStep: %w", ErrNotFound)
	}
	return nil
}

// BulkTx is the transaction of a step.
type BulkTx struct{ *tx }

// InsertReplay stores a replay as a part of the step.
func (t *BulkTx) InsertReplay(ctx context.Context, r *Replay) error {
	if err := r.check(); err != nil {
		return err
	}
	_, err := t.insertReplay(ctx, r)
	return err
}

func (t *tx) bulkItems(ctx context.Context, job *Bulk, n int, do func(*BulkTx, []protocol.ID) ([]BulkItem, error)) error {
	rows, err := t.conn.Query(ctx, `SELECT execution_id FROM bulk_items WHERE job_id = $1 AND n > $2 ORDER BY n LIMIT $3`, dbID(job.ID), job.Position(), n)
	if err != nil {
		return err
	}
	ids, err := collect(rows, scanID)
	if err != nil || len(ids) == 0 {
		return err
	}
	items, err := do(&BulkTx{t}, ids)
	if err != nil {
		return err
	}
	if len(items) != len(ids) {
		return fmt.Errorf("store.BulkStep: %d outcomes of %d items", len(items), len(ids))
	}
	first := job.Position() + 1
	ns, outcomes, reasons, results := make([]int32, len(items)), make([]string, len(items)), make([]string, len(items)), make([]protocol.ID, len(items))
	for i, it := range items {
		ns[i], outcomes[i], reasons[i], results[i] = int32(first+i), it.Outcome, clean(it.Reason), it.Result
		switch it.Outcome {
		case "done":
			job.Done++
		case "failed":
			job.Failed++
		default:
			job.Skipped++
		}
	}
	_, err = t.conn.Exec(ctx, `UPDATE bulk_items i SET outcome = u.outcome, reason = u.reason, result_id = u.result, at = clock_timestamp()
		FROM unnest($2::int[], $3::text[], $4::text[], $5::uuid[]) AS u (n, outcome, reason, result) WHERE i.job_id = $1 AND i.n = u.n`, dbID(job.ID), ns, outcomes, reasons, dbIDs(results))
	return err
}

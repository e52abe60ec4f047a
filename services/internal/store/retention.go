package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// DeleteBatch is how many executions or rows one call deletes at the most.
const DeleteBatch = 1000

// dependents are what dies with an execution and is not in a partition of its day.
var dependents = []string{"payloads", "waits", "letters", "calls", "remote_tasks", "slots", "debounced_inputs"}

// retentionOf reads settings.retention of a flow document; nil: it has none, and the platform's holds. The documents that come here were checked: what
// can't be read is as good as not there.
//
// It is a column of the version and not of the execution: the hot path is spared a value that is the same for millions of rows, deletes find their rows by
// the index (flow_id, id), and a changed retention holds for what is stored already.
func retentionOf(doc json.RawMessage) *time.Duration {
	var d struct {
		Settings struct {
			Retention flow.Duration `json:"retention"`
		} `json:"settings"`
	}
	if json.Unmarshal(doc, &d) != nil || d.Settings.Retention <= 0 {
		return nil
	}
	keep := time.Duration(d.Settings.Retention)
	return &keep
}

// FlowRetention says how long a flow's ended executions are kept.
type FlowRetention struct {
	Flow protocol.ID
	Keep time.Duration
}

// FlowRetentions lists the flows with a retention of their own, deleted ones too: that of the published version, else of the newest.
func (db *DB) FlowRetentions(ctx context.Context) ([]FlowRetention, error) {
	return list(ctx, db, db.primary, "FlowRetentions", `SELECT f.id, v.retention FROM flow_versions v JOIN flows f ON f.id = v.flow_id AND v.version = CASE f.published WHEN 0 THEN f.latest ELSE f.published END
		WHERE v.retention IS NOT NULL ORDER BY f.id`, func(r pgx.Rows, f *FlowRetention) error { return r.Scan((*dbID)(&f.Flow), &f.Keep) })
}

// PartitionDays lists the days (midnight UTC) that have partitions, oldest first, and tells the database's clock.
func (db *DB) PartitionDays(ctx context.Context) (days []time.Time, now time.Time, err error) {
	type row struct {
		name *string
		now  time.Time
	}
	rows, err := list(ctx, db, db.primary, "PartitionDays", `SELECT p.relname, clock_timestamp() FROM (SELECT) AS one LEFT JOIN
		(SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'executions'::regclass) AS p ON true ORDER BY p.relname`,
		func(r pgx.Rows, v *row) error { return r.Scan(&v.name, dbTime{&v.now}) })
	if err != nil {
		return nil, time.Time{}, err
	}
	for _, r := range rows {
		now = r.now
		if r.name == nil {
			continue
		}
		day, err := time.Parse("executions_20060102", *r.name)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("store.PartitionDays: the partition %q is not one of ours: detach it", *r.name)
		}
		days = append(days, day)
	}
	return days, now, nil
}

// Dropped tells what became of an attempt to drop a day.
type Dropped string

// Answers of DropPartitions.
const (
	DayDropped Dropped = "dropped"
	DayMissing Dropped = "missing" // there is no such day (any more)
	DayInUse   Dropped = "in use"  // an execution of that day isn't final, or ended too lately
	DayLocked  Dropped = "locked"  // somebody reads or writes, and has not let go in time: try again later
)

// DropPartitions drops the partitions of a day (UTC) if every execution in them is final and ended before a time. While it waits for its lock, everybody
// waits behind it: patience (900 ms at most) is what that may cost.
func (db *DB) DropPartitions(ctx context.Context, day, endedBefore time.Time, patience time.Duration) (Dropped, error) {
	var out Dropped
	err := db.txn(ctx, "DropPartitions", func(t *tx) error {
		// To look through a day of many millions takes longer than a statement may otherwise.
		if _, err := t.conn.Exec(ctx, `SET LOCAL statement_timeout = '5min'`); err != nil {
			return err
		}
		return t.conn.QueryRow(ctx, `SELECT flow_drop_partitions($1::date, $2, $3)`, day.UTC().Format(time.DateOnly), endedBefore, patience.Milliseconds()).Scan((*string)(&out))
	})
	return out, err
}

// Ended chooses executions that are final, by the range of their ids.
type Ended struct {
	From, To  protocol.ID   // From <= id < To; FirstID makes them of times
	Flow      protocol.ID   // only this flow's; zero: of all flows
	NotFlows  []protocol.ID // not these flows'
	EndedLast time.Duration // those that ended longer ago than this, by the database's clock
}

// DeleteEnded deletes a batch of ended executions with all that is stored of them, in the order of ids. It returns how many, and the last of them. Rows that
// others hold are left for another time; fewer than DeleteBatch: there are no more now.
func (db *DB) DeleteEnded(ctx context.Context, e Ended) (n int, last protocol.ID, err error) {
	var only *dbID
	if !e.Flow.IsZero() {
		only = (*dbID)(&e.Flow)
	}
	err = db.txn(ctx, "DeleteEnded", func(t *tx) error {
		ids, err := t.ids(ctx, `SELECT id FROM executions WHERE id >= $1 AND id < $2 AND ($3::uuid IS NULL OR flow_id = $3) AND flow_id <> ALL ($4)
			AND state IN ('succeeded', 'failed', 'cancelled', 'timed_out') AND finished_at < $5 ORDER BY id LIMIT $6 FOR UPDATE SKIP LOCKED`,
			dbIDOrFirst(e.From), dbID(e.To), only, dbIDs(e.NotFlows), t.now.Add(-e.EndedLast), DeleteBatch)
		if n = len(ids); err != nil || n == 0 {
			return err
		}
		last = ids[n-1]
		lo, hi := bounds(ids)
		for _, table := range slices.Concat(dependents, []string{"reports"}) {
			if _, err := t.conn.Exec(ctx, `DELETE FROM `+table+` WHERE execution_id = ANY ($1) AND execution_id BETWEEN $2 AND $3`, dbIDs(ids), lo, hi); err != nil {
				return fmt.Errorf("%s: %w", table, err)
			}
		}
		_, err = t.conn.Exec(ctx, `DELETE FROM executions WHERE id = ANY ($1) AND id BETWEEN $2 AND $3`, dbIDs(ids), lo, hi)
		return err
	})
	return n, last, err
}

// dbIDOrFirst is an id as a bound: zero is the smallest id, not NULL.
func dbIDOrFirst(id protocol.ID) dbID {
	if id.IsZero() {
		id[15] = 1
	}
	return dbID(id)
}

// FirstID is the smallest UUIDv7 of a time.
func FirstID(t time.Time) (id protocol.ID) {
	ms := t.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// DeleteOrphans deletes a batch of what belongs to executions with ids in a range that has no partition, and tells how many rows of each table.
func (db *DB) DeleteOrphans(ctx context.Context, from, to protocol.ID) (map[string]int, error) {
	out := map[string]int{}
	for _, table := range dependents {
		n, err := exec(ctx, db, "DeleteOrphans", `DELETE FROM `+table+` WHERE ctid = ANY (ARRAY(SELECT ctid FROM `+table+` WHERE execution_id >= $1 AND execution_id < $2 LIMIT $3))`,
			dbIDOrFirst(from), dbID(to), DeleteBatch)
		if err != nil {
			return out, err
		}
		out[table] = n
	}
	return out, nil
}

// old are the tables whose rows have a bound of their own, and what is old in them before $1; $2 is the first id of that time.
var old = map[string]string{
	"idempotency_keys": `created_at < $1`,
	"sessions":         `settled_at < $1`,
	"letters":          `(taken_at < $1 OR expires_at < $1)`,
	"dead_letters":     `at < $1`,
	"decisions":        `id < $2 AND at < $1`,
	"fires":            `at < $1`,
	"catches":          `at < $1`,
}

// DeleteOld deletes a batch of a table's rows that are older than keep, and tells how many: idempotency_keys, sessions (settled ones), letters (taken or
// expired), dead_letters, decisions, fires, catches, audit (not below 90 days).
func (db *DB) DeleteOld(ctx context.Context, table string, keep time.Duration) (n int, err error) {
	if table == "audit" {
		return writeOne(ctx, db, "DeleteOld", `SELECT flow_purge_audit(clock_timestamp() - $1::interval, $2)`, func(r pgx.Rows, v *int) error { return r.Scan(v) }, keep, DeleteBatch)
	}
	where, known := old[table]
	if !known {
		return 0, fmt.Errorf("store.DeleteOld: nobody has said what is old in %q", table)
	}
	err = db.txn(ctx, "DeleteOld", func(t *tx) error {
		before := t.now.Add(-keep)
		tag, err := t.conn.Exec(ctx, `DELETE FROM `+table+` WHERE ctid = ANY (ARRAY(SELECT ctid FROM `+table+` WHERE $2::uuid IS NOT NULL AND `+where+` LIMIT $3))`, before, dbID(FirstID(before)), DeleteBatch)
		n = int(tag.RowsAffected())
		return err
	})
	return n, err
}

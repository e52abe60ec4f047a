package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// AuditEntry says who changed what.
type AuditEntry struct {
	ID       protocol.ID // zero: made
	At       time.Time   // zero: the database's clock
	Actor    string      // e-mail address, or the service
	Action   string      // "create", "update", "delete", …
	Object   string      // "flow", "user", "setting", …
	ObjectID string
	Detail   json.RawMessage // nil: none
}

// AppendAudit stores an entry; nobody can change or remove it through a service.
func (db *DB) AppendAudit(ctx context.Context, e AuditEntry) error {
	if e.ID.IsZero() {
		e.ID = NewID()
	}
	_, err := exec(ctx, db, "AppendAudit", `INSERT INTO audit (id, at, actor, action, object, object_id, detail) VALUES ($1, coalesce($2, clock_timestamp()), $3, $4, $5, $6, $7)`,
		dbID(e.ID), at(e.At), clean(e.Actor), clean(e.Action), clean(e.Object), clean(e.ObjectID), nilIfEmpty(e.Detail))
	return err
}

// ListAudit lists entries, newest first.
func (db *DB) ListAudit(ctx context.Context, p Page) ([]AuditEntry, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.replica, "ListAudit", `SELECT id, at, actor, action, object, object_id, detail FROM audit WHERE ($1::uuid IS NULL OR id < $1) ORDER BY id DESC LIMIT $2`, func(r pgx.Rows, e *AuditEntry) error {
		return r.Scan((*dbID)(&e.ID), dbTime{&e.At}, &e.Actor, &e.Action, &e.Object, &e.ObjectID, (*[]byte)(&e.Detail))
	}, after, p.limit()+1)
	rows, next := cut(rows, p, func(e *AuditEntry) protocol.ID { return e.ID })
	return rows, next, err
}

// Setting reads a setting's JSON; ErrNotFound when it was never set: the default holds.
func (db *DB) Setting(ctx context.Context, name string) (json.RawMessage, error) {
	b, err := scalar[[]byte](ctx, db, db.primary, "Setting", `SELECT value FROM settings WHERE name = $1`, name)
	return b, err
}

// PutSetting writes a setting's JSON. Only the orchestrator's role may.
func (db *DB) PutSetting(ctx context.Context, name string, value json.RawMessage, by string) error {
	_, err := exec(ctx, db, "PutSetting", `INSERT INTO settings (name, value, updated_by) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_by = excluded.updated_by, updated_at = clock_timestamp(), revision = settings.revision + 1`, name, []byte(value), clean(by))
	return err
}

// ReportShards is the number of report queues: one row that all services read.
func (db *DB) ReportShards(ctx context.Context) (int, error) {
	return scalar[int](ctx, db, db.primary, "ReportShards", `SELECT report_shards FROM platform`)
}

// SetReportShards changes the number of report queues. An execution keeps the shard it was accepted with, so only raise it while all queues have collectors.
func (db *DB) SetReportShards(ctx context.Context, n int) error {
	_, err := exec(ctx, db, "SetReportShards", `UPDATE platform SET report_shards = $1`, n)
	return err
}

// RaiseTerm begins a term of leadership and returns its number, larger than all before.
func (db *DB) RaiseTerm(ctx context.Context, holder string) (int64, error) {
	var term int64
	err := db.txn(ctx, "RaiseTerm", func(t *tx) error {
		if _, err := t.conn.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('flow_terms'))`); err != nil {
			return err
		}
		return t.conn.QueryRow(ctx, `INSERT INTO terms (term, holder) SELECT coalesce(max(term), 0) + 1, $1 FROM terms RETURNING term`, clean(holder)).Scan(&term)
	})
	if err != nil {
		return 0, explain("RaiseTerm", err)
	}
	return term, nil
}

// CurrentTerm is the newest term and its holder; 0 before the first.
func (db *DB) CurrentTerm(ctx context.Context) (term int64, holder string, err error) {
	type row struct {
		term   int64
		holder string
	}
	rows, err := list(ctx, db, db.primary, "CurrentTerm", `SELECT term, holder FROM terms ORDER BY term DESC LIMIT 1`, func(r pgx.Rows, v *row) error { return r.Scan(&v.term, &v.holder) })
	if err != nil || len(rows) == 0 {
		return 0, "", err
	}
	return rows[0].term, rows[0].holder, nil
}

// InsertDeadLetters stores what could not be processed; an id that exists is left as it is, so that a message may come twice, and opened again if it was asked back.
func (db *DB) InsertDeadLetters(ctx context.Context, dead []protocol.DeadLetter) error {
	if len(dead) == 0 {
		return nil
	}
	st := insertDead(dead, time.Now())
	_, err := exec(ctx, db, "InsertDeadLetters", st.sql, st.args...)
	return err
}

// ListDeadLetters lists dead letters, newest first, with their bodies.
func (db *DB) ListDeadLetters(ctx context.Context, p Page) ([]protocol.DeadLetter, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.replica, "ListDeadLetters", `SELECT id, kind, reason, detail, origin, execution_id, body, count, at FROM dead_letters WHERE ($1::uuid IS NULL OR id < $1) ORDER BY id DESC LIMIT $2`, func(r pgx.Rows, d *protocol.DeadLetter) error {
		return r.Scan((*dbID)(&d.ID), &d.Kind, &d.Reason, &d.Detail, &d.Origin, (*dbID)(&d.Execution), &d.Body, &d.Count, dbTime{&d.At})
	}, after, p.limit()+1)
	rows, next := cut(rows, p, func(d *protocol.DeadLetter) protocol.ID { return d.ID })
	return rows, next, err
}

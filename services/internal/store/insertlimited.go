package store

import (
	"context"
	"errors"
	"fmt"

	"flowplatform/services/internal/protocol"
)

// ErrLimit says that a concurrency limit refuses a start (onLimit: reject).
var ErrLimit = errors.New("a concurrency limit of the flow is reached")

// errFreeAgain rolls an insert back whose idempotency key expired between two statements.
var errFreeAgain = errors.New("the idempotency key expired this moment")

// insertLimited stores executions of flows with limits, in one transaction: keys of idempotency first (in the order of their text), then the keys of flow control, then
// rows. It writes into each row what it is held for.
func (db *DB) insertLimited(ctx context.Context, rows []NewExecution) ([]Inserted, error) {
	var out []Inserted
	var outcome protocol.Outcome
	err := db.txn(ctx, "InsertLimited", func(t *tx) error {
		out = make([]Inserted, len(rows))
		places := make([]int, 0, len(rows)) // of the arrivals in rows
		arrivals := make([]protocol.Arrival, 0, len(rows))
		fresh, err := t.insertKeys(ctx, rows)
		if err != nil {
			return err
		}
		for i := range rows {
			e := &rows[i]
			out[i] = Inserted{ID: e.ID}
			switch err := e.check(); {
			case err != nil:
				out[i].Err = err
			case e.IdempotencyKey.Key == "" || fresh[e.ID]:
				places = append(places, i)
				arrivals = append(arrivals, protocol.Arrival{ID: e.ID, Group: e.Group, Paused: e.Paused != "", Input: e.Input, Limits: e.Limits})
			default:
				if out[i], err = t.duplicate(ctx, e); err != nil {
					return err
				}
			}
		}
		if len(arrivals) == 0 {
			return nil
		}
		outcome, err = protocol.PlaceArrivals(ctx, t, arrivals, func(placed []protocol.Place) error { return t.insertPlaced(ctx, rows, places, placed, out) })
		return err
	})
	if err != nil {
		return nil, explain("InsertLimited", err)
	}
	if f := db.afterInsert.Load(); f != nil {
		(*f)(outcome)
	}
	return out, nil
}

// AfterInsert says who takes what an insert of limited executions leaves to be done: keys at which others could be let in, owners to be told.
func (db *DB) AfterInsert(take func(protocol.Outcome)) { db.afterInsert.Store(&take) }

// insertKeys takes the rows' idempotency keys and tells which executions have theirs.
func (t *tx) insertKeys(ctx context.Context, rows []NewExecution) (map[protocol.ID]bool, error) {
	var scopes, keys []string
	var hashes [][]byte
	var ids []protocol.ID
	for i := range rows {
		if k := rows[i].IdempotencyKey; k.Key != "" && rows[i].check() == nil {
			hash := k.BodyHash
			if hash == nil {
				hash = []byte{}
			}
			scopes, keys, hashes, ids = append(scopes, k.Scope), append(keys, k.Key), append(hashes, hash), append(ids, rows[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return t.set(ctx, `INSERT INTO idempotency_keys (scope, key, body_hash, execution_id)
		SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[]) AS u (scope, key, hash, id) ORDER BY scope, key
		ON CONFLICT (scope, key) DO NOTHING RETURNING execution_id`, scopes, keys, hashes, dbIDs(ids))
}

// duplicate tells what a key stands for that was used before.
func (t *tx) duplicate(ctx context.Context, e *NewExecution) (Inserted, error) {
	out := Inserted{}
	var hash []byte
	rows, err := t.conn.Query(ctx, `SELECT execution_id, body_hash FROM idempotency_keys WHERE scope = $1 AND key = $2`, e.IdempotencyKey.Scope, e.IdempotencyKey.Key)
	if err != nil {
		return out, err
	}
	defer rows.Close()
	if !rows.Next() {
		return out, fmt.Errorf("%w: %w", ErrConflict, errFreeAgain)
	}
	if err := rows.Scan((*dbID)(&out.ID), &hash); err != nil {
		return out, err
	}
	out.Duplicate = string(hash) == string(e.IdempotencyKey.BodyHash)
	out.Conflict = !out.Duplicate
	return out, nil
}

// insertPlaced inserts those that have a place of their own, and notes what became of the others.
func (t *tx) insertPlaced(ctx context.Context, rows []NewExecution, at []int, placed []protocol.Place, out []Inserted) error {
	own := make([]*NewExecution, 0, len(placed))
	refused, merged := false, false
	for k, p := range placed {
		e, o := &rows[at[k]], &out[at[k]]
		switch {
		case p.Refused != nil:
			o.Refused = refusal(p.Refused)
			refused = true
		case !p.Into.IsZero():
			o.Merged, o.ID = true, p.Into
			merged = true
		default:
			e.Hold, e.Limited = p.Hold, len(e.Limits) > 0
			own = append(own, e)
		}
		e.ended = p.Ended != ""
		o.Ended = e.ended
	}
	if refused {
		if _, err := t.conn.Exec(ctx, `DELETE FROM idempotency_keys k USING unnest($1::text[], $2::text[]) AS u (scope, key) WHERE k.scope = u.scope AND k.key = u.key`, keyColumns(rows, at, placed)...); err != nil {
			return err
		}
	}
	if merged {
		for k, p := range placed {
			if key := rows[at[k]].IdempotencyKey; !p.Into.IsZero() && key.Key != "" {
				if _, err := t.conn.Exec(ctx, `UPDATE idempotency_keys SET execution_id = $3 WHERE scope = $1 AND key = $2`, key.Scope, key.Key, dbID(p.Into)); err != nil {
					return err
				}
			}
		}
	}
	if len(own) == 0 {
		return nil
	}
	args, large := insertArgs(own)
	sql := insertPlainSQL
	if len(large) > 0 {
		sql = insertWithPayloads("", insertPlainSQL, len(args))
		args = append(args, payloadArgs(large)...)
	}
	stored, err := t.ids(ctx, sql, args...)
	if err == nil && len(stored) != len(own) {
		err = fmt.Errorf("%d executions stored in place of %d", len(stored), len(own))
	}
	return err
}

func keyColumns(rows []NewExecution, at []int, placed []protocol.Place) []any {
	scopes, keys := []string{}, []string{}
	for k, p := range placed {
		if key := rows[at[k]].IdempotencyKey; p.Refused != nil && key.Key != "" {
			scopes, keys = append(scopes, key.Scope), append(keys, key.Key)
		}
	}
	return []any{scopes, keys}
}

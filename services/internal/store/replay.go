package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// Replay is a new execution that begins with events: with what an old one's steps gave, or with what people say they gave.
type Replay struct {
	NewExecution
	Events json.RawMessage            // the first report; nil: it begins as any other
	Large  map[string]json.RawMessage // outputs that the report names by their hash
}

// InsertReplay stores a replay with all that it begins with, in one transaction. Its Idempotency-Key holds as for any accept.
func (db *DB) InsertReplay(ctx context.Context, r *Replay) (Inserted, error) {
	rows := []NewExecution{r.NewExecution}
	out := []Inserted{{ID: r.ID}}
	if err := r.check(); err != nil {
		return Inserted{ID: r.ID, Err: err}, nil
	}
	var stored []protocol.ID
	err := db.txn(ctx, "InsertReplay", func(t *tx) error {
		var err error
		stored, err = t.insertReplay(ctx, r)
		return err
	})
	if err == nil && len(stored) == 0 {
		err = db.duplicates(ctx, rows, out, stored)
	}
	return out[0], err
}

// insertReplay stores one; nothing when its key is taken.
func (t *tx) insertReplay(ctx context.Context, r *Replay) ([]protocol.ID, error) {
	if _, err := t.deferLimits(ctx, []*NewExecution{&r.NewExecution}); err != nil {
		return nil, err
	}
	with, insert := "", insertPlainSQL
	list := []*NewExecution{&r.NewExecution}
	args, large := insertArgs(list)
	if r.IdempotencyKey.Key != "" {
		with, insert = insertKeysSQL, insertKeyedSQL
		args = append(args, keyArgs(list)...)
	}
	for _, raw := range r.Large {
		large = append(large, NewPayload(r.ID, raw))
	}
	total := 0
	for i := range large {
		total += large[i].Size
	}
	if total > protocol.MaxPayloads {
		return nil, fmt.Errorf("store.InsertReplay: %w", ErrPayloads)
	}
	sql := with + insert
	if len(large) > 0 {
		sql = insertWithPayloads(with, insert, len(args))
		args = append(args, payloadArgs(distinct(large))...)
	}
	rows, err := t.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	stored, err := collect(rows, scanID)
	if err == nil && len(stored) == 0 && r.Hold != "" { // its key was taken: it is another one's
		_, err = t.conn.Exec(ctx, `WITH s AS (DELETE FROM slots WHERE execution_id = $1), d AS (DELETE FROM debounces WHERE execution_id = $1) UPDATE waits SET closed_at = clock_timestamp() WHERE execution_id = $1`, dbID(r.ID))
	}
	if err != nil || len(stored) == 0 || r.Events == nil {
		return stored, err
	}
	var b pgx.Batch
	b.Queue(`UPDATE executions SET seeded = true WHERE id = $1`, dbID(r.ID))
	b.Queue(`INSERT INTO reports (execution_id, attempt, seq, events) VALUES ($1, 1, 0, $2)`, dbID(r.ID), []byte(r.Events))
	return stored, t.conn.SendBatch(ctx, &b).Close()
}

// distinct leaves out what is there twice: an input may be an output too.
func distinct(large []Payload) []Payload {
	seen := map[string]bool{}
	out := large[:0]
	for _, p := range large {
		if !seen[string(p.SHA256)] {
			seen[string(p.SHA256)] = true
			out = append(out, p)
		}
	}
	return out
}

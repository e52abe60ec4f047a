package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/protocol"
)

// Tasks implements protocol.Store: the rows and their reports in one round trip and one snapshot.
func (db *DB) Tasks(ctx context.Context, ids []protocol.ID) ([]protocol.Task, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	lo, hi := bounds(ids)
	var out []protocol.Task
	err := db.read(ctx, db.primary, "Tasks", func(c *pgxpool.Conn) error {
		out = make([]protocol.Task, 0, len(ids))
		rows, err := c.Query(ctx, `
			SELECT e.id, e.attempt, e.shard, e.project_id, e.flow_id, e.flow_version, e.pool, e.priority, e.trigger, e.labels, e.created_at, e.deadline, e.parent_id, e.deaths, e.cancel,
				e.input_codec, e.input, e.input_ref, e.input_size,
				CASE WHEN e.attempt = 1 AND e.seq = 0 AND NOT e.seeded THEN NULL ELSE
					(SELECT array_agg(r.events ORDER BY r.attempt, r.seq) FROM reports r WHERE r.execution_id = e.id) END
			FROM executions e
			WHERE e.id = ANY($1) AND e.id BETWEEN $2 AND $3 AND e.state = 'queued' AND e.hold = '' AND e.paused = '' AND e.owner IS NULL
			ORDER BY e.id`, dbIDs(ids), lo, hi)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			t := protocol.Task{V: protocol.SchemaVersion}
			var deaths, size int
			var codec string
			var input, ref []byte
			var steps [][]byte
			if err := rows.Scan((*dbID)(&t.ID), &t.Attempt, &t.Shard, (*dbID)(&t.Project), (*dbID)(&t.Flow), &t.Version, &t.Pool, &t.Priority, &t.Trigger, &t.Labels, dbTime{&t.CreatedAt}, dbTime{&t.Deadline},
				(*dbID)(&t.Parent), &deaths, (*string)(&t.Cancel), &codec, &input, &ref, &size, &steps); err != nil {
				return err
			}
			t.Suspect = deaths >= protocol.SuspectDeaths
			if len(t.Labels) == 0 {
				t.Labels = nil
			}
			if ref != nil {
				t.InputRef = &protocol.Value{Codec: codec, Ref: fmt.Sprintf("%x", ref), Size: size}
			} else if input != nil {
				t.Input = input
			}
			for _, events := range steps {
				t.Steps = append(t.Steps, json.RawMessage(events))
			}
			out = append(out, t)
		}
		return rows.Err()
	})
	return out, err
}

// markRows bounds the rows of one statement of MarkHanded: it holds their locks until it ends.
const markRows = 1000

// MarkHanded implements protocol.Store. It takes its locks in the order of ids and leaves out rows that others hold: a mark is never worth a wait.
//
// There is no join in it on purpose. Few rows are queued as the statistics see it, so a join with the list of marks was planned as a loop over the
// list for each row: 4 s, with the locks held, for 3,000 marks of a backlog.
func (db *DB) MarkHanded(ctx context.Context, tasks []protocol.Handed) error {
	byAttempt := map[int][]protocol.ID{}
	for _, h := range tasks {
		byAttempt[h.Attempt] = append(byAttempt[h.Attempt], h.ID)
	}
	for _, attempt := range slices.Sorted(maps.Keys(byAttempt)) {
		for ids := range slices.Chunk(byAttempt[attempt], markRows) {
			lo, hi := bounds(ids)
			if _, err := exec(ctx, db, "MarkHanded", `
				WITH held AS MATERIALIZED (
					SELECT e.id FROM executions e WHERE e.id = ANY($1) AND e.id BETWEEN $2 AND $3 AND e.state = 'queued' AND e.handed < $4
					ORDER BY e.id FOR UPDATE SKIP LOCKED)
				UPDATE executions e SET handed = $4 WHERE e.id = ANY(ARRAY(SELECT id FROM held)) AND e.id BETWEEN $2 AND $3`, dbIDs(ids), lo, hi, int32(attempt)); err != nil {
				return err
			}
		}
	}
	return nil
}

package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// SlotView is a slot that an execution waits for, as it is shown.
type SlotView struct {
	Kind, Value string
	Most        int // 0: as many as a window of its pool
	Held        int
	Before      int           // how many wait there before it, counted to 1,000
	Holders     []protocol.ID // the first of those that hold the key
}

// maxHolders bounds the ids that are shown.
const maxHolders = 10

// WaitingSlots lists the slots that an execution waits for.
func (db *DB) WaitingSlots(ctx context.Context, id protocol.ID) ([]SlotView, error) {
	return list(ctx, db, db.primary, "WaitingSlots", `
		SELECT s.kind, s.value, s.most, (SELECT count(*) FROM slots h WHERE h.key = s.key AND h.state = 'held'),
			(SELECT count(*) FROM (SELECT FROM slots w WHERE w.key = s.key AND w.state = 'waiting' AND (w.rank, w.execution_id) < (s.rank, s.execution_id) LIMIT 1000) AS few),
			ARRAY(SELECT h.execution_id FROM slots h WHERE h.key = s.key AND h.state = 'held' ORDER BY h.execution_id LIMIT $2)
		FROM slots s WHERE s.execution_id = $1 AND s.state = 'waiting' ORDER BY s.kind, s.key`, func(r pgx.Rows, v *SlotView) error {
		var holders []dbID
		err := r.Scan(&v.Kind, &v.Value, &v.Most, &v.Held, &v.Before, &holders)
		for _, h := range holders {
			v.Holders = append(v.Holders, protocol.ID(h))
		}
		return err
	}, dbID(id), maxHolders)
}

// WaitSum is what the executions of a flow have waited for one kind of reason.
type WaitSum struct {
	Kind     string
	Count    int
	Open     int // still
	Seconds  float64
	P50, P95 float64 // seconds
}

// WaitSums adds up the waits of a flow's executions that were accepted since a time, from the replica when there is one. What is still waited for counts up to now.
func (db *DB) WaitSums(ctx context.Context, flow protocol.ID, since time.Time) ([]WaitSum, error) {
	return list(ctx, db, db.replica, "WaitSums", `
		WITH w AS (SELECT w.kind, w.met_at IS NULL AND w.closed_at IS NULL AS open, greatest(0, extract(epoch FROM coalesce(w.met_at, w.closed_at, now()) - w.since))::float8 AS s
			FROM executions e JOIN waits w ON w.execution_id = e.id WHERE e.flow_id = $1 AND e.id >= flow_first_id($2))
		SELECT kind, count(*), count(*) FILTER (WHERE open), sum(s), percentile_cont(0.5) WITHIN GROUP (ORDER BY s), percentile_cont(0.95) WITHIN GROUP (ORDER BY s) FROM w GROUP BY kind ORDER BY kind`,
		func(r pgx.Rows, v *WaitSum) error {
			return r.Scan(&v.Kind, &v.Count, &v.Open, &v.Seconds, &v.P50, &v.P95)
		}, dbID(flow), since)
}

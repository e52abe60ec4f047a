package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// MaxSummary bounds the executions that a summary looks at.
const MaxSummary = 50_000

// Summary counts the newest executions.
type Summary struct {
	Accepted        int       // at most MaxSummary
	Oldest          time.Time // when the oldest of them was accepted
	States          map[protocol.State]int
	Start, Duration Percentiles // from accept to a worker's beginning, and to the end
	Flows, Workers  int         // all there are; alive
}

// Percentiles in seconds.
type Percentiles struct{ P50, P95, P99 float64 }

func percentiles(list []float64) Percentiles {
	if len(list) != 3 {
		return Percentiles{}
	}
	return Percentiles{list[0], list[1], list[2]}
}

// Summarize counts what was accepted since a time, the newest MaxSummary of it, on the replica when there is one. No index knows states, on purpose: it reads
// these rows, which takes tenths of a second at the most.
func (db *DB) Summarize(ctx context.Context, since time.Time) (Summary, error) {
	const sql = `
		WITH x AS MATERIALIZED (SELECT state, created_at, started_at, finished_at FROM executions WHERE id >= flow_first_id($1) ORDER BY id DESC LIMIT $2)
		SELECT count(*), min(created_at), count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'waiting'),
			count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'cancelled'), count(*) FILTER (WHERE state = 'timed_out'),
			percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY greatest(0, extract(epoch FROM started_at - created_at)::float8)) FILTER (WHERE started_at IS NOT NULL),
			percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY greatest(0, extract(epoch FROM finished_at - created_at)::float8)) FILTER (WHERE finished_at IS NOT NULL),
			(SELECT count(*) FROM flows WHERE deleted_at IS NULL), (SELECT count(*) FROM sessions WHERE alive)
		FROM x`
	return one(ctx, db, db.replica, "Summarize", sql, func(r pgx.Rows, s *Summary) error {
		counts := make([]int, 7)
		var start, duration []float64
		err := r.Scan(&s.Accepted, dbTime{&s.Oldest}, &counts[0], &counts[1], &counts[2], &counts[3], &counts[4], &counts[5], &counts[6], &start, &duration, &s.Flows, &s.Workers)
		s.States = map[protocol.State]int{}
		for i, state := range []protocol.State{protocol.Queued, protocol.Running, protocol.Waiting, protocol.Succeeded, protocol.Failed, protocol.Cancelled, protocol.TimedOut} {
			s.States[state] = counts[i]
		}
		s.Start, s.Duration = percentiles(start), percentiles(duration)
		return err
	}, since, MaxSummary)
}

// SessionByID finds a session, on the primary.
func (db *DB) SessionByID(ctx context.Context, id protocol.ID) (WorkerSession, error) {
	return one(ctx, db, db.primary, "SessionByID", `SELECT id, worker, beat, alive, pool, host, opened_at, beat_at, ended_at, end_reason FROM sessions WHERE id = $1`, func(r pgx.Rows, s *WorkerSession) error {
		return r.Scan((*dbID)(&s.ID), &s.Worker, &s.Beat, &s.Alive, &s.Pool, &s.Host, dbTime{&s.OpenedAt}, dbTime{&s.BeatAt}, dbTime{&s.EndedAt}, &s.EndReason)
	}, dbID(id))
}

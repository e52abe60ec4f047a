package protocol

import (
	"context"
	"fmt"
	"time"
)

// requeue takes back an end that the platform wrote, not a node: poison, a version that wasn't to be had. It is a user's retry [13]: the attempt is raised, so what
// older ones still send is old news, and deaths are counted anew. It tells whether the row changed.
func (r *Row) requeue(now time.Time) bool {
	if r.State != Failed {
		return false
	}
	r.again(now)
	r.Retries++
	r.Deaths = 0
	r.FinishedAt = time.Time{}
	return true
}

// Requeue hands out again those of the executions that have failed, from their last confirmed step, and those that are queued: their task may be lost. Told
// is the state in which each was found; those that run, wait, or ended otherwise are left alone.
func Requeue(ctx context.Context, tx Tx, ids []ID) (Outcome, map[ID]State, error) {
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("requeue: %w", err)
	}
	found := map[ID]State{}
	for _, id := range ids {
		r, ok := b.rows[id]
		if !ok {
			continue
		}
		if _, again := found[id]; again {
			continue
		}
		found[id] = r.State
		switch {
		case r.requeue(b.now):
			b.take(r, effect{handOut: true, result: &FinalResult{ID: id}}) // the error of before is no result any more
		case r.State == Queued && !r.Held():
			b.out.HandOut = append(b.out.HandOut, id)
		}
	}
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, nil, fmt.Errorf("requeue: %w", err)
	}
	return b.out, found, nil
}

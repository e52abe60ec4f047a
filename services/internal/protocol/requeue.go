package protocol

import (
	"context"
	"fmt"
	"time"

	"flowplatform/services/internal/flow"
)

// A retry takes back an end [13]: the execution goes on from the step that failed, in a new attempt, so that what older ones still send is old news. Deaths
// are counted anew, and the deadline too: it gets as much time as it had from its accept.
//
// Report 0 of the new attempt is the event of the retry: what had failed the execution before it is as if it had not been tried, what had succeeded stays.

// retry tells why a row can't be taken back, and takes it back if it can.
func (r *Row) retry(now time.Time) (whyNot string) {
	switch r.State {
	case Failed, TimedOut, Cancelled:
	case Succeeded:
		return "it has succeeded: there is nothing to retry, but it can be replayed"
	default:
		return "it hasn't ended: it is " + string(r.State)
	}
	r.again(now)
	r.Retries++
	r.Deaths = 0
	r.FinishedAt = time.Time{}
	return ""
}

// back brings a final row back to the queue: the one way there is, for users' retries and for dead letters alike.
func (b *batch) back(r *Row, standing *Pauses) (whyNot string, err error) {
	if whyNot := r.retry(b.now); whyNot != "" {
		return whyNot, nil
	}
	events, err := EncodeEvents([]flow.Event{{Type: flow.EventRetry, At: b.now}})
	if err != nil {
		return "", err
	}
	r.Paused = standing.holds(r)
	b.changes.Reports = append(b.changes.Reports, StoredReport{Execution: r.ID, Attempt: r.Attempt, Events: events})
	b.changes.Restarted = append(b.changes.Restarted, r.ID)
	b.take(r, effect{result: &FinalResult{ID: r.ID}}) // the error of before is no result any more
	return "", nil
}

// Retry takes executions back that failed, timed out or were cancelled; each goes on from the step that failed.
func Retry(ctx context.Context, tx Tx, ids []ID) (Outcome, []Verdict, error) {
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("retry: %w", err)
	}
	standing, err := tx.Pauses(ctx, b.flows())
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("retry: %w", err)
	}
	var failed error
	verdicts := b.each(ids, func(r *Row) string {
		whyNot, err := b.back(r, &standing)
		if err != nil {
			failed = err
		}
		return whyNot
	})
	if failed == nil {
		failed = b.write(ctx, tx)
	}
	if failed != nil {
		return Outcome{}, nil, fmt.Errorf("retry: %w", failed)
	}
	return b.out, verdicts, nil
}

// Requeue hands out again those of the executions that have failed, as a retry, and those that are queued: their task may be lost. Told
// is the state in which each was found; those that run, wait, or ended otherwise are left alone.
func Requeue(ctx context.Context, tx Tx, ids []ID) (Outcome, map[ID]State, error) {
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, nil, fmt.Errorf("requeue: %w", err)
	}
	standing, err := tx.Pauses(ctx, b.flows())
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
		case r.State == Failed:
			if _, err := b.back(r, &standing); err != nil {
				return Outcome{}, nil, fmt.Errorf("requeue: %w", err)
			}
		case r.State == Queued && !r.Held():
			b.out.HandOut = append(b.out.HandOut, id)
		}
	}
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, nil, fmt.Errorf("requeue: %w", err)
	}
	return b.out, found, nil
}

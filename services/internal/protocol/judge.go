package protocol

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Judge finds the sessions that died without a successor who could prove it [10]. It trusts nothing but beats that it saw stand still, in
// unbroken sight of the database, for a whole lease by its own monotonic clock. Not safe for concurrent use.
type Judge struct {
	Store Store
	Lease time.Duration
	// Clock is monotonic and has any origin; it must count while the machine sleeps (CLOCK_BOOTTIME).
	Clock func() time.Duration

	seen   map[ID]sight
	looked time.Duration
	any    bool
}

type sight struct {
	beat int64
	at   time.Duration
}

// Forget begins the sight anew: at the start of a term.
func (j *Judge) Forget() { j.seen, j.any = nil, false }

// Look looks once, at most a quarter of a lease after the last time, and ends the sessions that have stood still for a lease. It returns those that it ended.
func (j *Judge) Look(ctx context.Context) ([]ID, error) {
	before := j.Clock()
	live, err := j.Store.LiveSessions(ctx)
	if err != nil {
		j.Forget() // sight broken: every lease begins anew
		return nil, fmt.Errorf("judge: %w", err)
	}
	now := j.Clock() // read after the rows were: a beat that we see is at least as old as we think
	if !j.any || now-j.looked > j.Lease/4 {
		j.seen = nil
	}
	j.any, j.looked = true, now
	next := make(map[ID]sight, len(live))
	var ends []SessionEnd
	for _, s := range live {
		w, ok := j.seen[s.ID]
		if !ok || w.beat != s.Beat {
			w = sight{beat: s.Beat, at: now}
		}
		next[s.ID] = w
		if before-w.at >= j.Lease { // with the clock from before this look
			ends = append(ends, SessionEnd{ID: s.ID, Beat: s.Beat, Reason: "no renewal for a whole lease"})
		}
	}
	j.seen = next
	if len(ends) == 0 {
		return nil, nil
	}
	slices.SortFunc(ends, func(a, b SessionEnd) int { return slices.Compare(a.ID[:], b.ID[:]) })
	var ended []ID
	err = j.Store.Txn(ctx, "judge", func(tx Tx) error {
		var err error
		ended, err = tx.EndSessions(ctx, ends)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("judge: %w", err)
	}
	return ended, nil
}

// RecoverEntry is the entry that takes everything back that a dead session owns [11]. It goes through every report queue, behind all that was confirmed.
func RecoverEntry(session ID) Entry { return Entry{Kind: EntryRecover, Session: session} }

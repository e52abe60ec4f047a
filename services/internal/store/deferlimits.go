package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// deferLimits makes executions with limits wait for them, in a transaction that holds rows of others already (a caller's, a schedule's) and so can't take keys any more: their slots
// wait, and what they have to pay of rates is looked at when they are released, at once. A start that has such a row in its way is queued, whatever onLimit says, and isn't
// debounced. It must come before the rows' insert; it gives the keys at which they may be let in after COMMIT.
func (t *tx) deferLimits(ctx context.Context, rows []*NewExecution) (keys []string, err error) {
	c := &protocol.Changes{Limits: &protocol.LimitChanges{}}
	var groups []string
	for _, e := range rows {
		for _, l := range e.Limits {
			if l.Kind == protocol.HoldFairness {
				groups = append(groups, l.Key)
			}
		}
	}
	standing := protocol.Standing{}
	if len(groups) > 0 {
		if standing, err = t.Standing(ctx, protocol.Ask{Groups: groups}); err != nil {
			return nil, err
		}
	}
	for _, e := range rows {
		keys = append(keys, e.deferred(c, &standing, t)...)
	}
	if len(c.Opened) == 0 {
		return nil, nil
	}
	todo, err := writeLimits(c)
	if err != nil {
		return nil, err
	}
	var b pgx.Batch
	for _, st := range append(todo, openWaits(c.Opened)) {
		b.Queue(st.sql, st.args...)
	}
	if err := t.conn.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	return keys, nil
}

// deferred notes the slots and the hold of one, and gives its keys.
func (e *NewExecution) deferred(c *protocol.Changes, standing *protocol.Standing, t *tx) (keys []string) {
	var rates []protocol.Limit
	var slots []protocol.Slot
	rank := 0.0
	for _, l := range e.Limits {
		switch l.Kind {
		case protocol.HoldRate:
			rates = append(rates, l)
			continue
		case protocol.HoldDebounce:
			continue
		case protocol.HoldFairness:
			rank = standing.Virtual[protocol.VirtualKey{Group: l.Key}]
		}
		keys = append(keys, l.Key)
		slots = append(slots, protocol.Slot{Execution: e.ID, Key: l.Key, Kind: l.Kind, Value: l.Value, Most: l.Most, Pool: l.Pool, State: protocol.SlotWaiting})
	}
	for i := range slots {
		slots[i].Keys, slots[i].Rank = keys, rank
	}
	e.Hold, e.Limited = "", len(rates)+len(slots) > 0
	w := protocol.OpenWait{Execution: e.ID, Since: t.now}
	switch {
	case len(rates) > 0:
		e.Hold = protocol.HoldDebounce
		w.Reason, w.Due = "its rate is looked at", t.now
		c.Limits.Opened = append(c.Limits.Opened, protocol.Debounced{Key: "start/" + e.ID.String(), Execution: e.ID, First: t.now, Longest: t.now, Count: 1, Rates: rates})
	case len(slots) > 0:
		e.Hold = slots[0].Kind
		w.Reason, w.Key = "waits until its limits let it in", slots[0].Value
	default:
		return nil
	}
	w.Kind, w.Iteration = e.Hold, e.Hold
	c.Opened = append(c.Opened, w)
	c.Limits.Slots = append(c.Limits.Slots, slots...)
	return keys
}

// freed tells whoever lets executions in that some may be, after COMMIT; the leader finds them within seconds otherwise.
func (db *DB) freed(keys []string) {
	if f := db.afterInsert.Load(); f != nil && len(keys) > 0 {
		(*f)(protocol.Outcome{Freed: keys})
	}
}

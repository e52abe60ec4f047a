package protocol

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Admit lets those in that wait first at the keys and have room at all of theirs. Outcome.Freed names keys that are to be looked at again, at once.
func Admit(ctx context.Context, tx Tx, keys []string) (Outcome, error) {
	keys = distinct(keys)
	if err := tx.LockKeys(ctx, keys); err != nil {
		return Outcome{}, fmt.Errorf("admit: %w", err)
	}
	state, err := tx.Standing(ctx, Ask{Slots: keys, First: true})
	if err != nil {
		return Outcome{}, fmt.Errorf("admit: %w", err)
	}
	chosen, again := choose(keys, &state)
	ids := make([]ID, len(chosen))
	for i := range chosen {
		ids[i] = chosen[i].Execution
	}
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return Outcome{}, fmt.Errorf("admit: %w", err)
	}
	for i := range chosen {
		s := &chosen[i]
		r := b.rows[s.Execution]
		if r == nil || !r.atSlots() {
			again = append(again, s.Keys...) // cancelled or paused this moment: it isn't offered again
			continue
		}
		b.pass(r.ID, r.Hold)
		r.Hold = ""
		r.QueuedAt = b.now
		b.touch(r)
		b.limits().Admitted = append(b.limits().Admitted, r.ID)
		for _, key := range s.Keys {
			if state.Slots[key].Most == 0 { // a group that takes turns: its time goes on
				group := VirtualKey{key, ""}
				b.limits().Virtual[group] = max(b.limits().Virtual[group], s.Rank)
			}
		}
	}
	if err := b.write(ctx, tx); err != nil {
		return Outcome{}, fmt.Errorf("admit: %w", err)
	}
	b.out.Freed = append(b.out.Freed, distinct(again)...)
	return b.out, nil
}

// atSlots tells whether an execution may be let in as far as its row says.
func (r *Row) atSlots() bool {
	return r.State == Queued && (r.Hold == HoldConcurrency || r.Hold == HoldFairness) && r.Paused == "" && r.Cancel == ""
}

// choose gives those that are let in, and the keys at which more could be when others are locked too.
func choose(keys []string, state *Standing) (chosen []Slot, again []string) {
	held, seen := map[string]int{}, map[ID]bool{}
	for _, key := range keys {
		held[key] = state.Slots[key].Held
	}
	room := func(key string) bool {
		c := state.Slots[key]
		most := c.Most
		if most == 0 {
			most = window(state.Windows[key])
		}
		return held[key] < most
	}
	for _, s := range state.First {
		if seen[s.Execution] {
			continue
		}
		seen[s.Execution] = true
		fits, foreign := true, false
		for _, key := range s.Keys {
			if _, locked := slices.BinarySearch(keys, key); !locked {
				foreign = true
			} else if !room(key) {
				fits = false
			}
		}
		switch {
		case !fits:
		case foreign:
			again = append(again, s.Keys...)
		default:
			chosen = append(chosen, s)
			for _, key := range s.Keys {
				held[key]++
			}
		}
	}
	if len(chosen) > 0 {
		for _, key := range keys { // a look shows a bounded number
			if c := state.Slots[key]; room(key) && c.Waiting > held[key]-c.Held {
				again = append(again, key)
			}
		}
	}
	return chosen, again
}

// Release lets executions go on whose hold is over by the database's clock: a rate's, or a debounce's.
func Release(ctx context.Context, tx Tx, ids []ID) (Outcome, error) {
	fail := func(err error) (Outcome, error) { return Outcome{}, fmt.Errorf("release: %w", err) }
	known, err := tx.Standing(ctx, Ask{Debounced: ids})
	if err != nil {
		return fail(err)
	}
	var keys []string
	for _, d := range known.Debounced {
		for _, l := range d.Rates {
			keys = append(keys, l.Key)
		}
	}
	rates := Standing{Rates: map[string]time.Time{}}
	if keys = distinct(keys); len(keys) > 0 { // keys before rows, here too
		if err := tx.LockKeys(ctx, keys); err != nil {
			return fail(err)
		}
		if rates, err = tx.Standing(ctx, Ask{Rates: keys}); err != nil {
			return fail(err)
		}
	}
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return fail(err)
	}
	open, err := tx.OpenWaits(ctx, ids)
	if err != nil {
		return fail(err)
	}
	slots, err := tx.Slots(ctx, ids)
	if err != nil {
		return fail(err)
	}
	for _, w := range open {
		r := b.rows[w.Execution]
		if r == nil || r.State != Queued || r.Hold != w.Kind || w.Node != "" || w.Due.IsZero() || w.Due.After(b.now) || w.Kind != HoldRate && w.Kind != HoldDebounce {
			continue
		}
		b.release(r, known.Debounced[r.ID].Rates, rates.Rates, slots)
	}
	if err := b.write(ctx, tx); err != nil {
		return fail(err)
	}
	return b.out, nil
}

// release takes an execution on to what it is held for next.
func (b *batch) release(r *Row, rates []Limit, known map[string]time.Time, slots []Slot) {
	b.touch(r)
	b.pass(r.ID, r.Hold)
	was := r.Hold
	r.Hold, r.QueuedAt = "", b.now
	if was == HoldDebounce {
		b.limits().Released = append(b.limits().Released, r.ID)
		if len(rates) > 0 {
			if due := pay(b.limits(), known, rates, b.now); due.After(b.now) {
				r.Hold = HoldRate
				b.hold(r.ID, HoldRate, rates[0].Value, rateReason(rates), due)
				return
			}
		}
	}
	for i := range slots {
		s := &slots[i]
		if s.Execution != r.ID {
			continue
		}
		b.out.Freed = append(b.out.Freed, s.Key)
		if r.Hold != HoldConcurrency && r.Hold != s.Kind {
			if r.Hold == "" {
				b.hold(r.ID, s.Kind, s.Value, slotReason(s), time.Time{})
				r.Hold = s.Kind
			}
		}
	}
}

// Admitter lets executions in after the transactions that made room: orchestrators and gateways have one, and may look at the same keys at the same time.
type Admitter struct {
	Store     Store
	Publisher TaskPublisher
}

// keysAtOnce bounds the locks of one transaction.
const keysAtOnce = 200

// maxLooks bounds how often Admit comes back to keys that could have more; the leader's look finds what is left.
const maxLooks = 20

// Admit looks at keys until nobody can be let in any more, and hands out those that were. It tells how many.
func (a *Admitter) Admit(ctx context.Context, keys []string) (int, error) {
	n := 0
	for look := 0; len(keys) > 0 && look < maxLooks; look++ {
		var again []string
		for some := range slices.Chunk(distinct(keys), keysAtOnce) {
			var out Outcome
			err := a.Store.Txn(ctx, "admit", func(tx Tx) error {
				var err error
				out, err = Admit(ctx, tx, some)
				return err
			})
			if err != nil {
				return n, err
			}
			n += len(out.News)
			again = append(again, out.Freed...)
			if _, err := HandOut(ctx, a.Store, a.Publisher, out.HandOut); err != nil {
				return n, err
			}
		}
		keys = again
	}
	return n, nil
}

// Due lets those go on whose rate or debounce is over. next is how long from now the next one is due that it saw; zero: it saw none.
func (a *Admitter) Due(ctx context.Context, horizon time.Duration, limit int) (n int, next time.Duration, err error) {
	waits, now, err := a.Store.DueHolds(ctx, horizon, limit)
	if err != nil {
		return 0, 0, fmt.Errorf("holds: %w", err)
	}
	var ids []ID
	for _, w := range waits {
		if w.Due.After(now) {
			next = w.Due.Sub(now)
			break
		}
		ids = append(ids, w.Execution)
	}
	if len(ids) == 0 {
		return 0, next, nil
	}
	var out Outcome
	err = a.Store.Txn(ctx, "release", func(tx Tx) error {
		var err error
		out, err = Release(ctx, tx, ids)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	if _, err = HandOut(ctx, a.Store, a.Publisher, out.HandOut); err != nil {
		return len(out.News), next, err
	}
	_, err = a.Admit(ctx, out.Freed)
	return len(out.News), next, err
}

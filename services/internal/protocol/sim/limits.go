package sim

import (
	"cmp"
	"context"
	"slices"
	"time"

	"flowplatform/services/internal/protocol"
)

// control is what the database holds of flow control.
type control struct {
	slots     []protocol.Slot
	rates     map[string]time.Time
	virtual   map[protocol.VirtualKey]float64
	debounces map[string]protocol.Debounced
	merged    map[protocol.ID][]protocol.Merge
}

func (t *txn) Standing(_ context.Context, ask protocol.Ask) (protocol.Standing, error) {
	if err := t.statement(); err != nil {
		return protocol.Standing{}, err
	}
	c := &t.s.db.control
	out := protocol.Standing{Slots: map[string]protocol.SlotCount{}, Members: map[string][]protocol.Slot{}, Rates: map[string]time.Time{}, Virtual: map[protocol.VirtualKey]float64{},
		Windows: map[string]int{}, Debounces: map[string]protocol.Debounced{}, Debounced: map[protocol.ID]protocol.Debounced{}}
	at := func(key string, states ...protocol.SlotState) (list []protocol.Slot) {
		for _, s := range c.slots {
			if s.Key == key && slices.Contains(states, s.State) {
				list = append(list, s)
			}
		}
		slices.SortStableFunc(list, func(a, b protocol.Slot) int {
			return cmp.Or(cmp.Compare(a.Rank, b.Rank), slices.Compare(a.Execution[:], b.Execution[:]))
		})
		return list
	}
	for _, key := range ask.Slots {
		waiting := at(key, protocol.SlotWaiting)
		n := protocol.SlotCount{Held: len(at(key, protocol.SlotHeld)), Waiting: len(waiting)}
		if len(waiting) > 0 {
			n.Most = waiting[len(waiting)-1].Most
		}
		out.Slots[key] = n
		if !ask.First {
			continue
		}
		for _, s := range waiting {
			if r := t.s.execution(s.Execution).row; r.State == protocol.Queued && (r.Hold == protocol.HoldConcurrency || r.Hold == protocol.HoldFairness) && r.Paused == "" {
				out.First = append(out.First, s)
			}
		}
	}
	for _, key := range ask.Members {
		for _, s := range at(key, protocol.SlotWaiting, protocol.SlotHeld) {
			if s.Reason == "" {
				out.Members[key] = append(out.Members[key], s)
			}
		}
	}
	for _, key := range ask.Rates {
		if at, ok := c.rates[key]; ok {
			out.Rates[key] = at
		}
	}
	for _, g := range ask.Groups {
		for _, v := range append([]string{""}, ask.Values...) {
			out.Virtual[protocol.VirtualKey{Group: g, Value: v}] = c.virtual[protocol.VirtualKey{Group: g, Value: v}]
		}
	}
	for _, d := range c.debounces {
		if slices.Contains(ask.Debounces, d.Key) {
			out.Debounces[d.Key] = d
		}
		if slices.Contains(ask.Debounced, d.Execution) {
			out.Debounced[d.Execution] = d
		}
	}
	return out, nil
}

func (t *txn) Slots(_ context.Context, ids []protocol.ID) (out []protocol.Slot, err error) {
	if err := t.statement(); err != nil {
		return nil, err
	}
	for _, s := range t.s.db.control.slots {
		if slices.Contains(ids, s.Execution) {
			out = append(out, s)
		}
	}
	return out, nil
}

// takeLimits is what a commit does to flow control.
func (db *database) takeLimits(c *protocol.Changes, s *Sim) {
	k := &db.control
	of := func(ids []protocol.ID, from, to protocol.SlotState) {
		for i := range k.slots {
			if slices.Contains(ids, k.slots[i].Execution) && k.slots[i].State == from {
				k.slots[i].State = to
			}
		}
	}
	for _, r := range c.Rows {
		if r.Limited && r.State.Final() {
			free := func() {
				of([]protocol.ID{r.ID}, protocol.SlotWaiting, protocol.SlotFree)
				of([]protocol.ID{r.ID}, protocol.SlotHeld, protocol.SlotFree)
			}
			e := s.execution(r.ID) // its holds are over with it
			e.waits = slices.DeleteFunc(e.waits, func(w protocol.OpenWait) bool { return w.Node == "" && w.Met.IsZero() })
			if s.broken.FreeBeside {
				db.freeBeside(s, r.ID, free)
			} else {
				free()
			}
			for key, d := range k.debounces {
				if d.Execution == r.ID {
					delete(k.debounces, key)
				}
			}
		}
	}
	defer s.checkSlots()
	l := c.Limits
	if l == nil {
		return
	}
	if k.rates == nil {
		k.rates, k.virtual, k.debounces, k.merged = map[string]time.Time{}, map[protocol.VirtualKey]float64{}, map[string]protocol.Debounced{}, map[protocol.ID][]protocol.Merge{}
	}
	k.slots = append(k.slots, l.Slots...)
	of(l.Admitted, protocol.SlotWaiting, protocol.SlotHeld)
	of(l.Retaken, protocol.SlotFree, protocol.SlotWaiting)
	for i := range k.slots {
		if reason := l.Marked[k.slots[i].Execution]; reason != "" {
			k.slots[i].Reason = reason
		}
	}
	for key, at := range l.Rates {
		if at.After(k.rates[key]) {
			k.rates[key] = at
		}
	}
	for key, v := range l.Virtual {
		k.virtual[key] = max(k.virtual[key], v)
	}
	for _, d := range l.Opened {
		k.debounces[d.Key] = d
	}
	for _, m := range l.Merged {
		k.merged[m.Execution] = append(k.merged[m.Execution], m)
		s.merge(m)
		e := s.execution(m.Execution)
		for i := range e.waits {
			if e.waits[i].Iteration == protocol.HoldDebounce && e.waits[i].Met.IsZero() {
				e.waits[i].Due = m.Due
			}
		}
	}
	for key, d := range k.debounces {
		if slices.Contains(l.Released, d.Execution) {
			delete(k.debounces, key)
		}
	}
	for _, id := range l.Released {
		s.released(id)
	}
}

func (st store) DueHolds(_ context.Context, horizon time.Duration, limit int) ([]protocol.OpenWait, time.Time, error) {
	if err := st.read(); err != nil {
		return nil, time.Time{}, err
	}
	now := st.p.s.time()
	var out []protocol.OpenWait
	for _, e := range st.p.s.db.execs {
		for _, w := range e.waits {
			if e.exists && e.row.State == protocol.Queued && e.row.Hold == w.Kind && w.Node == "" && w.Met.IsZero() && !w.Due.IsZero() && !w.Due.After(now.Add(horizon)) {
				out = append(out, w)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b protocol.OpenWait) int { return a.Due.Compare(b.Due) })
	return out[:min(len(out), limit)], now, nil
}

func (st store) Roomy(_ context.Context, after string, limit int) ([]string, error) {
	if err := st.read(); err != nil {
		return nil, err
	}
	held, most := map[string]int{}, map[string]int{}
	for _, s := range st.p.s.db.control.slots {
		switch s.State {
		case protocol.SlotHeld:
			held[s.Key]++
		case protocol.SlotWaiting:
			most[s.Key] = cmp.Or(s.Most, protocol.MinWindow)
		}
	}
	var out []string
	for key, n := range most {
		if key > after && held[key] < n {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out[:min(len(out), limit)], nil
}

// checkSlots sees that no key has more holders than it may, and that who holds or waits isn't final, nor the other way round.
func (s *Sim) checkSlots() {
	if len(s.db.control.slots) == 0 {
		return
	}
	held := map[string]int{}
	for _, slot := range s.db.control.slots {
		if e := s.execution(slot.Execution); e.row.State.Final() != (slot.State == protocol.SlotFree) {
			s.fail("16 a slot that doesn't end with its execution", "E%d is %s, its slot at %s %s", indexOf(slot.Execution), e.row.State, slot.Key, slot.State)
		}
		if slot.State == protocol.SlotHeld {
			held[slot.Key]++
			if most := cmp.Or(slot.Most, protocol.MinWindow); held[slot.Key] > most {
				s.fail("16 over the limit", "%d hold %s, which %d may", held[slot.Key], slot.Key, most)
			}
		}
	}
}

package protocol

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Arrival is an execution that is about to be accepted, as flow control sees it.
type Arrival struct {
	ID     ID
	Group  int // those of one request stand or fall together: rejected is all of it or nothing
	Paused bool
	Input  json.RawMessage
	Limits []Limit
}

// Place is what flow control makes of an arrival.
type Place struct {
	Hold    string
	Into    ID     // not zero: it became part of this execution, which waits for starts to cease
	Refused *Limit // not nil: it, or another of its group, can't be taken
	Ended   string // not "": it is accepted and ends at once, cancelled for this reason
}

// placer is the working memory of PlaceArrivals.
type placer struct {
	*batch
	arrivals []Arrival
	index    map[ID]int
	places   []Place
	slots    map[ID][]Slot
	state    Standing
	count    map[string]*SlotCount
	victims  map[ID]string
	fresh    map[string]ID // debounced executions that this transaction makes, by key
}

// PlaceArrivals decides where executions with limits begin, in their order, and writes it. insert stores those of them that are neither refused nor merged, with the
// holds given; it is called once, when all is decided.
func PlaceArrivals(ctx context.Context, tx Tx, arrivals []Arrival, insert func([]Place) error) (Outcome, error) {
	p := &placer{arrivals: arrivals, index: map[ID]int{}, places: make([]Place, len(arrivals)), slots: map[ID][]Slot{}, count: map[string]*SlotCount{}, victims: map[ID]string{}, fresh: map[string]ID{}}
	if err := p.read(ctx, tx); err != nil {
		return Outcome{}, fmt.Errorf("limits: %w", err)
	}
	p.refuse()
	for i := range arrivals {
		if p.places[i].Refused == nil {
			p.place(i)
		}
	}
	if err := insert(p.places); err != nil {
		return Outcome{}, err
	}
	for id, reason := range p.victims {
		if r := p.rows[id]; r != nil {
			changed, owned, ef := r.cancel(Cancelled, p.now)
			if changed {
				p.take(r, ef)
				p.because(id, reason)
				p.limits().Marked[id] = reason
			}
			if owned {
				p.out.Told = append(p.out.Told, CancelOrder{Execution: id, As: r.Cancel})
			}
		}
	}
	slices.SortFunc(p.order, compareIDs)
	for i := range arrivals {
		p.limits().Slots = append(p.limits().Slots, p.slots[arrivals[i].ID]...)
	}
	if err := p.write(ctx, tx); err != nil {
		return Outcome{}, fmt.Errorf("limits: %w", err)
	}
	return p.out, p.endNewest(ctx, tx)
}

func compareIDs(a, b ID) int { return slices.Compare(a[:], b[:]) }

// read takes the locks, of the keys and then of the executions that may change, and looks at all that counts.
func (p *placer) read(ctx context.Context, tx Tx) error {
	var ask Ask
	var keys []string
	for i := range p.arrivals {
		p.index[p.arrivals[i].ID] = i
		for _, l := range p.arrivals[i].Limits {
			keys = append(keys, l.Key)
			switch l.Kind {
			case HoldConcurrency:
				ask.Slots = append(ask.Slots, l.Key)
				if l.OnLimit == OnLimitCancelOldest {
					ask.Members = append(ask.Members, l.Key)
				}
			case HoldFairness:
				ask.Slots, ask.Groups, ask.Values, ask.Pools = append(ask.Slots, l.Key), append(ask.Groups, l.Key), append(ask.Values, l.Value), append(ask.Pools, l.Pool)
			case HoldRate:
				ask.Rates = append(ask.Rates, l.Key)
			case HoldDebounce:
				ask.Debounces = append(ask.Debounces, l.Key)
			}
		}
	}
	if err := tx.LockKeys(ctx, distinct(keys)); err != nil {
		return err
	}
	for _, list := range []*[]string{&ask.Slots, &ask.Members, &ask.Groups, &ask.Values, &ask.Pools, &ask.Rates, &ask.Debounces} {
		*list = distinct(*list)
	}
	var err error
	if p.state, err = tx.Standing(ctx, ask); err != nil {
		return err
	}
	var ids []ID
	for _, key := range ask.Members {
		for _, s := range p.state.Members[key] {
			ids = append(ids, s.Execution)
		}
	}
	for _, d := range p.state.Debounces {
		ids = append(ids, d.Execution)
	}
	p.batch, err = lock(ctx, tx, ids)
	return err
}

func distinct(keys []string) []string {
	if len(keys) < 2 {
		return keys
	}
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (p *placer) counted(key string) *SlotCount {
	c := p.count[key]
	if c == nil {
		known := p.state.Slots[key]
		c = &known
		p.count[key] = c
	}
	return c
}

// refuse finds the groups that don't fit beside what is there and the groups before them.
func (p *placer) refuse() {
	more := map[string]int{}
	for i := 0; i < len(p.arrivals); {
		end := i
		need := map[string]int{}
		var over *Limit
		for ; end < len(p.arrivals) && p.arrivals[end].Group == p.arrivals[i].Group; end++ {
			for j, l := range p.arrivals[end].Limits {
				if l.Kind != HoldConcurrency || l.OnLimit != OnLimitReject {
					continue
				}
				need[l.Key]++
				if c := p.counted(l.Key); over == nil && c.Held+c.Waiting+more[l.Key]+need[l.Key] > l.Most {
					over = &p.arrivals[end].Limits[j]
				}
			}
		}
		if over == nil {
			for key, n := range need {
				more[key] += n
			}
		}
		for ; i < end; i++ {
			p.places[i].Refused = over
		}
	}
}

func (p *placer) place(i int) {
	a := &p.arrivals[i]
	var rates []Limit
	var slots []Limit
	var debounce *Limit
	for j := range a.Limits {
		switch l := &a.Limits[j]; l.Kind {
		case HoldDebounce:
			debounce = l
		case HoldRate:
			rates = append(rates, *l)
		default:
			slots = append(slots, *l)
		}
	}
	if debounce != nil && p.merge(i, debounce) {
		return
	}
	for _, l := range slots {
		if c := p.counted(l.Key); l.OnLimit == OnLimitCancelNewest && c.Held+c.Waiting >= l.Most {
			p.places[i].Ended = fmt.Sprintf("%d executions with the key %q are there already, which is the limit, and it says cancel_newest", l.Most, l.Value)
			return
		}
	}
	for _, l := range slots {
		if l.OnLimit == OnLimitCancelOldest {
			p.makeRoom(a, &l)
		}
	}
	p.waiting(a, slots)
	switch {
	case debounce != nil:
		p.open(i, debounce, rates)
	case len(rates) > 0:
		if due := p.pay(rates); due.After(p.now) {
			p.places[i].Hold = HoldRate
			p.hold(a.ID, HoldRate, rates[0].Value, rateReason(rates), due)
			break
		}
		fallthrough
	default:
		p.letIn(i)
	}
}

// merge makes a start part of an execution that waits for starts to cease. That execution's row is locked: it can't begin meanwhile.
func (p *placer) merge(i int, l *Limit) bool {
	a := &p.arrivals[i]
	d, ok := p.state.Debounces[l.Key]
	if !ok {
		return false
	}
	r := p.rows[d.Execution]
	open := p.fresh[l.Key] == d.Execution || r != nil && r.State == Queued && r.Hold == HoldDebounce
	full := l.Collect && (d.Count >= MaxCollected || d.Size+len(a.Input)+2 > MaxValue)
	if !open || full || !d.Longest.After(p.now) {
		return false // a full one begins when it is due
	}
	due := p.now.Add(l.Delay)
	if due.After(d.Longest) {
		due = d.Longest
	}
	d.Count++
	d.Size += len(a.Input) + 1
	p.state.Debounces[l.Key] = d
	p.limits().Opened = append(p.limits().Opened, d)
	p.limits().Merged = append(p.limits().Merged, Merge{Execution: d.Execution, Start: a.ID, Input: a.Input, Collect: l.Collect, Due: due})
	p.places[i].Into = d.Execution
	return true
}

// open begins a debounce.
func (p *placer) open(i int, l *Limit, rates []Limit) {
	a := &p.arrivals[i]
	d := Debounced{Key: l.Key, Execution: a.ID, First: p.now, Longest: p.now.Add(l.Longest), Count: 1, Size: len(a.Input) + 2, Rates: rates}
	p.state.Debounces[l.Key] = d
	p.fresh[l.Key] = a.ID
	p.limits().Opened = append(p.limits().Opened, d)
	due := p.now.Add(l.Delay)
	if l.Collect {
		p.limits().Merged = append(p.limits().Merged, Merge{Execution: a.ID, Start: a.ID, Input: a.Input, Collect: true, Due: due})
	}
	p.places[i].Hold = HoldDebounce
	p.hold(a.ID, HoldDebounce, l.Value, fmt.Sprintf("waits until no start with this key has come for %s, %s at most", l.Delay, l.Longest), due)
}

// makeRoom cancels the oldest at a key until one more has room.
func (p *placer) makeRoom(a *Arrival, l *Limit) {
	alive := p.state.Members[l.Key][:0:0]
	for _, s := range p.state.Members[l.Key] {
		r, here := p.rows[s.Execution], p.slots[s.Execution] != nil
		if p.victims[s.Execution] == "" && s.Reason == "" && (here || r != nil && !r.State.Final() && r.Cancel == "") {
			alive = append(alive, s)
		}
	}
	reason := fmt.Sprintf("cancelled to make room for %s: %d executions with the key %q may be there at once, and the limit says cancel_oldest", a.ID, l.Most, l.Value)
	for len(alive) > 0 && len(alive)+1 > l.Most {
		old := alive[0].Execution
		alive = alive[1:]
		if j, here := p.index[old]; here && p.slots[old] != nil {
			p.drop(j, reason)
			continue
		}
		p.victims[old] = reason
	}
	p.state.Members[l.Key] = append(alive, Slot{Execution: a.ID})
}

// drop ends an arrival of this very transaction.
func (p *placer) drop(i int, reason string) {
	id := p.arrivals[i].ID
	for _, s := range p.slots[id] {
		if c := p.counted(s.Key); s.State == SlotHeld {
			c.Held--
		} else {
			c.Waiting--
		}
	}
	delete(p.slots, id)
	p.places[i] = Place{Ended: reason}
}

// waiting makes the slots of an arrival.
func (p *placer) waiting(a *Arrival, limits []Limit) {
	if len(limits) == 0 {
		return
	}
	rank, keys := 0.0, make([]string, len(limits))
	for i, l := range limits {
		keys[i] = l.Key
		if l.Kind == HoldFairness { // start-time fair queueing: the start tag is the rank
			group, own := VirtualKey{l.Key, ""}, VirtualKey{l.Key, l.Value}
			rank = max(p.state.Virtual[group], p.state.Virtual[own])
			p.state.Virtual[own] = rank + 1/l.Weight
			p.limits().Virtual[own] = p.state.Virtual[own]
		}
	}
	for _, l := range limits {
		p.counted(l.Key).Waiting++
		p.slots[a.ID] = append(p.slots[a.ID], Slot{Execution: a.ID, Key: l.Key, Kind: l.Kind, Value: l.Value, Keys: keys, Most: l.Most, Pool: l.Pool, Rank: rank, State: SlotWaiting})
	}
}

// pay takes a token of each rate and tells when the execution may begin: a bucket of Most tokens, one more each Per/Most.
func (b *placer) pay(rates []Limit) time.Time { return pay(b.limits(), b.state.Rates, rates, b.now) }

func pay(c *LimitChanges, known map[string]time.Time, rates []Limit, now time.Time) time.Time {
	due := now
	for _, l := range rates {
		step := l.Per / time.Duration(l.Most)
		if at := known[l.Key].Add(-step * time.Duration(l.Most-1)); at.After(due) {
			due = at
		}
	}
	for _, l := range rates {
		full := due
		if known[l.Key].After(full) {
			full = known[l.Key]
		}
		known[l.Key] = full.Add(l.Per / time.Duration(l.Most))
		c.Rates[l.Key] = known[l.Key]
	}
	return due
}

func rateReason(rates []Limit) string {
	return fmt.Sprintf("at most %d executions with the key %q start in %s", rates[0].Most, rates[0].Value, rates[0].Per)
}

// letIn lets an arrival hold its slots at once when nobody waits at its keys and there is room.
func (p *placer) letIn(i int) {
	a := &p.arrivals[i]
	slots := p.slots[a.ID]
	if len(slots) == 0 {
		return
	}
	room, first := true, true
	for _, s := range slots {
		c := p.counted(s.Key)
		room = room && c.Held < p.most(&s)
		first = first && c.Waiting == 1
	}
	if room && first && !a.Paused {
		for j := range slots {
			c := p.counted(slots[j].Key)
			c.Held, c.Waiting = c.Held+1, c.Waiting-1
			slots[j].State = SlotHeld
			if slots[j].Kind == HoldFairness {
				group := VirtualKey{slots[j].Key, ""}
				p.state.Virtual[group] = max(p.state.Virtual[group], slots[j].Rank)
				p.limits().Virtual[group] = p.state.Virtual[group]
			}
		}
		return
	}
	if room && !a.Paused { // somebody is before it: Admit knows whose turn it is
		p.out.Freed = append(p.out.Freed, slots[0].Keys...)
	}
	p.places[i].Hold = slots[0].Kind
	p.hold(a.ID, slots[0].Kind, slots[0].Value, slotReason(&slots[0]), time.Time{})
}

func slotReason(s *Slot) string {
	if s.Kind == HoldFairness {
		return fmt.Sprintf("waits for its turn among the keys of its flow; its own is %q", s.Value)
	}
	return fmt.Sprintf("at most %d executions with the key %q run at once", s.Most, s.Value)
}

func (p *placer) most(s *Slot) int {
	if s.Most > 0 {
		return s.Most
	}
	return window(p.state.Windows[s.Pool])
}

// window is how many executions of a fair flow are let into the queue of a pool with so many slots.
func window(slots int) int { return max(MinWindow, 2*slots) }

// endNewest ends what cancel_newest refuses, or a later arrival displaced, in the transaction that accepts it.
func (p *placer) endNewest(ctx context.Context, tx Tx) error {
	var ids []ID
	for i := range p.places {
		if p.places[i].Ended != "" {
			ids = append(ids, p.arrivals[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	b, err := lock(ctx, tx, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if r := b.rows[id]; r != nil {
			_, _, ef := r.cancel(Cancelled, b.now)
			b.take(r, ef)
			b.because(id, p.places[p.index[id]].Ended)
		}
	}
	if err := b.write(ctx, tx); err != nil {
		return err
	}
	p.out.News = append(p.out.News, b.out.News...)
	return nil
}

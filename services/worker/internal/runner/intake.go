package runner

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Between two suspects others may begin for as long as suspectShare times what the first has kept them back, so that a row of suspects doesn't stop everything else; at
// most for longestGap, at least for shortestGap. A fixed second made a row of short ones slow: 200 executions that two kills had hit took minutes.
const (
	suspectShare = 2
	shortestGap  = 20 * time.Millisecond
	longestGap   = time.Second
)

// intake holds what was delivered and not begun, and decides what is begun next. All waiting is on its one condition.
type intake struct {
	mu      sync.Mutex
	cond    sync.Cond
	buffers [priorities]ring
	credit  [priorities]int
	slots   int
	running int
	ended   uint64 // slots given back since the beginning
	stopped bool   // nothing is begun any more
	paused  map[string]bool

	suspects []parked  // begin one at a time, when nothing else runs
	alone    bool      // a suspect is running
	gap      bool      // others may begin although suspects wait
	held     time.Time // since when nobody else may begin, for the next suspect

	idle  int // hands that wait here, or are about to
	hands int
}

// parked is a suspect that waits for its turn.
type parked struct {
	delivery Delivery
	begin    func()
}

func newIntake(slots int) *intake {
	in := &intake{slots: slots, paused: map[string]bool{}}
	in.cond.L = &in.mu
	return in
}

// offer takes a delivery; it never blocks, since the broker's prefetch bounds what comes.
func (in *intake) offer(d Delivery) {
	in.mu.Lock()
	in.buffers[d.Priority].push(d)
	in.mu.Unlock()
	in.cond.Signal()
}

// take waits for a delivery that may be begun, and takes a slot for it. It is false when the intake has stopped.
func (in *intake) take() (Delivery, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		if in.stopped {
			return Delivery{}, false
		}
		if in.mayBegin() {
			if d, ok := in.pick(); ok {
				in.running++
				return d, true
			}
		}
		in.cond.Wait()
	}
}

func (in *intake) mayBegin() bool {
	return in.running < in.slots && len(in.paused) == 0 && !in.alone && (len(in.suspects) == 0 || in.gap)
}

// pick chooses by smooth weighted round robin over the buffers that hold something. What the broker will deliver again is forgotten.
func (in *intake) pick() (Delivery, bool) {
	for {
		best, total := Priority(-1), 0
		for p := range priorities {
			if in.buffers[p].len() == 0 {
				continue
			}
			in.credit[p] += weights[p]
			total += weights[p]
			if best < 0 || in.credit[p] > in.credit[best] {
				best = p
			}
		}
		if best < 0 {
			return Delivery{}, false
		}
		in.credit[best] -= total
		if d := in.buffers[best].pop(); !d.Receipt.Gone() {
			return d, true
		}
	}
}

// release gives a slot back.
func (in *intake) release() {
	in.mu.Lock()
	in.running--
	in.ended++
	if in.alone {
		in.alone = false
		if len(in.suspects) > 0 {
			in.gap = true
			time.AfterFunc(gapAfter(time.Since(in.held)), in.endGap)
			in.cond.Broadcast()
		}
	}
	begin := in.nextSuspect()
	wake := in.cond.Signal
	if in.running == 0 { // somebody may wait for just that
		wake = in.cond.Broadcast
	}
	in.mu.Unlock()
	wake()
	if begin != nil {
		go begin()
	}
}

// park gives the slot back until nothing else runs; begin is called then, with a slot. It tells whether anything else runs now.
func (in *intake) park(d Delivery, begin func()) (others bool) {
	in.mu.Lock()
	in.running--
	if len(in.suspects) == 0 && !in.alone && !in.gap {
		in.held = time.Now()
	}
	in.suspects = append(in.suspects, parked{d, begin})
	others = in.running > 0
	next := in.nextSuspect()
	in.mu.Unlock()
	if next != nil {
		go next()
	}
	return others
}

// gapAfter says how long others may begin when a suspect has kept them back for so long.
func gapAfter(held time.Duration) time.Duration {
	return min(max(suspectShare*held, shortestGap), longestGap)
}

func (in *intake) endGap() {
	in.mu.Lock()
	in.gap, in.held = false, time.Now()
	begin := in.nextSuspect()
	in.mu.Unlock()
	if begin != nil {
		begin()
	}
}

func (in *intake) nextSuspect() func() {
	if in.alone || in.gap || in.running > 0 || len(in.suspects) == 0 || len(in.paused) > 0 || in.stopped {
		return nil
	}
	begin := in.suspects[0].begin
	in.suspects[0] = parked{}
	in.suspects = in.suspects[1:]
	in.alone = true
	in.running++
	return begin
}

// pause holds everything that isn't begun, for a reason; resume takes the reason away.
func (in *intake) pause(reason string) {
	in.mu.Lock()
	in.paused[reason] = true
	in.mu.Unlock()
}

func (in *intake) resume(reason string) {
	in.mu.Lock()
	if !in.paused[reason] {
		in.mu.Unlock()
		return
	}
	delete(in.paused, reason)
	begin := in.nextSuspect()
	in.mu.Unlock()
	in.cond.Broadcast()
	if begin != nil {
		go begin()
	}
}

// resize sets the number of slots.
func (in *intake) resize(slots int) {
	in.mu.Lock()
	in.slots = slots
	in.mu.Unlock()
	in.cond.Broadcast()
}

// stop begins nothing more and returns what was not begun.
func (in *intake) stop() []Delivery {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stopped = true
	var left []Delivery
	for p := range priorities {
		for in.buffers[p].len() > 0 {
			if d := in.buffers[p].pop(); !d.Receipt.Gone() {
				left = append(left, d)
			}
		}
	}
	for _, s := range in.suspects {
		if !s.delivery.Receipt.Gone() {
			left = append(left, s.delivery)
		}
	}
	in.suspects = nil
	in.cond.Broadcast()
	return left
}

// wait waits until no slot is in use.
func (in *intake) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.cond.Broadcast()
	})()
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.running > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("runner.Wait: %d executions still run here: %w", in.running, ctx.Err())
		}
		in.cond.Wait()
	}
	return nil
}

// counts gives slots, slots in use, and deliveries not begun.
func (in *intake) counts() (slots, running, buffered int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for p := range priorities {
		buffered += in.buffers[p].len()
	}
	return in.slots, in.running, buffered
}

// ring is a queue that reuses its memory.
type ring struct {
	items []Delivery
	head  int
	n     int
}

func (r *ring) len() int { return r.n }

func (r *ring) push(d Delivery) {
	if r.n == len(r.items) {
		grown := make([]Delivery, max(16, 2*len(r.items)))
		for i := range r.n {
			grown[i] = r.items[(r.head+i)%len(r.items)]
		}
		r.items, r.head = grown, 0
	}
	r.items[(r.head+r.n)%len(r.items)] = d
	r.n++
}

func (r *ring) pop() Delivery {
	d := r.items[r.head]
	r.items[r.head] = Delivery{}
	r.head = (r.head + 1) % len(r.items)
	r.n--
	return d
}

// crowded tells whether a suspect waits for other runs to end.
func (in *intake) crowded() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.suspects) > 0 && in.running > 0 && !in.alone
}

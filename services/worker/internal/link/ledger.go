package link

import (
	"sync"

	"flowplatform/services/internal/broker"
)

// acker is what a ledger needs of a delivery.
type acker interface {
	Ack() bool
	AckMultiple(n int) bool
	Stale() bool
}

// ledger holds the deliveries of one consumer that aren't acknowledged, in the order of their tags, and acknowledges by as few frames as
// that order allows: all from the oldest to the first that isn't done are one frame.
type ledger struct {
	wake chan struct{}

	mu      sync.Mutex
	epoch   uint64
	head    receipt // of a ring
	pending []*receipt
	flushes sync.Mutex
	closed  bool
}

// receipt is one delivery in a ledger.
type receipt struct {
	l          *ledger
	d          acker
	epoch      uint64
	acked      bool
	prev, next *receipt // nil: not in the ring
}

func newLedger() *ledger {
	l := &ledger{wake: make(chan struct{}, 1)}
	l.head.prev, l.head.next = &l.head, &l.head
	return l
}

func (l *ledger) receive(d broker.Delivery) *receipt { return l.add(&d, d.Epoch) }

func (l *ledger) add(d acker, epoch uint64) *receipt {
	r := &receipt{l: l, d: d, epoch: epoch}
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch != l.epoch { // another channel: the tags of the old one are void
		l.epoch = epoch
		l.head.prev, l.head.next = &l.head, &l.head
		l.pending = nil
	}
	r.prev, r.next = l.head.prev, &l.head
	r.prev.next, r.next.prev = r, r
	return r
}

// Ack acknowledges soon.
func (r *receipt) Ack() {
	l := r.l
	l.mu.Lock()
	if r.epoch != l.epoch || r.acked {
		l.mu.Unlock()
		return
	}
	r.acked = true
	l.pending = append(l.pending, r)
	if !l.closed {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	l.mu.Unlock()
}

// Gone tells whether the delivery's channel is gone.
func (r *receipt) Gone() bool { return r.d.Stale() }

func (l *ledger) run() {
	for range l.wake {
		l.flush()
	}
}

func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.wake)
	}
}

// flush sends what is pending. While one flush writes, what comes gathers for the next.
func (l *ledger) flush() {
	l.flushes.Lock()
	defer l.flushes.Unlock()
	l.mu.Lock()
	pending := l.pending
	l.pending = nil
	var last *receipt
	n := 0
	for r := l.head.next; r != &l.head && r.acked; r = l.head.next {
		l.unlink(r)
		last = r
		n++
	}
	single := pending[:0]
	for _, r := range pending {
		if r.next != nil {
			l.unlink(r)
			single = append(single, r)
		}
	}
	l.mu.Unlock()
	switch {
	case n == 1:
		last.d.Ack()
	case n > 1:
		last.d.AckMultiple(n)
	}
	for _, r := range single {
		r.d.Ack()
	}
}

func (l *ledger) unlink(r *receipt) {
	r.prev.next, r.next.prev = r.next, r.prev
	r.prev, r.next = nil, nil
}

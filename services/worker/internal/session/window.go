package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"flowplatform/services/internal/protocol"
)

// ErrClosed is the cause with which contexts of a Window end: the trust window closed, so the outcome of what was cut is unknown.
var ErrClosed = errors.New("the session's trust window has closed")

// CutTime is what it may take to end a call that is in flight when the window closes; the margin holds it back.
const CutTime = 300 * time.Millisecond

// TrustFor is how long after the sending of a successful renewal a worker may act: the lease less twice one percent (clocks of two hosts drift
// apart over it) less the time to cut a call.
func TrustFor(lease time.Duration) time.Duration {
	return lease - lease/50 - CutTime
}

// Window is the trust window: any goroutine may ask it. The zero session means that there is none.
type Window struct {
	clock Clock

	mu      sync.Mutex
	session protocol.ID
	until   time.Duration // on clock; valid while session is set
	ctx     context.Context
	cancel  context.CancelCauseFunc
	changed chan struct{} // closed when until or session changed: the watch looks again
}

// NewWindow makes a closed window.
func NewWindow(clock Clock) *Window {
	return &Window{clock: clock, changed: make(chan struct{})}
}

// Current gives the session that is open now (zero: none), and whether its window is open at this moment.
func (w *Window) Current() (protocol.ID, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session, w.openLocked()
}

// Enter is the last thing before an effect of a run that owns its attempt under owner: it gives a context that ends with cause ErrClosed
// when the window closes, or false when the effect must not begin.
func (w *Window) Enter(owner protocol.ID) (context.Context, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if owner.IsZero() || owner != w.session || !w.openLocked() {
		return nil, false
	}
	return w.ctx, true
}

func (w *Window) openLocked() bool {
	return !w.session.IsZero() && w.ctx != nil && w.clock() < w.until
}

// extend opens the window of the session, or keeps it open, until the given time. A renewal that was sent before another never shortens what the other gave.
func (w *Window) extend(session protocol.ID, until time.Duration) (opened bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if session != w.session {
		w.closeLocked()
		w.session, w.until = session, until
	}
	w.until = max(w.until, until)
	if now := w.clock(); now < w.until && w.ctx == nil {
		w.ctx, w.cancel = context.WithCancelCause(context.Background())
		opened = true
	}
	w.tellLocked()
	return opened
}

// expire closes the window if its time has come, and tells when to look again (0: nothing is open).
func (w *Window) expire() (closed bool, session protocol.ID, next time.Duration, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx == nil {
		return false, w.session, 0, w.changed
	}
	if left := w.until - w.clock(); left > 0 {
		return false, w.session, left, w.changed
	}
	w.closeLocked()
	return true, w.session, 0, w.changed
}

// end forgets the session: it is dead.
func (w *Window) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closeLocked()
	w.session = protocol.ID{}
	w.tellLocked()
}

func (w *Window) closeLocked() {
	if w.ctx != nil {
		w.cancel(ErrClosed)
		w.ctx, w.cancel = nil, nil
	}
}

func (w *Window) tellLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

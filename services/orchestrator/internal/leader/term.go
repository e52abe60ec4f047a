package leader

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Boottime is CLOCK_BOOTTIME: monotonic, and it counts while the machine sleeps. Its origin is the machine's start.
func Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("leader: this kernel has no CLOCK_BOOTTIME, which Linux has since 2.6.39: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// Term is one leadership.
type Term struct {
	// Number was raised in PostgreSQL for this term: what needs a fence carries it.
	Number int64
	lease  *lease
}

// Valid tells whether the trust window is open at this moment. Ask right before an act: the term's context ends too when the window closes, but a
// process that was paused may run a little before its timers do.
func (t *Term) Valid() bool { return t.lease.open() }

// lease is a Consul session that holds, or is about to hold, the lock.
type lease struct {
	session string
	ttl     time.Duration
	clock   func() time.Duration
	until   atomic.Int64 // end of the trust window, on clock
	ctx     context.Context
	end     context.CancelCauseFunc
}

// window is how long a renewal is trusted, from the moment it was sent.
func window(ttl time.Duration) time.Duration { return ttl - ttl/10 }

func (l *lease) renewed(sent time.Duration) { l.until.Store(int64(sent + window(l.ttl))) }

func (l *lease) left() time.Duration { return time.Duration(l.until.Load()) - l.clock() }

func (l *lease) open() bool { return l.ctx.Err() == nil && l.left() > 0 }

// guard ends the lease when its window closes.
func (l *lease) guard() {
	timer := time.NewTimer(l.left())
	defer timer.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-timer.C:
			left := l.left()
			if left <= 0 {
				l.end(errWindow)
				return
			}
			timer.Reset(left)
		}
	}
}

package session

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock gives the time since some fixed point; it must go on while the process is frozen and while the machine sleeps.
type Clock func() time.Duration

// Boottime is CLOCK_BOOTTIME. Go's own monotonic clock is CLOCK_MONOTONIC, which stands still while a machine sleeps.
func Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil { // only for an unknown clock: Linux has had it since 2.6.39
		panic("session: CLOCK_BOOTTIME can't be read: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

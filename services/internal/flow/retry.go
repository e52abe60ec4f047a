package flow

import "time"

// Values of Retry.Backoff.
const (
	BackoffExponential = "exponential"
	BackoffFixed       = "fixed"
)

// Defaults of Retry, and the ranges that Compile allows.
const (
	DefaultInitialDelay = time.Second
	DefaultMaxDelay     = time.Minute
	MaxRetryDelay       = 24 * time.Hour
	MaxNodeTimeout      = 24 * time.Hour
	MaxFlowTimeout      = 366 * 24 * time.Hour
	MinRetention        = time.Minute // who waits for an execution's end must still find it
	MaxRetention        = 10 * 366 * 24 * time.Hour
)

// Tries says how often a node may be tried in all.
func (r *Retry) Tries() int {
	if r == nil {
		return 1
	}
	return max(1, r.MaxAttempts)
}

// Delay gives the pause after a failed try (1 is the first). With jitter it lies between half of the delay and the whole, by seed.
func (r *Retry) Delay(try int, seed uint64) time.Duration {
	initial, most := time.Duration(r.InitialDelay), time.Duration(r.MaxDelay)
	if initial <= 0 {
		initial = DefaultInitialDelay
	}
	if most <= 0 {
		most = max(DefaultMaxDelay, initial)
	}
	d := initial
	if r.Backoff != BackoffFixed {
		for range try - 1 {
			if d *= 2; d >= most {
				break
			}
		}
	}
	d = min(d, most)
	if r.Jitter && d > 1 {
		half := d / 2
		d = half + time.Duration(mix(seed+uint64(try))%uint64(d-half+1))
	}
	return d
}

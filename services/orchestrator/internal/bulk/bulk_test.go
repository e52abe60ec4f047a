package bulk

import (
	"testing"
	"time"
)

func TestAllowance(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a := &allowance{at: now}
	for i, tt := range []struct {
		after time.Duration
		want  int
	}{{0, 0}, {100 * time.Millisecond, 10}, {5 * time.Millisecond, 0}, {5 * time.Millisecond, 1}, {time.Minute, 50}, {0, 50}, {0, 0}} { // a long pause earns no more than a second's worth
		now = now.Add(tt.after)
		if got := a.take(now, 100, 50); got != tt.want {
			t.Errorf("look %d: %d, want %d", i, got, tt.want)
		}
	}
}

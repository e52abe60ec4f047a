package schedule

import (
	"fmt"
	"time"

	"flowplatform/services/internal/cron"
	"flowplatform/services/internal/store"
)

const (
	// grace is how late an instant may be and still count as due: a change of leaders takes seconds, and what falls into it is fired whatever the catch-up policy.
	grace = time.Minute
	// maxOnTime bounds what one look fires of one schedule; the next goes on there.
	maxOnTime = 120
	// maxCounted is how far missed instants are counted.
	maxCounted = 10_000
)

// Catch-up policies, for instants that were missed by more than grace.
const (
	catchUpOne = "one"
	catchUpAll = "all"
)

// instant is what shall become of one instant of a schedule, or with missed of several.
type instant struct {
	due     time.Time
	starts  bool
	late    time.Duration // of one that is caught up with
	missed  int
	uncount bool // there were more than missed
}

func (i *instant) reason(catchUp string) string {
	about := ""
	if i.uncount {
		about = "more than "
	}
	switch {
	case !i.starts:
		return fmt.Sprintf("%s%d instants up to this one were missed, and catchUp is %s", about, i.missed, catchUp)
	case i.missed > 0:
		return fmt.Sprintf("caught up %s late, for %s%d instants before it too", i.late.Round(time.Second), about, i.missed)
	case i.late > 0:
		return fmt.Sprintf("caught up %s late", i.late.Round(time.Second))
	}
	return ""
}

// plan says what shall become of a schedule's instants up to now, oldest first, and which is next.
func plan(s *store.Schedule, e *cron.Expression, now time.Time) (out []instant, next time.Time) {
	last := now
	if !s.EndAt.IsZero() && s.EndAt.Before(last) {
		last = s.EndAt
	}
	fresh := now.Add(-grace) // from here on, instants are on time
	if missedTo := earlier(fresh.Add(-1), last); !s.Due.After(missedTo) {
		out = missed(s, e, missedTo, now)
	}
	first := fresh
	if s.Due.After(first) {
		first = s.Due
	}
	due, more := e.Between(first, last, maxOnTime)
	for _, at := range due {
		out = append(out, instant{due: at, starts: true})
	}
	after := now
	if more {
		after = due[len(due)-1]
	}
	return out, e.Within(after, s.StartAt, s.EndAt)
}

// missed applies the catch-up policy to the instants from what is due to last.
func missed(s *store.Schedule, e *cron.Expression, last, now time.Time) []instant {
	list, more := e.Between(s.Due, last, maxCounted)
	if len(list) == 0 {
		return nil
	}
	count, keep := len(list), 0
	switch s.CatchUp {
	case catchUpOne:
		keep = 1
	case catchUpAll:
		keep = min(s.CatchUpMax, count)
	}
	if more {
		list = e.Latest(s.Due, last, keep+1)
	}
	kept := list[len(list)-keep:]
	var out []instant
	if left := count - keep; left > 0 && s.CatchUp != catchUpOne {
		out = append(out, instant{due: list[len(list)-keep-1], missed: left, uncount: more})
	}
	for _, at := range kept {
		i := instant{due: at, starts: true, late: now.Sub(at)}
		if s.CatchUp == catchUpOne {
			i.missed, i.uncount = count-1, more
		}
		out = append(out, i)
	}
	return out
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

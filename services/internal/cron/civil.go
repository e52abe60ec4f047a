package cron

import (
	"math/bits"
	"time"

	parser "github.com/netresearch/go-cron"
)

// civil is the first time of a calendar without zones, from the given one on, that the expression names; zero: none for decades. A calendar of UTC has no gaps.
func (e *Expression) civil(from time.Time) time.Time {
	if part := from.Nanosecond(); part > 0 {
		from = from.Add(time.Second - time.Duration(part))
	}
	day := time.Date(from.Year(), from.Month(), from.Day(), 0, 0, 0, 0, time.UTC)
	clock := from.Sub(day)
	for end := from.Year() + horizonYears; day.Year() <= end; {
		if e.spec.Month&(1<<uint(day.Month())) == 0 {
			day, clock = time.Date(day.Year(), day.Month()+1, 1, 0, 0, 0, 0, time.UTC), 0
			continue
		}
		if e.day(day) {
			if at, ok := e.clock(clock); ok {
				return day.Add(at)
			}
		}
		day, clock = day.AddDate(0, 0, 1), 0
	}
	return time.Time{}
}

// clock is the first time of a day from the given one on.
func (e *Expression) clock(from time.Duration) (time.Duration, bool) {
	h, m, s := int(from/time.Hour), int(from/time.Minute)%60, int(from/time.Second)%60
	for ; h < 24; h, m, s = h+1, 0, 0 {
		if e.spec.Hour&(1<<uint(h)) == 0 {
			continue
		}
		for m = next(e.spec.Minute, m, &s); m >= 0; m = next(e.spec.Minute, m+1, &s) {
			if found := next(e.spec.Second, s, nil); found >= 0 {
				return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(found)*time.Second, true
			}
			s = 0 // none is left in this minute, the one of from
		}
	}
	return 0, false
}

// next is the first of the set's members below 60 that is not smaller than n; -1: none. The smaller unit begins anew when it isn't n itself.
func next(set uint64, n int, smaller *int) int {
	rest := uint64(0)
	if n < 60 {
		rest = (set &^ starBit) >> uint(n) << uint(n)
	}
	if rest == 0 {
		return -1
	}
	found := bits.TrailingZeros64(rest)
	if smaller != nil && found != n {
		*smaller = 0
	}
	return found
}

// day tells whether a day is named. As in every cron, a day of the month and a day of the week that are both restricted are alternatives.
func (e *Expression) day(day time.Time) bool {
	s := e.spec
	ofMonth := s.Dom&(1<<uint(day.Day())) != 0
	for _, c := range s.DomConstraints {
		ofMonth = ofMonth || day.Day() == dayOf(c, day)
	}
	ofWeek := s.Dow&(1<<uint(day.Weekday())) != 0
	for _, c := range s.DowConstraints {
		ofWeek = ofWeek || weekday(c, day)
	}
	if s.Dom&starBit != 0 || s.Dow&starBit != 0 {
		return ofMonth && ofWeek
	}
	return ofMonth || ofWeek
}

func lastOf(day time.Time) int {
	return time.Date(day.Year(), day.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// dayOf is the day of the month that L, L-n, LW or nW names; 0: this month has none.
func dayOf(c parser.DomConstraint, day time.Time) int {
	last := lastOf(day)
	switch c.Type {
	case parser.DomLast:
		return last
	case parser.DomLastOffset:
		return last - c.N
	case parser.DomLastWeekday:
		return workday(day, last)
	case parser.DomNearestWeekday:
		if c.N > last {
			return 0
		}
		return workday(day, c.N)
	}
	return 0
}

// workday is the day from Monday to Friday that is nearest to a day of the month, within that month.
func workday(month time.Time, n int) int {
	last := lastOf(month)
	switch time.Date(month.Year(), month.Month(), n, 0, 0, 0, 0, time.UTC).Weekday() {
	case time.Saturday:
		if n == 1 {
			return 3
		}
		return n - 1
	case time.Sunday:
		if n == last {
			return n - 2
		}
		return n + 1
	}
	return n
}

// weekday tells whether a day is the nth of its weekday in the month, or the last.
func weekday(c parser.DowConstraint, day time.Time) bool {
	if int(day.Weekday()) != c.Weekday%7 {
		return false
	}
	if c.N < 0 {
		return day.Day()+7 > lastOf(day)
	}
	return (day.Day()-1)/7+1 == c.N
}

package expr

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // the same zones on every host, also in a small chroot
)

func timeFunctions() []*function {
	return []*function{
		{"now", 0, 0, "now(): the time of the last recorded event; the same when computed again", func(f *frame, _ []any) (any, error) {
			f.foreign = true
			return f.scope.Now.UTC(), nil
		}},
		{"date", 1, 3, `date("2026-03-01T10:00:00Z"), date(text, layout), date(text, layout, "Europe/Berlin"): a time read from a text; layouts as in formatTime, "" tries the usual ones`, date},
		{"duration", 1, 1, `duration("1h30m"), duration(1500): a duration of a text, or of milliseconds`, duration},
		{"formatTime", 2, 3, `formatTime(time, "2006-01-02 15:04", "Europe/Berlin"): as text; the layout shows how 2006-01-02 15:04:05 would look`, formatWith},
		{"inZone", 2, 2, `inZone(time, "Europe/Berlin"): the same moment, its members as seen there`, func(f *frame, args []any) (any, error) {
			t, err := f.moment(args, 0)
			if err != nil {
				return nil, err
			}
			zone, err := location(args, 1)
			if err != nil {
				return nil, err
			}
			return t.In(zone), nil
		}},
		{"fromUnix", 1, 1, "fromUnix(seconds): a time", func(f *frame, args []any) (any, error) {
			n, err := integer(args, 0)
			if err != nil {
				return nil, err
			}
			f.foreign = true
			return moment(time.Unix(int64(n), 0).UTC())
		}},
		{"addMonths", 2, 2, "addMonths(time, n): so many months later, at the latest on the last day of that month", addMonths},
	}
}

// moment refuses times that RFC 3339 can't write.
func moment(t time.Time) (any, error) {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("the year %d is not within 0 to 9999", y)
	}
	return t, nil
}

// moment takes a time, or the text of one.
func (f *frame) moment(args []any, i int) (time.Time, error) {
	f.foreign = true
	switch x := args[i].(type) {
	case time.Time:
		return x, nil
	case string:
		return parseTime(x, "", time.UTC)
	}
	return time.Time{}, wrong(i, "a time", args[i])
}

func location(args []any, i int) (*time.Location, error) {
	name, err := str(args, i)
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf(`there is no time zone %s; write it like "Europe/Berlin" or "UTC"`, show(name))
	}
	return zone, nil
}

func parseTime(s, layout string, zone *time.Location) (time.Time, error) {
	layouts := []string{layout}
	if layout == "" {
		layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly, time.RFC1123Z, time.RFC1123}
	}
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, s, zone); err == nil {
			return t, nil
		}
	}
	if layout == "" {
		return time.Time{}, fmt.Errorf(`%s is no time; write it like "2026-03-01T10:00:00Z" or "2026-03-01", or give its layout`, show(s))
	}
	return time.Time{}, fmt.Errorf("%s is no time of the layout %s", show(s), show(layout))
}

func date(f *frame, args []any) (any, error) {
	f.foreign = true
	if t, ok := args[0].(time.Time); ok {
		return t, nil
	}
	s, err := str(args, 0)
	if err != nil {
		return nil, err
	}
	layout, zone := "", time.UTC
	if len(args) > 1 {
		if layout, err = str(args, 1); err != nil {
			return nil, err
		}
	}
	if len(args) > 2 {
		if zone, err = location(args, 2); err != nil {
			return nil, err
		}
	}
	t, err := parseTime(s, layout, zone)
	if err != nil {
		return nil, err
	}
	return moment(t)
}

func duration(f *frame, args []any) (any, error) {
	f.foreign = true
	switch x := args[0].(type) {
	case time.Duration:
		return x, nil
	case string:
		d, err := time.ParseDuration(strings.TrimSpace(x))
		if err != nil {
			return nil, fmt.Errorf(`%s is no duration; write it like "30s" or "1h30m"`, show(x))
		}
		return d, nil
	}
	ms, ok := asInt(args[0])
	if !ok {
		return nil, wrong(0, "a text or whole milliseconds", args[0])
	}
	ns, ok := product(ms, int(time.Millisecond))
	if !ok {
		return nil, fmt.Errorf("%d ms is longer than a duration can be", ms)
	}
	return time.Duration(ns), nil
}

func formatWith(f *frame, args []any) (any, error) {
	t, err := f.moment(args, 0)
	if err != nil {
		return nil, err
	}
	layout, err := str(args, 1)
	if err != nil {
		return nil, err
	}
	if len(args) == 3 {
		zone, err := location(args, 2)
		if err != nil {
			return nil, err
		}
		t = t.In(zone)
	}
	return t.Format(layout), f.grow(4 * len(layout))
}

func addMonths(f *frame, args []any) (any, error) {
	t, err := f.moment(args, 0)
	if err != nil {
		return nil, err
	}
	n, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	if n > 120_000 || n < -120_000 {
		return nil, fmt.Errorf("%d months is too far", n)
	}
	first := time.Date(t.Year(), t.Month()+time.Month(n), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), t.Location())
	lastDay := time.Date(first.Year(), first.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
	return moment(time.Date(first.Year(), first.Month(), min(t.Day(), lastDay), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), t.Location()))
}

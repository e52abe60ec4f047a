package schedule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/cron"
	"flowplatform/services/internal/store"
)

// What becomes of instants after a downtime, by policy. now is 12:00:30; due is the first instant that nobody has decided on. +: starts, -: doesn't.
func TestPlan(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 30, 0, time.UTC)
	for _, c := range []struct {
		name, cron, catchUp string
		most                int
		due, end            string
		want, next          string
	}{
		{"on time", "0 12 * * *", "skip", 100, "12:00:00", "", "+12:00:00", "12:00:00"},
		{"within grace, whatever the policy", "*/20 * * * * *", "skip", 100, "11:59:40", "", "+11:59:40 +12:00:00 +12:00:20", "12:00:40"},
		{"skip", "*/10 * * * *", "skip", 100, "11:00:00", "", "-11:50:00(6) +12:00:00", "12:10:00"},
		{"one", "*/10 * * * *", "one", 100, "11:00:00", "", "+11:50:00(5) +12:00:00", "12:10:00"},
		{"one of one", "0 11 * * *", "one", 100, "11:00:00", "", "+11:00:00", "11:00:00"},
		{"all", "*/20 * * * *", "all", 100, "11:00:00", "", "+11:00:00 +11:20:00 +11:40:00 +12:00:00", "12:20:00"},
		{"all up to two", "*/10 * * * *", "all", 2, "11:00:00", "", "-11:30:00(4) +11:40:00 +11:50:00 +12:00:00", "12:10:00"},
		{"more than anybody counts", "* * * * * *", "all", 2, "01:00:00", "", "-11:59:27(9998) +11:59:28 +11:59:29", ""},
		{"more than anybody counts, skipped", "* * * * * *", "skip", 2, "01:00:00", "", "-11:59:29(10000)", ""},
		{"an end", "*/10 * * * *", "all", 100, "11:30:00", "11:40:00", "+11:30:00 +11:40:00", "never"},
		{"an end ahead", "*/10 * * * *", "skip", 100, "12:00:00", "12:05:00", "+12:00:00", "never"},
		{"much on time goes on in the next look", "* * * * * *", "skip", 100, "12:00:20", "", "+12:00:20 +12:00:21 +12:00:22 +12:00:23 +12:00:24 +12:00:25 +12:00:26 +12:00:27 +12:00:28 +12:00:29 +12:00:30", "12:00:31"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := cron.Parse(c.cron, "")
			if err != nil {
				t.Fatal(err)
			}
			s := store.Schedule{CatchUp: c.catchUp, CatchUpMax: c.most, Due: clock(t, c.due), EndAt: clock(t, c.end)}
			out, next := plan(&s, e, now)
			var got []string
			for _, i := range out {
				sign := "-"
				if i.starts {
					sign = "+"
				}
				text := sign + i.due.Format(time.TimeOnly)
				if i.missed > 0 {
					text += fmt.Sprintf("(%d)", i.missed)
				}
				got = append(got, text)
				if i.due.Before(now.Add(-grace)) == (i.reason(c.catchUp) == "") {
					t.Errorf("%s: reason %q", text, i.reason(c.catchUp))
				}
			}
			if c.next == "" { // only the beginning counts
				got = got[:len(strings.Fields(c.want))]
			} else if shown := next.Format(time.TimeOnly); shown != c.next && (c.next != "never" || !next.IsZero()) {
				t.Errorf("next %s, want %s", shown, c.next)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("\n got %s\nwant %s", strings.Join(got, " "), c.want)
			}
		})
	}
}

func clock(t *testing.T, s string) time.Time {
	t.Helper()
	if s == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.DateTime, "2026-11-25 "+s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

package cron

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func parse(t *testing.T, text, zone string) *Expression {
	t.Helper()
	e, err := Parse(text, zone)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// What an expression fires after an instant, in the zone's own time. The table is written by hand from the zones' rules; docs/flows.md tells them to users.
func TestGolden(t *testing.T) {
	for _, c := range []struct{ name, text, zone, after, want string }{
		// CR-1: a library gave Sunday, in the night of the change.
		{"a weekday over the autumn change", "0 2 * * 6", "America/Chicago", "2026-10-31T02:00:00-05:00", "2026-11-07T02:00:00-06:00 2026-11-14T02:00:00-06:00"},
		{"spring skips a fixed time", "30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00+01:00", "2026-03-28T02:30:00+01:00 2026-03-29T03:00:00+02:00 2026-03-30T02:30:00+02:00"},
		{"spring skips several, they fire together", "*/10 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T03:00:00+02:00 2026-03-30T02:00:00+02:00"},
		{"spring skips one that meets another", "0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T03:00:00+02:00 2026-03-30T02:00:00+02:00"},
		{"autumn repeats a fixed time", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00"},
		{"asked for within the repeated hour", "30 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", "2026-10-26T02:30:00+01:00"},
		{"autumn repeats minutes of a fixed hour", "*/20 2 * * *", "Europe/Berlin", "2026-10-25T02:20:00+02:00", "2026-10-25T02:40:00+02:00 2026-10-26T02:00:00+01:00"},
		{"every hour goes through autumn", "0 * * * *", "Europe/Berlin", "2026-10-25T01:30:00+02:00", "2026-10-25T02:00:00+02:00 2026-10-25T02:00:00+01:00 2026-10-25T03:00:00+01:00"},
		{"every hour goes through spring", "@hourly", "Europe/Berlin", "2026-03-29T00:30:00+01:00", "2026-03-29T01:00:00+01:00 2026-03-29T03:00:00+02:00 2026-03-29T04:00:00+02:00"},
		{"every 20 minutes through autumn", "*/20 * * * *", "America/New_York", "2026-11-01T01:35:00-04:00", "2026-11-01T01:40:00-04:00 2026-11-01T01:00:00-05:00 2026-11-01T01:20:00-05:00"},
		{"named hours aren't all hours", "0 */2 * * *", "Europe/Berlin", "2026-03-29T00:30:00+01:00", "2026-03-29T03:00:00+02:00 2026-03-29T04:00:00+02:00"},
		{"half an hour in spring", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", "2026-10-04T02:30:00+11:00 2026-10-05T02:15:00+11:00"},
		{"half an hour in autumn", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00+11:00", "2026-04-05T01:45:00+11:00 2026-04-06T01:45:00+10:30"},
		{"no midnight", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", "2018-11-04T01:00:00-02:00 2018-11-05T00:00:00-02:00"},
		{"midnight after a change at midnight", "0 0 * * *", "America/Sao_Paulo", "2018-02-17T12:00:00-02:00", "2018-02-18T00:00:00-03:00 2018-02-19T00:00:00-03:00"},
		{"23:30 twice", "30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00:00-02:00", "2018-02-17T23:30:00-02:00 2018-02-18T23:30:00-03:00"},
		{"a day that never was", "0 12 * * *", "Pacific/Apia", "2011-12-29T13:00:00-10:00", "2011-12-31T00:00:00+14:00 2011-12-31T12:00:00+14:00"},
		{"seconds", "*/30 59 23 31 12 *", "", "2026-12-31T23:59:00Z", "2026-12-31T23:59:30Z 2027-12-31T23:59:00Z"},
		{"after a fraction of a second", "* * * * * *", "", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z 2026-01-01T00:00:02Z"},
		{"the last day", "0 9 L * *", "", "2027-12-31T10:00:00Z", "2028-01-31T09:00:00Z 2028-02-29T09:00:00Z 2028-03-31T09:00:00Z"},
		{"three days before the last", "0 9 L-3 2 *", "", "2026-01-01T00:00:00Z", "2026-02-25T09:00:00Z 2027-02-25T09:00:00Z 2028-02-26T09:00:00Z"},
		{"the last working day", "0 9 LW * *", "", "2026-01-01T00:00:00Z", "2026-01-30T09:00:00Z 2026-02-27T09:00:00Z 2026-03-31T09:00:00Z"},
		{"the working day nearest to the 15th", "0 9 15W * *", "", "2026-01-01T00:00:00Z", "2026-01-15T09:00:00Z 2026-02-16T09:00:00Z 2026-03-16T09:00:00Z"},
		{"nearest to the 1st, not of the month before", "0 9 1W * *", "", "2026-07-15T00:00:00Z", "2026-08-03T09:00:00Z 2026-09-01T09:00:00Z"},
		{"nearest to the 31st, not of the month after", "0 9 31W * *", "", "2026-05-01T00:00:00Z", "2026-05-29T09:00:00Z 2026-07-31T09:00:00Z"},
		{"the third Friday", "0 9 * * FRI#3", "", "2026-01-01T00:00:00Z", "2026-01-16T09:00:00Z 2026-02-20T09:00:00Z"},
		{"the last Friday", "0 9 * * 5L", "", "2026-01-01T00:00:00Z", "2026-01-30T09:00:00Z 2026-02-27T09:00:00Z"},
		{"Friday to Sunday", "0 0 * * 5-7", "", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z 2026-01-03T00:00:00Z 2026-01-04T00:00:00Z 2026-01-09T00:00:00Z"},
		{"Thursday by name", "0 0 * * thu", "", "2026-01-02T00:00:00Z", "2026-01-08T00:00:00Z"},
		{"a day of the month or of the week", "0 0 13 * FRI", "", "2026-02-07T00:00:00Z", "2026-02-13T00:00:00Z 2026-02-20T00:00:00Z 2026-02-27T00:00:00Z 2026-03-06T00:00:00Z 2026-03-13T00:00:00Z"},
		{"leap days", "0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
		{"over a century that has none", "0 0 29 2 ?", "", "2097-01-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"a range with steps", "0 8-18/5 * JAN,DEC MON-TUE", "", "2026-01-27T10:00:00Z", "2026-01-27T13:00:00Z 2026-01-27T18:00:00Z 2026-12-01T08:00:00Z"},
		{"a leap year's end beyond the zone's table", "30 2 * * *", "Europe/Berlin", "2040-12-30T02:30:00+01:00", "2040-12-31T02:30:00+01:00 2041-01-01T02:30:00+01:00 2041-01-02T02:30:00+01:00"},
		{"summer time beyond the zone's table", "30 2 * * *", "Europe/Berlin", "2048-03-28T02:30:00+01:00", "2048-03-29T03:00:00+02:00 2048-03-30T02:30:00+02:00"},
		{"a zone with quarters", "0 0 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00+05:45", "2026-01-02T00:00:00+05:45"},
		{"yearly", "@yearly", "Europe/Berlin", "2026-06-01T00:00:00+02:00", "2027-01-01T00:00:00+01:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := parse(t, c.text, c.zone)
			after, err := time.Parse(time.RFC3339, c.after)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Fields(c.want)
			var got []string
			for _, at := range e.Upcoming(after, len(want)) {
				got = append(got, at.In(e.loc).Format(time.RFC3339))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s in %s after %s:\n got %s\nwant %s", c.text, c.zone, c.after, strings.Join(got, " "), c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		text, zone, says string
		ofZone           bool
	}{
		{"", "", "five fields", false},
		{"* * * *", "", "this has 4", false},
		{"* * * * * * *", "", "this has 7", false},
		{"@every 5s", "", "@hourly", false},
		{"@reboot", "", "@hourly", false},
		{"TZ=Europe/Berlin 0 0 * * *", "", "timeZone", false},
		{"60 * * * *", "", "no cron expression", false},
		{"*/0 * * * *", "", "no cron expression", false},
		{"5-1 8 * * 1 x", "", "no cron expression", false},
		{"0 0 31 2 *", "", "never fires", false},
		{"0 0 30W 2 *", "", "never fires", false},
		{"0 0 * * 5#6", "", "no cron expression", false},
		{"H * * * *", "", "no cron expression", false},
		{strings.Repeat("0,", 101) + "0 * * * *", "", "at most", false},
		{"0 0 * * *", "Mars/Olympus", "no time zone", true},
		{"0 0 * * *", "Local", "no time zone", true},
		{"0 0 * * *", "../../etc/passwd", "no time zone", true},
		{"0 0 * * *", "UTC+2", "no time zone", true},
	} {
		_, err := Parse(c.text, c.zone)
		var wrong *Error
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.says) || wrong.Zone != c.ofZone {
			t.Errorf("%q in %q: %v", c.text, c.zone, err)
		}
	}
}

// byHand walks minute by minute, with nothing but the two rules of the package's doc.
func byHand(e *Expression, after, until time.Time) (out []time.Time) {
	walk := after.Add(-4 * time.Hour).Truncate(time.Minute)
	shown := wall(walk.In(e.loc))
	for walk = walk.Add(time.Minute); !walk.After(until); walk = walk.Add(time.Minute) {
		now := wall(walk.In(e.loc))
		first := now
		if !e.elapsed {
			first = shown.Add(time.Minute)
		}
		fires := false
		for c := first; !c.After(now); c = c.Add(time.Minute) {
			fires = fires || e.civil(c).Equal(c)
		}
		if now.After(shown) {
			shown = now
		}
		if fires && walk.After(after) {
			out = append(out, walk.UTC())
		}
	}
	return out
}

// Expressions at random, in the days around changes of zones that change in every way, against the walk by hand.
func TestAgainstAWalk(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	changes := map[string][]string{
		"Europe/Berlin": {"2026-03-29", "2026-10-25"}, "America/Chicago": {"2026-03-08", "2026-11-01"}, "Australia/Lord_Howe": {"2026-04-05", "2026-10-04"},
		"America/Sao_Paulo": {"2018-02-18", "2018-11-04"}, "Pacific/Apia": {"2011-12-30"}, "Africa/Casablanca": {"2026-02-15", "2026-03-22"}, "UTC": {"2026-01-01"}, "Asia/Pyongyang": {"2015-08-15", "2018-05-04"},
	}
	field := func(most int) string {
		switch n := r.IntN(most); r.IntN(5) {
		case 0:
			return "*"
		case 1:
			return fmt.Sprintf("*/%d", 1+r.IntN(most/2))
		case 2:
			return fmt.Sprintf("%d-%d", n, n+r.IntN(most-n))
		default:
			return fmt.Sprint(n)
		}
	}
	fired := 0
	for zone, days := range changes {
		for _, day := range days {
			for range 40 {
				hours := 24
				if r.IntN(2) == 0 {
					hours = 4 // where the changes are
				}
				text := fmt.Sprintf("%s %s * * *", field(60), field(hours))
				e := parse(t, text, zone)
				begin, err := time.ParseInLocation(time.DateOnly, day, e.loc)
				if err != nil {
					t.Fatal(err)
				}
				after := begin.Add(time.Duration(r.IntN(40*60)-20*60) * time.Minute)
				until := after.Add(30 * time.Hour)
				want := byHand(e, after, until)
				got, _ := e.Between(after.Add(time.Nanosecond), until, 1<<20)
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("%s in %s after %s:\n got %v\nwant %v", text, zone, after, got, want)
				}
				fired += len(want)
			}
		}
	}
	if fired < 1000 {
		t.Errorf("only %d instants: the walk shows little", fired)
	}
}

// Every day has its noon, decades ahead and on both halves of the world.
func TestEveryDayForSeventyYears(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "Australia/Lord_Howe", "America/Chicago"} {
		e := parse(t, "0 12 * * *", zone)
		at := time.Date(2026, 1, 1, 12, 0, 0, 0, e.loc)
		for range 70 * 365 {
			want := time.Date(at.Year(), at.Month(), at.Day()+1, 12, 0, 0, 0, e.loc)
			got := e.Next(at)
			if !got.Equal(want) {
				t.Fatalf("%s after %s: %s", zone, at, got.In(e.loc))
			}
			at = want
		}
	}
}

func TestStretches(t *testing.T) {
	e := parse(t, "* * * * * *", "Europe/Berlin")
	first, last := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	got := e.Latest(first, last, 100)
	if len(got) != 100 || !got[99].Equal(last) || !got[0].Equal(last.Add(-99*time.Second)) {
		t.Errorf("the last hundred: %d, %v", len(got), got[len(got)-1])
	}
	if got := e.Latest(last.Add(-2*time.Second), last, 100); len(got) != 3 {
		t.Errorf("three are left: %v", got)
	}
	if got, more := e.Between(first, last, 5); len(got) != 5 || !more || !got[0].Equal(first) {
		t.Errorf("the first five: %v %v", got, more)
	}
	if got := parse(t, "@yearly", "").Latest(first, last, 10); len(got) != 7 {
		t.Errorf("seven years: %v", got)
	}
}

// What comes in is text of people: it may be refused, and must neither hang nor go back in time.
func FuzzParse(f *testing.F) {
	f.Add("0 2 * * 6", "America/Chicago")
	f.Add("*/30 59 23 31W 12 5L", "")
	f.Add("@daily", "Pacific/Apia")
	f.Fuzz(func(t *testing.T, text, zone string) {
		e, err := Parse(text, zone)
		if err != nil {
			return
		}
		after := time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC)
		for _, at := range e.Upcoming(after, 5) {
			if !at.After(after) {
				t.Fatalf("%q in %q: %v after %v", text, zone, at, after)
			}
			after = at
		}
	})
}

func BenchmarkNext(b *testing.B) {
	e, err := Parse("30 2 * * MON-FRI", "Europe/Berlin")
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for b.Loop() {
		at = e.Next(at)
	}
}

// The table that users read says what happens.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../../docs/flows.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([A-Za-z_]+/[A-Za-z_]+) \\| (\\S+) \\| ([^|]+) \\|$").FindAllStringSubmatch(string(b), -1)
	if len(rows) < 6 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		e := parse(t, r[1], r[2])
		at, err := time.Parse(time.RFC3339, r[3])
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range strings.Fields(r[4]) {
			if at = e.Next(at); e.Local(at) != want {
				t.Errorf("%s in %s: %s, the docs say %s", r[1], r[2], e.Local(at), want)
			}
		}
	}
}

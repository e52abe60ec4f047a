// Package cron says when an expression fires: the next instants of wall-clock times in a time zone. It is pure: no clock, no I/O but the zone's data, which is
// embedded for hosts that have none.
//
// A parser of others reads the expression; what it comes to in a zone is ours, because that is where parsers of this field go wrong. Two rules hold, and everything follows
// from them:
//
//   - An expression that names hours is about wall-clock times, and each of them fires once: at the first instant at which the zone's clock shows it or a later time. So a
//     time that spring skips fires at the first instant after the gap (several of them together, once), and a time that autumn repeats fires the first time only.
//   - An expression whose hours are all hours (*, as in "*/10 * * * *" or @hourly) goes by elapsed time: it fires whenever the clock shows a matching time, so through the gap
//     without a pause, and through the repeated hour again.
package cron

import (
	"fmt"
	"math/bits"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // for hosts and containers without zoneinfo; what the host has goes first

	parser "github.com/netresearch/go-cron"
)

// Limits of texts.
const (
	MaxExpression = 200
	MaxZone       = 64
)

// horizonYears is how far a search goes: the 29th of February as the fifth of a weekday comes back within 40 years.
const horizonYears = 45

// Error says what is wrong with an expression or a zone.
type Error struct {
	Zone    bool // of the zone, not of the expression
	Message string
}

func (e *Error) Error() string { return e.Message }

// Expression is an expression in a zone. It never changes and is safe for concurrent use.
type Expression struct {
	spec    *parser.SpecSchedule
	loc     *time.Location
	elapsed bool
}

// macros are written out here, so that only these are known: @every has no wall-clock time and @reboot no meaning.
var macros = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

var fields = parser.MustNewParser(parser.SecondOptional | parser.Minute | parser.Hour | parser.Dom | parser.Month | parser.Dow | parser.Extended | parser.DowOrDom)

// lastWeekday is how most write the last Friday (5L); the parser wants 5#L.
var lastWeekday = regexp.MustCompile(`^([0-7]|[A-Z]{3})L$`)

const starBit = 1 << 63

// Parse reads an expression of five fields (minute, hour, day of month, month, day of week), of six with seconds before them, or a macro like @daily; zone is an IANA name, ""
// is UTC. The error is an *Error.
func Parse(text, zone string) (*Expression, error) {
	loc, err := location(zone)
	if err != nil {
		return nil, err
	}
	wrong := func(format string, args ...any) (*Expression, error) {
		return nil, &Error{Message: fmt.Sprintf(format, args...)}
	}
	if len(text) > MaxExpression {
		return wrong("an expression has at most %d characters", MaxExpression)
	}
	line := strings.ToUpper(strings.TrimSpace(text))
	if strings.HasPrefix(line, "@") {
		written, known := macros[strings.ToLower(line)]
		if !known {
			return wrong("there is no %q: what there is are @hourly, @daily, @weekly, @monthly, @yearly and expressions like 0 8 * * MON-FRI", text)
		}
		line = written
	}
	parts := strings.Fields(line)
	if len(parts) != 5 && len(parts) != 6 {
		return wrong("an expression has five fields (minute, hour, day of month, month, day of week), or six with seconds before them; this has %d", len(parts))
	}
	if strings.ContainsAny(line, "=") {
		return wrong("the time zone has a field of its own, timeZone")
	}
	days := strings.Split(parts[len(parts)-1], ",")
	for i, d := range days {
		days[i] = lastWeekday.ReplaceAllString(d, "$1#L")
	}
	parts[len(parts)-1] = strings.Join(days, ",")
	line = strings.ReplaceAll(strings.Join(parts, " "), "THU", "thu") // the parser takes an H for its hash syntax
	s, err := fields.Parse(line)
	if err != nil {
		return wrong("%q is no cron expression: %s", text, err)
	}
	spec, ok := s.(*parser.SpecSchedule)
	if !ok {
		return wrong("%q is no cron expression", text)
	}
	e := &Expression{spec: spec, loc: loc, elapsed: bits.OnesCount64(spec.Hour&^starBit) == 24}
	if e.civil(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return wrong("%q never fires: there is no such day", text)
	}
	return e, nil
}

func location(zone string) (*time.Location, error) {
	if zone == "" {
		return time.UTC, nil
	}
	if zone != "Local" && len(zone) <= MaxZone {
		if loc, err := time.LoadLocation(zone); err == nil {
			return loc, nil
		}
	}
	return nil, &Error{Zone: true, Message: fmt.Sprintf("%q is no time zone: give an IANA name like Europe/Berlin, or UTC", zone)}
}

// Next is the first instant after the given one at which the expression fires, in UTC; zero: there is none for decades.
func (e *Expression) Next(after time.Time) time.Time {
	at := after.In(e.loc)
	begin, end := segment(at)
	// reached is the latest time that the zone's clock has shown before this segment: what it shows up to there again has fired, unless the expression goes by elapsed time.
	var reached time.Time
	if !e.elapsed && !begin.IsZero() {
		reached = e.reached(begin)
	}
	from := wall(at).Add(time.Second).Truncate(time.Second)
	for {
		shift := offset(at)
		if from.Before(reached) {
			from = reached
		}
		c := e.civil(from)
		if c.IsZero() {
			return time.Time{}
		}
		instant := c.Add(-shift)
		if !e.elapsed && !begin.IsZero() && instant.Before(begin) { // in the gap before this segment
			instant = begin
		}
		if end.IsZero() || instant.Before(end) {
			return instant.UTC()
		}
		if !e.elapsed {
			last := end.UTC().Add(shift)
			if last.After(reached) {
				reached = last
			}
			from = reached
		}
		at = end.In(e.loc)
		begin, end = segment(at)
		if e.elapsed {
			from = wall(at)
		}
	}
}

// reached is the latest wall-clock time before a change of the zone. The change before that one counts too: they can lie within hours of each other.
func (e *Expression) reached(change time.Time) time.Time {
	var latest time.Time
	for range 2 {
		before := change.Add(-1).In(e.loc)
		if last := change.UTC().Add(offset(before)); last.After(latest) {
			latest = last
		}
		if change, _ = before.ZoneBounds(); change.IsZero() {
			break
		}
	}
	return latest
}

// segment is the stretch around an instant in which the zone's offset stays. On the last day of leap years beyond the zone's table (2037), time.ZoneBounds gives an end that
// lies before the instant itself: the stretch goes on until a later day says otherwise.
func segment(at time.Time) (begin, end time.Time) {
	begin, end = at.ZoneBounds()
	for probe := at; !end.IsZero() && !end.After(at); {
		probe = probe.Add(24 * time.Hour)
		first, last := probe.ZoneBounds()
		if end = last; offset(probe) != offset(at) {
			end = first
		}
	}
	return begin, end
}

func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}

// wall is what the zone's clock shows, as if it were UTC.
func wall(t time.Time) time.Time { return t.UTC().Add(offset(t)) }

// Upcoming lists the next n instants after the given one.
func (e *Expression) Upcoming(after time.Time, n int) []time.Time {
	out := make([]time.Time, 0, n)
	for len(out) < n {
		after = e.Next(after)
		if after.IsZero() {
			break
		}
		out = append(out, after)
	}
	return out
}

// Local is what the clocks of the zone show at an instant.
func (e *Expression) Local(at time.Time) string { return at.In(e.loc).Format(time.RFC3339) }

// Between lists the instants from first to last (both may be among them), at most limit. more tells that there are others.
func (e *Expression) Between(first, last time.Time, limit int) (out []time.Time, more bool) {
	for at := e.Next(first.Add(-1)); !at.IsZero() && !at.After(last); at = e.Next(at) {
		if len(out) == limit {
			return out, true
		}
		out = append(out, at)
	}
	return out, false
}

// Latest lists the last n instants from first to last, oldest first. It looks at stretches before last that grow until they hold enough, so it costs what n costs, not what
// the whole stretch holds.
func (e *Expression) Latest(first, last time.Time, n int) []time.Time {
	for stretch := time.Minute; ; stretch *= 4 {
		from := last.Add(-stretch)
		all := from.Before(first) || stretch > horizonYears*366*24*time.Hour
		if all {
			from = first
		}
		found, _ := e.Between(from, last, 1<<20)
		if all || len(found) >= n {
			return found[max(0, len(found)-n):]
		}
	}
}

// Within is Next within bounds: not before start, nor after end; zero bounds don't count, zero: there is none.
func (e *Expression) Within(after, start, end time.Time) time.Time {
	if !start.IsZero() && after.Before(start) {
		after = start.Add(-1)
	}
	at := e.Next(after)
	if !end.IsZero() && at.After(end) {
		return time.Time{}
	}
	return at
}

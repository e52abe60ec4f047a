package definitions

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"flowplatform/services/internal/cron"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/store"
)

const typeSchedule = "trigger.schedule"

// maxSchedules is how many a flow may have of its own.
const maxSchedules = 20

// Schedule is a trigger.schedule of a version.
type Schedule struct {
	Node       string
	Cron, Zone string
	expression *cron.Expression
}

// schedulesOf reads the schedules of a document whose nodes fit their schemas, and says what those can't.
func schedulesOf(def *flow.Definition) ([]Schedule, []flow.Problem) {
	var out []Schedule
	var wrong []flow.Problem
	for i := range def.Nodes {
		n := &def.Nodes[i]
		if n.Type != typeSchedule {
			continue
		}
		at := "/nodes/" + strconv.Itoa(i)
		add := func(pointer, code, format string, args ...any) {
			wrong = append(wrong, flow.Problem{Pointer: at + pointer, Code: code, Message: fmt.Sprintf(format, args...)})
		}
		s := Schedule{Node: n.ID}
		s.Cron, _ = n.Config["cron"].(string)
		s.Zone, _ = n.Config["timeZone"].(string)
		for field, text := range map[string]string{"cron": s.Cron, "timeZone": s.Zone} {
			if strings.Contains(text, "{{") {
				add("/config/"+field, "not-literal", "a schedule's configuration can't hold expressions: it is read before anything has been computed")
				s.Cron = ""
			}
		}
		if s.Cron == "" { // missing: the schema's to report
			continue
		}
		e, err := cron.Parse(s.Cron, s.Zone)
		var bad *cron.Error
		switch {
		case errors.As(err, &bad) && bad.Zone:
			add("/config/timeZone", "time-zone", "%s", bad.Message)
		case err != nil:
			add("/config/cron", "cron", "%s", err.Error())
		case len(out) == maxSchedules:
			add("", "too-many", "a flow has at most %d trigger.schedule; POST /schedules makes others that start it", maxSchedules)
		default:
			s.expression = e
			out = append(out, s)
		}
	}
	return out, wrong
}

// storedTriggers are what a version's triggers make when it is published: hooks, schedules, the trigger.error.
func storedTriggers(hooks []Hook, schedules []Schedule, ends *ErrorTrigger) []store.Hook {
	out := append(StoredHooks(hooks), ends.stored()...)
	for _, s := range schedules {
		zone := s.Zone
		if zone == "" {
			zone = "UTC"
		}
		out = append(out, store.Hook{Node: s.Node, Schedule: &store.ScheduleSpec{Cron: s.Cron, Zone: zone, Next: func(now time.Time) time.Time { return s.expression.Next(now) }}})
	}
	return out
}

// Triggers are the rows that belong to the document once it is published.
func (c *Checked) Triggers() []store.Hook { return storedTriggers(c.Hooks, c.Schedules, c.Errors) }

// Triggers are the rows that belong to the version once it is published.
func (v *Version) Triggers() []store.Hook { return storedTriggers(v.Hooks, v.Schedules, v.Errors) }

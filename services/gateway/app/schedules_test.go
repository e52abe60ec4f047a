package app

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
)

type scheduleView struct {
	ID, Name, FlowID, FlowName, Node, TimeZone, CatchUp, Overlap string
	Paused                                                       bool
	Revision                                                     int
	NextDue                                                      time.Time
	Next                                                         []time.Time
}

// scheduled calls every route of schedules, for TestEveryRouteWorks.
func (b *bundle) scheduled(t *testing.T, c *contract, ok func(id string, status int, body any, args ...string) *response, flowID string) {
	t.Helper()
	body := fmt.Sprintf(`{"name": "nightly", "flowId": %q, "cron": "30 2 * * *", "timeZone": "Europe/Berlin", "input": {"n": 1}}`, flowID)
	var s struct{ ID string }
	tag := ok("createSchedule", 201, body).into(t, &s).header.Get("ETag")
	c.call(t, "createSchedule", 409, b.admin, body)
	ok("listSchedules", 200, nil, "?flowId="+flowID)
	ok("getSchedule", 200, nil, s.ID)
	ok("previewSchedule", 200, `{"cron": "@daily"}`)
	ok("saveSchedule", 200, body, s.ID)
	for id, body := range map[string]any{"saveSchedule": body, "deleteSchedule": nil, "pauseSchedule": nil, "resumeSchedule": nil} {
		c.with(t, id, 412, b.admin, body, []string{"If-Match", tag}, s.ID)
	}
	ok("pauseSchedule", 200, nil, s.ID)
	ok("resumeSchedule", 200, nil, s.ID)
	ok("backfillSchedule", 200, `{"from": "2026-03-28T00:00:00Z", "to": "2026-03-31T00:00:00Z"}`, s.ID)
	ok("listFires", 200, nil, s.ID)
	ok("deleteSchedule", 204, nil, s.ID)
}

func TestScheduleIsMadeAndChanged(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	flowID := b.flow(t, "report")
	var s scheduleView
	tag := b.do(t, "POST", "/schedules", b.admin, `{"name": "nightly", "flowId": "report", "cron": "30 2 * * *", "timeZone": "Europe/Berlin", "input": {"n": 1}}`).want(t, 201).into(t, &s).header.Get("ETag")
	if s.FlowID != flowID || s.FlowName != "report" || s.CatchUp != "skip" || s.Overlap != "allow" || s.Paused || len(s.Next) != 10 || !s.Next[0].Equal(s.NextDue) || !s.NextDue.After(time.Now().Add(-time.Minute)) {
		t.Errorf("%+v", s)
	}
	for i := range s.Next[1:] {
		if apart := s.Next[i+1].Sub(s.Next[i]); apart < 23*time.Hour || apart > 25*time.Hour {
			t.Errorf("%s apart", apart)
		}
	}
	due := s.NextDue
	// A change of what it does leaves what is due; a change of when doesn't.
	b.do(t, "PUT", "/schedules/nightly", b.admin, `{"name": "nightly", "flowId": "report", "cron": "30 2 * * *", "timeZone": "Europe/Berlin", "input": {"n": 2}, "overlap": "skip"}`, "If-Match", tag).want(t, 200).into(t, &s)
	if !s.NextDue.Equal(due) || s.Overlap != "skip" || s.Revision != 2 {
		t.Errorf("%+v", s)
	}
	b.do(t, "PUT", "/schedules/nightly", b.admin, `{"name": "hourly", "flowId": "report", "cron": "0 0 * * * *", "input": {"n": 2}, "endAt": "2126-01-01T00:00:00Z"}`).want(t, 200).into(t, &s)
	if !s.NextDue.Before(time.Now().Add(61*time.Minute)) || s.TimeZone != "UTC" || s.Overlap != "allow" {
		t.Errorf("%+v", s)
	}
	s = scheduleView{}
	b.do(t, "POST", "/schedules/hourly/pause", b.admin, nil).want(t, 200).into(t, &s)
	if !s.Paused || !s.NextDue.IsZero() || s.Next != nil {
		t.Errorf("%+v", s)
	}
	b.do(t, "POST", "/schedules/hourly/resume", b.admin, nil).want(t, 200).into(t, &s)
	if s.Paused || !s.NextDue.After(time.Now().Add(-time.Minute)) {
		t.Errorf("%+v", s)
	}
	b.do(t, "DELETE", "/schedules/hourly", b.admin, nil).want(t, 204)
	b.do(t, "GET", "/schedules/"+s.ID, b.admin, nil).want(t, 404)
	var audit struct {
		Items []struct{ Action, Object string }
	}
	b.do(t, "GET", "/audit?limit=20", b.admin, nil).want(t, 200).into(t, &audit)
	var actions []string
	for _, e := range audit.Items {
		if e.Object == "schedule" {
			actions = append(actions, e.Action)
		}
	}
	if want := []string{"delete", "resume", "pause", "save", "save", "create"}; !slices.Equal(actions, want) {
		t.Errorf("audit: %v", actions)
	}
}

func TestScheduleRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	b.flow(t, "report")
	for body, want := range map[string][]string{
		`{"name": "a/b", "flowId": "report", "cron": "61 * * * *", "timeZone": "UTC"}`:                                                                   {"/cron", "/name"},
		`{"name": "x", "flowId": "nobody", "cron": "@daily", "timeZone": "Mars/Olympus"}`:                                                                {"/flowId", "/timeZone"},
		`{"name": "x", "flowId": "report", "cron": "@daily", "input": {"n": "x"}}`:                                                                       {"/input/n"},
		`{"name": "x", "flowId": "report", "cron": "@daily"}`:                                                                                            {"/input/n", "/input/schedule", "/input/scheduledAt"},
		`{"name": "x", "flowId": "report", "cron": "0 0 30 2 *", "input": {"n": 1}, "startAt": "2027-01-02T00:00:00Z", "endAt": "2027-01-01T00:00:00Z"}`: {"/cron", "/endAt"},
	} {
		got := b.do(t, "POST", "/schedules", b.admin, body).want(t, 422).pointers(t)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
	}
	var preview struct {
		Items []struct{ At, Local string }
	}
	b.do(t, "POST", "/schedules/preview", b.admin, `{"cron": "30 2 * * *", "timeZone": "Europe/Berlin", "from": "2026-03-28T12:00:00Z", "count": 2}`).want(t, 200).into(t, &preview)
	if len(preview.Items) != 2 || preview.Items[0].Local != "2026-03-29T03:00:00+02:00" || preview.Items[0].At != "2026-03-29T01:00:00Z" || preview.Items[1].Local != "2026-03-30T02:30:00+02:00" {
		t.Errorf("%+v", preview)
	}
	if got := b.do(t, "POST", "/schedules/preview", b.admin, `{"cron": "@daily", "timeZone": "Nowhere"}`).want(t, 422).pointers(t); !slices.Equal(got, []string{"/timeZone"}) {
		t.Errorf("%v", got)
	}
}

// A backfill starts each instant of the past once, whoever asks how often, and says what it did.
func TestBackfill(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	b.flow(t, "report")
	k := b.tasks(t)
	b.do(t, "POST", "/schedules", b.admin, `{"name": "daily", "flowId": "report", "cron": "0 6 * * *", "input": {"n": 1}, "paused": true}`).want(t, 201)
	type filled struct {
		Started []struct {
			Due         time.Time
			ExecutionID string
		}
		Already  int
		NextFrom time.Time
	}
	var r filled
	b.do(t, "POST", "/schedules/daily/backfill", b.admin, `{"from": "2026-03-01T06:00:00Z", "to": "2026-03-08T06:00:00Z", "limit": 5}`).want(t, 200).into(t, &r)
	if len(r.Started) != 5 || r.Already != 0 || r.NextFrom.Format(time.DateOnly) != "2026-03-06" {
		t.Fatalf("%+v", r)
	}
	for range r.Started {
		task := receive(t, k)
		if task.Labels["schedule"] != "daily" || task.Labels["scheduledAt"] == "" || task.Trigger != "schedule" && task.Trigger != "manual" {
			t.Errorf("%+v", task)
		}
	}
	r = filled{}
	b.do(t, "POST", "/schedules/daily/backfill", b.admin, `{"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T06:00:00Z"}`).want(t, 200).into(t, &r)
	if len(r.Started) != 2 || r.Already != 5 || !r.NextFrom.IsZero() {
		t.Errorf("again, and what was left: %+v", r)
	}
	var fires struct {
		Items []struct {
			Due                                  time.Time
			ExecutionID, Status, Outcome, Reason string
		}
		NextCursor string
	}
	b.do(t, "GET", "/schedules/daily/fires?limit=5", b.admin, nil).want(t, 200).into(t, &fires)
	if len(fires.Items) != 5 || fires.NextCursor == "" || fires.Items[0].Due.Format(time.DateOnly) != "2026-03-07" || fires.Items[0].Outcome != protocol.FireStarted || fires.Items[0].Status != "queued" || fires.Items[0].Reason == "" {
		t.Errorf("%+v", fires)
	}
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, body := range []string{`{"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}`, `{"from": "2026-03-01T00:00:00Z", "to": "` + future + `"}`} {
		if got := b.do(t, "POST", "/schedules/daily/backfill", b.admin, body).want(t, 422).pointers(t); !slices.Equal(got, []string{"/to"}) {
			t.Errorf("%s: %v", body, got)
		}
	}
}

const clockFlow = `{"name": "clock", "nodes": [{"id": "mornings", "type": "trigger.schedule", "config": {"cron": %q, "timeZone": %q}}], "edges": []}`

// A trigger.schedule is a schedule for as long as the version with it is published. It is shown, paused and backfilled as others are, and changed with its flow only.
func TestTriggerSchedule(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	for doc, want := range map[string][]string{
		fmt.Sprintf(clockFlow, "61 * * * *", "UTC"):             {"/nodes/0/config/cron"},
		fmt.Sprintf(clockFlow, "@daily", "Nowhere"):             {"/nodes/0/config/timeZone"},
		fmt.Sprintf(clockFlow, "{{ input.cron }} * * *", "UTC"): {"/nodes/0/config/cron"},
	} {
		if got := b.do(t, "POST", "/flows", b.admin, doc).want(t, 422).pointers(t); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", doc, got, want)
		}
	}
	var f struct{ ID string }
	b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(clockFlow, "0 8 * * *", "Europe/Berlin")).want(t, 201).into(t, &f)
	list := func() []scheduleView {
		var l struct{ Items []scheduleView }
		b.do(t, "GET", "/schedules?flowId="+f.ID, b.admin, nil).want(t, 200).into(t, &l)
		return l.Items
	}
	all := list()
	if len(all) != 1 || all[0].Node != "mornings" || all[0].Name != "clock/mornings" || all[0].NextDue.IsZero() {
		t.Fatalf("%+v", all)
	}
	id := all[0].ID
	b.do(t, "PUT", "/schedules/"+id, b.admin, `{"name": "x", "flowId": "clock", "cron": "@daily"}`).want(t, 409)
	b.do(t, "DELETE", "/schedules/"+id, b.admin, nil).want(t, 409)
	b.do(t, "POST", "/schedules/"+id+"/pause", b.admin, nil).want(t, 200)
	k := b.tasks(t)
	b.do(t, "POST", "/schedules/"+id+"/backfill", b.admin, `{"from": "2026-03-28T00:00:00Z", "to": "2026-03-29T00:00:00Z"}`).want(t, 200)
	if task := receive(t, k); task.Trigger != "schedule" || string(task.Input) != `{"schedule":"mornings","scheduledAt":"2026-03-28T07:00:00Z"}` {
		t.Errorf("%s %s", task.Trigger, task.Input)
	}
	b.do(t, "PUT", "/flows/"+f.ID, b.admin, fmt.Sprintf(clockFlow, "0 9 * * *", "Europe/Berlin")).want(t, 200)
	if all = list(); len(all) != 1 || all[0].ID != id || !all[0].Paused {
		t.Errorf("%+v", all)
	}
	b.do(t, "PUT", "/flows/"+f.ID+"?draft=true", b.admin, fmt.Sprintf(simpleFlow, "clock")).want(t, 200)
	if all = list(); len(all) != 1 {
		t.Errorf("a draft changes nothing: %+v", all)
	}
	b.do(t, "POST", "/flows/"+f.ID+"/versions/3/publish", b.admin, nil).want(t, 200)
	if all = list(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// The documents that docs/flows.md shows are taken as they stand there.
func TestScheduleDocs(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	text, err := os.ReadFile("../../../docs/flows.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Schedules\n")
	var blocks []string
	for range 2 {
		_, rest, _ := strings.Cut(section, "```json\n")
		block, after, _ := strings.Cut(rest, "```")
		blocks, section = append(blocks, block), after
	}
	b.do(t, "POST", "/flows", b.admin, blocks[0]).want(t, 201)
	var s scheduleView
	b.do(t, "POST", "/schedules", b.admin, blocks[1]).want(t, 201).into(t, &s)
	if s.Name != "nightly" || s.FlowName != "Morning report" || s.CatchUp != "one" || s.Overlap != "skip" || len(s.Next) != 10 {
		t.Errorf("%+v", s)
	}
}

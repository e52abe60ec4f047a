package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// What people do with schedules, against answers as the gateway gives them.
func TestScheduleCommands(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var asked []string
	note := func(v string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			asked = append(asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+strings.TrimSpace(string(body))))
			if _, err := io.WriteString(w, v); err != nil {
				t.Error(err)
			}
		}
	}
	const one = `{"id": "s1", "name": "nightly", "flowName": "report", "cron": "30 2 * * *", "timeZone": "Europe/Berlin", "catchUp": "one", "overlap": "skip", "nextDue": "2026-03-29T01:00:00Z", "next": ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]}`
	url := server(t, map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/schedules":                note(`{"items": [` + one + `, {"id": "s2", "name": "old", "paused": true}]}`),
		"GET /api/v1/schedules/{id}":           note(one),
		"POST /api/v1/schedules":               note(one),
		"PUT /api/v1/schedules/{id}":           note(one),
		"DELETE /api/v1/schedules/{id}":        note(``),
		"POST /api/v1/schedules/preview":       note(`{"items": [{"at": "2026-03-29T01:00:00Z", "local": "2026-03-29T03:00:00+02:00"}]}`),
		"POST /api/v1/schedules/{id}/pause":    note(`{"id": "s1", "name": "nightly", "paused": true}`),
		"POST /api/v1/schedules/{id}/resume":   note(one),
		"POST /api/v1/schedules/{id}/backfill": note(`{"started": [{"due": "2026-03-01T00:00:00Z", "executionId": "e1"}], "already": 3, "nextFrom": "2026-03-02T00:00:00Z"}`),
		"GET /api/v1/schedules/{id}/fires":     note(`{"items": [{"due": "2026-03-01T00:00:00Z", "outcome": "skipped", "reason": "not over"}]}`),
	})
	for _, c := range []struct {
		line  string // arguments by |
		asked string
		shows []string
	}{
		{"list|--flow=report", "GET /api/v1/schedules?flowId=report&limit=50", []string{"nightly", "Europe/Berlin", "paused"}},
		{"get|nightly", "GET /api/v1/schedules/nightly", []string{"when      30 2 * * *, Europe/Berlin", "next      2026-03-2"}},
		{"create|nightly|--flow=report|--cron=30 2 * * *|--time-zone=Europe/Berlin|--input={\"n\":1}|--overlap=skip|--end=2027-01-01T00:00:00Z",
			`POST /api/v1/schedules {"catchUp":"skip","catchUpMax":100,"cron":"30 2 * * *","endAt":"2027-01-01T00:00:00Z","flowId":"report","input":{"n":1},"name":"nightly","overlap":"skip","timeZone":"Europe/Berlin"}`, []string{"nightly  s1"}},
		{"save|nightly|--flow=report|--cron=@daily|--rename=daily", `PUT /api/v1/schedules/nightly {"catchUp":"skip","catchUpMax":100,"cron":"@daily","flowId":"report","name":"daily","overlap":"allow","timeZone":"UTC"}`, []string{"s1"}},
		{"preview|30 2 * * *|--time-zone=Europe/Berlin|--count=1", `POST /api/v1/schedules/preview {"count":1,"cron":"30 2 * * *","timeZone":"Europe/Berlin"}`, []string{"2026-03-29T03:00:00+02:00"}},
		{"pause|nightly", "POST /api/v1/schedules/nightly/pause", []string{"next      paused"}},
		{"resume|nightly", "POST /api/v1/schedules/nightly/resume", []string{"next      2026-03-2"}},
		{"backfill|nightly|--from=2026-03-01T00:00:00Z|--to=2026-03-08T00:00:00Z", `POST /api/v1/schedules/nightly/backfill {"from":"2026-03-01T00:00:00Z","limit":1000,"to":"2026-03-08T00:00:00Z"}`, []string{"e1", "1 started, 3 had", "--from 2026-03-02T00:00:00Z"}},
		{"fires|nightly", "GET /api/v1/schedules/nightly/fires?limit=50", []string{"skipped", "not over"}},
		{"delete|a b", "DELETE /api/v1/schedules/a%20b", []string{"a b deleted"}},
	} {
		asked = nil
		args := append([]string{"--server", url, "--token", "secret", "schedule"}, strings.Split(c.line, "|")...)
		code, out, errs := flowctl(t, "", args...)
		if code != 0 || len(asked) != 1 || asked[0] != c.asked {
			t.Errorf("%s: %d, asked %v\n%s%s", c.line, code, asked, out, errs)
		}
		for _, want := range c.shows {
			if !strings.Contains(out, want) {
				t.Errorf("%s doesn't show %q:\n%s", c.line, want, out)
			}
		}
		if strings.HasPrefix(c.line, "delete") {
			continue
		}
		if code, out, errs := flowctl(t, "", append(args, "-o", "json")...); code != 0 || !strings.HasPrefix(strings.TrimSpace(out), "{") && !strings.HasPrefix(strings.TrimSpace(out), "[") {
			t.Errorf("%s as JSON: %d %s%s", c.line, code, out, errs)
		}
	}
	if code, _, errs := flowctl(t, "", "--server", url, "--token", "secret", "schedule", "create", "x", "--flow=f", "--cron=@daily", "--input={"); code == 0 || !strings.Contains(errs, "not JSON") {
		t.Errorf("%d %s", code, errs)
	}
}

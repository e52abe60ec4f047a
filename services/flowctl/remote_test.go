package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// What people ask about remote workers and error flows, against answers as the gateway gives them.
func TestRemoteCommands(t *testing.T) {
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
	url := server(t, map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/remote/queues": note(`{"items": [{"queue": "labels", "waiting": 3, "leased": 1, "oldest": "2026-01-01T00:00:00Z"}]}`),
		"GET /api/v1/remote/tasks": note(`{"items": [{"id": "t1", "queue": "labels", "executionId": "e1", "node": "label", "iteration": "2", "leases": 4, "worker": "printer\u001b[31m", "createdAt": "2026-01-01T00:00:00Z",
			"progress": {"text": "a progress that is longer than a line of the table has room for"}}]}`),
		"POST /api/v1/tokens": note(`{"id": "k1", "token": "fp_once"}`),
		"GET /api/v1/executions/{id}/catches": note(`{"items": [{"flowName": "Tell the team", "ended": "failed", "retries": 1, "outcome": "started", "executionId": "e2", "status": "succeeded", "at": "2026-01-01T00:00:00Z"},
			{"flowName": "Picky", "ended": "failed", "outcome": "refused", "reason": "no published version"}]}`),
	})
	for _, c := range []struct {
		line, asked string
		shows       []string
	}{
		{"remote list", "GET /api/v1/remote/queues", []string{"QUEUE", "labels", "3", "LAST POLL"}},
		{"remote tasks", "GET /api/v1/remote/tasks?limit=50&queue=", []string{"t1", "label/2", "4", "a progress"}},
		{"remote tasks labels --limit 7", "GET /api/v1/remote/tasks?limit=7&queue=labels", []string{"printer"}},
		{"remote token printer", `POST /api/v1/tokens {"name":"printer","role":"worker"}`, []string{"fp_once\n"}},
		{"remote token printer --queue labels,boxes", `POST /api/v1/tokens {"name":"printer","queues":["labels","boxes"],"role":"worker"}`, []string{"fp_once\n"}},
		{"execution catches e1", "GET /api/v1/executions/e1/catches", []string{"Tell the team", "started", "e2", "succeeded", "Picky", "refused", "no published version"}},
	} {
		asked = nil
		code, out, errs := flowctl(t, "", append([]string{"--server", url, "--token", "secret"}, strings.Fields(c.line)...)...)
		if code != 0 || len(asked) != 1 || asked[0] != c.asked {
			t.Errorf("%s: %d, asked %v\n%s%s", c.line, code, asked, out, errs)
		}
		for _, want := range c.shows {
			if !strings.Contains(out, want) {
				t.Errorf("%s doesn't show %q:\n%s", c.line, want, out)
			}
		}
		if strings.ContainsAny(out, "\x1b") || strings.Contains(out, "room for") {
			t.Errorf("%s shows what a worker said as it stands:\n%q", c.line, out)
		}
		code, out, _ = flowctl(t, "", append([]string{"-o", "json", "--server", url, "--token", "secret"}, strings.Fields(c.line)...)...)
		if code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("-o json %s: %d\n%s", c.line, code, out)
		}
	}
	for _, line := range []string{"remote token", "remote list labels", "execution catches"} {
		asked = nil
		if code, _, errs := flowctl(t, "", append([]string{"--server", url, "--token", "secret"}, strings.Fields(line)...)...); code == 0 || errs == "" || asked != nil {
			t.Errorf("%q was taken (%v)", line, asked)
		}
	}
}

package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// What operators do, against answers as the gateway gives them.
func TestOperations(t *testing.T) {
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
		"GET /api/v1/workers":               note(`{"items": [{"id": "w1", "pool": "default", "state": "ready", "limit": 20, "slots": 10, "load": {"running": 3, "cpu": 0.5, "cpuLimit": 2}}, {"id": "w2", "state": "unknown"}]}`),
		"POST /api/v1/workers/{id}/drain":   note(`{"id": "w1", "state": "draining"}`),
		"GET /api/v1/queues":                note(`{"pools": [{"pool": "default", "buffered": 5, "queues": [{"name": "flow.tasks.default.high", "ready": 7, "consumers": 2}]}], "other": [{"name": "flow.dead", "error": "away"}]}`),
		"GET /api/v1/scaling":               note(`{"at": "2026-01-01T00:00:00Z", "pools": [{"pool": "default", "desired": 2, "wanted": 4, "code": "deployment", "reason": "waits"}], "decisions": [{"pool": "default", "reason": "a burst", "outcome": "done", "detail": {"from": 2, "to": 4}}]}`),
		"PUT /api/v1/settings":              note(`{"items": [{"name": "MAX_WORKERS", "effective": 20, "set": 40, "updatedBy": "ada"}]}`),
		"GET /api/v1/dead-letters":          note(`{"items": [], "groups": [{"reason": "poison", "kind": "execution", "count": 3}]}`),
		"POST /api/v1/dead-letters/requeue": note(`{"count": 3}`),
		"POST /api/v1/dead-letters/purge":   note(`{"count": 1}`),
	})
	for _, c := range []struct {
		line  string
		asked string
		shows []string
	}{
		{"worker list", "GET /api/v1/workers", []string{"w1", "10/20", "0.5/2", "w2"}},
		{"worker drain w1", "POST /api/v1/workers/w1/drain", []string{"w1 is draining"}},
		{"queue list", "GET /api/v1/queues", []string{"flow.tasks.default.high", "7", "held by workers", "? away"}},
		{"scaling", "GET /api/v1/scaling?limit=10", []string{"deployment: waits", "2 to 4", "a burst"}},
		{"setting set MAX_WORKERS=40 MIN_WORKERS=", `PUT /api/v1/settings {"values":{"MAX_WORKERS":"40","MIN_WORKERS":null}}`, []string{"MAX_WORKERS", "40", "ada"}},
		{"deadletter list", "GET /api/v1/dead-letters?group=reason&limit=50", []string{"poison", "3"}},
		{"deadletter requeue --reason poison", `POST /api/v1/dead-letters/requeue {"filter":{"reason":"poison"}}`, []string{"3 asked for"}},
		{"deadletter requeue --all", `POST /api/v1/dead-letters/requeue {"filter":{}}`, []string{"3 asked for"}},
		{"deadletter purge a b", `POST /api/v1/dead-letters/purge {"ids":["a","b"]}`, []string{"1 removed"}},
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
	}
	for _, line := range []string{"deadletter requeue", "deadletter purge a --all", "setting set MAX_WORKERS"} {
		asked = nil
		if code, _, _ := flowctl(t, "", append([]string{"--server", url, "--token", "secret"}, strings.Fields(line)...)...); code == 0 || len(asked) != 0 {
			t.Errorf("%s: %d, asked %v", line, code, asked)
		}
	}
}

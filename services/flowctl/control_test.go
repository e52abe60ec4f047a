package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestControlCommands: what each command asks of the server.
func TestControlCommands(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var asked string
	routes := map[string]func(http.ResponseWriter, *http.Request){}
	job := map[string]any{"id": "j", "action": "retry", "status": "finished", "total": 3, "done": 2, "failed": 1, "finishedAt": "2026-01-01T00:00:00Z"}
	for _, r := range []string{"POST /api/v1/executions/e1/retry", "POST /api/v1/executions/e1/cancel", "POST /api/v1/executions/e1/pause", "POST /api/v1/executions/e1/resume", "POST /api/v1/executions/e1/replay",
		"POST /api/v1/executions/retry", "POST /api/v1/executions/cancel", "POST /api/v1/executions/replay", "POST /api/v1/flows/orders/pause", "POST /api/v1/flows/orders/resume",
		"PUT /api/v1/pauses/pool/gpu", "DELETE /api/v1/pauses/node-type/http.request", "GET /api/v1/bulk/j", "POST /api/v1/bulk/j/cancel"} {
		routes[r] = func(w http.ResponseWriter, req *http.Request) {
			b, _ := io.ReadAll(req.Body)
			asked = req.Method + " " + strings.TrimPrefix(req.URL.Path, "/api/v1") + " " + strings.TrimSpace(string(b))
			answer(w, job)
		}
	}
	url := server(t, routes)
	for _, tc := range []struct{ args, asked string }{
		{"execution retry e1", "POST /executions/e1/retry "},
		{"execution cancel e1", "POST /executions/e1/cancel "},
		{"execution resume e1", "POST /executions/e1/resume "},
		{"execution pause e1 --reason look", `POST /executions/e1/pause {"reason":"look"}`},
		{`execution replay e1`, `POST /executions/e1/replay {}`},
		{`execution replay e1 --from b --input {"n":2} --version 3 --pin a=[1]`, `POST /executions/e1/replay {"fromNode":"b","input":{"n":2},"outputs":{"a":[1]},"version":3}`},
		{"execution retry e1 e2", `POST /executions/retry {"ids":["e1","e2"],"rate":500}`},
		{"execution retry --flow orders --status failed --label team=sales --rate 7 --wait", `POST /executions/retry {"filter":{"flowId":"orders","label":{"team":"sales"},"status":["failed"]},"rate":7}`},
		{"execution cancel --all", `POST /executions/cancel {"filter":{},"rate":500}`},
		{"execution replay -q 7", `POST /executions/replay {"filter":{"q":"7"},"rate":500}`},
		{"flow pause orders --reason sale", `POST /flows/orders/pause {"reason":"sale"}`},
		{"flow resume orders", "POST /flows/orders/resume "},
		{"pause set pool gpu --reason cable", `PUT /pauses/pool/gpu {"reason":"cable"}`},
		{"pause clear node-type http.request", "DELETE /pauses/node-type/http.request "},
		{"bulk get j --wait", "GET /bulk/j "},
		{"bulk cancel j", "POST /bulk/j/cancel "},
	} {
		asked = ""
		args := append([]string{"--server", url, "--token", "secret"}, strings.Split(tc.args, " ")...)
		if code, _, errs := flowctl(t, "", args...); code != 0 || asked != tc.asked {
			t.Errorf("%s: %d %s\nasked %s\nwant  %s", tc.args, code, errs, asked, tc.asked)
		}
		if code, out, _ := flowctl(t, "", append([]string{"-o", "json"}, args...)...); code != 0 || !strings.HasPrefix(out, "{") {
			t.Errorf("%s -o json: %d %s", tc.args, code, out)
		}
	}
	for _, args := range []string{"execution retry", "execution cancel e1 --all", "execution retry --label x", "execution replay e1 --input {", "execution replay e1 e2 --from b", "execution pause e1", "flow pause orders", "pause set cat gpu --reason x"} {
		asked = ""
		if code, _, errs := flowctl(t, "", append([]string{"--server", url, "--token", "secret"}, strings.Split(args, " ")...)...); code == 0 || errs == "" || asked != "" {
			t.Errorf("%s was taken (%s)", args, asked)
		}
	}
}

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What administrators do about people and tokens, against answers as the gateway gives them.
func TestPeopleCommands(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var asked []string
	note := func(v string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			uri, _, _ := strings.Cut(r.URL.RequestURI(), "?")
			asked = append(asked, strings.TrimSpace(r.Method+" "+strings.TrimPrefix(uri, "/api/v1")+" "+strings.TrimSpace(string(body))))
			if v == "" {
				w.WriteHeader(http.StatusNoContent)
			} else if _, err := io.WriteString(w, v); err != nil {
				t.Error(err)
			}
		}
	}
	ada := `{"id": "u1", "email": "ada@example.org", "role": "editor", "disabled": true, "createdAt": "2026-01-01T00:00:00Z"}`
	server := server(t, map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/users":          note(`{"items": [` + ada + `, {"id": "u2", "email": "bo@example.org", "role": "viewer"}]}`),
		"POST /api/v1/users":         note(`{"id": "u3", "email": "cy@example.org", "role": "viewer", "password": "made-once"}`),
		"PATCH /api/v1/users/{id}":   note(ada),
		"DELETE /api/v1/users/{id}":  note(""),
		"GET /api/v1/tokens":         note(`{"items": [{"id": "k1", "name": "printer", "role": "worker", "queues": ["labels"], "rateLimit": -1, "createdAt": "2026-01-01T00:00:00Z"}]}`),
		"POST /api/v1/tokens":        note(`{"id": "k2", "token": "fp_once"}`),
		"DELETE /api/v1/tokens/{id}": note(""),
		"GET /api/v1/audit":          note(`{"items": [{"at": "2026-01-01T00:00:00Z", "actor": "ada@example.org", "action": "create", "object": "flow", "objectId": "f1", "detail": {"name": "Hello\u001b[31m"}}]}`),
	})
	for _, c := range []struct {
		line, stdin string
		asked       []string
		shows       []string
	}{
		{"user list", "", []string{"GET /users"}, []string{"ada@example.org", "disabled", "bo@example.org", "may log in"}},
		{"user create cy@example.org --role viewer", "", []string{`POST /users {"email":"cy@example.org","role":"viewer"}`}, []string{"made-once"}},
		{"user set ADA@example.org --role operator --enable", "", []string{"GET /users", `PATCH /users/u1 {"disabled":false,"role":"operator"}`}, []string{"ada@example.org"}},
		{"user set u1 --disable", "", []string{`PATCH /users/u1 {"disabled":true}`}, []string{"disabled"}},
		{"user password u1", "a long password\n", []string{`PATCH /users/u1 {"password":"a long password"}`}, []string{"ada@example.org"}},
		{"user delete bo@example.org", "", []string{"GET /users", "DELETE /users/u2"}, []string{"deleted"}},
		{"apitoken list", "", []string{"GET /tokens"}, []string{"printer", "labels", "none"}},
		{"apitoken create ci --role viewer --rate-limit 5", "", []string{`POST /tokens {"name":"ci","rateLimit":5,"role":"viewer"}`}, []string{"fp_once"}},
		{"apitoken revoke k1", "", []string{"DELETE /tokens/k1"}, []string{"deleted"}},
		{"audit", "", []string{"GET /audit"}, []string{"ada@example.org", "create", "f1", "Hello"}},
	} {
		asked = nil
		code, out, errs := flowctl(t, c.stdin, append([]string{"--server", server, "--token", "secret"}, strings.Fields(c.line)...)...)
		if code != 0 || !slices.Equal(asked, c.asked) {
			t.Errorf("%s: %d, asked %q\n%s%s", c.line, code, asked, out, errs)
		}
		for _, want := range c.shows {
			if !strings.Contains(out, want) {
				t.Errorf("%s doesn't show %q:\n%s", c.line, want, out)
			}
		}
		if strings.Contains(out, "\x1b") || strings.Contains(out, "a long password") {
			t.Errorf("%s shows what it must not:\n%q", c.line, out)
		}
		code, out, _ = flowctl(t, c.stdin, append([]string{"-o", "json", "--server", server, "--token", "secret"}, strings.Fields(c.line)...)...)
		if code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("-o json %s: %d\n%s", c.line, code, out)
		}
	}
	for _, line := range []string{"user create x@y.z", "user create x@y.z --role king", "user set u1", "user set u1 --enable --disable", "user delete nobody@example.org", "user password u1", "apitoken create", "audit --limit 0"} {
		asked = nil
		code, _, errs := flowctl(t, "", append([]string{"--server", server, "--token", "secret"}, strings.Fields(line)...)...)
		if code == 0 || errs == "" || slices.ContainsFunc(asked, func(s string) bool { return !strings.HasPrefix(s, "GET /users") }) {
			t.Errorf("%q was taken (%v)", line, asked)
		}
	}
}

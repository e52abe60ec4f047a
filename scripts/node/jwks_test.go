package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestKeysArePassedOnAndNothingElse(t *testing.T) {
	t.Parallel()
	var body atomic.Value
	body.Store("")
	asked := make(chan string, 100)
	nomad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		if body.Load() == "" {
			http.Error(w, "no leader", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, body.Load())
	}))
	defer nomad.Close()
	p := &publisher{client: nomad.Client(), source: nomad.URL + jwksPath, log: slog.New(slog.DiscardHandler)}
	get := func(method, path string) (int, string) {
		answer := httptest.NewRecorder()
		p.ServeHTTP(answer, httptest.NewRequest(method, path, nil))
		return answer.Code, strings.TrimSpace(answer.Body.String())
	}
	step := func(what, says string, status int, want string) {
		t.Helper()
		body.Store(says)
		if code, got := get("GET", jwksPath); code != status || !strings.Contains(got, want) {
			t.Errorf("%s: status %d, %.100s; want %d, %q", what, code, got, status, want)
		}
	}
	step("before Nomad knows its keys", "", 502, "doesn't say its keys yet")
	step("keys", `{"keys":[1]}`, 200, `{"keys":[1]}`)
	step("Nomad away", "", 200, `{"keys":[1]}`)
	step("new keys", `{"keys":[1,2]}`, 200, `{"keys":[1,2]}`)
	step("more than keys can be", strings.Repeat("x", 2<<20), 200, `{"keys":[1,2]}`)
	before := len(asked)
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/v1/jobs", 404}, {"GET", "/", 404}, {"POST", jwksPath, 405}, {"GET", jwksPath + "/../v1/jobs", 404}} {
		if code, _ := get(c.method, c.path); code != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.path, code, c.status)
		}
	}
	if len(asked) != before {
		t.Errorf("Nomad was asked for what isn't passed on: %d times", len(asked)-before)
	}
}

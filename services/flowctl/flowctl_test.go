package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// server is a gateway as far as flowctl sees it; the real one is behind flowctl in services/e2e.
func server(t *testing.T, routes map[string]func(w http.ResponseWriter, r *http.Request)) string {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, h := range routes {
		mux.HandleFunc(pattern, h)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "Bearer secret" && !strings.HasSuffix(r.URL.Path, "/auth/login") {
			w.WriteHeader(http.StatusUnauthorized)
			answer(w, map[string]any{"title": "Unauthorized", "status": 401, "detail": "no token"})
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func answer(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

// flowctl runs the program and gives its exit status and what it printed.
func flowctl(t *testing.T, stdin string, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

func TestLoginIsKeptForItsOwnerOnly(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("FLOW_SERVER", "")
	t.Setenv("FLOW_TOKEN", "")
	made := ""
	url := server(t, map[string]func(http.ResponseWriter, *http.Request){
		"POST /api/v1/auth/login": func(w http.ResponseWriter, r *http.Request) {
			var in struct{ Email, Password string }
			if json.NewDecoder(r.Body).Decode(&in) != nil || in.Email != "a@b" || in.Password != "p w" {
				w.WriteHeader(401)
				return
			}
			answer(w, map[string]string{"accessToken": "secret"})
		},
		"GET /api/v1/auth/me": func(w http.ResponseWriter, _ *http.Request) {
			answer(w, map[string]string{"email": "a@b", "role": "editor"})
		},
		"POST /api/v1/tokens": func(w http.ResponseWriter, r *http.Request) {
			var in struct{ Name, Role string }
			json.NewDecoder(r.Body).Decode(&in)
			made = in.Role
			answer(w, map[string]string{"token": "secret"})
		},
	})
	if code, _, errs := flowctl(t, "", "whoami"); code == 0 || !strings.Contains(errs, "flowctl login") {
		t.Errorf("without a login: %d %s", code, errs)
	}
	if code, _, errs := flowctl(t, "wrong\n", "login", "--server", url, "--email", "a@b"); code == 0 {
		t.Errorf("a wrong password was taken: %s", errs)
	}
	if code, out, errs := flowctl(t, "p w\n", "login", "--server", url, "--email", "a@b"); code != 0 || made != "editor" {
		t.Fatalf("%d %s %s, role %q", code, out, errs, made)
	}
	info, err := os.Stat(filepath.Join(home, "flowctl", "config.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if code, out, _ := flowctl(t, "", "whoami", "-o", "json"); code != 0 || !strings.Contains(out, `"user": "a@b"`) || !strings.Contains(out, `"server": "`+url) {
		t.Errorf("%d %s", code, out)
	}
	if code, out, _ := flowctl(t, "", "token"); code != 0 || out != "secret\n" {
		t.Errorf("%d %q", code, out)
	}
	if code, _, _ := flowctl(t, "", "logout"); code != 0 {
		t.Error("logout failed")
	}
	if code, _, _ := flowctl(t, "", "token"); code == 0 {
		t.Error("still logged in after logout")
	}
}

func TestRunWaitsAndTellsByItsExitStatus(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	const id = "01a20cf5-ef5a-767a-b67d-bcd2e75860d1"
	asked, end := 0, ""
	url := server(t, map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/flows": func(w http.ResponseWriter, _ *http.Request) {
			answer(w, map[string]any{"items": []any{map[string]string{"id": "x", "name": "Hello there"}, map[string]string{"id": id, "name": "Hello"}}})
		},
		"POST /api/v1/flows/" + id + "/executions": func(w http.ResponseWriter, r *http.Request) {
			var in struct{ Input json.RawMessage }
			if json.NewDecoder(r.Body).Decode(&in) != nil || string(in.Input) != `{"big":9007199254740993}` {
				w.WriteHeader(422)
				answer(w, map[string]any{"title": "Unprocessable Entity", "status": 422, "errors": []any{map[string]string{"pointer": "/input/big", "message": "wrong"}}})
				return
			}
			w.WriteHeader(202)
			answer(w, map[string]string{"id": id, "status": "queued"})
		},
		"GET /api/v1/executions/" + id: func(w http.ResponseWriter, _ *http.Request) {
			asked++
			e := map[string]any{"id": id, "status": "running"}
			if asked > 1 {
				e["status"], e["output"] = end, map[string]int{"n": 1}
			}
			if end == "failed" {
				e["error"] = map[string]string{"code": "http-status", "message": "answered 500", "node": "fetch"}
			}
			answer(w, e)
		},
	})
	args := []string{"--server", url, "--token", "secret", "run", "Hello", "--wait", "--input", `{"big":9007199254740993}`}
	end = "succeeded"
	if code, out, errs := flowctl(t, "", args...); code != 0 || out != "{\"n\":1}\n" {
		t.Errorf("%d %q %s", code, out, errs)
	}
	asked, end = 0, "failed"
	if code, _, errs := flowctl(t, "", args...); code != 1 || !strings.Contains(errs, "answered 500") || !strings.Contains(errs, "fetch") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := flowctl(t, "", "--server", url, "--token", "secret", "run", "Hello", "--input", `{}`); code != 1 || !strings.Contains(errs, "/input/big: wrong") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := flowctl(t, "", "--server", url, "--token", "secret", "run", "Hello", "--input", `{`); code != 1 || !strings.Contains(errs, "not JSON") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := flowctl(t, "", "--server", url, "--token", "secret", "run", "Nobody"); code != 1 || !strings.Contains(errs, "no such flow") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestValidateListsEveryProblem(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	url := server(t, map[string]func(http.ResponseWriter, *http.Request){
		"POST /api/v1/flows/validate": func(w http.ResponseWriter, _ *http.Request) {
			answer(w, map[string]any{"valid": false, "problems": []any{map[string]string{"pointer": "/nodes/0/type", "code": "unknown-node-type", "message": "no such type"}, map[string]string{"pointer": "/name", "code": "required", "message": "needed"}}})
		},
	})
	code, out, errs := flowctl(t, `{"nodes":[]}`, "--server", url, "--token", "secret", "flow", "validate", "-")
	if code != 1 || !strings.Contains(out, "/nodes/0/type") || !strings.Contains(out, "/name") || !strings.Contains(errs, "2 problems") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
}

func TestUsage(t *testing.T) {
	if code, out, _ := flowctl(t, "", "--help"); code != 0 || !strings.Contains(out, "execution") {
		t.Errorf("%d %s", code, out)
	}
	if code, _, errs := flowctl(t, "", "fly"); code != 2 || errs == "" {
		t.Errorf("%d %s", code, errs)
	}
}

package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"flowplatform/services/internal/credential"
)

func TestCredentialSecretsAreNotOnTheCommandLine(t *testing.T) {
	t.Setenv("FLOW_TOKEN", "secret")
	var got map[string]any
	t.Setenv("FLOW_SERVER", server(t, map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/catalog/credentials": func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]any{"items": credential.Views()}) },
		"POST /api/v1/credentials": func(w http.ResponseWriter, r *http.Request) {
			if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
				t.Error(err)
			}
			answer(w, map[string]any{"id": "1", "name": got["name"]})
		},
	}))
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shop := []string{"credential", "create", "shop", "--type", "postgres", "-s", "host=db.example.com", "-s", "port=5433", "-s", "database=a,b", "-s", "user=reader"}
	want := map[string]any{"name": "shop", "type": "postgres", "public": map[string]any{"host": "db.example.com", "port": 5433.0, "database": "a,b", "user": "reader"}, "secret": map[string]any{"password": "hunter2"}}
	for name, k := range map[string]struct {
		stdin string
		args  []string
	}{
		"standard input": {"hunter2\n", shop}, "a file": {"", append(shop[:len(shop):len(shop)], "--secret", file)}, "JSON": {`{"password": "hunter2"}`, shop},
	} {
		got = nil
		code, out, errs := flowctl(t, k.stdin, k.args...)
		if code != 0 || !reflect.DeepEqual(got, want) || strings.Contains(out+errs, "hunter2") {
			t.Errorf("%s: %d %s%s %v", name, code, out, errs, got)
		}
	}
	for name, k := range map[string]struct {
		stdin string
		args  []string
		says  string
	}{
		"on the command line": {"hunter2", append(shop[:len(shop):len(shop)], "-s", "password=hunter2"), "command line"}, "none": {"", shop, "no secret"}, "two lines": {"hunter2\nhunter2", shop, "one line"},
		"broken JSON": {`{"password": "hunter2`, shop, "JSON"}, "no number": {"hunter2", append(shop[:len(shop):len(shop)], "-s", "port=x"), "whole number"}, "no type": {"", []string{"credential", "create", "x", "--type", "telnet"}, "http.bearer"},
	} {
		got = nil
		code, out, errs := flowctl(t, k.stdin, k.args...)
		if code == 0 || got != nil || !strings.Contains(errs, k.says) || strings.Contains(out+errs, "hunter2") {
			t.Errorf("%s: %d %s%s %v", name, code, out, errs, got)
		}
	}
}

func TestCredentialListTestDelete(t *testing.T) {
	t.Setenv("FLOW_TOKEN", "secret")
	deleted, outcome := "", "works"
	t.Setenv("FLOW_SERVER", server(t, map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/credentials": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("type") != "redis,amqp" {
				t.Errorf("%s", r.URL)
			}
			answer(w, map[string]any{"items": []any{map[string]any{"id": "1", "name": "cache", "type": "redis", "public": map[string]any{"host": "h"}}}})
		},
		"POST /api/v1/credentials/{id}/test": func(w http.ResponseWriter, _ *http.Request) {
			answer(w, map[string]any{"outcome": outcome, "message": "says why", "milliseconds": 3})
		},
		"DELETE /api/v1/credentials/{id}": func(w http.ResponseWriter, r *http.Request) {
			deleted = r.PathValue("id")
			w.WriteHeader(204)
		},
	}))
	if code, out, errs := flowctl(t, "", "credential", "list", "--type", "redis,amqp"); code != 0 || !strings.Contains(out, `{"host":"h"}`) {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if code, out, _ := flowctl(t, "", "credential", "test", "cache"); code != 0 || !strings.Contains(out, "works: says why (3 ms)") {
		t.Errorf("%d %s", code, out)
	}
	outcome = "fails"
	if code, _, _ := flowctl(t, "", "credential", "test", "cache"); code != 1 {
		t.Errorf("%d", code)
	}
	if code, _, errs := flowctl(t, "", "credential", "delete", "my cache"); code != 0 || deleted != "my cache" {
		t.Errorf("%d %s %q", code, errs, deleted)
	}
}

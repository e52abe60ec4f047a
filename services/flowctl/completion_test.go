package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompletion(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	url := server(t, map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/flows": func(w http.ResponseWriter, _ *http.Request) {
			answer(w, map[string]any{"items": []any{map[string]string{"name": "Hello"}, map[string]string{"name": "Route by amount"}}})
		},
	})
	t.Setenv("FLOW_SERVER", url)
	t.Setenv("FLOW_TOKEN", "secret")
	for _, tc := range []struct{ words, want string }{
		{"ex", "execution"},
		{"flow ", "apply delete get list pause publish resume test validate versions waits"},
		{"flow apply --d", "--draft"},
		{"-o ", "json table"},
		{"--output = j", "json"},
		{"-o json execution wa", "waits watch"},
		{"execution list --status q", "queued"},
		{"execution list --sta", "--status"},
		{"run H", "Hello"},
		{"run Hello ", ""},
		{"run Hello --w", "--wait"},
		{`run Route\ b`, "Route by amount"},
		{"flow get --version 3 ", "Hello Route by amount"},
		{"--token wrong run ", ""},
		{"completion ", "bash fish zsh"},
		{"nosuch ", ""},
		{"run --input ", ""},
	} {
		words := strings.Split(tc.words, " ")
		if strings.Contains(tc.words, `\ `) {
			words = []string{"run", `Route\ b`}
		}
		code, out, errs := flowctl(t, "", append([]string{completeWord}, words...)...)
		got := strings.Join(strings.Fields(strings.ReplaceAll(out, "\n", " ")), " ")
		if code != 0 || errs != "" || got != tc.want {
			t.Errorf("%q: %d %s\n got %s\nwant %s", tc.words, code, errs, got, tc.want)
		}
	}
}

// TestCompletionInBash sources the script in a real bash, with a flowctl that says what it was asked.
func TestCompletionInBash(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "flowctl"), []byte("#!/bin/sh\nfor a; do printf '%s\\n' \"<$a>\"; done\necho 'Route by amount'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, script, _ := flowctl(t, "", "completion", "bash")
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", script+`
COMP_WORDS=(flowctl -o json run 'Route\ b' more) COMP_CWORD=4
_flowctl
printf '%s\n' "${COMPREPLY[@]}"
complete -p flowctl`)
	cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	want := `\<__complete\>
\<-o\>
\<json\>
\<run\>
\<Route\\\ b\>
Route\ by\ amount
complete -o default -F _flowctl flowctl
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
}

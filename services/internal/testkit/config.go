package testkit

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
)

// Config renders a file of configs/ as Nomad would: what the platform runs with is what the test runs with. Every secret of a Nomad Variable is "secret".
func Config(t testing.TB, path string, secrets ...string) string {
	t.Helper()
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("where is the module: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "configs", path))
	if err != nil {
		t.Fatal(err)
	}
	variable := map[string]string{}
	for _, name := range secrets {
		variable[name] = "secret"
	}
	functions := template.FuncMap{"nomadVar": func(string) map[string]string { return variable }, "env": os.Getenv}
	parsed, err := template.New(path).Funcs(functions).Option("missingkey=error").Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, nil); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

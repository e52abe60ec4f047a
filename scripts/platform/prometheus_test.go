package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
)

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is missing: scripts/install --role dev installs it (Debian's package prometheus)")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// registered is what Nomad's templates see of a service.
type registered struct {
	Name, Address, Node string
	Port                int
	ServiceMeta         map[string]string
}

// renderPrometheus writes a file of configs/prometheus as Nomad renders it, and returns it.
func renderPrometheus(t *testing.T, dir, name string, functions template.FuncMap) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "configs", "prometheus", name))
	if err != nil {
		t.Fatal(err)
	}
	parsed := template.New(name).Funcs(functions)
	if name == "prometheus.yml" {
		parsed = parsed.Delims("[[nomad", "nomad]]")
	}
	if parsed, err = parsed.Parse(string(text)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, nil); err != nil {
		t.Fatal(err)
	}
	content := strings.NewReplacer("/local/targets", dir, "/secrets", dir, "/local", filepath.Join(root(t), "configs", "prometheus")).Replace(out.String())
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return content
}

// The configuration, with targets as Nomad renders them: on a machine without certificates, and on hosts that ask for one.
func TestPrometheusConfigIsValid(t *testing.T) {
	t.Parallel()
	catalogue := map[string][]registered{
		"worker|any":       {{Name: "worker", Address: "127.0.0.1", Node: "n", Port: 1, ServiceMeta: map[string]string{"metrics_port": "2001", "alloc": "a"}}, {Name: "worker", Address: "127.0.0.1", Node: "n", ServiceMeta: map[string]string{"metrics_port": "2002"}}},
		"redis|any":        {{Name: "redis", Address: "127.0.0.1", Port: 3}},
		"rabbitmq|any":     {{Name: "rabbitmq", Address: "127.0.0.1", ServiceMeta: map[string]string{"metrics_port": "2003"}}},
		"http.nomad|any":   {{Name: "nomad", Address: "127.0.0.1", Port: 4646}},
		"nomad-client|any": {{Name: "nomad-client", Address: "127.0.0.1", Port: 4656}},
	}
	const services = "127.0.0.1:2001 127.0.0.1:2002 127.0.0.1:2003 127.0.0.1:2003 127.0.0.1:4646 127.0.0.1:4656 "
	for name, tc := range map[string]struct {
		variable map[string]item
		targets  string
		https    int
	}{
		"one machine": {nil, services + "127.0.0.1:8500", 0},
		"a cluster":   {selfSigned(t, 1), services + "10.0.0.1:8501 10.0.0.2:8501", 2},
	} {
		dir := t.TempDir()
		functions := template.FuncMap{
			"env": func(string) string { return "127.0.0.1:8500" },
			"services": func() []registered {
				return []registered{{Name: "worker"}, {Name: "redis"}, {Name: "rabbitmq"}, {Name: "nomad"}}
			},
			"service": func(name string) []registered { return catalogue[name] },
			"nodes": func() []registered {
				return []registered{{Node: "a", Address: "10.0.0.1"}, {Node: "b", Address: "10.0.0.2"}}
			},
			"parseJSON":      func(s string) (v any, err error) { return v, json.Unmarshal([]byte(s), &v) },
			"nomadVarExists": func(string) bool { return tc.variable != nil },
			"nomadVar":       func(string) map[string]item { return tc.variable },
		}
		var targets []string
		for _, file := range []string{"services.yml", "queues.yml", "nomad.yml", "consul.yml"} {
			for _, m := range regexp.MustCompile(`(?m)^- targets: \["(.*)"\]$`).FindAllStringSubmatch(renderPrometheus(t, dir, file, functions), -1) {
				targets = append(targets, m[1])
			}
		}
		if got := strings.Join(targets, " "); got != tc.targets {
			t.Errorf("%s: targets %s\n   want %s", name, got, tc.targets)
		}
		for file, key := range map[string]string{"ca.pem": "certificate", "certificate.pem": "certificate", "key.pem": "key", "consul": ""} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(tc.variable[key].Value), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if config := renderPrometheus(t, dir, "prometheus.yml", functions); strings.Count(config, "scheme: https") != tc.https || strings.Contains(config, "nomad]]") {
			t.Errorf("%s: want %d jobs with https:\n%s", name, tc.https, config)
		}
		promtool(t, "check", "config", filepath.Join(dir, "prometheus.yml"))
	}
}

var alertName = regexp.MustCompile(`(?m)^      - alert: (\w+)$`)

func TestAlertsHaveTestsAndPlaybooks(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(root(t), "configs", "prometheus")
	promtool(t, "test", "rules", filepath.Join(dir, "alerts_test.yml"))
	rules, err := os.ReadFile(filepath.Join(dir, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(filepath.Join(dir, "alerts_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range alertName.FindAllStringSubmatch(string(rules), -1) {
		name := m[1]
		names = append(names, name)
		if !strings.Contains(string(tests), "alertname: "+name+"\n        exp_alerts:") {
			t.Errorf("no test shows %s firing", name)
		}
		if !strings.Contains(string(tests), "alertname: "+name+"}") {
			t.Errorf("no test shows %s silent", name)
		}
		if !strings.Contains(string(rules), "playbook: docs/playbooks/"+name+".md\n") {
			t.Errorf("%s doesn't name its playbook", name)
		}
	}
	if len(names) == 0 || strings.Count(string(rules), "alert:") != len(names) {
		t.Fatalf("the test reads %d alerts of %d: has the file's shape changed?", len(names), strings.Count(string(rules), "alert:"))
	}
	books, err := filepath.Glob(filepath.Join(root(t), "docs", "playbooks", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, b := range books {
		have = append(have, strings.TrimSuffix(filepath.Base(b), ".md"))
	}
	slices.Sort(names)
	if slices.Sort(have); !slices.Equal(names, have) {
		t.Errorf("alerts %q, playbooks %q", names, have)
	}
}

// Metrics that alerts name must exist: a renamed one would silence its alert for ever.
func TestAlertsNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile(filepath.Join(root(t), "configs", "prometheus", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob(filepath.Join(root(t), "services", "*", "internal", "*", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, file := range sources {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(b)
	}
	found := regexp.MustCompile(`\bflow_\w+`).FindAllString(string(rules), -1)
	if len(found) == 0 {
		t.Fatal("no alert names a metric of ours")
	}
	for _, name := range found {
		if !strings.Contains(code.String(), `Name: "`+name+`"`) {
			t.Errorf("%s is made by no service", name)
		}
	}
}

func TestTargetsThatAreDownAreNamed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":"success","data":{"activeTargets":[
			{"labels":{"job":"gateway","instance":"127.0.0.1:1"},"health":"up","lastError":""},
			{"labels":{"job":"worker","instance":"127.0.0.1:2"},"health":"down","lastError":"connection refused"}]}}`)
	}))
	defer server.Close()
	var port int
	if _, err := fmt.Sscanf(server.URL, "http://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	s := settings{Ports: map[string]int{"PROMETHEUS_PORT": port}}
	if got, want := s.sayTargets(t.Context()), "1 of 2 targets up; worker at 127.0.0.1:2: down connection refused"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestEveryTargetIsUp asks the platform that runs on FLOW_DATA_DIR, if a person wants it: FLOW_LIVE=1 FLOW_DATA_DIR=… go test ./scripts/platform -run EveryTarget.
func TestEveryTargetIsUp(t *testing.T) {
	if os.Getenv("FLOW_LIVE") == "" {
		t.Skip("FLOW_LIVE is not set: nothing is said to run")
	}
	s, err := readSettings(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	up, down, err := s.targetsUp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// gateway, 2 orchestrators, 2 workers, rabbitmq and its queues, prometheus, consul, Nomad's server and client.
	if len(down) > 0 || up < 11 {
		t.Errorf("%d up, want 11 at least; down: %s", up, strings.Join(down, "; "))
	}
}

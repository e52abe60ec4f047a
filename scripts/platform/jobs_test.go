package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/jobs"
)

func itoa(n int) string { return strconv.Itoa(n) }

func dateOf(day int) time.Time { return time.Date(2026, 1, 10+day, 0, 0, 0, 0, time.UTC) }

func root(t *testing.T) string {
	t.Helper()
	dir, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func jobFiles(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), "jobs", "*.nomad.hcl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no job files: %v", err)
	}
	all := map[string]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".nomad.hcl")] = string(b)
	}
	return all
}

func TestEveryJobIsInAStage(t *testing.T) {
	t.Parallel()
	var staged []string
	for _, st := range jobs.Stages() {
		staged = append(staged, st.Jobs...)
	}
	slices.Sort(staged)
	var files []string
	for name := range jobFiles(t) {
		files = append(files, name)
	}
	slices.Sort(files)
	if !slices.Equal(staged, files) {
		t.Errorf("stages have %q, jobs/ has %q", staged, files)
	}
	var stopped []string
	for _, st := range jobs.Stopping() {
		stopped = append(stopped, st.Jobs...)
	}
	slices.Sort(stopped)
	if !slices.Equal(stopped, files) {
		t.Errorf("what is stopped is %q, jobs/ has %q", stopped, files)
	}
}

var (
	variableBlock = regexp.MustCompile(`(?s)variable "(\w+)" \{\n(.*?)\n\}`)
	assignment    = regexp.MustCompile(`(?m)^(\w+) +=`)
)

func TestJobFilesFollowTheHouseRules(t *testing.T) {
	t.Parallel()
	declared := map[string]bool{}
	for name, text := range jobFiles(t) {
		if !strings.Contains(text, "\njob \""+name+"\" {\n") {
			t.Errorf("%s: the job's ID is not its file's name", name)
		}
		for _, v := range variableBlock.FindAllStringSubmatch(text, -1) {
			declared[v[1]] = true
			for _, field := range []string{"type", "description"} {
				if !regexp.MustCompile(`(?m)^  ` + field + ` +=`).MatchString(v[2]) {
					t.Errorf("%s: variable %s has no %s", name, v[1], field)
				}
			}
			if regexp.MustCompile(`(?m)^\s*default\s*=`).MatchString(v[2]) { // descriptions may have the word
				t.Errorf("%s: variable %s has a default: what a job runs with stands in jobs/vars", name, v[1])
			}
		}
		inOrder(t, name, text, []string{"\njob ", "\n  group ", "\n    count ", "\n    update ", "\n    restart ", "\n    reschedule ", "\n    network ", "\n    service ", "\n    task "})
		inOrder(t, name, text, []string{"\n      driver ", "\n      user ", "\n      kill_timeout ", "\n      config ", "\n      env ", "\n      artifact ", "\n      template ", "\n      resources "})
	}
	for _, file := range []string{"local.hcl", "cluster.hcl"} {
		b, err := os.ReadFile(filepath.Join(root(t), "jobs", "vars", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range assignment.FindAllStringSubmatch(string(b), -1) {
			if !declared[v[1]] {
				t.Errorf("jobs/vars/%s sets %s, which no job declares", file, v[1])
			}
		}
	}
}

// inOrder says which of the stanzas that a job has are out of order; a job need not have all.
func inOrder(t *testing.T, name, text string, stanzas []string) {
	t.Helper()
	last := -1
	for _, stanza := range stanzas {
		at := strings.Index(text, stanza)
		if at < 0 {
			continue
		}
		if at < last {
			t.Errorf("%s: stanza %q stands too early", name, strings.TrimSpace(stanza))
		}
		last = at
	}
}

func TestAgentLayersAreShort(t *testing.T) {
	t.Parallel()
	for _, a := range agents() {
		for _, layer := range a.Layers {
			b, err := os.ReadFile(filepath.Join(root(t), "configs", a.Program, layer))
			if err != nil {
				t.Error(err)
				continue
			}
			if lines := strings.Count(string(b), "\n"); lines > 40 {
				t.Errorf("configs/%s/%s has %d lines: cut it in two", a.Program, layer, lines)
			}
		}
	}
}

type constraint struct{ LTarget, RTarget string }

// rendered is the part of Nomad's job that the tests look at.
type rendered struct {
	ID, Type    string
	Constraints []constraint
	TaskGroups  []struct {
		Spreads  []struct{ Attribute string }
		Volumes  map[string]struct{ Source string }
		Networks []struct {
			DynamicPorts  []struct{ Label string }
			ReservedPorts []struct{ Label string }
		}
		Services []struct {
			Name   string
			Checks []struct{ Type string }
		}
		Update *struct {
			AutoRevert bool
			Canary     int
		}
		Tasks []struct {
			Driver    string
			User      string
			Consul    *struct{}
			Artifacts []struct {
				GetterSource  string
				GetterOptions map[string]string
			}
			Templates []struct {
				EmbeddedTmpl string
				ChangeMode   string
			}
			Env map[string]string
		}
	}
}

func TestRenderedJobs(t *testing.T) {
	t.Parallel()
	bin := os.Getenv("FLOW_BIN_DIR")
	if bin == "" {
		t.Skip("FLOW_BIN_DIR doesn't say where nomad is; make test and make check do")
	}
	s, err := readSettings(environment(map[string]string{dataDirVariable: filepath.Join(t.TempDir(), "data")}))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bin, s.path("bin")); err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("0123456789abcdef", 4)
	versions := map[string]string{"gateway": sum, "orchestrator": sum, "worker": sum, "migrate": sum}
	if err := s.jobVariables(versions, "/usr/lib/postgresql/15/bin"); err != nil {
		t.Fatal(err)
	}
	// What flowcluster writes beside jobs/vars/cluster.hcl.
	cluster := filepath.Join(t.TempDir(), "cluster.hcl")
	written := fmt.Sprintf("front_door_port = 8080\npostgres_address = \"10.0.0.3:15432\"\npostgres_bin = \"/usr/lib/postgresql/15/bin\"\nrabbitmq_address = \"10.0.0.3:15671\"\n"+
		"redis_address = \"10.0.0.3:16379\"\nversions = { gateway = %q, orchestrator = %[1]q, worker = %[1]q, migrate = %[1]q }\n", sum)
	if err := os.WriteFile(cluster, []byte(written), 0o600); err != nil {
		t.Fatal(err)
	}
	local := s.runner(ground.Ground{}).Renderer
	many := local
	many.VarFiles = []string{filepath.Join(root(t), "jobs", "vars", "cluster.hcl"), cluster}
	for kind, renderer := range map[string]jobs.Renderer{"local": local, "cluster": many} {
		for name := range jobFiles(t) {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				spec, err := renderer.Render(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				b, err := json.Marshal(spec)
				if err != nil {
					t.Fatal(err)
				}
				var j rendered
				if err := json.Unmarshal(b, &j); err != nil {
					t.Fatal(err)
				}
				checkRendered(t, name, j, versions[name])
				checkPlacement(t, name, j)
			})
		}
	}
}

// checkPlacement: a job runs on the hosts of its role, and whoever asks Consul anything has a token for it where tokens are needed.
func checkPlacement(t *testing.T, name string, j rendered) {
	t.Helper()
	group, task := j.TaskGroups[0], j.TaskGroups[0].Tasks[0]
	meta := map[string]string{"gateway": "services", "orchestrator": "services", "worker": "services", "migrate": "services", "front-door": "front_door"}[name]
	constrained := slices.ContainsFunc(j.Constraints, func(c constraint) bool { return c.LTarget == "${meta."+meta+"}" && c.RTarget == "true" })
	_, volume := group.Volumes[name] // only hosts of role data have one of its own
	if meta != "" && !constrained || meta == "" && !volume {
		t.Errorf("constraints %+v, volumes %v: neither keeps it on the hosts of its role", j.Constraints, group.Volumes)
	}
	asks := task.Env["CONSUL_HTTP_ADDR"] != ""
	for _, tmpl := range task.Templates {
		asks = asks || regexp.MustCompile(`\{\{[^}]*\b(with|range) [^}]*\bservices?\b`).MatchString(tmpl.EmbeddedTmpl)
	}
	if asks != (task.Consul != nil) {
		t.Errorf("asks Consul: %v, has a consul block: %v", asks, task.Consul != nil)
	}
	if everywhere := name == "artifacts" || name == "front-door"; everywhere != (j.Type == "system") {
		t.Errorf("type %s", j.Type)
	}
	if (name == "gateway" || name == "orchestrator") && len(group.Spreads) != 2 {
		t.Errorf("spreads %v, want hosts and zones", group.Spreads)
	}
}

func checkRendered(t *testing.T, name string, j rendered, version string) {
	t.Helper()
	if j.ID != name || len(j.TaskGroups) != 1 || len(j.TaskGroups[0].Tasks) != 1 {
		t.Fatalf("job %q with %d groups", j.ID, len(j.TaskGroups))
	}
	group, task := j.TaskGroups[0], j.TaskGroups[0].Tasks[0]
	if task.Driver != "exec" || task.User == "" || task.User == "root" {
		t.Errorf("the task runs with driver %q as user %q", task.Driver, task.User)
	}
	if name != "migrate" && (len(group.Services) != 1 || group.Services[0].Name != name || len(group.Services[0].Checks) == 0) {
		t.Errorf("services = %+v, want one by the job's name, with a check", group.Services)
	}
	for _, service := range group.Services {
		for _, check := range service.Checks {
			if check.Type == "script" {
				t.Error("a check's script that times out ends Nomad's executor")
			}
		}
	}
	if version != "" {
		if len(task.Artifacts) != 1 || task.Artifacts[0].GetterOptions["checksum"] != "sha256:"+version ||
			!strings.HasSuffix(task.Artifacts[0].GetterSource, "/"+name+"/"+version+"/"+name) {
			t.Errorf("artifacts = %+v, want one at a content-addressed path, checked", task.Artifacts)
		}
		for _, n := range group.Networks {
			if len(n.ReservedPorts) != 0 {
				t.Errorf("fixed ports %+v: our own services' ports are dynamic", n.ReservedPorts)
			}
		}
		if name != "migrate" && (group.Update == nil || !group.Update.AutoRevert || group.Update.Canary == 0) {
			t.Errorf("update = %+v, want a canary and auto_revert", group.Update)
		}
	}
	path := regexp.MustCompile(`nomadVar "([^"]*)"`)
	for _, tmpl := range task.Templates {
		if tmpl.ChangeMode == "script" {
			t.Error("a template's script that times out ends Nomad's executor")
		}
		if tmpl.ChangeMode == "restart" {
			t.Error("a template restarts all allocations at once when what it shows changes")
		}
		for _, m := range path.FindAllStringSubmatch(tmpl.EmbeddedTmpl, -1) {
			if m[1] != "nomad/jobs/"+name {
				t.Errorf("reads %s, which its workload identity may not", m[1])
			}
		}
	}
	for key, value := range task.Env {
		if strings.HasSuffix(key, "_FILE") && strings.HasPrefix(value, "/secrets/") || value == "unix:///secrets/api.sock" {
			continue // where the secret is, not the secret; the socket of the task's API
		}
		if regexp.MustCompile(`(?i)password|token|secret`).MatchString(key + value) {
			t.Errorf("environment %s=%q looks like a secret in a job file", key, value)
		}
	}
}

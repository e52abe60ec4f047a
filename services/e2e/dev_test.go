package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"flowplatform/services/e2e/chaos"
	"flowplatform/services/internal/testkit"
)

// devPlatform is `flowctl dev` on a directory, started again and again.
type devPlatform struct {
	*platform
	flowctl string
	dir     string
	port    int
	env     []string
	proc    *testkit.Process
}

func newDev(t *testing.T) *devPlatform {
	t.Helper()
	home, err := os.MkdirTemp("", "flow-test-dev-") // the tests' own directories are closed to the user that PostgreSQL runs as
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &devPlatform{platform: &platform{t: t}, flowctl: testkit.Build(t, "./services/flowctl"), dir: filepath.Join(home, "data"), port: testkit.FreePort(t)}
	d.env = []string{"PATH=/usr/bin:/bin", "HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, "config"), "TMPDIR=" + os.TempDir()}
	return d
}

// up starts it and waits until it says that it is ready.
func (d *devPlatform) up() {
	d.t.Helper()
	d.proc = testkit.Run(d.t, testkit.ProcessOptions{Name: "flowctl dev", Path: d.flowctl, Args: []string{"dev", "--dir", d.dir, "--port", fmt.Sprint(d.port)}, Env: d.env})
	testkit.Eventually(d.t, 90*time.Second, "flowctl dev is ready", func() error {
		select {
		case <-d.proc.Done():
			d.t.Fatalf("flowctl dev ended (%v):\n%s", d.proc.Err(), d.proc.Output())
		default:
		}
		if !strings.Contains(d.proc.Output(), "Ready after") {
			return fmt.Errorf("it says:\n%s", d.proc.Output())
		}
		return nil
	})
	var login struct{ Token string }
	b, err := os.ReadFile(filepath.Join(d.dir, "login.json"))
	if err != nil || json.Unmarshal(b, &login) != nil {
		d.t.Fatalf("login.json: %v %s", err, b)
	}
	d.token = login.Token
	d.gateway = &service{ready: fmt.Sprintf("http://127.0.0.1:%d/readyz", d.port)}
}

// run runs flowctl and gives what it printed.
func (d *devPlatform) run(args ...string) (string, error) {
	cmd := exec.Command(d.flowctl, args...)
	cmd.Env = d.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ended reads through the API how many executions of a flow have succeeded, and how many there are.
func (d *devPlatform) ended(flow string) (succeeded, all int) {
	d.t.Helper()
	cursor := ""
	for {
		var page struct {
			Items      []execution `json:"items"`
			NextCursor string      `json:"nextCursor"`
		}
		if status := d.api("GET", "/executions?limit=200&flowId="+flow+"&cursor="+url.QueryEscape(cursor), nil, &page); status != 200 {
			return 0, 0
		}
		for _, e := range page.Items {
			all++
			if e.Status == "succeeded" {
				succeeded++
			}
		}
		if cursor = page.NextCursor; cursor == "" {
			return succeeded, all
		}
	}
}

// TestDevKilled: `flowctl dev` is killed twice with executions queued, in flight and waiting. All of them end, no confirmed step is repeated, and it stops in order.
func TestDevKilled(t *testing.T) {
	t.Parallel()
	d, w := newDev(t), newTarget(t)
	d.up()
	flow := d.createFlow(map[string]any{
		"name": "Three calls and a wait",
		"nodes": []any{map[string]any{"id": "start", "type": "trigger.manual"}, call(w, "first"), map[string]any{"id": "wait", "type": "flow.delay", "config": map[string]any{"duration": "1500ms"}},
			call(w, "second"), map[string]any{"id": "script", "type": "data.code", "config": map[string]any{"code": "return {i: input.i}"}}, call(w, "third")},
		"edges": []any{map[string]any{"from": "start", "to": "first"}, map[string]any{"from": "first", "to": "wait"}, map[string]any{"from": "wait", "to": "second"},
			map[string]any{"from": "second", "to": "script"}, map[string]any{"from": "script", "to": "third"}},
	})
	const batch = 30
	var ids []string
	succeed := func() {
		t.Helper()
		testkit.Eventually(t, 90*time.Second, "all have succeeded", func() error {
			if succeeded, all := d.ended(flow); succeeded != len(ids) || all != len(ids) {
				return fmt.Errorf("%d of %d, %d accepted", succeeded, all, len(ids))
			}
			return nil
		})
	}
	w.shut("second")
	ids = d.acceptAll(flow, batch)
	testkit.Eventually(t, 60*time.Second, "the first ones are in flight", func() error {
		for _, id := range ids {
			if len(w.Visits(id, "second")) == 0 {
				return fmt.Errorf("%s isn't", id)
			}
		}
		return nil
	})
	ids = append(ids, d.acceptAll(flow, batch)...) // these are queued, in their first call, or wait
	d.proc.Kill()
	w.open("second")
	d.up()
	succeed()

	ids = append(ids, d.acceptAll(flow, batch)...) // new ones: an execution with two deaths is a suspect, and suspects run one at a time
	d.proc.Kill()
	d.up()
	succeed()
	q := url.Values{"host": {filepath.Join(d.dir, "socket")}, "port": {"5432"}}
	c, err := chaos.Count(t.Context(), "postgres://flow_orchestrator@/flow?"+q.Encode(), w.Target, ids, []string{"first", "second", "third"})
	if err != nil {
		t.Fatal(err)
	}
	if broken := c.Broken(); len(broken) > 0 {
		t.Errorf("%s:\n%s", strings.Join(broken, "; "), strings.Join(c.Examples, "\n"))
	}
	t.Logf("%d calls, %d of them repeated one in flight", c.Calls, c.Repeated)

	testkit.Eventually(t, 30*time.Second, "the leader's picture shows the worker", func() error {
		if out, err := d.run("worker", "list", "-o", "json"); err != nil || !strings.Contains(out, `"ready"`) {
			return fmt.Errorf("%w %s", err, out)
		}
		return nil
	})
	d.refusals(t)
	if !d.proc.Terminate(60*time.Second) || d.proc.Err() != nil {
		t.Fatalf("it didn't end in order: %v", d.proc.Err())
	}
	if _, err := os.Stat(filepath.Join(d.dir, "postgres", "postmaster.pid")); !os.IsNotExist(err) {
		t.Errorf("PostgreSQL has not ended in order: %v", err)
	}
}

func call(w *target, node string) map[string]any {
	return map[string]any{"id": node, "type": "http.request", "timeout": "100s", "config": map[string]any{"method": "POST", "url": w.url + "/" + node, "body": map[string]any{"i": "{{ input.i }}"}}}
}

// refusals: a second one on the same directory, and on a port that is taken; and what is secret is its owner's.
func (d *devPlatform) refusals(t *testing.T) {
	if out, err := d.run("dev", "--dir", d.dir, "--port", "0"); err == nil || !strings.Contains(out, fmt.Sprintf("in use by another flowctl dev (process %d)", d.proc.PID())) {
		t.Errorf("a second one on the directory: %v %s", err, out)
	}
	if out, err := d.run("dev", "--dir", d.dir+"-other", "--port", fmt.Sprint(d.port)); err == nil || !strings.Contains(out, fmt.Sprintf("port %d", d.port)) || !strings.Contains(out, "--port") {
		t.Errorf("a port that is taken: %v %s", err, out)
	}
	for _, name := range []string{"login.json", "secrets.json", "lock", "dev.log"} {
		info, err := os.Stat(filepath.Join(d.dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	for _, name := range []string{"postgres", "socket"} {
		info, err := os.Stat(filepath.Join(d.dir, name))
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			if c, err := net.DialTimeout("tcp", net.JoinHostPort(n.IP.String(), fmt.Sprint(d.port)), time.Second); err == nil {
				c.Close()
				t.Errorf("it listens on %s", n.IP)
			}
		}
	}
}

// TestQuickLook runs the commands of README's quick look: from a clone to a finished flow. What differs is where the program is, the directory and the port.
func TestQuickLook(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)## A quick look\n.*?```sh\n(.*?)```").FindSubmatch(readme)
	if block == nil {
		t.Fatal("README has no quick look")
	}
	var lines []string
	for line := range strings.Lines(string(block[1])) {
		command, _, _ := strings.Cut(line, " #")
		lines = append(lines, strings.TrimSpace(command))
	}
	if len(lines) != 3 || lines[0] != "go build -o bin/ ./services/flowctl" || lines[1] != "bin/flowctl dev" || !strings.HasPrefix(lines[2], "bin/flowctl run ") {
		t.Fatalf("the quick look is another: %q", lines)
	}
	d := newDev(t)
	begun := time.Now()
	d.up()
	cmd := exec.Command("sh", "-c", strings.Replace(lines[2], "bin/flowctl", d.flowctl, 1))
	cmd.Dir, cmd.Env = "../..", d.env
	out, err := cmd.Output()
	if err != nil || string(out) != `{"greeting":"Hello, Ada!","long":false}`+"\n" {
		t.Errorf("%v %s", err, out)
	}
	t.Logf("from the start to the first finished flow: %s", time.Since(begun).Round(10*time.Millisecond))
	d.proc.Signal(syscall.SIGINT) // Ctrl-C goes to the whole group
	select {
	case <-d.proc.Done():
	case <-time.After(60 * time.Second):
		t.Fatal("Ctrl-C doesn't end it")
	}
	if err := d.proc.Err(); err != nil || slices.ContainsFunc(strings.Split(d.proc.Output(), "\n"), func(l string) bool { return strings.HasPrefix(l, "flowctl:") }) {
		t.Errorf("%v\n%s", err, d.proc.Output())
	}
}

// TestFlowTests runs the tests beside the examples as their reader would, and tests that fail in every way.
func TestFlowTests(t *testing.T) {
	t.Parallel()
	d := newDev(t)
	out, err := d.run("flow", "test", examplesDir, "--dir", d.dir)
	if err != nil || strings.Count(out, "ok  ") < 12 || strings.Contains(out, "FAIL") {
		t.Fatalf("%v\n%s", err, out)
	}
	work := t.TempDir()
	for name, content := range map[string]string{
		"flow.json": `{"name": "Tested", "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "wait", "type": "flow.delay", "config": {"duration": "1h"}}, {"id": "set", "type": "data.set", "config": {"values": {"n": "{{ input.n }}"}}}],
			"edges": [{"from": "start", "to": "wait"}, {"from": "wait", "to": "set"}]}`,
		"flow.test.yaml": "cases:\n- {name: passes, input: {n: 9007199254740993}, pins: {wait: {}}, expect: {output: {n: 9007199254740993}}}\n" +
			"- {name: differs, input: {n: 1}, pins: {wait: {}}, expect: {output: {n: 2}, path: [start, set]}}\n- {name: waits, input: {n: 1}, timeout: 200ms}\n- {name: unknown, pins: {nobody: {}}}\n- {name: fails, input: {}, pins: {wait: {}}}\n",
	} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err = d.run("flow", "test", filepath.Join(work, "flow.json"), "--dir", d.dir, "--junit", filepath.Join(work, "junit.xml"))
	for _, want := range []string{"ok    flow: passes", "output.n: is 1, want 2", "should not have run: wait", " after 200ms: pin steps that wait", "pins.nobody: the flow has no node of this id", "status: is failed, want succeeded (", "4 of 5 flow tests failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if report, rerr := os.ReadFile(filepath.Join(work, "junit.xml")); err == nil || rerr != nil || !strings.Contains(string(report), `failures="4"`) {
		t.Errorf("%v, %v %s", err, rerr, report)
	}
}

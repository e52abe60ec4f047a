package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"text/template"
	"time"

	"flowplatform/scripts/internal/console"
)

// instance is what Consul says about one registered gateway.
type instance struct {
	Address string
	Port    int
}

// frontDoor runs the real NGINX on the configuration of configs/nginx, rendered as Nomad would with these gateways.
type frontDoor struct {
	URL, StatusURL string
	log            bytes.Buffer
	client         *http.Client
	render         func(t *testing.T)
	signal         func(syscall.Signal) error
}

// item is what Nomad's templates see of one value of a Nomad Variable.
type item struct{ Value string }

func startFrontDoor(t *testing.T, passing, any []instance) *frontDoor {
	t.Helper()
	return startFrontDoorWith(t, passing, any, nil)
}

// startFrontDoorWith is with what stands in the Nomad Variable nomad/jobs/front-door; nil: there is none.
func startFrontDoorWith(t *testing.T, passing, any []instance, variable map[string]item) *frontDoor {
	t.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Fatalf("no nginx: %v; scripts/install --role dev brings it", err)
	}
	dir := t.TempDir()
	door, status := freePort(t), freePort(t)
	functions := template.FuncMap{
		"env": func(name string) string {
			return map[string]string{
				"FRONT_DOOR_ADDRESS": loopback, "NOMAD_PORT_http": itoa(door), "NOMAD_IP_status": loopback, "NOMAD_PORT_status": itoa(status),
			}[name]
		},
		"service": func(query string) []instance {
			if query == "gateway|any" {
				return any
			}
			return passing
		},
		"nomadVarExists": func(string) bool { return variable != nil },
		"nomadVar":       func(string) map[string]item { return variable },
	}
	render := func(t *testing.T) { renderFrontDoor(t, dir, functions) }
	render(t)
	f := &frontDoor{
		URL: "http://" + net.JoinHostPort(loopback, itoa(door)), StatusURL: "http://" + net.JoinHostPort(loopback, itoa(status)),
		client: http.DefaultClient, render: render,
	}
	cmd := exec.Command("nginx", "-e", "stderr", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	cmd.Stderr = &f.log
	unprivileged(t, cmd, dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.signal = func(s syscall.Signal) error { return cmd.Process.Signal(s) }
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("nginx said:\n%s", f.log.String())
		}
	})
	f.waitReady(t)
	return f
}

// renderFrontDoor writes the configuration as Nomad would.
func renderFrontDoor(t *testing.T, dir string, functions template.FuncMap) {
	t.Helper()
	for source, target := range map[string]string{
		"front-door.conf": "nginx.conf", "listen.conf": "listen.conf", "certificate.pem": "certificate.pem", "proxy.conf": "proxy.conf",
		"gateways.conf": "gateways.conf", "index.html": "html/index.html",
	} {
		text, err := os.ReadFile(filepath.Join(root(t), "configs", "nginx", source))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		parsed, err := template.New(source).Funcs(functions).Parse(string(text))
		if err == nil {
			err = parsed.Execute(&out, nil)
		}
		if err != nil {
			t.Fatalf("render %s: %v", source, err)
		}
		moved := strings.NewReplacer("/local", dir, "/secrets", dir).Replace(out.String())
		if err := writeFile(filepath.Join(dir, target), []byte(moved), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// unprivileged makes NGINX run as its job does: as www-data, when the test itself is root.
func unprivileged(t *testing.T, cmd *exec.Cmd, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	u, err := user.Lookup("www-data")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2, os.Chown(dir, uid, gid), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func (f *frontDoor) waitReady(t *testing.T) {
	t.Helper()
	p := &console.Part{}
	err := console.Until(t.Context(), p, 10*time.Second, func(_ context.Context) (bool, string, error) {
		resp, err := http.Get(f.StatusURL + "/healthz")
		if err != nil {
			return false, "nginx to listen", nil
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, "nginx to be healthy", nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func instanceOf(t *testing.T, address string) instance {
	t.Helper()
	host, port, err := net.SplitHostPort(strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return instance{host, n}
}

// answer is a response, read.
func (f *frontDoor) do(t *testing.T, method, path, body string, header ...string) (status int, contentType, text string) {
	t.Helper()
	req, err := http.NewRequest(method, f.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = path // as it stands: no cleaning by the client
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
}

func TestFrontDoorForwardsWhatIsForUsersOnly(t *testing.T) {
	t.Parallel()
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for=%s id=%s upgrade=%s", r.URL.Path, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Request-Id"), r.Header.Get("Upgrade"))
	}))
	defer gateway.Close()
	f := startFrontDoor(t, []instance{instanceOf(t, gateway.URL)}, nil)

	for _, path := range []string{"/api/v1/flows", "/api/docs", "/api/openapi.json", "/hooks/mine", "/ws"} {
		if status, _, text := f.do(t, "GET", path, "", "X-Forwarded-For", "6.6.6.6"); status != 200 || !strings.HasPrefix(text, path+" for="+loopback+" ") {
			t.Errorf("%s: %d %q, want it forwarded, with the client's real address", path, status, text)
		}
	}
	if _, _, text := f.do(t, "GET", "/ws", "", "Connection", "upgrade", "Upgrade", "websocket"); !strings.Contains(text, "upgrade=websocket") {
		t.Errorf("/ws: %q, want the upgrade passed on", text)
	}
	if _, _, text := f.do(t, "GET", "/api/x", "", "X-Request-Id", "bad id {}"); strings.Contains(text, "bad id") || !strings.Contains(text, " id=") {
		t.Errorf("request id: %q, want one of NGINX's own in place of nonsense", text)
	}
	for _, path := range []string{"/internal/v1/bootstrap", "/metrics", "/healthz", "/readyz", "/api/../internal/v1/x", "/api/%2e%2e/metrics", "//internal/v1/x", "/nothing"} {
		if status, kind, text := f.do(t, "GET", path, ""); status != 404 || kind != "application/problem+json" {
			t.Errorf("%s: %d %s %q, want a 404 problem", path, status, kind, text)
		}
	}
	if status, kind, text := f.do(t, "GET", "/", ""); status != 200 || kind != "text/html" || !strings.Contains(text, `href="/api/docs"`) {
		t.Errorf("/: %d %s, want the page that links the documentation", status, kind)
	}
	if status, kind, _ := f.do(t, "POST", "/api/v1/flows", strings.Repeat("x", 17<<20+1)); status != 413 || kind != "application/problem+json" {
		t.Errorf("a body that is too large: %d %s, want a 413 problem", status, kind)
	}
	if status, _, _ := f.do(t, "POST", "/api/v1/flows", strings.Repeat("x", 17<<20)); status != 200 {
		t.Errorf("a body of 17 MiB: %d, want it forwarded", status)
	}
}

func TestFrontDoorWithoutGatewaysSaysSo(t *testing.T) {
	t.Parallel()
	f := startFrontDoor(t, nil, nil)
	if status, kind, text := f.do(t, "GET", "/api/v1/flows", ""); status != 503 || kind != "application/problem+json" || !strings.Contains(text, `"status":503`) {
		t.Errorf("%d %s %q, want a 503 problem", status, kind, text)
	}
	if status, _, _ := f.do(t, "GET", "/", ""); status != 200 {
		t.Errorf("/: %d, want the page also without a gateway", status)
	}
}

func TestFrontDoorFallsBackToGatewaysThatFailTheirCheck(t *testing.T) {
	t.Parallel()
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer gateway.Close()
	f := startFrontDoor(t, nil, []instance{instanceOf(t, gateway.URL)})
	if status, _, _ := f.do(t, "GET", "/api/v1/flows", ""); status != http.StatusTeapot {
		t.Errorf("%d, want the answer of the gateway that is there", status)
	}
}

func TestNX3_FrontDoorNeverSendsAPostTwice(t *testing.T) {
	t.Parallel()
	var posts, gets atomic.Int64
	// Every gateway takes the request and dies before it answers: the outcome is unknown.
	dying := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts.Add(1)
		} else {
			gets.Add(1)
		}
		panic(http.ErrAbortHandler)
	})
	one, two := httptest.NewServer(dying), httptest.NewServer(dying)
	defer one.Close()
	defer two.Close()
	f := startFrontDoor(t, []instance{instanceOf(t, one.URL), instanceOf(t, two.URL)}, nil)
	if status, kind, _ := f.do(t, "POST", "/api/v1/flows/x/executions", "{}"); status != 503 || kind != "application/problem+json" || posts.Load() != 1 {
		t.Errorf("POST: %d %s after %d tries, want a problem after one", status, kind, posts.Load())
	}

	// One that refuses connections was sent nothing: the POST goes to the other.
	alive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	defer alive.Close()
	g := startFrontDoor(t, []instance{{loopback, freePort(t)}, instanceOf(t, alive.URL)}, nil)
	for range 4 {
		if status, _, _ := g.do(t, "POST", "/api/v1/flows/x/executions", "{}"); status != http.StatusAccepted {
			t.Errorf("POST with one gateway away: %d, want the other's answer", status)
		}
	}
}

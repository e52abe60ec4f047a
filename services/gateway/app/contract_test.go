package app

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const unknownID = "0198c5b2-7d1e-7c3a-9f00-0123456789ab"

type document struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string
		Role        string `json:"x-role"`
		Security    []map[string][]string
		Parameters  []struct{ Name, In string }
		RequestBody *struct{ Content map[string]json.RawMessage }
		Responses   map[string]json.RawMessage
	}
}

// TestEveryRoute walks the OpenAPI document: what it says, the gateway does.
func TestEveryRoute(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	var doc document
	b.do(t, "GET", "/api/openapi.json", "", nil).want(t, 200).into(t, &doc)
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	var u struct{ Token string }
	b.do(t, "POST", "/tokens", b.admin, `{"name": "viewer", "role": "viewer"}`).want(t, 201).into(t, &u)
	isPublic := []string{"login", "refresh"}
	operations := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			operations++
			method = strings.ToUpper(method)
			at := strings.NewReplacer("{id}", unknownID, "{version}", "7", "{path}", "nothing", "{sha256}", strings.Repeat("0", 64)).Replace(path)
			if strings.Contains(at, "{") {
				t.Errorf("%s has a parameter that this test doesn't know", path)
			}
			name := method + " " + path
			if _, ok := op.Responses["default"]; !ok {
				t.Errorf("%s doesn't say how it fails", name)
			}
			var body any
			if op.RequestBody != nil {
				if len(op.RequestBody.Content) != 1 || op.RequestBody.Content["application/json"] == nil {
					t.Errorf("%s takes %v", name, op.RequestBody.Content)
				}
				body = "{}"
			}
			if op.OperationID == "callHook" {
				b.do(t, method, at, "", body).want(t, 404)
				continue
			}
			if slices.Contains(isPublic, op.OperationID) {
				if len(op.Security) != 0 || op.Role != "" {
					t.Errorf("%s says that it needs a login", name)
				}
				b.do(t, method, at, "", `{"email`).want(t, 400)
				b.do(t, method, at, "", `{}`).want(t, 422)
				continue
			}
			if len(op.Security) != 1 || op.Role == "" {
				t.Errorf("%s says nothing about who may: %v %q", name, op.Security, op.Role)
			}
			r := b.do(t, method, at, "", body).want(t, 401)
			if r.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: 401 without WWW-Authenticate", name)
			}
			b.do(t, method, at, "fp_wrong", body).want(t, 401)
			b.do(t, method, at, "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.", body).want(t, 401) // alg none
			if op.Role != "viewer" {
				b.do(t, method, at, u.Token, body).want(t, 403)
			}
			if op.RequestBody != nil {
				for _, broken := range []string{`{"a": `, `nonsense`, "\xff"} {
					b.do(t, method, at, b.admin, broken).want(t, 400)
				}
			}
			if strings.Contains(path, "{id}") {
				if op.RequestBody == nil {
					b.do(t, method, at, b.admin, nil).want(t, 404)
					b.do(t, method, strings.Replace(at, unknownID, "no-such-thing", 1), b.admin, nil).want(t, 404)
				} else if r := b.do(t, method, at, b.admin, `{"name":"x","nodes":[{"id":"start","type":"trigger.manual"}],"edges":[]}`); r.status != 404 && r.status != 422 {
					t.Errorf("%s with an unknown id: %d %s", name, r.status, r.body)
				}
			}
			for _, p := range op.Parameters {
				if p.In == "query" && p.Name == "limit" {
					if got := b.do(t, method, at+"?limit=0", b.admin, body).want(t, 422).pointers(t); !slices.Equal(got, []string{"query.limit"}) {
						t.Errorf("%s?limit=0: %v", name, got)
					}
					if !strings.Contains(path, "{id}") {
						b.do(t, method, at+"?cursor=nonsense", b.admin, body).want(t, 422)
					}
				}
			}
		}
	}
	if operations < 25 {
		t.Errorf("the document has %d operations", operations)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	b.do(t, "GET", "/api/v1/nonsense", b.admin, nil).want(t, 404)
	b.do(t, "GET", "/api/", "", nil).want(t, 404)
	if r := b.do(t, "PUT", "/flows", b.admin, "{}").want(t, 405); r.header.Get("Allow") != "GET, POST" {
		t.Errorf("Allow: %q", r.header.Get("Allow"))
	}
	b.do(t, "POST", "/internal/v1/bootstrap", "wrong", "{}").want(t, 401)
	b.do(t, "POST", "/internal/v1/bootstrap", "", "{}").want(t, 401)
	b.do(t, "POST", "/internal/v1/bootstrap", internalToken, "{}").want(t, 409)
	page := b.do(t, "GET", "/api/docs", "", nil).want(t, 200)
	for _, remote := range []string{"http://", "https://", "//cdn"} {
		if strings.Contains(string(page.body), remote) {
			t.Errorf("the page asks for %s", remote)
		}
	}
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy: %s", csp)
	}
	if r := b.do(t, "GET", "/healthz", "", nil).want(t, 200); !strings.Contains(string(r.body), "alive") {
		t.Errorf("%s", r.body)
	}
	res, err := http.Get("http://" + b.app.MetricsAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var lines []string
	for s := bufio.NewScanner(res.Body); s.Scan(); {
		lines = append(lines, s.Text())
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{`flow_gateway_request_seconds_count{method="PUT",route="`, "flow_gateway_accepted_total", "flow_gateway_unhanded", "flow_gateway_commit_rows", "go_goroutines"} {
		if !strings.Contains(all, want) {
			t.Errorf("no metric %s", want)
		}
	}
	if strings.Contains(all, "nonsense") {
		t.Error("unknown paths make metrics")
	}
}

// TestRawRequests sends what an http.Client can't.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "raw")
	for name, c := range map[string]struct {
		request string
		want    string
	}{
		"broken off":  {"POST /api/v1/flows/" + id + "/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b.admin + "\r\nContent-Length: 100\r\n\r\n{\"input\"", "400"},
		"said large":  {"POST /api/v1/flows/" + id + "/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b.admin + "\r\nContent-Length: 99999999999\r\n\r\n{", "413"},
		"no body":     {"POST /api/v1/flows/" + id + "/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b.admin + "\r\nContent-Length: 0\r\n\r\n", "422"},
		"chunked":     {"POST /api/v1/flows/" + id + "/executions HTTP/1.1\r\nHost: x\r\nAuthorization: bearer " + b.admin + "\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n{\"input\": {\"n\": 1}}\r\n0\r\n\r\n", "202"},
		"long header": {"GET /api/v1/flows HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", "431"},
	} {
		conn, err := net.Dial("tcp", b.app.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(conn, c.request); err != nil {
			t.Fatal(err)
		}
		if name == "broken off" {
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.HasPrefix(res.Status, c.want) {
			t.Errorf("%s: %s, want %s", name, res.Status, c.want)
		}
		res.Body.Close()
		conn.Close()
	}
}

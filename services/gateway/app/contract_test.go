package app

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

const unknownID = "0198c5b2-7d1e-7c3a-9f00-0123456789ab"

type operation struct {
	OperationID string
	Role        string `json:"x-role"`
	MaxBody     int    `json:"x-max-body-bytes"`
	Security    []map[string][]string
	Parameters  []struct{ Name, In string }
	RequestBody *struct{ Content map[string]json.RawMessage }
	Responses   map[string]struct{ Content map[string]json.RawMessage }

	method, path string
}

// contract is the OpenAPI document, which every answer is compared with.
type contract struct {
	*bundle
	operations map[string]*operation
	compiler   *jsonschema.Compiler
	schemas    map[string]*jsonschema.Schema
}

func readContract(t *testing.T, b *bundle) *contract {
	t.Helper()
	raw := b.do(t, "GET", "/api/openapi.json", "", nil).want(t, 200)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]*operation
	}
	raw.into(t, &doc)
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s", doc.OpenAPI)
	}
	c := &contract{bundle: b, operations: map[string]*operation{}, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw.body))
	if err != nil {
		t.Fatal(err)
	}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource("https://test/openapi.json", value); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			c.operations[op.OperationID] = op
			if _, ok := op.Responses["default"]; !ok {
				t.Errorf("%s doesn't say how it fails", op.OperationID)
			}
			if public := slices.Contains(publicOperations, op.OperationID); public != (op.Role == "") || public != (len(op.Security) == 0) {
				t.Errorf("%s: role %q, security %v", op.OperationID, op.Role, op.Security)
			}
		}
	}
	return c
}

var publicOperations = []string{"login", "refresh", "callHook"}

// call does an operation; args are the values of its path's parameters, then of a query. The answer has the status, and is what the document says of it.
func (c *contract) call(t *testing.T, id string, status int, token string, body any, args ...string) *response {
	t.Helper()
	return c.with(t, id, status, token, body, nil, args...)
}

func (c *contract) with(t *testing.T, id string, status int, token string, body any, header []string, args ...string) *response {
	t.Helper()
	op := c.operations[id]
	if op == nil {
		t.Fatalf("the document has no operation %s", id)
	}
	at := op.path
	for strings.Contains(at, "{") {
		before, rest, _ := strings.Cut(at, "{")
		_, after, _ := strings.Cut(rest, "}")
		at, args = before+args[0]+after, args[1:]
	}
	if n := len(args); n > 0 && strings.HasPrefix(args[n-1], "?") {
		at += args[n-1]
	}
	r := c.do(t, op.method, at, token, body, header...).want(t, status)
	c.conforms(t, op, r)
	return r
}

// conforms compares an answer with the schema that the document has for it.
func (c *contract) conforms(t *testing.T, op *operation, r *response) {
	t.Helper()
	key := strconv.Itoa(r.status)
	doc, ok := op.Responses[key]
	if !ok && r.status >= 400 {
		key = "default"
		doc, ok = op.Responses[key]
	}
	if !ok {
		t.Errorf("%s answers %d, which isn't documented", op.OperationID, r.status)
		return
	}
	media, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
	if len(doc.Content) == 0 {
		if len(r.body) > 0 {
			t.Errorf("%s: a body where none is documented: %s", op.OperationID, r.body)
		}
		return
	}
	if _, ok := doc.Content[media]; !ok {
		t.Errorf("%s: %d is %q, documented is %v", op.OperationID, r.status, media, slices.Collect(maps.Keys(doc.Content)))
		return
	}
	esc := strings.NewReplacer("~", "~0", "/", "~1")
	pointer := "/paths/" + esc.Replace(op.path) + "/" + strings.ToLower(op.method) + "/responses/" + key + "/content/" + esc.Replace(media) + "/schema"
	schema := c.schemas[pointer]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile("https://test/openapi.json#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)); err != nil {
			t.Fatalf("%s: %v", pointer, err)
		}
		c.schemas[pointer] = schema
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.body))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		t.Errorf("%s: the answer isn't what is documented: %v: %s", op.OperationID, err, r.body)
	}
}

// unknown are path parameters that name nothing.
func (op *operation) unknown() []string {
	var out []string
	for _, p := range op.Parameters {
		switch {
		case p.In != "path":
		case p.Name == "version":
			out = append(out, "7")
		case p.Name == "sha256":
			out = append(out, strings.Repeat("0", 64))
		default:
			out = append(out, unknownID)
		}
	}
	return out
}

// TestEveryRouteRefuses walks the document: every operation answers every error that is possible for all of its kind.
func TestEveryRouteRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	c := readContract(t, b)
	var viewer struct{ Token string }
	c.call(t, "createToken", 201, b.admin, `{"name": "viewer", "role": "viewer"}`).into(t, &viewer)
	for id, op := range c.operations {
		known := op.unknown()
		if id == "callHook" {
			c.call(t, id, 404, "", "{}", "nothing")
			continue // TestHookRefusals has its errors
		}
		token := b.admin
		var body any
		if op.RequestBody != nil {
			if len(op.RequestBody.Content) != 1 || op.RequestBody.Content["application/json"] == nil {
				t.Errorf("%s takes %v", id, op.RequestBody.Content)
			}
			body = "{}"
		}
		if op.Role == "" {
			token = ""
		} else {
			for _, wrong := range []string{"", "fp_wrong", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."} { // the last: alg none
				if r := c.call(t, id, 401, wrong, body, known...); r.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: 401 without WWW-Authenticate", id)
				}
			}
			if op.Role != "viewer" {
				c.call(t, id, 403, viewer.Token, body, known...)
			}
		}
		if op.RequestBody != nil {
			for _, broken := range []string{`{"a": `, `nonsense`, "\xff"} {
				c.call(t, id, 400, token, broken, known...)
			}
			c.with(t, id, 415, token, "a=1", []string{"Content-Type", "application/x-www-form-urlencoded"}, known...)
			if op.MaxBody == 0 {
				t.Errorf("%s doesn't say how large its body may be", id)
			}
			c.call(t, id, 413, token, strings.Repeat(" ", op.MaxBody+1), known...)
		}
		if strings.Contains(op.path, "{") && id != "signal" && id != "pollRemote" { // their paths name no thing that must be there
			good, ok := map[string]string{"saveFlow": fmt.Sprintf(simpleFlow, "nobody"), "startBatch": `{"inputs": [1]}`, "saveCredential": `{"name": "nobody"}`, "editDeadLetter": `{"body": 1}`, "pauseExecution": `{"reason": "x"}`, "pauseFlow": `{"reason": "x"}`, "setPause": `{"reason": "x"}`, "decideApproval": `{"decision": "approve"}`,
				"beatRemote": `{"lease": 1}`, "completeRemote": `{"lease": 1}`, "failRemote": `{"lease": 1, "error": {"code": "x", "message": "m"}}`,
				"saveSchedule": `{"name": "x", "flowId": "x", "cron": "@daily"}`, "backfillSchedule": `{"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}`}[id]
			if ok {
				body = good
			}
			c.call(t, id, 404, token, body, known...)
			c.call(t, id, 404, token, body, append([]string{"no-such-thing"}, known[1:]...)...)
			if ok {
				body = "{}"
			}
		}
		if op.RequestBody != nil && id != "startExecution" && id != "replayExecution" && id != "updateUser" && id != "validateFlow" && id != "signal" && id != "signalExecution" {
			if len(c.call(t, id, 422, token, body, known...).pointers(t)) == 0 {
				t.Errorf("%s: 422 without a pointer", id)
			}
		}
		for _, p := range op.Parameters {
			if p.In == "query" && p.Name == "limit" {
				for _, wrong := range []string{"0", "501", "x"} {
					if got := c.call(t, id, 422, token, body, append(op.unknown(), "?limit="+wrong)...).pointers(t); !slices.Equal(got, []string{"query.limit"}) {
						t.Errorf("%s?limit=%s: %v", id, wrong, got)
					}
				}
				if !strings.Contains(op.path, "{") {
					c.call(t, id, 422, token, body, "?cursor=nonsense")
				}
			}
		}
	}
}

// TestEveryRouteIsLimited: no operation is free of the limit of requests.
func TestEveryRouteIsLimited(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	c := readContract(t, b)
	o := b.o
	b.o.APIRateLimit = 1
	b.start(t)
	b.o = o
	b.do(t, "GET", "/auth/me", b.admin, nil).want(t, 200)
	b.do(t, "POST", "/auth/refresh", "", "{}").want(t, 422)
	for id, op := range c.operations {
		token := b.admin
		if op.Role == "" {
			token = ""
		}
		if r := c.call(t, id, 429, token, nil, op.unknown()...); r.header.Get("Retry-After") == "" || r.header.Get("RateLimit-Limit") != "1" {
			t.Errorf("%s: %v", id, r.header)
		}
	}
}

// TestEveryRouteWorks does every operation once with success; an operation that isn't here fails the test.
func TestEveryRouteWorks(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	c := readContract(t, b)
	left := maps.Clone(c.operations)
	ok := func(id string, status int, body any, args ...string) *response {
		t.Helper()
		delete(left, id)
		return c.call(t, id, status, b.admin, body, args...)
	}
	var f, x, u, k struct{ ID string }
	ok("validateFlow", 200, `{"name": "x"}`)
	tag := ok("createFlow", 201, fmt.Sprintf(simpleFlow, "orders")).into(t, &f).header.Get("ETag")
	ok("saveFlow", 200, fmt.Sprintf(simpleFlow, "orders"), f.ID, "?draft=true")
	if tag == ok("getFlow", 200, nil, f.ID).header.Get("ETag") {
		t.Error("the ETag is still the same")
	}
	for id, body := range map[string]any{"saveFlow": fmt.Sprintf(simpleFlow, "orders"), "publishVersion": nil, "deleteFlow": nil} {
		c.with(t, id, 412, b.admin, body, []string{"If-Match", tag}, f.ID, "2")
	}
	c.call(t, "createFlow", 409, b.admin, fmt.Sprintf(simpleFlow, "orders"))
	ok("publishVersion", 200, nil, f.ID, "2")
	ok("listFlows", 200, nil, "?q=ord&label=team%3Dsales")
	ok("listVersions", 200, nil, f.ID)
	ok("getVersion", 200, nil, f.ID, "1")

	ok("startExecution", 202, `{"input": {"n": 1}}`, f.ID).into(t, &x)
	ok("startBatch", 202, `{"inputs": [{"n": 1}, {"n": 2}]}`, f.ID)
	ok("whyExecution", 200, nil, x.ID)
	ok("flowWaits", 200, nil, f.ID)
	b.finish(t, x.ID, []flow.Event{{Type: flow.EventSucceeded, Node: "set", Try: 1, Output: map[string]any{"n": 1}, At: time.Now(), Pure: true}})
	c.with(t, "startExecution", 202, b.admin, `{"input": {"n": 3}}`, []string{"Idempotency-Key", "k"}, f.ID, "?wait=1ms")
	ok("getExecution", 200, nil, x.ID)
	ok("listExecutions", 200, nil, "?flowId=orders&status=succeeded&label=team%3Dsales&q=manual")
	ok("getSteps", 200, nil, x.ID)
	ok("getWaits", 200, nil, x.ID)
	ok("getCatches", 200, nil, x.ID)
	ok("getLogs", 200, nil, x.ID)
	var large struct{ ID string }
	c.call(t, "createFlow", 201, b.admin, fmt.Sprintf(anyFlow, "any")).into(t, &large)
	text := strings.Repeat("x", 300<<10)
	c.call(t, "startExecution", 202, b.admin, `{"input": "`+text+`"}`, large.ID).into(t, &large)
	ok("getValue", 200, nil, large.ID, payload.Ref([]byte(`"`+text+`"`)))
	c.call(t, "cancelExecution", 409, b.admin, nil, x.ID)
	c.call(t, "startExecution", 202, b.admin, `{"input": {"n": 1}}`, f.ID).into(t, &x)
	ok("cancelExecution", 200, nil, x.ID)
	c.call(t, "whyExecution", 200, b.admin, nil, x.ID)
	c.call(t, "getExecution", 200, b.admin, nil, x.ID)
	b.steer(t, c, ok, f.ID, x.ID)

	c.call(t, "startExecution", 202, b.admin, `{"input": {"n": 1}}`, f.ID).into(t, &x)
	b.suspend(t, x.ID, approvalWait("set", "", protocol.Approval{Title: "Go on?"}))
	ok("listApprovals", 200, nil)
	ok("decideApproval", 200, `{"decision": "approve"}`, x.ID, "set")
	ok("signalExecution", 200, `{"data": 1}`, x.ID, "paid")
	ok("signal", 200, `{"key": "k"}`, "paid")
	c.call(t, "startExecution", 202, b.admin, `{"input": {"n": 1}}`, f.ID).into(t, &x)
	b.remoteRoutes(t, ok, x.ID)

	b.hooked(t, "hooked", "h", "")
	delete(left, "callHook")
	c.call(t, "callHook", 202, "", "{}", "h")
	b.scheduled(t, c, ok, f.ID)
	ok("listNodeTypes", 200, nil)
	ok("getNodeType", 200, nil, "http.request")
	ok("getFlowSchema", 200, nil)
	ok("getSummary", 200, nil, "?window=1m")

	ok("listCredentialTypes", 200, nil)
	ok("createCredential", 201, `{"name": "shop", "type": "http.bearer", "secret": {"token": "hushed"}}`).into(t, &k)
	ok("listCredentials", 200, nil)
	tag = ok("getCredential", 200, nil, k.ID).header.Get("ETag")
	ok("saveCredential", 200, `{"name": "Shop"}`, k.ID)
	c.with(t, "saveCredential", 412, b.admin, `{"name": "shop"}`, []string{"If-Match", tag}, k.ID)
	ok("testCredential", 200, nil, k.ID)
	ok("resealCredentials", 200, nil)
	ok("deleteCredential", 204, nil, k.ID)

	ok("createUser", 201, `{"email": "ada@example.org", "role": "editor"}`).into(t, &u)
	ok("listUsers", 200, nil)
	ok("updateUser", 200, `{"role": "viewer", "password": "0123456789"}`, u.ID)
	c.call(t, "createUser", 409, b.admin, `{"email": "ada@example.org", "role": "editor"}`)
	ok("createToken", 201, `{"name": "ci"}`).into(t, &k)
	ok("listTokens", 200, nil)
	ok("deleteToken", 204, nil, k.ID)
	ok("me", 200, nil)
	c.call(t, "logout", 409, b.admin, nil)
	var login struct{ AccessToken, RefreshToken string }
	ok("login", 200, map[string]string{"email": "ada@example.org", "password": "0123456789"}).into(t, &login)
	c.call(t, "login", 401, "", map[string]string{"email": "ada@example.org", "password": "wrong password"})
	ok("refresh", 200, map[string]string{"refreshToken": login.RefreshToken})
	c.call(t, "refresh", 401, "", map[string]string{"refreshToken": "nonsense"})
	delete(left, "logout")
	c.call(t, "logout", 204, login.AccessToken, nil)
	ok("deleteUser", 204, nil, u.ID)
	ok("listAudit", 200, nil, "?limit=3")
	ok("deleteFlow", 204, nil, f.ID)
	operationsWork(t, b, ok)
	for id := range left {
		t.Errorf("%s isn't called by this test: add it", id)
	}
}

// TestPagesAreStable inserts while it pages: nothing comes twice and nothing that was there is missed.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "pages")
	for range 25 {
		b.run(t, id, `{"input":{"n":1}}`)
	}
	for n := range 6 {
		b.flow(t, fmt.Sprintf("more %d", n))
	}
	name := "another "
	for _, path := range []string{"/executions?flowId=pages&q=manual&label=team%3Dsales&limit=4", "/flows?q=more&limit=2"} {
		total := 25
		if strings.HasPrefix(path, "/flows") {
			total, name = 6, "more, later "
		}
		seen := map[string]bool{}
		for cursor := ""; ; {
			var page struct {
				Items      []struct{ ID string }
				NextCursor string
			}
			b.do(t, "GET", path+"&cursor="+cursor, b.admin, nil).want(t, 200).into(t, &page)
			for _, item := range page.Items {
				if seen[item.ID] {
					t.Errorf("%s: %s came twice", path, item.ID)
				}
				seen[item.ID] = true
			}
			if cursor = page.NextCursor; cursor == "" {
				break
			}
			b.run(t, id, `{"input":{"n":2}}`)
			b.flow(t, name+cursor)
		}
		if len(seen) != total {
			t.Errorf("%s: %d of %d", path, len(seen), total)
		}
	}
}

// TestOrigins: scripts of the origins that are named may call the API, others not; every answer has the headers that keep a browser out of trouble.
func TestOrigins(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true, change: func(o *Options) { o.WSCORSOrigins = "https://flows.example, http://localhost:5173" }})
	for origin, allowed := range map[string]string{"https://flows.example": "https://flows.example", "https://flows.example.org": "", "null": "", "": ""} {
		r := b.do(t, "GET", "/auth/me", b.admin, nil, "Origin", origin).want(t, 200)
		if got := r.header.Get("Access-Control-Allow-Origin"); got != allowed || r.header.Get("Access-Control-Allow-Credentials") != "" || r.header.Get("Vary") != "Origin" {
			t.Errorf("%s: %v", origin, r.header)
		}
		if r.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(r.header.Get("Content-Security-Policy"), "default-src 'none'") || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%v", r.header)
		}
	}
	r := b.do(t, "OPTIONS", "/flows", "", nil, "Origin", "http://localhost:5173", "Access-Control-Request-Method", "PUT").want(t, 204)
	if !strings.Contains(r.header.Get("Access-Control-Allow-Methods"), "PUT") || !strings.Contains(r.header.Get("Access-Control-Allow-Headers"), "If-Match") {
		t.Errorf("%v", r.header)
	}
	b.do(t, "OPTIONS", "/flows", "", nil, "Origin", "https://evil.example", "Access-Control-Request-Method", "PUT").want(t, 405)
	for _, wrong := range []string{"flows.example", "https://flows.example/", "ftp://flows.example"} {
		if _, err := (&Options{WSCORSOrigins: wrong}).origins(); err == nil {
			t.Errorf("%s is taken", wrong)
		}
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
	b.do(t, "POST", "/internal/v1/bootstrap", internalToken, `{"token": "fp_short"}`).want(t, 400)
	b.do(t, "POST", "/internal/v1/bootstrap", internalToken, `{"password": "short"}`).want(t, 400)
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

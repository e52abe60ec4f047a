package app

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/testkit"
)

const hushed = "correct-horse-battery-staple"

type credentialView struct {
	ID, Name, Type, KeyID string
	Public                map[string]any
	Secret                []string
	Revision              int
}

func (b *bundle) credential(t *testing.T, name, typ string, public, secret map[string]any) credentialView {
	t.Helper()
	var c credentialView
	r := b.do(t, "POST", "/credentials", b.admin, map[string]any{"name": name, "type": typ, "public": public, "secret": secret}).want(t, 201).into(t, &c)
	if strings.Contains(string(r.body), hushed) {
		t.Fatalf("the secret came back: %s", r.body)
	}
	return c
}

func (b *bundle) open(t *testing.T, idOrName string, status int) credential.Opened {
	t.Helper()
	var o credential.Opened
	r := b.do(t, "POST", "/internal/v1/credentials/"+url.PathEscape(idOrName)+"/open", workersToken, nil).want(t, status)
	if status == 200 {
		r.into(t, &o)
	}
	return o
}

func (b *bundle) token(t *testing.T, role string) string {
	t.Helper()
	var k struct{ Token string }
	b.do(t, "POST", "/tokens", b.admin, map[string]any{"name": role, "role": role}).want(t, 201).into(t, &k)
	return k.Token
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	shop := map[string]any{"host": "db.example.com", "port": 5433, "database": "shop", "user": "reader"}
	c := b.credential(t, "Shop DB", "postgres", shop, map[string]any{"password": hushed})
	if c.Public["port"] != 5433.0 || !slices.Equal(c.Secret, []string{"password"}) || c.KeyID == "" || c.Revision != 1 {
		t.Errorf("%+v", c)
	}
	if p := b.do(t, "POST", "/credentials", b.admin, map[string]any{"name": "Shop DB", "type": "http.bearer", "secret": map[string]any{"token": hushed}}).want(t, 409).pointers(t); !slices.Equal(p, []string{"/name"}) {
		t.Errorf("%v", p)
	}
	r := b.do(t, "POST", "/credentials", b.admin, map[string]any{"name": "a/b", "type": "postgres", "public": map[string]any{"password": hushed, "port": 0, "host": "h", "database": "d", "user": "u"}, "secret": map[string]any{"token": hushed}}).want(t, 422)
	if p := r.pointers(t); !slices.Equal(p, []string{"/name", "/public/port", "/secret/password", "/public/password", "/secret/token"}) || strings.Contains(string(r.body), hushed) {
		t.Errorf("%v %s", p, r.body)
	}
	b.do(t, "POST", "/credentials", b.admin, map[string]any{"name": "x", "type": "telnet"}).want(t, 422)
	b.do(t, "POST", "/credentials", b.admin, `{"name": "x", "type": "http.bearer", "secret": {"token": "`+strings.Repeat("x", 200<<10)+`"}}`).want(t, 413)

	o := b.open(t, c.ID, 200)
	if by := b.open(t, "Shop DB", 200); by.ID != o.ID || o.Name != "Shop DB" || o.Type != "postgres" || o.Public["port"] != "5433" || o.Secret["password"] != hushed || len(o.Public) != 4 {
		t.Errorf("%+v %+v", o.Public, by.ID)
	}
	b.open(t, "nobody", 404)
	b.open(t, unknownID, 404)
	for _, token := range []string{b.admin, "", internalToken, workersToken + "x"} { // an orchestrator's is none of them
		b.do(t, "POST", "/internal/v1/credentials/"+c.ID+"/open", token, nil).want(t, 401)
	}

	// A name or a user alone changes, and the secret stays; where it goes changes with the secret only.
	r = b.do(t, "GET", "/credentials/Shop%20DB", b.admin, nil).want(t, 200)
	tag := r.header.Get("ETag")
	shop["user"] = "writer"
	b.do(t, "PUT", "/credentials/"+c.ID, b.admin, map[string]any{"name": "Shop", "public": shop}, "If-Match", tag).want(t, 200).into(t, &c)
	if o = b.open(t, "Shop", 200); c.Revision != 2 || o.Public["user"] != "writer" || o.Secret["password"] != hushed {
		t.Errorf("%+v %v", c, o.Public)
	}
	b.open(t, "Shop DB", 404)
	b.do(t, "PUT", "/credentials/"+c.ID, b.admin, map[string]any{"name": "Shop", "public": shop}, "If-Match", tag).want(t, 412)
	shop["host"] = "evil.example"
	if p := b.do(t, "PUT", "/credentials/"+c.ID, b.admin, map[string]any{"name": "Shop", "public": shop}).want(t, 422).pointers(t); !slices.Equal(p, []string{"/public/host"}) {
		t.Errorf("%v", p)
	}
	if p := b.do(t, "PUT", "/credentials/"+c.ID, b.admin, map[string]any{"name": "Shop", "type": "redis", "public": shop}).want(t, 422).pointers(t); !slices.Equal(p, []string{"/type"}) {
		t.Errorf("%v", p)
	}
	b.do(t, "PUT", "/credentials/"+c.ID, b.admin, map[string]any{"name": "Shop", "public": shop, "secret": map[string]any{"password": "another-secret"}}).want(t, 200)
	if o = b.open(t, "Shop", 200); o.Public["host"] != "evil.example" || o.Secret["password"] != "another-secret" {
		t.Errorf("%v", o.Public)
	}

	for i := range 3 {
		b.credential(t, fmt.Sprintf("key %d", i), "http.header", map[string]any{"name": "X-API-Key"}, map[string]any{"value": hushed})
	}
	var seen []string
	for cursor := ""; ; {
		var page struct {
			Items      []credentialView
			NextCursor string
		}
		r := b.do(t, "GET", "/credentials?limit=2&type=http.header,http.basic&cursor="+cursor, b.admin, nil).want(t, 200).into(t, &page)
		if strings.Contains(string(r.body), hushed) {
			t.Errorf("%s", r.body)
		}
		for _, c := range page.Items {
			seen = append(seen, c.Name)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if !slices.Equal(seen, []string{"key 2", "key 1", "key 0"}) {
		t.Errorf("%v", seen)
	}
	b.do(t, "DELETE", "/credentials/"+c.ID, b.admin, nil, "If-Match", tag).want(t, 412)
	b.do(t, "DELETE", "/credentials/"+c.ID, b.admin, nil).want(t, 204)
	b.open(t, c.ID, 404)
	out, err := b.postgres.Exec(b.database, `SELECT string_agg(action, ' ' ORDER BY id) FROM audit WHERE object = 'credential' AND object_id = '`+c.ID+`'`)
	if err != nil || strings.TrimSpace(out) != "create save save delete" {
		t.Errorf("audit: %s %v", out, err)
	}
	b.noSecret(t, hushed, "another-secret")
}

// noSecret searches all rows of all tables, in the plain and as bytes.
func (b *bundle) noSecret(t *testing.T, secrets ...string) {
	t.Helper()
	dump, err := b.postgres.Dump(b.database)
	if err != nil || !strings.Contains(dump, "credential") {
		t.Fatalf("no dump: %v %.200s", err, dump)
	}
	for _, s := range secrets {
		for form, text := range testkit.FormsOf(s) {
			if strings.Contains(dump, text) {
				t.Errorf("the database holds a secret, %s", form)
			}
		}
	}
}

func TestCredentialRoles(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	c := b.credential(t, "c", "http.bearer", nil, map[string]any{"token": hushed})
	body := map[string]any{"name": "c"}
	for _, k := range []struct {
		role, method, path string
		body               any
		want               int
	}{
		{"viewer", "GET", "/catalog/credentials", nil, 200}, {"viewer", "GET", "/credentials", nil, 403}, {"viewer", "GET", "/credentials/c", nil, 403},
		{"editor", "GET", "/credentials", nil, 200}, {"editor", "GET", "/credentials/c", nil, 200}, {"editor", "POST", "/credentials/c/test", nil, 200},
		{"editor", "POST", "/credentials", body, 403}, {"operator", "PUT", "/credentials/c", body, 403}, {"operator", "DELETE", "/credentials/c", nil, 403}, {"operator", "POST", "/credentials/reseal", nil, 403},
		{"admin", "PUT", "/credentials/" + c.ID, body, 200}, {"admin", "POST", "/credentials/reseal", nil, 200}, {"admin", "DELETE", "/credentials/c", nil, 204},
	} {
		b.do(t, k.method, k.path, b.token(t, k.role), k.body).want(t, k.want)
	}
	var types struct {
		Items []struct {
			Type           string
			Public, Secret json.RawMessage
		}
	}
	b.do(t, "GET", "/catalog/credentials", b.admin, nil).want(t, 200).into(t, &types)
	if len(types.Items) != len(credential.Types()) || !strings.Contains(string(types.Items[0].Secret), "writeOnly") {
		t.Errorf("%+v", types)
	}
}

func TestCredentialKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	c := b.credential(t, "c", "http.bearer", map[string]any{"hosts": "api.example.com"}, map[string]any{"token": hushed})
	another := func(key string) *bundle { // a gateway beside it, with other keys
		n := *b
		n.o.CredentialsKey = key
		n.start(t)
		return &n
	}
	none := another("")
	none.open(t, "c", 503)
	r := none.do(t, "POST", "/credentials", b.admin, map[string]any{"name": "d", "type": "http.bearer", "secret": map[string]any{"token": hushed}}).want(t, 503)
	if !strings.Contains(string(r.body), "CREDENTIALS_KEY") {
		t.Errorf("%s", r.body)
	}
	const newer = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
	wrong := another(newer)
	r = wrong.do(t, "POST", "/internal/v1/credentials/c/open", workersToken, nil).want(t, 503)
	if !strings.Contains(string(r.body), c.KeyID) {
		t.Errorf("it doesn't name the key: %s", r.body)
	}
	both := another(newer + "," + credentialsKey)
	if o := both.open(t, "c", 200); o.Secret["token"] != hushed {
		t.Error("the old key doesn't open")
	}
	var done struct {
		Done, Fine int
		Failed     []string
	}
	both.do(t, "POST", "/credentials/reseal", b.admin, nil).want(t, 200).into(t, &done)
	if done.Done != 1 || len(done.Failed) != 0 {
		t.Errorf("%+v", done)
	}
	if o := wrong.open(t, "c", 200); o.Secret["token"] != hushed || o.Public["hosts"] != "api.example.com" { // which has the new key only
		t.Error("it isn't encrypted with the new key")
	}
	both.do(t, "POST", "/credentials/reseal", b.admin, nil).want(t, 200).into(t, &done)
	if done.Done != 0 || done.Fine != 1 {
		t.Errorf("%+v", done)
	}
	// Somebody who can write to the database sends the secret elsewhere: it doesn't open.
	if _, err := b.postgres.Exec(b.database, `UPDATE credentials SET public = '{"hosts":"evil.example"}'`); err != nil {
		t.Fatal(err)
	}
	both.open(t, "c", 409)
	bad := b.o
	bad.CredentialsKey = "hunter2"
	if _, err := New(bad, b.log); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "CREDENTIALS_KEY") {
		t.Errorf("%v", err)
	}
}

func TestCredentialTrials(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{})
	part := func(raw string) (host string, port int) {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Sscan(u.Port(), &port)
		return u.Hostname(), port
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	pgHost, pgPort := part(b.o.DatabaseURL)
	rabbitHost, rabbitPort := part(b.o.RabbitMQURL)
	redisHost, redisPort := part(b.o.RedisURL)
	password := map[string]any{"password": hushed}
	for _, c := range []struct {
		name, typ      string
		public, secret map[string]any
		outcome, says  string
	}{
		{"pg", "postgres", map[string]any{"host": pgHost, "port": pgPort, "database": b.database, "user": "flow_gateway", "sslmode": "disable"}, password, "works", "logged in"},
		{"pg url", "postgres", map[string]any{"url": fmt.Sprintf("postgres://flow_gateway@%s:%d/%s?sslmode=prefer", pgHost, pgPort, b.database)}, password, "works", "logged in"},
		{"pg refused", "postgres", map[string]any{"host": pgHost, "port": pgPort, "database": "nosuch", "user": "flow_gateway"}, password, "fails", "nosuch"},
		{"pg nobody", "postgres", map[string]any{"host": "127.0.0.1", "port": 1, "database": "d", "user": "u"}, password, "fails", "refused"},
		{"pg metadata", "postgres", map[string]any{"host": "169.254.169.254", "database": "d", "user": "u"}, password, "fails", "metadata"},
		{"redis", "redis", map[string]any{"host": redisHost, "port": redisPort}, map[string]any{}, "works", "logged in"},
		{"redis refused", "redis", map[string]any{"host": redisHost, "port": redisPort, "user": "ann"}, password, "fails", ""},
		{"redis metadata", "redis", map[string]any{"host": "169.254.169.254"}, map[string]any{}, "fails", "metadata"},
		{"redis without TLS", "redis", map[string]any{"host": redisHost, "port": redisPort, "tls": true}, map[string]any{}, "fails", ""},
		{"amqp", "amqp", map[string]any{"host": rabbitHost, "port": rabbitPort, "vhost": b.vhost, "user": "guest"}, map[string]any{"password": "guest"}, "works", "logged in"},
		{"amqp refused", "amqp", map[string]any{"host": rabbitHost, "port": rabbitPort, "user": "guest"}, password, "fails", "refuse"},
		{"amqp metadata", "amqp", map[string]any{"host": "169.254.169.254", "user": "u"}, password, "fails", "metadata"},
		{"name", "amqp", map[string]any{"host": "nowhere.invalid", "user": "u"}, password, "fails", "can't be found"},
		{"bearer", "http.bearer", nil, map[string]any{"token": hushed}, "untested", "flow"},
	} {
		b.credential(t, c.name, c.typ, c.public, c.secret)
		var got struct{ Outcome, Message string }
		r := b.do(t, "POST", "/credentials/"+url.PathEscape(c.name)+"/test", b.admin, nil).want(t, 200).into(t, &got)
		if got.Outcome != c.outcome || !strings.Contains(got.Message, c.says) || strings.Contains(string(r.body), hushed) {
			t.Errorf("%s: %s", c.name, r.body)
		}
	}
	b.noSecret(t, hushed)
}

func TestFlowsNameCredentials(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	const doc = `{"name": "f", "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "call", "type": "http.request", "config": {"url": "https://api.example.com", "credential": %q}}], "edges": [{"from": "start", "to": "call"}]}`
	c := b.credential(t, "api", "http.bearer", nil, map[string]any{"token": hushed})
	b.credential(t, "db", "redis", map[string]any{"host": "h"}, map[string]any{})
	for name, code := range map[string]string{"apo": "unknown-credential", "db": "credential-type", "{{ input.credential }}": "constant"} {
		r := b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(doc, name)).want(t, 422)
		if p := r.pointers(t); !slices.Equal(p, []string{"/nodes/1/config/credential"}) || !strings.Contains(string(r.body), `"`+code+`"`) {
			t.Errorf("%s: %v %s", name, p, r.body)
		}
		b.do(t, "POST", "/flows/validate", b.admin, fmt.Sprintf(doc, name)).want(t, 200)
	}
	b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(doc, "api")).want(t, 201)
	b.do(t, "PUT", "/flows/f", b.admin, fmt.Sprintf(doc, c.ID)).want(t, 200)
}

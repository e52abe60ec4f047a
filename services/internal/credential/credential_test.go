package credential

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// good is a credential of each type, as the forms give it.
var good = map[string][2]Values{
	AMQP:       {{"host": "mq.example.com", "port": 5672.0, "vhost": "shop", "user": "publisher", "tls": true}, {"password": "hunter2hunter2"}},
	HTTPBasic:  {{"user": "reader"}, {"password": "hunter2hunter2"}},
	HTTPBearer: {{"hosts": "api.example.com"}, {"token": "abc.def"}},
	HTTPHeader: {{"name": "X-API-Key"}, {"value": "abc"}},
	Postgres:   {{"host": "db.example.com", "database": "shop", "user": "reader", "sslmode": "verify-full"}, {"password": "hunter2hunter2"}},
	Redis:      {{"host": "::1", "database": 3.0}, {}},
}

func TestEveryTypeHasAGoodOneAndItsSchemaAgrees(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, typ := range Types() {
		g, ok := good[typ.Name]
		if !ok || names[typ.Name] {
			t.Fatalf("%s: no good one in this test, or twice in the table", typ.Name)
		}
		names[typ.Name] = true
		if p := typ.Check(g[0], g[1], nil); len(p) > 0 {
			t.Errorf("%s: %v", typ.Name, p)
		}
		for i, part := range []string{"public", "secret"} {
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(typ.Schema(i == 1)))
			if err != nil {
				t.Fatal(err)
			}
			c := jsonschema.NewCompiler()
			if err := c.AddResource("s.json", doc); err != nil {
				t.Fatal(err)
			}
			s, err := c.Compile("s.json")
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(map[string]any(g[i])); err != nil {
				t.Errorf("%s: its schema refuses what Check takes: %v", typ.Name, err)
			}
			for _, f := range typ.Fields { // each field of the wrong type is refused by both
				if f.Secret != (i == 1) {
					continue
				}
				bad := Values{f.Name: []any{}}
				if s.Validate(map[string]any(bad)) == nil {
					t.Errorf("%s %s.%s: the schema takes a list", typ.Name, part, f.Name)
				}
				pub, sec := g[0], bad
				if i == 0 {
					pub, sec = bad, g[1]
				}
				if p := typ.Check(pub, sec, nil); !slices.ContainsFunc(p, func(p Problem) bool { return p.Pointer == "/"+part+"/"+f.Name }) {
					t.Errorf("%s %s.%s: Check takes a list: %v", typ.Name, part, f.Name, p)
				}
			}
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	pg := Values{"password": "hunter2hunter2"}
	for _, c := range []struct {
		name, typ      string
		public, secret Values
		want           string // pointer of the only problem
	}{
		{"no secret", HTTPBearer, nil, Values{}, "/secret/token"},
		{"empty secret", HTTPBearer, nil, Values{"token": ""}, "/secret/token"},
		{"secret in public", HTTPBearer, Values{"token": "x"}, Values{"token": "x"}, "/public/token"},
		{"unknown", HTTPBearer, Values{"a/b": "x"}, Values{"token": "x"}, "/public/a~1b"},
		{"line break", HTTPBearer, nil, Values{"token": "x\r\nX-Evil: 1"}, "/secret/token"},
		{"too long", HTTPBearer, nil, Values{"token": strings.Repeat("x", 9<<10)}, "/secret/token"},
		{"colon in a user", HTTPBasic, Values{"user": "a:b"}, pg, "/public/user"},
		{"header Host", HTTPHeader, Values{"name": "Host"}, Values{"value": "x"}, "/public/name"},
		{"header with a space", HTTPHeader, Values{"name": "X Key"}, Values{"value": "x"}, "/public/name"},
		{"hosts", HTTPBearer, Values{"hosts": "https://a.example"}, Values{"token": "x"}, "/public/hosts"},
		{"port", Redis, Values{"host": "a", "port": 70000.0}, nil, "/public/port"},
		{"half a port", Redis, Values{"host": "a", "port": 1.5}, nil, "/public/port"},
		{"a socket", Redis, Values{"host": "/run/redis.sock"}, nil, "/public/host"},
		{"two hosts", Postgres, Values{"host": "a,b", "database": "d", "user": "u"}, pg, "/public/host"},
		{"password in the URL", Postgres, Values{"url": "postgres://u:p@h/d"}, pg, "/public/url"},
		{"password in the query", Postgres, Values{"url": "postgres://u@h/d?password=p"}, pg, "/public/url"},
		{"file in the query", Postgres, Values{"url": "postgres://u@h/d?sslkey=/etc/shadow"}, pg, "/public/url"},
		{"two hosts in the URL", Postgres, Values{"url": "postgres://u@h,i/d"}, pg, "/public/url"},
		{"URL and parts", Postgres, Values{"url": "postgres://u@h/d", "host": "i"}, pg, "/public/host"},
		{"sslmode", Postgres, Values{"host": "a", "database": "d", "user": "u", "sslmode": "no"}, pg, "/public/sslmode"},
	} {
		typ, _ := Find(c.typ)
		p := typ.Check(c.public, c.secret, nil)
		if len(p) != 1 || p[0].Pointer != c.want {
			t.Errorf("%s: %v, want one at %s", c.name, p, c.want)
		}
		for _, p := range p {
			if strings.Contains(p.Message, "hunter2") || strings.Contains(p.Message, "Evil") {
				t.Errorf("%s: a value is shown: %s", c.name, p.Message)
			}
		}
	}
	bearer, _ := Find(HTTPBearer)
	if p := bearer.Check(Values{"hosts": "a.example"}, nil, map[string]string{"token": "x"}); len(p) > 0 {
		t.Errorf("the secret was kept: %v", p)
	}
}

func TestMoved(t *testing.T) {
	t.Parallel()
	pg, _ := Find(Postgres)
	if m := pg.Moved(Values{"host": "a", "user": "u"}, Values{"host": "a", "user": "v"}); len(m) > 0 {
		t.Errorf("%v", m)
	}
	if m := pg.Moved(Values{"host": "a", "port": 1.0}, Values{"host": "b", "port": 2.0}); !slices.Equal(m, []string{"host", "port"}) {
		t.Errorf("%v", m)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{"shop": true, "Shop 2.0_a-b": true, "Überweisung": true, "": false, " a": false, "a ": false, "a/b": false, "{{ input.x }}": false, "a\n": false, "-a": false,
		strings.Repeat("a", 101): false, "0190a0a0-0000-7000-8000-000000000000": false} {
		if (CheckName(name) == "") != ok {
			t.Errorf("%q: %q", name, CheckName(name))
		}
	}
}

func TestHostAllowed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list, url string
		want      bool
	}{
		{"", "https://anything.example", true},
		{"a.example", "https://A.example/x", true}, {"a.example", "https://a.example.:8443", true}, {"a.example", "https://b.a.example", false}, {"a.example", "https://a.example.evil.test", false},
		{"*.a.example", "https://b.a.example", true}, {"*.a.example", "https://a.example", false}, {"*.a.example", "https://xa.example", false},
		{"a.example:443", "https://a.example", true}, {"a.example:443", "http://a.example", false}, {"x, 127.0.0.1:8080", "http://127.0.0.1:8080", true}, {"[::1]:80", "http://[::1]", true}, {"[::1]:80", "http://[::2]", false},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		if HostAllowed(c.list, u) != c.want {
			t.Errorf("%q to %s: %v", c.list, c.url, !c.want)
		}
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		PostgresURL(map[string]string{"host": "h", "database": "d", "user": "u", "password": "p/@"}):            "postgres://u:p%2F%40@h:5432/d?sslmode=prefer",
		PostgresURL(map[string]string{"url": "postgres://u@h/d?sslmode=require", "password": "p"}):              "postgres://u:p@h:5432/d?sslmode=require",
		AMQPURL(map[string]string{"host": "h", "user": "u", "password": "p"}):                                   "amqp://u:p@h:5672/%2F",
		AMQPURL(map[string]string{"host": "::1", "user": "u", "password": "p:", "tls": "true", "vhost": "a b"}): "amqps://u:p%3A@[::1]:5671/a%20b",
		RedisURL(map[string]string{"host": "h"}):                                                                "redis://h:6379/0",
		RedisURL(map[string]string{"host": "h", "port": "1", "password": "p", "tls": "true", "database": "2"}):  "rediss://:p@h:1/2",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestMasker(t *testing.T) {
	t.Parallel()
	secret := `s3cr"et/with spaces+more`
	m := NewMasker(&Opened{Public: map[string]string{"user": "ann"}, Secret: map[string]string{"password": secret}})
	quoted, _ := json.Marshal(secret)
	for _, form := range []string{secret, string(quoted), url.QueryEscape(secret), url.PathEscape(secret), (&url.URL{Scheme: "redis", Host: "h", User: url.UserPassword("ann", secret)}).String(),
		base64.StdEncoding.EncodeToString([]byte(secret)), "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+secret)), hex.EncodeToString([]byte(secret))} {
		if got := m.Error("it said " + form); !strings.Contains(got, Masked) || strings.Contains(got, "more") || len(got) > 60 {
			t.Errorf("%s: %s", form, got)
		}
	}
	out := m.Output(map[string]any{"n": 1, "list": []any{secret, "fine"}, secret: nil}).(map[string]any)
	if out["n"] != 1 || out["list"].([]any)[0] != Masked || out["list"].([]any)[1] != "fine" || len(out) != 3 {
		t.Errorf("%v", out)
	}
	short := NewMasker(&Opened{Secret: map[string]string{"password": "hunter22"}})
	if short.Output("hunter22") != "hunter22" || short.Error("hunter22") != Masked {
		t.Error("a short secret is masked in errors only")
	}
	if none := NewMasker(&Opened{Secret: map[string]string{"password": "abc"}}); none.Error("abc") != "abc" || none.Output("abc") != "abc" {
		t.Error("too short")
	}
}

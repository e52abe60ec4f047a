package credential

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// The types.
const (
	HTTPBasic  = "http.basic"
	HTTPBearer = "http.bearer"
	HTTPHeader = "http.header"
	Postgres   = "postgres"
	Redis      = "redis"
	AMQP       = "amqp"
)

// Types lists all types, by name.
func Types() []Type {
	hosts := Field{Name: "hosts", Title: "Hosts", Target: true, MaxLength: 4 << 10, Example: "api.example.com, *.shop.example",
		Description: "The only hosts that it is sent to, by comma: api.example.com, api.example.com:8443 or *.example.com. Empty: any host that a flow names"}
	host := Field{Name: "host", Title: "Host", Target: true, MaxLength: 253, Example: "db.example.com"}
	port := func(n int) Field {
		return Field{Name: "port", Title: "Port", Kind: Integer, Min: 1, Max: 65535, Default: n, Target: true}
	}
	user := func(required bool) Field {
		return Field{Name: "user", Title: "User", Required: required, MaxLength: 255}
	}
	password := Field{Name: "password", Title: "Password", Secret: true}
	tls := Field{Name: "tls", Title: "TLS", Kind: Boolean, Default: false, Target: true, Description: "Speak TLS, and check the server's certificate against the host's name"}
	needed := func(f Field) Field { f.Required = true; return f }
	return []Type{
		{Name: AMQP, Title: "RabbitMQ", Description: "A vhost of a RabbitMQ server (AMQP 0-9-1).", check: checkHost,
			Fields: []Field{needed(host), port(5672), {Name: "vhost", Title: "Virtual host", Default: "/", MaxLength: 255}, user(true), tls, needed(password)}},
		{Name: HTTPBasic, Title: "HTTP: user and password", Description: "Sent as Authorization: Basic.", check: checkBasic, Fields: []Field{user(true), hosts, needed(password)}},
		{Name: HTTPBearer, Title: "HTTP: bearer token", Description: "Sent as Authorization: Bearer.", check: checkHeaderValue("token"),
			Fields: []Field{hosts, {Name: "token", Title: "Token", Secret: true, Required: true, MaxLength: 8 << 10}}},
		{Name: HTTPHeader, Title: "HTTP: API key in a header", Description: "Sent in a header of your choice, for example X-API-Key.", check: checkHeaderValue("value"),
			Fields: []Field{{Name: "name", Title: "Header", Required: true, Target: true, MaxLength: 100, Example: "X-API-Key"}, hosts, {Name: "value", Title: "Value", Secret: true, Required: true, MaxLength: 8 << 10}}},
		{Name: Postgres, Title: "PostgreSQL", Description: "A database of a PostgreSQL server: its parts, or a URL without the password.", check: checkPostgres,
			Fields: []Field{
				{Name: "url", Title: "URL", Target: true, MaxLength: 2 << 10, Example: "postgres://reader@db.example.com:5432/shop?sslmode=verify-full", Description: "Instead of the parts below; never with the password in it"},
				host, port(5432), {Name: "database", Title: "Database", MaxLength: 63}, user(false),
				{Name: "sslmode", Title: "TLS", OneOf: []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}, Default: "prefer", Target: true}, needed(password)}},
		{Name: Redis, Title: "Redis", Description: "A Redis server (6 or later).", check: checkHost,
			Fields: []Field{needed(host), port(6379), {Name: "database", Title: "Database", Kind: Integer, Min: 0, Max: 1 << 20, Default: 0}, user(false), tls, password}},
	}
}

func checkHost(f map[string]string) []Problem {
	if why := badHost(f["host"]); why != "" {
		return []Problem{{"/public/host", "host", why}}
	}
	return nil
}

// badHost refuses what isn't a single host's name or address: paths of sockets, lists, ports.
func badHost(h string) string {
	if _, err := netip.ParseAddr(h); err == nil {
		return ""
	}
	for _, r := range h {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_", r) {
			return "it must be one host's name or address, without a port"
		}
	}
	return ""
}

func checkBasic(f map[string]string) []Problem {
	if strings.Contains(f["user"], ":") {
		return []Problem{{"/public/user", "user", "HTTP doesn't allow a colon in a user's name"}}
	}
	return checkHosts(f["hosts"])
}

// Headers that say something about the message: a credential in one of them would break the request.
var notForSecrets = []string{"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect", "accept-encoding", "idempotency-key", "x-flow-attempt"}

func checkHeaderValue(field string) func(map[string]string) []Problem {
	return func(f map[string]string) []Problem {
		var out []Problem
		if name, ok := f["name"]; ok && (!httpguts.ValidHeaderFieldName(name) || slices.Contains(notForSecrets, strings.ToLower(name))) {
			out = append(out, Problem{"/public/name", "header", "it must be the name of a header that may carry a secret, like X-API-Key"})
		}
		if v, ok := f[field]; ok && (!httpguts.ValidHeaderFieldValue(v) || strings.TrimSpace(v) != v) {
			out = append(out, Problem{"/secret/" + field, "header", "it can't be sent in a header: spaces around it, or characters that a header doesn't take"})
		}
		return append(out, checkHosts(f["hosts"])...)
	}
}

func checkHosts(list string) []Problem {
	for _, h := range splitHosts(list) {
		name, port, has := cutPort(strings.TrimPrefix(h, "*."))
		if name == "" || badHost(name) != "" || has && !validPort(port) {
			return []Problem{{"/public/hosts", "host", "it must be hosts by comma, like api.example.com, api.example.com:8443 or *.example.com"}}
		}
	}
	return nil
}

func validPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 1 && n <= 65535
}

func splitHosts(list string) []string {
	var out []string
	for h := range strings.SplitSeq(list, ",") {
		if h = strings.ToLower(strings.TrimSpace(h)); h != "" {
			out = append(out, h)
		}
	}
	return out
}

// cutPort cuts a port off; an IPv6 address stands in brackets then.
func cutPort(h string) (host, port string, has bool) {
	if host, port, err := net.SplitHostPort(h); err == nil {
		return host, port, true
	}
	return strings.Trim(h, "[]"), "", false
}

// HostAllowed tells whether a credential whose field hosts is the list may be sent to a URL's host. An entry without a port allows every port.
func HostAllowed(list string, u *url.URL) bool {
	allowed := splitHosts(list)
	if len(allowed) == 0 {
		return true
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	for _, h := range allowed {
		name, p, has := cutPort(h)
		if has && p != port {
			continue
		}
		if suffix, wild := strings.CutPrefix(name, "*"); name == host || wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix) {
			return true
		}
	}
	return false
}

// What a PostgreSQL URL may say beside the server: nothing that names a file or holds a secret.
var postgresParameters = []string{"sslmode", "application_name", "search_path", "connect_timeout", "statement_timeout", "target_session_attrs"}

func checkPostgres(f map[string]string) []Problem {
	raw := f["url"]
	if raw == "" {
		var out []Problem
		for _, name := range []string{"host", "database", "user"} {
			if f[name] == "" {
				out = append(out, Problem{"/public/" + name, "required", fmt.Sprintf("%q is needed, unless there is a url", name)})
			}
		}
		return append(out, checkHost(f)...)
	}
	bad := func(why string) []Problem { return []Problem{{"/public/url", "url", why}} }
	for _, name := range []string{"host", "port", "database", "user", "sslmode"} {
		if f[name] != "" {
			return []Problem{{"/public/" + name, "contradiction", "there is a url already: give that, or the parts"}}
		}
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Hostname() == "" || badHost(u.Hostname()) != "" || u.User.Username() == "" || strings.Trim(u.Path, "/") == "" || u.Fragment != "" {
		return bad("it must be like postgres://user@host:5432/database?sslmode=require, with one host")
	}
	if _, has := u.User.Password(); has {
		return bad("the password must not stand in the URL, which is shown: it belongs into secret.password")
	}
	if p := u.Port(); p != "" {
		if !validPort(p) {
			return bad("its port must be from 1 to 65535")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("what stands behind its ? can't be read")
	}
	for name := range query {
		if !slices.Contains(postgresParameters, name) {
			return bad("it may have these parameters only: " + strings.Join(postgresParameters, ", "))
		}
	}
	return nil
}

// PostgresURL makes the URL of an opened credential, with the password: it is as secret as that. Nothing in it comes from the environment of the process.
func PostgresURL(f map[string]string) string {
	if f["url"] != "" {
		u, err := url.Parse(f["url"])
		if err != nil {
			return ""
		}
		u.User = url.UserPassword(u.User.Username(), f["password"])
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "5432")
		}
		q := u.Query()
		if q.Get("sslmode") == "" {
			q.Set("sslmode", "prefer")
		}
		u.RawQuery = q.Encode()
		return u.String()
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(f["user"], f["password"]), Host: net.JoinHostPort(f["host"], or(f["port"], "5432")), Path: "/" + f["database"],
		RawQuery: url.Values{"sslmode": {or(f["sslmode"], "prefer")}}.Encode()}
	return u.String()
}

// AMQPURL makes the URL of an opened credential, with the password.
func AMQPURL(f map[string]string) string {
	scheme, port := "amqp", "5672"
	if f["tls"] == "true" {
		scheme, port = "amqps", "5671"
	}
	return scheme + "://" + url.UserPassword(f["user"], f["password"]).String() + "@" + net.JoinHostPort(f["host"], or(f["port"], port)) + "/" + url.PathEscape(or(f["vhost"], "/"))
}

// RedisURL makes the URL of an opened credential, with the password.
func RedisURL(f map[string]string) string {
	u := url.URL{Scheme: "redis", Host: net.JoinHostPort(f["host"], or(f["port"], "6379")), Path: "/" + or(f["database"], "0")}
	if f["tls"] == "true" {
		u.Scheme = "rediss"
	}
	if f["password"] != "" {
		u.User = url.UserPassword(f["user"], f["password"])
	}
	return u.String()
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

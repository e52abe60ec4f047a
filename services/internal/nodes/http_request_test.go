package nodes

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/node"
)

func call(config map[string]any) node.Call {
	return node.Call{Execution: "e", Node: "n", Attempt: 3, IdempotencyKey: "e/n/-", Config: config, Limits: node.Limits{MaxValueBytes: 64 << 10}}
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func execute(t *testing.T, c node.Call) (map[string]any, *node.Error) {
	t.Helper()
	r, err := newHTTP(HTTPOptions{}, net.DefaultResolver).Execute(t.Context(), c)
	var ne *node.Error
	if err != nil && !errors.As(err, &ne) {
		t.Fatalf("%T: %v", err, err)
	}
	out, _ := r.Output.(map[string]any)
	return out, ne
}

func TestHTTPRequest(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var sent string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, sent = r, string(b)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprint(w, `{"big": 9007199254740993, "total": 150.5}`)
	})
	out, ne := execute(t, call(map[string]any{"method": "POST", "url": url + "/orders?a=1", "query": map[string]any{"b": []any{2, "three"}, "skip": nil}, "headers": map[string]any{"X-One": 1}, "body": map[string]any{"id": 9007199254740993}}))
	if ne != nil {
		t.Fatal(ne)
	}
	if got.URL.RawQuery != "a=1&b=2&b=three" || got.Header.Get("X-One") != "1" || sent != `{"id":9007199254740993}` || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %v %s", got.URL, got.Header, sent)
	}
	if got.Header.Get("Idempotency-Key") != "e/n/-" || got.Header.Get("X-Flow-Attempt") != "3" {
		t.Errorf("%v", got.Header)
	}
	body := out["body"].(map[string]any)
	if out["status"] != 200 || body["big"] != 9007199254740993 || body["total"] != 150.5 {
		t.Errorf("%#v", out)
	}
}

func TestHTTPFailures(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/404", "/500", "/429":
			w.Header().Set("Retry-After", "7")
			var code int
			fmt.Sscan(r.URL.Path[1:], &code)
			http.Error(w, "no", code)
		case "/slow":
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/huge":
			io.Copy(w, io.LimitReader(zeros{}, 100<<20))
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.Copy(z, io.LimitReader(zeros{}, 100<<20))
			z.Close()
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/metadata":
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}
	})
	closed := "http://127.0.0.1:1/"
	for name, tc := range map[string]struct {
		config    map[string]any
		code      string
		retryable bool
	}{
		"not found":                {map[string]any{"url": url + "/404"}, "http-status", false},
		"broken":                   {map[string]any{"url": url + "/500"}, "http-status", true},
		"too many":                 {map[string]any{"url": url + "/429"}, "http-status", true},
		"fails on what it says":    {map[string]any{"url": url + "/404", "failOn": []any{"5xx"}}, "", false},
		"never fails":              {map[string]any{"url": url + "/500", "failOn": "never"}, "", false},
		"fails on 200":             {map[string]any{"url": url + "/", "failOn": []any{200}}, "http-status", false},
		"slow":                     {map[string]any{"url": url + "/slow"}, "http-timeout", true},
		"huge":                     {map[string]any{"url": url + "/huge"}, "http-too-large", false},
		"bomb":                     {map[string]any{"url": url + "/bomb"}, "http-too-large", false},
		"endless redirects":        {map[string]any{"url": url + "/loop"}, "http-connect", true},
		"redirect to metadata":     {map[string]any{"url": url + "/metadata"}, "http-refused-address", false},
		"redirect to a file":       {map[string]any{"url": url + "/file"}, "http-connect", true},
		"nobody listens":           {map[string]any{"url": closed}, "http-connect", true},
		"no such name":             {map[string]any{"url": "http://nowhere.invalid/"}, "http-connect", true},
		"no URL":                   {map[string]any{"url": "orders"}, "config", false},
		"no header":                {map[string]any{"url": url, "headers": map[string]any{"a b": "c"}}, "config", false},
		"header with a line break": {map[string]any{"url": url, "headers": map[string]any{"a": "c\r\nd: e"}}, "config", false},
		"bad failOn":               {map[string]any{"url": url, "failOn": []any{true}}, "config", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := newHTTP(HTTPOptions{}, net.DefaultResolver).Execute(ctx, call(tc.config))
			var ne *node.Error
			switch {
			case tc.code == "" && err != nil, tc.code != "" && !errors.As(err, &ne):
				t.Fatalf("%v", err)
			case tc.code != "" && (ne.Code != tc.code || ne.Retryable != tc.retryable):
				t.Errorf("%s retryable %v: %s", ne.Code, ne.Retryable, ne.Message)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestHTTPSecretsStayOut(t *testing.T) {
	t.Parallel()
	_, ne := execute(t, call(map[string]any{"url": "http://user:hunter2@127.0.0.1:1/path?token=hunter2"}))
	if ne == nil || strings.Contains(ne.Error(), "hunter2") || !strings.Contains(ne.Error(), "/path") {
		t.Errorf("%v", ne)
	}
}

func TestHTTPCredentialsDontFollowToAnotherHost(t *testing.T) {
	t.Parallel()
	var other http.Header
	second := serve(t, func(_ http.ResponseWriter, r *http.Request) { other = r.Header })
	first := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(second, "127.0.0.1", "localhost", 1), http.StatusFound)
	})
	if _, ne := execute(t, call(map[string]any{"url": first, "headers": map[string]any{"Authorization": "Bearer x", "X-Api-Key": "y", "X-Harmless": "z"}})); ne != nil {
		t.Fatal(ne)
	}
	if other.Get("Authorization") != "" || other.Get("X-Api-Key") != "" || other.Get("X-Harmless") != "z" {
		t.Errorf("%v", other)
	}
}

// TestHTTPRefusedSpellings: the same forbidden hosts, in every spelling that some program takes for an address.
func TestHTTPRefusedSpellings(t *testing.T) {
	t.Parallel()
	x := newHTTP(HTTPOptions{}, net.DefaultResolver)
	for _, host := range []string{"169.254.169.254", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[fe80::1]", "[fe80::1%25lo]", "[fd00:ec2::254]",
		"169.254.1.1", "0.0.0.0", "[::]", "224.0.0.1", "255.255.255.255", "100.100.100.200", "192.0.0.192", "[ff02::1]", "0.1.2.3", "169.254.169.254."} {
		_, err := x.Execute(t.Context(), call(map[string]any{"url": "http://" + host + "/"}))
		var ne *node.Error
		if !errors.As(err, &ne) || ne.Code != "http-refused-address" && ne.Code != "http-connect" && ne.Code != "config" {
			t.Errorf("%s: %v", host, err)
		}
		if !strings.HasSuffix(host, ".") && ne != nil && ne.Code == "http-connect" {
			t.Errorf("%s was tried: %v", host, err)
		}
	}
	// Decimal, octal, hexadecimal and short forms are names for Go, looked up and not found: they reach nothing.
	for _, host := range []string{"2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0xa9.0xfe.0xa9.0xfe"} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := x.Execute(ctx, call(map[string]any{"url": "http://" + host + "/"}))
		cancel()
		if err == nil {
			t.Errorf("%s was called", host)
		}
	}
}

type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func TestHTTPRefusedByName(t *testing.T) {
	t.Parallel()
	x := newHTTP(HTTPOptions{DenyPrivate: true, DenyLoopback: true}, names{
		"metadata.google.internal": {netip.MustParseAddr("169.254.169.254")},
		"rebind.example":           {netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("169.254.169.254")},
		"inside.example":           {netip.MustParseAddr("10.1.2.3")},
		"here.example":             {netip.MustParseAddr("127.0.0.1")},
		"mapped.example":           {netip.MustParseAddr("::ffff:127.0.0.1")},
	})
	for _, host := range []string{"metadata.google.internal", "rebind.example", "inside.example", "here.example", "mapped.example"} {
		_, err := x.Execute(t.Context(), call(map[string]any{"url": "http://" + host + "/"}))
		var ne *node.Error
		if !errors.As(err, &ne) || ne.Code != "http-refused-address" {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func FuzzRefusal(f *testing.F) {
	for _, s := range []string{"169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fe80::1%eth0", "8.8.8.8"} {
		f.Add(s)
	}
	link := netip.MustParsePrefix("169.254.0.0/16")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return
		}
		if link.Contains(a.WithZone("").Unmap()) && (HTTPOptions{}).refusal(a) == "" {
			t.Errorf("%s is allowed", s)
		}
	})
}

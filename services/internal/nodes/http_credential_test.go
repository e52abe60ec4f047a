package nodes

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/node"
)

// with gives a call that may use one credential.
func with(c node.Call, opened node.Credential) node.Call {
	c.Config[node.CredentialSetting] = opened.Name
	c.Credential = func(_ context.Context, types ...string) (node.Credential, error) {
		if !slices.Contains(types, opened.Type) {
			return node.Credential{}, &node.Error{Code: "credential-type"}
		}
		return opened, nil
	}
	return c
}

func TestHTTPCredentialHeaders(t *testing.T) {
	t.Parallel()
	var got http.Header
	at := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	for typ, want := range map[string]struct {
		fields        map[string]string
		header, value string
	}{
		credential.HTTPBasic:  {map[string]string{"user": "Aladdin", "password": "open sesame"}, "Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
		credential.HTTPBearer: {map[string]string{"token": "abc"}, "Authorization", "Bearer abc"},
		credential.HTTPHeader: {map[string]string{"name": "x-shop-pass", "value": "abc"}, "X-Shop-Pass", "abc"},
	} {
		c := with(call(map[string]any{"url": at, "headers": map[string]any{"Authorization": "mine", "X-Shop-Pass": "mine"}}), node.Credential{Name: "c", Type: typ, Fields: want.fields})
		if _, ne := execute(t, c); ne != nil {
			t.Errorf("%s: %v", typ, ne)
		}
		if v := got.Values(want.header); len(v) != 1 || v[0] != want.value {
			t.Errorf("%s: %v", typ, v)
		}
	}
	if _, ne := execute(t, with(call(map[string]any{"url": at}), node.Credential{Name: "c", Type: credential.Redis})); ne == nil || ne.Code != "credential-type" {
		t.Errorf("%v", ne)
	}
	bare := call(map[string]any{"url": at, "credential": "c"})
	if _, ne := execute(t, bare); ne == nil || ne.Code != "credential-unavailable" {
		t.Errorf("%v", ne)
	}
	twice := strings.Replace(at, "http://", "http://user:pass@", 1)
	if _, ne := execute(t, with(call(map[string]any{"url": twice}), node.Credential{Name: "c", Type: credential.HTTPBearer})); ne == nil || ne.Code != "config" {
		t.Errorf("%v", ne)
	}
}

func TestHTTPCredentialStaysWithItsHost(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	var first, second string
	note := func(place string, r *http.Request) { seen[place] = r.Header.Get("X-Shop-Pass") }
	second = serve(t, func(w http.ResponseWriter, r *http.Request) {
		note("second", r)
		http.Redirect(w, r, first+"/back", http.StatusTemporaryRedirect)
	})
	first = serve(t, func(w http.ResponseWriter, r *http.Request) {
		note(r.URL.Path, r)
		switch r.URL.Path {
		case "/here":
			http.Redirect(w, r, "/same", http.StatusFound)
		case "/same":
			http.Redirect(w, r, second, http.StatusTemporaryRedirect)
		}
	})
	c := node.Credential{Name: "c", Type: credential.HTTPHeader, Fields: map[string]string{"name": "X-Shop-Pass", "value": "abc"}}
	if _, ne := execute(t, with(call(map[string]any{"url": first + "/here"}), c)); ne != nil {
		t.Fatal(ne)
	}
	// What came back from another host was chosen by that: it doesn't get the secret either.
	if seen["/here"] != "abc" || seen["/same"] != "abc" || seen["second"] != "" || seen["/back"] != "" || len(seen) != 4 {
		t.Errorf("%v", seen)
	}
	clear(seen)
	c.Fields["hosts"] = "api.example.com"
	_, ne := execute(t, with(call(map[string]any{"url": first + "/here"}), c))
	if ne == nil || ne.Code != "credential-host" || len(seen) != 0 {
		t.Errorf("%v %v", ne, seen)
	}
	u, err := url.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	c.Fields["hosts"] = u.Host
	if _, ne := execute(t, with(call(map[string]any{"url": first + "/back"}), c)); ne != nil || seen["/back"] != "abc" {
		t.Errorf("%v %v", ne, seen)
	}
	if _, ne := execute(t, with(call(map[string]any{"url": first + "/back", "headers": map[string]any{"Host": "other.example"}}), c)); ne == nil || ne.Code != "credential-host" {
		t.Errorf("another Host: %v", ne)
	}
}

// TestHTTPDowngrade: a redirect from https to http of the same host would show the secret on the wire.
func TestHTTPDowngrade(t *testing.T) {
	t.Parallel()
	req := func(raw string) *http.Request {
		r, err := http.NewRequest("GET", raw, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, c := range []struct {
		hops []string
		want bool
	}{
		{[]string{"https://a", "https://a/x"}, false}, {[]string{"https://a", "http://a"}, true}, {[]string{"http://a", "https://a"}, false}, {[]string{"https://a", "https://b", "https://a"}, true}, {[]string{"http://a", "http://a:81"}, true},
	} {
		var via []*http.Request
		for _, h := range c.hops[:len(c.hops)-1] {
			via = append(via, req(h))
		}
		if led(req(c.hops[len(c.hops)-1]), via) != c.want {
			t.Errorf("%v", c.hops)
		}
	}
}

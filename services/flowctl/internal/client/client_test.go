package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// TestClosedConnection: a start whose connection is closed under it is sent again with the same key; what takes no key isn't.
func TestClosedConnection(t *testing.T) {
	var mu sync.Mutex
	seen := map[string][]string{} // keys, by path
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		keys := append(seen[r.URL.Path], r.Header.Get("Idempotency-Key"))
		seen[r.URL.Path] = keys
		mu.Unlock()
		if r.Method == http.MethodPost && len(keys) == 1 {
			panic(http.ErrAbortHandler) // closes the connection without an answer
		}
		fmt.Fprint(w, `{}`)
	}))
	t.Cleanup(s.Close)
	c, err := Anonymous(s.URL, "t")
	if err != nil {
		t.Fatal(err)
	}
	for path, again := range map[string]bool{"/flows/x/executions": true, "/flows/x/executions/batch": true, "/flows": false, "/executions/x/cancel": false} {
		if _, err := c.Do(t.Context(), http.MethodGet, "/me", nil, nil); err != nil { // a connection to use again
			t.Fatal(err)
		}
		_, err := c.Do(t.Context(), http.MethodPost, path, map[string]int{"n": 1}, nil)
		keys := seen["/api/v1"+path]
		switch {
		case again && (err != nil || len(keys) != 2 || keys[0] == "" || keys[0] != keys[1]):
			t.Errorf("%s: sent with the keys %q: %v", path, keys, err)
		case !again && (err == nil || len(keys) != 1 || keys[0] != ""):
			t.Errorf("%s: sent with the keys %q: %v", path, keys, err)
		}
	}
}

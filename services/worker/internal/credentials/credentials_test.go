package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/node"
	"flowplatform/services/worker/internal/upstream"
)

// gateway answers as the gateway's open does; its handler can be changed.
type gateway struct {
	asked  atomic.Int32
	answer atomic.Pointer[http.HandlerFunc]
	url    string
}

func serve(t *testing.T, h http.HandlerFunc) *gateway {
	t.Helper()
	g := &gateway{}
	g.answer.Store(&h)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.asked.Add(1)
		(*g.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	g.url = s.URL
	return g
}

func opens(secret string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer internal" || r.URL.EscapedPath() != "/internal/v1/credentials/Shop%20DB/open" || r.Method != "POST" {
			http.Error(w, r.URL.EscapedPath(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(credential.Opened{ID: "1", Name: "Shop DB", Type: "postgres", Public: map[string]string{"host": "h"}, Secret: map[string]string{"password": secret}})
	}
}

func refuses(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, `{"detail": "says why"}`)
	}
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) move(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

func cacheOf(t *testing.T, urls ...string) (*Cache, *clock) {
	t.Helper()
	dir, err := upstream.NewDirectory("GATEWAY_URL", "gateway", strings.Join(urls, ","), "", "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{t: time.Unix(1000, 0)}
	return New(upstream.NewClient(dir, "internal").OpenCredential, c.now), c
}

func codeOf(err error) (string, bool) {
	var ne *node.Error
	if !errors.As(err, &ne) {
		return "", false
	}
	return ne.Code, ne.Retryable
}

func TestKeptForHalfAMinute(t *testing.T) {
	t.Parallel()
	g := serve(t, opens("one-secret"))
	c, now := cacheOf(t, g.url)
	get := func(want string, asked int32) {
		t.Helper()
		got, mask, err := c.Get(t.Context(), "Shop DB")
		if err != nil || got.Fields["password"] != want || got.Fields["host"] != "h" || got.Type != "postgres" || mask.Error(want) != credential.Masked || g.asked.Load() != asked {
			t.Errorf("%v %v, asked %d", got.Fields, err, g.asked.Load())
		}
		got.Fields["password"] = "changed by a node"
	}
	get("one-secret", 1)
	other := opens("another-secret")
	g.answer.Store(&other)
	now.move(Believed - time.Second)
	get("one-secret", 1)
	now.move(time.Second)
	get("another-secret", 2)
	gone := refuses(404)
	g.answer.Store(&gone)
	now.move(Believed)
	for range 2 { // an unknown one is not asked for at once again
		if _, _, err := c.Get(t.Context(), "Shop DB"); err == nil || g.asked.Load() != 3 {
			t.Errorf("%v, asked %d", err, g.asked.Load())
		}
	}
	g.answer.Store(&other)
	now.move(unknown)
	get("another-secret", 4)
	if len(c.kept) != 1 {
		t.Errorf("%d kept", len(c.kept))
	}
}

func TestTogetherTheyAskOnce(t *testing.T) {
	t.Parallel()
	begun, hold := make(chan struct{}, 50), make(chan struct{})
	g := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-hold
		opens("one-secret")(w, r)
	})
	c, _ := cacheOf(t, g.url)
	early, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	left := make(chan struct{})
	for i := range 50 {
		wg.Go(func() {
			ctx := t.Context()
			if i == 0 {
				ctx = early
			}
			_, _, err := c.Get(ctx, "Shop DB")
			if i == 0 {
				close(left)
			}
			if code, again := codeOf(err); i == 0 && (code != "credential-unavailable" || !again) || i > 0 && err != nil {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	<-begun
	cancel()
	<-left
	close(hold)
	wg.Wait()
	if n := g.asked.Load(); n > 2 { // one that looked before the answer was kept, and comes after it was given, asks again
		t.Errorf("asked %d times", n)
	}
}

func TestAnswersSayWhatToDo(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		status int
		code   string
		again  bool
		says   string
	}{
		{404, "credential-unknown", false, "Shop DB"}, {409, "credential-damaged", false, "says why"}, {503, "credential-unavailable", true, "says why"}, {401, "credential-unavailable", true, "INTERNAL_TOKEN"}, {500, "credential-unavailable", true, "500"},
	} {
		g := serve(t, refuses(k.status))
		c, _ := cacheOf(t, g.url)
		_, _, err := c.Get(t.Context(), "Shop DB")
		if code, again := codeOf(err); code != k.code || again != k.again || !strings.Contains(err.Error(), k.says) {
			t.Errorf("%d: %s %v %v", k.status, code, again, err)
		}
	}
	c, _ := cacheOf(t, "http://127.0.0.1:1")
	if code, again := codeOf(second(c.Get(t.Context(), "Shop DB"))); code != "credential-unavailable" || !again {
		t.Errorf("away: %s %v", code, again)
	}
	g := serve(t, opens("one-secret"))
	c, _ = cacheOf(t, "http://127.0.0.1:1", g.url) // the other one is asked
	if got, _, err := c.Get(t.Context(), "Shop DB"); err != nil || got.Fields["password"] != "one-secret" {
		t.Errorf("%v", err)
	}
}

func second(_ node.Credential, _ *credential.Masker, err error) error { return err }

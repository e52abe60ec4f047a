package live

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

func open(t *testing.T, url string) *Client {
	t.Helper()
	c, err := Open(Options{URL: url, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func tail(t *testing.T, c *Client) (events chan Event, gaps chan struct{}) {
	t.Helper()
	events, gaps = make(chan Event, 1000), make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		c.Tail(ctx, func() bool { return true }, func(es []Event) {
			for _, e := range es {
				events <- e
			}
		}, func() { gaps <- struct{}{} })
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return events, gaps
}

// appendUntil appends events named so until one of them is seen: a tail begins at the end that it finds.
func appendUntil(t *testing.T, c *Client, name string, events chan Event) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if err := c.Append(t.Context(), []Event{{Kind: "execution", Execution: name}}); err != nil {
			t.Logf("append: %v", err)
		}
		again := time.After(50 * time.Millisecond)
		for waiting := true; waiting; {
			select {
			case e := <-events:
				if e.Execution == name && e.ID != "" {
					return
				}
			case <-again:
				waiting = false
			case <-deadline:
				t.Fatalf("%s never came", name)
			}
		}
	}
}

func TestRD2_TailGoesOnAfterAnEmptyRedis(t *testing.T) {
	t.Parallel()
	server := testkit.Redis(t)
	c := open(t, server.URL())
	events, gaps := tail(t, c)
	appendUntil(t, c, "first", events)
	if err := c.r.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gaps:
	case <-time.After(10 * time.Second):
		t.Fatal("the gap was not told")
	}
	appendUntil(t, c, "second", events)
	server.Kill()
	server.Start(t)
	appendUntil(t, c, "third", events)
}

func TestRD1_AppendToAHangingRedisIsBounded(t *testing.T) {
	t.Parallel()
	server := testkit.Redis(t)
	c := open(t, server.URL())
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Process().Freeze()
	defer server.Process().Thaw()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := c.Append(ctx, []Event{{Kind: "execution"}}); err == nil || time.Since(begun) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	server := testkit.Redis(t)
	for name, l := range map[string]*Limiter{"redis": NewLimiter(open(t, server.URL())), "alone": NewLimiter(nil)} {
		t.Run(name, func(t *testing.T) {
			allowed := 0
			var last Decision
			for range 40 {
				if last = l.Allow(t.Context(), "a", 30); last.Allowed {
					allowed++
				}
			}
			if allowed < 30 || allowed > 31 || last.Allowed || last.RetryAfter <= 0 || last.RetryAfter > 2*time.Second {
				t.Errorf("%d of 40 were allowed with a limit of 30, last %+v", allowed, last)
			}
			if d := l.Allow(t.Context(), "b", 30); !d.Allowed || d.Remaining != 29 {
				t.Errorf("another key: %+v", d)
			}
		})
	}
}

func TestRD3_LimiterCountsAloneWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := testkit.Redis(t)
	l := NewLimiter(open(t, server.URL()))
	server.Kill()
	allowed := 0
	begun := time.Now()
	for range 20 {
		if l.Allow(t.Context(), "a", 10).Allowed {
			allowed++
		}
	}
	if allowed != 10 || time.Since(begun) > 3*time.Second {
		t.Errorf("%d of 20 were allowed with a limit of 10, in %s", allowed, time.Since(begun))
	}
	server.Start(t)
	testkit.Eventually(t, 10*time.Second, "it asks Redis again", func() error { l.Allow(t.Context(), "c", 10); return l.c.Ping(t.Context()) })
}

// TestRD3_FullRedis: a Redis that refuses writes (full, or unable to save) makes nobody wait and nobody fail: limits are counted here, events dropped with an error.
func TestRD3_FullRedis(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*testing.T, *Client){
		"OOM": func(t *testing.T, c *Client) {
			for _, kv := range [][2]string{{"maxmemory-policy", "noeviction"}, {"maxmemory", "1mb"}} {
				if err := c.r.ConfigSet(t.Context(), kv[0], kv[1]).Err(); err != nil {
					t.Fatal(err)
				}
			}
		},
		"MISCONF": func(t *testing.T, c *Client) {
			if err := c.r.Do(t.Context(), "CONFIG", "SET", "min-replicas-to-write", "1").Err(); err != nil { // NOREPLICAS: refused in the same way, without a broken disk
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, testkit.Redis(t).URL())
			l := NewLimiter(c)
			l.Allow(t.Context(), "before", 10)
			refuse(t, c)
			if err := c.Append(t.Context(), []Event{{Kind: "execution"}}); err == nil {
				t.Error("a Redis that refuses writes took an event")
			}
			allowed, begun := 0, time.Now()
			for range 20 {
				if l.Allow(t.Context(), "a", 10).Allowed {
					allowed++
				}
			}
			if allowed != 10 || time.Since(begun) > 3*time.Second {
				t.Errorf("%d of 20 were allowed with a limit of 10, in %s", allowed, time.Since(begun))
			}
		})
	}
}

package live

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"flowplatform/services/internal/testkit"
)

// What each user of configs/redis/users.acl may do, and what it may not: on a real server, with the very rules.
func TestRights(t *testing.T) {
	t.Parallel()
	server := testkit.Redis(t)
	admin := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", server.Port)})
	defer admin.Close()
	rules := strings.Split(strings.TrimSpace(testkit.Config(t, "redis/users.acl", "gateway_password", "orchestrator_password", "worker_password")), "\n")
	if len(rules) != 4 || rules[0] != "user default off" {
		t.Fatalf("rules: %q", rules)
	}
	for _, rule := range append(rules[1:], rules[0]) { // who sets them goes last
		args := []any{"ACL", "SETUSER"}
		for word := range strings.FieldsSeq(strings.TrimPrefix(rule, "user ")) {
			args = append(args, word)
		}
		if err := admin.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%s: %v", rule, err)
		}
	}
	users := map[string]*redis.Client{}
	for short, name := range map[string]string{"g": "gateway", "o": "orchestrator", "w": "worker"} {
		users[short] = redis.NewClient(&redis.Options{Addr: admin.Options().Addr, Username: name, Password: "secret"})
		defer users[short].Close()
	}
	for _, tt := range []struct{ command, allowed string }{
		{"PING", "gow"},
		{"XADD {flow}:live * e x", "go"}, {"XREAD COUNT 1 STREAMS {flow}:live 0", "go"}, {"SET {flow}:ping 1", "go"}, {"GET {flow}:ping", "go"},
		{"GET other", ""}, {"SET other 1", ""}, {"SCAN 0", ""}, {"KEYS *", ""}, {"RANDOMKEY", ""},
		{"FLUSHALL", ""}, {"CONFIG GET *", ""}, {"CONFIG SET maxmemory 1", ""}, {"ACL LIST", ""}, {"SHUTDOWN NOSAVE", ""}, {"CLIENT KILL TYPE normal", ""},
		{"SUBSCRIBE x", ""}, {"PUBLISH x y", ""}, {"SCRIPT FLUSH", ""}, {"EVAL return(redis.call('GET','other')) 0", ""}, {"MONITOR", ""},
	} {
		for short, c := range users {
			var args []any
			for word := range strings.FieldsSeq(tt.command) {
				args = append(args, word)
			}
			err := c.Do(t.Context(), args...).Err()
			refused := err != nil && (strings.Contains(err.Error(), "permissions") || strings.Contains(err.Error(), "can't access"))
			if err != nil && !refused && err != redis.Nil {
				t.Errorf("%s as %s: %v", tt.command, short, err)
			}
			if may := strings.Contains(tt.allowed, short); may == refused {
				t.Errorf("%s: %s may: %v, want %v", tt.command, short, !refused, may)
			}
		}
	}
	if err := redis.NewClient(&redis.Options{Addr: admin.Options().Addr}).Ping(t.Context()).Err(); err == nil {
		t.Error("who gives no password is let in")
	}
	// And the services' own way of using it.
	c, err := Open(Options{URL: fmt.Sprintf("redis://gateway:secret@%s/0", admin.Options().Addr), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	limiter := NewLimiter(c)
	limiter.Allow(t.Context(), "k", 10)
	if !limiter.away.IsZero() {
		t.Error("the limiter could not ask Redis")
	}
	if err := c.Append(t.Context(), []Event{{Kind: "execution"}}); err != nil {
		t.Error(err)
	}
}

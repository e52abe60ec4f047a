package nodes

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

const (
	redisConnections = 8
	maxArgs          = 1000
)

// redisRefused are commands that change what a connection is, wait on other clients without end, or run the server rather than use it.
var redisRefused = []string{
	"ACL", "ASKING", "AUTH", "BGREWRITEAOF", "BGSAVE", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "DISCARD", "EXEC", "FAILOVER", "FLUSHALL", "FLUSHDB", "FUNCTION", "HELLO", "KEYS", "LATENCY", "LOLWUT",
	"MEMORY", "MIGRATE", "MODULE", "MONITOR", "MULTI", "PSUBSCRIBE", "PSYNC", "PUNSUBSCRIBE", "QUIT", "READONLY", "READWRITE", "REPLCONF", "REPLICAOF", "RESET", "RESTORE-ASKING", "SAVE", "SCRIPT", "SELECT",
	"SHUTDOWN", "SLAVEOF", "SLOWLOG", "SSUBSCRIBE", "SUBSCRIBE", "SUNSUBSCRIBE", "SWAPDB", "SYNC", "UNSUBSCRIBE", "UNWATCH", "WAIT", "WAITAOF", "WATCH",
}

func redisCommand(o HTTPOptions) node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "redis.command", Version: 1, Kind: flow.KindEffect, Category: "integration", Timeout: 10 * time.Second, Credentials: []string{credential.Redis},
			Title:       "Redis command",
			Description: "Sends one command to a Redis server. Commands that administer the server, change the connection (SELECT, AUTH, MULTI, WATCH), subscribe, or look at every key (KEYS) are refused. Commands that wait, like BLPOP, end at the node's timeout.",
			Config: `{"type": "object", "required": ["credential", "command"], "additionalProperties": false,
				"properties": {
					"credential": {"type": "string", "minLength": 1, "maxLength": 100, "title": "Credential", "description": "name or id of a credential of type redis"},
					"command": {"type": "string", "pattern": "^[A-Za-z.]+$", "maxLength": 50, "title": "Command", "description": "its name, like SET or HGETALL"},
					"args": {"type": "array", "maxItems": 1000, "title": "Arguments", "description": "texts and numbers as they are, true and false as 1 and 0, lists and objects as JSON"}}}`,
			Output: `{"type": "object", "required": ["result"], "properties": {"result": {"description": "the answer: a text, a number, a list, an object (RESP3 maps, like HGETALL's) or null; bytes that are no text as {\"base64\": …}"}}}`,
			Check:  checkRedis,
			Examples: []node.Example{
				{Title: "Count", Config: map[string]any{"credential": "cache", "command": "INCR", "args": []any{"orders:{{ input.customer }}"}}, Input: map[string]any{"customer": 7}},
				{Title: "Keep for a day", Config: map[string]any{"credential": "cache", "command": "SET", "args": []any{"order:{{ input.id }}", "{{ input }}", "EX", 86400}}, Input: map[string]any{"id": 1}},
			},
		},
		Executor: &redisExecutor{options: o, pools: newPools(func(c *redis.Client) { _ = c.Close() })},
	}
}

func checkRedis(config map[string]any) []flow.Problem {
	if command, ok := config["command"].(string); ok {
		if why := refusedCommand(command); why != "" {
			return []flow.Problem{{Pointer: "/command", Code: "refused-command", Message: why}}
		}
	}
	return nil
}

func refusedCommand(command string) string {
	if slices.Contains(redisRefused, strings.ToUpper(strings.TrimSpace(command))) {
		return fmt.Sprintf("%s is not a command that flows may send: it administers the server or changes the connection, which others use too", strings.ToUpper(command))
	}
	return ""
}

type redisExecutor struct {
	options HTTPOptions
	pools   *pools[*redis.Client]
}

func (x *redisExecutor) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	command, problem := text(c.Config, "command")
	if problem != nil {
		return node.Result{}, problem
	}
	if why := refusedCommand(command); why != "" {
		return node.Result{}, &node.Error{Code: "refused-command", Message: why}
	}
	args := []any{}
	if c.Config["args"] != nil {
		if args, problem = listOf(c.Config, "args"); problem != nil {
			return node.Result{}, problem
		}
	}
	if len(args) > maxArgs || command == "" || strings.ContainsAny(command, " \r\n\t") {
		return node.Result{}, &node.Error{Code: "config", Message: fmt.Sprintf("a command is one word, with at most %d args", maxArgs)}
	}
	words := []any{command}
	for i, a := range args {
		w, err := redisWord(a)
		if err != nil {
			return node.Result{}, &node.Error{Code: "config", Message: fmt.Sprintf("args[%d] can't be written: %v", i, err)}
		}
		words = append(words, w)
	}
	opened, err := open(ctx, c, credential.Redis)
	if err != nil {
		return node.Result{}, err
	}
	own := waits(command, args)
	client, release, ok, err := x.take(opened.Fields, own)
	switch {
	case err != nil:
		return node.Result{}, &node.Error{Code: "config", Message: "the credential " + opened.Name + " can't be used: its settings make no Redis address"}
	case !ok:
		return node.Result{}, tooManyServers
	}
	answer, err := send(ctx, client, release, own, words)
	if err != nil && !errors.Is(err, redis.Nil) {
		return node.Result{}, redisFailed(ctx, err)
	}
	most := c.Limits.MaxValueBytes
	if most <= 0 {
		most = flow.MaxValueBytes
	}
	result := redisValue(answer)
	if err := within(result, most); err != nil {
		return node.Result{}, &node.Error{Code: "value-too-large", Message: fmt.Sprintf("the answer: %v", err)}
	}
	return node.Result{Output: map[string]any{"result": result}}, nil
}

// redisWaits are commands that may wait for what others do. XREAD and XREADGROUP do so with BLOCK alone.
var redisWaits = []string{"BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN"}

func waits(command string, args []any) bool {
	command = strings.ToUpper(command)
	if command == "XREAD" || command == "XREADGROUP" {
		return slices.ContainsFunc(args, func(a any) bool { s, is := a.(string); return is && strings.EqualFold(s, "BLOCK") })
	}
	return slices.Contains(redisWaits, command)
}

// take gives a client of a server: the one that all share, or, for a command that waits, one of its own, whose connection ends with it.
func (x *redisExecutor) take(f map[string]string, own bool) (c *redis.Client, release func(), ok bool, err error) {
	if !own {
		return x.pools.take(credential.RedisURL(f), func() (*redis.Client, error) { return x.client(f) })
	}
	if c, err = x.client(f); err != nil {
		return nil, nil, true, err
	}
	return c, func() { _ = c.Close() }, true, nil
}

// send sends a command and waits for the answer, or until the context ends. The library minds a context's deadline, but not its cancel, while it reads: the call goes on beside
// us then, bounded by the node's timeout, unless the client is the command's own: closing it ends the command on the server too, so that it takes nothing that comes later.
func send(ctx context.Context, client *redis.Client, release func(), own bool, words []any) (any, error) {
	type answer struct {
		value any
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		defer release()
		v, err := client.Do(ctx, words...).Result()
		done <- answer{v, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		if own {
			_ = client.Close()
		}
		return nil, ctx.Err()
	}
}

func (x *redisExecutor) client(f map[string]string) (*redis.Client, error) {
	o, err := redis.ParseURL(credential.RedisURL(f))
	if err != nil {
		return nil, err
	}
	host := f["host"]
	o.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := x.options.DialContext(ctx, network, address)
		if err != nil || f["tls"] != "true" {
			return c, err
		}
		return tls.Client(c, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}), nil
	}
	o.TLSConfig = nil // the dialer's
	o.MaxRetries = -1 // a command may have been carried out: whether it is sent again is the flow's decision
	o.PoolSize, o.MinIdleConns, o.ConnMaxIdleTime, o.ContextTimeoutEnabled = redisConnections, 0, poolIdle, true
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = 10*time.Second, -1, -1 // the node's timeout holds
	o.ClientName, o.DisableIdentity, o.DialerRetries = "", true, 1
	return redis.NewClient(o), nil
}

// redisWord writes an argument.
func redisWord(v any) (any, error) {
	switch x := v.(type) {
	case string:
		return x, nil
	case nil:
		return "", errors.New("null is no argument")
	case bool:
		if x {
			return "1", nil
		}
		return "0", nil
	}
	b, err := flow.EncodeValue(v)
	return b, err
}

// redisValue makes a value of an answer.
func redisValue(v any) any {
	switch x := v.(type) {
	case string:
		if utf8.ValidString(x) {
			return x
		}
		return map[string]any{"base64": base64.StdEncoding.EncodeToString([]byte(x))}
	case int64:
		return int(x)
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Sprint(x)
		}
	case *big.Int:
		return exact(x)
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = redisValue(e)
		}
		return out
	case map[any]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			name, ok := k.(string)
			if !ok {
				name = fmt.Sprint(k)
			}
			out[name] = redisValue(e)
		}
		return out
	case error: // one of several answers
		return map[string]any{"error": x.Error()}
	}
	return v
}

func redisFailed(ctx context.Context, err error) error {
	if err := ended(ctx, err); err != nil {
		return err
	}
	var answered redis.Error
	if errors.As(err, &answered) {
		code, _, _ := strings.Cut(err.Error(), " ")
		retry := slices.Contains([]string{"BUSY", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "OOM"}, code)
		return &node.Error{Code: "redis", Retryable: retry, Message: "Redis: " + err.Error(), Data: map[string]any{"error": code}}
	}
	return connectFailed("redis-connect", "Redis", err)
}

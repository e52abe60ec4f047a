// Package live is the platform's use of Redis: the stream of live events, and rate limits. Nothing here is the truth: with Redis away events are lost (a
// client reads the row), and each gateway limits for itself. It is the only package that imports go-redis.
package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Options of a client.
type Options struct {
	URL     string // redis://:password@host:port/0
	Cluster bool   // URL names one of a cluster's nodes
	Log     *slog.Logger
}

// Client talks to Redis. It doesn't need Redis to be there.
type Client struct {
	r   redis.UniversalClient
	log *slog.Logger
}

// Event tells that an execution has changed.
type Event struct {
	ID        string    `json:"id,omitempty"` // place in the stream, set by Tail
	Kind      string    `json:"k"`            // "execution", KindRemote
	Execution string    `json:"e,omitempty"`
	Flow      string    `json:"f,omitempty"`
	Status    string    `json:"s,omitempty"`
	Attempt   int       `json:"a,omitempty"`
	Queue     string    `json:"q,omitempty"` // of KindRemote: it holds a new task
	At        time.Time `json:"t"`
}

// KindRemote is the kind of the event that a task for remote workers has been made.
const KindRemote = "remote"

const (
	streamKey = "{flow}:live"
	maxStream = 20000 // entries, about; an entry holds a batch of events
	field     = "b"
)

// Open makes a client. It fails only on a URL that is none.
func Open(o Options) (*Client, error) {
	opt, err := redis.ParseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %s (it must look like redis://:password@host:6379/0)", strings.ReplaceAll(err.Error(), o.URL, "the URL"))
	}
	u := &redis.UniversalOptions{Addrs: []string{opt.Addr}, DB: opt.DB, Username: opt.Username, Password: opt.Password, TLSConfig: opt.TLSConfig,
		DialTimeout: time.Second, ReadTimeout: time.Second, WriteTimeout: time.Second, MaxRetries: 1, ContextTimeoutEnabled: true}
	if o.Cluster {
		return &Client{r: redis.NewClusterClient(u.Cluster()), log: o.Log}, nil
	}
	return &Client{r: redis.NewClient(u.Simple()), log: o.Log}, nil
}

// Close ends all connections.
func (c *Client) Close() error { return c.r.Close() }

// Ping tells whether Redis answers, and takes writes: one that is full or can't save refuses them while it answers a ping.
func (c *Client) Ping(ctx context.Context) error {
	if err := c.r.Set(ctx, "{flow}:ping", 1, time.Minute).Err(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// Append adds events to the stream, as one entry. The caller bounds it by ctx and goes on without them when it fails.
func (c *Client) Append(ctx context.Context, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	b, err := json.Marshal(events)
	if err != nil {
		return fmt.Errorf("live: %w", err)
	}
	if err := c.r.XAdd(ctx, &redis.XAddArgs{Stream: streamKey, MaxLen: maxStream, Approx: true, Values: []any{field, b}}).Err(); err != nil {
		return fmt.Errorf("live: append: %w", err)
	}
	return nil
}

// Tail follows the stream from its present end until ctx ends. each gets what comes, in order, and gap is called whenever events may be
// missing: Redis was away, came back empty, or the stream was trimmed over us. While wanted says no, each is called without the events: reading
// them costs more than everything else here. All are called on this goroutine.
func (c *Client) Tail(ctx context.Context, wanted func() bool, each func([]Event), gap func()) {
	last := ""
	for pause := 50 * time.Millisecond; ctx.Err() == nil; {
		next, err := c.follow(ctx, last, wanted, each, gap)
		last = next
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.log.Warn("live events are interrupted", "reason", err.Error())
			gap()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(pause*2, time.Second)
	}
}

// follow reads until something is wrong and gives the place from where to go on; "" is the present end.
func (c *Client) follow(ctx context.Context, last string, wanted func() bool, each func([]Event), gap func()) (string, error) {
	end, err := c.end(ctx)
	if err != nil {
		return last, err
	}
	if last == "" {
		last = end
	}
	for ctx.Err() == nil {
		res, err := c.r.XRead(ctx, &redis.XReadArgs{Streams: []string{streamKey, last}, Count: 100, Block: 500 * time.Millisecond}).Result()
		if errors.Is(err, redis.Nil) {
			if end, err = c.end(ctx); err != nil {
				return last, err
			}
			if before(end, last) { // it came back empty, or its clock went back: a reader that waits for larger ids would wait for ever
				gap()
				last = "0-0"
			}
			continue
		}
		if err != nil {
			return last, err
		}
		for _, m := range res[0].Messages {
			last = m.ID
			if !wanted() {
				each(nil)
				continue
			}
			var events []Event
			s, _ := m.Values[field].(string)
			if err := json.Unmarshal([]byte(s), &events); err != nil {
				c.log.Warn("an entry of the live stream can't be read", "id", m.ID, "reason", err.Error())
			}
			for i := range events {
				events[i].ID = m.ID + "." + strconv.Itoa(i)
			}
			each(events)
		}
	}
	return last, nil
}

// end is the id of the newest entry, "0-0" when there is none.
func (c *Client) end(ctx context.Context) (string, error) {
	res, err := c.r.XRevRangeN(ctx, streamKey, "+", "-", 1).Result()
	if err != nil {
		return "", err
	}
	if len(res) == 0 {
		return "0-0", nil
	}
	return res[0].ID, nil
}

// before compares two ids of a stream.
func before(a, b string) bool {
	am, as := parts(a)
	bm, bs := parts(b)
	return am < bm || am == bm && as < bs
}

func parts(id string) (ms, seq uint64) {
	m, s, _ := strings.Cut(id, "-")
	ms, _ = strconv.ParseUint(m, 10, 64)
	seq, _ = strconv.ParseUint(s, 10, 64)
	return ms, seq
}

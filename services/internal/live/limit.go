package live

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Decision on one request.
type Decision struct {
	Allowed    bool
	Limit      int
	Remaining  int
	RetryAfter time.Duration // zero when allowed
	Reset      time.Duration // until the whole limit is there again
}

// Limiter counts requests by key with GCRA: so many a minute, evenly, all of them at once if none came before. It asks Redis, so that all
// gateways count together; while Redis is away it counts for itself.
type Limiter struct {
	c     *Client // nil: always for itself
	mu    sync.Mutex
	own   map[string]time.Time
	swept time.Time
	away  time.Time // until then Redis is not asked
}

// NewLimiter makes one; c may be nil.
func NewLimiter(c *Client) *Limiter { return &Limiter{c: c, own: map[string]time.Time{}} }

// limitScript keeps, for a key, the time at which its bucket would be full again (microseconds of Redis' clock).
var limitScript = redis.NewScript(`
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local step, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local after = full + step
if after - now > burst then
  return {0, full - now}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1)
return {1, after - now}
`)

// Allow takes one request of a key that may have limit requests a minute.
func (l *Limiter) Allow(ctx context.Context, key string, limit int) Decision {
	step := time.Minute / time.Duration(limit)
	if l.c != nil && l.asks() {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		res, err := limitScript.Run(ctx, l.c.r, []string{"{flow}:limit:" + key}, step.Microseconds(), time.Minute.Microseconds()).Int64Slice()
		if err == nil && len(res) == 2 {
			return decide(res[0] == 1, time.Duration(res[1])*time.Microsecond, step, limit)
		}
		l.pause()
	}
	return l.alone(key, step, limit)
}

func (l *Limiter) asks() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().After(l.away)
}

// pause spares the next requests the wait for a Redis that doesn't answer.
func (l *Limiter) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = time.Now().Add(time.Second)
}

func (l *Limiter) alone(key string, step time.Duration, limit int) Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.swept) > time.Minute {
		l.swept = now
		for k, full := range l.own {
			if full.Before(now) {
				delete(l.own, k)
			}
		}
	}
	full := l.own[key]
	if full.Before(now) {
		full = now
	}
	after := full.Add(step)
	if after.Sub(now) > time.Minute {
		return decide(false, full.Sub(now), step, limit)
	}
	l.own[key] = after
	return decide(true, after.Sub(now), step, limit)
}

// decide makes a decision of how long it is until the bucket is full again.
func decide(allowed bool, fill, step time.Duration, limit int) Decision {
	d := Decision{Allowed: allowed, Limit: limit, Reset: fill, Remaining: max(0, int((time.Minute-fill)/step))}
	if !allowed {
		d.Remaining = 0
		d.RetryAfter = max(fill+step-time.Minute, time.Millisecond)
	}
	return d
}

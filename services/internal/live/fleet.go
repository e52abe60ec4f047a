package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Fleet is what the leader sees of the running platform, written every second: a picture for people, of which nothing is lost with Redis.
type Fleet struct {
	At      time.Time    `json:"at"`
	Term    int64        `json:"term"`
	Leader  string       `json:"leader"`
	Workers []WorkerLoad `json:"workers"`
	Queues  []Queue      `json:"queues"`
	Scaling []Scaling    `json:"scaling"`
}

// WorkerLoad is the load of one worker.
type WorkerLoad struct {
	Worker        string    `json:"worker"`
	Session       string    `json:"session"`
	State         string    `json:"state"`
	Slots         int       `json:"slots"`
	Running       int       `json:"running"`
	Buffered      int       `json:"buffered"`
	Ended         uint64    `json:"ended"`
	MemoryMB      int       `json:"memoryMb"`
	MemoryLimitMB int       `json:"memoryLimitMb"`
	CPU           float64   `json:"cpu"`
	CPULimit      float64   `json:"cpuLimit"`
	Heard         time.Time `json:"heard"`
}

// Queue is the state of one queue.
type Queue struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // "tasks", "reports", "retry", "dead"
	Pool      string `json:"pool,omitempty"`
	Priority  string `json:"priority,omitempty"`
	Ready     int    `json:"ready"`
	Consumers int    `json:"consumers"`
	Error     string `json:"error,omitempty"` // why it can't be seen
}

// Scaling is how a pool stands.
type Scaling struct {
	Pool        string  `json:"pool"`
	Job         string  `json:"job,omitempty"`
	Desired     int     `json:"desired"`
	Wanted      int     `json:"wanted"`
	Placed      int     `json:"placed"`
	Reporting   int     `json:"reporting"`
	Backlog     int     `json:"backlog"`
	Buffered    int     `json:"buffered"`
	Running     int     `json:"running"`
	Slots       int     `json:"slots"`
	Arrival     float64 `json:"arrival"`
	Completion  float64 `json:"completion"`
	Utilisation float64 `json:"utilisation"`
	Code        string  `json:"code"`
	Reason      string  `json:"reason"`
}

const (
	fleetKey = "{flow}:fleet"
	// fleetTTL: a picture that is older is none.
	fleetTTL = 20 * time.Second
)

// ErrNoFleet says that there is no picture: no leader has written one lately, or Redis is away.
var ErrNoFleet = errors.New("there is no picture of the running platform: nobody leads (is Consul there?), or Redis was away")

// PutFleet writes the picture.
func (c *Client) PutFleet(ctx context.Context, f Fleet) error {
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("live: %w", err)
	}
	if err := c.r.Set(ctx, fleetKey, b, fleetTTL).Err(); err != nil {
		return fmt.Errorf("live: fleet: %w", err)
	}
	return nil
}

// GetFleet reads the picture; ErrNoFleet when there is none.
func (c *Client) GetFleet(ctx context.Context) (Fleet, error) {
	var f Fleet
	if c == nil {
		return f, fmt.Errorf("%w: this gateway has no REDIS_URL", ErrNoFleet)
	}
	b, err := c.r.Get(ctx, fleetKey).Bytes()
	if errors.Is(err, redis.Nil) {
		return f, ErrNoFleet
	}
	if err != nil {
		return f, fmt.Errorf("%w: %w", ErrNoFleet, err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("live: fleet: %w", err)
	}
	return f, nil
}

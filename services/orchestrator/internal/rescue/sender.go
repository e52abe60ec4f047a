package rescue

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"flowplatform/services/internal/protocol"
)

// Sender sends recover entries through every report queue, so that they come behind everything that was confirmed before (PROTOCOL 11). Anyone may
// send them, any number of times. Safe for concurrent use.
type Sender struct {
	// Shards is how many report queues there are.
	Shards func() int
	// Publish publishes a report to a shard's queue, mandatory, and returns when the broker has it.
	Publish func(ctx context.Context, shard int, body []byte) error
	Log     *slog.Logger

	mu      sync.Mutex
	stopped bool
	pending sync.WaitGroup
}

// soonTimeout is how long Soon tries before it leaves the rest to the leader.
const soonTimeout = 5 * time.Second

// Send sends a recover for each of the sessions through every report queue. ended is when they were found to be over; the zero time: long ago.
func (s *Sender) Send(ctx context.Context, sessions []protocol.ID, ended time.Time) error {
	if len(sessions) == 0 {
		return nil
	}
	entries := make([]protocol.Entry, len(sessions))
	for i, id := range sessions {
		entries[i] = protocol.RecoverEntry(id)
		entries[i].Started = ended // for the measure of how long a recovery takes, nothing else
	}
	shards := s.Shards()
	errs := make([]error, shards)
	var all sync.WaitGroup
	for shard := range shards {
		all.Go(func() {
			body, err := json.Marshal(protocol.Report{V: protocol.SchemaVersion, Shard: shard, Entries: entries})
			if err == nil {
				err = s.Publish(ctx, shard, body)
			}
			errs[shard] = err
		})
	}
	all.Wait()
	for shard, err := range errs {
		if err != nil {
			return fmt.Errorf("rescue.Send: recover of %d sessions to shard %d: %w", len(sessions), shard, err)
		}
	}
	return nil
}

// Soon sends without making its caller wait, and tries again for a while. After that the leader sends.
func (s *Sender) Soon(sessions []protocol.ID) {
	if len(sessions) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	ended := time.Now()
	s.pending.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soonTimeout)
		defer cancel()
		for {
			err := s.Send(ctx, sessions, ended)
			if err == nil {
				return
			}
			if !sleep(ctx, 200*time.Millisecond) {
				s.Log.Warn("recover could not be sent: the leader sends it again", "sessions", sessions, "error", err)
				return
			}
		}
	})
}

// Stop waits for what Soon has begun.
func (s *Sender) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() { s.pending.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("rescue.Stop: recover entries were not sent in time: the leader sends them")
	}
}

// sleep waits, and tells whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

package verify

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// load begins executions at a fixed rate, whatever comes of those before, and remembers what it was answered.
type load struct {
	*workshop
	flow   string
	settle time.Duration
	mu     sync.Mutex
	sent   []answer
}

// answer is what came of one start.
type answer struct {
	at, ended time.Time
	id        string // "" when it failed
	limited   bool   // 429
	err       error
}

// inFlight bounds the starts that wait for an answer at once.
const inFlight = 64

func (l *load) begin(ctx context.Context, rate float64) {
	ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticker.Stop()
	room := make(chan struct{}, inFlight)
	var all sync.WaitGroup
	defer all.Wait()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		select {
		case room <- struct{}{}:
		default:
			continue // nobody answers: enough of them have noticed
		}
		all.Go(func() {
			defer func() { <-room }()
			// What has begun is ended: otherwise the end of the drill would look like a failure.
			one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
			defer cancel()
			a := answer{at: time.Now()}
			var e execution
			status, err := l.api.Do(one, http.MethodPost, "/flows/"+l.flow+"/executions", object{"input": object{"i": i}}, &e)
			a.ended, a.id, a.err, a.limited = time.Now(), e.ID, err, status == http.StatusTooManyRequests
			l.mu.Lock()
			defer l.mu.Unlock()
			l.sent = append(l.sent, a)
		})
	}
}

// calm says whether requests have been answered, and none failed, for a while.
func (l *load) calm(since time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, good := since, 0
	if latest := time.Now().Add(-l.settle); latest.After(from) {
		from = latest
	}
	for _, a := range l.sent {
		if a.ended.Before(from) {
			continue
		}
		if a.err != nil && !a.limited {
			return fmt.Errorf("requests still fail: %w", a.err)
		}
		good++
	}
	if time.Since(since) < l.settle || good == 0 {
		return fmt.Errorf("%d requests have succeeded since it is whole", good)
	}
	return nil
}

// judge counts what clients noticed of a blow. A part that is the only one of its kind can't be missed without that; where there are several, or it
// was asked to stop, nobody should notice.
func (l *load) judge(b blow, struck, whole, led time.Time, instances int) finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, failures := 0, 0
	var first, last time.Time
	slowest := time.Duration(0)
	reason := ""
	for _, a := range l.sent {
		if a.ended.Before(struck) {
			continue
		}
		all++
		slowest = max(slowest, a.ended.Sub(a.at))
		if a.err == nil || a.limited {
			continue
		}
		failures++
		if reason == "" {
			reason = ", first: " + a.err.Error()
		}
		if first.IsZero() || a.at.Before(first) {
			first = a.at
		}
		if a.ended.After(last) {
			last = a.ended
		}
	}
	text := fmt.Sprintf("whole after %.1f s; %d of %d starts failed", whole.Sub(struck).Seconds(), failures, all)
	if failures > 0 {
		text += fmt.Sprintf(" over %.1f s%s", last.Sub(first).Seconds(), reason)
	}
	text += fmt.Sprintf("; slowest %s", slowest.Round(time.Millisecond))
	if !led.IsZero() {
		text += fmt.Sprintf("; led again within %.1f s", led.Sub(struck).Seconds())
	}
	switch {
	case failures == 0:
		return ok("%s", text)
	case b.job == "gateway" && b.kill, instances == 1:
		return warning("%s (%d of job %s)", text, instances, b.job)
	}
	return failed("%s", text)
}

// reckon waits until every execution that was accepted has succeeded.
func (l *load) reckon(ctx context.Context) finding {
	accepted, limited, refused := map[string]bool{}, 0, 0
	for _, a := range l.sent {
		switch {
		case a.id != "":
			accepted[a.id] = true
		case a.limited:
			limited++
		default:
			refused++
		}
	}
	var missing int
	var longest time.Duration
	unknown := 0
	err := until(ctx, time.Second, func() error {
		var err error
		missing, unknown, longest, err = l.missing(ctx, accepted)
		if err == nil && missing > 0 {
			err = fmt.Errorf("%d of %d accepted executions have not succeeded", missing, len(accepted))
		}
		return err
	})
	if err != nil {
		return failed("%v", err)
	}
	text := fmt.Sprintf("%d accepted, all succeeded, the longest after %.1f s (each waits %s)", len(accepted), longest.Seconds(), drillDelay)
	if unknown > 0 {
		text += fmt.Sprintf("; %d more had been accepted without the client being told", unknown)
	}
	if limited > 0 {
		return warning("%s; %d starts were refused by the token's rate limit: a lower --rate, or a token without one", text, limited)
	}
	return ok("%s; %d starts failed in all", text, refused)
}

// missing pages through what has succeeded.
func (l *load) missing(ctx context.Context, accepted map[string]bool) (missing, unknown int, longest time.Duration, err error) {
	seen, cursor := 0, ""
	for {
		var page struct {
			Items      []execution
			NextCursor string
		}
		if _, err := l.api.Do(ctx, http.MethodGet, "/executions?limit=500&status=succeeded&flowId="+l.flow+"&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return 0, 0, 0, err
		}
		for _, e := range page.Items {
			if !accepted[e.ID] {
				unknown++
				continue
			}
			seen++
			longest = max(longest, e.FinishedAt.Sub(e.CreatedAt))
		}
		if cursor = strings.TrimSpace(page.NextCursor); cursor == "" {
			break
		}
	}
	// The first ones tried the flow out, before the load.
	return len(accepted) - seen, max(0, unknown-tried), longest, nil
}

// tried is how many executions of the flow began before the load.
const tried = 2

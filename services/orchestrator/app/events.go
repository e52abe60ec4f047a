package app

import (
	"context"
	"errors"
	"log/slog"

	"flowplatform/services/internal/live"
	"flowplatform/services/internal/protocol"
)

// events tells the live view, when there is a Redis.
type events struct {
	client *live.Client
	shown  func(context.Context, live.Fleet) error // in place of Redis
}

var errNoRedis = errors.New("REDIS_URL is not set: there are no live events")

func newEvents(o Options, log *slog.Logger) (*events, error) {
	if o.RedisURL == "" {
		return &events{shown: o.Show}, nil
	}
	c, err := live.Open(live.Options{URL: o.RedisURL, Cluster: o.RedisClusterEnabled, Log: log})
	if err != nil {
		return nil, err
	}
	return &events{client: c, shown: o.Show}, nil
}

func (e *events) publish(ctx context.Context, news []protocol.News) error {
	if e.client == nil {
		return errNoRedis
	}
	out := make([]live.Event, len(news))
	for i, n := range news {
		out[i] = live.Event{Kind: "execution", Execution: n.Execution.String(), Flow: n.Flow.String(), Status: string(n.State), Attempt: n.Attempt, At: n.At}
		if n.Queue != "" {
			out[i] = live.Event{Kind: live.KindRemote, Execution: n.Execution.String(), Queue: n.Queue, At: n.At}
		}
	}
	return e.client.Append(ctx, out)
}

// show shows people the leader's picture.
func (e *events) show(ctx context.Context, f live.Fleet) error {
	if e.shown != nil {
		return e.shown(ctx, f)
	}
	if e.client == nil {
		return nil // said once, by the health check
	}
	return e.client.PutFleet(ctx, f)
}

func (e *events) ping(ctx context.Context) error {
	if e.client == nil {
		return errNoRedis
	}
	return e.client.Ping(ctx)
}

func (e *events) close(context.Context) error {
	if e.client == nil {
		return nil
	}
	return e.client.Close()
}

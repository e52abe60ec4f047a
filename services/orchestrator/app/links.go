package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/orchestrator/internal/queues"
)

// links are the connections to the broker: one that publishes; those that consume never do.
type links struct {
	o         Options
	id        string
	shards    func() int
	log       *slog.Logger
	publisher *queues.Publisher
	reports   *broker.Conn
	letters   *broker.Conn

	mu    sync.Mutex
	pools []string
}

func newLinks(o Options, id string, shards func() int, log *slog.Logger) *links {
	l := &links{o: o, id: id, shards: shards, log: log, pools: []string{queues.DefaultPool}}
	l.publisher = &queues.Publisher{Broker: broker.NewPublisher(l.options("publish", true)), Log: log}
	l.reports = broker.Dial(l.options("reports", true))
	l.letters = broker.Dial(l.options("dead letters", false))
	return l
}

func (l *links) options(name string, declares bool) broker.Options {
	o := broker.Options{URL: l.o.RabbitMQURL, Exchange: l.o.RabbitMQExchange, Name: fmt.Sprintf("orchestrator %s %s", l.id, name), Log: l.log}
	if declares {
		o.Topology = l.topology
	}
	return o
}

func (l *links) topology(version string) broker.Topology {
	l.mu.Lock()
	defer l.mu.Unlock()
	return broker.NewTopology(l.o.RabbitMQExchange, slices.Clone(l.pools), l.shards(), version)
}

// ensurePool declares the queues of a pool that we have not heard of before: only orchestrators may.
func (l *links) ensurePool(ctx context.Context, pool string) error {
	l.mu.Lock()
	known := slices.Contains(l.pools, pool)
	if !known {
		l.pools = append(l.pools, pool)
	}
	l.mu.Unlock()
	if known {
		return nil
	}
	err := l.declare(ctx)
	if err != nil {
		l.mu.Lock()
		l.pools = slices.DeleteFunc(l.pools, func(p string) bool { return p == pool })
		l.mu.Unlock()
	}
	return err
}

// declare declares everything now, on a connection of its own.
func (l *links) declare(ctx context.Context) error {
	conn := broker.Dial(l.options("declare", true))
	defer conn.Close()
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := conn.Ready() // it is ready when the topology is there
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close lets what is in flight be confirmed, then ends all connections.
func (l *links) close(ctx context.Context) error {
	err := l.publisher.Broker.Close(ctx)
	l.reports.Close()
	l.letters.Close()
	return err
}

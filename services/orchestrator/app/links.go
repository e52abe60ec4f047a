package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/orchestrator/internal/api"
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
	workers   *broker.Conn // health reports, and looks at queues

	missing chan string // pools whose queues are to be declared
	stop    context.CancelFunc
	ended   chan struct{}

	mu    sync.Mutex
	pools []string
}

// mendEvery is how often queues that are missing are declared, at the most.
const mendEvery = 500 * time.Millisecond

func newLinks(o Options, id string, shards func() int, log *slog.Logger) *links {
	ctx, stop := context.WithCancel(context.Background())
	l := &links{o: o, id: id, shards: shards, log: log, pools: []string{queues.DefaultPool}, missing: make(chan string, 16), stop: stop, ended: make(chan struct{})}
	go l.mend(ctx)
	l.publisher = &queues.Publisher{Broker: broker.NewPublisher(l.options("publish", true)), Log: log, Missing: func(pool string) {
		select {
		case l.missing <- pool:
		default: // it is told again when the tasks are published again
		}
	}}
	l.reports = broker.Dial(l.options("reports", true))
	l.letters = broker.Dial(l.options("dead letters", false))
	l.workers = broker.Dial(l.options("workers", false))
	return l
}

func (l *links) options(name string, declares bool) broker.Options {
	o := broker.Options{URL: l.o.RabbitMQURL, Server: l.o.Broker, Exchange: l.o.RabbitMQExchange, Name: fmt.Sprintf("orchestrator %s %s", l.id, name), Log: l.log}
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

// known lists the pools that have queues.
func (l *links) known() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.pools)
}

// mend declares the queues of pools that were found missing: only orchestrators may, so gateways and workers rely on it.
func (l *links) mend(ctx context.Context) {
	defer close(l.ended)
	for {
		select {
		case pool := <-l.missing:
			if !api.PoolName(pool) {
				l.log.Error("executions name a pool that can't have queues", "pool", pool)
				break
			}
			l.mu.Lock()
			if !slices.Contains(l.pools, pool) {
				l.pools = append(l.pools, pool)
			}
			l.mu.Unlock()
			l.log.Warn("no queue takes the tasks of this pool: declared now, its tasks follow; a pool without workers runs nothing", "pool", pool)
			if err := l.declare(ctx); err != nil && ctx.Err() == nil {
				l.log.Warn("the queues of this pool can't be declared yet", "pool", pool, "error", err)
			}
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(mendEvery):
		case <-ctx.Done():
			return
		}
		for len(l.missing) > 0 { // heard before they were declared
			<-l.missing
		}
	}
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
	l.stop()
	<-l.ended
	err := l.publisher.Broker.Close(ctx)
	l.reports.Close()
	l.letters.Close()
	l.workers.Close()
	return err
}

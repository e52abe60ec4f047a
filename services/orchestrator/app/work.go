package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/orchestrator/internal/admit"
	"flowplatform/services/orchestrator/internal/collect"
	"flowplatform/services/orchestrator/internal/fleet"
	"flowplatform/services/orchestrator/internal/followup"
	"flowplatform/services/orchestrator/internal/leader"
	"flowplatform/services/orchestrator/internal/pausing"
	"flowplatform/services/orchestrator/internal/queues"
	"flowplatform/services/orchestrator/internal/registry"
	"flowplatform/services/orchestrator/internal/rescue"
	"flowplatform/services/orchestrator/internal/retention"
	"flowplatform/services/orchestrator/internal/steer"
)

// work starts, as soon as the schema is there, everything that works on the database and the broker.
func (a *App) work(ctx context.Context) error {
	if err := lifecycle.WaitFor(ctx, a.log, "the database, with this build's schema", a.db.SchemaReady); err != nil {
		return err
	}
	if err := lifecycle.WaitFor(ctx, a.log, "the number of report queues", a.readShards); err != nil {
		return err
	}
	a.broker = newLinks(a.o, a.id, a.shardCount, a.component("broker"))
	a.worked.PushBounded("broker", 3*time.Second, a.broker.close)
	a.health.Register("broker", true, func(context.Context) error { return a.broker.reports.Ready() })
	// An alarm stops publishing and ends because we go on reading: no reason to send workers elsewhere.
	a.health.Register("broker takes messages", false, func(context.Context) error { return a.broker.publisher.Broker.Ready() })

	a.follow = followup.New(followup.Options{
		Store: a.db, Publisher: a.broker.publisher, Events: a.events.publish, Control: a.broker.publisher.Control,
		Log: a.component("followup"), Registerer: a.registry,
	})
	a.worked.PushBounded("followup", time.Second, a.follow.Stop)
	a.db.AfterInsert(a.follow.Take)
	a.worked.PushBounded("recover", time.Second, a.sender.Stop)

	a.collect = collect.New(collect.Options{
		Store: a.db, Source: &queues.Reports{Conn: a.broker.reports}, Ready: a.db.Ping, DeadLetters: a.db.InsertDeadLetters, Follow: a.follow.Take,
		QueueName: broker.ReportQueue, Prefetch: a.o.RabbitMQPrefetch, Log: a.component("collect"), Registerer: a.registry,
	})
	a.collect.Ensure(a.shardCount())
	a.worked.PushBounded("collectors", 5*time.Second, a.collect.Stop)
	a.worked.Push("claims", func(context.Context) error { a.claims.Close(); return nil })
	a.worked.Push("sessions", func(context.Context) error { a.sessions.Close(); return nil })
	if err := a.stand(); err != nil {
		return err
	}
	a.working.Store(true)
	a.log.Info("working", "shards", a.shardCount())
	a.begun.Go(func() { a.watchShards(ctx) })
	return nil
}

// stand stands for election.
func (a *App) stand() error {
	letters := &queues.DeadLetters{Conn: a.broker.letters, Insert: a.db.InsertDeadLetters, Log: a.component("deadletters")}
	back := &queues.Requeue{Store: a.db, Publisher: a.broker.publisher, Follow: a.follow.Take, Log: a.component("deadletters")}
	work := rescue.New(rescue.Options{
		Store: a.db, Publisher: a.broker.publisher, Lease: a.o.WorkerLease, Clock: leader.Boottime, Sender: a.sender, Follow: a.follow.Take,
		DeadLetters: letters.Run, Requeue: back.Step, Log: a.component("rescue"), Registerer: a.registry,
	})
	letters.Moved = work.LettersMoved
	keep := retention.New(retention.Options{
		Store: a.db, Executions: a.o.ExecutionRetention, History: a.o.HistoryRetention, Audit: a.o.AuditRetention, Log: a.component("retention"), Registerer: a.registry,
	})
	pauses := pausing.New(pausing.Options{Store: a.db, Follow: a.follow.Take, Log: a.component("pausing"), Registerer: a.registry})
	jobs, err := a.bulk()
	if err != nil {
		return err
	}
	limits := admit.New(admit.Options{Store: a.db, Publisher: a.broker.publisher, Forget: a.db.ForgetLimits, Log: a.component("limits"), Registerer: a.registry})
	steering, err := a.steering()
	if err != nil {
		return err
	}
	schedules, catcher, err := a.scheduling()
	if err != nil {
		return err
	}
	elector, err := leader.New(leader.Options{
		Address: a.o.ConsulAddress, Token: a.o.ConsulToken, Key: a.o.LeaderKey, TTL: a.o.LeaderTTL, Holder: a.id, RaiseTerm: a.db.RaiseTerm, Alone: a.o.Alone,
		Work: func(ctx context.Context, term *leader.Term) {
			var loops sync.WaitGroup
			loops.Go(func() { work.Work(ctx, term) })
			loops.Go(func() { keep.Work(ctx, term) })
			loops.Go(func() { limits.Work(ctx, term) })
			loops.Go(func() { pauses.Work(ctx, term) })
			loops.Go(func() { jobs.Work(ctx, term) })
			loops.Go(func() { steering.Work(ctx, term.Number, term) })
			loops.Go(func() { schedules.Work(ctx, term.Number, term) })
			loops.Go(func() { catcher.Work(ctx, term) })
			loops.Wait()
		},
		Log: a.component("leader"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.elector = elector
	if !a.o.Alone {
		a.health.Register("consul", false, func(context.Context) error { return elector.Err() })
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); elector.Run(ctx) }()
	a.worked.PushBounded("leadership", 3*time.Second, func(bounded context.Context) error {
		stop()
		select {
		case <-done:
			return nil
		case <-bounded.Done():
			return errors.New("the leader's work did not end in time; its lock is free all the same")
		}
	})
	return nil
}

// steering makes the leader's loop over settings, workers and their number. Health reports are heard whoever leads.
func (a *App) steering() (*steer.Steer, error) {
	workers := registry.New(a.component("registry"), a.registry, time.Now)
	ctx, stop := context.WithCancel(context.Background())
	var hearing sync.WaitGroup
	hearing.Go(func() { workers.Listen(ctx, a.broker.workers, a.id) })
	a.worked.PushBounded("health reports", 3*time.Second, func(context.Context) error { stop(); hearing.Wait(); return nil })
	o := steer.Options{
		Defaults: a.o.Values, Leader: a.id, Store: a.db, Workers: workers.Workers, Inspect: a.broker.workers.Inspect, Pools: a.broker.known, Shards: a.shardCount,
		KV: func(ctx context.Context) (map[string]string, error) {
			return a.elector.KV(ctx, steer.KVPrefix)
		},
		Tell: a.broker.publisher.Tell, Show: a.events.show, Log: a.component("steer"), Registerer: a.registry,
	}
	if a.o.NomadAddress != "" {
		nomad, err := fleet.New(fleet.Options{Address: a.o.NomadAddress, Token: a.o.NomadToken, Job: a.o.WorkerJob})
		if err != nil {
			return nil, err
		}
		o.Fleet = nomad
		a.health.Register("nomad", false, nomad.Ready)
	}
	return steer.New(o), nil
}

// readShards reads how many report queues there are.
func (a *App) readShards(ctx context.Context) error {
	n, err := a.db.ReportShards(ctx)
	if err != nil {
		return err
	}
	if n < 1 {
		return fmt.Errorf("the database says %d report queues: at least 1 is needed", n)
	}
	a.shards.Store(int64(max(n, a.shardCount()))) // the queues of a larger number before are read until they are empty
	return nil
}

// watchShards follows a growing number of report queues: they are declared before anyone is told of them.
func (a *App) watchShards(ctx context.Context) {
	tick := time.NewTicker(shardsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := a.readShards(ctx); err != nil {
			continue
		}
		if n := a.shardCount(); n > a.collect.Shards() {
			a.log.Info("more report queues", "shards", n)
			if err := a.broker.declare(ctx); err != nil {
				a.log.Warn("the new queues can't be declared yet", "error", err)
				continue
			}
			a.collect.Ensure(n)
		}
	}
}

// call starts a flow that a step calls.
func (a *App) call(ctx context.Context, req protocol.CallRequest) (protocol.CallAnswer, error) {
	if !a.working.Load() {
		return protocol.CallAnswer{}, errors.New("this orchestrator is still starting")
	}
	return a.calls.Call(ctx, req)
}

// open sees to it that the pool of a worker has its queues, and opens the session.
func (a *App) open(ctx context.Context, req protocol.OpenSessionRequest) (protocol.SessionResponse, error) {
	if !a.working.Load() {
		return protocol.SessionResponse{}, errors.New("this orchestrator is still starting")
	}
	if err := a.broker.ensurePool(ctx, pool(req.Pool)); err != nil {
		a.log.Warn("the queues of this pool can't be declared yet", "pool", req.Pool, "error", err)
	}
	return a.sessions.Open(ctx, req)
}

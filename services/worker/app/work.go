package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
	"flowplatform/services/worker/internal/link"
	"flowplatform/services/worker/internal/runner"
	"flowplatform/services/worker/internal/session"
	"flowplatform/services/worker/internal/upstream"
)

// work takes the lock, keeps a session, and consumes.
func (a *App) work() {
	file, err := session.Lock(a.ctx, a.o.WorkerStateDir, a.component("session"), func(holder string) {
		a.setCause("waits for the lock of " + a.o.WorkerStateDir + ", which process " + holder + " holds: this allocation's former worker still lives")
	})
	if err != nil {
		if a.ctx.Err() == nil {
			a.giveUp(fmt.Errorf("the worker can't begin: %w", err))
		}
		return
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	keeper := session.NewKeeper(session.Options{
		Lease: a.o.WorkerLease, File: file, Window: a.window, Calls: upstream.NewClient(a.directory, a.o.InternalToken), Runs: a.runner.Numbers, Listener: listener{a.runner, a},
		Opening: protocol.OpenSessionRequest{Worker: a.o.WorkerID, Pool: a.o.WorkerPool, Host: host, Version: version(), Allocation: a.o.Allocation, Slots: a.o.MaxConcurrentFlows, Weight: a.o.WorkerWeight},
		NewID:   store.NewID, Log: a.component("session"), Metrics: session.NewMetrics(a.registry),
	})
	conn := broker.Dial(broker.Options{URL: a.o.RabbitMQURL, Server: a.o.Broker, Exchange: a.o.RabbitMQExchange, Name: "worker " + a.o.WorkerID + " tasks", Log: a.component("broker")})
	feed := link.NewFeed(conn, a.o.WorkerPool, a.prefetch(a.o.MaxConcurrentFlows), a.runner.Offer)
	a.mu.Lock()
	a.keeper, a.feed, a.file = keeper, feed, file
	if a.ctx.Err() == nil {
		a.cause = ""
	}
	a.mu.Unlock()
	kept, stop := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() {
		select { // a first call to nobody would cost the successor of a dead worker half a second of back-off
		case <-a.directory.Known():
		case <-kept.Done():
		}
		if err := keeper.Run(kept); err != nil {
			a.giveUp(err)
		}
	})
	control := conn.Consume(broker.ConsumeOptions{Queue: broker.ControlQueue(a.o.WorkerID + "." + strconv.Itoa(os.Getpid())), Prefetch: 100, Bindings: []string{broker.ControlBinding}})
	a.wg.Go(func() { a.obey(control) })
	<-a.ctx.Done()
	a.finish(keeper, feed, conn)
	stop()
	keeping.Wait()
	if _, running, _ := a.runner.Load(); running == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := keeper.End(ctx, "its worker has stopped"); err != nil {
			a.log.Warn("the session wasn't ended", "error", err)
		}
	}
}

// brokerPatience is how long a worker that stops waits for a broker that takes nothing (an alarm, away, or there and silent).
const brokerPatience = 2 * time.Second

// quiescePatience is how long the broker may take to end the consuming: longer than brokerPatience, so that a broker that says nothing at all shows as that.
const quiescePatience = brokerPatience + time.Second

// finish empties the worker and closes the connection that it consumes on: see the package's picture.
func (a *App) finish(keeper *session.Keeper, feed *link.Feed, conn *broker.Conn) {
	heard, deaf := context.WithCancel(context.Background()) // ends when the broker takes nothing
	defer deaf()
	var listening sync.WaitGroup
	listening.Go(func() { a.listen(heard, deaf) })
	// Closing takes its time with a broker that says nothing, so both connections are closed at once then, while the rest goes on.
	closeEarly := context.AfterFunc(heard, func() {
		if err := a.closePublisher(context.Background()); err != nil {
			a.log.Warn("the publisher wasn't closed", "error", err)
		}
	})
	calm, hurried := context.WithCancel(heard) // ends when somebody hurries, too
	defer hurried()
	listening.Go(func() {
		select {
		case <-a.hurry:
			hurried()
		case <-calm.Done():
		}
	})
	bounded := func(parent context.Context, d time.Duration, what string, do func(context.Context) error) bool {
		ctx, cancel := context.WithTimeout(parent, d)
		defer cancel()
		err := do(ctx)
		if err != nil {
			a.log.Info(what, "reason", err.Error())
		}
		return err == nil
	}
	if !bounded(heard, quiescePatience, "consuming did not end in order", feed.Quiesce) {
		// First the broker takes back what is held, or what is handed back would be there twice: no acknowledgement arrives. If it takes no reports either nothing is handed back.
		closed := make(chan struct{})
		listening.Go(func() { defer close(closed); closeConn(a.log, conn) })
		select {
		case <-closed:
		case <-heard.Done():
		}
	}
	bounded(heard, 5*time.Second, "not all tasks were handed back", func(ctx context.Context) error { a.runner.Finish(ctx); return nil })
	if !bounded(calm, a.o.StopGrace, "executions are handed back at their next step", a.runner.Wait) {
		a.runner.Drain()
		if !bounded(calm, a.o.StopPatience, "steps in flight are cut", a.runner.Wait) {
			a.runner.Abandon()
			if !bounded(heard, keeper.Lease(), "executions are left to recovery", a.runner.Wait) && heard.Err() != nil {
				bounded(context.Background(), session.CutTime, "what was cut hasn't ended", a.runner.Wait)
			}
		}
	}
	bounded(context.Background(), 2*time.Second, "consumers did not stop in order", feed.Stop)
	a.runner.Close()
	closeConn(a.log, conn)
	feed.Wait()
	closeEarly()
	deaf()
	listening.Wait()
}

func closeConn(log *slog.Logger, conn *broker.Conn) {
	if err := conn.Close(); err != nil {
		log.Warn("the connection wasn't closed", "error", err)
	}
}

// closePublisher gives what is on its way a time to be confirmed: hardly any when nobody listens.
func (a *App) closePublisher(ctx context.Context) error {
	bound := 5 * time.Second
	if a.outbox.Ready() != nil || a.outbox.Silence() >= brokerPatience {
		bound = 300 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return a.publisher.Close(ctx)
}

// listen calls deaf when the broker has taken nothing for brokerPatience, without a break: it says so, or confirms nothing of what was sent. Something was sent: the
// health report that says "draining".
func (a *App) listen(ctx context.Context, deaf func()) {
	t := time.NewTicker(look)
	defer t.Stop()
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if a.outbox.Ready() == nil {
			since = time.Now()
		}
		if silence := a.outbox.Silence(); max(silence, time.Since(since)) >= brokerPatience {
			a.log.Warn("the broker takes nothing: what can't be reported is left to recovery", "silence", silence.String())
			deaf()
			return
		}
	}
}

// unlock releases the lock, unless executions were left behind: then the kernel does it with the end of the process, when nothing of them can act.
func (a *App) unlock(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, running, _ := a.runner.Load(); a.file == nil || running > 0 {
		return nil
	}
	return a.file.Close()
}

// giveUp ends the process: what is wrong doesn't mend itself.
func (a *App) giveUp(err error) {
	a.log.Error("the worker ends", "error", err)
	a.setCause(err.Error())
	a.mu.Lock()
	a.fatal = errors.Join(a.fatal, err)
	a.mu.Unlock()
	a.once.Do(func() { close(a.order) })
}

// drain ends the process in order because the platform asks for it.
func (a *App) drain() {
	a.once.Do(func() {
		a.log.Info("asked to drain: the worker stops")
		close(a.order)
	})
}

// listener brings the session's news to the runner.
type listener struct {
	*runner.Runner
	a *App
}

// Orders brings what a renewal's answer carried.
func (l listener) Orders(answer protocol.SessionResponse) {
	for _, c := range answer.Cancels {
		l.Cancel(c)
	}
	for _, id := range answer.Pauses {
		l.Hush(id)
	}
	l.PauseTypes(answer.PausedTypes)
	if answer.PausedPool != "" {
		l.Pause("pool")
	} else {
		l.Resume("pool")
	}
	if id, _ := l.a.window.Current(); len(answer.Orphans) > 0 {
		l.Disown(id, answer.Orphans)
	}
	l.Gone(answer.Gone)
	l.a.tune(answer.Slots)
	if answer.Drain {
		l.a.drain()
	}
}

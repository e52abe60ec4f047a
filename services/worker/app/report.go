package app

import (
	"encoding/json"
	"errors"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
)

// look is how often the broker's state and the memory are looked at; amqp091 tells of alarms, and this only reads a flag.
const look = 100 * time.Millisecond

// Shares of MEMORY_LIMIT_MB that live objects may have: above the first nothing is begun beside what runs, until they have less than the second.
const (
	memoryFull = 0.75
	memoryEasy = 0.60
)

// watch begins nothing new while the broker takes no reports, or memory is short.
func (a *App) watch() {
	t := time.NewTicker(look)
	defer t.Stop()
	full, collected := false, time.Time{}
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-t.C:
		}
		a.hold("alarm", errors.Is(a.outbox.Ready(), broker.ErrBlocked))
		if full && time.Since(collected) > time.Second { // what is live is only known after a collection
			runtime.GC()
			collected = time.Now()
		}
		was := full
		full = crowded(full, float64(liveBytes())/float64(int64(a.o.MemoryLimitMB)<<20))
		if full && !was {
			a.log.Warn("memory is short: nothing new is begun until executions have ended", "limitMb", a.o.MemoryLimitMB)
		}
		_, running, _ := a.runner.Load()
		a.hold("memory", full && running > 0) // one at a time goes on, or nothing ever would
	}
}

func crowded(was bool, share float64) bool {
	if was {
		return share > memoryEasy
	}
	return share > memoryFull
}

func (a *App) hold(reason string, on bool) {
	if on {
		a.runner.Pause(reason)
	} else {
		a.runner.Resume(reason)
	}
}

// report sends health reports: every HEALTH_REPORT_INTERVAL, and when anything has been done or what is buffered has changed (both steer the scaling), at
// most once a second.
func (a *App) report() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	r := reporter{a: a, at: time.Now(), used: cpuTime()}
	last := protocol.ID{} // session of the last report: a new one is told at once
	for {
		select {
		case <-a.ctx.Done():
			r.send("draining")
			return
		case <-t.C:
		}
		_, _, buffered := a.runner.Load()
		id, open := a.window.Current()
		if buffered == r.buffered && a.runner.Ended() == r.ended && id == last && time.Since(r.at) < a.o.HealthReportInterval-look {
			continue
		}
		state := "ready"
		if !open {
			state = "holding"
		}
		r.send(state)
		last = id
	}
}

// reporter remembers the last health report.
type reporter struct {
	a        *App
	at       time.Time
	used     time.Duration
	buffered int
	ended    uint64
}

func (r *reporter) send(state string) {
	a := r.a
	if a.outbox.Ready() != nil {
		return // it would only wait in the queue and be old
	}
	id, _ := a.window.Current()
	slots, running, buffered := a.runner.Load()
	now, cpu, ended := time.Now(), cpuTime(), a.runner.Ended()
	var messages, tasks uint64
	a.mu.Lock()
	if a.feed != nil {
		messages, tasks = a.feed.Received()
	}
	a.mu.Unlock()
	err := a.outbox.Heartbeat(protocol.Heartbeat{
		Messages: messages, Tasks: tasks,
		V: protocol.SchemaVersion, Worker: a.o.WorkerID, Session: id, Pool: a.o.WorkerPool, Slots: slots, Running: running, Buffered: buffered,
		Ended: ended, MemoryMB: memoryMB(), MemoryLimitMB: a.o.MemoryLimitMB, CPULimit: a.o.CPULimitCores, EveryMS: a.o.HealthReportInterval.Milliseconds(), CPU: (cpu - r.used).Seconds() / max(now.Sub(r.at).Seconds(), 0.001), Version: version(), State: state, At: now.UTC(),
	})
	r.at, r.used, r.buffered, r.ended = now, cpu, buffered, ended
	if err != nil {
		a.log.Debug("no health report", "reason", err.Error())
	}
}

// obey takes control messages until the connection is closed: for speed only, renewals carry the same.
func (a *App) obey(c *broker.Consumer) {
	for d := range c.Deliveries() {
		var m protocol.Control
		if err := json.Unmarshal(d.Body, &m); err != nil {
			a.log.Warn("a control message can't be read", "reason", err.Error())
		}
		if m.Cancel != nil {
			a.runner.Cancel(*m.Cancel)
		}
		if m.Pause != nil {
			a.runner.Hush(*m.Pause)
		}
		if len(m.Tune) > 0 && m.Term >= a.term { // of a leader, not of one before it
			a.term = m.Term
			a.tuneBy(m.Tune)
		}
		if m.Drain != "" && m.Drain == a.o.WorkerID {
			a.drain()
		}
		d.Ack()
	}
}

// tuneBy follows the order that is for our session.
func (a *App) tuneBy(orders []protocol.TuneOrder) {
	id, _ := a.window.Current()
	for _, o := range orders {
		if o.Session == id && !id.IsZero() {
			a.tune(o.Slots)
		}
	}
}

// tune sets the slots, and with them how many tasks are held; 0: our own limit.
func (a *App) tune(slots int) {
	if slots <= 0 || slots > a.o.MaxConcurrentFlows {
		slots = a.o.MaxConcurrentFlows
	}
	if before, _, _ := a.runner.Load(); before != slots {
		a.log.Info("slots are tuned", "slots", slots, "limit", a.o.MaxConcurrentFlows)
	}
	a.runner.Resize(slots)
	a.mu.Lock()
	feed := a.feed
	a.mu.Unlock()
	if feed != nil {
		feed.Retune(a.prefetch(slots))
	}
}

// prefetch is how many messages of each priority are held beyond what has begun. A message carries up to 16 tasks, hence the quarter.
func (a *App) prefetch(slots int) int { return min(slots, 256)/4 + a.o.RabbitMQPrefetch }

// version is the build's.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "dev"
}

// liveBytes is what the last collection found in use.
func liveBytes() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func memoryMB() int {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int((s[0].Value.Uint64() - s[1].Value.Uint64()) >> 20)
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

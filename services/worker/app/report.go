package app

import (
	"encoding/json"
	"errors"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/protocol"
)

// alarmLook is how often the broker's state is looked at; amqp091 tells of alarms, and this only reads a flag.
const alarmLook = 200 * time.Millisecond

// watchAlarm begins nothing new while the broker takes no reports.
func (a *App) watchAlarm() {
	t := time.NewTicker(alarmLook)
	defer t.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-t.C:
			if errors.Is(a.outbox.Ready(), broker.ErrBlocked) {
				a.runner.Pause("alarm")
			} else {
				a.runner.Resume("alarm")
			}
		}
	}
}

// report sends health reports.
func (a *App) report() {
	t := time.NewTicker(a.o.HealthReportInterval)
	defer t.Stop()
	at, used := time.Now(), cpuTime()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-t.C:
		}
		id, open := a.window.Current()
		slots, running, buffered := a.runner.Load()
		state := "ready"
		if !open {
			state = "holding"
		}
		now, cpu := time.Now(), cpuTime()
		err := a.outbox.Heartbeat(protocol.Heartbeat{
			V: protocol.SchemaVersion, Worker: a.o.WorkerID, Session: id, Pool: a.o.WorkerPool, Slots: slots, Running: running, Buffered: buffered,
			MemoryMB: memoryMB(), CPU: (cpu - used).Seconds() / now.Sub(at).Seconds(), Version: version(), State: state, At: now.UTC(),
		})
		at, used = now, cpu
		if err != nil {
			a.log.Debug("no health report", "reason", err.Error())
		}
	}
}

// obey takes control messages: for speed only, renewals carry the same.
func (a *App) obey(c *broker.Consumer) {
	for {
		select {
		case <-a.ctx.Done():
			return
		case d, ok := <-c.Deliveries():
			if !ok {
				return
			}
			var m protocol.Control
			if err := json.Unmarshal(d.Body, &m); err != nil {
				a.log.Warn("a control message can't be read", "reason", err.Error())
			} else if m.Cancel != nil {
				a.runner.Cancel(*m.Cancel)
			}
			d.Ack()
		}
	}
}

// version is the build's.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "dev"
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

package sim

import (
	"context"

	"flowplatform/services/internal/protocol"
)

// The broker: a task queue that redelivers when a channel is lost, and report queues with a single active consumer that moves. A confirmed report
// stays in its queue, in order; nothing else is promised.

type taskMessage struct {
	task        protocol.Task
	redelivered bool
}

// delivery is a task in the hands of a consumer, on one of its channels.
type delivery struct {
	m       *taskMessage
	channel int
}

// reportBatch is what a collector was given at once, under one epoch of its consumer.
type reportBatch struct {
	epoch   int
	reports []*protocol.Report
}

type reportQueue struct {
	ready, unacked []*protocol.Report
	active, epoch  int
	lossy          bool                       // the next confirmed report of an owner is lost
	held           map[int][]*protocol.Report // kept by a consumer that cancelled over them (Broken.CancelOverBatch)
}

// publish puts a message on the wire and waits for its confirm. false: the outcome is not known, the message may come, late.
func (p *proc) publish(what string, arrive func()) bool {
	s := p.s
	p.step()
	if s.now < p.h.cutBroker {
		if s.r.IntN(2) == 0 {
			s.after(20+s.n(200), arrive) // pends, comes after the heal
		}
		p.sleep(30)
		return false
	}
	arrived := int64(-1)
	delay, back := 1+s.n(5), 1+s.n(6)
	confirmed, lost := !s.noise(4), s.noise(4)
	if s.noise(4) {
		delay = 40 + s.n(250)
	}
	if !lost {
		s.after(delay, func() { arrived = s.now; arrive() })
	}
	ok := p.wait(func() bool { return confirmed && arrived >= 0 && s.now >= arrived+back }, s.now+50)
	if !ok {
		s.tr("%s: no confirm for %s", p.h.name(), what)
	}
	return ok
}

// publisher hands tasks out. It implements protocol.TaskPublisher.
type publisher struct{ p *proc }

func (b publisher) PublishTasks(_ context.Context, tasks []protocol.Task) []bool {
	out := make([]bool, len(tasks))
	for i, t := range tasks {
		m := t
		out[i] = b.p.publish("a task", func() { b.p.s.tasks = append(b.p.s.tasks, &taskMessage{task: m}) })
	}
	return out
}

// publishReport gives false when the outcome is not known.
func (p *proc) publishReport(r *protocol.Report) bool {
	return p.publish("a report", func() {
		if q := &p.s.queue[r.Shard]; !q.lost(p.s, r) {
			q.ready = append(q.ready, r)
		}
	})
}

const prefetch = 3

// taskFor picks a task of a worker's pool: the oldest, now and then another; -1: there is none. Each pool has a queue of its own.
func (s *Sim) taskFor(h *host) int {
	i := 0
	if s.r.IntN(4) == 0 && !s.quiet {
		i = s.r.IntN(len(s.tasks))
	}
	for range s.tasks {
		if s.tasks[i].task.Pool == h.pool {
			return i
		}
		i = (i + 1) % len(s.tasks)
	}
	return -1
}

func (s *Sim) pumpBroker() {
	if len(s.tasks) > 0 {
		h := s.workers[s.r.IntN(len(s.workers))]
		if i := s.taskFor(h); i >= 0 && h.up && !h.draining && len(h.unacked) < prefetch && s.now >= h.cutBroker {
			m := s.tasks[i]
			s.tasks = append(s.tasks[:i:i], s.tasks[i+1:]...)
			d := &delivery{m: m, channel: h.channel}
			h.unacked = append(h.unacked, d)
			h.worker.accept(d)
		}
	}
	for k := range s.queue {
		q := &s.queue[k]
		o := s.orchs[q.active]
		if !o.up {
			if s.r.IntN(10) == 0 {
				s.moveConsumer(k, false)
			}
			continue
		}
		if len(q.unacked) == 0 && len(q.ready) > 0 {
			n := min(1+s.r.IntN(3), len(q.ready))
			q.unacked = append([]*protocol.Report(nil), q.ready[:n]...)
			q.ready = q.ready[n:]
			o.server.batches[k] = append(o.server.batches[k], &reportBatch{q.epoch, q.unacked})
		}
	}
}

// moveConsumer makes the other orchestrator the active consumer; what was not acknowledged comes back to the head of the queue.
func (s *Sim) moveConsumer(k int, keep bool) {
	q := &s.queue[k]
	if keep && len(q.unacked) > 0 {
		if q.held == nil {
			q.held = map[int][]*protocol.Report{}
		}
		q.held[q.epoch] = q.unacked
	} else {
		q.ready = append(append([]*protocol.Report(nil), q.unacked...), q.ready...)
	}
	if len(q.unacked) > 0 {
		s.tr("report queue %d moves from O%d to O%d over a batch (returned: %v)", k, q.active, 1-q.active, !keep)
	}
	q.unacked = nil
	q.epoch++
	q.active = 1 - q.active
}

func (h *host) ack(d *delivery) {
	for i, u := range h.unacked {
		if u == d {
			h.unacked = append(h.unacked[:i:i], h.unacked[i+1:]...)
			return
		}
	}
}

func (s *Sim) loseChannel(h *host) {
	for _, d := range h.unacked {
		d.m.redelivered = true
		s.tasks = append([]*taskMessage{d.m}, s.tasks...)
	}
	h.unacked, h.worker.parked = nil, nil
	h.channel++
}

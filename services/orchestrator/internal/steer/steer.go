// Package steer is the leader's loop over what runs: every second, and as soon as a backlog passes its mark, it looks at settings, workers, queues and Nomad's groups, shares the work among the workers (package
// balance), decides how many there should be (package autoscale), and does it.
//
//	settings ─┐
//	workers  ─┤           ┌─► slots    ─► sessions.tuned (fenced) ─► control message, renewals
//	queues   ─┼─► tick ───┼─► decision ─► decisions (fenced)      ─► Nomad
//	Nomad    ─┘           └─► picture  ─► Redis, for people
//
// What it does is no compare-and-set by nature, so it carries the term: a decision is a row before it is an act, and PostgreSQL refuses the row of a leader that
// isn't the newest. Nomad compares the job's index besides. What is remembered between two looks is lost with the term, on purpose: a new leader scales up by what it sees
// at once, and down only when it has seen a whole down window itself.
package steer

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/broker"
	"flowplatform/services/internal/live"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/settings"
	"flowplatform/services/internal/store"
	"flowplatform/services/orchestrator/internal/autoscale"
	"flowplatform/services/orchestrator/internal/fleet"
	"flowplatform/services/orchestrator/internal/registry"
)

const (
	// step is how often it looks.
	step = time.Second
	// bound of one look.
	bound = 10 * time.Second
	// heldEvery bounds how often a decision that can't be carried out is written for a pool.
	heldEvery = 10 * time.Second
)

// Term of the leader.
type Term interface{ Valid() bool }

// Options of New. All are required but Fleet, KV and Show.
type Options struct {
	Defaults settings.Values // of our environment
	Leader   string          // names this process, for people
	Store    *store.DB
	Workers  func(timeout time.Duration) []registry.Worker
	Inspect  func(ctx context.Context, queue string) (broker.QueueState, error)
	Pools    func() []string // that have queues
	Shards   func() int
	Fleet    *fleet.Fleet // nil: no NOMAD_ADDR, nothing is scaled
	// KV reads what stands in Consul below settings.
	KV func(ctx context.Context) (map[string]string, error)
	// Tell sends a control message to all workers.
	Tell func(m protocol.Control) error
	// Show shows people the picture.
	Show       func(ctx context.Context, f live.Fleet) error
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Steer does this part of the leader's work, one term at a time.
type Steer struct {
	o       Options
	metrics *metrics
}

// New returns a Steer.
func New(o Options) *Steer { return &Steer{o: o, metrics: newMetrics(o.Registerer)} }

// Work works until ctx ends.
func (s *Steer) Work(ctx context.Context, number int64, term Term) {
	t := &run{Steer: s, number: number, term: term, values: s.o.Defaults, pools: map[string]*pool{}, ended: map[protocol.ID]uint64{}, failing: map[string]bool{}}
	tick := time.NewTicker(peek)
	defer tick.Stop()
	for n := 0; ; n++ {
		if term.Valid() && (n%int(step/peek) == 0 || t.rises(ctx)) {
			n = 0
			bounded, cancel := context.WithTimeout(ctx, bound)
			t.look(bounded)
			cancel()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// run is what is remembered during one term. One goroutine.
type run struct {
	*Steer
	number  int64
	term    Term
	values  settings.Values
	state   *settings.State // as written last; nil: not read yet
	pools   map[string]*pool
	ended   map[protocol.ID]uint64    // by session, at the last look
	taken   map[protocol.ID][2]uint64 // messages and tasks, the same
	looked  time.Time
	failing map[string]bool
}

// pool is what is remembered of a pool.
type pool struct {
	rates    autoscale.Rates
	packed   float64 // tasks in a message, as they come; 0: not known yet
	state    autoscale.State
	decision autoscale.Decision
	above    bool           // the backlog was at or above the high mark
	held     autoscale.Code // as written last
	heldAt   time.Time
}

// member is a worker with a session that is alive.
type member struct {
	store.WorkerSession
	load  *registry.Worker // nil: it has not reported under this session
	fresh bool
}

// look is one look at everything, and what follows from it.
func (t *run) look(ctx context.Context) {
	t.note(ctx, "settings", t.settle(ctx))
	now := time.Now()
	heard := t.o.Workers(t.values.WorkerTimeout)
	members, err := t.members(ctx, heard, now)
	t.note(ctx, "sessions", err)
	queues := t.queues(ctx, members)
	if err == nil {
		t.note(ctx, "balance", t.balance(ctx, members))
	}
	picture := live.Fleet{At: now.UTC(), Term: t.number, Leader: t.o.Leader, Queues: queues, Workers: view(heard)}
	ended := t.rate(members, now)
	taken := t.takings(members)
	for _, name := range poolsOf(members, t.o.Pools()) {
		p := t.pools[name]
		if p == nil {
			p = &pool{}
			t.pools[name] = p
		}
		p.learn(taken[name])
		picture.Scaling = append(picture.Scaling, t.scale(ctx, name, p, membersOf(members, name), err, queues, ended[name], now))
	}
	if t.o.Show != nil {
		t.note(ctx, "picture", t.o.Show(ctx, picture))
	}
}

// members brings sessions and health reports together.
func (t *run) members(ctx context.Context, heard []registry.Worker, now time.Time) ([]member, error) {
	sessions, err := t.o.Store.AliveSessions(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]member, len(sessions))
	for i, se := range sessions {
		out[i] = member{WorkerSession: se}
		if out[i].Pool == "" {
			out[i].Pool = DefaultPool
		}
		if at := slices.IndexFunc(heard, func(w registry.Worker) bool { return w.Session == se.ID }); at >= 0 {
			out[i].load, out[i].fresh = &heard[at], heard[at].Fresh(now)
		}
	}
	return out, nil
}

// DefaultPool is that of workers and tasks that name none.
const DefaultPool = "default"

func membersOf(all []member, pool string) []member {
	return slices.DeleteFunc(slices.Clone(all), func(m member) bool { return m.Pool != pool })
}

func poolsOf(members []member, known []string) []string {
	out := slices.Clone(known)
	for _, m := range members {
		out = append(out, m.Pool)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// rate is how many executions a second have ended in each pool since the last look.
func (t *run) rate(members []member, now time.Time) map[string]float64 {
	apart := now.Sub(t.looked).Seconds()
	out := map[string]float64{}
	next := make(map[protocol.ID]uint64, len(members))
	for _, m := range members {
		if m.load == nil {
			continue
		}
		next[m.ID] = m.load.Ended
		if before, ok := t.ended[m.ID]; ok && m.load.Ended > before && apart > 0 {
			out[m.Pool] += float64(m.load.Ended-before) / apart
		}
	}
	t.ended, t.looked = next, now
	return out
}

// takings is how many messages and tasks the workers of each pool have taken since the last look.
func (t *run) takings(members []member) map[string][2]uint64 {
	out := map[string][2]uint64{}
	next := make(map[protocol.ID][2]uint64, len(members))
	for _, m := range members {
		if m.load == nil {
			continue
		}
		now := [2]uint64{m.load.Messages, m.load.Tasks}
		next[m.ID] = now
		if before := t.taken[m.ID]; now[0] >= before[0] && now[1] >= before[1] {
			sum := out[m.Pool]
			out[m.Pool] = [2]uint64{sum[0] + now[0] - before[0], sum[1] + now[1] - before[1]}
		}
	}
	t.taken = next
	return out
}

// learn follows how many tasks a message carries: those that wait are as full as those that were just taken, more or less.
func (p *pool) learn(taken [2]uint64) {
	if taken[0] == 0 {
		return
	}
	now := float64(taken[1]) / float64(taken[0])
	if p.packed == 0 {
		p.packed = now
	}
	p.packed += 0.3 * (now - p.packed)
}

// queues looks at every queue. One that can't be seen says why.
func (t *run) queues(ctx context.Context, members []member) []live.Queue {
	var out []live.Queue
	for _, pool := range poolsOf(members, t.o.Pools()) {
		for _, priority := range broker.Priorities {
			out = append(out, live.Queue{Name: broker.TaskQueue(pool, priority), Kind: "tasks", Pool: pool, Priority: priority})
		}
	}
	for shard := range t.o.Shards() {
		out = append(out, live.Queue{Name: broker.ReportQueue(shard), Kind: "reports"})
	}
	out = append(out, live.Queue{Name: broker.RetryQueue, Kind: "retry"}, live.Queue{Name: broker.DeadQueue, Kind: "dead"})
	away := ""
	for i := range out {
		q := &out[i]
		if away != "" { // one wait for a broker that is away is enough
			q.Error = away
			continue
		}
		state, err := t.o.Inspect(ctx, q.Name)
		if err != nil {
			q.Error = err.Error()
			if !isNoQueue(err) {
				away = err.Error()
			}
			continue
		}
		q.Ready, q.Consumers = state.Ready, state.Consumers
		t.metrics.ready.WithLabelValues(q.Name).Set(float64(q.Ready))
	}
	return out
}

func view(heard []registry.Worker) []live.WorkerLoad {
	out := make([]live.WorkerLoad, len(heard))
	for i, w := range heard {
		out[i] = live.WorkerLoad{Worker: w.Worker, Session: w.Session.String(), State: w.State, Slots: w.Slots, Running: w.Running, Buffered: w.Buffered, Ended: w.Ended,
			MemoryMB: w.MemoryMB, MemoryLimitMB: w.MemoryLimitMB, CPU: w.CPU, CPULimit: w.CPULimit, Heard: w.Heard.UTC()}
	}
	return out
}

// note logs the first failure of a row of failures, and its end.
func (t *run) note(ctx context.Context, name string, err error) {
	was := t.failing[name]
	t.failing[name] = err != nil
	switch {
	case ctx.Err() != nil && err == nil:
	case err != nil:
		t.metrics.failed.WithLabelValues(name).Inc()
		if !was {
			t.o.Log.Warn("a step of the leader's steering failed; it goes on trying", "step", name, "error", err)
		}
	case was:
		t.o.Log.Info("a step of the leader's steering works again", "step", name)
	}
}

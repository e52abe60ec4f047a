package runner

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"

	"github.com/prometheus/client_golang/prometheus"
)

// Window is the trust window of the worker's session.
type Window interface {
	// Current gives the session that is open (zero: none) and whether its window is.
	Current() (protocol.ID, bool)
	// Enter gives a context that ends when the window closes; false: the effect of a run owned by that session must not begin.
	Enter(owner protocol.ID) (context.Context, bool)
}

// Options of a Runner. All are needed but Now and Credential.
type Options struct {
	Worker       string // WORKER_ID, as origin of dead letters
	Slots        int    // MAX_CONCURRENT_FLOWS
	MaxNodes     int    // MAX_CONCURRENT_NODES
	NodeTimeout  time.Duration
	ClaimTimeout time.Duration // of one request
	Programs     int           // how many compiled versions are cached

	Window      Window
	Claims      func(ctx context.Context, claims []protocol.Claim) ([]protocol.Answer, error) // one try
	SessionDead func()                                                                        // a claim was told that the session is dead
	Publisher   Publisher
	Values      Values
	ValueCache  int                                                         // bytes of large values that are kept in memory
	Memory      int                                                         // bytes of what nodes read in that runs may hold together
	Load        func(ctx context.Context, v Version) (*flow.Program, error) // ErrNoVersion, ErrUnfit, or any error for "not now"
	Executors   func(typ string, version int) (node.Executor, bool)
	// Credential opens a credential by its id or name, with what masks its secrets. nil: there are none to give.
	Credential func(ctx context.Context, idOrName string) (node.Credential, *credential.Masker, error)

	Now        func() time.Time
	Log        *slog.Logger
	NodeLog    *slog.Logger // at NODE_CORE_LOG_LEVEL, given to nodes
	Registerer prometheus.Registerer
}

// Runner works on tasks. It is a session's Listener.
type Runner struct {
	opts    Options
	log     *slog.Logger
	now     func() time.Time
	window  Window
	metrics *metrics

	intake   *intake
	programs *programs
	effects  effects
	claims   claims
	reports  reports
	values   *values
	memory   memory

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	patience  context.Context // ends when runs are given up: what waits for orchestrators waits no longer
	impatient context.CancelFunc

	pausedTypes atomic.Pointer[map[string]string]

	numbers atomic.Int64
	mu      sync.Mutex
	runs    map[int64]*run
	stage   stage
}

// stage of a Runner's life.
type stage int

const (
	working stage = iota
	finishing
	draining
	abandoning
)

// New makes a Runner; Start sets it to work.
func New(o Options) *Runner {
	if o.Now == nil {
		o.Now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Runner{opts: o, log: o.Log, now: o.Now, window: o.Window, ctx: ctx, cancel: cancel, runs: map[int64]*run{}}
	r.intake = newIntake(o.Slots)
	r.programs = newPrograms(o.Load, o.Programs)
	r.effects = effects{r: r, max: o.MaxNodes}
	r.claims = claims{r: r, wake: make(chan struct{}, 1)}
	r.patience, r.impatient = context.WithCancel(ctx)
	r.values = newValues(r, o.ValueCache)
	r.memory.free = o.Memory
	r.reports = reports{r: r, ctx: ctx, shards: map[int]*shard{}}
	r.metrics = newMetrics(o.Registerer, r)
	return r
}

// Start begins to work on what is offered.
func (r *Runner) Start() {
	r.wg.Go(func() { r.claims.run(r.ctx) })
	r.intake.mu.Lock()
	r.intake.hands, r.intake.idle = 1, 1
	r.intake.mu.Unlock()
	r.wg.Go(r.hand)
}

// Close ends the Runner's goroutines; what runs still is left alone. Nothing is confirmed, claimed or begun after it.
func (r *Runner) Close() {
	r.intake.stop()
	r.cancel()
	r.wg.Wait()
	r.reports.wg.Wait()
}

// Offer takes a delivery; it never blocks.
func (r *Runner) Offer(d Delivery) { r.intake.offer(d) }

// Pause begins nothing new while the reason holds; what runs goes on.
func (r *Runner) Pause(reason string) {
	r.intake.pause(reason)
	r.metrics.paused.WithLabelValues(reason).Set(1)
}

// Resume takes a reason of Pause away.
func (r *Runner) Resume(reason string) {
	r.intake.resume(reason)
	r.metrics.paused.WithLabelValues(reason).Set(0)
}

// Resize sets the number of slots; 0 is the worker's own.
func (r *Runner) Resize(slots int) {
	if slots <= 0 || slots > r.opts.Slots {
		slots = r.opts.Slots
	}
	r.intake.resize(slots)
}

// Ended is how many executions have left since the beginning: ended, suspended, or handed back.
func (r *Runner) Ended() uint64 {
	r.intake.mu.Lock()
	defer r.intake.mu.Unlock()
	return r.intake.ended
}

// Load says how the Runner is loaded.
func (r *Runner) Load() (slots, running, buffered int) { return r.intake.counts() }

// hand takes deliveries one after the other. While it works another hand waits; more hands than needed end.
func (r *Runner) hand() {
	in := r.intake
	for {
		d, ok := in.take()
		if !ok {
			return
		}
		in.mu.Lock()
		in.idle--
		if in.idle == 0 {
			in.idle++
			in.hands++
			r.wg.Go(r.hand)
		}
		in.mu.Unlock()
		r.begin(d)
		in.mu.Lock()
		if in.idle >= keepHands {
			in.hands--
			in.mu.Unlock()
			return
		}
		in.idle++
		in.mu.Unlock()
	}
}

// keepHands is how many hands may wait at a time.
const keepHands = 4

// launch registers a run and starts it.
func (r *Runner) launch(t *run) {
	r.mu.Lock()
	r.runs[t.machine.Number()] = t
	stage := r.stage
	r.mu.Unlock()
	t.queue = append(t.queue, news{kind: newsStart})
	if stage >= draining {
		t.queue = append(t.queue, news{kind: newsAbandon}) // nothing has begun, so nothing is lost
	}
	t.work(true)
}

func (r *Runner) forget(t *run) {
	r.mu.Lock()
	delete(r.runs, t.machine.Number())
	r.mu.Unlock()
	r.memory.leave(t)
	r.intake.release()
}

// live lists the runs.
func (r *Runner) live() []*run {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*run, 0, len(r.runs))
	for _, t := range r.runs {
		out = append(out, t)
	}
	return out
}

// Numbers lists the numbers of all runs that live now (claimed, being claimed, or not yet), and of those that own their attempts.
func (r *Runner) Numbers() (live, owned []int64) {
	r.mu.Lock()
	live = make([]int64, 0, len(r.runs))
	for n, t := range r.runs {
		live = append(live, n)
		if t.owns.Load() {
			owned = append(owned, n)
		}
	}
	r.mu.Unlock()
	slices.Sort(live)
	slices.Sort(owned)
	return live, owned
}

// Gone drops runs whose attempts are over though they own them by all that they know.
func (r *Runner) Gone(numbers []int64) {
	for _, n := range numbers {
		r.mu.Lock()
		t := r.runs[n]
		r.mu.Unlock()
		if t != nil {
			r.log.Warn("the attempt of a run is over, though its session lives: the run is dropped. A report of its was lost or refused: see the dead letters", "execution", t.text, "attempt", t.attempt)
			t.tell(news{kind: newsGone}, false)
		}
	}
}

// Disown hands back what the session owns and no run works on: the runs of orphans that were not just begun. If this can't be
// published now the next renewal brings them again.
func (r *Runner) Disown(session protocol.ID, orphans []protocol.Orphan) {
	for _, o := range orphans {
		r.mu.Lock()
		_, alive := r.runs[o.Run]
		r.mu.Unlock()
		if alive {
			continue
		}
		body, err := json.Marshal(protocol.Report{V: protocol.SchemaVersion, Shard: o.Shard, Entries: []protocol.Entry{o.Yield(session)}})
		if err != nil {
			r.log.Error("a report can't be written as JSON", "error", err)
			continue
		}
		r.log.Info("an execution that is owned here has no run: it is handed back, unless its last report is on the way", "execution", o.Execution.String(), "run", o.Run)
		r.opts.Publisher.Report(r.ctx, o.Shard, body, func(error) {})
	}
}

func (r *Runner) tellAll(n news) {
	for _, t := range r.live() {
		t.tell(n, false)
	}
}

// Session tells all runs of the session and its window.
func (r *Runner) Session(id protocol.ID, open bool) {
	r.tellAll(news{kind: newsSession, session: id, open: open})
}

// Died tells all runs that a session is over.
func (r *Runner) Died(id protocol.ID) { r.tellAll(news{kind: newsDied, session: id}) }

// Cancel tells the runs of an execution that it shall end; those that don't own it pay no heed.
func (r *Runner) Cancel(order protocol.CancelOrder) {
	for _, t := range r.live() {
		if t.id == order.Execution {
			t.tell(news{kind: newsCancel, state: order.As}, false)
		}
	}
}

// Hush tells the runs of an execution that is paused to hand it back at the next step; those that don't own it have nothing to hand back.
func (r *Runner) Hush(execution protocol.ID) {
	for _, t := range r.live() {
		if t.id == execution && t.owns.Load() {
			t.tell(news{kind: newsDrain}, false)
		}
	}
}

// PauseTypes sets the node types of which no step may begin, each with what executions that come to one are handed back with.
func (r *Runner) PauseTypes(types map[string]string) {
	if len(types) == 0 {
		r.pausedTypes.Store(nil)
		return
	}
	r.pausedTypes.Store(&types)
}

// pausedType tells whether steps of a type may not begin, and why.
func (r *Runner) pausedType(typ string) (string, bool) {
	types := r.pausedTypes.Load()
	if types == nil {
		return "", false
	}
	text, ok := (*types)[typ]
	return text, ok
}

// Finish begins nothing more and hands back what was not begun. Consuming must have ended.
func (r *Runner) Finish(ctx context.Context) {
	r.mu.Lock()
	r.stage = max(r.stage, finishing)
	r.mu.Unlock()
	left := r.intake.stop()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for _, d := range left {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			r.giveBack(ctx, d)
		})
	}
	wg.Wait()
}

// giveBack returns a delivery that was not begun to its queue. If that can't be done the broker does it when the channel ends, and counts it as redelivered.
func (r *Runner) giveBack(ctx context.Context, d Delivery) {
	if err := r.opts.Publisher.Return(ctx, d); err != nil {
		r.log.Warn("a task that was not begun couldn't be handed back: the broker will do it", "error", err)
		return
	}
	r.metrics.returned.WithLabelValues("stopping").Inc()
	d.Receipt.Ack()
}

// Drain lets every run end at its next step and hand the rest back.
func (r *Runner) Drain() { r.stop(draining, newsDrain) }

// Abandon is Drain without patience: calls in flight are cut.
func (r *Runner) Abandon() {
	r.impatient()
	r.stop(abandoning, newsAbandon)
}

func (r *Runner) stop(s stage, kind newsKind) {
	r.mu.Lock()
	r.stage = max(r.stage, s)
	r.mu.Unlock()
	r.tellAll(news{kind: kind})
}

// Wait waits until no slot is in use.
func (r *Runner) Wait(ctx context.Context) error { return r.intake.wait(ctx) }

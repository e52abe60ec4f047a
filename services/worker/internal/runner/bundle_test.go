package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"

	"github.com/prometheus/client_golang/prometheus"
)

// testTypes are the node types of these tests; what one does is in bundle.nodes.
type testTypes struct{}

func (testTypes) Lookup(typ string, version int) (flow.NodeType, bool) {
	kinds := map[string]flow.Kind{"trigger.manual": flow.KindTrigger, "pure": flow.KindPure, "effect": flow.KindEffect, "wait": flow.KindWait}
	kind, ok := kinds[typ]
	return flow.NodeType{Type: typ, Version: 1, Kind: kind}, ok && version <= 1
}

type noLanguage struct{}

func (noLanguage) Compile(string) (flow.Expression, error) {
	return nil, errors.New("no expressions here")
}

// chain compiles a flow of nodes one after the other: "a:pure b:effect".
func chain(t testing.TB, nodes string) *flow.Program {
	t.Helper()
	doc := `{"name":"test","nodes":[{"id":"start","type":"trigger.manual"}`
	edges, from := "", "start"
	for _, n := range strings.Fields(nodes) {
		name, typ, _ := strings.Cut(n, ":")
		extra := ""
		if typ, extra, _ = strings.Cut(typ, "+"); extra != "" {
			extra = `,"timeout":"` + extra + `"`
		}
		doc += fmt.Sprintf(`,{"id":%q,"type":%q%s}`, name, typ, extra)
		edges += fmt.Sprintf(`,{"from":%q,"to":%q}`, from, name)
		from = name
	}
	return compile(t, doc+`],"edges":[`+strings.TrimPrefix(edges, ",")+`]}`)
}

func compile(t testing.TB, doc string) *flow.Program {
	t.Helper()
	def, problems := flow.Parse([]byte(doc))
	if len(problems) == 0 {
		var p *flow.Program
		if p, problems = flow.Compile(def, flow.FlowView{ID: "f", Name: "test", Version: 1}, testTypes{}, noLanguage{}); len(problems) == 0 {
			return p
		}
	}
	t.Fatalf("test flow: %+v", problems)
	return nil
}

// bundle is a Runner among fakes that do what their fields say.
type bundle struct {
	t *testing.T
	r *Runner

	mu       sync.Mutex
	session  protocol.ID
	ctx      context.Context // nil: the window is closed
	cancel   context.CancelCauseFunc
	programs map[int]*flow.Program
	loadErr  error
	claim    func([]protocol.Claim) ([]protocol.Answer, error)
	claims   []protocol.Claim
	deadTold int
	confirm  func(n int, body []byte) error // what becomes of the n-th report message
	bodies   []string
	entries  []protocol.Entry
	letters  []DeadLetter
	retried  []int
	returned int
	acked    map[int]int
	gone     atomic.Bool
	log      []string

	nodes func(ctx context.Context, call node.Call) (node.Result, error)

	stored map[string]string // large values by ref
	putErr error
	gets   int
}

// Put is runner.Values.
func (b *bundle) Put(ctx context.Context, _ protocol.ID, ref string, raw []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, "put")
	if ctx.Err() != nil || b.putErr != nil {
		return errors.Join(ctx.Err(), b.putErr)
	}
	b.stored[ref] = string(raw)
	return nil
}

// Get is runner.Values.
func (b *bundle) Get(_ context.Context, _ protocol.ID, ref string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gets++
	if b.putErr != nil {
		return nil, b.putErr
	}
	if v, ok := b.stored[ref]; ok {
		return []byte(v), nil
	}
	return nil, ErrNoValue
}

var errWindow = errors.New("closed")

func (b *bundle) Current() (protocol.ID, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.session, b.ctx != nil
}

func (b *bundle) Enter(owner protocol.ID) (context.Context, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil || owner != b.session {
		return nil, false
	}
	return b.ctx, true
}

// window opens or closes the window of a session, and tells the runs as the keeper would.
func (b *bundle) window(session protocol.ID, open bool) {
	b.mu.Lock()
	b.session = session
	switch {
	case open && b.ctx == nil:
		b.ctx, b.cancel = context.WithCancelCause(context.Background())
	case !open && b.ctx != nil:
		b.cancel(errWindow)
		b.ctx = nil
	}
	b.mu.Unlock()
	b.r.Session(session, open)
}

func (b *bundle) Report(_ context.Context, _ int, body []byte, done func(error)) {
	b.mu.Lock()
	n := len(b.bodies)
	b.bodies = append(b.bodies, string(body))
	confirm := b.confirm
	b.mu.Unlock()
	go func() {
		if confirm != nil {
			if err := confirm(n, body); err != nil {
				done(err)
				return
			}
		}
		var m protocol.Report
		if err := json.Unmarshal(body, &m); err != nil {
			b.t.Errorf("report %s: %v", body, err)
		}
		b.mu.Lock()
		b.entries = append(b.entries, m.Entries...)
		for _, e := range m.Entries {
			b.log = append(b.log, "confirmed "+string(e.Kind))
		}
		b.mu.Unlock()
		done(nil)
	}()
}

func (b *bundle) Retry(_ context.Context, _ Delivery, returns int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.retried = append(b.retried, returns)
	return nil
}

func (b *bundle) Return(context.Context, Delivery) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.returned++
	return nil
}

func (b *bundle) Dead(_ context.Context, l DeadLetter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.letters = append(b.letters, l)
	return nil
}

type receipt struct {
	b *bundle
	n int
}

func (r receipt) Ack() {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.b.acked[r.n]++
	r.b.log = append(r.b.log, "ack")
}
func (r receipt) Gone() bool { return r.b.gone.Load() }

// Execute is every node of these tests.
func (b *bundle) Execute(ctx context.Context, call node.Call) (node.Result, error) {
	b.mu.Lock()
	b.log = append(b.log, "node "+call.Node)
	f := b.nodes
	b.mu.Unlock()
	if f != nil {
		return f(ctx, call)
	}
	return node.Result{Output: map[string]any{"from": call.Node}}, nil
}

func session(n byte) protocol.ID { return protocol.ID{0: 0x5e, 15: n} }

// setup makes a runner with an open session 1, which grants every claim and confirms every report.
func setup(t *testing.T, change ...func(*Options)) *bundle {
	t.Helper()
	b := &bundle{t: t, programs: map[int]*flow.Program{}, acked: map[int]int{}, stored: map[string]string{}}
	o := Options{
		Worker: "w", Slots: 100, MaxNodes: 100, NodeTimeout: time.Minute, ClaimTimeout: time.Second, Programs: 10, Window: b, Publisher: b, Values: b, ValueCache: 4 << 20, Memory: 1 << 20,
		Claims: func(_ context.Context, claims []protocol.Claim) ([]protocol.Answer, error) {
			b.mu.Lock()
			b.claims = append(b.claims, claims...)
			f := b.claim
			b.mu.Unlock()
			if f != nil {
				return f(claims)
			}
			b.mu.Lock()
			b.log = append(b.log, "granted")
			b.mu.Unlock()
			return slices.Repeat([]protocol.Answer{protocol.Granted}, len(claims)), nil
		},
		SessionDead: func() { b.mu.Lock(); b.deadTold++; b.mu.Unlock() },
		Load: func(_ context.Context, v Version) (*flow.Program, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if p := b.programs[v.Number]; p != nil {
				return p, nil
			}
			return nil, b.loadErr
		},
		Executors: func(string, int) (node.Executor, bool) { return b, true },
		Log:       slog.New(slog.DiscardHandler), NodeLog: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
	for _, f := range change {
		f(&o)
	}
	b.r = New(o)
	b.window(session(1), true)
	b.r.Start()
	return b
}

func (b *bundle) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// offer gives the runner the n-th task, of the flow version given.
func (b *bundle) offer(n, version int, change ...func(*protocol.Task, *Delivery)) {
	task := protocol.Task{V: 1, ID: protocol.ID{0: 1, 15: byte(n)}, Attempt: 1, Shard: 2, Version: version, CreatedAt: time.Unix(0, 0), Input: json.RawMessage(`{"n":1}`)}
	d := Delivery{Priority: Normal, Receipt: receipt{b, n}}
	for _, f := range change {
		f(&task, &d)
	}
	if d.Body == nil {
		body, err := json.Marshal(task)
		if err != nil {
			b.t.Fatal(err)
		}
		d.Body = body
	}
	b.r.Offer(d)
}

func redelivered(_ *protocol.Task, d *Delivery) { d.Redelivered = true }

// kinds are those of the confirmed entries.
func (b *bundle) kinds() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, e := range b.entries {
		out = append(out, string(e.Kind))
	}
	return strings.Join(out, " ")
}

func (b *bundle) wantLog(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.log, want) {
		b.t.Errorf("happened %q\n    want %q", b.log, want)
	}
}

// in runs the test in a bubble with a runner; all goroutines must end with it.
func in(t *testing.T, f func(b *bundle), change ...func(*Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, change...)
		f(b)
		b.r.Abandon()
		b.window(session(9), false)
		b.r.Close()
		synctest.Wait()
	})
}

func (b *bundle) idle() bool {
	_, running, buffered := b.r.Load()
	return running == 0 && buffered == 0
}

// pass lets time pass, and everything happen that is due then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"flowplatform/services/internal/node"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// A hundred runs want more than there is, each twice: all end, and never do more than two have what only one and a bit can have (one may go beyond).
func TestMemoryIsBoundedAndNobodyWaitsForEver(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect+1s c:effect+1s")
		var holding, most atomic.Int64
		b.nodes = func(ctx context.Context, call node.Call) (node.Result, error) {
			if err := call.Memory(ctx, 600<<10); err != nil {
				return node.Result{}, err
			}
			if call.Node == "a" {
				most.Store(max(most.Load(), holding.Add(1)))
			} else {
				defer holding.Add(-1)
			}
			select {
			case <-ctx.Done():
				return node.Result{}, ctx.Err()
			case <-time.After(100 * time.Millisecond):
				return node.Result{}, nil
			}
		}
		for i := range 100 {
			b.offer(i, 1)
		}
		pass(time.Hour)
		if len(b.entries) != 200 || !b.idle() {
			t.Fatalf("%d entries: %s", len(b.entries), b.kinds()[:100])
		}
		for _, e := range b.entries {
			if e.Kind == protocol.EntryFinal && e.State != protocol.Succeeded { // a wait for memory is no timeout
				t.Fatalf("%+v", e.Error)
			}
		}
		if most.Load() > 2 || b.r.memory.free != 1<<20 {
			t.Errorf("%d runs held memory at a time; %d bytes are free at the end", most.Load(), b.r.memory.free)
		}
	}, func(o *Options) { o.Memory = 1 << 20 })
}

// A call that waits for memory takes no place among MAX_CONCURRENT_NODES: or the run that may go beyond the budget would wait for one of them, and they for it.
func TestWhoWaitsForMemoryTakesNoPlace(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect+1s c:effect+1s")
		working, most := 0, 0
		b.nodes = func(ctx context.Context, call node.Call) (node.Result, error) {
			if err := call.Memory(ctx, 600<<10); err != nil {
				return node.Result{}, err
			}
			b.set(func() { working++; most = max(most, working) })
			defer b.set(func() { working-- })
			rest(ctx, 100*time.Millisecond)
			return node.Result{}, ctx.Err()
		}
		for i := range 50 {
			b.offer(i, 1)
		}
		pass(time.Hour)
		b.r.effects.mu.Lock()
		running, queued := b.r.effects.running, len(b.r.effects.queue)
		b.r.effects.mu.Unlock()
		if len(b.entries) != 100 || !b.idle() || running != 0 || queued != 0 {
			t.Errorf("%d entries, %d calls, %d queued", len(b.entries), running, queued)
		}
		if most > 4 {
			t.Errorf("%d calls worked at a time", most)
		}
	}, func(o *Options) { o.Memory = 1 << 20; o.MaxNodes = 2 })
}

// What a task only names is counted before it is fetched: of twenty with 300 KiB each only one, and one more, are here at a time; and what can't be had takes nothing.
func TestMemoryIsTakenForWhatIsFetched(t *testing.T) {
	t.Parallel()
	raw := []byte(`"` + strings.Repeat("x", 300<<10) + `"`)
	ref := protocol.Value{Ref: payload.Ref(raw), Size: len(raw)}
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		b.stored[ref.Ref] = string(raw)
		holding, most := 0, 0
		b.nodes = func(ctx context.Context, call node.Call) (node.Result, error) {
			b.set(func() { holding++; most = max(most, holding) })
			defer b.set(func() { holding-- })
			return node.Result{}, rested(ctx, 100*time.Millisecond)
		}
		for i := range 20 {
			b.offer(i, 1, func(task *protocol.Task, _ *Delivery) { task.Input, task.InputRef = nil, &ref })
		}
		b.offer(20, 1, func(task *protocol.Task, _ *Delivery) {
			task.Input, task.InputRef = nil, &protocol.Value{Ref: payload.Ref([]byte("none")), Size: 600 << 10}
		})
		pass(time.Minute)
		if len(b.entries) < 20 || !b.idle() {
			t.Errorf("%d entries", len(b.entries))
		}
		if most > 2 || b.r.memory.free != 1<<20 {
			t.Errorf("%d runs held their input at a time; %d bytes are free at the end", most, b.r.memory.free)
		}
	}, func(o *Options) { o.Memory = 1 << 20; o.ValueCache = 0 })
}

func rested(ctx context.Context, d time.Duration) error {
	rest(ctx, d)
	return ctx.Err()
}

// What is given back lets the next in, and doesn't count twice at the end.
func TestMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := memory{free: 10}
		var first, second, third run
		if m.take(t.Context(), &first, 30) != nil || m.over != &first { // beyond the budget
			t.Fatalf("%+v", &m)
		}
		got := make(chan error, 1)
		go func() { got <- m.take(t.Context(), &second, 30) }()
		synctest.Wait()
		if m.take(t.Context(), &first, -28) != nil || <-got != nil || m.over != &second || first.held != 2 {
			t.Errorf("%+v", &m)
		}
		if m.take(t.Context(), &second, -100) != nil || second.held != 0 || m.free != 8 || m.over != nil {
			t.Errorf("%+v", &m)
		}
		m.leave(&first)
		m.leave(&second)
		if m.free != 10 || m.take(t.Context(), &third, 10) != nil || m.over != nil {
			t.Errorf("%+v", &m)
		}
	})
}

// TestGO1_RunsThatLeftAreForgotten: of what waited for memory nothing keeps a run that has left, while others still wait. Once 200 runs that had ended were kept, each with two
// megabytes, by the array under the queue.
func TestGO1_RunsThatLeftAreForgotten(t *testing.T) {
	t.Parallel()
	m := memory{free: 10}
	last := &run{}
	const n = 100
	left := make([]weak.Pointer[run], n)
	got := make(chan *run, n)
	for i := range n {
		t1 := &run{}
		left[i] = weak.Make(t1)
		go func() {
			if m.take(t.Context(), t1, 10) == nil {
				got <- t1
			}
		}()
	}
	for range n - 1 {
		m.leave(<-got)
	}
	<-got // holds all, and goes on
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.take(ctx, last, 30) }()
	kept := 0
	for range 3 {
		runtime.GC()
	}
	for _, p := range left {
		if p.Value() != nil {
			kept++
		}
	}
	if kept > 4 { // a goroutine's stack may hold one that it had
		t.Errorf("%d of %d runs that left are still in memory", kept, n)
	}
	cancel()
	<-done
	runtime.KeepAlive(&m)
}

func TestMemoryWaitsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := memory{free: 10}
		var first, second, third run
		if err := m.take(t.Context(), &first, 10); err != nil {
			t.Fatal(err)
		}
		if err := m.take(t.Context(), &second, 10); err != nil { // goes beyond
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.take(ctx, &third, 1); err == nil {
			t.Error("more than one went beyond")
		}
		m.leave(&second)
		m.leave(&first)
		if m.free != 10 || m.over != nil || len(m.waiters) != 0 {
			t.Errorf("%+v", &m)
		}
	})
}

func TestLogsRideOnReports(t *testing.T) {
	t.Parallel()
	for kind, entries := range map[string]int{"pure": 1, "effect": 1} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			in(t, func(b *bundle) {
				b.programs[1] = chain(t, "a:"+kind)
				b.nodes = func(_ context.Context, call node.Call) (node.Result, error) {
					call.Log.Debug("not shown")
					call.Log.With("shop", 7).WithGroup("g").Warn("hello\x00", "n", 1)
					for i := range 2000 {
						call.Log.Info(strings.Repeat("x", 100), "i", i)
					}
					return node.Result{}, nil
				}
				b.offer(1, 1)
				pass(time.Second)
				if len(b.entries) != entries || len(b.entries[0].Logs) > 256<<10 {
					t.Fatalf("%d entries", len(b.entries))
				}
				var lines []protocol.LogLine
				if err := json.Unmarshal(b.entries[0].Logs, &lines); err != nil {
					t.Fatal(err)
				}
				first, last := lines[0], lines[len(lines)-1]
				if first.Message != "hello\uFFFD" || first.Level != "warn" || first.Node != "a" || first.Try != 1 || string(first.Fields) != `{"shop":7,"g":{"n":1}}` {
					t.Errorf("%+v %s", first, first.Fields)
				}
				if len(lines) > 700 || len(lines) < 500 || !strings.HasPrefix(last.Message, "truncated") {
					t.Errorf("%d lines, the last: %s", len(lines), fmt.Sprint(last))
				}
			}, func(o *Options) { o.NodeLog = slog.New(slog.NewTextHandler(t.Output(), nil)) })
		})
	}
}

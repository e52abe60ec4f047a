package runner

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/protocol"
)

func TestPureFlowIsOneEntryWithoutAClaim(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:pure b:pure c:pure")
		b.offer(1, 1)
		synctest.Wait()
		b.wantLog("node a", "node b", "node c", "confirmed final", "ack")
		e := b.entries[0]
		if e.State != protocol.Succeeded || string(e.Output) != `{"from":"c"}` || !e.Session.IsZero() || e.Seq != 1 {
			t.Errorf("entry %+v", e)
		}
		events, err := protocol.DecodeEvents([]json.RawMessage{e.Events})
		if err != nil || len(events) != 3 || !events[0].Pure {
			t.Errorf("events %+v, %v: want those of the three pure steps", events, err)
		}
		if !b.idle() {
			t.Error("the slot isn't free")
		}
	})
}

func TestEffectIsClaimedFirstAndAcknowledgedAtTheGrant(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:pure b:effect c:pure")
		var key string
		b.nodes = func(_ context.Context, call node.Call) (node.Result, error) {
			if call.Node == "b" {
				key = call.IdempotencyKey
			}
			return node.Result{Output: call.Node}, nil
		}
		b.offer(1, 1)
		pass(time.Second)
		b.wantLog("node a", "granted", "ack", "node b", "node c", "confirmed step", "confirmed final")
		if want := (protocol.ID{0: 1, 15: 1}).String() + "/b/-"; key != want {
			t.Errorf("idempotency key %q, want %q", key, want)
		}
		if e := b.entries[0]; e.Session != session(1) || e.Run != b.claims[0].Run {
			t.Errorf("entry %+v isn't that of claim %+v", e, b.claims[0])
		}
	})
}

func TestRedeliveredTaskIsClaimedBeforeAnything(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:pure")
		b.offer(1, 1, redelivered)
		synctest.Wait()
		b.wantLog("granted", "ack", "node a", "confirmed final")
	})
}

func TestStaleClaimIsDropped(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		b.claim = func([]protocol.Claim) ([]protocol.Answer, error) { return []protocol.Answer{protocol.Stale}, nil }
		b.offer(1, 1)
		synctest.Wait()
		b.wantLog("ack")
		if !b.idle() || len(b.bodies) > 0 {
			t.Error("a refused run goes on")
		}
	})
}

func TestClaimIsAskedAgainUntilThereIsAnAnswer(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		asked := 0
		b.claim = func([]protocol.Claim) ([]protocol.Answer, error) {
			if asked++; asked < 30 {
				return nil, errors.New("away")
			}
			return []protocol.Answer{protocol.Granted}, nil
		}
		b.offer(1, 1)
		pass(time.Minute)
		synctest.Wait()
		if b.kinds() != "final" {
			t.Errorf("reported %q after %d asks", b.kinds(), asked)
		}
		for _, c := range b.claims {
			if c != b.claims[0] {
				t.Errorf("asked %+v, then %+v", b.claims[0], c)
			}
		}
	})
}

func TestClaimUnderADeadSessionGoesToTheNext(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		b.claim = func(c []protocol.Claim) ([]protocol.Answer, error) {
			if c[0].Session == session(1) {
				return []protocol.Answer{protocol.SessionDead}, nil
			}
			return []protocol.Answer{protocol.Granted}, nil
		}
		b.offer(1, 1)
		synctest.Wait()
		if b.deadTold != 1 || len(b.claims) != 1 {
			t.Errorf("%d renewals asked for, %d claims: want one each", b.deadTold, len(b.claims))
		}
		b.r.Died(session(1))
		b.window(session(2), true)
		pass(time.Second)
		if b.kinds() != "final" || b.entries[0].Session != session(2) {
			t.Errorf("entries %+v", b.entries)
		}
	})
}

// A report that was confirmed is lost: the execution went on from its row, and a renewal says so. The owner drops its run: nothing more is acted, nothing reported.
func TestAttemptThatIsOverIsDropped(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect b:effect")
		calls := 0
		b.nodes = func(ctx context.Context, call node.Call) (node.Result, error) {
			calls++
			<-ctx.Done()
			return node.Result{}, ctx.Err()
		}
		b.offer(1, 1)
		synctest.Wait()
		live, owned := b.r.Numbers()
		if len(live) != 1 || len(owned) != 1 || live[0] != owned[0] {
			t.Fatalf("runs %v, owned %v", live, owned)
		}
		b.r.Gone(owned)
		pass(time.Minute)
		if calls != 1 || b.kinds() != "" || !b.idle() {
			t.Errorf("%d calls, entries %q, idle %v: want the run dropped", calls, b.kinds(), b.idle())
		}
	})
}

func TestClosedWindowHoldsAndCutsThenGoesOn(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect b:effect")
		begun, ended := 0, 0
		b.nodes = func(ctx context.Context, call node.Call) (node.Result, error) {
			if call.Node == "b" {
				return node.Result{}, nil
			}
			begun++
			select {
			case <-ctx.Done():
				ended++
				return node.Result{}, ctx.Err()
			case <-time.After(10 * time.Second):
				return node.Result{Output: "late"}, nil
			}
		}
		b.offer(1, 1)
		synctest.Wait()
		b.window(session(1), false)
		synctest.Wait()
		if begun != 1 || ended != 1 {
			t.Errorf("%d calls begun, %d cut: want one each", begun, ended)
		}
		pass(time.Minute)
		if begun != 1 || b.idle() || len(b.bodies) > 0 {
			t.Errorf("%d calls, %d reports while the window is closed: the run must hold", begun, len(b.bodies))
		}
		b.window(session(1), true)
		pass(time.Minute)
		if b.kinds() != "step final" || begun != 2 {
			t.Errorf("reported %q after %d calls", b.kinds(), begun)
		}
	})
}

func TestWindowThatClosedUnseenHoldsTheNextEffect(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		b.claim = func([]protocol.Claim) ([]protocol.Answer, error) {
			b.mu.Lock() // closed between the grant and the call; nobody has told the run
			b.cancel(errWindow)
			b.ctx = nil
			b.mu.Unlock()
			return []protocol.Answer{protocol.Granted}, nil
		}
		b.offer(1, 1)
		pass(time.Minute)
		b.wantLog("ack")
		b.window(session(1), true)
		synctest.Wait()
		b.wantLog("ack", "node a", "confirmed final")
	})
}

func TestDeadSessionDropsWhatItOwned(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1], b.programs[2] = chain(t, "a:effect"), chain(t, "p:pure")
		b.nodes = func(ctx context.Context, call node.Call) (node.Result, error) {
			if call.Node == "a" {
				<-ctx.Done()
			}
			return node.Result{}, ctx.Err()
		}
		b.offer(1, 1)
		synctest.Wait()
		b.window(session(1), false)
		b.r.Died(session(1))
		b.window(session(2), true)
		b.offer(2, 2)
		pass(time.Minute)
		if b.kinds() != "final" || b.entries[0].Execution != (protocol.ID{0: 1, 15: 2}) {
			t.Errorf("entries %+v: want only that of the execution nobody owned", b.entries)
		}
		if !b.idle() {
			t.Error("the dropped run keeps its slot")
		}
	})
}

func TestMQ3_UnconfirmedReportIsPublishedAgainWithTheSameBytes(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect b:effect")
		b.confirm = func(n int, _ []byte) error {
			if n < 20 {
				return errors.New("unknown")
			}
			return nil
		}
		b.offer(1, 1)
		pass(time.Minute)
		for i := 1; i <= 20; i++ {
			if b.bodies[i] != b.bodies[0] {
				t.Errorf("copy %d is %s, the first was %s", i, b.bodies[i], b.bodies[0])
			}
		}
		b.wantLog("granted", "ack", "node a", "confirmed step", "node b", "confirmed final")
	})
}

func TestDroppedRunStopsPublishing(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		b.confirm = func(int, []byte) error { return errors.New("unknown") }
		b.offer(1, 1)
		pass(10 * time.Second)
		b.r.Died(session(1))
		b.window(session(2), true)
		synctest.Wait()
		n := len(b.bodies)
		pass(time.Minute)
		if len(b.bodies) > n+1 || !b.idle() {
			t.Errorf("%d more copies after the run was dropped", len(b.bodies)-n)
		}
	})
}

func TestEntriesOfOneMomentGoTogether(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:pure")
		b.offer(0, 1)
		synctest.Wait()
		if len(b.bodies) != 1 {
			t.Fatalf("%d messages: the first entry goes at once", len(b.bodies))
		}
		for n := 1; n <= 50; n++ {
			b.offer(n, 1)
		}
		pass(reportEvery)
		synctest.Wait()
		if len(b.entries) != 51 || len(b.bodies) != 2 {
			t.Errorf("%d entries in %d messages, want 51 in 2", len(b.entries), len(b.bodies))
		}
	})
}

func TestDrainEndsTheStepAndYields(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect b:effect")
		b.nodes = func(context.Context, node.Call) (node.Result, error) {
			time.Sleep(time.Second)
			return node.Result{}, nil
		}
		b.offer(1, 1)
		synctest.Wait()
		b.r.Drain()
		if err := b.r.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		if b.kinds() != "yield" || b.entries[0].Events == nil {
			t.Errorf("entries %+v: want a yield with the step that ended", b.entries)
		}
	})
}

func TestAbandonCutsAndYields(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		b.nodes = func(ctx context.Context, _ node.Call) (node.Result, error) {
			<-ctx.Done()
			return node.Result{}, ctx.Err()
		}
		b.offer(1, 1)
		synctest.Wait()
		b.r.Drain()
		b.r.Abandon()
		synctest.Wait()
		if b.kinds() != "yield" || b.entries[0].Events != nil {
			t.Errorf("entries %+v", b.entries)
		}
	})
}

func TestFinishHandsBackWhatWasNotBegun(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		b.nodes = func(context.Context, node.Call) (node.Result, error) {
			time.Sleep(time.Second)
			return node.Result{}, nil
		}
		for n := range 5 {
			b.offer(n, 1)
		}
		pass(10 * time.Millisecond)
		b.r.Finish(context.Background())
		synctest.Wait()
		if b.returned != 3 || b.acked[4] != 1 {
			t.Errorf("%d handed back, want 3, each acknowledged after it", b.returned)
		}
		if err := b.r.Wait(context.Background()); err != nil || b.kinds() != "final final" {
			t.Errorf("%v, %q: the two that ran go on to their end", err, b.kinds())
		}
	}, func(o *Options) { o.Slots = 2 })
}

func TestCancelEndsTheCallAndTheExecution(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"effect", "pure"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			in(t, func(b *bundle) {
				b.programs[1] = chain(t, "a:"+kind)
				b.nodes = func(ctx context.Context, _ node.Call) (node.Result, error) {
					<-ctx.Done()
					return node.Result{}, ctx.Err()
				}
				b.offer(1, 1, redelivered)
				synctest.Wait()
				b.r.Cancel(protocol.CancelOrder{Execution: protocol.ID{0: 1, 15: 1}, As: protocol.Cancelled})
				synctest.Wait()
				if b.kinds() != "final" || b.entries[0].State != protocol.Cancelled {
					t.Errorf("entries %+v", b.entries)
				}
			})
		})
	}
}

func TestFailuresOfNodes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		do   func(context.Context) (node.Result, error)
		code string
	}{
		"panic": {func(context.Context) (node.Result, error) { panic("boom") }, "panic"},
		"too large": {func(context.Context) (node.Result, error) {
			return node.Result{Output: strings.Repeat("x", protocol.MaxValue)}, nil
		}, "value-too-large"},
		"unfit": {func(context.Context) (node.Result, error) { return node.Result{Output: make(chan int)}, nil }, "value-unfit"},
		"plain": {func(context.Context) (node.Result, error) { return node.Result{}, errors.New("\xff\x00no") }, "error"},
		"own": {func(context.Context) (node.Result, error) {
			return node.Result{}, &node.Error{Code: "mine", Data: make(chan int)}
		}, "mine"},
		"timeout": {func(ctx context.Context) (node.Result, error) { <-ctx.Done(); return node.Result{}, ctx.Err() }, "timeout"},
	}
	for name, test := range tests {
		for _, kind := range []string{"pure", "effect"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				in(t, func(b *bundle) {
					b.programs[1] = chain(t, "a:"+kind+"+5s")
					b.nodes = func(ctx context.Context, _ node.Call) (node.Result, error) { return test.do(ctx) }
					b.offer(1, 1)
					pass(10 * time.Second)
					if len(b.entries) != 1 || b.entries[0].State != protocol.Failed || b.entries[0].Error.Code != test.code {
						t.Errorf("entries %+v: want one that failed with %s", b.entries, test.code)
					}
				})
			})
		}
	}
}

func TestMQ6_WhatIsNoTask(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.offer(1, 1, func(_ *protocol.Task, d *Delivery) { d.Body = []byte(`{"v":1,`) })
		b.offer(2, 1, func(_ *protocol.Task, d *Delivery) { d.Body = []byte(`{"v":2,"id":7}`) })
		b.offer(3, 1, func(_ *protocol.Task, d *Delivery) { d.Body = []byte(`{"v":2}`) })
		b.offer(4, 1, func(_ *protocol.Task, d *Delivery) { d.Body = []byte(`{}`) })
		synctest.Wait()
		if len(b.letters) != 3 || b.letters[0].Reason != "unparseable" {
			t.Errorf("dead letters %+v, want three unparseable", b.letters)
		}
		if len(b.retried) != 1 || !b.idle() {
			t.Errorf("%d of a newer schema were handed back, want 1", len(b.retried))
		}
		for n := 1; n <= 4; n++ {
			if b.acked[n] != 1 {
				t.Errorf("task %d was acknowledged %d times", n, b.acked[n])
			}
		}
	})
}

func TestPG7_VersionNotOnTheReplicaComesBackLater(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.loadErr = ErrNoVersion
		b.offer(1, 1)
		synctest.Wait()
		if len(b.retried) != 1 || b.retried[0] != 1 || len(b.letters) != 0 {
			t.Fatalf("retried %v, dead letters %v", b.retried, b.letters)
		}
		b.offer(2, 1, func(_ *protocol.Task, d *Delivery) { d.Returns = returnsLimit })
		synctest.Wait()
		if len(b.letters) != 1 || b.letters[0].Reason != "version-not-found" {
			t.Errorf("dead letters %+v after the last return", b.letters)
		}
		if b.kinds() != "final" || b.entries[0].State != protocol.Failed {
			t.Errorf("entries %+v: the execution must end", b.entries)
		}
		b.set(func() { b.loadErr = errors.New("the replica is away") })
		b.offer(3, 1, func(_ *protocol.Task, d *Delivery) { d.Returns = returnsLimit })
		pass(time.Minute)
		if len(b.letters) != 1 || b.retried[len(b.retried)-1] != returnsLimit {
			t.Errorf("retried %v, dead letters %v: the database being away isn't counted", b.retried, b.letters)
		}
		if !b.idle() {
			t.Error("slots aren't free")
		}
	})
}

func TestPrioritiesAreServedByWeight(t *testing.T) {
	t.Parallel()
	intake := newIntake(1000)
	b := &bundle{t: t}
	for range 24 {
		for p := range priorities {
			intake.offer(Delivery{Priority: p, Receipt: receipt{b, 0}})
		}
	}
	var got [priorities]int
	for range 24 {
		d, _ := intake.take()
		got[d.Priority]++
	}
	if want := [priorities]int{16, 6, 2}; got != want {
		t.Errorf("of 24 tasks %v were high, normal, low: want %v", got, want)
	}
}

func TestMQ9_DeliveriesOfALostChannelAreForgotten(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:pure")
		b.r.Pause("broker")
		b.offer(1, 1)
		synctest.Wait()
		b.gone.Store(true)
		b.r.Resume("broker")
		synctest.Wait()
		b.wantLog()
		if !b.idle() {
			t.Error("still buffered")
		}
	})
}

func TestMQ7_SuspectRunsAlone(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		running, most := 0, map[bool]int{}
		b.nodes = func(_ context.Context, call node.Call) (node.Result, error) {
			b.mu.Lock()
			running++
			suspect := strings.HasSuffix(call.Execution, "64") // 100 and above are suspects
			most[suspect] = max(most[suspect], running)
			b.mu.Unlock()
			time.Sleep(time.Second)
			b.mu.Lock()
			running--
			b.mu.Unlock()
			return node.Result{}, nil
		}
		suspect := func(task *protocol.Task, _ *Delivery) { task.Suspect = true }
		b.offer(1, 1)
		b.offer(2, 1)
		synctest.Wait()
		b.offer(100, 1, suspect)
		b.offer(100, 1, suspect)
		synctest.Wait()
		b.offer(3, 1)
		b.offer(4, 1)
		pass(time.Minute)
		if most[true] != 1 || most[false] != 2 {
			t.Errorf("at most %d ran beside a suspect, %d otherwise: want 1 and 2", most[true], most[false])
		}
		if len(b.entries) != 6 || !b.idle() {
			t.Errorf("%d entries: some never ran", len(b.entries))
		}
	})
}

// TestARowOfSuspects: many short suspects are soon through, and others run in between: two kills make suspects of all that was in flight.
func TestARowOfSuspects(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1], b.programs[2] = chain(t, "other:effect"), chain(t, "suspect:effect")
		const row = 40
		ended := map[string]int{}
		var begun, last time.Time
		between := 0
		b.nodes = func(_ context.Context, call node.Call) (node.Result, error) {
			time.Sleep(30 * time.Millisecond)
			b.mu.Lock()
			defer b.mu.Unlock()
			if ended[call.Node]++; call.Node == "suspect" {
				last, between = time.Now(), ended["other"]
			}
			return node.Result{}, nil
		}
		begun = time.Now()
		for n := range row {
			b.offer(1000+n, 2, func(task *protocol.Task, _ *Delivery) { task.Suspect = true })
		}
		for n := range 20 * row {
			b.offer(1, 1, func(task *protocol.Task, _ *Delivery) { task.ID[0] = byte(n); task.ID[1] = byte(n >> 8) })
		}
		pass(2 * time.Minute)
		took := last.Sub(begun)
		t.Logf("%d suspects of 30 ms took %s; %d others ended between them", row, took.Round(time.Millisecond), between)
		if ended["suspect"] != row || took > row*300*time.Millisecond {
			t.Errorf("%d suspects ended, the last after %s", ended["suspect"], took)
		}
		if between < row || ended["other"] != 20*row {
			t.Errorf("%d others ended between %d suspects, %d in all", between, row, ended["other"])
		}
	})
}

func TestSlowPureNodeHoldsUpNobody(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1], b.programs[2] = chain(t, "slow:pure"), chain(t, "fast:pure")
		b.nodes = func(ctx context.Context, call node.Call) (node.Result, error) {
			if call.Node == "slow" {
				<-ctx.Done()
			}
			return node.Result{}, nil
		}
		for n := range 20 {
			b.offer(n, 1)
		}
		b.offer(30, 2)
		pass(10 * reportEvery)
		synctest.Wait()
		if b.kinds() != "final" {
			t.Errorf("confirmed %q: the fast flow waits behind the slow ones", b.kinds())
		}
		b.window(session(1), false) // news must not wait for pure nodes either
		b.window(session(1), true)
	})
}

func TestShortDelayIsSleptLongOneSuspends(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "w:wait a:pure")
		delay := 500 * time.Millisecond
		b.nodes = func(_ context.Context, call node.Call) (node.Result, error) {
			if call.Node != "w" {
				return node.Result{}, nil
			}
			return node.Result{Wait: &flow.Wait{Kind: flow.WaitTimer, Due: time.Now().Add(delay), Reason: "test"}}, nil
		}
		b.offer(1, 1)
		pass(time.Second)
		delay = time.Hour
		b.offer(2, 1)
		pass(time.Second)
		if b.kinds() != "final suspend" || len(b.entries[1].Waits) != 1 || !b.idle() {
			t.Errorf("confirmed %q", b.kinds())
		}
	})
}

func TestEffectsAreBounded(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect")
		running, most := 0, 0
		begun := map[string]bool{}
		b.nodes = func(_ context.Context, call node.Call) (node.Result, error) {
			b.mu.Lock()
			begun[call.Execution] = true
			running++
			most = max(most, running)
			b.mu.Unlock()
			time.Sleep(time.Second)
			b.mu.Lock()
			running--
			b.mu.Unlock()
			return node.Result{}, nil
		}
		for n := range 20 {
			b.offer(n, 1)
		}
		pass(500 * time.Millisecond)
		queued := protocol.ID{0: 1}
		for begun[queued.String()] {
			queued[15]++
		}
		b.r.Cancel(protocol.CancelOrder{Execution: queued, As: protocol.Cancelled}) // it must not wait for its turn
		synctest.Wait()
		if b.kinds() != "final" {
			t.Errorf("confirmed %q: want the end of the cancelled one", b.kinds())
		}
		pass(time.Minute)
		if most != 3 || !b.idle() {
			t.Errorf("at most %d in flight, want 3", most)
		}
	}, func(o *Options) { o.MaxNodes = 3 })
}

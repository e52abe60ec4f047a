package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flowplatform/services/internal/node"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// large is an output that no message takes.
var large = strings.Repeat("x", protocol.MaxInline)

func returns(v any) func(context.Context, node.Call) (node.Result, error) {
	return func(context.Context, node.Call) (node.Result, error) { return node.Result{Output: v}, nil }
}

// A large output is stored before it is reported; the report names it, and so does the end, which is the same value and isn't sent again.
func TestLargeOutputsGoByReference(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string][]string{
		"effect": {"granted", "ack", "node a", "put", "confirmed final"},
		"pure":   {"node a", "put", "confirmed final", "ack"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			in(t, func(b *bundle) {
				b.programs[1] = chain(t, "a:"+kind)
				b.nodes = returns(large)
				b.offer(1, 1)
				pass(time.Second)
				b.wantLog(want...)
				ref := payload.Ref([]byte(`"` + large + `"`))
				if len(b.entries) != 1 || b.entries[0].State != protocol.Succeeded || b.entries[0].OutputRef == nil || b.entries[0].OutputRef.Ref != ref || b.entries[0].Output != nil {
					t.Fatalf("%+v", b.entries)
				}
				if len(b.bodies[0]) > 2000 || b.stored[ref] == "" {
					t.Errorf("the report has %d bytes, stored are %d values", len(b.bodies[0]), len(b.stored))
				}
				events, err := protocol.ResolveEvents([]json.RawMessage{b.entries[0].Events}, func(v protocol.Value) (json.RawMessage, error) { return []byte(b.stored[v.Ref]), nil })
				if err != nil || len(events) != 1 || events[0].Output != large {
					t.Errorf("%d events, %v", len(events), err)
				}
			})
		})
	}
}

// What can't be stored now is stored later: nothing is repeated, and the next step waits.
func TestALargeOutputWaitsForOrchestrators(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect b:effect")
		b.nodes = returns(large)
		b.putErr = errors.New("nobody answers")
		b.offer(1, 1)
		pass(5 * time.Minute) // longer than any timeout
		b.window(session(1), false)
		pass(time.Second)
		b.window(session(1), true)
		pass(time.Second)
		if n := slices.Index(b.log, "node b"); n >= 0 || len(b.entries) > 0 {
			t.Fatalf("went on: %q", b.log)
		}
		b.set(func() { b.putErr = nil })
		pass(10 * time.Second)
		if b.kinds() != "step final" || b.entries[1].State != protocol.Succeeded {
			t.Errorf("%s: %q", b.kinds(), b.log)
		}
		if n := len(slices.DeleteFunc(slices.Clone(b.log), func(s string) bool { return s != "node a" })); n != 1 {
			t.Errorf("a ran %d times", n)
		}
	})
}

// A run that is given up while its value can't be stored ends; one whose session is over, too.
func TestALargeOutputIsLetGo(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *bundle){
		"abandoned": func(b *bundle) { b.r.Abandon() },
		"session":   func(b *bundle) { b.window(session(2), true); b.r.Died(session(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, func(b *bundle) {
				b.programs[1] = chain(t, "a:effect b:effect")
				b.nodes = returns(large)
				b.putErr = errors.New("nobody answers")
				b.offer(1, 1)
				pass(time.Minute)
				end(b)
				pass(5 * time.Second)
				if !b.idle() {
					t.Error("the run still lives")
				}
			})
		})
	}
}

func TestTooMuchInLargeOutputsFailsTheStep(t *testing.T) {
	t.Parallel()
	for kind, nodes := range map[string]any{"a step": large, "the end": map[string]any{"a": 1}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			in(t, func(b *bundle) {
				b.programs[1] = chain(t, "a:effect")
				b.nodes = returns(nodes)
				b.putErr = fmt.Errorf("413: %w", ErrValues)
				if kind == "the end" { // several ends, small each, large together
					b.nodes = returns(strings.Repeat("y", protocol.MaxInline/2+100))
					b.programs[1] = compile(t, `{"name":"t","nodes":[{"id":"start","type":"trigger.manual"},{"id":"a","type":"pure"},{"id":"b","type":"pure"}],"edges":[{"from":"start","to":"a"},{"from":"start","to":"b"}]}`)
				}
				b.offer(1, 1)
				pass(time.Second)
				if len(b.entries) != 1 || b.entries[0].State != protocol.Failed || b.entries[0].Error.Code != "value-too-large" || !strings.Contains(b.entries[0].Error.Message, "67108864") {
					t.Errorf("%+v", b.entries)
				}
			})
		})
	}
}

// Many middling outputs together are no more than one message takes.
func TestReportsStayBounded(t *testing.T) {
	t.Parallel()
	in(t, func(b *bundle) {
		doc, edges := `{"name":"t","nodes":[{"id":"start","type":"trigger.manual"}`, ""
		for i := range 40 {
			doc += fmt.Sprintf(`,{"id":"n%d","type":"pure"}`, i)
			edges += fmt.Sprintf(`,{"from":"start","to":"n%d"}`, i)
		}
		b.programs[1] = compile(t, doc+`],"edges":[`+edges[1:]+`]}`)
		b.nodes = returns(strings.Repeat("z", 200<<10))
		b.offer(1, 1)
		pass(time.Second)
		if b.kinds() != "final" || len(b.bodies[0]) > inlineReport+64<<10 {
			t.Errorf("%s, %d bytes", b.kinds(), len(b.bodies[0]))
		}
	})
}

func TestInputsAndStepsByReference(t *testing.T) {
	t.Parallel()
	raw := `"` + large + `"`
	ref := payload.Ref([]byte(raw))
	task := func(task *protocol.Task, _ *Delivery) {
		task.Input, task.InputRef = nil, &protocol.Value{Ref: ref, Size: len(raw)}
		task.Steps = []json.RawMessage{json.RawMessage(`[{"t":"ok","n":"a","try":1,"at":"2030-01-02T03:04:05Z","r":{"r":"` + ref + `","s":9}}]`)}
	}
	in(t, func(b *bundle) {
		b.programs[1] = chain(t, "a:effect b:pure")
		b.stored[ref] = raw
		b.offer(1, 1, task)
		pass(time.Second)
		if b.kinds() != "final" || b.gets != 1 {
			t.Errorf("%s after %d reads, want one", b.kinds(), b.gets)
		}
	})
	t.Run("away", func(t *testing.T) { // the task comes back, and isn't counted
		in(t, func(b *bundle) {
			b.programs[1] = chain(t, "a:effect b:pure")
			b.putErr = errors.New("nobody answers")
			b.offer(1, 1, task)
			pass(time.Minute)
			if len(b.retried) != 1 || b.retried[0] != 0 || b.acked[1] != 1 || len(b.entries) > 0 {
				t.Errorf("handed back %v, acknowledged %d, %+v", b.retried, b.acked[1], b.entries)
			}
		})
	})
	t.Run("gone", func(t *testing.T) { // it never will be there: the execution ends
		in(t, func(b *bundle) {
			b.programs[1] = chain(t, "a:effect b:pure")
			b.offer(1, 1, task)
			synctest.Wait()
			if len(b.letters) != 1 || len(b.entries) != 1 || b.entries[0].State != protocol.Failed {
				t.Errorf("%+v %+v", b.letters, b.entries)
			}
		})
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	t.Parallel()
	v := newValues(nil, 1000)
	for i := range 10 {
		v.keep(fmt.Sprint(i), make([]byte, 300))
	}
	v.keep("huge", make([]byte, 600))
	var have []string
	for i := range 10 {
		if _, ok := v.cached(fmt.Sprint(i)); ok {
			have = append(have, fmt.Sprint(i))
		}
	}
	if _, ok := v.cached("huge"); ok || !slices.Equal(have, []string{"7", "8", "9"}) || v.held != 900 {
		t.Errorf("kept are %v, %d bytes", have, v.held)
	}
}

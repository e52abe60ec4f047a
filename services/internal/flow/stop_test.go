package flow_test

import (
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

// A type that asks for them gets the outputs by the edges that were taken, in the order of the document's edges.
func TestInputs(t *testing.T) {
	t.Parallel()
	s := mustCompile(t, chart(`
		start trigger.manual
		a data.set {"values": "{{ input }}"}
		if logic.if {"condition": "{{ input > 1 }}"}
		b data.set {"values": "big"}
		c data.set {"values": "small"}
		m logic.merge
		start -> a
		start -> if
		if.true -> b
		if.false -> c
		c -> m
		b -> m
		start -> m
		a -> m`)).Start(record(5))
	settle(t, s)
	if got := encode(t, s.Output()); got != `[["b","main","big"],["start","main",5],["a","main",5]]` {
		t.Errorf("%s %s", s.Outcome(), got)
	}
}

const stopping = `
	start trigger.manual
	slow http.request {"url": "x"}
	after data.set {"values": 1}
	wait flow.signal {"name": "x"}
	stop flow.stop {"output": {"done": "{{ input }}"}}
	start -> slow
	slow -> after
	start -> wait
	start -> stop`

// flow.stop: nothing new starts, calls in flight end and are recorded, then the execution has succeeded with the stop's output.
func TestStop(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart(stopping))
	s := p.Start(record(3))
	rest := settle(t, s)
	if len(rest) != 2 || !s.Closing() || s.Outcome() != flow.Running {
		t.Fatalf("%+v %s", rest, s.Outcome())
	}
	wait := flow.Event{Type: flow.EventWaiting, Node: "wait", Try: 1, At: epoch, Wait: &flow.Wait{Kind: flow.WaitSignal}}
	slow := flow.Event{Type: flow.EventFailed, Node: "slow", Try: 1, At: epoch.Add(time.Second), Error: &flow.Failure{Code: "late", Retryable: true}}
	apply(t, s, wait)
	apply(t, s, slow)
	if more := s.Next(); len(more) > 0 || s.Outcome() != flow.Succeeded || encode(t, s.Output()) != `{"done":3}` || s.Failure() != nil {
		t.Errorf("%v %s %s %v", more, s.Outcome(), encode(t, s.Output()), s.Failure())
	}
	restored, err := flow.Restore(p, record(3), []flow.Event{{Type: flow.EventSucceeded, Node: "stop", Try: 1, Output: map[string]any{"done": 3}, Stop: true, Pure: true, At: epoch}, wait, slow})
	if err != nil || restored.Outcome() != flow.Succeeded || encode(t, restored.Output()) != `{"done":3}` {
		t.Errorf("%v %s", err, restored.Outcome())
	}
}

package flow_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

// TestTraces runs flows in the order in which they ask, and compares every command and event with a golden file: what the
// engine asks for is part of what recorded executions rely on.
func TestTraces(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string]string{
		"orders":      orders,
		"containers":  "s trigger.manual\nloop logic.foreach {\"items\": [7, 8, 9], \"concurrency\": 2, \"onItemError\": \"collect\"}\nt logic.try | \"parent\": \"loop\"\nc http.request {\"url\": \"{{ item }}\"} | \"parent\": \"t\"\nd flow.delay {\"duration\": 1} | \"parent\": \"loop\"\ne data.set {\"values\": \"{{ steps.t.error.code }}\"} | \"parent\": \"loop\"\nt -> d\nt.error -> e\nend data.set {\"values\": \"{{ steps.loop.output }}\"}\ns -> loop\nloop -> end",
		"retry":       "s trigger.manual\nr5 test.flaky {\"x\": \"{{ random() }}\"} | \"retry\": {\"maxAttempts\": 4, \"initialDelay\": \"600ms\", \"jitter\": true}, \"onError\": \"route\"\nok data.set {\"values\": \"{{ now() }}\"}\nbad data.set {\"values\": \"{{ steps.r5.error }}\"}\ns -> r5\nr5 -> ok\nr5.error -> bad",
		"retry-fails": "s trigger.manual\nr1 test.flaky {\"x\": \"{{ random() }}\"} | \"retry\": {\"maxAttempts\": 4, \"initialDelay\": \"600ms\", \"jitter\": true}, \"onError\": \"route\"\nok data.set {\"values\": \"{{ now() }}\"}\nbad data.set {\"values\": \"{{ steps.r1.error }}\"}\ns -> r1\nr1 -> ok\nr1.error -> bad",
		"waits":       "s trigger.manual\nd1 flow.delay {\"duration\": 1}\nd2 flow.delay {\"duration\": 1}\nd3 flow.delay {\"duration\": 1}\ng flow.signal {\"name\": \"x\"}\nend data.set {\"values\": [\"{{ now() }}\", \"{{ steps.g.port }}\", \"{{ steps.g.output }}\"]}\ns -> d1\nd1 -> d2\nd2 -> d3\nd3 -> g\ng -> end\ng.expired -> end",
		"fan":         "s trigger.manual\na http.request {\"url\": \"a\"}\nb http.request {\"url\": \"b\"}\nc data.set {\"values\": 1}\nif logic.if {\"condition\": \"{{ steps.c.output == 1 }}\"}\nno data.set {\"values\": 2}\nj data.set {\"values\": \"{{ [steps.a.status, steps.b.status, steps.no.status] }}\"}\ns -> a\ns -> b\ns -> c\nc -> if\nif.false -> no\na -> j\nb -> j\nno -> j",
	} {
		p := mustCompile(t, chart(lines))
		golden(t, "testdata/traces/"+name+".txt", trace(t, p.Start(record(map[string]any{"orderId": 7}))))
	}
}

func trace(t *testing.T, s *flow.State) string {
	t.Helper()
	var b strings.Builder
	at := func(when time.Time) string { return when.Sub(epoch).String() }
	var open []flow.Event
	for s.Outcome() == flow.Running || s.Outcome() == flow.Suspended {
		for _, cmd := range s.Next() {
			fmt.Fprintf(&b, "command %s %s v%d %s try %d, %s, seed %016x, now %s", cmd.Op, cmd.Type, cmd.Version, named(cmd.Key.Node, cmd.Key.Iteration), cmd.Try, encode(t, cmd.Config), cmd.Seed, at(cmd.Now))
			if cmd.Op == flow.OpSleep {
				fmt.Fprintf(&b, ", until %s", at(cmd.Until))
			}
			b.WriteByte('\n')
			e := world{}.answer(cmd)
			if cmd.Key.Node == "fetch" {
				e = flow.Event{Type: flow.EventSucceeded, Node: "fetch", Try: 1, At: epoch.Add(time.Second), Output: map[string]any{"body": map[string]any{"total": 150}}}
			}
			open = append(open, e)
		}
		if s.Outcome() == flow.Suspended {
			for _, w := range s.OpenWaits() {
				fmt.Fprintf(&b, "waits %s %s since %s (%s)\n", named(w.Key.Node, w.Key.Iteration), w.Wait.Kind, at(w.Since), w.Wait.Reason)
				open = append(open, world{}.meet(w))
			}
		}
		if len(open) == 0 {
			break
		}
		e := open[0]
		open = open[1:]
		apply(t, s, e)
		fmt.Fprintf(&b, "event %s %s at %s, clock %s, in flight %d\n", e.Type, named(e.Node, e.Iteration), at(e.At), at(s.Clock()), s.InFlight())
	}
	fmt.Fprintf(&b, "%s %s\n", s.Outcome(), encode(t, s.Output()))
	for _, step := range s.Steps() {
		fmt.Fprintf(&b, "step %s %s %s try %d\n", named(step.Key.Node, step.Key.Iteration), step.Status, step.Port, step.Try)
	}
	return b.String()
}

func named(node, iteration string) string {
	if iteration == "" {
		return node
	}
	return node + "@" + iteration
}

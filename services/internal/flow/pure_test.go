package flow_test

import (
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

// A Program is shared by goroutines, and a command's Scope is read while the state that gave it moves on. The race detector watches.
func TestProgramsAreShared(t *testing.T) {
	t.Parallel()
	p := mustCompile(t, chart("s trigger.manual\na data.set {\"values\": {\"x\": \"{{ input.n }}\", \"fixed\": [1, 2]}}\nb http.request {\"url\": \"{{ steps.a.output.x }}\"}\nc http.request {\"url\": \"constant\"}\nd data.set {\"values\": \"{{ [steps.b.output, steps.c.output] }}\"}\ns -> a\na -> b\na -> c\nb -> d\nc -> d"))
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 50 {
				s := p.Start(record(map[string]any{"n": n}))
				results := make(chan flow.Event, 2)
				for _, cmd := range settle(t, s) {
					go func() {
						view, _ := cmd.Scope.Steps("a")
						results <- flow.Event{Type: flow.EventSucceeded, Node: cmd.Key.Node, At: epoch.Add(time.Second), Output: view.Output}
					}()
				}
				for range 2 {
					apply(t, s, <-results)
					settle(t, s)
				}
				if out := s.Output().([]any); out[0].(map[string]any)["x"] != n || s.Outcome() != flow.Succeeded {
					t.Errorf("%v", out)
				}
			}
		})
	}
	wg.Wait()
}

package flow_test

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/flow"
)

// The engine imports nothing that could reach outside: the list is short, so it is written down whole.
func TestImports(t *testing.T) {
	t.Parallel()
	allowed := []string{"bytes", "cmp", "encoding/json", "errors", "fmt", "math", "reflect", "slices", "strconv", "strings", "time", "unicode/utf16", "unicode/utf8"}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if path := strings.Trim(i.Path.Value, `"`); !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
}

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

package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// TestGO1_LargeOutputsInLittleMemory: 200 executions at once that read two megabytes each, in a worker that may have 64 MiB. It stays alive and keeps its session, all
// succeed and nothing is called twice. What they read is in the payloads.
func TestGO1_LargeOutputsInLittleMemory(t *testing.T) {
	t.Parallel()
	const n, limit = 200, 64 // executions, MiB
	w := newWorld(t, nil, 3*time.Second)
	flow := w.flow(t, "A", "B")
	metrics := testkit.FreePort(t)
	p := w.process(t, "small", fmt.Sprintf("MEMORY_LIMIT_MB=%d", limit), fmt.Sprintf("METRICS_PORT=%d", metrics))
	before := w.sql(t, "SELECT id FROM sessions WHERE alive")
	stop, most := make(chan struct{}), 0
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			most = max(most, resident(p.PID()))
		}
	})
	tasks := w.accept(t, flow, n, "normal")
	w.states(t, 3*time.Minute, fmt.Sprintf("succeeded|%d", n))
	close(stop)
	watching.Wait()
	w.outside.once(t, "A", n)
	w.outside.once(t, "B", n)
	if after := w.sql(t, "SELECT id FROM sessions WHERE alive"); after != before {
		t.Errorf("the session was lost: %s, then %s", before, after)
	}
	t.Logf("resident at most %d MiB", most>>20)
	if most > 2*limit<<20 { // 75 MiB were seen; what goes beyond is what one run more takes, and garbage that waits on a machine under load
		t.Errorf("%d MiB were resident, with a limit of %d", most>>20, limit)
	}
	// Two for each execution, or one: what A and B answered is the same value when it came in the same second, by the header Date.
	var stored, executions int
	var large bool
	if _, err := fmt.Sscanf(w.sql(t, "SELECT count(*), count(DISTINCT execution_id), min(size) > 1000000 FROM payloads"), "%d|%d|%t", &stored, &executions, &large); err != nil || stored < n || stored > 2*n || executions != n || !large {
		t.Errorf("%d payloads of %d executions, large: %t, %v", stored, executions, large, err)
	}
	x, err := w.db.ExecutionByID(t.Context(), tasks[0].ID)
	if err != nil || x.OutputRef.Ref == "" {
		t.Fatalf("%+v, %v", x, err)
	}
	raw, err := w.db.Value(t.Context(), x.ID, x.OutputRef.Ref)
	var out struct{ Body string }
	if err != nil || json.Unmarshal(raw, &out) != nil || out.Body != string(megabyte) {
		t.Errorf("the output has %d bytes, %v", len(raw), err)
	}
	if got := metric(t, metrics, "go_gc_gomemlimit_bytes"); got < limit<<20/2 || got > limit<<20 {
		t.Errorf("the runtime's soft limit is %.0f MiB", got/(1<<20))
	}
	if late := metric(t, metrics, "worker_window_closings_total"); late > 0 {
		t.Errorf("the trust window closed %v times: renewals came late", late)
	}
}

// A large input, and steps that were recorded by reference, come to the worker that goes on with the execution.
func TestLargeValuesComeBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, 15*time.Second)
	flow := w.flow(t, "A", "b", "B")
	w.outside.shut("b")
	first := w.process(t, "first", "STOP_GRACE=0s", "STOP_PATIENCE=0s")
	w.accept(t, flow, 3, "normal")
	w.outside.called(t, 30*time.Second, "b", 3)
	if !first.Terminate(20 * time.Second) {
		t.Fatal("the first doesn't stop")
	}
	w.outside.open("b")
	w.worker(t, "second")
	w.states(t, 60*time.Second, "succeeded|3")
	w.outside.once(t, "A", 3)
	w.outside.once(t, "B", 3)
}

func resident(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

func metric(t *testing.T, port int, name string) float64 {
	t.Helper()
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(string(body), -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

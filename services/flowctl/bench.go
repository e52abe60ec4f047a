package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flowplatform/services/flowctl/internal/load"
	"flowplatform/services/internal/store"
)

type benchCommand struct {
	Duration    time.Duration `help:"How long the load at full speed lasts." default:"20s"`
	Connections int           `help:"Connections of the load at full speed." default:"256"`
	Latency     time.Duration `help:"How long each of the two phases at a fixed rate lasts." default:"10s"`
	Calls       time.Duration `help:"How long the load of flows with two HTTP calls lasts; 0 leaves it out." default:"15s"`
	Backlog     int           `help:"Executions that are accepted in batches as fast as they go, and then drain; 0 leaves it out." default:"60000"`
	Delays      int           `help:"Executions that wait for a minute at the same time; 0 leaves it out." default:"10000"`
	Database    string        `help:"Address of the database, where executions are counted." env:"FLOW_BENCH_DATABASE_URL" placeholder:"URL"`
	File        string        `help:"Where the figures go, as JSON." default:"bench-results/bench.json"`
}

// benchReport is what bench writes.
type benchReport struct {
	At        time.Time     `json:"at"`
	CountedIn string        `json:"countedIn"`
	Accept    load.Result   `json:"acceptAt300"`
	EndToEnd  load.Result   `json:"endToEndAt100"`
	FullSpeed *benchLoad    `json:"fullSpeed"`
	Calls     *benchLoad    `json:"twoHTTPCalls,omitempty"`
	Backlog   *benchBacklog `json:"backlog,omitempty"`
	Delays    *benchDelays  `json:"delays,omitempty"`
}

// benchLoad is a load at full speed, from its first request to the end of its last execution.
type benchLoad struct {
	load.Result
	Final        int                `json:"final"`
	Succeeded    int                `json:"succeeded"`
	Lost         int                `json:"lost"`         // accepted, and not final after the wait
	DrainSeconds float64            `json:"drainSeconds"` // from the last answer to the last end
	PerSecond    float64            `json:"executionsPerSecond"`
	CPUMillis    map[string]float64 `json:"cpuMsPerExecution"`
	CPUTotal     float64            `json:"cpuMsPerExecutionTotal"`
}

// benchBacklog is what was accepted faster than it could be run.
type benchBacklog struct {
	Accepted      int     `json:"accepted"`
	AcceptSeconds float64 `json:"acceptSeconds"`
	Open          int     `json:"open"` // when the last was accepted
	DrainSeconds  float64 `json:"drainSeconds"`
	PerSecond     float64 `json:"drainedPerSecond"` // of the open ones
	Lost          int     `json:"lost"`
}

// benchDelays is many executions that wait at the same time.
type benchDelays struct {
	Waiting   int                `json:"waiting"` // at the same time, as the database saw it
	Succeeded int                `json:"succeeded"`
	Lost      int                `json:"lost"`
	Seconds   float64            `json:"seconds"` // from the first start to the last end
	MemoryMB  map[string]float64 `json:"memoryMbBefore"`
	WaitingMB map[string]float64 `json:"memoryMbWaiting"`
}

func (b *benchCommand) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	if b.Database == "" {
		return errors.New("no database to count in: set FLOW_BENCH_DATABASE_URL, as `make bench` does")
	}
	db, err := store.Open(a.ctx, store.Options{URL: b.Database, PoolSize: 2, Application: "flowctl bench"})
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer db.Close()
	rep := &benchReport{At: time.Now().UTC(), CountedIn: "postgresql"}
	if err := (&bench{benchCommand: b, app: a, client: c, db: db}).measure(rep); err != nil {
		return err
	}
	if err := writeReport(b.File, rep); err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(rep)
	} else {
		err = rep.print(a, b.File)
	}
	if n := rep.lost(); n > 0 {
		return errors.Join(err, fmt.Errorf("%d executions were accepted and are not final", n))
	}
	return err
}

func (r *benchReport) lost() int {
	n := r.FullSpeed.Lost
	if r.Calls != nil {
		n += r.Calls.Lost
	}
	if r.Backlog != nil {
		n += r.Backlog.Lost
	}
	if r.Delays != nil {
		n += r.Delays.Lost
	}
	return n
}

func writeReport(path string, v any) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func (r *benchReport) print(a *app, file string) error {
	phases := []load.Result{r.Accept, r.EndToEnd, r.FullSpeed.Result}
	if r.Calls != nil {
		phases = append(phases, r.Calls.Result)
	}
	var rows [][]string
	for _, p := range phases {
		rows = append(rows, []string{p.Phase, fmt.Sprint(p.Requests), fmt.Sprint(p.Errors),
			fmt.Sprintf("%.1f", p.Latency.P50), fmt.Sprintf("%.1f", p.Latency.P95), fmt.Sprintf("%.1f", p.Latency.P99), fmt.Sprintf("%.1f", p.Latency.Max)})
	}
	if err := a.table([]string{"PHASE", "REQUESTS", "ERRORS", "P50 MS", "P95 MS", "P99 MS", "MAX MS"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	for _, l := range []*benchLoad{r.FullSpeed, r.Calls} {
		if l != nil {
			fmt.Fprintf(a.out, "%s: %.0f executions a second, accepted to final; %d accepted in %.1f s, %d final (%d succeeded), %d lost; the last ended %.1f s after the last answer\n",
				l.Phase, l.PerSecond, l.Accepted, l.Seconds, l.Final, l.Succeeded, l.Lost, l.DrainSeconds)
		}
	}
	if l := r.Backlog; l != nil {
		fmt.Fprintf(a.out, "backlog: %d accepted in %.1f s, %d of them still open; these drained in %.1f s, %.0f a second, %d lost\n", l.Accepted, l.AcceptSeconds, l.Open, l.DrainSeconds, l.PerSecond, l.Lost)
	}
	if d := r.Delays; d != nil {
		fmt.Fprintf(a.out, "delays: %d waited at the same time, %d succeeded, %d lost, in %.1f s; memory before and while they waited, MiB: worker %.0f and %.0f, orchestrator %.0f and %.0f\n",
			d.Waiting, d.Succeeded, d.Lost, d.Seconds, d.MemoryMB["worker"], d.WaitingMB["worker"], d.MemoryMB["orchestrator"], d.WaitingMB["orchestrator"])
	}
	fmt.Fprintln(a.out, "\n(counted in PostgreSQL)")
	fmt.Fprintln(a.out)
	rows = nil
	for _, name := range slices.SortedFunc(maps.Keys(r.FullSpeed.CPUMillis), strings.Compare) {
		rows = append(rows, []string{name, fmt.Sprintf("%.3f", r.FullSpeed.CPUMillis[name])})
	}
	rows = append(rows, []string{"all", fmt.Sprintf("%.3f", r.FullSpeed.CPUTotal)})
	if err := a.table([]string{"PROCESS", "CPU MS PER EXECUTION AT FULL SPEED"}, rows); err != nil {
		return err
	}
	for _, p := range phases {
		if p.FirstFail != "" {
			fmt.Fprintf(a.out, "\n%s: first error: %s\n", p.Phase, p.FirstFail)
		}
	}
	fmt.Fprintf(a.out, "\nFigures as JSON: %s\n", file)
	return nil
}

// rest waits, unless ctx ends first.
func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

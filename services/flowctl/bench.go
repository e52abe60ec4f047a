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

	"flowplatform/services/flowctl/internal/client"
	"flowplatform/services/flowctl/internal/load"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// benchFlow is the flow of four nodes that the figures are about.
const benchFlow = `{
  "name": "%s",
  "nodes": [
    {"id": "start", "type": "trigger.manual"},
    {"id": "first", "type": "data.set", "config": {"values": {"n": "{{ input.n + 1 }}", "name": "{{ input.name }}"}}},
    {"id": "large", "type": "logic.if", "config": {"condition": "{{ steps.first.output.n > 100 }}"}},
    {"id": "second", "type": "data.set", "config": {"values": {"n": "{{ steps.first.output.n * 2 }}"}}}
  ],
  "edges": [{"from": "start", "to": "first"}, {"from": "first", "to": "large"}, {"from": "large", "port": "true", "to": "second"}]
}`

const benchInput = `{"input":{"n":123,"name":"a name of some length","tags":["a","b","c"]}}`

type benchCommand struct {
	Duration    time.Duration `help:"How long the load at full speed lasts." default:"20s"`
	Connections int           `help:"Connections of the load at full speed." default:"64"`
	Latency     time.Duration `help:"How long each of the two phases at a fixed rate lasts." default:"10s"`
	Database    string        `help:"Address of the database, where executions are counted." env:"FLOW_BENCH_DATABASE_URL" placeholder:"URL"`
	File        string        `help:"Where the figures go, as JSON." default:"bench-results/bench.json"`
}

// benchReport is what bench writes.
type benchReport struct {
	At            time.Time          `json:"at"`
	Accept        load.Result        `json:"acceptAt300"`
	EndToEnd      load.Result        `json:"endToEndAt100"`
	FullSpeed     load.Result        `json:"fullSpeed"`
	Final         int                `json:"final"`
	Succeeded     int                `json:"succeeded"`
	Lost          int                `json:"lost"` // accepted, and not final after the wait
	DrainSeconds  float64            `json:"drainSeconds"`
	PerSecond     float64            `json:"executionsPerSecond"` // accepted to final, from the first request to the last end
	CountedIn     string             `json:"countedIn"`
	CPUMillis     map[string]float64 `json:"cpuMsPerExecution"`
	CPUTotal      float64            `json:"cpuMsPerExecutionTotal"`
	PlatformCores float64            `json:"coresInUse"`
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
	var f flowView
	if _, err := c.Do(a.ctx, "POST", "/flows", fmt.Appendf(nil, benchFlow, "bench "+time.Now().UTC().Format("2006-01-02 15:04:05.000")), &f); err != nil {
		return err
	}
	rep := &benchReport{At: time.Now().UTC(), CountedIn: "postgresql"}
	if err := b.measure(a, c, db, f.ID, rep); err != nil {
		return err
	}
	if err := writeReport(b.File, rep); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(rep)
	}
	return rep.print(a, b.File)
}

func (b *benchCommand) measure(a *app, c *client.Client, db *store.DB, flow string, rep *benchReport) error {
	path := "/flows/" + flow + "/executions"
	o := load.Options{Server: c.Server, Token: c.Token, Path: path, Body: benchInput}
	phase := func(name string, o load.Options) (load.Result, error) {
		fmt.Fprintf(a.errs, "bench: %s, %s …\n", name, o.Duration)
		return load.Run(a.ctx, name, o)
	}
	warm := o
	warm.Connections, warm.Rate, warm.Duration = 8, 200, 3*time.Second
	if _, err := phase("warm up", warm); err != nil {
		return err
	}
	accept := o
	accept.Connections, accept.Rate, accept.Duration = 32, 300, b.Latency
	var err error
	if rep.Accept, err = phase("accept at 300 a second", accept); err != nil {
		return err
	}
	end := o
	end.Path, end.Connections, end.Rate, end.Duration = path+"?wait=10s", 32, 100, b.Latency
	if rep.EndToEnd, err = phase("end to end at 100 a second", end); err != nil {
		return err
	}
	id, err := protocol.ParseID(flow)
	if err != nil {
		return err
	}
	before, err := settle(a.ctx, db, id, time.Minute)
	if err != nil {
		return err
	}
	cpu, err := load.ReadCPU()
	if err != nil {
		return err
	}
	begun := time.Now()
	full := o
	full.Connections, full.Duration = b.Connections, b.Duration
	if rep.FullSpeed, err = phase("full speed", full); err != nil {
		return err
	}
	sent := time.Now()
	after, err := settle(a.ctx, db, id, 5*time.Minute)
	if err != nil {
		return err
	}
	rep.DrainSeconds = time.Since(sent).Seconds()
	used, err := load.ReadCPU()
	if err != nil {
		return err
	}
	rep.Final, rep.Succeeded = after.final-before.final, after.succeeded-before.succeeded
	rep.Lost = rep.FullSpeed.Accepted - rep.Final
	rep.PerSecond = float64(rep.Final) / time.Since(begun).Seconds()
	rep.CPUMillis = used.Since(cpu, rep.Final)
	for _, ms := range rep.CPUMillis {
		rep.CPUTotal += ms
	}
	rep.PlatformCores = rep.CPUTotal / 1000 * float64(rep.Final) / time.Since(begun).Seconds()
	return nil
}

type counted struct{ open, final, succeeded int }

// settle counts the flow's executions until none is open any more.
func settle(ctx context.Context, db *store.DB, flow protocol.ID, limit time.Duration) (counted, error) {
	until := time.Now().Add(limit)
	for {
		states, err := db.CountStates(ctx, flow)
		if err != nil {
			return counted{}, fmt.Errorf("bench: count: %w", err)
		}
		var n counted
		for state, count := range states {
			if state.Final() {
				n.final += count
			} else {
				n.open += count
			}
		}
		n.succeeded = states[protocol.Succeeded]
		if n.open == 0 || time.Now().After(until) {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
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
	ms := func(p load.Percentiles) []string {
		return []string{fmt.Sprintf("%.1f", p.P50), fmt.Sprintf("%.1f", p.P95), fmt.Sprintf("%.1f", p.P99), fmt.Sprintf("%.1f", p.Max)}
	}
	var rows [][]string
	for _, p := range []load.Result{r.Accept, r.EndToEnd, r.FullSpeed} {
		rows = append(rows, slices.Concat([]string{p.Phase, fmt.Sprint(p.Requests), fmt.Sprint(p.Errors)}, ms(p.Latency)))
	}
	if err := a.table([]string{"PHASE", "REQUESTS", "ERRORS", "P50 MS", "P95 MS", "P99 MS", "MAX MS"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\n%.0f executions a second, accepted to final: %d accepted in %.1f s, %d final (%d succeeded), %d lost; the last ended %.1f s after the last request (counted in PostgreSQL)\n\n",
		r.PerSecond, r.FullSpeed.Accepted, r.FullSpeed.Seconds, r.Final, r.Succeeded, r.Lost, r.DrainSeconds)
	rows = nil
	for _, name := range slices.SortedFunc(maps.Keys(r.CPUMillis), func(x, y string) int { return strings.Compare(x, y) }) {
		rows = append(rows, []string{name, fmt.Sprintf("%.3f", r.CPUMillis[name])})
	}
	rows = append(rows, []string{"all", fmt.Sprintf("%.3f", r.CPUTotal)})
	if err := a.table([]string{"PROCESS", "CPU MS PER EXECUTION"}, rows); err != nil {
		return err
	}
	for _, p := range []load.Result{r.Accept, r.EndToEnd, r.FullSpeed} {
		if p.FirstFail != "" {
			fmt.Fprintf(a.out, "\n%s: first error: %s\n", p.Phase, p.FirstFail)
		}
	}
	fmt.Fprintf(a.out, "\nFigures as JSON: %s\n", file)
	if r.Lost > 0 {
		return fmt.Errorf("%d executions were accepted and are not final", r.Lost)
	}
	return nil
}

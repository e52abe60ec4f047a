package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"flowplatform/services/e2e/chaos"
)

// change is one release.
type change struct {
	Job     string  `json:"job"`
	What    string  `json:"what"`
	Version string  `json:"version"`
	Seconds float64 `json:"seconds"` // until it was through everywhere, or all was as before
	Outcome string  `json:"outcome"`
}

// record is what a demonstration has found.
type record struct {
	At      time.Time    `json:"at"`
	Seconds float64      `json:"seconds"`
	Rate    float64      `json:"ratePerSecond"`
	Changes []change     `json:"changes"`
	Counts  chaos.Counts `json:"counts"`
	Broken  []string     `json:"broken"`

	mu sync.Mutex
}

func (r *record) add(c change, say func(string, ...any)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Changes = append(r.Changes, c)
	say("%6.1fs  %-13s %-22s %s", c.Seconds, c.Job, c.What, c.Outcome)
}

func (r *record) broke(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Broken = append(r.Broken, fmt.Sprintf(format, args...))
}

// play does the releases, one after the other; those that can't succeed at the same time, for they only wait.
func (d *depot) play(ctx context.Context, a arguments, r *record, say func(string, ...any)) error {
	newer := map[string]string{}
	good, bad := released(), []string{"gateway", "worker"}
	if a.quick {
		good, bad = good[:2], bad[:1]
		dir, err := d.impatient()
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		d.bads = dir
	}
	for _, job := range good {
		version, err := d.good(job)
		if err != nil {
			return err
		}
		newer[job] = version
		if err := d.takes(ctx, r, say, change{Job: job, What: "a new release", Version: version}); err != nil {
			return err
		}
	}
	if a.bad {
		var failures sync.WaitGroup
		errs := make([]error, len(bad))
		for i, job := range bad {
			failures.Go(func() { errs[i] = d.refuses(ctx, r, say, job, newer[job]) })
		}
		failures.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	if a.quick {
		return nil
	}
	for _, job := range released() {
		if err := d.takes(ctx, r, say, change{Job: job, What: "back to the one before", Version: d.before[job]}); err != nil {
			return err
		}
	}
	return nil
}

// takes does a release that must succeed.
func (d *depot) takes(ctx context.Context, r *record, say func(string, ...any), c change) error {
	begun := time.Now()
	if err := d.run(ctx, c.Job, c.Version); err != nil {
		return err
	}
	if err := d.settled(ctx, c.Job, c.Version, time.Minute); err != nil {
		return err
	}
	c.Seconds, c.Outcome = time.Since(begun).Seconds(), "promoted, and everywhere"
	r.add(c, say)
	return nil
}

// refuses does a release that must be taken back: by Nomad, and to the version that ran.
func (d *depot) refuses(ctx context.Context, r *record, say func(string, ...any), job, before string) error {
	version, err := d.bad(ctx, job)
	if err != nil {
		return err
	}
	c := change{Job: job, What: "one that never gets ready", Version: version}
	begun := time.Now()
	if err := d.runFrom(ctx, d.bads, job, version); err == nil {
		r.broke("%s: nomad job run of a program that never becomes ready ended with success", job)
	} else if ctx.Err() != nil {
		return err
	}
	if err := d.settled(ctx, job, before, time.Minute); err != nil {
		return fmt.Errorf("a bad release was not taken back: %w", err)
	}
	c.Seconds, c.Outcome = time.Since(begun).Seconds(), "failed, and taken back"
	r.add(c, say)
	return nil
}

// judge says which promises were not kept.
func (r *record) judge() {
	c := r.Counts
	for _, kind := range slices.Sorted(maps.Keys(c.Errors)) {
		r.broke("%d requests failed: %s, first: %.200s", c.Errors[kind], kind, strings.TrimSpace(c.FirstOf[kind]))
	}
	if c.Repeated > 0 {
		r.broke("%d steps were called again", c.Repeated)
	}
	r.Broken = append(r.Broken, c.Broken()...)
}

func (r *record) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func (r *record) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	c := r.Counts
	fmt.Fprintln(w)
	fmt.Fprintf(w, "releases\t%d in %.0f s\n", len(r.Changes), r.Seconds)
	fmt.Fprintf(w, "requests\t%d, %d failed; %d found an idle connection closed, and were sent again\n", c.Requests, c.Requests-c.Accepted, c.Again)
	fmt.Fprintf(w, "executions\t%d accepted, %d succeeded, %d lost\n", c.Accepted, c.Succeeded, c.Lost+c.Unfinished)
	fmt.Fprintf(w, "calls of steps\t%d, %d repeated\n", c.Calls, c.Repeated+c.Doubled)
	return w.Flush()
}

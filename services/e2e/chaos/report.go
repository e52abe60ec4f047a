package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a drill found.
type Report struct {
	At       time.Time  `json:"at"`
	Seed     uint64     `json:"seed"`
	Duration float64    `json:"durationSeconds"`
	Rate     float64    `json:"ratePerSecond"`
	Usual    float64    `json:"usualSeconds"` // an execution that takes longer is late
	Faults   []Recovery `json:"faults"`
	Counts   Counts     `json:"counts"`
	Broken   []string   `json:"broken"` // promises that were not kept, and faults that could not be done; none: the drill is passed
}

func (o Options) report(e evidence, faults []fault, begun, end time.Time) *Report {
	r := &Report{At: begun.UTC(), Seed: o.Seed, Duration: o.Duration.Seconds(), Rate: o.Rate, Counts: judge(e), Broken: []string{}}
	var bound time.Duration
	r.Faults, bound = recoveries(faults, e, begun, end, o.Rate)
	r.Usual = bound.Seconds()
	r.Broken = append(r.Broken, r.Counts.Broken()...)
	for _, f := range r.Faults {
		if f.Error != "" {
			r.Broken = append(r.Broken, fmt.Sprintf("fault %s at %.1f s: %s", f.Kind, f.At, f.Error))
		}
	}
	return r
}

// Write stores it as JSON.
func (r *Report) Write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Print shows it to people.
func (r *Report) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nAT S\tFAULT\tWHAT\tHELD S\tFIRST END S\tSILENCE S\tSTEADY S\tTROUBLED S\tFAILED\tLATE")
	for _, f := range r.Faults {
		held := "-"
		if f.Held > 0 {
			held = fmt.Sprintf("%.1f", f.Held)
		}
		fmt.Fprintf(w, "%.1f\t%s\t%s\t%s\t%s\t%.2f\t%s\t%.2f\t%d\t%d\n", f.At, f.Kind, f.What, held, seconds(f.First), f.Silence, seconds(f.Steady), f.Troubled, f.Failed, f.Late)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nFrom each fault, as far as the next: until the first execution ended; the longest time in which none did; until as many as usual ended again;\nuntil the last client who noticed was served (a request failed, or an execution took more than %.1f s).\n\n", r.Usual)
	c := r.Counts
	fmt.Fprintf(w, "seed\t%d\n", r.Seed)
	fmt.Fprintf(w, "requests\t%d in %.0f s\n", c.Requests, r.Duration)
	fmt.Fprintf(w, "accepted\t%d\n", c.Accepted)
	fmt.Fprintf(w, "errors\t%d (%.2f %%)\n", c.Requests-c.Accepted, 100*c.ErrorRate)
	for _, kind := range slices.Sorted(maps.Keys(c.Errors)) {
		fmt.Fprintf(w, "  %s\t%d, first: %.200s\n", kind, c.Errors[kind], strings.TrimSpace(c.FirstOf[kind]))
	}
	fmt.Fprintf(w, "unheard\t%d began though their client got no answer\n", c.Unheard)
	fmt.Fprintf(w, "final\t%d, %d succeeded\n", c.Final, c.Succeeded)
	fmt.Fprintf(w, "lost\t%d\n", c.Lost+c.Unfinished)
	fmt.Fprintf(w, "calls\t%d\n", c.Calls)
	fmt.Fprintf(w, "repeated in flight\t%d\n", c.Repeated)
	fmt.Fprintf(w, "repeated after confirm\t%d\n", c.Doubled)
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range c.Examples {
		fmt.Fprintln(out, "  "+x)
	}
	return nil
}

func seconds(s *float64) string {
	if s == nil {
		return "not yet"
	}
	return fmt.Sprintf("%.2f", *s)
}

func plural(n int, what string) string { return fmt.Sprintf("%d %s", n, what) }

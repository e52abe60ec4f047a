package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// sample is how it stood at a moment.
type sample struct {
	At        time.Time
	Depth     int // sent, and not begun
	Answered  int // calls so far
	Busy      int // workers that have called within a second
	Desired   int // workers, by Nomad
	Reporting int // workers, by the leader
}

// record is what was seen.
type record struct {
	Begun      time.Time
	Executions int
	Samples    []sample

	Marked      time.Time // the depth passed the mark
	Decided     time.Time // the leader's first decision for more workers
	DecidedTo   int
	FirstTask   time.Time // of a worker that wasn't there before
	FirstWorker string    // its allocation
	Drained     time.Time // all calls were answered
	Lowered     time.Time // the first decision for fewer
	Down        time.Time // as few as at the beginning, and no more of them report

	Calls, Repeated int
	Succeeded       int
}

// add takes a sample and what the leader said last; it says whether all is over.
func (r *record) add(p sample, v scaling) bool {
	r.Samples = append(r.Samples, p)
	if r.Marked.IsZero() && p.Depth >= mark {
		r.Marked = p.At
	}
	if r.Drained.IsZero() && p.Answered >= r.Executions {
		r.Drained = p.At
	}
	for _, d := range v.Decisions { // the newest first
		if d.At.Before(r.Begun) || d.Pool != "default" || d.Outcome != "done" {
			continue
		}
		switch {
		case d.Detail.To > d.Detail.From && (r.Decided.IsZero() || d.At.Before(r.Decided)):
			r.Decided, r.DecidedTo = d.At, d.Detail.To
		case d.Detail.To < d.Detail.From && (r.Lowered.IsZero() || d.At.Before(r.Lowered)):
			r.Lowered = d.At
		}
	}
	small := !r.Drained.IsZero() && !r.Lowered.IsZero() && p.Desired <= workers && p.Reporting <= workers
	switch {
	case !small:
		r.Down = time.Time{}
	case r.Down.IsZero():
		r.Down = p.At
	}
	return small && p.At.Sub(r.Down) >= calmly
}

// peak is the largest number of workers at work, the largest depth, and the most that ended in a second.
func (r *record) peak() (busy, depth int, rate float64) {
	for _, p := range r.Samples {
		busy, depth = max(busy, p.Busy), max(depth, p.Depth)
	}
	for _, v := range r.rates() {
		rate = max(rate, v)
	}
	return busy, depth, rate
}

// rates is how many calls a second were answered in the second before each sample.
func (r *record) rates() []float64 {
	out := make([]float64, len(r.Samples))
	from := 0
	for i, p := range r.Samples {
		for p.At.Sub(r.Samples[from].At) > time.Second {
			from++
		}
		if apart := p.At.Sub(r.Samples[from].At).Seconds(); apart > 0.5 {
			out[i] = float64(p.Answered-r.Samples[from].Answered) / apart
		}
	}
	return out
}

// missed lists the promises that were not kept.
func (r *record) missed() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf("missed: "+format, args...)) }
	switch late := r.FirstTask.Sub(r.Marked); {
	case r.Marked.IsZero():
		say("the depth never passed the mark of %d", mark)
	case r.FirstTask.IsZero():
		say("no new worker got a task")
	case late > promised:
		say("the first new worker began its first task %.2f s after the depth passed the mark; promised are %s", late.Seconds(), promised)
	}
	if r.Down.IsZero() {
		say("the workers did not come down to %d", workers)
	}
	if r.Repeated > 0 {
		say("%d steps were done again", r.Repeated)
	}
	if r.Succeeded != r.Executions {
		say("%d of %d executions succeeded", r.Succeeded, r.Executions)
	}
	return out
}

// print shows it to people.
func (r *record) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	busy, depth, rate := r.peak()
	row := func(at time.Time, format string, args ...any) {
		when, after := "-", "-"
		if !at.IsZero() {
			when = fmt.Sprintf("%.2f", at.Sub(r.Begun).Seconds())
			if !r.Marked.IsZero() {
				after = fmt.Sprintf("%+.2f", at.Sub(r.Marked).Seconds())
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", when, after, fmt.Sprintf(format, args...))
	}
	fmt.Fprintln(w, "\nAT S\tAFTER MARK\tWHAT")
	row(r.Begun, "the burst begins: %d executions", r.Executions)
	row(r.Marked, "more than %d wait", mark)
	row(r.Decided, "the leader decides: %d workers instead of %d", r.DecidedTo, workers)
	row(r.FirstTask, "a new worker (%.8s) begins its first task; promised within %s of the mark", r.FirstWorker, promised)
	row(r.Drained, "all %d have been answered", r.Executions)
	row(r.Lowered, "the leader decides: fewer")
	row(r.Down, "%d workers again", workers)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nat the peak      %d workers at work, %d waiting, %.0f ended a second\n", busy, depth, rate)
	fmt.Fprintf(out, "succeeded        %d of %d\n", r.Succeeded, r.Executions)
	_, err := fmt.Fprintf(out, "calls            %d, %d of them repeated\n", r.Calls, r.Repeated)
	return err
}

// Command demo-scaling shows the autoscaler at work on the platform that make up started on this machine: two workers of 20 slots, a burst of executions that
// each hold a slot for 100 ms, and then what happens, as a table and as a picture. make demo-scaling runs it.
//
// It fails when the first new worker begins its first task more than three seconds after the burst has passed the mark, when a step is done twice, when an
// execution doesn't succeed, or when the workers aren't back at their minimum in time. What it measures it sees itself: every execution calls a server of this program once, so
// what waits is what was sent less what was called for, and who called is read from the caller's socket.
//
// The workers' slots and some settings are other ones meanwhile. They are put back at the end, also after Ctrl-C and after a failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"flowplatform/scripts/internal/running"
)

func main() { os.Exit(run(os.Args[1:])) }

// What the demonstration begins with, and what it promises.
const (
	workers  = 2
	slots    = 20
	takes    = 100 * time.Millisecond // an execution
	mark     = 1000                   // QUEUE_HIGH_WATER_MARK
	window   = 10 * time.Second       // SCALE_DOWN_WINDOW: minutes in earnest
	promised = 3 * time.Second        // from the mark to the first task of a new worker
)

// arguments of a demonstration.
type arguments struct {
	executions int
	most       int // MAX_WORKERS
	bound      time.Duration
	file       string
}

func parse(args []string) (arguments, error) {
	var a arguments
	f := flag.NewFlagSet("demo-scaling", flag.ContinueOnError)
	f.IntVar(&a.executions, "executions", 20_000, "size of the burst, from 2000 to 200000")
	f.IntVar(&a.most, "max-workers", 8, "MAX_WORKERS meanwhile, from 3 to 50")
	f.DurationVar(&a.bound, "bound", 5*time.Minute, "how long all of it may take, from 1m to 1h")
	f.StringVar(&a.file, "file", "bench-results/scaling.svg", "where the picture goes")
	if err := f.Parse(args); err != nil {
		return a, err
	}
	switch {
	case f.NArg() > 0:
		return a, fmt.Errorf("unknown argument %q", f.Arg(0))
	case a.executions < 2*mark || a.executions > 200_000:
		return a, fmt.Errorf("--executions %d: from %d to 200000", a.executions, 2*mark)
	case a.most <= workers || a.most > 50:
		return a, fmt.Errorf("--max-workers %d: from %d to 50", a.most, workers+1)
	case a.bound < time.Minute || a.bound > time.Hour:
		return a, fmt.Errorf("--bound %s: from 1m to 1h", a.bound)
	}
	return a, nil
}

func run(args []string) int {
	a, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo-scaling: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, a.bound)
	defer cancel()
	missed, err := demo(ctx, a)
	switch {
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("not through within %s: %w", a.bound, err)
	}
	if err != nil {
		missed = append(missed, err.Error())
	}
	for _, m := range missed {
		fmt.Fprintf(os.Stderr, "demo-scaling: %s\n", m)
	}
	if len(missed) > 0 {
		return 1
	}
	return 0
}

// demo gives what was promised and missed.
func demo(ctx context.Context, a arguments) (missed []string, err error) {
	p, err := running.Open(os.Getenv)
	if err != nil {
		return nil, err
	}
	unlock, err := p.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := newStage(ctx, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.restore(context.WithoutCancel(ctx))) }()
	w, err := newWorld(workerOf)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if err := s.prepare(ctx, a.most); err != nil {
		return nil, err
	}
	before, err := s.allocations(ctx)
	if err != nil {
		return nil, err
	}
	flow, err := s.flow(ctx, w.target.URL)
	if err != nil {
		return nil, err
	}
	fmt.Printf("%d workers of %d slots; a burst of %d executions of %s\n", workers, slots, a.executions, takes)
	r := &record{Begun: time.Now(), Executions: a.executions}
	if err := s.play(ctx, w, r, flow); err != nil {
		return nil, err
	}
	r.FirstTask, r.FirstWorker = w.firstBut(before)
	if r.Succeeded, err = s.succeeded(ctx, flow); err != nil {
		return nil, err
	}
	r.Calls, r.Repeated = w.counts()
	if err := errors.Join(r.print(os.Stdout), r.draw(a.file)); err != nil {
		return nil, err
	}
	fmt.Printf("\nPicture: %s\n", a.file)
	return r.missed(), nil
}

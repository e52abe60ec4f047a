// Command chaos is a drill on the platform that make up started on this machine: under steady load it kills workers, the leader, a gateway, RabbitMQ
// and PostgreSQL, stops Consul and Redis for a while, and then counts what was lost or done twice. make chaos runs it; package
// services/e2e/chaos says what is done and what is counted.
//
// It finds what it breaks through Nomad and Consul, and touches only processes in control groups of allocations below FLOW_DATA_DIR, and the agent whose
// process id make up wrote there. Nomad starts again what was killed. What is only stopped goes on whatever becomes of this program: beside each stopped
// process waits a small one that lets it go on when the drill says so, or is gone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"flowplatform/scripts/internal/running"
	"flowplatform/services/e2e/chaos"
)

func main() { os.Exit(run(os.Args[1:])) }

// arguments of a drill.
type arguments struct {
	seed     uint64
	duration time.Duration
	settle   time.Duration
	rate     float64
	file     string
}

func parse(args []string) (arguments, error) {
	a := arguments{seed: uint64(rand.Uint32())}
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.Uint64Var(&a.seed, "seed", a.seed, "order and instants of the faults; without one it is drawn, and printed")
	f.DurationVar(&a.duration, "duration", 2*time.Minute, "how long the load lasts, from 40s to 1h; a fault comes every 15 s, but each kind at least once")
	f.DurationVar(&a.settle, "settle", 90*time.Second, "how long what was accepted may take to end once the load is over")
	f.Float64Var(&a.rate, "rate", 20, "executions begun in a second, up to 200; each makes three HTTP calls and takes over two seconds")
	f.StringVar(&a.file, "file", "bench-results/chaos.json", "where the figures go, as JSON")
	if err := f.Parse(args); err != nil {
		return a, err
	}
	switch {
	case f.NArg() > 0:
		return a, fmt.Errorf("unknown argument %q", f.Arg(0))
	case a.duration < 40*time.Second || a.duration > time.Hour:
		return a, fmt.Errorf("--duration %s: from 40s to 1h", a.duration)
	case a.settle < time.Second || a.settle > time.Hour:
		return a, fmt.Errorf("--settle %s: from 1s to 1h", a.settle)
	case !(a.rate >= 1 && a.rate <= 200):
		return a, fmt.Errorf("--rate %g: from 1 to 200", a.rate)
	}
	return a, nil
}

func run(args []string) int {
	a, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, a.duration+a.settle+5*time.Minute)
	defer cancel()
	kept, err := drill(ctx, a)
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "chaos: interrupted; what was stopped goes on, and Nomad starts what was killed")
		return 1
	case err != nil:
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		return 1
	case !kept:
		return 1
	}
	return 0
}

// drill says whether all promises were kept.
func drill(ctx context.Context, a arguments) (bool, error) {
	found, err := running.Open(os.Getenv)
	if err != nil {
		return false, err
	}
	p := &platform{found}
	unlock, err := p.Lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	before, err := p.healthy(ctx)
	if err != nil {
		return false, err
	}
	o := chaos.Options{
		Server: p.FrontDoor(), Seed: a.seed, Duration: a.duration, Calm: 10 * time.Second, Settle: a.settle, Rate: a.rate, Break: p.breakOne,
		Say: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
	}
	if o.Token, o.Database, err = p.Access(ctx); err != nil {
		return false, err
	}
	fmt.Printf("seed %d: %s of load at %g a second through %s\n", a.seed, a.duration, a.rate, o.Server)
	r, err := chaos.Run(ctx, o)
	if err != nil {
		return false, err
	}
	if err := p.recovered(ctx, before); err != nil {
		r.Broken = append(r.Broken, err.Error())
	}
	if err := errors.Join(r.Print(os.Stdout), r.Write(a.file)); err != nil {
		return false, err
	}
	fmt.Printf("\nFigures as JSON: %s\n", a.file)
	for _, broken := range r.Broken {
		fmt.Fprintf(os.Stderr, "chaos: broken: %s\n", broken)
	}
	return len(r.Broken) == 0, nil
}

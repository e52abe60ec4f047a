// Command demo-release shows releases on the platform that make up started on this machine, under steady load through the front door: new programs that
// are good, new programs that run and never become ready, and going back. Every one is `nomad job run -var version=SUM`, as docs/operations.md says. make
// demo-release runs it.
//
// It fails when a request fails, when an execution is lost or doesn't succeed, when a step is called twice, when a good release isn't what runs in the end,
// and when a bad one isn't taken back by itself. Who counts is outside: the client that asks, the server that flows call, and the database.
//
// The good programs are those that run, with a note behind their last byte: other bytes, so another sum, and so another release. What ran before runs again
// at the end, also after Ctrl-C and after a failure.
//
// The clients do what the API's documentation tells them: each start has an Idempotency-Key. It matters here, for NGINX closes connections that are idle when the
// list of gateways changes, and who sends a request just then finds its connection closed; with a key, HTTP libraries (Go's net/http) send it again by themselves.
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
	"flowplatform/services/e2e/chaos"
)

func main() { os.Exit(run(os.Args[1:])) }

// arguments of a demonstration.
type arguments struct {
	rate   float64
	settle time.Duration
	bound  time.Duration
	bad    bool
	quick  bool
	file   string
}

func parse(args []string) (arguments, error) {
	var a arguments
	f := flag.NewFlagSet("demo-release", flag.ContinueOnError)
	f.Float64Var(&a.rate, "rate", 20, "executions begun in a second, from 1 to 200; each makes three HTTP calls and takes over two seconds")
	f.DurationVar(&a.settle, "settle", 90*time.Second, "how long what was accepted may take to end once the load is over, from 1s to 1h")
	f.DurationVar(&a.bound, "bound", 15*time.Minute, "how long all of it may take, from 1m to 1h")
	f.BoolVar(&a.bad, "bad", true, "also releases that never become ready; Nomad gives a worker's three minutes")
	f.BoolVar(&a.quick, "quick", false, "for the suite: gateway and worker, one bad gateway that is judged after seconds instead of a minute, and no way back under load")
	f.StringVar(&a.file, "file", "bench-results/release.json", "where the figures go, as JSON")
	if err := f.Parse(args); err != nil {
		return a, err
	}
	switch {
	case f.NArg() > 0:
		return a, fmt.Errorf("unknown argument %q", f.Arg(0))
	case !(a.rate >= 1 && a.rate <= 200):
		return a, fmt.Errorf("--rate %g: from 1 to 200", a.rate)
	case a.settle < time.Second || a.settle > time.Hour:
		return a, fmt.Errorf("--settle %s: from 1s to 1h", a.settle)
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
		fmt.Fprintf(os.Stderr, "demo-release: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, a.bound)
	defer cancel()
	r, err := demo(ctx, a)
	switch {
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted; what ran before runs again")
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("not through within %s: %w", a.bound, err)
	}
	if r != nil {
		err = errors.Join(err, r.print(os.Stdout), r.write(a.file))
		for _, broken := range r.Broken {
			fmt.Fprintf(os.Stderr, "demo-release: broken: %s\n", broken)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo-release: %v\n", err)
	}
	if err != nil || len(r.Broken) > 0 {
		return 1
	}
	return 0
}

// demo plays, and counts what was seen meanwhile.
func demo(ctx context.Context, a arguments) (_ *record, err error) {
	p, err := running.Open(os.Getenv)
	if err != nil {
		return nil, err
	}
	unlock, err := p.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	d, err := newDepot(ctx, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.restore(context.WithoutCancel(ctx))) }()
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	o := chaos.Options{Server: p.FrontDoor(), Calm: 5 * time.Second, Settle: a.settle, Rate: a.rate, Keys: true, Say: say}
	if o.Token, o.Database, err = p.Access(ctx); err != nil {
		return nil, err
	}
	r := &record{At: time.Now().UTC(), Rate: a.rate, Broken: []string{}}
	say("load at %g executions a second through %s; releases by nomad job run", a.rate, o.Server)
	r.Counts, err = chaos.During(ctx, o, func(ctx context.Context) error { return d.play(ctx, a, r, say) })
	if err != nil {
		return nil, err
	}
	r.Seconds = time.Since(r.At).Seconds()
	r.judge()
	return r, nil
}

// Command cluster-lab applies the whole distribution for real, on hosts made on this machine (scripts/internal/lab), the way that a user does it with
// machines of their own: bundle, terraform apply on bare metal, flows through the front door; then it kills a server host and a worker host under
// load and counts, looks for secrets where none may be and for open ports, destroys the cluster and looks for what is left, and interrupts an apply at
// three points, which the next has to finish. With --only day-two it does to a cluster what is done to one that runs. make cluster-lab runs it, as root. It
// ends with what each phase took and what was counted, and fails when a promise doesn't hold.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"flowplatform/scripts/internal/console"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == scanCommand { // this program again, in the namespace of the one outside
		os.Exit(scanMain(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:]))
}

// What can be asked for alone.
const (
	onlyDayTwo      = "day-two"
	onlyInterrupted = "interrupted"
)

// arguments of a run.
type arguments struct {
	bundle, dir, file string
	keep, offline     bool
	only              string
	load              time.Duration
	bound             time.Duration
}

func parse(args []string) (arguments, error) {
	var a arguments
	f := flag.NewFlagSet("cluster-lab", flag.ContinueOnError)
	f.StringVar(&a.bundle, "bundle", "", "a bundle that is there; without it one is made of this checkout")
	f.StringVar(&a.dir, "dir", "/var/tmp/flowplatform-cluster-lab", "where hosts, keys and logs are; it must not be there yet, and is taken away at the end")
	f.StringVar(&a.file, "file", "bench-results/cluster-lab.json", "where the figures go")
	f.BoolVar(&a.keep, "keep", false, "leave the directory, with its logs, after a failure; hosts are taken down either way")
	f.StringVar(&a.only, "only", "", "day-two: in the place of kills and searches, what is done to a cluster that runs, under load, and a backup brought back into a new one; interrupted: one host, and the applies that are killed")
	f.BoolVar(&a.offline, "offline", false, "the hosts are a plain Debian without the roles' packages, and the bundle brings them all: make bundle PACKAGES=yes")
	f.DurationVar(&a.load, "load", 30*time.Second, "how long the load goes on after each kill, from 10s to 10m")
	f.DurationVar(&a.bound, "bound", 45*time.Minute, "how long all of it may take, from 5m to 3h")
	if err := f.Parse(args); err != nil {
		return a, err
	}
	switch {
	case f.NArg() > 0:
		return a, fmt.Errorf("unknown argument %q", f.Arg(0))
	case a.only != "" && a.only != onlyDayTwo && a.only != onlyInterrupted:
		return a, fmt.Errorf("--only %s: there are %s and %s", a.only, onlyDayTwo, onlyInterrupted)
	case a.load < 10*time.Second || a.load > 10*time.Minute:
		return a, fmt.Errorf("--load %s: from 10s to 10m", a.load)
	case a.bound < 5*time.Minute || a.bound > 3*time.Hour:
		return a, fmt.Errorf("--bound %s: from 5m to 3h", a.bound)
	}
	var err error
	if a.dir, err = filepath.Abs(a.dir); err != nil {
		return a, err
	}
	if _, err := os.Stat(a.dir); err == nil {
		return a, fmt.Errorf("%s is there already: of a run that goes on, or was kept (then: go run ./scripts/lab down --dir %s/lab, and remove it)", a.dir, a.dir)
	}
	return a, nil
}

func run(args []string) int {
	a, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster-lab: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, a.bound)
	defer cancel()

	p := newPlay(".", a.dir, console.New(os.Stdout))
	p.bundle, p.offline = a.bundle, a.offline
	switch a.only {
	case onlyDayTwo:
		err = p.dayTwo(ctx)
	case onlyInterrupted:
		err = p.interruptedAlone(ctx)
	default:
		err = p.whole(ctx, a.load)
	}
	err = errors.Join(err, p.end())
	p.report.print(os.Stdout)
	if writing := p.report.write(a.file); writing != nil {
		err = errors.Join(err, writing)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ncluster-lab: %v\n", err)
		if a.keep {
			fmt.Fprintf(os.Stderr, "logs: %s\n", a.dir)
			return 1
		}
	}
	if removing := os.RemoveAll(a.dir); err == nil && removing != nil {
		fmt.Fprintf(os.Stderr, "cluster-lab: %v\n", removing)
		return 1
	}
	if err != nil {
		return 1
	}
	return 0
}

// Command orchestrator leases workers their sessions, grants claims, collects reports, and, while it is the elected leader, looks after
// everything that would stand still: dead workers, timers, deadlines, tasks that were never handed out.
//
// It is set up by its environment; --help lists the names.
package main

import (
	"errors"
	"fmt"
	"os"

	"flowplatform/services/internal/env"
	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/telemetry"
	"flowplatform/services/orchestrator/app"
)

func main() { os.Exit(run()) }

func run() int {
	var opts app.Options
	if err := env.Parse(os.Args[1:], nil, &opts, os.Stdout); err != nil {
		if errors.Is(err, env.ErrHelp) {
			return 0
		}
		fmt.Fprintln(os.Stderr, "orchestrator:", err)
		return 2
	}
	log, err := telemetry.Logger("orchestrator", opts.LogLevel, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "orchestrator:", err)
		return 2
	}
	ctx, stop := lifecycle.SignalContext()
	defer stop()
	if err := app.Run(ctx, opts, log); err != nil {
		log.Error("orchestrator ended", "error", err)
		return 1
	}
	return 0
}

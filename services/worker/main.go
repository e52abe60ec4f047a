// Command worker runs flows: it takes tasks from RabbitMQ, claims them from an orchestrator before their first effect, and reports what happened.
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
	"flowplatform/services/worker/app"
)

func main() { os.Exit(run()) }

func run() int {
	var opts app.Options
	if err := env.Parse(os.Args[1:], nil, &opts, os.Stdout); err != nil {
		if errors.Is(err, env.ErrHelp) {
			return 0
		}
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 2
	}
	log, err := telemetry.Logger("worker", opts.LogLevel, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 2
	}
	ctx, stop := lifecycle.SignalContext()
	defer stop()
	if err := app.Run(ctx, opts, log); err != nil {
		log.Error("worker ended", "error", err)
		return 1
	}
	return 0
}

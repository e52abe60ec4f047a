// Command migrate brings the database to this release's schema, makes the partitions of the days ahead, and ends. It waits for the server.
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
	"flowplatform/services/migrate/app"
)

func main() { os.Exit(run()) }

func run() int {
	var opts app.Options
	if err := env.Parse(os.Args[1:], nil, &opts, os.Stdout); err != nil {
		if errors.Is(err, env.ErrHelp) {
			return 0
		}
		fmt.Fprintln(os.Stderr, "migrate:", err)
		return 2
	}
	log, err := telemetry.Logger("migrate", opts.LogLevel, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "migrate:", err)
		return 2
	}
	ctx, stop := lifecycle.SignalContext()
	defer stop()
	if err := app.Run(ctx, opts, log); err != nil {
		log.Error("migrate ended", "error", err)
		return 1
	}
	return 0
}

// Command gateway is the only way in: the API, who may use it, and the durable acceptance of executions.
//
// It is set up by its environment; --help lists the names.
package main

import (
	"errors"
	"fmt"
	"os"

	"flowplatform/services/gateway/app"
	"flowplatform/services/internal/env"
	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/telemetry"
)

func main() { os.Exit(run()) }

func run() int {
	var opts app.Options
	if err := env.Parse(os.Args[1:], nil, &opts, os.Stdout); err != nil {
		if errors.Is(err, env.ErrHelp) {
			return 0
		}
		fmt.Fprintln(os.Stderr, "gateway:", err)
		return 2
	}
	log, err := telemetry.Logger("gateway", opts.LogLevel, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		return 2
	}
	ctx, stop := lifecycle.SignalContext()
	defer stop()
	if err := app.Run(ctx, opts, log); err != nil {
		log.Error("gateway ended", "error", err)
		return 1
	}
	return 0
}

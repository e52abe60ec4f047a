// Package service is what the main functions of all services have in common: options from the environment, a logger, signals, an exit status.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"flowplatform/services/internal/env"
	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/telemetry"
)

// Main reads the options O, runs the service until SIGINT or SIGTERM, and gives the exit status: 0 when it ended well, 1 when it failed, 2 when
// its options are wrong. level gives the log level among the options.
func Main[O any](name string, level func(*O) string, run func(ctx context.Context, o O, log *slog.Logger) error) int {
	var opts O
	if err := env.Parse(os.Args[1:], nil, &opts, os.Stdout); err != nil {
		if errors.Is(err, env.ErrHelp) {
			return 0
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 2
	}
	log, err := telemetry.Logger(name, level(&opts), os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 2
	}
	ctx, stop := lifecycle.SignalContext()
	defer stop()
	if err := run(ctx, opts, log); err != nil {
		log.Error(name+" ended", "error", err)
		return 1
	}
	return 0
}

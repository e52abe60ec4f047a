// Package app is the migrate job: wait for the server, migrate as the schema's owner, end.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"flowplatform/services/internal/lifecycle"
	"flowplatform/services/internal/store"
)

// Options of the job.
type Options struct {
	DatabaseURL string `env:"DATABASE_URL" secret:"true" required:"true" desc:"PostgreSQL as the schema's owner, postgres://flow_owner:password@host:port/database"`
	LogLevel    string `env:"LOG_LEVEL" envDefault:"info" oneof:"debug|info|warn|error" desc:"from which level on to log"`
	NodeEnv     string `env:"NODE_ENV" desc:"a label in logs"`
}

// Run migrates and returns when the schema is this release's. It waits for a server that isn't there yet, until ctx ends; a migration that fails is an error.
func Run(ctx context.Context, o Options, log *slog.Logger) error {
	db, err := store.Open(ctx, store.Options{URL: o.DatabaseURL, PoolSize: 1, Application: "migrate", Log: log})
	if err != nil {
		return err
	}
	err = lifecycle.WaitFor(ctx, log, "PostgreSQL", func(ctx context.Context) error { return db.Ping(ctx) })
	db.Close()
	if err != nil {
		return err
	}
	var cut error
	err = lifecycle.WaitFor(ctx, log, "the migration", func(ctx context.Context) error {
		cut = store.Migrate(ctx, o.DatabaseURL, log)
		if errors.Is(cut, store.ErrMigration) {
			return nil // the server is there and says no: waiting doesn't help
		}
		return cut
	})
	if err == nil {
		err = cut
	}
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

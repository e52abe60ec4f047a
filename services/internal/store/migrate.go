package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// SchemaVersion is the migration that this build was written for. A newer schema is fine: migrations only add, until no build needs what they take away.
const SchemaVersion = 13

// PartitionDays is how many days ahead partitions are made.
const PartitionDays = 7

// ErrSchema says that the migrate job has not run yet, or not this release's.
var ErrSchema = errors.New("the database's schema is older than this build: run the migrate job of this release")

// ErrMigration says that the server refused a migration: trying again doesn't help.
var ErrMigration = errors.New("the migration failed; nothing of the file that failed was kept")

// Migrate brings the schema to this build's and makes partitions, as the owner. Two at once wait for each other.
func Migrate(ctx context.Context, ownerURL string, log *slog.Logger) error {
	cfg, err := pgx.ParseConfig(ownerURL)
	if err != nil {
		return errors.New("store.Migrate: this is not a connection string like postgres://flow_owner:PASSWORD@HOST:5432/DATABASE")
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	conn := stdlib.OpenDB(*cfg)
	defer conn.Close()
	p, err := newProvider(conn, log)
	if err != nil {
		return fmt.Errorf("store.Migrate: %w", err)
	}
	results, err := p.Up(ctx)
	if err != nil {
		return migrationError(err)
	}
	for _, r := range results {
		log.Info("migrated", "file", r.Source.Path, "took", r.Duration.Round(time.Millisecond).String())
	}
	var made int
	if err := conn.QueryRowContext(ctx, `SELECT flow_ensure_partitions($1)`, PartitionDays).Scan(&made); err != nil {
		return migrationError(fmt.Errorf("partitions: %w", err))
	}
	log.Info("schema is ready", "version", SchemaVersion, "migrations", len(results), "partitions", made)
	return nil
}

// migrationError tells a server that says no from one that is going away, or busy.
func migrationError(err error) error {
	pg := pgError(err)
	if pg == nil || tryAgain(err) || wrongServer(err) || pg.Code[:2] == "57" || pg.Code[:2] == "53" {
		return fmt.Errorf("store.Migrate: %w", err)
	}
	return fmt.Errorf("store.Migrate: %w: %w%s", ErrMigration, err, hint(pg.Hint))
}

func hint(s string) string {
	if s == "" {
		return ""
	}
	return " (hint: " + s + ")"
}

// schemaTable is where goose keeps what was applied; flow_schema_version() reads it.
const schemaTable = "schema_migrations"

func newProvider(conn *sql.DB, log *slog.Logger) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 120))
	if err != nil {
		return nil, err
	}
	keep, err := database.NewStore(database.DialectPostgres, schemaTable)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider("", conn, files, goose.WithStore(keep), goose.WithSessionLocker(locker), goose.WithSlog(log), goose.WithDisableGlobalRegistry(true))
}

// SchemaReady tells whether the schema is this build's or newer; ErrSchema when it is older. Any role may ask, a replica too.
func (db *DB) SchemaReady(ctx context.Context) error {
	v, err := scalar[int64](ctx, db, db.primary, "SchemaReady", `SELECT flow_schema_version()`)
	if s := sqlState(err); s == "42883" || s == "42P01" {
		return fmt.Errorf("store.SchemaReady: %w (there is none yet)", ErrSchema)
	}
	if err != nil {
		return err
	}
	if v < SchemaVersion {
		return fmt.Errorf("store.SchemaReady: %w (it is %d, this build needs %d)", ErrSchema, v, SchemaVersion)
	}
	return nil
}

// EnsurePartitions makes the partitions that are missing up to so many days ahead, and returns how many it made. Cheap when there is nothing to do: call it every hour.
func (db *DB) EnsurePartitions(ctx context.Context, days int) (int, error) {
	return writeOne(ctx, db, "EnsurePartitions", `SELECT flow_ensure_partitions($1)`, func(r pgx.Rows, v *int) error { return r.Scan(v) }, days)
}

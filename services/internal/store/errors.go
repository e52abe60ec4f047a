package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"flowplatform/services/internal/protocol"
)

// Errors that callers branch on. Beside them: protocol.ErrUnknown and protocol.ErrData.
var (
	// ErrNotFound says that there is no such row (on the server that was asked: a replica may be behind).
	ErrNotFound = errors.New("not found")
	// ErrConflict says that something unique exists already; errors.As to *ConflictError tells what.
	ErrConflict = errors.New("exists already")
	// ErrStale says that the row has moved on since the caller read it.
	ErrStale = errors.New("changed by someone else since it was read: read it again")
	// ErrNoPartition says that no partition takes a row: its id's time is far from now, or partitions were not made ahead.
	ErrNoPartition = errors.New("no partition for this id's day: the leading orchestrator makes them days ahead, and a missing one within a minute (so does the migrate job): is one leading? Is this machine's clock right?")
)

// ConflictError names the field whose value exists already.
type ConflictError struct {
	Field      string // "email", "name", "hash", …
	Constraint string
}

func (e *ConflictError) Error() string { return fmt.Sprintf("%s exists already", e.Field) }

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// conflictOf names the field by the constraint's name, which is <table>_<field>_key by convention.
func conflictOf(pg *pgconn.PgError) *ConflictError {
	field := strings.TrimPrefix(strings.TrimSuffix(pg.ConstraintName, "_key"), pg.TableName+"_")
	if field == "" || strings.HasSuffix(field, "_pkey") || field == "pkey" {
		field = "id"
	}
	return &ConflictError{Field: field, Constraint: pg.ConstraintName}
}

func pgError(err error) *pgconn.PgError {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg
	}
	return nil
}

// sqlState gives the SQLSTATE in the error's chain, or "".
func sqlState(err error) string {
	if pg := pgError(err); pg != nil {
		return pg.Code
	}
	return ""
}

// missingPartition tells a row without a partition (which no change of its values mends) from a broken check: only a check has a name.
func missingPartition(pg *pgconn.PgError) bool {
	return pg.Code == "23514" && pg.ConstraintName == ""
}

// tryAgain tells whether the same transaction may well succeed when it runs again.
func tryAgain(err error) bool {
	switch sqlState(err) {
	case "40P01", "55P03", "40001": // deadlock, lock timeout, serialization (or recovery conflict on a replica)
		return true
	}
	return false
}

// stalePlan tells whether a migration has changed what a prepared statement gives back; the driver has forgotten the statement by now.
func stalePlan(err error) bool { return sqlState(err) == "0A000" }

// wrongServer tells whether the pool's connections are not to be trusted: the server is going down, or isn't the primary any more.
func wrongServer(err error) bool {
	switch sqlState(err) {
	case "25006", "57P01", "57P02":
		return true
	}
	return false
}

// explain turns a driver's error into one that callers branch on, with the operation before it.
func explain(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("store.%s: %w", op, ErrNotFound)
	}
	for _, known := range []error{protocol.ErrUnknown, protocol.ErrData, ErrNotFound, ErrConflict, ErrStale, ErrNoPartition} {
		if errors.Is(err, known) {
			return fmt.Errorf("store.%s: %w", op, err)
		}
	}
	pg := pgError(err)
	switch {
	case pg == nil:
	case missingPartition(pg):
		return fmt.Errorf("store.%s: %w (%s)", op, ErrNoPartition, pg.Detail)
	case pg.Code == "23505":
		return fmt.Errorf("store.%s: %w", op, conflictOf(pg))
	case strings.HasPrefix(pg.Code, "22"), strings.HasPrefix(pg.Code, "23"):
		return fmt.Errorf("store.%s: %w: %w", op, protocol.ErrData, err)
	case pg.Code == "42501":
		return fmt.Errorf("store.%s: the database role of this service lacks a right: DATABASE_URL names the wrong role, or migrations are behind: %w", op, err)
	case pg.Code == "53300":
		return fmt.Errorf("store.%s: the server has no connection left: lower DATABASE_POOL_SIZE or raise max_connections: %w", op, err)
	}
	return fmt.Errorf("store.%s: %w", op, err)
}

// serverRefused tells whether the server itself has answered no: nothing was committed. FATAL isn't an answer: it may come in place of the one to a commit.
func serverRefused(err error) bool {
	pg := pgError(err)
	return pg != nil && pg.SeverityUnlocalized == "ERROR" && pg.Code != "08007"
}

func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

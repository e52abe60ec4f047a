package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/protocol"
)

// Txn implements protocol.Store: fn in one READ COMMITTED transaction, run again on deadlocks and lock timeouts.
func (db *DB) Txn(ctx context.Context, name string, fn func(protocol.Tx) error) error {
	began := time.Now()
	err := db.txn(ctx, name, func(t *tx) error { return fn(t) })
	db.metrics.txns.WithLabelValues(name).Observe(time.Since(began).Seconds())
	return err
}

func (db *DB) txn(ctx context.Context, name string, fn func(*tx) error) error {
	plan, dead := 0, 0
	for try := 0; ; try++ {
		err := db.txnOnce(ctx, fn)
		if err == nil {
			return nil
		}
		db.suspect(db.primary, err)
		again := false
		var begin *beginError
		switch {
		case ctx.Err() != nil, errors.Is(err, protocol.ErrUnknown):
		case tryAgain(err):
			again = true
		case stalePlan(err):
			plan++
			again = plan == 1
		case errors.As(err, &begin): // a connection that died in the pool; fn hasn't run
			dead++
			again = dead <= 2
		}
		if again && try < maxTries {
			db.metrics.retries.WithLabelValues(name).Inc()
			if pause(ctx, try) {
				continue
			}
		}
		if errors.Is(err, protocol.ErrUnknown) {
			db.metrics.unknown.Inc()
		}
		return classify(name, err)
	}
}

// classify makes ErrData of a refused value, without touching what fn itself returned.
func classify(name string, err error) error {
	pg := pgError(err)
	if pg == nil || errors.Is(err, protocol.ErrUnknown) || errors.Is(err, protocol.ErrData) {
		return err
	}
	switch {
	case missingPartition(pg):
		return fmt.Errorf("store: transaction %s: %w: %w", name, ErrNoPartition, err)
	case strings.HasPrefix(pg.Code, "22"), strings.HasPrefix(pg.Code, "23"):
		return fmt.Errorf("store: transaction %s: %w: %w", name, protocol.ErrData, err)
	}
	return fmt.Errorf("store: transaction %s: %w", name, err)
}

// beginError is an error from before fn ran.
type beginError struct{ err error }

func (e *beginError) Error() string { return "begin: " + e.err.Error() }
func (e *beginError) Unwrap() error { return e.err }

func (db *DB) txnOnce(ctx context.Context, fn func(*tx) error) (err error) {
	c, err := db.primary.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release() // closes the connection when it is still in a transaction
	now, err := begin(ctx, c)
	if err != nil {
		return &beginError{err}
	}
	done := false
	defer func() {
		if !done { // fn failed, or panicked
			rollback(ctx, c)
		}
	}()
	if err := fn(&tx{conn: c.Conn(), now: now}); err != nil {
		return err
	}
	if err := ended(ctx); err != nil {
		return fmt.Errorf("nothing was committed: %w", err)
	}
	done = true
	return db.commit(ctx, c)
}

// begin opens the transaction and reads the clock in the same round trip.
func begin(ctx context.Context, c *pgxpool.Conn) (time.Time, error) {
	res, err := c.Conn().PgConn().Exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").ReadAll()
	if err != nil {
		return time.Time{}, err
	}
	if len(res) != 2 || len(res[1].Rows) != 1 {
		return time.Time{}, fmt.Errorf("the server gave no clock")
	}
	return micros(res[1].Rows[0][0])
}

func rollback(ctx context.Context, c *pgxpool.Conn) {
	pc := c.Conn().PgConn()
	if pc.IsClosed() {
		return
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := pc.Exec(own, "ROLLBACK").ReadAll(); err != nil {
		_ = pc.Close(own)
	}
}

// commit sends COMMIT with time of its own: a context that ends meanwhile would close the socket and leave a transaction that perhaps happened.
func (db *DB) commit(ctx context.Context, c *pgxpool.Conn) error {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.commitWait)
	defer cancel()
	pc := c.Conn().PgConn()
	if pc.IsClosed() {
		return fmt.Errorf("commit: %w", errNotSent)
	}
	delete(pc.CustomData(), warned)
	res, err := pc.Exec(own, "COMMIT").ReadAll()
	if serverRefused(err) {
		return fmt.Errorf("commit: %w", err)
	}
	if err != nil { // whatever pgconn.SafeToRetry says: after a cut it can claim that nothing was sent
		return fmt.Errorf("%w: %w", protocol.ErrUnknown, err)
	}
	if len(res) != 1 || res[0].CommandTag.String() != "COMMIT" {
		return fmt.Errorf("commit: %w", errRolledBack(res))
	}
	if w, ok := pc.CustomData()[warned]; ok {
		return fmt.Errorf("%w: the server warns: %v", protocol.ErrUnknown, w)
	}
	return nil
}

// errRolledBack is for a transaction in which a statement had failed and the error was lost on the way.
func errRolledBack(res []*pgconn.Result) error {
	tag := "nothing"
	if len(res) > 0 {
		tag = res[0].CommandTag.String()
	}
	return fmt.Errorf("the server answered %s: a statement of the transaction failed and its error was not returned", tag)
}

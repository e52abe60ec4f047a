package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"flowplatform/services/internal/protocol"
)

// Options of a DB.
type Options struct {
	URL         string // the primary; "" when only reading from a replica
	ReplicaURL  string // "": lists go to the primary too
	ReadOnly    bool   // URL may be a replica: nothing is written through this DB (workers)
	PoolSize    int    // connections to each server; default 10
	Application string // shown in pg_stat_activity
	Log         *slog.Logger
	Registerer  prometheus.Registerer // nil: no metrics
}

// DB is a connection to the platform's database. It is safe for concurrent use and implements protocol.Store.
type DB struct {
	primary *pgxpool.Pool
	replica *pgxpool.Pool // the same as primary when there is none
	log     *slog.Logger
	metrics *metrics

	commitWait time.Duration // how long the answer to a COMMIT is waited for
	writeWait  time.Duration // how long a statement that commits by itself may take

	resetMu   sync.Mutex
	resetLast time.Time

	unhanded unhandedScan
	overdue  overdueScan

	afterInsert atomic.Pointer[func(protocol.Outcome)]
}

var _ protocol.Store = (*DB)(nil)

// Open makes a DB. It doesn't need the server to be there: connections are made when they are needed. Errors are about the options.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.URL == "" && o.ReplicaURL == "" {
		return nil, errors.New("store.Open: no address: set DATABASE_URL, like postgres://flow_gateway:PASSWORD@HOST:5432/flow")
	}
	db := &DB{log: o.Log.With("component", "store"), commitWait: 30 * time.Second, writeWait: 30 * time.Second}
	db.metrics = newMetrics(o.Registerer)
	if o.URL != "" {
		p, err := newPool(ctx, o, o.URL, !o.ReadOnly)
		if err != nil {
			return nil, fmt.Errorf("store.Open: DATABASE_URL: %w", err)
		}
		db.primary = p
	}
	db.replica = db.primary
	if o.ReplicaURL != "" {
		p, err := newPool(ctx, o, o.ReplicaURL, false)
		if err != nil {
			db.Close()
			return nil, fmt.Errorf("store.Open: DATABASE_REPLICA_URL: %w", err)
		}
		db.replica = p
	}
	if db.primary == nil {
		db.primary = db.replica
	}
	db.metrics.watch(o.Registerer, db)
	return db, nil
}

func newPool(ctx context.Context, o Options, url string, write bool) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("this is not a connection string like postgres://USER:PASSWORD@HOST:5432/DATABASE") // the driver's text could show the password
	}
	if o.PoolSize <= 0 {
		o.PoolSize = 10
	}
	cfg.MaxConns = int32(min(o.PoolSize, 1000))
	cfg.MinConns = 0
	cfg.MaxConnLifetime = 30 * time.Minute
	cfg.MaxConnLifetimeJitter = 6 * time.Minute // not all at once, after a restart of all
	cfg.MaxConnIdleTime = 5 * time.Minute
	cc := cfg.ConnConfig
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = 5 * time.Second
	}
	if o.Application != "" {
		cc.RuntimeParams["application_name"] = o.Application
	}
	for name, v := range sessionDefaults {
		if _, ok := cc.RuntimeParams[name]; !ok {
			cc.RuntimeParams[name] = v
		}
	}
	dialer := &net.Dialer{Timeout: cc.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	cc.DialFunc = dialer.DialContext
	cc.OnNotice = func(c *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" {
			c.CustomData()[warned] = n.Message
		}
	}
	if write && cc.ValidateConnect == nil {
		cc.ValidateConnect = validateWriter
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// sessionDefaults hold unless the connection string says otherwise.
//
// Plans are made anew for each execution. A plan that is kept is one for tomorrow's partition while it was still empty: after an ANALYZE of that (a restore, an
// upgrade) it reads the whole table, or a whole index, at every batch, and goes on doing so past midnight until autovacuum looks at the table. Made
// anew, it knows the table's size, sees only the partitions that it needs, and costs 2 µs a row in batches of 64 (measured; 40 partitions).
var sessionDefaults = map[string]string{"plan_cache_mode": "force_custom_plan", "jit": "off", "timezone": "UTC"}

// warned is where a connection keeps the last warning that the server sent.
const warned = "store.warning"

// validateWriter refuses connections on which a 2xx would not mean committed, and servers that aren't the primary.
func validateWriter(ctx context.Context, c *pgconn.PgConn) error {
	res := c.ExecParams(ctx, "SELECT current_setting('transaction_read_only'), current_setting('synchronous_commit')", nil, nil, nil, nil).Read()
	if res.Err != nil {
		return res.Err
	}
	if len(res.Rows) != 1 {
		return errors.New("the server doesn't tell its settings")
	}
	if string(res.Rows[0][0]) != "off" {
		return errors.New("the server is read-only: it is a standby, or was demoted; DATABASE_URL must name the primary (several hosts by comma are tried in turn)")
	}
	if v := string(res.Rows[0][1]); v == "off" {
		return errors.New("synchronous_commit is off for this role: accepted work would be missing after a crash; ALTER ROLE … SET synchronous_commit = on")
	}
	return nil
}

// Close closes all connections, and waits for those that are in use.
func (db *DB) Close() {
	if db.replica != nil && db.replica != db.primary {
		db.replica.Close()
	}
	if db.primary != nil {
		db.primary.Close()
	}
}

// Ping asks the primary for an answer.
func (db *DB) Ping(ctx context.Context) error {
	_, err := scalar[int](ctx, db, db.primary, "Ping", "SELECT 1")
	return err
}

// PingReplica asks the replica for an answer; the primary when there is no replica.
func (db *DB) PingReplica(ctx context.Context) error {
	_, err := scalar[int](ctx, db, db.replica, "PingReplica", "SELECT 1")
	return err
}

// HasReplica tells whether lists go to a server of their own.
func (db *DB) HasReplica() bool { return db.replica != db.primary }

// suspect looks at an error and closes all pooled connections when they can't be trusted any more.
func (db *DB) suspect(pool *pgxpool.Pool, err error) {
	if !wrongServer(err) && !errors.Is(err, protocol.ErrUnknown) {
		return
	}
	db.resetMu.Lock()
	defer db.resetMu.Unlock()
	if time.Since(db.resetLast) < 200*time.Millisecond { // the other connections of the same reset
		return
	}
	db.resetLast = time.Now()
	db.log.Warn("the server goes down, isn't the primary any more, or a connection was cut: all are made anew", "error", err)
	db.metrics.resets.Inc()
	pool.Reset()
}

// pause waits before another try; it tells whether there is time for one.
func pause(ctx context.Context, try int) bool {
	d := min(time.Duration(5<<min(try, 6))*time.Millisecond, 250*time.Millisecond)
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

const maxTries = 8

// read runs a reading function, again where that may help. fn must be repeatable.
func (db *DB) read(ctx context.Context, pool *pgxpool.Pool, op string, fn func(*pgxpool.Conn) error) error {
	plan, net := 0, 0
	for try := 0; ; try++ {
		err := pool.AcquireFunc(ctx, fn)
		if err == nil {
			return nil
		}
		db.suspect(pool, err)
		again := false
		switch {
		case ctx.Err() != nil:
		case stalePlan(err):
			plan++
			again = plan == 1
		case tryAgain(err):
			again = true
			if pool != db.primary && try >= 1 { // recovery conflicts on the replica: the primary has none
				pool = db.primary
			}
		case pgError(err) == nil && !errors.Is(err, pgx.ErrNoRows), sqlState(err) == "57P01": // a connection that died in the pool
			net++
			again = net == 1
		}
		if !again || try >= maxTries {
			return explain(op, err)
		}
		db.metrics.retries.WithLabelValues(op).Inc()
		if !pause(ctx, try) {
			return explain(op, err)
		}
	}
}

// list reads all rows of a query.
func list[T any](ctx context.Context, db *DB, pool *pgxpool.Pool, op, sql string, scan func(pgx.Rows, *T) error, args ...any) ([]T, error) {
	var out []T
	err := db.read(ctx, pool, op, func(c *pgxpool.Conn) error {
		out = nil
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		out, err = collect(rows, scan)
		return err
	})
	return out, err
}

func collect[T any](rows pgx.Rows, scan func(pgx.Rows, *T) error) ([]T, error) {
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// one reads one row; ErrNotFound when there is none.
func one[T any](ctx context.Context, db *DB, pool *pgxpool.Pool, op, sql string, scan func(pgx.Rows, *T) error, args ...any) (T, error) {
	rows, err := list(ctx, db, pool, op, sql, scan, args...)
	var zero T
	switch {
	case err != nil:
		return zero, err
	case len(rows) == 0:
		return zero, fmt.Errorf("store.%s: %w", op, ErrNotFound)
	}
	return rows[0], nil
}

func scalar[T any](ctx context.Context, db *DB, pool *pgxpool.Pool, op, sql string, args ...any) (T, error) {
	return one(ctx, db, pool, op, sql, func(r pgx.Rows, v *T) error { return r.Scan(v) }, args...)
}

// write runs one statement that commits by itself, and gives the rows that it returns. The statement doesn't end with the caller's context:
// it has time of its own. Nothing is repeated but what can't have happened.
func write[T any](ctx context.Context, db *DB, op, sql string, scan func(pgx.Rows, *T) error, args ...any) ([]T, error) {
	for try := 0; ; try++ {
		out, err := writeOnce(ctx, db, sql, scan, args...)
		if err == nil {
			return out, nil
		}
		db.suspect(db.primary, err)
		again := ctx.Err() == nil && !errors.Is(err, protocol.ErrUnknown) && (tryAgain(err) || (stalePlan(err) || errors.Is(err, errNotSent)) && try == 0)
		if !again || try >= maxTries {
			return nil, explain(op, err)
		}
		db.metrics.retries.WithLabelValues(op).Inc()
		if !pause(ctx, try) {
			return nil, explain(op, err)
		}
	}
}

// errNotSent is for a connection that was closed before anything was asked of it.
var errNotSent = errors.New("the connection was closed; nothing was sent")

func writeOnce[T any](ctx context.Context, db *DB, sql string, scan func(pgx.Rows, *T) error, args ...any) ([]T, error) {
	c, err := db.primary.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Release()
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.writeWait)
	defer cancel()
	pc := c.Conn().PgConn()
	if pc.IsClosed() {
		return nil, errNotSent
	}
	delete(pc.CustomData(), warned)
	rows, err := c.Query(own, sql, args...)
	var out []T
	if err == nil {
		out, err = collect(rows, scan)
	}
	if err != nil {
		// A connection that is closed now was cut by one side. pgconn.SafeToRetry is no help: after a cut it can say that nothing was sent.
		if pc.IsClosed() && !serverRefused(err) {
			return nil, fmt.Errorf("%w: %w", protocol.ErrUnknown, err)
		}
		return nil, err
	}
	if w, ok := pc.CustomData()[warned]; ok {
		return nil, fmt.Errorf("%w: the server warns: %v", protocol.ErrUnknown, w)
	}
	return out, nil
}

// exec runs one statement that returns nothing, and tells how many rows it touched. The statement must end in RETURNING 1.
func exec(ctx context.Context, db *DB, op, sql string, args ...any) (int, error) {
	rows, err := write(ctx, db, op, sql+" RETURNING 1", func(r pgx.Rows, v *int) error { return r.Scan(v) }, args...)
	return len(rows), err
}

func writeOne[T any](ctx context.Context, db *DB, op, sql string, scan func(pgx.Rows, *T) error, args ...any) (T, error) {
	rows, err := write(ctx, db, op, sql, scan, args...)
	var zero T
	switch {
	case err != nil:
		return zero, err
	case len(rows) == 0:
		return zero, fmt.Errorf("store.%s: %w", op, ErrNotFound)
	}
	return rows[0], nil
}

// micros is a time as the simple protocol gives it: microseconds since 1970, as text.
func micros(b []byte) (time.Time, error) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("the server's clock: %w", err)
	}
	return time.UnixMicro(n).UTC(), nil
}

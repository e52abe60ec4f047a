package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// ledger reads what is recorded, in PostgreSQL: with the rights of the orchestrator's role, and only to read.
type ledger struct{ pool *pgxpool.Pool }

func openLedger(ctx context.Context, url string) (*ledger, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the database's address: %w", err)
	}
	c.MaxConns = 1
	c.ConnConfig.RuntimeParams["application_name"] = "chaos"
	c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	c.ConnConfig.ConnectTimeout = 5 * time.Second
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("the database: %w", err)
	}
	return &ledger{pool}, nil
}

func (l *ledger) close() { l.pool.Close() }

// stepKey is a step of an execution: what one idempotency key stands for.
type stepKey struct{ Execution, Node string }

// parseKey reads <execution>/<node>/<iteration>; the drill's flows have no rounds.
func parseKey(key string) (stepKey, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 {
		return stepKey{}, false
	}
	return stepKey{parts[0], parts[1]}, true
}

// record is an execution as the database has it.
type record struct {
	State    string
	Created  time.Time
	Finished time.Time // zero: it isn't
}

func (r record) final() bool { return !r.Finished.IsZero() }

// confirmation is a report that says that a step was done. A report is confirmed before the transaction that stores it begins.
type confirmation struct {
	Attempt int
	Stored  time.Time
}

// open counts the flow's executions that aren't final.
func (l *ledger) open(ctx context.Context, flow string) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = l.pool.QueryRow(ctx, `SELECT count(*) FROM executions WHERE flow_id = $1::text::uuid AND state IN ('queued', 'running', 'waiting')`, flow).Scan(&n)
	return n, err
}

// executions reads those of a condition with one argument.
func (l *ledger) executions(ctx context.Context, where string, argument any) (map[string]record, error) {
	rows, err := l.pool.Query(ctx, `SELECT id::text, state, created_at, finished_at FROM executions WHERE `+where, argument)
	if err != nil {
		return nil, fmt.Errorf("read executions: %w", err)
	}
	out := map[string]record{}
	var id, state string
	var created time.Time
	var finished *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &state, &created, &finished}, func() error {
		r := record{State: state, Created: created}
		if finished != nil {
			r.Finished = *finished
		}
		out[id] = r
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read executions: %w", err)
	}
	return out, nil
}

// confirmed reads which steps of these executions were reported as done.
func (l *ledger) confirmed(ctx context.Context, ids []string) (map[stepKey][]confirmation, error) {
	out := map[stepKey][]confirmation{}
	for chunk := range slices.Chunk(ids, 1000) {
		rows, err := l.pool.Query(ctx, `SELECT execution_id::text, attempt, at, codec, events FROM reports WHERE execution_id = ANY ($1::text[]::uuid[])`, chunk)
		if err != nil {
			return nil, fmt.Errorf("read reports: %w", err)
		}
		var id, codec string
		var c confirmation
		var events []byte
		_, err = pgx.ForEachRow(rows, []any{&id, &c.Attempt, &c.Stored, &codec, &events}, func() error {
			if codec != "" {
				return fmt.Errorf("a report of %s is packed (%s): the drill's steps are too small for that", id, codec)
			}
			list, err := protocol.DecodeEvents([]json.RawMessage{events})
			if err != nil {
				return err
			}
			for _, e := range list {
				if e.Type == flow.EventSucceeded && !e.Sum { // a sum repeats what was reported before
					k := stepKey{id, e.Node}
					out[k] = append(out[k], c)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read reports: %w", err)
		}
	}
	return out, nil
}

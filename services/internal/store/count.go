package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/protocol"
)

// CountStates counts a flow's executions by state, on the primary. It reads them all: for measurements and tests, not for lists.
func (db *DB) CountStates(ctx context.Context, flow protocol.ID) (map[protocol.State]int, error) {
	out := map[protocol.State]int{}
	err := db.read(ctx, db.primary, "CountStates", func(c *pgxpool.Conn) error {
		clear(out)
		rows, err := c.Query(ctx, `SELECT state, count(*) FROM executions WHERE flow_id = $1 GROUP BY state`, flow)
		if err != nil {
			return err
		}
		var state string
		var n int
		_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error {
			out[protocol.State(state)] = n
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store.CountStates: %w", err)
	}
	return out, nil
}

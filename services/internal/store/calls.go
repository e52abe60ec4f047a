package store

import (
	"context"
	"fmt"

	"flowplatform/services/internal/protocol"
)

// Call starts row as the child of the execution that asks for it, once.
func (db *DB) Call(ctx context.Context, req *protocol.CallRequest, row NewExecution) (out protocol.Outcome, answer protocol.CallAnswer, err error) {
	if err := row.check(); err != nil {
		return out, answer, err
	}
	var keys []string
	err = db.txn(ctx, "call", func(t *tx) (err error) {
		out, answer, err = protocol.PlaceCall(ctx, t, req, row.ID, func(root protocol.ID) error {
			row.Root = root
			if req.Wait {
				row.Parent = req.Execution
			}
			if keys, err = t.deferLimits(ctx, []*NewExecution{&row}); err != nil {
				return err
			}
			return t.insert(ctx, &row)
		})
		return err
	})
	out.Freed = append(out.Freed, keys...)
	return out, answer, err
}

// insert inserts one execution in a transaction that has more to do.
func (t *tx) insert(ctx context.Context, row *NewExecution) error {
	args, large := insertArgs([]*NewExecution{row})
	sql := insertPlainSQL
	if len(large) > 0 {
		sql = insertWithPayloads("", insertPlainSQL, len(args))
		args = append(args, payloadArgs(large)...)
	}
	if ids, err := t.ids(ctx, sql, args...); err != nil || len(ids) != 1 {
		return fmt.Errorf("insert execution %s: %d rows: %w", row.ID, len(ids), err)
	}
	return nil
}

// KnownCall implements protocol.Tx.
func (t *tx) KnownCall(ctx context.Context, c protocol.Call) (k protocol.KnownCall, err error) {
	err = t.conn.QueryRow(ctx, `SELECT (SELECT child_id FROM calls WHERE execution_id = $1 AND node = $2 AND iteration = $3 AND retries = $4),
		coalesce((SELECT depth FROM calls WHERE child_id = $1), 0), coalesce(e.root_id, e.id) FROM executions e WHERE e.id = $1`,
		dbID(c.Execution), c.Node, c.Iteration, c.Retries).Scan((*dbID)(&k.Child), &k.Depth, (*dbID)(&k.Root))
	return k, err
}

// placeCalls gives the statements that write calls down.
func placeCalls(calls []protocol.Call) []statement {
	n := len(calls)
	parents, children := make([]protocol.ID, n), make([]protocol.ID, n)
	nodes, iterations := make([]string, n), make([]string, n)
	retries, depths := make([]int32, n), make([]int32, n)
	var waiting []protocol.ID
	for i, c := range calls {
		parents[i], children[i], nodes[i], iterations[i], retries[i], depths[i] = c.Execution, c.Child, c.Node, c.Iteration, int32(c.Retries), int32(c.Depth)
		if c.Wait {
			waiting = append(waiting, c.Execution)
		}
	}
	out := []statement{{`INSERT INTO calls (execution_id, node, iteration, retries, child_id, depth) SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::uuid[], $6::int[])`,
		[]any{dbIDs(parents), nodes, iterations, retries, dbIDs(children), depths}, n, "calls"}}
	if len(waiting) > 0 {
		out = append(out, statement{`UPDATE executions SET calls = true WHERE id = ANY ($1) AND NOT calls`, []any{dbIDs(waiting)}, -1, "executions"})
	}
	return out
}

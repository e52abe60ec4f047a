package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// Approval is one that is open.
type Approval struct {
	protocol.OpenWait
	Flow      protocol.ID
	Project   protocol.ID
	Approvers []string // e-mail addresses and roles; empty: every operator
	Title     string
	Fields    json.RawMessage
	Labels    map[string]string

	id int64
}

// formOf keeps of what an approval says that which stands in its row; nil: it is no approval.
func formOf(w *protocol.OpenWait) (approvers []string, form []byte) {
	if w.Kind != flow.WaitApproval {
		return nil, nil
	}
	var a protocol.Approval
	if json.Unmarshal(w.Open, &a) != nil || a.Approvers == nil { // one that can't be read is for operators, and says nothing
		a.Approvers = []string{}
	}
	for i, s := range a.Approvers {
		a.Approvers[i] = clean(s)
	}
	return a.Approvers, w.Open
}

const approvalColumns = waitColumns + `, w.id, w.approvers, w.form, e.flow_id, e.project_id, e.labels`

func scanApproval(rows pgx.Rows, a *Approval) error {
	var form []byte
	w := &a.OpenWait
	if err := rows.Scan((*dbID)(&w.Execution), &w.Node, &w.Iteration, &w.Kind, &w.Key, &w.Reason, dbTime{&w.Due}, dbTime{&w.Since}, dbTime{&w.Met}, &a.id, &a.Approvers, &form, (*dbID)(&a.Flow), (*dbID)(&a.Project), &a.Labels); err != nil {
		return err
	}
	var said protocol.Approval
	if json.Unmarshal(form, &said) == nil {
		a.Title, a.Fields = said.Title, said.Fields
	}
	return nil
}

// openApproval is what makes a wait one that somebody may decide; a letter that waits to be taken is a decision.
const openApproval = `w.approvers IS NOT NULL AND w.met_at IS NULL AND w.closed_at IS NULL AND (w.due IS NULL OR w.due > clock_timestamp())
	AND NOT EXISTS (SELECT FROM letters l WHERE l.execution_id = w.execution_id AND l.kind = w.kind AND l.key = w.key AND l.taken_at IS NULL)`

// ListApprovals lists the open approvals that one of the names (an e-mail address, roles) may decide; operator: also those that name nobody.
func (db *DB) ListApprovals(ctx context.Context, names []string, operator bool, p Page) ([]Approval, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	last := int64(binary.BigEndian.Uint64(after[8:]))
	rows, err := list(ctx, db, db.primary, "ListApprovals", `
		SELECT `+approvalColumns+` FROM waits w JOIN executions e ON e.id = w.execution_id AND e.state IN ('queued', 'running', 'waiting')
		WHERE `+openApproval+` AND (w.approvers && $1::text[] OR $2 AND w.approvers = '{}') AND ($3 = 0 OR w.id < $3) ORDER BY w.id DESC LIMIT $4`,
		scanApproval, names, operator, last, p.limit()+1)
	if err != nil {
		return nil, "", err
	}
	out, next := cut(rows, p, func(a *Approval) (id protocol.ID) {
		binary.BigEndian.PutUint64(id[8:], uint64(a.id))
		return id
	})
	return out, next, nil
}

// OpenApproval finds an approval that can be decided; ErrNotFound: it is none, or not open (any more).
func (db *DB) OpenApproval(ctx context.Context, execution protocol.ID, node, iteration string) (Approval, error) {
	a, err := one(ctx, db, db.primary, "OpenApproval", `SELECT `+approvalColumns+` FROM waits w JOIN executions e ON e.id = w.execution_id AND e.state IN ('queued', 'running', 'waiting')
		WHERE w.execution_id = $1 AND w.node = $2 AND w.iteration = $3 AND `+openApproval, scanApproval, dbID(execution), node, iteration)
	if err != nil {
		return a, fmt.Errorf("store.OpenApproval: %w", err)
	}
	return a, nil
}

// WasApproval tells whether an approval was there and is over: decided, expired, or its execution ended.
func (db *DB) WasApproval(ctx context.Context, execution protocol.ID, node, iteration string) (bool, error) {
	rows, err := list(ctx, db, db.primary, "WasApproval", `SELECT id FROM waits WHERE execution_id = $1 AND node = $2 AND iteration = $3 AND approvers IS NOT NULL LIMIT 1`,
		func(r pgx.Rows, v *int64) error { return r.Scan(v) }, dbID(execution), node, iteration)
	return len(rows) > 0, err
}

package store

import "context"

// forgetHandedSQL touches queued_tx, where the reconciler looks.
const forgetHandedSQL = `UPDATE executions SET handed = 0, queued_tx = pg_current_xact_id()::text::bigint WHERE state = 'queued' AND handed > 0`

// ForgetHanded takes the marks off all executions that are queued, so that the reconciler publishes them: for whoever begins on a broker that is empty (flowctl dev, whose
// broker is the process; a broker that lost its disk). Called before anyone works on the database. It returns how many there were.
func (db *DB) ForgetHanded(ctx context.Context) (int, error) {
	n, err := exec(ctx, db, "ForgetHanded", forgetHandedSQL)
	return int(n), err
}

package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// LockKeys implements protocol.Tx. The locks are on hashes, taken in their order; two names with one hash wait for each other, and nothing else comes of it.
func (t *tx) LockKeys(ctx context.Context, names []string) error {
	hashes := make([]int64, len(names))
	for i, name := range names {
		sum := sha256.Sum256([]byte("letter\x00" + name))
		hashes[i] = int64(binary.BigEndian.Uint64(sum[:]))
	}
	slices.Sort(hashes)
	_, err := t.conn.Exec(ctx, `SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k`, slices.Compact(hashes))
	return err
}

// Waiters implements protocol.Tx.
func (t *tx) Waiters(ctx context.Context, keys []protocol.Waiter, each int) (map[protocol.Waiter][]protocol.ID, error) {
	projects, kinds, names := make([]protocol.ID, len(keys)), make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		projects[i], kinds[i], names[i] = protocol.ID(projectOf(k.Project)), k.Kind, k.Key
	}
	rows, err := t.conn.Query(ctx, `
		SELECT k.i, w.execution_id FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS k (project, kind, key, i)
		CROSS JOIN LATERAL (
			SELECT w.execution_id FROM waits w JOIN executions e ON e.id = w.execution_id AND e.project_id = k.project AND e.state = 'waiting'
			WHERE w.kind = k.kind AND w.key = k.key AND w.key <> '' AND w.met_at IS NULL AND w.closed_at IS NULL ORDER BY w.kind, w.key, w.id LIMIT $4) AS w
		ORDER BY k.i`, dbIDs(projects), kinds, names, each)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[protocol.Waiter][]protocol.ID{}
	for rows.Next() {
		var i int
		var id protocol.ID
		if err := rows.Scan(&i, (*dbID)(&id)); err != nil {
			return nil, err
		}
		out[keys[i-1]] = append(out[keys[i-1]], id)
	}
	return out, rows.Err()
}

const mailColumns = `l.id, l.project_id, l.execution_id, l.kind, l.key, l.port, l.output, l.output_ref, l.output_size, l.error, l.sender, l.at, l.expires_at, l.pending, l.taken_at`

// mailTargets are where mailColumns are scanned to; done makes the rest of the letter.
func mailTargets(l *protocol.Letter) (targets []any, done func() error) {
	var ref, failure []byte
	var size int
	targets = []any{(*dbID)(&l.ID), (*dbID)(&l.Project), (*dbID)(&l.Execution), &l.Kind, &l.Key, &l.Port, (*[]byte)(&l.Output), &ref, &size, &failure, &l.Sender, dbTime{&l.At}, dbTime{&l.Expires}, &l.Pending, dbTime{&l.Taken}}
	return targets, func() (err error) {
		if v := reference(ref, size); v.Ref != "" {
			l.OutputRef = &v
		}
		l.Error, err = decodeFailure(failure)
		return err
	}
}

func scanMail(rows pgx.Rows, l *protocol.Letter) error {
	targets, done := mailTargets(l)
	if err := rows.Scan(targets...); err != nil {
		return err
	}
	return done()
}

// Known implements protocol.Tx. Kept stops to count where the protocol's limits do.
func (t *tx) Known(ctx context.Context, letters []protocol.Letter) ([]protocol.KnownLetter, error) {
	n := len(letters)
	ids, projects, executions := make([]protocol.ID, n), make([]protocol.ID, n), make([]protocol.ID, n)
	kinds, keys := make([]string, n), make([]string, n)
	for i, l := range letters {
		ids[i], projects[i], executions[i], kinds[i], keys[i] = l.ID, protocol.ID(projectOf(l.Project)), l.Execution, l.Kind, l.Key
	}
	rows, err := t.conn.Query(ctx, `
		SELECT u.i, CASE WHEN u.execution IS NOT NULL
			THEN (SELECT count(*) FROM (SELECT FROM letters k WHERE k.execution_id = u.execution AND k.taken_at IS NULL LIMIT $6) AS few)
			ELSE (SELECT count(*) FROM (SELECT FROM letters k WHERE k.project_id = u.project AND k.kind = u.kind AND k.key = u.key AND k.execution_id IS NULL AND k.taken_at IS NULL LIMIT $7) AS few) END
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[]) WITH ORDINALITY AS u (project, execution, kind, key, id, i)`,
		dbIDs(projects), dbIDs(executions), kinds, keys, dbIDs(ids), protocol.MaxKept, protocol.MaxKeptKey)
	if err != nil {
		return nil, err
	}
	out := make([]protocol.KnownLetter, n)
	for rows.Next() {
		var i, kept int
		if err := rows.Scan(&i, &kept); err != nil {
			rows.Close()
			return nil, err
		}
		out[i-1].Kept = kept
	}
	if rows.Close(); rows.Err() != nil {
		return nil, rows.Err()
	}
	rows, err = t.conn.Query(ctx, `SELECT `+mailColumns+` FROM letters l WHERE l.id = ANY ($1)`, dbIDs(ids))
	if err != nil {
		return nil, err
	}
	stored, err := collect(rows, scanMail)
	if err != nil {
		return nil, err
	}
	for k := range stored {
		for i := range letters {
			if letters[i].ID == stored[k].ID {
				out[i].Letter = &stored[k]
			}
		}
	}
	return out, nil
}

// Letters implements protocol.Tx. A signal to an execution names no key: it is for all waits with its name.
func (t *tx) Letters(ctx context.Context, waits []protocol.OpenWait) ([]protocol.Letter, error) {
	n := len(waits)
	executions := make([]protocol.ID, n)
	kinds, keys, names := make([]string, n), make([]string, n), make([]string, n)
	var lo, hi dbID
	for i, w := range waits {
		executions[i], kinds[i], keys[i], names[i] = w.Execution, w.Kind, w.Key, w.Key
		if w.Kind == flow.WaitSignal {
			names[i], _, _ = strings.Cut(w.Key, "/")
		}
	}
	lo, hi = bounds(executions)
	rows, err := t.conn.Query(ctx, `
		WITH u AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS u (execution, kind, key, name)),
		k AS (SELECT e.project_id, u.kind, u.key, count(*) AS n FROM u JOIN executions e ON e.id = u.execution AND e.id BETWEEN $6 AND $7
			WHERE u.kind = $5 AND u.key <> '' GROUP BY e.project_id, u.kind, u.key)
		SELECT `+mailColumns+` FROM letters l WHERE l.taken_at IS NULL AND l.execution_id = ANY ($1) AND EXISTS (
			SELECT FROM u WHERE u.execution = l.execution_id AND u.kind = l.kind AND l.key IN (u.key, u.name))
		UNION ALL
		SELECT l.* FROM k CROSS JOIN LATERAL (
			SELECT `+mailColumns+` FROM letters l WHERE l.project_id = k.project_id AND l.kind = k.kind AND l.key = k.key AND l.execution_id IS NULL AND l.taken_at IS NULL
			AND l.expires_at > clock_timestamp() ORDER BY l.at, l.id LIMIT k.n) AS l`,
		dbIDs(executions), kinds, keys, names, flow.WaitSignal, lo, hi)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanMail)
}

// Pending implements protocol.Tx.
func (t *tx) Pending(ctx context.Context, executions []protocol.ID) ([]protocol.Letter, error) {
	rows, err := t.conn.Query(ctx, `SELECT id, execution_id, kind FROM letters WHERE execution_id = ANY ($1) AND pending ORDER BY id`, dbIDs(executions))
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r pgx.Rows, l *protocol.Letter) error {
		l.Pending = true
		return r.Scan((*dbID)(&l.ID), (*dbID)(&l.Execution), &l.Kind)
	})
}

// Children implements protocol.Tx.
func (t *tx) Children(ctx context.Context, parents []protocol.ID, limit int) ([]protocol.Child, error) {
	rows, err := t.conn.Query(ctx, `SELECT c.child_id, c.execution_id, c.retries FROM calls c JOIN executions e ON e.id = c.child_id
		WHERE c.execution_id = ANY ($1) AND e.parent_id = c.execution_id AND e.cancel = '' AND e.state IN ('queued', 'running', 'waiting') ORDER BY c.child_id LIMIT $2`, dbIDs(parents), limit)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r pgx.Rows, c *protocol.Child) error {
		return r.Scan((*dbID)(&c.ID), (*dbID)(&c.Parent), &c.Retries)
	})
}

// LetterByID reads a letter from the primary.
func (db *DB) LetterByID(ctx context.Context, id protocol.ID) (protocol.Letter, error) {
	return one(ctx, db, db.primary, "LetterByID", `SELECT `+mailColumns+` FROM letters l WHERE l.id = $1`, scanMail, dbID(id))
}

// Mail implements protocol.Store.
func (db *DB) Mail(ctx context.Context, age time.Duration, limit int) ([]protocol.ID, error) {
	return list(ctx, db, db.primary, "Mail", `SELECT DISTINCT execution_id FROM (SELECT execution_id FROM letters WHERE pending AND at <= now() - $1::interval ORDER BY at LIMIT $2) AS l
		WHERE execution_id IS NOT NULL`, scanID, age, limit)
}

// writeLetters gives the statements for what a batch decided of letters.
func writeLetters(c *protocol.Changes) ([]statement, error) {
	var out []statement
	if len(c.Posted) > 0 {
		st, err := postLetters(c.Posted)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
		if copies := copyPayloads(c.Posted); copies != nil {
			out = append(out, *copies)
		}
	}
	if len(c.Taken) > 0 {
		ids, who, when := make([]protocol.ID, len(c.Taken)), make([]protocol.ID, len(c.Taken)), make(times, len(c.Taken))
		for i, l := range c.Taken {
			ids[i], who[i], when[i] = l.ID, l.Execution, at(l.Taken)
		}
		out = append(out, statement{`UPDATE letters l SET execution_id = u.who, taken_by = u.who, taken_at = u.at, pending = false
			FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS u (id, who, at) WHERE l.id = u.id AND l.id = ANY ($1) AND l.taken_at IS NULL`, []any{dbIDs(ids), dbIDs(who), when}, len(ids), "letters"})
	}
	if len(c.Looked) > 0 {
		out = append(out, statement{`UPDATE letters SET pending = false WHERE id = ANY ($1) AND pending`, []any{dbIDs(c.Looked)}, -1, "letters"})
	}
	return out, nil
}

func postLetters(letters []protocol.Letter) (statement, error) {
	n := len(letters)
	ids, projects, executions, takers := make([]protocol.ID, n), make([]protocol.ID, n), make([]protocol.ID, n), make([]protocol.ID, n)
	kinds, keys, ports, senders := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	outputs, refs, failures, sizes := make([][]byte, n), make([][]byte, n), make([][]byte, n), make([]int32, n)
	when, expires, taken := make(times, n), make(times, n), make(times, n)
	pending := make([]bool, n)
	for i, l := range letters {
		ids[i], projects[i], executions[i] = l.ID, protocol.ID(projectOf(l.Project)), l.Execution
		kinds[i], keys[i], ports[i], senders[i] = l.Kind, l.Key, l.Port, clean(l.Sender)
		outputs[i], failures[i], sizes[i] = nilIfEmpty(l.Output), encodeFailure(l.Error), int32(len(l.Output))
		when[i], expires[i], taken[i], pending[i] = at(l.At), at(l.Expires), at(l.Taken), l.Pending
		if !l.Taken.IsZero() {
			takers[i] = l.Execution
		}
		if v := l.OutputRef; v != nil {
			sum, err := payload.ParseRef(v.Ref)
			if err != nil || v.Size < 0 || v.Size > protocol.MaxValue {
				return statement{}, fmt.Errorf("%w: letter %s: an output by reference that is none", protocol.ErrData, l.ID)
			}
			outputs[i], refs[i], sizes[i] = nil, sum, int32(v.Size)
		}
	}
	return statement{`
		INSERT INTO letters (id, project_id, execution_id, kind, key, port, output, output_ref, output_size, error, sender, at, expires_at, pending, taken_by, taken_at)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[], $9::int[], $10::bytea[], $11::text[], $12::timestamptz[],
			$13::timestamptz[], $14::bool[], $15::uuid[], $16::timestamptz[])
		ON CONFLICT (id) DO NOTHING`,
		[]any{dbIDs(ids), dbIDs(projects), dbIDs(executions), kinds, keys, ports, outputs, refs, sizes, failures, senders, when, expires, pending, dbIDs(takers), taken}, -1, "letters"}, nil
}

// copyPayloads gives the receivers of letters the large values that stand with somebody else; nil: there are none.
func copyPayloads(letters []protocol.Letter) *statement {
	var from, to []protocol.ID
	var sums [][]byte
	for _, l := range letters {
		if l.OutputRef == nil || l.From.IsZero() || l.From == l.Execution {
			continue
		}
		sum, _ := payload.ParseRef(l.OutputRef.Ref) // was read before
		from, to, sums = append(from, l.From), append(to, l.Execution), append(sums, sum)
	}
	if len(from) == 0 {
		return nil
	}
	return &statement{`INSERT INTO payloads (execution_id, sha256, codec, size, data)
		SELECT u.receiver, p.sha256, p.codec, p.size, p.data FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) AS u (sender, receiver, sum)
		JOIN payloads p ON p.execution_id = u.sender AND p.sha256 = u.sum ON CONFLICT DO NOTHING`, []any{dbIDs(from), dbIDs(to), sums}, -1, "payloads"}
}

package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
)

// Payload is a value that is too large for rows and messages. It dies with its execution.
type Payload struct {
	Execution protocol.ID
	SHA256    []byte // of the value's JSON
	Codec     string // of Data
	Size      int    // of the value's JSON
	Data      []byte
}

// NewPayload packs a value.
func NewPayload(execution protocol.ID, raw []byte) Payload {
	sum, _ := payload.ParseRef(payload.Ref(raw)) // what Ref makes is one
	codec, data := payload.Pack(raw)
	return Payload{Execution: execution, SHA256: sum, Codec: codec, Size: len(raw), Data: data}
}

// ErrPayloads says that an execution has more in large values than it may.
var ErrPayloads = errors.New("the large values of this execution take more than " + strconv.Itoa(protocol.MaxPayloads>>20) + " MiB together")

func reference(sum []byte, size int) protocol.Value {
	if len(sum) == 0 {
		return protocol.Value{}
	}
	return protocol.Value{Ref: hex.EncodeToString(sum), Size: size}
}

// PutPayload stores a value and returns after COMMIT; it may be called again with the same one. ErrNotFound: there is no such execution. ErrPayloads: it has no room left.
func (db *DB) PutPayload(ctx context.Context, p Payload) error {
	return db.txn(ctx, "PutPayload", func(t *tx) error {
		// One at a time for an execution: what it has together must be known.
		if _, err := t.conn.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('payloads ' || $1::uuid::text, 0))`, dbID(p.Execution)); err != nil {
			return err
		}
		var known, have bool
		var total int
		err := t.conn.QueryRow(ctx, `
			WITH x AS MATERIALIZED (SELECT EXISTS (SELECT FROM executions WHERE id = $1) AS known, EXISTS (SELECT FROM payloads WHERE execution_id = $1 AND sha256 = $2) AS have,
				coalesce((SELECT sum(size) FROM payloads WHERE execution_id = $1), 0)::bigint AS total),
			i AS (INSERT INTO payloads (execution_id, sha256, codec, size, data) SELECT $1::uuid, $2::bytea, $3::text, $4::int, $5::bytea FROM x WHERE x.known AND NOT x.have AND x.total + $4::int <= $6::bigint)
			SELECT known, have, total FROM x`, dbID(p.Execution), p.SHA256, p.Codec, int32(p.Size), p.Data, int64(protocol.MaxPayloads)).Scan(&known, &have, &total)
		switch {
		case err != nil:
			return err
		case !known:
			return fmt.Errorf("store.PutPayload: execution %s: %w", p.Execution, ErrNotFound)
		case !have && total+p.Size > protocol.MaxPayloads:
			return fmt.Errorf("store.PutPayload: %w: it has %d bytes, this value %d more", ErrPayloads, total, p.Size)
		}
		return nil
	})
}

// Payload reads a value from the primary as it is stored.
func (db *DB) Payload(ctx context.Context, execution protocol.ID, sum []byte) (Payload, error) {
	return one(ctx, db, db.primary, "Payload", `SELECT codec, size, data FROM payloads WHERE execution_id = $1 AND sha256 = $2`, func(r pgx.Rows, p *Payload) error {
		p.Execution, p.SHA256 = execution, sum
		return r.Scan(&p.Codec, &p.Size, &p.Data)
	}, dbID(execution), sum)
}

// Value reads a value from the primary, unpacked and compared with its name.
func (db *DB) Value(ctx context.Context, execution protocol.ID, ref string) (json.RawMessage, error) {
	sum, err := payload.ParseRef(ref)
	if err != nil {
		return nil, fmt.Errorf("store.Value: %w: %w", ErrNotFound, err)
	}
	p, err := db.Payload(ctx, execution, sum)
	if err != nil {
		return nil, err
	}
	raw, err := payload.Unpack(p.Codec, p.Data, ref)
	if err != nil {
		return nil, fmt.Errorf("store.Value: %w", err)
	}
	return raw, nil
}

// insertWithPayloads adds to an insert of executions that of the inputs of those of them that are new, which come as five arguments after its n own.
func insertWithPayloads(with, insert string, n int) string {
	if with == "" {
		with = "WITH "
	} else {
		with += ", "
	}
	p := func(i int) string { return "$" + strconv.Itoa(n+i) }
	return with + `made AS (` + insert + `),
	stored AS (INSERT INTO payloads (execution_id, sha256, codec, size, data)
		SELECT v.id, v.sum, v.codec, v.size, v.data FROM unnest(` + p(1) + `::uuid[], ` + p(2) + `::bytea[], ` + p(3) + `::text[], ` + p(4) + `::int[], ` + p(5) + `::bytea[]) AS v (id, sum, codec, size, data)
		WHERE v.id IN (SELECT id FROM made))
	SELECT id FROM made`
}

func payloadArgs(large []Payload) []any {
	n := len(large)
	ids, sums, codecs, sizes, data := make([]protocol.ID, n), make([][]byte, n), make([]string, n), make([]int32, n), make([][]byte, n)
	for i, p := range large {
		ids[i], sums[i], codecs[i], sizes[i], data[i] = p.Execution, p.SHA256, p.Codec, int32(p.Size), p.Data
	}
	return []any{dbIDs(ids), sums, codecs, sizes, data}
}

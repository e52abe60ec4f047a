package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/protocol"
)

// Flow control in SQL: what protocol/limits.go reads and writes.

const slotColumns = `s.execution_id, s.key, s.kind, s.value, s.keys, s.most, s.pool, s.rank, s.state, s.reason`

func scanSlot(r pgx.Rows, s *protocol.Slot) error {
	return r.Scan((*dbID)(&s.Execution), &s.Key, &s.Kind, &s.Value, &s.Keys, &s.Most, &s.Pool, &s.Rank, (*string)(&s.State), &s.Reason)
}

// countWaiting is how far those that wait at a key are counted: more are as many.
const countWaiting = 1000

// firstSlots bounds how many one look lets in at a key.
const firstSlots = 500

// countSlotsSQL: what most says is what the newest that waits says, so that a changed limit holds for those before it too.
const countSlotsSQL = `
	SELECT k.key, (SELECT count(*) FROM slots h WHERE h.key = k.key AND h.state = 'held'),
		(SELECT count(*) FROM (SELECT FROM slots w WHERE w.key = k.key AND w.state = 'waiting' LIMIT $2) AS few),
		coalesce((SELECT w.most FROM slots w WHERE w.key = k.key AND w.state = 'waiting' ORDER BY w.rank DESC, w.execution_id DESC LIMIT 1), 0),
		coalesce((SELECT (SELECT sum(x.slots) FROM sessions x WHERE x.alive AND x.pool IN (w.pool, CASE w.pool WHEN '' THEN 'default' ELSE w.pool END)) FROM slots w
			WHERE w.key = k.key AND w.state = 'waiting' AND w.most = 0 LIMIT 1), 0)
	FROM unnest($1::text[]) AS k (key)`

// firstSlotsSQL leaves those out that another key of theirs keeps waiting, however many they are: else they would hide those behind them. The execution is
// looked up for each slot, by its id, and not joined: no statistics can make it a scan of all executions.
const firstSlotsSQL = `
	WITH whole AS MATERIALIZED (SELECT h.key FROM slots h WHERE h.state = 'held' GROUP BY h.key HAVING max(h.most) > 0 AND count(*) >= max(h.most))
	SELECT ` + slotColumns + ` FROM unnest($1::text[]) AS k (key) CROSS JOIN LATERAL (
		SELECT s.* FROM slots s WHERE s.key = k.key AND s.state = 'waiting'
			AND (SELECT e.state = 'queued' AND e.hold IN ('concurrency', 'fairness') AND e.paused = '' FROM executions e WHERE e.id = s.execution_id)
			AND (cardinality(s.keys) = 1 OR NOT EXISTS (SELECT FROM whole w WHERE w.key = ANY (s.keys) AND w.key <> k.key))
		ORDER BY s.rank, s.execution_id LIMIT $2) AS s
	ORDER BY s.rank, s.execution_id, s.key`

// Standing implements protocol.Tx: one round trip for all that is asked.
func (t *tx) Standing(ctx context.Context, ask protocol.Ask) (protocol.Standing, error) {
	out := protocol.Standing{Slots: map[string]protocol.SlotCount{}, Members: map[string][]protocol.Slot{}, Rates: map[string]time.Time{}, Virtual: map[protocol.VirtualKey]float64{},
		Windows: map[string]int{}, Debounces: map[string]protocol.Debounced{}, Debounced: map[protocol.ID]protocol.Debounced{}}
	var b pgx.Batch
	each := func(sql string, scan func(pgx.Rows) error, args ...any) {
		b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				if err := scan(rows); err != nil {
					return err
				}
			}
			return rows.Err()
		})
	}
	slot := func(into func(protocol.Slot)) func(pgx.Rows) error {
		return func(r pgx.Rows) error {
			var s protocol.Slot
			err := scanSlot(r, &s)
			into(s)
			return err
		}
	}
	debounce := func(into func(protocol.Debounced)) func(pgx.Rows) error {
		return func(r pgx.Rows) error {
			var d protocol.Debounced
			var rates []byte
			if err := r.Scan(&d.Key, (*dbID)(&d.Execution), dbTime{&d.First}, dbTime{&d.Longest}, &d.Count, &d.Size, &rates); err != nil {
				return err
			}
			err := json.Unmarshal(rates, &d.Rates)
			into(d)
			return err
		}
	}
	if len(ask.Slots) > 0 {
		each(countSlotsSQL, func(r pgx.Rows) error {
			var key string
			var c protocol.SlotCount
			var window int
			err := r.Scan(&key, &c.Held, &c.Waiting, &c.Most, &window)
			out.Slots[key], out.Windows[key] = c, window
			return err
		}, ask.Slots, countWaiting)
	}
	if ask.First {
		each(firstSlotsSQL, slot(func(s protocol.Slot) { out.First = append(out.First, s) }), ask.Slots, firstSlots)
	}
	if len(ask.Members) > 0 {
		each(`SELECT `+slotColumns+` FROM slots s WHERE s.key = ANY ($1) AND s.state IN ('waiting', 'held') AND s.reason = '' ORDER BY s.execution_id LIMIT 5000`,
			slot(func(s protocol.Slot) { out.Members[s.Key] = append(out.Members[s.Key], s) }), ask.Members)
	}
	if len(ask.Rates) > 0 {
		each(`SELECT key, full_at FROM rates WHERE key = ANY ($1)`, func(r pgx.Rows) error {
			var key string
			var at time.Time
			err := r.Scan(&key, dbTime{&at})
			out.Rates[key] = at
			return err
		}, ask.Rates)
	}
	if len(ask.Groups) > 0 {
		each(`SELECT grp, value, virtual FROM turns WHERE grp = ANY ($1) AND (value = '' OR value = ANY ($2))`, func(r pgx.Rows) error {
			var k protocol.VirtualKey
			var v float64
			err := r.Scan(&k.Group, &k.Value, &v)
			out.Virtual[k] = v
			return err
		}, ask.Groups, ask.Values)
	}
	if len(ask.Pools) > 0 {
		each(`SELECT p.pool, coalesce(sum(s.slots), 0) FROM unnest($1::text[]) AS p (pool) LEFT JOIN sessions s ON s.alive AND s.pool IN (p.pool, CASE p.pool WHEN '' THEN 'default' ELSE p.pool END)
			GROUP BY p.pool`, func(r pgx.Rows) error {
			var pool string
			var n int
			err := r.Scan(&pool, &n)
			out.Windows[pool] = n
			return err
		}, ask.Pools)
	}
	const debounces = `SELECT d.key, d.execution_id, d.first_at, d.longest_at, d.count, d.size, d.rates FROM debounces d WHERE `
	if len(ask.Debounces) > 0 {
		each(debounces+`d.key = ANY ($1)`, debounce(func(d protocol.Debounced) { out.Debounces[d.Key] = d }), ask.Debounces)
	}
	if len(ask.Debounced) > 0 {
		each(debounces+`d.execution_id = ANY ($1)`, debounce(func(d protocol.Debounced) { out.Debounced[d.Execution] = d }), dbIDs(ask.Debounced))
	}
	return out, t.conn.SendBatch(ctx, &b).Close()
}

// Slots implements protocol.Tx.
func (t *tx) Slots(ctx context.Context, executions []protocol.ID) ([]protocol.Slot, error) {
	rows, err := t.conn.Query(ctx, `SELECT `+slotColumns+` FROM slots s WHERE s.execution_id = ANY ($1) ORDER BY s.execution_id, s.kind, s.key`, dbIDs(executions))
	if err != nil {
		return nil, err
	}
	return collect(rows, scanSlot)
}

// DueHolds implements protocol.Store.
func (db *DB) DueHolds(ctx context.Context, horizon time.Duration, limit int) ([]protocol.OpenWait, time.Time, error) {
	var now time.Time
	var out []protocol.OpenWait
	err := db.read(ctx, db.primary, "DueHolds", func(c *pgxpool.Conn) error {
		var err error
		now, out, err = withClock(ctx, c, scanWait, `
			SELECT `+waitColumns+` FROM waits w
			WHERE w.met_at IS NULL AND w.closed_at IS NULL AND w.due IS NOT NULL AND w.due <= now() + $1::interval AND w.node = '' AND w.kind IN ('rate', 'debounce')
			AND (SELECT e.state = 'queued' AND e.hold = w.kind FROM executions e WHERE e.id = w.execution_id)
			ORDER BY w.due, w.id LIMIT $2`, horizon, limit)
		return err
	})
	return out, now, err
}

// Roomy implements protocol.Store. It goes from key to key by the index, so what it costs is the number of keys, not of those that wait.
func (db *DB) Roomy(ctx context.Context, after string, limit int) ([]string, error) {
	return list(ctx, db, db.primary, "Roomy", `
		WITH RECURSIVE k AS (
			(SELECT s.key FROM slots s WHERE s.state = 'waiting' AND s.key > $1 ORDER BY s.key LIMIT 1)
			UNION ALL
			SELECT (SELECT s.key FROM slots s WHERE s.state = 'waiting' AND s.key > k.key ORDER BY s.key LIMIT 1) FROM k WHERE k.key IS NOT NULL),
		few AS (SELECT k.key FROM k WHERE k.key IS NOT NULL LIMIT $2)
		SELECT c.key FROM few c WHERE (SELECT count(*) FROM slots h WHERE h.key = c.key AND h.state = 'held') <
			(SELECT CASE w.most WHEN 0 THEN greatest($3, 2 * coalesce((SELECT sum(x.slots) FROM sessions x WHERE x.alive AND x.pool IN (w.pool, CASE w.pool WHEN '' THEN 'default' ELSE w.pool END)), 0)) ELSE w.most END
			FROM slots w WHERE w.key = c.key AND w.state = 'waiting' ORDER BY w.rank DESC, w.execution_id DESC LIMIT 1)`,
		func(r pgx.Rows, v *string) error { return r.Scan(v) }, after, limit, protocol.MinWindow)
}

// ForgetLimits deletes rows of rates and of turns that say nothing any more.
func (db *DB) ForgetLimits(ctx context.Context) error {
	for _, sql := range []string{
		`DELETE FROM rates WHERE key = ANY (ARRAY(SELECT key FROM rates WHERE full_at < now() - interval '1 minute' LIMIT 5000)) AND full_at < now() - interval '1 minute'`,
		`DELETE FROM turns t WHERE (t.grp, t.value) IN (SELECT v.grp, v.value FROM turns v JOIN turns g ON g.grp = v.grp AND g.value = '' AND g.virtual >= v.virtual
			WHERE v.value <> '' AND v.at < now() - interval '10 minutes' LIMIT 5000) AND t.at < now() - interval '10 minutes'`,
	} {
		if _, err := exec(ctx, db, "ForgetLimits", sql); err != nil {
			return err
		}
	}
	return nil
}

// endedWithLimits lists final rows whose slots are to be freed.
func endedWithLimits(rows []protocol.Row) []protocol.ID {
	var ids []protocol.ID
	for i := range rows {
		if rows[i].Limited && rows[i].State.Final() {
			ids = append(ids, rows[i].ID)
		}
	}
	return ids
}

// writeLimits are the statements of flow control; none for a batch without it.
func writeLimits(c *protocol.Changes) ([]statement, error) {
	var out []statement
	add := func(what, sql string, args ...any) { out = append(out, statement{sql, args, -1, what}) }
	if ids := endedWithLimits(c.Rows); len(ids) > 0 {
		add("slots", `UPDATE slots SET state = 'free' WHERE execution_id = ANY ($1) AND state <> 'free'`, dbIDs(ids))
		add("debounces", `DELETE FROM debounces WHERE execution_id = ANY ($1)`, dbIDs(ids))
	}
	l := c.Limits
	if l == nil {
		return out, nil
	}
	if len(l.Slots) > 0 {
		out = append(out, insertSlots(l.Slots))
	}
	if len(l.Admitted) > 0 {
		add("slots", `UPDATE slots SET state = 'held' WHERE execution_id = ANY ($1) AND state = 'waiting'`, dbIDs(l.Admitted))
	}
	if len(l.Retaken) > 0 {
		add("slots", `UPDATE slots SET state = 'waiting', reason = '' WHERE execution_id = ANY ($1) AND state = 'free'`, dbIDs(l.Retaken))
	}
	for id, reason := range l.Marked {
		add("slots", `UPDATE slots SET reason = $2 WHERE execution_id = $1`, dbID(id), reason)
	}
	if len(l.Rates) > 0 {
		keys, full := make([]string, 0, len(l.Rates)), make(times, 0, len(l.Rates))
		for key, t := range l.Rates {
			keys, full = append(keys, key), append(full, at(t))
		}
		add("rates", `INSERT INTO rates (key, full_at) SELECT * FROM unnest($1::text[], $2::timestamptz[]) ON CONFLICT (key) DO UPDATE SET full_at = greatest(rates.full_at, excluded.full_at)`, keys, full)
	}
	if len(l.Virtual) > 0 {
		groups, values, virtual := make([]string, 0, len(l.Virtual)), make([]string, 0, len(l.Virtual)), make([]float64, 0, len(l.Virtual))
		for k, v := range l.Virtual {
			groups, values, virtual = append(groups, k.Group), append(values, k.Value), append(virtual, v)
		}
		add("turns", `INSERT INTO turns (grp, value, virtual) SELECT * FROM unnest($1::text[], $2::text[], $3::float8[])
			ON CONFLICT (grp, value) DO UPDATE SET virtual = greatest(turns.virtual, excluded.virtual), at = now()`, groups, values, virtual)
	}
	more, err := writeDebounces(l)
	return append(out, more...), err
}

func insertSlots(slots []protocol.Slot) statement {
	n := len(slots)
	ids, ranks, most := make([]protocol.ID, n), make([]float64, n), make([]int32, n)
	keys, kinds, values, pools, states, all := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, s := range slots {
		ids[i], keys[i], kinds[i], values[i], most[i], pools[i], ranks[i], states[i] = s.Execution, s.Key, s.Kind, s.Value, int32(s.Most), s.Pool, s.Rank, string(s.State)
		b, _ := json.Marshal(s.Keys) // strings always marshal; an array of arrays must not be ragged
		all[i] = string(b)
	}
	return statement{`INSERT INTO slots (execution_id, key, kind, value, keys, most, pool, rank, state)
		SELECT u.id, u.key, u.kind, u.value, ARRAY(SELECT jsonb_array_elements_text(u.keys::jsonb)), u.most, u.pool, u.rank, u.state
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::float8[], $9::text[]) AS u (id, key, kind, value, keys, most, pool, rank, state)`,
		[]any{dbIDs(ids), keys, kinds, values, all, most, pools, ranks, states}, n, "slots"}
}

// setInputSQL gives executions new inputs: u is a relation of id and input.
const setInputSQL = `
	p AS (INSERT INTO payloads (execution_id, sha256, size, data) SELECT u.id, sha256(u.input), length(u.input), u.input FROM u WHERE length(u.input) > $1 ON CONFLICT DO NOTHING)
	UPDATE executions e SET input = CASE WHEN length(u.input) <= $1 THEN u.input END, input_ref = CASE WHEN length(u.input) > $1 THEN sha256(u.input) END, input_size = coalesce(length(u.input), 0)
	FROM u WHERE e.id = u.id AND e.id = ANY ($2)`

func writeDebounces(l *protocol.LimitChanges) ([]statement, error) {
	var out []statement
	add := func(what, sql string, args ...any) { out = append(out, statement{sql, args, -1, what}) }
	for _, d := range l.Opened {
		rates, err := json.Marshal(d.Rates)
		if err != nil {
			return nil, err
		}
		if d.Rates == nil {
			rates = []byte("[]")
		}
		add("debounces", `INSERT INTO debounces (key, execution_id, first_at, longest_at, count, size, rates) VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb)
			ON CONFLICT (key) DO UPDATE SET execution_id = excluded.execution_id, first_at = excluded.first_at, longest_at = excluded.longest_at, count = excluded.count, size = excluded.size, rates = excluded.rates`,
			d.Key, dbID(d.Execution), d.First, d.Longest, d.Count, d.Size, string(rates))
	}
	for i, m := range l.Merged {
		if slices.ContainsFunc(l.Merged[i+1:], func(o protocol.Merge) bool { return o.Execution == m.Execution && !o.Collect }) {
			continue // the last one counts
		}
		input := nilIfEmpty(m.Input)
		if m.Collect {
			if input == nil {
				input = []byte("null")
			}
			add("debounced inputs", `INSERT INTO debounced_inputs (execution_id, start_id, input) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, dbID(m.Execution), dbID(m.Start), input)
		} else {
			add("input", `WITH u AS (SELECT ($2::uuid[])[1] AS id, $3::bytea AS input),`+setInputSQL, protocol.MaxInline, dbIDs([]protocol.ID{m.Execution}), input)
		}
		add("waits", `UPDATE waits SET due = $2 WHERE execution_id = $1 AND node = '' AND iteration = 'debounce' AND met_at IS NULL AND closed_at IS NULL`, dbID(m.Execution), m.Due)
	}
	if len(l.Released) > 0 {
		add("input", `WITH u AS (SELECT i.execution_id AS id, '['::bytea || string_agg(i.input, ','::bytea ORDER BY i.n) || ']'::bytea AS input FROM debounced_inputs i WHERE i.execution_id = ANY ($2) GROUP BY 1),`+setInputSQL,
			protocol.MaxInline, dbIDs(l.Released))
		add("debounced inputs", `DELETE FROM debounced_inputs WHERE execution_id = ANY ($1)`, dbIDs(l.Released))
		add("debounces", `DELETE FROM debounces WHERE execution_id = ANY ($1)`, dbIDs(l.Released))
	}
	return out, nil
}

// refusal explains an arrival that a limit refuses.
func refusal(l *protocol.Limit) error {
	return fmt.Errorf("%w: %d executions with the key %q are there already", ErrLimit, l.Most, l.Value)
}

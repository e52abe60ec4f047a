package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// SettingRow is a setting that somebody has set.
type SettingRow struct {
	Name      string
	Value     json.RawMessage
	Revision  int
	UpdatedBy string
	UpdatedAt time.Time
}

// Settings lists what was set; for the rest defaults hold.
func (db *DB) Settings(ctx context.Context) ([]SettingRow, error) {
	return list(ctx, db, db.primary, "Settings", `SELECT name, value, revision, updated_by, updated_at FROM settings ORDER BY name`, func(r pgx.Rows, s *SettingRow) error {
		return r.Scan(&s.Name, (*[]byte)(&s.Value), &s.Revision, &s.UpdatedBy, dbTime{&s.UpdatedAt})
	})
}

// ChangeSettings sets those with a value and forgets those without (null: the default holds again), with their audit entries, all or none. One
// that has the value already is left alone. It tells how many changed.
func (db *DB) ChangeSettings(ctx context.Context, change map[string]json.RawMessage, by string) (int, error) {
	changed := 0
	err := db.txn(ctx, "ChangeSettings", func(t *tx) error {
		changed = 0
		if _, err := t.conn.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('flow_settings'))`); err != nil {
			return err
		}
		for name, value := range change {
			var before []byte
			err := t.conn.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&before)
			if err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			forget := value == nil || string(value) == "null"
			if forget && before == nil || string(before) == string(value) {
				continue
			}
			if forget {
				_, err = t.conn.Exec(ctx, `DELETE FROM settings WHERE name = $1`, name)
			} else {
				_, err = t.conn.Exec(ctx, `INSERT INTO settings (name, value, updated_by) VALUES ($1, $2, $3)
					ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_by = excluded.updated_by, updated_at = clock_timestamp(), revision = settings.revision + 1`, name, []byte(value), clean(by))
			}
			if err != nil {
				return err
			}
			detail, err := json.Marshal(map[string]json.RawMessage{"before": orNull(before), "after": orNull(value)})
			if err != nil {
				return err
			}
			if _, err := t.conn.Exec(ctx, `INSERT INTO audit (id, actor, action, object, object_id, detail) VALUES ($1, $2, 'update', 'setting', $3, $4)`, dbID(NewID()), clean(by), name, detail); err != nil {
				return err
			}
			changed++
		}
		return nil
	})
	return changed, err
}

func orNull(b []byte) json.RawMessage {
	if b == nil {
		return json.RawMessage("null")
	}
	return b
}

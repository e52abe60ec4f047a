package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// Flow is a flow without its documents.
type Flow struct {
	ID           protocol.ID
	Project      protocol.ID
	Name         string // unique within the project
	Description  string
	Labels       map[string]string
	Published    int    // version that starts use; 0: none
	Latest       int    // newest version
	PausedReason string // protocol.FlowPaused; "": not paused
	Revision     int    // raised by every change: the ETag
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// FlowVersion is one document of a flow; it never changes.
type FlowVersion struct {
	Flow      protocol.ID
	Version   int
	Document  json.RawMessage
	CreatedBy string
	CreatedAt time.Time
}

// FlowFilter narrows a list of flows.
type FlowFilter struct {
	Query string            // in the name or description, whatever the case
	Label map[string]string // all of them
}

const flowColumns = `id, project_id, name, description, labels, published, latest, paused_reason, revision, created_at, updated_at`

func scanFlow(r pgx.Rows, f *Flow) error {
	return r.Scan((*dbID)(&f.ID), (*dbID)(&f.Project), &f.Name, &f.Description, &f.Labels, &f.Published, &f.Latest, &f.PausedReason, &f.Revision, dbTime{&f.CreatedAt}, dbTime{&f.UpdatedAt})
}

// prefixed puts a table's alias before each name of a list of columns.
func prefixed(alias, columns string) string {
	return alias + "." + strings.ReplaceAll(columns, ", ", ", "+alias+".")
}

func labelsOf(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func projectOf(id protocol.ID) dbID {
	if id.IsZero() {
		return dbID(DefaultProject)
	}
	return dbID(id)
}

// CreateFlow stores a flow with its first version, published (with its hooks) or as a draft. A zero ID is made. ErrConflict (field name) when the name is taken,
// *HookTakenError when a hook is.
func (db *DB) CreateFlow(ctx context.Context, f Flow, doc json.RawMessage, createdBy string, publish bool, hooks ...Hook) (Flow, error) {
	if f.ID.IsZero() {
		f.ID = NewID()
	}
	published := 0
	if publish {
		published = 1
	}
	const sql = `
		WITH f AS (
			INSERT INTO flows (id, project_id, name, description, labels, published, latest) VALUES ($1, $2, $3, $4, $5, $6, 1) RETURNING ` + flowColumns + `),
		v AS (INSERT INTO flow_versions (flow_id, version, document, created_by, retention) SELECT f.id, 1, $7, $8, $9 FROM f)
		SELECT ` + flowColumns + ` FROM f`
	args := []any{dbID(f.ID), projectOf(f.Project), f.Name, f.Description, labelsOf(f.Labels), published, []byte(doc), createdBy, retentionOf(doc)}
	if !publish || len(hooks) == 0 {
		return writeOne(ctx, db, "CreateFlow", sql, scanFlow, args...)
	}
	rows, err := db.changeFlow(ctx, "CreateFlow", sql, hooks, args...)
	if err != nil {
		return Flow{}, err
	}
	return rows[0], nil
}

// SaveFlow stores a new version of a flow, and its name, description and labels. ifRevision -1: whatever it is; else ErrStale when the flow has moved on.
// Published, it has these hooks and no others.
func (db *DB) SaveFlow(ctx context.Context, id protocol.ID, ifRevision int, name, description string, labels map[string]string, doc json.RawMessage, createdBy string, publish bool, hooks ...Hook) (Flow, error) {
	const sql = `
		WITH f AS (
			UPDATE flows SET name = $3, description = $4, labels = $5, latest = latest + 1, published = CASE WHEN $6 THEN latest + 1 ELSE published END,
				revision = revision + 1, updated_at = clock_timestamp()
			WHERE id = $1 AND deleted_at IS NULL AND ($2 = -1 OR revision = $2) RETURNING ` + flowColumns + `),
		v AS (INSERT INTO flow_versions (flow_id, version, document, created_by, retention) SELECT f.id, f.latest, $7, $8, $9 FROM f)
		SELECT ` + flowColumns + ` FROM f`
	args := []any{dbID(id), ifRevision, name, description, labelsOf(labels), publish, []byte(doc), createdBy, retentionOf(doc)}
	var rows []Flow
	var err error
	if publish {
		rows, err = db.changeFlow(ctx, "SaveFlow", sql, hooks, args...)
	} else {
		rows, err = write(ctx, db, "SaveFlow", sql, scanFlow, args...)
	}
	return db.oneFlow(ctx, "SaveFlow", id, rows, err)
}

// oneFlow tells ErrStale from ErrNotFound when a conditional change touched nothing.
func (db *DB) oneFlow(ctx context.Context, op string, id protocol.ID, rows []Flow, err error) (Flow, error) {
	if err != nil {
		return Flow{}, err
	}
	if len(rows) == 1 {
		return rows[0], nil
	}
	if _, err := db.FlowByID(ctx, id); err != nil {
		return Flow{}, err
	}
	return Flow{}, fmt.Errorf("store.%s: %w", op, ErrStale)
}

// FlowByID finds a flow.
func (db *DB) FlowByID(ctx context.Context, id protocol.ID) (Flow, error) {
	return one(ctx, db, db.primary, "FlowByID", `SELECT `+flowColumns+` FROM flows WHERE id = $1 AND deleted_at IS NULL`, scanFlow, dbID(id))
}

// FlowByName finds a flow of a project (zero: the default one).
func (db *DB) FlowByName(ctx context.Context, project protocol.ID, name string) (Flow, error) {
	return one(ctx, db, db.primary, "FlowByName", `SELECT `+flowColumns+` FROM flows WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL`, scanFlow, projectOf(project), name)
}

// ListFlows lists flows, newest first.
func (db *DB) ListFlows(ctx context.Context, f FlowFilter, p Page) ([]Flow, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.replica, "ListFlows", `SELECT `+flowColumns+` FROM flows
		WHERE deleted_at IS NULL AND ($1::uuid IS NULL OR id < $1) AND ($2 = '' OR name ILIKE $2 OR description ILIKE $2) AND labels @> $3::jsonb ORDER BY id DESC LIMIT $4`,
		scanFlow, after, contains(f.Query), labelsOf(f.Label), p.limit()+1)
	rows, next := cut(rows, p, func(f *Flow) protocol.ID { return f.ID })
	return rows, next, err
}

// contains makes an ILIKE pattern of what a user typed; "" stays "".
func contains(q string) string {
	if q == "" {
		return ""
	}
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(clean(q)) + "%"
}

// DeleteFlow takes a flow away; its name and its hooks are free, its versions stay for the executions that use them.
func (db *DB) DeleteFlow(ctx context.Context, id protocol.ID, ifRevision int) error {
	rows, err := db.changeFlow(ctx, "DeleteFlow", `UPDATE flows SET deleted_at = clock_timestamp(), updated_at = clock_timestamp(), revision = revision + 1
		WHERE id = $1 AND deleted_at IS NULL AND ($2 = -1 OR revision = $2) RETURNING `+flowColumns, nil, dbID(id), ifRevision)
	_, err = db.oneFlow(ctx, "DeleteFlow", id, rows, err)
	return err
}

// PublishVersion makes a version the one that starts use, with its hooks. ifRevision -1: whatever it is; else ErrStale when the flow has moved on.
func (db *DB) PublishVersion(ctx context.Context, id protocol.ID, ifRevision, version int, hooks ...Hook) (Flow, error) {
	rows, err := db.changeFlow(ctx, "PublishVersion", `UPDATE flows SET published = $2, revision = revision + 1, updated_at = clock_timestamp()
		WHERE id = $1 AND deleted_at IS NULL AND ($3 = -1 OR revision = $3) AND EXISTS (SELECT FROM flow_versions v WHERE v.flow_id = $1 AND v.version = $2) RETURNING `+flowColumns, hooks, dbID(id), version, ifRevision)
	if err == nil && len(rows) == 0 && ifRevision < 0 {
		return Flow{}, fmt.Errorf("store.PublishVersion: %w", ErrNotFound)
	}
	return db.oneFlow(ctx, "PublishVersion", id, rows, err)
}

// PauseFlow holds or releases a flow's starts; "" releases.
func (db *DB) PauseFlow(ctx context.Context, id protocol.ID, reason string) (Flow, error) {
	return writeOne(ctx, db, "PauseFlow", `UPDATE flows SET paused_reason = $2, revision = revision + 1, updated_at = clock_timestamp() WHERE id = $1 AND deleted_at IS NULL RETURNING `+flowColumns, scanFlow, dbID(id), reason)
}

const versionColumns = `flow_id, version, document, created_by, created_at`

func scanVersion(r pgx.Rows, v *FlowVersion) error {
	return r.Scan((*dbID)(&v.Flow), &v.Version, (*[]byte)(&v.Document), &v.CreatedBy, dbTime{&v.CreatedAt})
}

// VersionOf reads one version, from the replica where there is one: with the worker's rights. ErrNotFound there may mean that the replica is behind: a version
// named by a task exists.
func (db *DB) VersionOf(ctx context.Context, flow protocol.ID, version int) (FlowVersion, error) {
	const sql = `SELECT ` + versionColumns + ` FROM flow_versions WHERE flow_id = $1 AND version = $2`
	v, err := one(ctx, db, db.replica, "VersionOf", sql, scanVersion, dbID(flow), version)
	if err != nil && db.HasReplica() && ctx.Err() == nil {
		return one(ctx, db, db.primary, "VersionOf", sql, scanVersion, dbID(flow), version)
	}
	return v, err
}

// ListVersions lists a flow's versions with their documents, newest first. Limit is the only thing of the page that counts beside the cursor that the page before gave.
func (db *DB) ListVersions(ctx context.Context, flow protocol.ID, p Page) ([]FlowVersion, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.primary, "ListVersions", `SELECT `+versionColumns+` FROM flow_versions WHERE flow_id = $1 AND ($2 = 0 OR version < $2) ORDER BY version DESC LIMIT $3`,
		scanVersion, dbID(flow), versionIn(after), p.limit()+1)
	rows, next := cut(rows, p, func(v *FlowVersion) protocol.ID { return cursorOf(v.Version) })
	return rows, next, err
}

// cursorOf hides a version in the shape of a cursor.
func cursorOf(version int) (id protocol.ID) {
	for i := range 8 {
		id[15-i] = byte(version >> (8 * i))
	}
	return id
}

func versionIn(id dbID) (v int) {
	for _, b := range id[8:] {
		v = v<<8 | int(b)
	}
	return v
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// ErrFull says that a project has as many of something as it may have.
var ErrFull = errors.New("as many as there may be")

// Credential is a credential as it is stored: its secret is sealed, and only a gateway opens it.
type Credential struct {
	ID        protocol.ID
	Project   protocol.ID
	Name      string // unique within the project
	Type      string
	Public    json.RawMessage
	Secret    []byte
	Codec     string // how Secret is sealed
	KeyID     string // with which key
	Revision  int    // raised by every change: the ETag
	CreatedAt time.Time
	UpdatedAt time.Time
}

const credentialColumns = `id, project_id, name, type, public, secret, secret_codec, key_id, revision, created_at, updated_at`

func scanCredential(r pgx.Rows, c *Credential) error {
	return r.Scan((*dbID)(&c.ID), (*dbID)(&c.Project), &c.Name, &c.Type, (*[]byte)(&c.Public), &c.Secret, &c.Codec, &c.KeyID, &c.Revision, dbTime{&c.CreatedAt}, dbTime{&c.UpdatedAt})
}

// CreateCredential stores a credential; its ID and Project are the caller's, the secret is sealed for them. ErrConflict (field name) when the name is taken; ErrFull when the
// project has limit of them (about: two that come together may both get in).
func (db *DB) CreateCredential(ctx context.Context, c Credential, limit int) (Credential, error) {
	out, err := writeOne(ctx, db, "CreateCredential", `
		INSERT INTO credentials (id, project_id, name, type, public, secret, secret_codec, key_id)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE (SELECT count(*) FROM credentials WHERE project_id = $2) < $9 RETURNING `+credentialColumns,
		scanCredential, dbID(c.ID), dbID(c.Project), c.Name, c.Type, []byte(c.Public), c.Secret, c.Codec, c.KeyID, limit)
	if errors.Is(err, ErrNotFound) {
		return out, fmt.Errorf("store.CreateCredential: %w", ErrFull)
	}
	return out, err
}

// SaveCredential changes a credential's name, public fields and sealed secret: what is sealed is bound to the rest, so they only change together. ErrStale when it isn't at
// the revision any more, ErrNotFound when it is gone.
func (db *DB) SaveCredential(ctx context.Context, c Credential, ifRevision int) (Credential, error) {
	rows, err := write(ctx, db, "SaveCredential", `
		UPDATE credentials SET name = $3, public = $4, secret = $5, secret_codec = $6, key_id = $7, revision = revision + 1, updated_at = clock_timestamp()
		WHERE id = $1 AND revision = $2 RETURNING `+credentialColumns,
		scanCredential, dbID(c.ID), ifRevision, c.Name, []byte(c.Public), c.Secret, c.Codec, c.KeyID)
	return db.oneCredential(ctx, "SaveCredential", c.ID, rows, err)
}

// ResealCredential stores the same secret under another key. The revision stays: nothing that anybody sees has changed. ErrStale when the credential was changed meanwhile.
func (db *DB) ResealCredential(ctx context.Context, c Credential, fromKey string) error {
	rows, err := write(ctx, db, "ResealCredential", `UPDATE credentials SET secret = $4, secret_codec = $5, key_id = $6 WHERE id = $1 AND revision = $2 AND key_id = $3 RETURNING `+credentialColumns,
		scanCredential, dbID(c.ID), c.Revision, fromKey, c.Secret, c.Codec, c.KeyID)
	_, err = db.oneCredential(ctx, "ResealCredential", c.ID, rows, err)
	return err
}

// DeleteCredential removes a credential. ifRevision -1: whatever it is.
func (db *DB) DeleteCredential(ctx context.Context, id protocol.ID, ifRevision int) error {
	rows, err := write(ctx, db, "DeleteCredential", `DELETE FROM credentials WHERE id = $1 AND ($2 = -1 OR revision = $2) RETURNING `+credentialColumns, scanCredential, dbID(id), ifRevision)
	_, err = db.oneCredential(ctx, "DeleteCredential", id, rows, err)
	return err
}

func (db *DB) oneCredential(ctx context.Context, op string, id protocol.ID, rows []Credential, err error) (Credential, error) {
	if err != nil {
		return Credential{}, err
	}
	if len(rows) == 1 {
		return rows[0], nil
	}
	if _, err := db.CredentialByID(ctx, id); err != nil {
		return Credential{}, err
	}
	return Credential{}, fmt.Errorf("store.%s: %w", op, ErrStale)
}

// CredentialByID finds a credential.
func (db *DB) CredentialByID(ctx context.Context, id protocol.ID) (Credential, error) {
	return one(ctx, db, db.primary, "CredentialByID", `SELECT `+credentialColumns+` FROM credentials WHERE id = $1`, scanCredential, dbID(id))
}

// CredentialByName finds a credential of a project (zero: the default one).
func (db *DB) CredentialByName(ctx context.Context, project protocol.ID, name string) (Credential, error) {
	return one(ctx, db, db.primary, "CredentialByName", `SELECT `+credentialColumns+` FROM credentials WHERE project_id = $1 AND name = $2`, scanCredential, projectOf(project), clean(name))
}

// ListCredentials lists credentials, newest first; types nil: all.
func (db *DB) ListCredentials(ctx context.Context, types []string, p Page) ([]Credential, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.primary, "ListCredentials", `SELECT `+credentialColumns+` FROM credentials WHERE ($1::uuid IS NULL OR id < $1) AND ($2::text[] IS NULL OR type = ANY($2)) ORDER BY id DESC LIMIT $3`,
		scanCredential, after, types, p.limit()+1)
	rows, next := cut(rows, p, func(c *Credential) protocol.ID { return c.ID })
	return rows, next, err
}

// CredentialTypes gives the types of those credentials that are there, by the name or id that was asked for.
func (db *DB) CredentialTypes(ctx context.Context, project protocol.ID, namesOrIDs []string) (map[string]string, error) {
	asked := make([]string, len(namesOrIDs))
	for i, s := range namesOrIDs {
		asked[i] = clean(s)
	}
	type pair struct{ asked, typ string }
	rows, err := list(ctx, db, db.primary, "CredentialTypes", `SELECT a, type FROM credentials, unnest($2::text[]) a WHERE project_id = $1 AND (name = a OR id::text = a)`, func(r pgx.Rows, p *pair) error {
		return r.Scan(&p.asked, &p.typ)
	}, projectOf(project), asked)
	out := make(map[string]string, len(rows))
	for _, r := range rows {
		out[r.asked] = r.typ
	}
	return out, err
}

package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// Token is an API token of a user. The token itself is never stored, only its SHA-256.
type Token struct {
	ID         protocol.ID
	UserID     protocol.ID
	Name       string // unique for a user
	Role       string
	Hash       []byte
	Queues     []string // of remote tasks, for the role worker; nil: all
	RateLimit  int      // a minute; 0: the default, -1: none
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: never
	LastUsedAt time.Time // zero: never; kept to the minute
}

const tokenColumns = `id, user_id, name, role, hash, rate_limit, created_at, expires_at, last_used_at, queues`

const insertToken = `INSERT INTO tokens (id, user_id, name, role, hash, rate_limit, expires_at, queues) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING ` + tokenColumns

func (k *Token) args() []any {
	if k.ID.IsZero() {
		k.ID = NewID()
	}
	return []any{dbID(k.ID), dbID(k.UserID), k.Name, k.Role, k.Hash, k.RateLimit, at(k.ExpiresAt), k.Queues}
}

func scanToken(r pgx.Rows, k *Token) error {
	return r.Scan((*dbID)(&k.ID), (*dbID)(&k.UserID), &k.Name, &k.Role, &k.Hash, &k.RateLimit, dbTime{&k.CreatedAt}, dbTime{&k.ExpiresAt}, dbTime{&k.LastUsedAt}, &k.Queues)
}

// CreateToken stores a token; a zero ID is made. ErrConflict (field name) when the user has one of that name.
func (db *DB) CreateToken(ctx context.Context, k Token) error {
	_, err := writeOne(ctx, db, "CreateToken", insertToken, scanToken, k.args()...)
	return err
}

// TokenByHash finds a token by the SHA-256 of its text. Whether it has expired is the caller's to judge. ErrNotFound too when its user is disabled.
func (db *DB) TokenByHash(ctx context.Context, hash []byte) (Token, error) {
	return one(ctx, db, db.primary, "TokenByHash", `SELECT `+prefixed("t", tokenColumns)+` FROM tokens t JOIN users u ON u.id = t.user_id AND NOT u.disabled WHERE t.hash = $1`, scanToken, hash)
}

// TouchToken notes that a token was used, at most once a minute. Not worth an error to a user: beside the path.
func (db *DB) TouchToken(ctx context.Context, id protocol.ID) error {
	_, err := exec(ctx, db, "TouchToken", `UPDATE tokens SET last_used_at = clock_timestamp() WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')`, dbID(id))
	return err
}

// ListTokens lists a user's tokens, newest first.
func (db *DB) ListTokens(ctx context.Context, user protocol.ID, p Page) ([]Token, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.primary, "ListTokens", `SELECT `+tokenColumns+` FROM tokens WHERE user_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3`, scanToken, dbID(user), after, p.limit()+1)
	rows, next := cut(rows, p, func(k *Token) protocol.ID { return k.ID })
	return rows, next, err
}

// DeleteToken removes a token of a user.
func (db *DB) DeleteToken(ctx context.Context, user, id protocol.ID) error {
	n, err := exec(ctx, db, "DeleteToken", `DELETE FROM tokens WHERE id = $1 AND user_id = $2`, dbID(id), dbID(user))
	return found(n, err, "DeleteToken")
}

// Refresh is a refresh token: good for one use, which gives the next of its family.
type Refresh struct {
	ID        protocol.ID
	UserID    protocol.ID
	Hash      []byte
	Family    protocol.ID // of all that came from one login
	ExpiresAt time.Time
}

// CreateRefresh stores a refresh token; zero IDs are made.
func (db *DB) CreateRefresh(ctx context.Context, f Refresh) error {
	if f.ID.IsZero() {
		f.ID = NewID()
	}
	if f.Family.IsZero() {
		f.Family = f.ID
	}
	_, err := exec(ctx, db, "CreateRefresh", `INSERT INTO refresh_tokens (id, user_id, hash, family, expires_at) VALUES ($1, $2, $3, $4, $5)`, dbID(f.ID), dbID(f.UserID), f.Hash, dbID(f.Family), at(f.ExpiresAt))
	return err
}

func scanRefresh(r pgx.Rows, f *Refresh) error {
	return r.Scan((*dbID)(&f.ID), (*dbID)(&f.UserID), &f.Hash, (*dbID)(&f.Family), dbTime{&f.ExpiresAt})
}

// UseRefresh takes a refresh token: once. A second use says that it was stolen or copied, so it ends the whole family (ErrStale). ErrNotFound: unknown,
// expired, revoked, or of a user who is disabled.
func (db *DB) UseRefresh(ctx context.Context, hash []byte) (Refresh, error) {
	f, err := writeOne(ctx, db, "UseRefresh", `
		UPDATE refresh_tokens f SET used_at = clock_timestamp() FROM users u
		WHERE f.hash = $1 AND u.id = f.user_id AND NOT u.disabled AND f.used_at IS NULL AND f.revoked_at IS NULL AND f.expires_at > clock_timestamp()
		RETURNING `+prefixed("f", `id, user_id, hash, family, expires_at`), scanRefresh, hash)
	if !errors.Is(err, ErrNotFound) {
		return f, err
	}
	used, findErr := one(ctx, db, db.primary, "UseRefresh", `SELECT id, user_id, hash, family, expires_at FROM refresh_tokens WHERE hash = $1 AND used_at IS NOT NULL AND revoked_at IS NULL`, scanRefresh, hash)
	if findErr != nil {
		return Refresh{}, findErr
	}
	if err := db.RevokeFamily(ctx, used.Family); err != nil {
		return Refresh{}, err
	}
	return Refresh{}, fmt.Errorf("store.UseRefresh: used a second time, its family is revoked: %w", ErrStale)
}

// RevokeFamily ends all refresh tokens of one login.
func (db *DB) RevokeFamily(ctx context.Context, family protocol.ID) error {
	_, err := exec(ctx, db, "RevokeFamily", `UPDATE refresh_tokens SET revoked_at = clock_timestamp() WHERE family = $1 AND revoked_at IS NULL`, dbID(family))
	return err
}

// RevokeUser ends all refresh tokens of a user: after a changed password.
func (db *DB) RevokeUser(ctx context.Context, user protocol.ID) error {
	_, err := exec(ctx, db, "RevokeUser", `UPDATE refresh_tokens SET revoked_at = clock_timestamp() WHERE user_id = $1 AND revoked_at IS NULL`, dbID(user))
	return err
}

// DeleteExpiredRefresh removes refresh tokens that expired a day ago or longer, at most 1,000.
func (db *DB) DeleteExpiredRefresh(ctx context.Context) (int, error) {
	return exec(ctx, db, "DeleteExpiredRefresh", `DELETE FROM refresh_tokens WHERE id IN (SELECT id FROM refresh_tokens WHERE expires_at < clock_timestamp() - interval '1 day' LIMIT 1000)`)
}

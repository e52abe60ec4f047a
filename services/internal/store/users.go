package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/services/internal/protocol"
)

// User is a person who logs in.
type User struct {
	ID           protocol.ID
	Email        string // unique, whatever its case
	Role         string // viewer, editor, operator, admin
	PasswordHash string
	Disabled     bool
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

const userColumns = `id, email, role, password_hash, disabled, created_at, updated_at`

func scanUser(r pgx.Rows, u *User) error {
	return r.Scan((*dbID)(&u.ID), &u.Email, &u.Role, &u.PasswordHash, &u.Disabled, dbTime{&u.CreatedAt}, dbTime{&u.UpdatedAt})
}

// CreateUser stores a user; a zero ID is made. ErrConflict (field email) when the address is taken.
func (db *DB) CreateUser(ctx context.Context, u User) (User, error) {
	if u.ID.IsZero() {
		u.ID = NewID()
	}
	return writeOne(ctx, db, "CreateUser", `INSERT INTO users (id, email, role, password_hash, disabled) VALUES ($1, $2, $3, $4, $5) RETURNING `+userColumns,
		scanUser, dbID(u.ID), u.Email, u.Role, u.PasswordHash, u.Disabled)
}

// CreateFirstUser stores the first user with tokens of theirs; created is false, and nothing is stored, when there is a user already.
func (db *DB) CreateFirstUser(ctx context.Context, u User, tokens []Token) (created bool, err error) {
	if u.ID.IsZero() {
		u.ID = NewID()
	}
	err = db.txn(ctx, "CreateFirstUser", func(t *tx) error {
		created = false
		if _, err := t.conn.Exec(ctx, `LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		tag, err := t.conn.Exec(ctx, `INSERT INTO users (id, email, role, password_hash, disabled) SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT FROM users)`,
			dbID(u.ID), u.Email, u.Role, u.PasswordHash, u.Disabled)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		for _, k := range tokens {
			k.UserID = u.ID
			if _, err := t.conn.Exec(ctx, insertToken, k.args()...); err != nil {
				return err
			}
		}
		created = true
		return nil
	})
	if err != nil {
		return false, explain("CreateFirstUser", err)
	}
	return created, nil
}

// UserByEmail finds a user, whatever the case of the address.
func (db *DB) UserByEmail(ctx context.Context, email string) (User, error) {
	return one(ctx, db, db.primary, "UserByEmail", `SELECT `+userColumns+` FROM users WHERE lower(email) = lower($1)`, scanUser, email)
}

// UserByID finds a user.
func (db *DB) UserByID(ctx context.Context, id protocol.ID) (User, error) {
	return one(ctx, db, db.primary, "UserByID", `SELECT `+userColumns+` FROM users WHERE id = $1`, scanUser, dbID(id))
}

// ListUsers lists users, newest first.
func (db *DB) ListUsers(ctx context.Context, p Page) ([]User, string, error) {
	after, err := p.after()
	if err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, db, db.primary, "ListUsers", `SELECT `+userColumns+` FROM users WHERE ($1::uuid IS NULL OR id < $1) ORDER BY id DESC LIMIT $2`, scanUser, after, p.limit()+1)
	rows, next := cut(rows, p, func(u *User) protocol.ID { return u.ID })
	return rows, next, err
}

// UpdateUser writes a user's address, role, password and whether they are disabled. A ifUpdatedAt that isn't zero must be the row's: else ErrStale.
func (db *DB) UpdateUser(ctx context.Context, u User, ifUpdatedAt time.Time) (User, error) {
	rows, err := write(ctx, db, "UpdateUser", `UPDATE users SET email = $2, role = $3, password_hash = $4, disabled = $5, updated_at = clock_timestamp()
		WHERE id = $1 AND ($6::timestamptz IS NULL OR updated_at = $6) RETURNING `+userColumns, scanUser, dbID(u.ID), u.Email, u.Role, u.PasswordHash, u.Disabled, at(ifUpdatedAt))
	if err != nil {
		return User{}, err
	}
	if len(rows) == 1 {
		return rows[0], nil
	}
	if _, err := db.UserByID(ctx, u.ID); err != nil {
		return User{}, err
	}
	return User{}, fmt.Errorf("store.UpdateUser: %w", ErrStale)
}

// DeleteUser removes a user with their tokens.
func (db *DB) DeleteUser(ctx context.Context, id protocol.ID) error {
	n, err := exec(ctx, db, "DeleteUser", `DELETE FROM users WHERE id = $1`, dbID(id))
	return found(n, err, "DeleteUser")
}

// found makes ErrNotFound of "no row was touched".
func found(n int, err error, op string) error {
	if err == nil && n == 0 {
		return fmt.Errorf("store.%s: %w", op, ErrNotFound)
	}
	return err
}

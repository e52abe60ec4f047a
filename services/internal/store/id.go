package store

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"flowplatform/services/internal/protocol"
)

// DefaultProject is the project that everything belongs to until there are more.
var DefaultProject = protocol.ID(uuid.MustParse("00000000-0000-7000-8000-000000000001"))

// NewID makes a UUIDv7: ids sort by the time they were made, also within a millisecond of this process.
func NewID() protocol.ID { return protocol.ID(uuid.Must(uuid.NewV7())) }

// TimeOf gives the millisecond at which a UUIDv7 was made.
func TimeOf(id protocol.ID) time.Time {
	ms := int64(id[0])<<40 | int64(id[1])<<32 | int64(id[2])<<24 | int64(id[3])<<16 | int64(id[4])<<8 | int64(id[5])
	return time.UnixMilli(ms).UTC()
}

// dbID is an ID as a column: the zero ID is NULL.
type dbID protocol.ID

// UUIDValue implements pgtype.UUIDValuer.
func (id dbID) UUIDValue() (pgtype.UUID, error) {
	return pgtype.UUID{Bytes: id, Valid: id != dbID{}}, nil
}

// ScanUUID implements pgtype.UUIDScanner.
func (id *dbID) ScanUUID(v pgtype.UUID) error {
	*id = dbID{}
	if v.Valid {
		*id = v.Bytes
	}
	return nil
}

// dbIDs is a list of ids as a uuid[] parameter; the flat array spares the driver its reflection.
func dbIDs(ids []protocol.ID) pgtype.FlatArray[dbID] {
	out := make(pgtype.FlatArray[dbID], len(ids))
	for i, id := range ids {
		out[i] = dbID(id)
	}
	return out
}

// bounds gives the smallest and the largest id: beside "= ANY" a range is what makes partitions prune.
func bounds(ids []protocol.ID) (lo, hi dbID) {
	for i, id := range ids {
		if i == 0 || id.Less(protocol.ID(lo)) {
			lo = dbID(id)
		}
		if i == 0 || protocol.ID(hi).Less(id) {
			hi = dbID(id)
		}
	}
	return lo, hi
}

// dbTime reads and writes a time whose zero value is NULL.
type dbTime struct{ t *time.Time }

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (d dbTime) ScanTimestamptz(v pgtype.Timestamptz) error {
	*d.t = time.Time{}
	if v.Valid {
		*d.t = v.Time.UTC()
	}
	return nil
}

func at(t time.Time) pgtype.Timestamptz { return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()} }

// Page asks for a part of a list. Lists are ordered by id, newest first, so pages stay where they are when rows are added.
type Page struct {
	Limit  int    // 1…MaxPage; 0: DefaultPage
	Cursor string // from the page before; "": the first
}

// Sizes of pages.
const (
	DefaultPage = 50
	MaxPage     = 500
)

// ErrCursor says that a cursor isn't one of ours.
var ErrCursor = errors.New("the cursor is not one that a page before gave: begin without one")

func (p Page) limit() int {
	switch {
	case p.Limit <= 0:
		return DefaultPage
	case p.Limit > MaxPage:
		return MaxPage
	}
	return p.Limit
}

// after gives the id below which the page begins; zero: at the top.
func (p Page) after() (dbID, error) {
	if p.Cursor == "" {
		return dbID{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err != nil || len(b) != 16 {
		return dbID{}, fmt.Errorf("%w", ErrCursor)
	}
	return dbID(b), nil
}

// cut ends a list that was read one row longer than the page, and makes the cursor of the next one.
func cut[T any](rows []T, p Page, id func(*T) protocol.ID) ([]T, string) {
	n := p.limit()
	if len(rows) <= n {
		return rows, ""
	}
	last := id(&rows[n-1])
	return rows[:n], base64.RawURLEncoding.EncodeToString(last[:])
}

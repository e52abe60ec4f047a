package protocol

import (
	"encoding/hex"
	"fmt"
)

// ID is a UUID; rows that are ours carry version 7, so that ids sort by the time they were made. The zero ID means "none".
type ID [16]byte

// IsZero tells whether the ID is the one that means "none".
func (id ID) IsZero() bool { return id == ID{} }

// String gives the canonical form, 36 characters.
func (id ID) String() string {
	b, _ := id.MarshalText()
	return string(b)
}

// MarshalText gives the canonical form; the zero ID is an empty text.
func (id ID) MarshalText() ([]byte, error) {
	if id.IsZero() {
		return []byte{}, nil
	}
	b := make([]byte, 36)
	hex.Encode(b[0:8], id[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], id[10:16])
	return b, nil
}

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ID{}
		return nil
	}
	if len(b) != 36 || b[8] != '-' || b[13] != '-' || b[18] != '-' || b[23] != '-' {
		return fmt.Errorf("%q is not an id: it must look like 0198c5b2-7d1e-7c3a-9f00-0123456789ab", b)
	}
	var out ID
	for _, part := range [...]struct{ dst, src, n int }{{0, 0, 8}, {4, 9, 4}, {6, 14, 4}, {8, 19, 4}, {10, 24, 12}} {
		if _, err := hex.Decode(out[part.dst:], b[part.src:part.src+part.n]); err != nil {
			return fmt.Errorf("%q is not an id: %w", b, err)
		}
	}
	*id = out
	return nil
}

// ParseID reads the canonical form.
func ParseID(s string) (ID, error) {
	var id ID
	if s == "" {
		return id, fmt.Errorf("an empty text is not an id")
	}
	err := id.UnmarshalText([]byte(s))
	return id, err
}

// Less orders ids as their bytes do, which for version 7 is by time. Rows are locked in this order.
func (id ID) Less(other ID) bool { return string(id[:]) < string(other[:]) }

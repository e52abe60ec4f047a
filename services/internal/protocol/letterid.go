package protocol

import (
	"crypto/sha256"
	"time"
)

// LetterID derives the id of a dead letter from what is parked, so that the same thing parked twice is one letter: whoever parks acknowledges only then, and
// may die in between. at is when the message was made (never when it is parked), what tells it from all others. The id is a version 7: letters sort by at.
// Without a time, or without a first part, there is nothing to tell it by, and the id is zero: the store gives one.
func LetterID(at time.Time, what ...string) ID {
	if at.IsZero() || len(what) == 0 || what[0] == "" {
		return ID{}
	}
	h := sha256.New()
	for _, part := range what {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	id := ID(h.Sum(nil))
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

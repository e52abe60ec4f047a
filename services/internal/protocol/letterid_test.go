package protocol

import (
	"testing"
	"time"
)

func TestLetterID(t *testing.T) {
	at := time.UnixMilli(1_764_000_000_123)
	one := LetterID(at, "message-1", "unparseable")
	if one != LetterID(at, "message-1", "unparseable") {
		t.Error("the same twice has two ids")
	}
	for name, other := range map[string]ID{
		"another message": LetterID(at, "message-2", "unparseable"),
		"another reason":  LetterID(at, "message-1", "version-not-found"),
		"another cut":     LetterID(at, "message-1u", "nparseable"),
		"another time":    LetterID(at.Add(time.Millisecond), "message-1", "unparseable"),
	} {
		if other == one || other.IsZero() {
			t.Errorf("%s has the id %s", name, other)
		}
	}
	if later := LetterID(at.Add(time.Second), "a"); !one.Less(later) {
		t.Errorf("%s, a second later, sorts before %s", later, one)
	}
	if text := one.String(); text[14] != '7' || text[:8] != LetterID(at, "x").String()[:8] {
		t.Errorf("%s is no version 7 of its time", text)
	}
	if id := LetterID(time.Time{}, "message-1"); !id.IsZero() {
		t.Errorf("without a time: %s", id)
	}
	if id := LetterID(at, "", "unparseable"); !id.IsZero() {
		t.Errorf("of a message without an id: %s", id)
	}
}

package store

import (
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
)

// A letter that is parked again stays as it is, until somebody asks it back: what comes then has failed again, and is open again.
func TestALetterThatComesAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters, people := b.open(t, "flow_orchestrator"), b.open(t, "flow_gateway")
	letter := protocol.DeadLetter{ID: protocol.LetterID(time.Now(), "a message"), Kind: "task", Reason: "unparseable", Body: []byte("{"), Count: 1}
	park := func() Letter {
		t.Helper()
		if err := letters.InsertDeadLetters(t.Context(), []protocol.DeadLetter{letter, letter}); err != nil {
			t.Fatal(err)
		}
		l, err := people.LetterOf(t.Context(), letter.ID)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	ask := func() {
		t.Helper()
		if n, err := people.AskRequeue(t.Context(), LetterFilter{IDs: []protocol.ID{letter.ID}}, "ada"); err != nil || n != 1 {
			t.Fatalf("%d asked for, %v", n, err)
		}
	}
	park()
	if l := park(); l.Count != 1 || l.Outcome != "" {
		t.Errorf("parked again: %+v", l)
	}
	ask()
	if l := park(); l.Count != 2 || !l.AskedAt.IsZero() || !l.DoneAt.IsZero() { // its message came back before the leader wrote that it was sent
		t.Errorf("come again while it was sent: %+v", l)
	}
	if err := letters.FinishLetter(t.Context(), letter.ID, "published", true); err != nil {
		t.Fatal(err)
	}
	if l := park(); !l.DoneAt.IsZero() {
		t.Errorf("it is done with, though it came again: %+v", l)
	}
	ask()
	if err := letters.FinishLetter(t.Context(), letter.ID, "published", true); err != nil {
		t.Fatal(err)
	}
	if l := park(); l.Count != 3 || !l.DoneAt.IsZero() || l.Outcome != "it came again" {
		t.Errorf("come again after it was sent: %+v", l)
	}
}

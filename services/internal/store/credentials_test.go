package store

import (
	"bytes"
	"errors"
	"testing"
)

func TestCredentials(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db, ctx := b.open(t, "flow_gateway"), t.Context()
	c := Credential{ID: NewID(), Project: DefaultProject, Name: "shop", Type: "redis", Public: []byte(`{"host":"h"}`), Secret: []byte{0, 1, 2}, Codec: "x/1", KeyID: "k1"}
	saved, err := db.CreateCredential(ctx, c, 2)
	if err != nil || saved.Revision != 1 || !bytes.Equal(saved.Secret, c.Secret) || string(saved.Public) != string(c.Public) || saved.CreatedAt.IsZero() {
		t.Fatalf("%+v %v", saved, err)
	}
	other := c
	other.ID = NewID()
	var conflict *ConflictError
	if _, err := db.CreateCredential(ctx, other, 2); !errors.As(err, &conflict) || conflict.Field != "name" {
		t.Errorf("the same name: %v", err)
	}
	if _, err := db.CreateCredential(ctx, other, 1); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	types, err := db.CredentialTypes(ctx, DefaultProject, []string{"shop", c.ID.String(), "none"})
	if err != nil || len(types) != 2 || types["shop"] != "redis" || types[c.ID.String()] != "redis" {
		t.Errorf("%v %v", types, err)
	}
	if by, err := db.CredentialByName(ctx, DefaultProject, "shop"); err != nil || by.ID != c.ID {
		t.Errorf("%v %v", by.ID, err)
	}
	// Two change it at once: one of them sees it.
	c.Name = "renamed"
	if saved, err = db.SaveCredential(ctx, c, 1); err != nil || saved.Revision != 2 || saved.Name != "renamed" {
		t.Errorf("%+v %v", saved, err)
	}
	if _, err := db.SaveCredential(ctx, c, 1); !errors.Is(err, ErrStale) {
		t.Errorf("at an old revision: %v", err)
	}
	// Encrypting anew never undoes a change that came between, and changes nothing that anybody sees.
	anew := saved
	anew.Secret, anew.KeyID, anew.Revision = []byte{9}, "k2", 1
	if err := db.ResealCredential(ctx, anew, "k1"); !errors.Is(err, ErrStale) {
		t.Errorf("of an old revision: %v", err)
	}
	anew.Revision = 2
	if err := db.ResealCredential(ctx, anew, "k1"); err != nil {
		t.Error(err)
	}
	if err := db.ResealCredential(ctx, anew, "k1"); !errors.Is(err, ErrStale) {
		t.Errorf("twice: %v", err)
	}
	if got, err := db.CredentialByID(ctx, c.ID); err != nil || got.Revision != 2 || got.KeyID != "k2" || !got.UpdatedAt.Equal(saved.UpdatedAt) {
		t.Errorf("%+v %v", got, err)
	}
	if err := db.DeleteCredential(ctx, c.ID, 1); !errors.Is(err, ErrStale) {
		t.Errorf("%v", err)
	}
	if err := db.DeleteCredential(ctx, c.ID, -1); err != nil {
		t.Error(err)
	}
	if err := db.DeleteCredential(ctx, c.ID, -1); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

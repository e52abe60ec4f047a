package vault

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"flowplatform/services/internal/protocol"
)

func keyOf(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) }

func vaultOf(t *testing.T, list string) *Vault {
	t.Helper()
	v, err := New(list)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var (
	row    = Row{Project: protocol.ID{1}, ID: protocol.ID{2}, Name: "shop", Type: "postgres", Public: []byte(`{"host":"a"}`)}
	secret = map[string]any{"password": "hunter2hunter2"}
)

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	v := vaultOf(t, keyOf(1))
	a, err := v.Seal(row, secret)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := v.Seal(row, secret)
	if bytes.Equal(a.Secret, b.Secret) || bytes.Contains(a.Secret, []byte("hunter2")) {
		t.Error("the same twice, or in the plain")
	}
	if got, err := v.Open(row, a); err != nil || !maps.Equal(got, secret) {
		t.Errorf("%v %v", got, err)
	}
}

// TestBound: whatever of a row is changed, it doesn't open.
func TestBound(t *testing.T) {
	t.Parallel()
	v := vaultOf(t, keyOf(1)+","+keyOf(2))
	s, err := v.Seal(row, secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(r *Row, s *Sealed){
		"project": func(r *Row, _ *Sealed) { r.Project[0]++ }, "id": func(r *Row, _ *Sealed) { r.ID[15]++ }, "name": func(r *Row, _ *Sealed) { r.Name = "other" }, "type": func(r *Row, _ *Sealed) { r.Type = "redis" },
		"public": func(r *Row, _ *Sealed) { r.Public = []byte(`{"host":"evil"}`) }, "name and type": func(r *Row, _ *Sealed) { r.Name, r.Type = "shopp", "ostgres" },
		"codec": func(_ *Row, s *Sealed) { s.Codec = "" }, "key": func(_ *Row, s *Sealed) { s.KeyID = vaultOf(t, keyOf(2)).Current() }, "short": func(_ *Row, s *Sealed) { s.Secret = s.Secret[:20] }, "empty": func(_ *Row, s *Sealed) { s.Secret = nil },
	} {
		r, c := row, s
		c.Secret = bytes.Clone(s.Secret)
		change(&r, &c)
		if _, err := v.Open(r, c); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range s.Secret {
		c := s
		c.Secret = bytes.Clone(s.Secret)
		c.Secret[i] ^= 1
		if _, err := v.Open(row, c); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	old := vaultOf(t, keyOf(1))
	s, err := old.Seal(row, secret)
	if err != nil {
		t.Fatal(err)
	}
	both := vaultOf(t, keyOf(2)+"\n"+keyOf(1)+"\n")
	if got, err := both.Open(row, s); err != nil || !maps.Equal(got, secret) {
		t.Errorf("%v %v", got, err)
	}
	anew, err := both.Seal(row, secret)
	if err != nil || anew.KeyID == s.KeyID || anew.KeyID != both.Current() {
		t.Errorf("%v %v", anew.KeyID, err)
	}
	var wrong *WrongKeyError
	if _, err := old.Open(row, anew); !errors.As(err, &wrong) || wrong.KeyID != anew.KeyID || !strings.Contains(err.Error(), "CREDENTIALS_KEY") {
		t.Errorf("%v", err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	none := vaultOf(t, " ")
	if _, err := none.Seal(row, secret); !errors.Is(err, ErrNoKey) {
		t.Errorf("%v", err)
	}
	if _, err := none.Open(row, Sealed{}); !errors.Is(err, ErrNoKey) {
		t.Errorf("%v", err)
	}
	var many []string
	for i := range maxKeys + 1 {
		many = append(many, keyOf(byte(i)))
	}
	for _, bad := range []string{"hunter2", keyOf(1)[:20], base64.StdEncoding.EncodeToString([]byte("sixteen bytes !!")), keyOf(1) + "," + keyOf(1), strings.Join(many, ",")} {
		if _, err := New(bad); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("%v", err)
		}
	}
	if s := fmt.Sprintf("%+v", vaultOf(t, keyOf(7)).current); strings.Contains(s, keyOf(7)[:8]) {
		t.Error(s)
	}
}

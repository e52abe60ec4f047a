// Package vault encrypts the secrets of credentials. It is the only place that holds the master keys, and the gateway is the only service that has them.
//
//	CREDENTIALS_KEY (master) ── wraps ──► data key, fresh at every write ── seals ──► the secret fields, as JSON
//
// Both layers are AES-256-GCM, and both are bound to all else that the row says: project, id, type, name and public fields. A secret that somebody moves to
// another row, or whose host somebody changes in the database, doesn't open. (AES-GCM of the standard library is chosen over XChaCha20-Poly1305: nonces can't
// collide where every data key seals once and a master key wraps at most some thousand random ones, it is the faster one on our machines, and it is one
// dependency less.)
//
// Several keys make a rotation: the first seals, all open. A key is named by a digest of it, so that a row says which key it needs.
package vault

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"flowplatform/services/internal/protocol"
)

// Codec names how secrets are sealed, in the column secret_codec.
const Codec = "aes256gcm/1"

const (
	keyBytes   = 32
	nonceBytes = 12
	tagBytes   = 16
	wrapped    = nonceBytes + keyBytes + tagBytes
	maxKeys    = 16
)

// Errors that callers branch on.
var (
	// ErrNoKey says that this gateway has no key at all.
	ErrNoKey = errors.New("CREDENTIALS_KEY is not set at this gateway, so it can neither store nor open credentials: set it to 32 random bytes in base64 (openssl rand -base64 32), the same at all gateways")
	// ErrDamaged says that a row isn't what was sealed.
	ErrDamaged = errors.New("it doesn't open: its row was changed in the database, by somebody else than a gateway, or is damaged; save it anew with its secret")
)

// WrongKeyError says that a row needs a key that this gateway doesn't have.
type WrongKeyError struct{ KeyID string }

func (e *WrongKeyError) Error() string {
	return fmt.Sprintf("it was encrypted with the key %s, which is not in this gateway's CREDENTIALS_KEY: add that key behind the current one, or save the credential anew with its secret", e.KeyID)
}

// Row is what a secret is bound to.
type Row struct {
	Project, ID protocol.ID
	Name, Type  string
	Public      []byte
}

// Sealed is a secret as it is stored.
type Sealed struct {
	Codec  string
	KeyID  string
	Secret []byte
}

// Vault seals and opens. Safe for concurrent use.
type Vault struct {
	current string
	keys    map[string]cipher.AEAD
}

// New reads CREDENTIALS_KEY: keys of 32 bytes in base64, by comma or line, the current one first. "" makes a vault without keys: it answers ErrNoKey.
func New(list string) (*Vault, error) {
	v := &Vault{keys: map[string]cipher.AEAD{}}
	for i, text := range strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("CREDENTIALS_KEY: key %d is not 32 bytes in base64 (openssl rand -base64 32 makes one)", i+1)
		}
		if i >= maxKeys {
			return nil, fmt.Errorf("CREDENTIALS_KEY has more than %d keys: encrypt anew with the first, and take old ones away", maxKeys)
		}
		id := keyID(key)
		if _, twice := v.keys[id]; twice {
			return nil, fmt.Errorf("CREDENTIALS_KEY: key %d is there twice", i+1)
		}
		if v.keys[id], err = newAEAD(key); err != nil {
			return nil, fmt.Errorf("CREDENTIALS_KEY: %w", err)
		}
		if v.current == "" {
			v.current = id
		}
	}
	return v, nil
}

// keyID names a key without telling anything of it.
func keyID(key []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("flow platform: name of a credentials key"))
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Current names the key that seals; "" when there is none.
func (v *Vault) Current() string { return v.current }

// Seal encrypts secret fields, with a data key of their own.
func (v *Vault) Seal(r Row, secret map[string]any) (Sealed, error) {
	master := v.keys[v.current]
	if master == nil {
		return Sealed{}, ErrNoKey
	}
	plain, err := json.Marshal(secret)
	if err != nil {
		return Sealed{}, errors.New("vault: the secret fields can't be written as JSON") // the cause could show a value
	}
	random := make([]byte, keyBytes+2*nonceBytes)
	_, _ = rand.Read(random) // never fails
	key, n1, n2 := random[:keyBytes], random[keyBytes:keyBytes+nonceBytes], random[keyBytes+nonceBytes:]
	data, err := newAEAD(key)
	if err != nil {
		return Sealed{}, fmt.Errorf("vault: %w", err)
	}
	out := append([]byte(nil), n1...)
	out = master.Seal(out, n1, key, r.bind("key", v.current))
	out = append(out, n2...)
	out = data.Seal(out, n2, plain, r.bind("secret", v.current))
	clear(random)
	clear(plain)
	return Sealed{Codec: Codec, KeyID: v.current, Secret: out}, nil
}

// Open decrypts. ErrNoKey, *WrongKeyError, ErrDamaged.
func (v *Vault) Open(r Row, s Sealed) (map[string]any, error) {
	if len(v.keys) == 0 {
		return nil, ErrNoKey
	}
	master := v.keys[s.KeyID]
	if master == nil {
		return nil, &WrongKeyError{s.KeyID}
	}
	if s.Codec != Codec || len(s.Secret) < wrapped+nonceBytes+tagBytes {
		return nil, ErrDamaged
	}
	key, err := master.Open(nil, s.Secret[:nonceBytes], s.Secret[nonceBytes:wrapped], r.bind("key", s.KeyID))
	if err != nil {
		return nil, ErrDamaged
	}
	data, err := newAEAD(key)
	clear(key)
	if err != nil {
		return nil, ErrDamaged
	}
	rest := s.Secret[wrapped:]
	plain, err := data.Open(nil, rest[:nonceBytes], rest[nonceBytes:], r.bind("secret", s.KeyID))
	if err != nil {
		return nil, ErrDamaged
	}
	defer clear(plain)
	var out map[string]any
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber()
	if d.Decode(&out) != nil {
		return nil, ErrDamaged
	}
	return out, nil
}

// bind is the additional data of a layer: every part with its length before it, so that none can run into the next.
func (r Row) bind(layer, key string) []byte {
	var b []byte
	for _, part := range [][]byte{[]byte("flow credential"), []byte(Codec), []byte(layer), []byte(key), r.Project[:], r.ID[:], []byte(r.Name), []byte(r.Type), r.Public} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"flowplatform/services/internal/protocol"
)

// How long tokens live.
const (
	AccessLife  = 15 * time.Minute
	RefreshLife = 30 * 24 * time.Hour
)

// Prefixes of tokens that we make, so that scanners of leaked secrets know them.
const (
	apiPrefix     = "fp_"
	refreshPrefix = "fr_"
)

const issuer = "flowplatform"

// signer makes and reads access tokens.
type signer struct {
	secret []byte
	parser *jwt.Parser
	now    func() time.Time
}

func newSigner(secret string, now func() time.Time) *signer {
	return &signer{secret: []byte(secret), now: now, parser: jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(issuer), jwt.WithExpirationRequired(), jwt.WithTimeFunc(now))}
}

type claims struct {
	jwt.RegisteredClaims
	Session string `json:"sid"`
}

func (s *signer) sign(user, session protocol.ID) (string, error) {
	now := s.now()
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{Issuer: issuer, Subject: user.String(), IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(AccessLife))},
		Session:          session.String(),
	})
	out, err := t.SignedString(s.secret)
	if err != nil {
		return "", fmt.Errorf("sign an access token: %w", err)
	}
	return out, nil
}

var errAccessToken = errors.New("not an access token of ours")

func (s *signer) read(token string) (user, session protocol.ID, err error) {
	var c claims
	if _, err = s.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return s.secret, nil }); err != nil {
		return
	}
	user, err1 := protocol.ParseID(c.Subject)
	session, err2 := protocol.ParseID(c.Session)
	if err1 != nil || err2 != nil {
		return user, session, errAccessToken
	}
	return user, session, nil
}

// digest is what is stored of a token.
type digest [sha256.Size]byte

func digestOf(token string) digest { return sha256.Sum256([]byte(token)) }

func randomToken(prefix string) (string, digest) {
	var b [32]byte
	rand.Read(b[:])
	t := prefix + base64.RawURLEncoding.EncodeToString(b[:])
	return t, digestOf(t)
}

func isAPIToken(token string) bool { return strings.HasPrefix(token, apiPrefix) }

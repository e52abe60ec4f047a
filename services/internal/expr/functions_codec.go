package expr

import (
	"crypto/hmac"
	"crypto/md5"  //nolint:gosec // offered for old interfaces
	"crypto/sha1" //nolint:gosec // offered for old interfaces
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/url"

	"flowplatform/services/internal/flow"
)

func hashFunctions() []*function {
	digest := func(name string, make func() hash.Hash) *function {
		return &function{name, 1, 1, name + "(text): in hexadecimal", func(f *frame, args []any) (any, error) {
			s, err := str(args, 0)
			if err != nil {
				return nil, err
			}
			h := make()
			h.Write([]byte(s))
			return hex.EncodeToString(h.Sum(nil)), f.spend(len(s) / 32)
		}}
	}
	mac := func(name string, make func() hash.Hash) *function {
		return &function{name, 2, 2, name + "(key, text): in hexadecimal", func(f *frame, args []any) (any, error) {
			key, err := str(args, 0)
			if err != nil {
				return nil, err
			}
			s, err := str(args, 1)
			if err != nil {
				return nil, err
			}
			h := hmac.New(make, []byte(key))
			h.Write([]byte(s))
			return hex.EncodeToString(h.Sum(nil)), f.spend(len(s) / 32)
		}}
	}
	return []*function{
		digest("sha256", sha256.New), digest("sha512", sha512.New), digest("sha1", sha1.New), digest("md5", md5.New),
		mac("hmacSha256", sha256.New), mac("hmacSha512", sha512.New),
	}
}

func codecFunctions() []*function {
	code := func(name, doc string, run func(string) (string, error)) *function {
		return &function{name, 1, 1, doc, func(f *frame, args []any) (any, error) {
			s, err := str(args, 0)
			if err != nil {
				return nil, err
			}
			if err := f.grow(3 * len(s)); err != nil {
				return nil, err
			}
			out, err := run(s)
			if err != nil {
				return nil, err
			}
			return clean(out), nil
		}}
	}
	return []*function{
		code("toBase64", "toBase64(text)", func(s string) (string, error) { return base64.StdEncoding.EncodeToString([]byte(s)), nil }),
		code("fromBase64", "fromBase64(text): as text; bytes that are no UTF-8 become U+FFFD", func(s string) (string, error) {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return "", fmt.Errorf("%s is no Base64", show(s))
			}
			return string(b), nil
		}),
		code("urlEncode", "urlEncode(text): safe within a path segment or a query", func(s string) (string, error) { return url.PathEscape(s), nil }),
		code("urlDecode", "urlDecode(text)", func(s string) (string, error) {
			out, err := url.PathUnescape(s)
			if err != nil {
				return "", fmt.Errorf("%s is not URL encoded", show(s))
			}
			return out, nil
		}),
		{"toJSON", 1, 1, "toJSON(x): as JSON, keys sorted, numbers exact", toJSON},
		{"fromJSON", 1, 1, "fromJSON(text): the value, numbers exact", fromJSON},
	}
}

func toJSON(f *frame, args []any) (any, error) {
	v, err := leave(args[0])
	if err == nil {
		v, err = flow.CanonicalWithin(v, MaxMemory)
	}
	if err != nil {
		return nil, err
	}
	b, err := flow.EncodeValue(v)
	if err != nil {
		return nil, err
	}
	if err := f.spend(len(b) / 16); err != nil {
		return nil, err
	}
	return string(b), f.grow(len(b))
}

func fromJSON(f *frame, args []any) (any, error) {
	s, err := str(args, 0)
	if err != nil {
		return nil, err
	}
	if err := f.spend(len(s) / 16); err != nil {
		return nil, err
	}
	if err := f.grow(8 * len(s)); err != nil {
		return nil, err
	}
	return flow.DecodeValue([]byte(s))
}

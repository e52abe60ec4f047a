package payload

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"

	"flowplatform/services/internal/protocol"
)

func TestPackAndUnpack(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 300<<10)
	_, _ = rand.Read(noise) // it never fails
	for name, tc := range map[string]struct {
		raw   []byte
		codec string
	}{
		"text":    {[]byte(`"` + strings.Repeat("lorem ipsum ", 50_000) + `"`), protocol.CodecZstd},
		"noise":   {noise, protocol.CodecJSON},
		"largest": {bytes.Repeat([]byte("1"), protocol.MaxValue), protocol.CodecZstd},
		"empty":   {[]byte{}, protocol.CodecJSON},
	} {
		codec, data := Pack(tc.raw)
		if codec != tc.codec {
			t.Errorf("%s: packed with %q, want %q", name, codec, tc.codec)
		}
		got, err := Unpack(codec, data, Ref(tc.raw))
		if err != nil || !bytes.Equal(got, tc.raw) {
			t.Errorf("%s: %d bytes came back of %d, %v", name, len(got), len(tc.raw), err)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	raw := []byte(strings.Repeat("a", 1000))
	_, packed := Pack(raw)
	bomb := packer().EncodeAll(make([]byte, protocol.MaxValue+1), nil)
	for name, tc := range map[string]struct {
		codec string
		data  []byte
		ref   string
		want  string
	}{
		"another value": {protocol.CodecZstd, packed, Ref([]byte("b")), "changed on its way"},
		"cut":           {protocol.CodecZstd, packed[:len(packed)-3], Ref(raw), "can't be unpacked"},
		"codec":         {"brotli", packed, Ref(raw), "older than who stored it"},
		"ref":           {protocol.CodecJSON, raw, "../../x", "64 hexadecimal digits"},
		"bomb":          {protocol.CodecZstd, bomb, hex.EncodeToString(make([]byte, 32)), "can't be unpacked"},
		"too large":     {protocol.CodecJSON, make([]byte, protocol.MaxValue+1), Ref(raw), "are allowed"},
	} {
		if _, err := Unpack(tc.codec, tc.data, tc.ref); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tc.want)
		}
	}
}

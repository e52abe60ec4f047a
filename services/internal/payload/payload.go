// Package payload is how values travel that are too large for messages and rows: named by the SHA-256 of their JSON, packed where that pays.
//
// zstd comes from github.com/klauspost/compress (BSD, no cgo, kept up by many users' weight): gzip from the standard library packs JSON worse and four
// times slower, PostgreSQL's own TOAST compression would leave the wire and the WAL as they are. At its fastest level it costs less than the hash.
package payload

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"flowplatform/services/internal/protocol"
)

// Ref names a value: the SHA-256 of its JSON, in hex.
func Ref(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// ParseRef gives the bytes that a Ref stands for.
func ParseRef(ref string) ([]byte, error) {
	sum, err := hex.DecodeString(ref)
	if err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("%q is not the SHA-256 of a value: it has 64 hexadecimal digits", ref)
	}
	return sum, nil
}

// Both are safe for concurrent use and keep their buffers; one goroutine each, so that a burst of large values doesn't take memory for all processors.
var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic("payload: the options of zstd are wrong: " + err.Error())
		}
		return e
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(protocol.MaxValue), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			panic("payload: the options of zstd are wrong: " + err.Error())
		}
		return d
	})
)

// Pack packs a value if that saves a tenth at least; what it gives is for reading only.
func Pack(raw []byte) (codec string, data []byte) {
	packed := packer().EncodeAll(raw, make([]byte, 0, len(raw)/3))
	if len(packed) > len(raw)/10*9 {
		return protocol.CodecJSON, raw
	}
	return protocol.CodecZstd, packed
}

// Unpack gives the JSON back and sees that it is what ref names. What unpacks to more than protocol.MaxValue is an error, before it takes that memory.
func Unpack(codec string, data []byte, ref string) ([]byte, error) {
	raw := data
	switch codec {
	case protocol.CodecJSON:
	case protocol.CodecZstd:
		var err error
		if raw, err = unpacker().DecodeAll(data, nil); err != nil {
			return nil, fmt.Errorf("the value can't be unpacked: %w", err)
		}
	default:
		return nil, fmt.Errorf("the value is packed with %q, which this build doesn't know: it is older than who stored it", codec)
	}
	if len(raw) > protocol.MaxValue {
		return nil, fmt.Errorf("the value has %d bytes, %d are allowed", len(raw), protocol.MaxValue)
	}
	sum, err := ParseRef(ref)
	if err != nil {
		return nil, err
	}
	if got := sha256.Sum256(raw); !bytes.Equal(got[:], sum) {
		return nil, fmt.Errorf("the value's SHA-256 is %x, not %s: it was changed on its way", got, ref)
	}
	return raw, nil
}

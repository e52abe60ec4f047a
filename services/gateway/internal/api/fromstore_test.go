package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// TestFromStore: a database that is away is no fault of the gateway, and clients may try again.
func TestFromStore(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err    error
		status int
	}{
		"not found":                     {store.ErrNotFound, 404},
		"changed since":                 {store.ErrStale, 412},
		"commit unknown":                {protocol.ErrUnknown, 503},
		"refused":                       {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, 503},
		"reset":                         {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, 503},
		"it died while it was read":     {io.ErrUnexpectedEOF, 503},
		"no answer in time":             {context.DeadlineExceeded, 503},
		"something that nobody expects": {errors.New("bug"), 500},
	} {
		if got := fromStore(fmt.Errorf("store.FlowByID: %w", tc.err)); got.Status != tc.status {
			t.Errorf("%s: %d, want %d", name, got.Status, tc.status)
		}
	}
}

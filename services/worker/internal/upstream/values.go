package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/worker/internal/runner"
)

// Values keeps large values at the orchestrators. It is a runner.Values, with connections of its own: nothing that decides about sessions and claims waits behind them.
type Values struct{ *Client }

var _ runner.Values = Values{}

func valuePath(execution protocol.ID, ref string) string {
	return "payloads/" + execution.String() + "/" + ref
}

// Put stores a value, packed where that pays.
func (v Values) Put(ctx context.Context, execution protocol.ID, ref string, raw []byte) error {
	codec, data := payload.Pack(raw)
	header := http.Header{"Content-Type": {"application/json"}}
	if codec != protocol.CodecJSON {
		header.Set("Content-Encoding", codec)
	}
	err := v.try(ctx, http.MethodPut, valuePath(execution, ref), header, data, func(http.Header, []byte) error { return nil })
	return meaning(err)
}

// Get gives a value.
func (v Values) Get(ctx context.Context, execution protocol.ID, ref string) ([]byte, error) {
	var raw []byte
	err := v.try(ctx, http.MethodGet, valuePath(execution, ref), nil, nil, func(h http.Header, data []byte) (err error) {
		raw, err = payload.Unpack(h.Get("Content-Encoding"), data, ref)
		return err
	})
	return raw, meaning(err)
}

func meaning(err error) error {
	var no *StatusError
	if errors.As(err, &no) {
		switch no.Status {
		case http.StatusRequestEntityTooLarge:
			return fmt.Errorf("%w: %w", runner.ErrValues, err)
		case http.StatusNotFound:
			return fmt.Errorf("%w: %w", runner.ErrNoValue, err)
		}
	}
	return err
}

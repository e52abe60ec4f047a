package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

// payloadsAtOnce bounds the memory that values take here on their way: at most 32 MiB each, packed and unpacked.
const payloadsAtOnce = 8

// Values is where large values are kept.
type Values interface {
	PutPayload(ctx context.Context, p store.Payload) error
	Payload(ctx context.Context, execution protocol.ID, sum []byte) (store.Payload, error)
}

// payloads takes and gives values that are too large for rows and messages: PUT and GET /internal/v1/payloads/{execution}/{sha256}. The body is the value's JSON,
// Content-Encoding says how it is packed; the name is the SHA-256 of the JSON. PUT may be repeated; 204 means committed. 404: there is no such execution, or value.
// 413: the value, or all of the execution together, is too large. GET reads the primary and gives the bytes as they are stored.
type payloads struct {
	values Values
	log    *slog.Logger
	slots  chan struct{}
}

func (p *payloads) enter(w http.ResponseWriter, r *http.Request) (execution protocol.ID, ref string, sum []byte, leave func(), ok bool) {
	execution, err := protocol.ParseID(r.PathValue("execution"))
	if err == nil {
		ref = r.PathValue("sha256")
		sum, err = payload.ParseRef(ref)
	}
	if err != nil {
		problem(w, http.StatusUnprocessableEntity, err.Error())
		return execution, ref, sum, nil, false
	}
	select {
	case p.slots <- struct{}{}:
		return execution, ref, sum, func() { <-p.slots }, true
	case <-r.Context().Done():
		return execution, ref, sum, nil, false
	}
}

func (p *payloads) put(w http.ResponseWriter, r *http.Request) {
	execution, ref, sum, leave, ok := p.enter(w, r)
	if !ok {
		return
	}
	defer leave()
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, protocol.MaxValue))
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("a value has at most %d bytes", protocol.MaxValue))
		return
	}
	if err != nil {
		problem(w, http.StatusBadRequest, fmt.Sprintf("the body could not be read: %v", err))
		return
	}
	codec := r.Header.Get("Content-Encoding")
	raw, err := payload.Unpack(codec, data, ref)
	if err != nil {
		problem(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	err = p.values.PutPayload(r.Context(), store.Payload{Execution: execution, SHA256: sum, Codec: codec, Size: len(raw), Data: data})
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, store.ErrNotFound):
		problem(w, http.StatusNotFound, "there is no execution "+execution.String()+", or no longer")
	case errors.Is(err, store.ErrPayloads):
		problem(w, http.StatusRequestEntityTooLarge, err.Error())
	default:
		p.unknown(w, r, err)
	}
}

func (p *payloads) get(w http.ResponseWriter, r *http.Request) {
	execution, ref, sum, leave, ok := p.enter(w, r)
	if !ok {
		return
	}
	defer leave()
	v, err := p.values.Payload(r.Context(), execution, sum)
	switch {
	case errors.Is(err, store.ErrNotFound):
		problem(w, http.StatusNotFound, "the execution "+execution.String()+" has no value "+ref)
		return
	case err != nil:
		p.unknown(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if v.Codec != protocol.CodecJSON {
		h.Set("Content-Encoding", v.Codec)
	}
	h.Set("Content-Length", strconv.Itoa(len(v.Data)))
	_, _ = w.Write(v.Data) // a caller that went away asks again
}

func (p *payloads) unknown(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		p.log.Debug("no answer", "path", r.URL.Path, "error", err)
	}
	w.Header().Set("Retry-After", "1")
	problem(w, http.StatusServiceUnavailable, fmt.Sprintf("the outcome is not known, ask again: %v", err))
}

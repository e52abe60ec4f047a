// Package api is a small client for the HTTP APIs of Consul, Nomad and the gateway: JSON in, JSON out. The programs that make a platform ask a dozen
// things of each; their own client libraries belong to the services that live with them.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Headers that carry a token.
const (
	ConsulToken = "X-Consul-Token"
	NomadToken  = "X-Nomad-Token"
)

// Client talks to one server.
type Client struct {
	Base   string
	HTTP   *http.Client // its transport has the certificates where there are some
	header http.Header
}

// New makes a client for an address like http://127.0.0.1:4646. An empty token sends none.
func New(base, headerName, token string) *Client {
	a := &Client{Base: base, header: http.Header{}, HTTP: &http.Client{Timeout: 30 * time.Second}}
	if token != "" {
		a.header.Set(headerName, token)
	}
	return a
}

// StatusError is an answer that isn't 2xx.
type StatusError struct {
	Method, URL string
	Status      int
	Body        string
}

func (e *StatusError) Error() string {
	const enough = 4000
	return fmt.Sprintf("%s %s: %d %s", e.Method, e.URL, e.Status, e.Body[:min(len(e.Body), enough)])
}

// Decode reads what came with the status.
func (e *StatusError) Decode(out any) error {
	if err := json.Unmarshal([]byte(e.Body), out); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", e.Method, e.URL, err)
	}
	return nil
}

// HasStatus says whether err is an answer with that status.
func HasStatus(err error, status int) bool {
	var se *StatusError
	return errors.As(err, &se) && se.Status == status
}

// Call sends in as JSON, if it isn't nil, and decodes the answer into out, if that isn't nil. Numbers in an any keep their
// exact value; a *string and an io.Writer get the answer as it is, and a []byte is sent as it is. An answer of another status than 2xx is a *StatusError.
func (a *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, raw := in.([]byte)
		if !raw {
			var err error
			if b, err = json.Marshal(in); err != nil {
				return fmt.Errorf("%s %s: encode: %w", method, path, err)
			}
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.Base+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	for name, values := range a.header {
		req.Header[name] = values
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return &StatusError{Method: method, URL: a.Base + path, Status: resp.StatusCode, Body: strings.TrimSpace(string(b))}
	}
	switch target := out.(type) {
	case nil:
		_, err = io.Copy(io.Discard, resp.Body)
	case *string:
		var b []byte
		b, err = io.ReadAll(resp.Body)
		*target = string(b)
	case io.Writer:
		_, err = io.Copy(target, resp.Body)
	default:
		decoder := json.NewDecoder(resp.Body)
		decoder.UseNumber()
		err = decoder.Decode(out)
	}
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	return nil
}

// Get is Call without a body.
func (a *Client) Get(ctx context.Context, path string, out any) error {
	return a.Call(ctx, http.MethodGet, path, nil, out)
}

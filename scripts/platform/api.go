package main

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

// api is a small client for the HTTP APIs of Consul, Nomad and the gateway: JSON in, JSON out.
type api struct {
	base   string
	header http.Header
	client *http.Client
}

func newAPI(base, headerName, token string) *api {
	a := &api{base: base, header: http.Header{}, client: &http.Client{Timeout: 30 * time.Second}}
	if token != "" {
		a.header.Set(headerName, token)
	}
	return a
}

// statusError is an answer that isn't 2xx.
type statusError struct {
	Method, URL string
	Status      int
	Body        string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s", e.Method, e.URL, e.Status, e.Body)
}

// hasStatus says whether err is an answer with that status.
func hasStatus(err error, status int) bool {
	var se *statusError
	return errors.As(err, &se) && se.Status == status
}

// call sends in as JSON, if it isn't nil, and decodes the answer into out, if that isn't nil. Numbers in an any keep their
// exact value. An answer of another status than 2xx is a *statusError.
func (a *api) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: encode: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	for name, values := range a.header {
		req.Header[name] = values
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return &statusError{Method: method, URL: a.base + path, Status: resp.StatusCode, Body: strings.TrimSpace(string(b))}
	}
	switch target := out.(type) {
	case nil:
		_, err = io.Copy(io.Discard, resp.Body)
	case *string:
		var b []byte
		b, err = io.ReadAll(resp.Body)
		*target = string(b)
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

func (a *api) get(ctx context.Context, path string, out any) error {
	return a.call(ctx, http.MethodGet, path, nil, out)
}

// until calls check every quarter of a second until it says true, fails, or the time is up. What it is waiting for is what
// check said last.
func until(ctx context.Context, p *part, limit time.Duration, check func(context.Context) (ok bool, waitingFor string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, waitingFor, err := check(ctx)
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		}
		p.doing("%s", waitingFor)
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("not ready after %s: %s", limit, waitingFor)
			}
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"flowplatform/scripts/internal/spec"
)

// jwksPath is where Nomad publishes the keys with which it signs workload identities.
const jwksPath = "/.well-known/jwks.json"

// jwks serves the keys on the loopback until the context ends.
func jwks(ctx context.Context, args []string) error {
	flags := quiet("jwks")
	dir := flags.String("tls-dir", "", "")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *dir == "" {
		return fmt.Errorf("%w: --tls-dir names the directory with ca.pem, cert.pem and key.pem", errUsage)
	}
	client, err := readClient(*dir, "localhost")
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(spec.NomadJWKS)))
	if err != nil {
		return err
	}
	p := &publisher{
		client: client, log: slog.New(slog.NewTextHandler(os.Stderr, nil)).With("component", "jwks"),
		source: "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(spec.NomadHTTP)) + jwksPath,
	}
	return p.serve(ctx, listener)
}

// publisher passes Nomad's public keys on. It answers one address, and asks one.
type publisher struct {
	client *http.Client
	source string
	log    *slog.Logger

	mu   sync.Mutex
	last []byte // what Nomad said last: keys outlive a minute in which it doesn't answer
	down bool
}

func (k *publisher) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: k, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(bounded)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (k *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != jwksPath {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	body, err := k.fetch(r.Context())
	k.mu.Lock()
	if err == nil {
		k.last = body
	}
	changed := k.down != (err != nil)
	k.down, body = err != nil, k.last
	k.mu.Unlock()
	if changed {
		k.log.Info("Nomad's server", "answers", err == nil, "error", err)
	}
	if body == nil {
		http.Error(w, "Nomad's server on this host doesn't say its keys yet", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// fetch asks Nomad.
func (k *publisher) fetch(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.source, nil)
	if err != nil {
		return nil, err
	}
	res, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	const most = 1 << 20
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err == nil && len(body) > most {
		err = errors.New("more than 1 MiB of keys")
	}
	return body, err
}

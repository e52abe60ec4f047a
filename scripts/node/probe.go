package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// patience is how long an agent may take to answer: reading a large state on a slow disk.
const patience = 2 * time.Minute

// answers waits until a unit answers at its address, whatever it answers: a leader takes other hosts, which may not be there yet.
func (h host) answers(ctx context.Context, d desired, u unit) error {
	client, err := clientOf(d)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before := h.restarts(ctx, u)
	for {
		last := ask(ctx, client, u.URL)
		if last == nil {
			return nil
		}
		// Started again and again: waiting longer would not help.
		if again := h.restarts(ctx, u) - before; again > 3 {
			return fmt.Errorf("it ends each time that systemd starts it (%d times)", again)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer at %s within %s: %w", u.URL, patience, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
	return err
}

// clientOf shows the host's own certificate and believes the cluster's authority alone.
func clientOf(d desired) (*http.Client, error) {
	pem := map[string][]byte{}
	for _, f := range d.Files {
		pem[f.Path] = f.Content
	}
	return newClient(pem[tlsDir+"/ca.pem"], pem[tlsDir+"/cert.pem"], pem[tlsDir+"/key.pem"], "")
}

func newClient(ca, certificate, key []byte, serverName string) (*http.Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("no certificate in the authority's PEM")
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("read the host's certificate: %w", err)
	}
	return &http.Client{
		Timeout:       5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: serverName, MinVersion: tls.VersionTLS12},
		},
	}, nil
}

// readClient is newClient from a directory that systemd has put credentials into.
func readClient(dir, serverName string) (*http.Client, error) {
	var parts [3][]byte
	for i, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		b, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			return nil, fmt.Errorf("read the host's certificate: %w", err)
		}
		parts[i] = b
	}
	return newClient(parts[0], parts[1], parts[2], serverName)
}

// restarts is how often systemd has started a unit again by itself.
func (h host) restarts(ctx context.Context, u unit) int {
	said, _ := h.run(ctx, "systemctl", "show", "-P", "NRestarts", u.Name+".service")
	n, _ := strconv.Atoi(strings.TrimSpace(said)) // 0 where systemd has no answer
	return n
}

package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

// timeout of a request: longer than ?wait=60s.
const timeout = 90 * time.Second

// TrustFile makes the client believe servers whose certificates the authorities in a PEM file have signed, and no others. "" changes nothing.
func (c *Client) TrustFile(path string) error {
	if path == "" {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--ca-file: %w", err)
	}
	if err := c.Trust(string(pem)); err != nil {
		return fmt.Errorf("--ca-file %s: %w", path, err)
	}
	return nil
}

// Trust is TrustFile with the PEM itself.
func (c *Client) Trust(pem string) error {
	if pem == "" {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return errors.New("there is no certificate in it; it must be PEM, beginning with -----BEGIN CERTIFICATE-----")
	}
	c.CA = pem
	c.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = c.TLS
	c.http = &http.Client{Timeout: timeout, Transport: transport}
	return nil
}

// Plain is an HTTP client that believes the servers that this one believes, and tells nobody who we are.
func (c *Client) Plain(timeout time.Duration) *http.Client {
	h := &http.Client{Timeout: timeout}
	if c.TLS != nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = c.TLS.Clone()
		h.Transport = transport
	}
	return h
}

// unreachable says why a server gave no answer, and what to do.
func unreachable(server string, err error) error {
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%s shows a certificate of an authority that is unknown here: %w (give the authority's certificate with --ca-file or FLOW_CA_FILE; a cluster's is keys/ca.pem in its operator's directory)", server, err)
	case errors.As(err, &record):
		return fmt.Errorf("%s doesn't speak HTTPS: %w (begin the address with http://, or give the front door a certificate)", server, err)
	}
	return fmt.Errorf("%s does not answer: %w (is the platform up? `make up`)", server, err)
}

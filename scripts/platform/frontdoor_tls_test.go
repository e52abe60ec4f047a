package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// selfSigned makes a certificate for the loopback, and its key.
func selfSigned(t *testing.T, serial int64) map[string]item {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "front door"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(loopback)}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]item{
		"certificate": {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))},
		"key":         {string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))},
	}
}

// trusting trusts the certificates of both, and nothing else.
func trusting(variables ...map[string]item) *http.Client {
	pool := x509.NewCertPool()
	for _, v := range variables {
		pool.AppendCertsFromPEM([]byte(v["certificate"].Value))
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// With a certificate in its variable the front door speaks HTTPS and nothing else, and takes a new one without a pause.
func TestFrontDoorSpeaksHTTPSWithACertificate(t *testing.T) {
	t.Parallel()
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("X-Forwarded-Proto")) }))
	defer gateway.Close()
	variable, next := selfSigned(t, 1), selfSigned(t, 2)
	f := startFrontDoorWith(t, []instance{instanceOf(t, gateway.URL)}, nil, variable)
	plain := f.URL
	f.client, f.URL = trusting(variable, next), strings.Replace(f.URL, "http:", "https:", 1)

	header := func(method, path string) http.Header {
		req, _ := http.NewRequest(method, f.URL+path, nil)
		resp, err := f.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header
	}
	if status, _, text := f.do(t, "GET", "/api/v1/flows", ""); status != 200 || text != "https" {
		t.Errorf("%d %q, want the gateway's answer, told that it came by https", status, text)
	}
	for _, path := range []string{"/", "/api/v1/flows", "/nothing"} {
		if got := header("GET", path).Get("Strict-Transport-Security"); got != "max-age=31536000" {
			t.Errorf("%s: Strict-Transport-Security %q", path, got)
		}
	}
	old := f.client.Transport.(*http.Transport).Clone()
	old.TLSClientConfig.MaxVersion = tls.VersionTLS11
	old.TLSClientConfig.MinVersion = tls.VersionTLS10
	if resp, err := (&http.Client{Transport: old}).Get(f.URL); err == nil {
		resp.Body.Close()
		t.Error("it speaks TLS 1.1")
	}

	unencrypted := &frontDoor{URL: plain, client: f.client}
	if status, kind, text := unencrypted.do(t, "POST", "/api/v1/flows", "{}", "Authorization", "Bearer x"); status != 400 || kind != "application/problem+json" || !strings.Contains(text, "HTTPS") {
		t.Errorf("plain HTTP for the API: %d %s %q, want a problem that says https", status, kind, text)
	}
	if status, _, _ := unencrypted.do(t, "GET", "/", ""); status != 301 {
		t.Errorf("plain HTTP for the page: %d, want to be sent on", status)
	}

	// A renewed certificate: rendered again, and a signal, as Nomad does.
	variable["certificate"], variable["key"] = next["certificate"], next["key"]
	f.render(t)
	if err := f.signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(f.URL, "https://"), f.client.Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatalf("while a certificate is renewed: %v", err)
		}
		serial := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
		conn.Close()
		if serial == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not shown")
		}
	}
}

// Without one nothing promises that there will be HTTPS.
func TestFrontDoorPromisesHTTPSOnlyWhereItIs(t *testing.T) {
	t.Parallel()
	for name, variable := range map[string]map[string]item{"no variable": nil, "a variable without a certificate": {"note": {"x"}}} {
		f := startFrontDoorWith(t, nil, nil, variable)
		resp, err := http.Get(f.URL + "/")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Strict-Transport-Security"); resp.StatusCode != 200 || got != "" {
			t.Errorf("%s: %d, Strict-Transport-Security %q", name, resp.StatusCode, got)
		}
	}
}

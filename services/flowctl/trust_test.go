package main

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flowplatform/services/flowctl/internal/client"
	"flowplatform/services/flowctl/internal/load"
)

// A front door whose certificate is from an authority of its own: refused with what to do, believed with its file, and remembered by login.
func TestAuthorityOfTheFrontDoor(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("FLOW_SERVER", "")
	t.Setenv("FLOW_TOKEN", "")
	t.Setenv("FLOW_CA_FILE", "")
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]string{"email": "a@b", "role": "admin"})
	}))
	defer s.Close()
	ca := filepath.Join(home, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}

	if code, _, errs := flowctl(t, "", "login", "--server", s.URL, "--token", "t"); code == 0 || !strings.Contains(errs, "--ca-file") {
		t.Errorf("an unknown authority: %d %s", code, errs)
	}
	if code, _, errs := flowctl(t, "", "login", "--server", s.URL, "--token", "t", "--ca-file", filepath.Join(home, "none")); code == 0 || !strings.Contains(errs, "no such file") {
		t.Errorf("a file that isn't there: %d %s", code, errs)
	}
	nothing := filepath.Join(home, "nothing.pem")
	if err := os.WriteFile(nothing, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := flowctl(t, "", "login", "--server", s.URL, "--token", "t", "--ca-file", nothing); code == 0 || !strings.Contains(errs, "there is no certificate in it") {
		t.Errorf("a file without a certificate: %d %s", code, errs)
	}
	if code, _, errs := flowctl(t, "", "login", "--server", s.URL, "--token", "t", "--ca-file", ca); code != 0 {
		t.Fatalf("with its file: %d %s", code, errs)
	}
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := flowctl(t, "", "whoami"); code != 0 || !strings.Contains(out, "a@b") {
		t.Errorf("after login, without the file: %d %s %s", code, out, errs)
	}
	if code, _, errs := flowctl(t, "", "whoami", "--server", strings.Replace(s.URL, "127.0.0.1", "localhost", 1), "--token", "t"); code == 0 {
		t.Errorf("another server is believed too: %s", errs)
	}

	saved, err := client.New("", "")
	if err != nil {
		t.Fatal(err)
	}
	if res, err := saved.Plain(time.Minute).Get(s.URL); err != nil {
		t.Errorf("a plain client of the saved login: %v", err)
	} else {
		res.Body.Close()
	}
	result, err := load.Run(context.Background(), "tls", load.Options{Server: saved.Server, TLS: saved.TLS, Token: "t", Path: "/flows/x/executions", Body: "{}", Connections: 2, Count: 20, Duration: time.Minute})
	if err != nil || result.Accepted != 20 || result.Errors != 0 {
		t.Errorf("load over HTTPS: %+v, %v", result, err)
	}
	if result, err = load.Run(context.Background(), "tls", load.Options{Server: saved.Server, Token: "t", Path: "/x", Body: "{}", Connections: 1, Count: 1, Duration: time.Minute}); err != nil || result.Errors != 1 {
		t.Errorf("load to a server that nobody vouches for: %+v, %v", result, err)
	}
}

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flowplatform/scripts/internal/spec"
)

var update = flag.Bool("update", false, "write the golden files")

// TestRenderedFiles shows all that differs from host to host, as flownode writes it: what comes from configs/ as it is isn't repeated.
func TestRenderedFiles(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]spec.Node{"everything": serverNode(t, "10.9.0.1"), "worker": workerNode(t)} {
		var b strings.Builder
		d := desireOf(t, n)
		for _, dir := range d.Directories {
			fmt.Fprintf(&b, "%o %s %s\n", dir.Mode, dir.Path, dir.User)
		}
		for _, f := range d.Files {
			fmt.Fprintf(&b, "---- %o %s\n", f.Mode, f.Path)
			if !strings.HasPrefix(f.Path, tlsDir) && !strings.HasPrefix(f.Path, unitsDir) && !strings.Contains(f.Path, "/010-") {
				fmt.Fprintf(&b, "%s\n", f.Content)
			}
		}
		for _, u := range d.Units {
			fmt.Fprintf(&b, "---- unit %s %s %s\n     %s\n", u.Name, u.Program, u.URL, strings.Join(u.Inputs, "\n     "))
		}
		golden := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != string(want) {
			gots, wants := strings.Split(got, "\n"), strings.Split(string(want), "\n")
			for i := range gots {
				if i >= len(wants) || gots[i] != wants[i] {
					t.Errorf("%s, line %d: %q; if that is right: go test ./scripts/node -run Rendered -update", golden, i+1, gots[i])
					break
				}
			}
			if len(gots) < len(wants) {
				t.Errorf("%s has %d lines, rendered are %d", golden, len(wants), len(gots))
			}
		}
	}
}

// TestSecretsAreInRootsFilesAlone looks for every secret in every file.
func TestSecretsAreInRootsFilesAlone(t *testing.T) {
	t.Parallel()
	n := serverNode(t, "10.9.0.1")
	d := desireOf(t, n)
	secrets := []string{n.Secrets.Key, n.Secrets.ConsulGossip, n.Secrets.NomadGossip, n.Secrets.ConsulAgent, n.Secrets.ConsulNomad}
	found := map[string]bool{}
	for _, f := range d.Files {
		for _, secret := range secrets {
			if !strings.Contains(string(f.Content), secret) {
				continue
			}
			found[secret] = true
			if f.Mode != 0o600 || !strings.HasPrefix(f.Path, tlsDir) && !strings.HasPrefix(f.Path, secretsDir) {
				t.Errorf("%s, mode %o, holds a secret", f.Path, f.Mode)
			}
		}
	}
	if len(found) != len(secrets) {
		t.Errorf("%d of %d secrets were found in files: what this test looks for isn't there", len(found), len(secrets))
	}
	for _, dir := range d.Directories {
		if (dir.Path == tlsDir || dir.Path == secretsDir) && dir.Mode != 0o700 {
			t.Errorf("%s has mode %o", dir.Path, dir.Mode)
		}
	}
	for _, u := range d.Units {
		for _, secret := range secrets {
			if strings.Contains(d.content(t, unitFile(u.Name)), secret) {
				t.Errorf("the unit %s holds a secret: everybody may read it", u.Name)
			}
		}
	}
}

// TestCredentialsOfUnitsAreFilesThatWeWrite: a unit that names a file which nobody writes would never start.
func TestCredentialsOfUnitsAreFilesThatWeWrite(t *testing.T) {
	t.Parallel()
	d := desireOf(t, serverNode(t, "10.9.0.1"))
	count := 0
	for _, u := range d.Units {
		names := map[string]bool{}
		for line := range strings.Lines(d.content(t, unitFile(u.Name))) {
			credential, found := strings.CutPrefix(strings.TrimSpace(line), "LoadCredential=")
			if !found {
				continue
			}
			count++
			name, path, _ := strings.Cut(credential, ":")
			names[name] = true
			d.content(t, path)
			if !slices.Contains(u.Inputs, path) && !strings.Contains(path, "gossip") {
				t.Errorf("%s isn't restarted when %s changes", u.Name, path)
			}
		}
		for _, path := range append(u.Inputs, unitFile(u.Name)) {
			for _, word := range strings.FieldsFunc(d.content(t, path), func(r rune) bool { return strings.ContainsRune(" \n\"=", r) }) {
				if name, found := strings.CutPrefix(word, credentials+u.Name+".service/"); found && !names[name] {
					t.Errorf("%s reads %s, which its unit doesn't load", path, name)
				}
			}
		}
	}
	if count == 0 {
		t.Error("no unit loads a credential")
	}
}

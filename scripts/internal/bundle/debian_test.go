package bundle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPlainNames(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"/x/adduser_3.134_all.deb":                      "adduser_3.134_all.deb",
		"/x/zlib1g_1%3a1.2.13.dfsg-1_amd64.deb":         "zlib1g_1.2.13.dfsg-1_amd64.deb",
		"libjs-d3_3.5.17-4_all.deb":                     "libjs-d3_3.5.17-4_all.deb",
		"redis-server_5%3a7.0.15-1~deb12u10_amd64.deb":  "redis-server_7.0.15-1~deb12u10_amd64.deb",
		"erlang-base_1%3a25.2.3+dfsg-1+deb12u4_all.deb": "erlang-base_25.2.3+dfsg-1+deb12u4_all.deb",
	} {
		if got := plainName(file); got != want {
			t.Errorf("%s: %s, wanted %s", file, got, want)
		}
	}
}

func TestReleaseOfTheMachine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "os-release")
	for content, want := range map[string]string{
		"ID=debian\nVERSION_ID=\"12\"\n": "12",
		"ID=debian\n":                    "is made on the Debian release",
		"PRETTY_NAME=\"Ubuntu 24.04\"\nID=ubuntu\nVERSION_ID=24.04\n": "this machine runs Ubuntu 24.04",
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := release(file); got != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
}

// TestWhatAptNamesMustBeThere takes apt's list of addresses, and refuses one that names what was not fetched, not whole, or elsewhere.
func TestWhatAptNamesMustBeThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, size := range map[string]int{"b_1_all.deb": 7, "a_1%3a2_amd64.deb": 5} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const whole = "'http://deb.example/b_1_all.deb' b_1_all.deb 7 SHA256:00\n'http://deb.example/a' a_1%3a2_amd64.deb 5 SHA256:00\n"
	got, err := fetchedFiles(dir, []byte(whole))
	if want := []string{filepath.Join(dir, "a_1%3a2_amd64.deb"), filepath.Join(dir, "b_1_all.deb")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for uris, want := range map[string]string{
		"":                                      "names no package",
		"'http://x' c_1_all.deb 7 SHA256:00\n":  "did not fetch c_1_all.deb",
		"'http://x' b_1_all.deb 8 SHA256:00\n":  "has 7 bytes, its repository says 8",
		"'http://x' ../b_1_all.deb 7 SHA:00\n":  "names no package",
		"E: Unable to locate package nothing\n": "names no package",
	} {
		if _, err := fetchedFiles(dir, []byte(uris)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: wanted %q, got %v", uris, want, err)
		}
	}
}

// TestTheRepositoryNamesItsPackages makes a package, and the list that apt reads of it.
func TestTheRepositoryNamesItsPackages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	control := filepath.Join(t.TempDir(), "a")
	if err := os.MkdirAll(filepath.Join(control, "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	about := "Package: flow-test\nVersion: 1:2-3\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n of the list\n"
	if err := os.WriteFile(filepath.Join(control, "DEBIAN/control"), []byte(about), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := output(t.Context(), "dpkg-deb", "--root-owner-group", "--build", control, filepath.Join(dir, "flow-test_2-3_all.deb")); err != nil {
		t.Fatal(err)
	}
	if err := index(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	// apt itself reads it, and finds the file.
	state := t.TempDir()
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(state, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"sources.list": "deb [trusted=yes] file:" + dir + " ./\n", "status": ""} {
		if err := os.WriteFile(filepath.Join(state, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	apt := func(args ...string) string {
		out, err := output(t.Context(), "apt-get", append([]string{"-qq", "-o", "Dir::State::status=" + state + "/status", "-o", "Dir::State::lists=" + state + "/lists", "-o", "Dir::Cache=" + state,
			"-o", "Dir::Etc::sourcelist=" + state + "/sources.list", "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=true", "-o", "Acquire::Languages=none"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	apt("update")
	if out := apt("--print-uris", "install", "flow-test"); !strings.Contains(out, "flow-test_2-3_all.deb") {
		t.Errorf("apt finds in it: %q", out)
	}
}

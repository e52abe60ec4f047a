package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestASecretIsFoundWhereverItIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a/b/state"), []byte("first line\n{\"token\": \"s3cret-s3cret\"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	hits, size, err := searchFiles([]string{"not-in-there", "s3cret-s3cret"}, dir)
	if err != nil || len(hits) != 1 || size != 37 || !strings.Contains(hits[0], "secret 2 of 2") || strings.Contains(hits[0], "s3cret") {
		t.Errorf("hits %q, %d bytes, %v", hits, size, err)
	}
}

func TestWhatOfAFileOfKeysIsSecret(t *testing.T) {
	t.Parallel()
	got, err := values([]byte(`{"server": "https://x", "password": "p", "list": ["a", {"token": "b", "email": "c"}]}`))
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{"a", "b", "p"}) {
		t.Errorf("%q, %v", got, err)
	}
	lines := keyLines([]byte("-----BEGIN EC PRIVATE KEY-----\nfirst\nsecond\nthird\n-----END EC PRIVATE KEY-----\n"))
	if !slices.Equal(lines, []string{"second", "third"}) {
		t.Errorf("%q", lines)
	}
}

func TestWhoListens(t *testing.T) {
	t.Parallel()
	table := "  sl  local_address rem_address   st\n   0: 00000000:1F90 00000000:0000 0A 0\n   1: 0100007F:0050 0100007F:9999 01 0\n   0: 00000000000000000000000000000000:0016 0:0000 0A\n"
	if got := listening(table); !slices.Equal(got, []int{8080, 22}) {
		t.Errorf("%v", got)
	}
}

func TestAScanTellsOpenFromRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	f := try([]string{"127.0.0.1"}, []int{port, 1})
	if !slices.Contains(f.Open, l.Addr().String()) || !slices.Contains(f.Refused, "127.0.0.1:1") {
		t.Errorf("%+v", f)
	}
}

func TestTheWatcherSeesCommandLines(t *testing.T) {
	t.Parallel()
	w := watch()
	defer w.stop()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(string(w.seen()), filepath.Base(os.Args[0])); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the watcher doesn't see this test")
		}
	}
}

func TestWhoIsAliveInConsul(t *testing.T) {
	t.Parallel()
	said := "Node  Address         Status  Type\ns1    10.0.0.1:8301   alive   server\ns10   10.0.0.2:8301   failed  client\n"
	if !isAlive(said, "s1") || isAlive(said, "s10") || isAlive(said, "s") {
		t.Error("consul members is read wrongly")
	}
}

func TestServersWereStartedOneAtATime(t *testing.T) {
	t.Parallel()
	at := func(consul, nomad int) []time.Duration {
		return []time.Duration{time.Duration(consul) * time.Second, time.Duration(nomad) * time.Second}
	}
	before := map[string][]time.Duration{"a": at(1, 2), "b": at(3, 4), "c": at(5, 6)}
	for name, tc := range map[string]struct {
		after map[string][]time.Duration
		want  string
	}{
		"in turn":           {map[string][]time.Duration{"a": at(100, 101), "b": at(140, 142), "c": at(120, 121)}, ""},
		"one wasn't":        {map[string][]time.Duration{"a": at(100, 101), "b": at(140, 4), "c": at(120, 121)}, "agents of b weren't started anew"},
		"two side by side":  {map[string][]time.Duration{"a": at(100, 104), "b": at(140, 142), "c": at(102, 103)}, "agents of c were started"},
		"too soon after it": {map[string][]time.Duration{"a": at(100, 101), "b": at(124, 126), "c": at(120, 121)}, "agents of b were started 3s after those of c"},
	} {
		err := oneAtATime(before, tc.after)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

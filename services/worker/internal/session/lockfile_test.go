package session

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/protocol"
)

// TestMain lets the test binary be the other process of TestNO4.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SESSION_TEST_HOLD"); dir != "" {
		os.Exit(hold(dir, os.Getenv("SESSION_TEST_ID")))
	}
	os.Exit(m.Run())
}

// hold takes the lock, writes an id and sits until it is killed.
func hold(dir, id string) int {
	l, err := Lock(context.Background(), dir, silent(), nil)
	if err != nil {
		return 1
	}
	parsed, err := protocol.ParseID(id)
	if err != nil || l.Add(parsed) != nil {
		return 1
	}
	_, _ = os.Stdout.WriteString("held\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
	return 0
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

func id(n byte) protocol.ID { return protocol.ID{0: 1, 15: n} }

func TestNO4_SuccessorWaitsForTheLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	old := exec.Command(self)
	old.Env = append(os.Environ(), "SESSION_TEST_HOLD="+dir, "SESSION_TEST_ID="+id(7).String())
	stdin, err := old.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := old.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}

	waits := make(chan string, 1)
	type result struct {
		l   *LockFile
		err error
		at  time.Time
	}
	got := make(chan result, 1)
	go func() {
		l, err := Lock(context.Background(), dir, silent(), func(holder string) {
			select {
			case waits <- holder:
			default:
			}
		})
		got <- result{l, err, time.Now()}
	}()
	if holder := <-waits; holder != "process "+strconv.Itoa(old.Process.Pid) {
		t.Errorf("waits for %q, want process %d", holder, old.Process.Pid)
	}
	select {
	case r := <-got:
		t.Fatalf("the lock was got while the other process lives: %v", r.err)
	default:
	}
	killed := time.Now()
	if err := old.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r := <-got
	_ = old.Wait()
	if r.err != nil {
		t.Fatal(r.err)
	}
	if want := []protocol.ID{id(7)}; !slices.Equal(r.l.Previous(), want) {
		t.Errorf("previous sessions are %v, want %v", r.l.Previous(), want)
	}
	if d := r.at.Sub(killed); d > time.Second {
		t.Errorf("the successor had the lock %v after the death: want tenths of a second", d)
	}
}

func TestLockGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := Lock(context.Background(), dir, silent(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithCancel(context.Background())
	_, err = Lock(ctx, dir, silent(), func(string) { cancel() })
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("error %v: want one that names the holder", err)
	}
}

func TestLockFileKeepsIDs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() *LockFile {
		l, err := Lock(context.Background(), dir, silent(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	check := func(l *LockFile, want ...protocol.ID) {
		t.Helper()
		if !slices.Equal(l.Previous(), want) {
			t.Errorf("previous are %v, want %v", l.Previous(), want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l := open()
	check(l)
	must(l.Add(id(1)))
	must(l.Close())

	l = open()
	check(l, id(1))
	must(l.Add(id(2))) // asked for, and killed before the answer
	must(l.Close())

	l = open()
	check(l, id(1), id(2))
	must(l.Add(id(3)))
	must(l.Only(id(3)))
	check(l)
	must(l.Close())

	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	_, err = file.WriteString(id(4).String()[:20]) // a crash in the middle of a line
	must(err)
	must(file.Close())
	l = open()
	check(l, id(3))
	must(l.Add(id(5)))
	must(l.Close())
	l = open()
	check(l, id(3), id(5))
	must(l.Only(protocol.ID{}))
	must(l.Close())
	check(open())
}

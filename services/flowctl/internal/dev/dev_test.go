package dev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The platform as a whole is tested in services/e2e (TestDevKilled, TestQuickLook, TestFlowTests).

func TestLockDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	first, err := lockDirectory(t.Context(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	holder := os.Getppid() // a process that lives and isn't this one
	if err := os.WriteFile(filepath.Join(dir, "lock"), fmt.Append(nil, holder), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lockDirectory(t.Context(), dir, false); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another flowctl dev (process %d)", holder)) {
		t.Errorf("%v", err)
	}
	// Its process is dead, but something that it started holds the lock: that is waited for.
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lock"), fmt.Append(nil, dead.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		f, err := lockDirectory(t.Context(), dir, false)
		if err == nil {
			err = f.Close()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("it didn't wait: %v", err)
	default:
	}
	first.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if again, err := lockDirectory(t.Context(), dir, true); err != nil {
		t.Error(err)
	} else {
		again.Close()
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("for another user's PostgreSQL: %v %v", info, err)
	}
}

// TestClean: a killed server's postmaster.pid goes, whatever process has its number now, unless that is a PostgreSQL on these very files.
func TestClean(t *testing.T) {
	t.Parallel()
	data, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &postgres{data: data}
	if err := p.clean(); err != nil {
		t.Errorf("without a file: %v", err)
	}
	file := filepath.Join(p.data, "postmaster.pid")
	for _, text := range []string{fmt.Sprintf("%d\n/elsewhere\n", os.Getpid()), "4194999\n", "", "nonsense"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.clean(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: it is still there", text)
		}
	}
	cmd := exec.Command("cat") // it waits for its input, in the directory
	cmd.Dir = p.data
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d\n", cmd.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.clean(); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("a server that lives: %v", err)
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root's PostgreSQL runs as another user")
	}
	closed, err := os.MkdirTemp("", "flow-test-closed-") // 0700, root's
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(closed)
	if err := reachable(filepath.Join(closed, "not", "yet", "there")); err == nil || !strings.Contains(err.Error(), "may not enter "+closed) {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(closed, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := reachable(filepath.Join(closed, "not", "yet", "there")); err != nil {
		t.Error(err)
	}
}

func TestSocketDir(t *testing.T) {
	t.Parallel()
	short, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	long := filepath.Join(short, strings.Repeat("x", 90))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for dir, inside := range map[string]bool{short: true, long: false} {
		p := &postgres{data: filepath.Join(dir, "postgres")}
		got, err := p.socketDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(got)
		info, err := os.Stat(got)
		if (filepath.Dir(got) == dir) != inside || err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", got, info, err)
		}
		lis, err := net.Listen("unix", filepath.Join(got, ".s.PGSQL.5432"))
		if err != nil {
			t.Errorf("no socket fits there: %v", err)
			continue
		}
		lis.Close()
	}
}

func TestPortFree(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	port := lis.Addr().(*net.TCPAddr).Port
	if err := portFree(port); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(port)) || !strings.Contains(err.Error(), "--port") {
		t.Errorf("%v", err)
	}
	if err := portFree(0); err != nil {
		t.Error(err)
	}
	if _, err := Start(context.Background(), Options{Dir: filepath.Join(t.TempDir(), "d"), Port: port}); err == nil {
		t.Error("started on a port that is taken")
	}
}

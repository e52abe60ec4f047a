package testkit

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// PostgresServer is a PostgreSQL of tests.
type PostgresServer struct {
	Port  int
	dir   string
	bin   string
	durab bool
	mu    sync.Mutex
	proc  *Process
	next  atomic.Int64

	migrating sync.Mutex
	template  bool
}

var sharedPostgres struct {
	once sync.Once
	s    *PostgresServer
	err  error
}

// Postgres gives the shared server, without fsync: for tests that don't break it.
func Postgres(t testing.TB) *PostgresServer {
	t.Helper()
	sharedPostgres.once.Do(func() { sharedPostgres.s, sharedPostgres.err = newPostgres(false) })
	if sharedPostgres.err != nil {
		t.Fatal(sharedPostgres.err)
	}
	return sharedPostgres.s
}

// NewPostgres starts a server for one test, with fsync when durable: it may be killed.
func NewPostgres(t testing.TB, durable bool) *PostgresServer {
	t.Helper()
	s, err := newPostgres(durable)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		os.RemoveAll(s.dir)
	})
	return s
}

func newPostgres(durable bool) (*PostgresServer, error) {
	initdb, err := find("PostgreSQL", "/usr/lib/postgresql/*/bin/initdb", "initdb")
	if err != nil {
		return nil, err
	}
	s := &PostgresServer{bin: filepath.Dir(initdb), durab: durable}
	if s.dir, err = directory("flow-test-postgres-", "postgres"); err != nil {
		return nil, err
	}
	cmd := exec.Command(initdb, "-D", filepath.Join(s.dir, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	cmd.Dir = s.dir
	if err := asUser(cmd, "postgres"); err != nil {
		return nil, err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	s.Port = ports[0]
	return s, s.start()
}

func (s *PostgresServer) start() error {
	onOff := map[bool]string{true: "on", false: "off"}[s.durab]
	args := []string{"-D", filepath.Join(s.dir, "data"), "-p", fmt.Sprint(s.Port), "-k", s.dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=" + onOff, "-c", "full_page_writes=" + onOff,
		"-c", "max_connections=200", "-c", "shared_buffers=256MB", "-c", "max_prepared_transactions=10", "-c", "timezone=UTC", "-c", "log_min_messages=warning"}
	p, err := StartProcess(ProcessOptions{Name: "postgres", Path: filepath.Join(s.bin, "postgres"), Args: args, Env: []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, User: "postgres", Dir: s.dir})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()
	return await(30*time.Second, p, func() error {
		return exec.Command(filepath.Join(s.bin, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", fmt.Sprint(s.Port), "-U", "postgres").Run()
	})
}

func (s *PostgresServer) process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Kill ends every process of the server with SIGKILL, as a power cut would.
func (s *PostgresServer) Kill() {
	p := s.process()
	kids, _ := exec.Command("pgrep", "-P", fmt.Sprint(p.PID())).Output()
	p.Signal(syscall.SIGKILL)
	<-p.Done()
	for _, pid := range strings.Fields(string(kids)) { // backends have process groups of their own
		var n int
		if _, err := fmt.Sscan(pid, &n); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
}

// Stop is a fast shutdown: connections are ended, everything is written.
func (s *PostgresServer) Stop() {
	p := s.process()
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	<-p.Done()
}

// Start starts the server again, with the same data and port.
func (s *PostgresServer) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// Freeze stops the postmaster and all backends; Thaw lets them go on.
func (s *PostgresServer) Freeze() { s.each(syscall.SIGSTOP) }

// Thaw is the end of Freeze.
func (s *PostgresServer) Thaw() { s.each(syscall.SIGCONT) }

func (s *PostgresServer) each(sig syscall.Signal) {
	p := s.process()
	kids, _ := exec.Command("pgrep", "-P", fmt.Sprint(p.PID())).Output()
	_ = syscall.Kill(p.PID(), sig)
	for _, pid := range strings.Fields(string(kids)) {
		var n int
		if _, err := fmt.Sscan(pid, &n); err == nil {
			_ = syscall.Kill(n, sig)
		}
	}
}

// URL of a database for a user; password is "test" wherever one is needed, and none is checked.
func (s *PostgresServer) URL(user, database string) string {
	return (&url.URL{Scheme: "postgres", User: url.UserPassword(user, "test"), Host: fmt.Sprintf("127.0.0.1:%d", s.Port), Path: "/" + database, RawQuery: "sslmode=disable"}).String()
}

// Exec runs SQL as superuser in a database and gives what psql prints, unaligned.
func (s *PostgresServer) Exec(database, sql string) (string, error) {
	cmd := exec.Command(filepath.Join(s.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", fmt.Sprint(s.Port), "-U", "postgres", "-d", database, "-c", sql)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Hold runs SQL as superuser in a transaction that stays open, with its locks, until release is called or the test ends.
func (s *PostgresServer) Hold(t testing.TB, database, sql string) (release func()) {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", fmt.Sprint(s.Port), "-U", "postgres", "-d", database)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := startWithParent(cmd); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		in.Close() // psql leaves at the end of its input, and its transaction is rolled back
		_ = cmd.Wait()
	})
	t.Cleanup(release)
	if _, err := fmt.Fprintf(in, "BEGIN;\n%s;\nSELECT 'held';\n", strings.TrimSuffix(sql, ";")); err != nil {
		t.Fatal(err)
	}
	for line := bufio.NewScanner(out); line.Scan(); {
		if line.Text() == "held" {
			return release
		}
	}
	t.Fatalf("psql ended before it held %q", sql)
	return nil
}

// Dump gives all rows of a database as SQL; bytes in hexadecimal.
func (s *PostgresServer) Dump(database string) (string, error) {
	cmd := exec.Command(filepath.Join(s.bin, "pg_dump"), "--data-only", "--inserts", "-h", "127.0.0.1", "-p", fmt.Sprint(s.Port), "-U", "postgres", database)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pg_dump: %w: %s", err, out)
	}
	return string(out), nil
}

// Database makes a migrated database for one test. migrate is called once a server, on a template; it gets a superuser's URL.
func (s *PostgresServer) Database(t testing.TB, migrate func(ctx context.Context, url string) error) string {
	t.Helper()
	s.migrating.Lock()
	defer s.migrating.Unlock()
	exec := func(sql string) {
		t.Helper()
		if _, err := s.Exec("postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	if !s.template {
		exec("CREATE DATABASE template_flow")
		if err := migrate(t.Context(), s.URL("postgres", "template_flow")); err != nil {
			t.Fatalf("migrate: %v", err)
		}
		s.template = true
	}
	name := fmt.Sprintf("test_%d", s.next.Add(1))
	exec("CREATE DATABASE " + name + " TEMPLATE template_flow")
	return name
}

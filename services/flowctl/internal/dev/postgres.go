package dev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNoPostgres says that the machine has no PostgreSQL that could be started.
var ErrNoPostgres = errors.New("no PostgreSQL is installed here: flowctl dev needs its programs (initdb, postgres; tested with 15), and starts a server of its own.\n" +
	"  Debian, Ubuntu: apt install postgresql   Fedora: dnf install postgresql-server   elsewhere: put its bin directory into PATH")

// How long PostgreSQL may take to be there (after a kill it repeats its log first), and to end in order.
const (
	startPatience = 2 * time.Minute
	stopPatience  = 15 * time.Second
)

// bootstrapSQL is read in single-user mode, where nobody else can be connected: a statement ends with a semicolon and an empty line. flow_owner makes the other
// roles in its migrations. No role has a password: the server listens on a socket only, in a directory that only its owner may enter.
const bootstrapSQL = `CREATE ROLE flow_owner LOGIN CREATEROLE;

CREATE DATABASE flow OWNER flow_owner TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';

`

// postgres is a server that is a child of this process.
type postgres struct {
	bin    string
	data   string
	socket string // directory of its socket
	as     *syscall.Credential
	cmd    *exec.Cmd
	ended  chan struct{}
	err    error // after ended
	log    string
}

// findPostgres gives the directory of PostgreSQL's programs: the newest of Debian's, pg_config's, or that of PATH.
func findPostgres() (string, error) {
	has := func(bin string) bool {
		for _, program := range []string{"initdb", "postgres"} {
			if info, err := os.Stat(filepath.Join(bin, program)); err != nil || info.IsDir() {
				return false
			}
		}
		return true
	}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(installed, func(a, b string) int { return major(b) - major(a) })
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		installed = append(installed, strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			installed = append(installed, filepath.Dir(path))
		}
	}
	for _, bin := range installed {
		if has(bin) {
			return bin, nil
		}
	}
	return "", ErrNoPostgres
}

// major is the version in a path like /usr/lib/postgresql/15/bin.
func major(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

// otherUser is who PostgreSQL runs as when we are root, since it refuses to; nil: as we do.
func otherUser() (*syscall.Credential, string, error) {
	if os.Geteuid() != 0 {
		return nil, "", nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, "", err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, name, nil
	}
	return nil, "", errors.New("PostgreSQL doesn't run as root, and there is no user postgres or nobody to run it as: start flowctl dev as another user")
}

// reachable says which directory on the way to dir the user that PostgreSQL runs as may not enter. What isn't there yet will be made so that it may.
func reachable(dir string) error {
	as, name, err := otherUser()
	if err != nil || as == nil {
		return err
	}
	for d := filepath.Dir(dir); ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		st, _ := info.Sys().(*syscall.Stat_t)
		may := info.Mode().Perm()&0o001 != 0 || st != nil && (st.Uid == as.Uid && info.Mode().Perm()&0o100 != 0 || st.Gid == as.Gid && info.Mode().Perm()&0o010 != 0)
		if !may {
			return fmt.Errorf("PostgreSQL doesn't run as root, so it runs as %s here, who may not enter %s: give --dir a place like /var/lib/flow-dev, or start flowctl dev as another user", name, d)
		}
		if d == "/" {
			return nil
		}
	}
}

// maxSocketDir is how long the path of a socket's directory may be: the kernel takes 107 bytes for the socket.
const maxSocketDir = 85

// startPostgres starts the server on dir/postgres, and makes what isn't there yet. lock goes to the server. made: the cluster is new.
func startPostgres(ctx context.Context, dir string, lock *os.File) (p *postgres, made bool, err error) {
	p = &postgres{data: filepath.Join(dir, "postgres"), ended: make(chan struct{}), log: filepath.Join(dir, "postgres.log")}
	if p.bin, err = findPostgres(); err != nil {
		return nil, false, err
	}
	if p.as, _, err = otherUser(); err != nil {
		return nil, false, err
	}
	if made, err = p.prepare(ctx, dir); err != nil {
		return nil, false, err
	}
	if err := p.fits(); err != nil {
		return nil, false, err
	}
	if err := p.clean(); err != nil {
		return nil, false, err
	}
	if p.socket, err = p.socketDir(dir); err != nil {
		return nil, false, err
	}
	if err := p.start(ctx, lock); err != nil {
		return nil, false, err
	}
	return p, made, nil
}

// prepare makes the cluster when there is none. It is made beside its place and then moved: what was broken off is begun anew.
func (p *postgres) prepare(ctx context.Context, dir string) (made bool, err error) {
	if _, err := os.Stat(filepath.Join(p.data, "PG_VERSION")); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	fresh := filepath.Join(dir, "postgres.new")
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o700)); err != nil {
		return false, err
	}
	if p.as != nil {
		if err := os.Chown(fresh, int(p.as.Uid), int(p.as.Gid)); err != nil {
			return false, err
		}
	}
	// Without syncs, which take seconds: a power cut in the first half minute of a directory may leave it of no use, with what it got in that time.
	init := p.command(ctx, "initdb", "-D", fresh, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	if out, err := init.CombinedOutput(); ctx.Err() != nil {
		return false, ctx.Err()
	} else if err != nil {
		return false, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	single := p.command(ctx, "postgres", "--single", "-j", "-D", fresh, "-c", "exit_on_error=on", "-c", "fsync=off", "postgres")
	single.Stdin = strings.NewReader(bootstrapSQL)
	if out, err := single.CombinedOutput(); ctx.Err() != nil {
		return false, ctx.Err()
	} else if err != nil {
		return false, fmt.Errorf("make the database: %w\n%s", err, out)
	}
	return true, os.Rename(fresh, p.data)
}

// fits refuses a cluster of another major version than the programs.
func (p *postgres) fits() error {
	b, err := os.ReadFile(filepath.Join(p.data, "PG_VERSION"))
	if err != nil {
		return err
	}
	want := strings.TrimSpace(string(b))
	out, err := exec.Command(filepath.Join(p.bin, "postgres"), "--version").Output() // postgres (PostgreSQL) 15.14 (Debian …)
	if err != nil {
		return fmt.Errorf("postgres --version: %w", err)
	}
	if words := strings.Fields(string(out)); len(words) >= 3 && !strings.HasPrefix(words[2]+".", want+".") {
		return fmt.Errorf("the data in %s is PostgreSQL %s's, and %s is %s: install %s again, or begin anew in another --dir", p.data, want, p.bin, words[2], want)
	}
	return nil
}

// clean removes what a killed server left behind. We hold the lock that each of our servers holds, so none of them lives; one that somebody started by hand on
// these files is looked for.
func (p *postgres) clean() error {
	file := filepath.Join(p.data, "postmaster.pid")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	if pid, err := strconv.Atoi(strings.TrimSpace(first)); err == nil && pid > 1 {
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd == p.data {
			return fmt.Errorf("a PostgreSQL (process %d) that flowctl didn't start runs on %s: stop it first", pid, p.data)
		}
	}
	return os.Remove(file)
}

// socketDir is where the socket goes: into the directory, or, where its path is too long for that, into one that goes with this process.
func (p *postgres) socketDir(dir string) (string, error) {
	socket := filepath.Join(dir, "socket")
	if len(socket) > maxSocketDir {
		var err error
		if socket, err = os.MkdirTemp("", "flow-dev-"); err != nil {
			return "", err
		}
	} else if err := errors.Join(os.RemoveAll(socket), os.Mkdir(socket, 0o700)); err != nil {
		return "", err
	}
	if p.as != nil {
		return socket, os.Chown(socket, int(p.as.Uid), int(p.as.Gid))
	}
	return socket, nil
}

func (p *postgres) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...)
	cmd.Dir = filepath.Dir(p.data)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	// A group of its own: Ctrl-C is for us, and PostgreSQL goes last.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.as}
	return cmd
}

const readyLine = "database system is ready to accept connections"

// start starts the server, and returns when it takes connections.
func (p *postgres) start(ctx context.Context, lock *os.File) error {
	logFile, err := openLog(p.log)
	if err != nil {
		return err
	}
	p.cmd = p.command(context.Background(), "postgres", "-D", p.data, "-k", p.socket, "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "max_connections=60",
		"-c", "shared_buffers=64MB", "-c", "jit=off", "-c", "timezone=UTC", "-c", "log_timezone=UTC", "-c", "lc_messages=C", "-c", "logging_collector=off", "-c", "log_destination=stderr",
		"-c", "autovacuum_naptime=15s")
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGINT // the fast shutdown, if we are killed
	p.cmd.ExtraFiles = []*os.File{lock}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	begun, ready := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // Pdeathsig is about the thread that started the child: it must live as long. The goroutine ends with it.
		err := p.cmd.Start()
		begun <- err
		if err != nil {
			return
		}
		copyLog(logFile, stderr, ready)
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	if err := <-begun; err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case <-ready:
		return nil
	case <-p.ended:
		return fmt.Errorf("PostgreSQL ended at its start (%w); the end of %s:\n%s", p.err, p.log, tail(p.log, 8))
	case <-patience.C:
		err = fmt.Errorf("PostgreSQL isn't ready after %s: see %s", startPatience, p.log)
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, p.stop())
}

// copyLog copies line by line until the server has ended, and closes ready when it says that it is.
func copyLog(to *os.File, from io.Reader, ready chan<- struct{}) {
	defer to.Close()
	for r := bufio.NewReader(from); ; {
		line, err := r.ReadString('\n')
		_, _ = to.WriteString(line)
		if ready != nil && strings.Contains(line, readyLine) {
			close(ready)
			ready = nil
		}
		if err != nil {
			return
		}
	}
}

// stop ends the server in order, and if it takes too long at once: then it repeats its log at the next start.
func (p *postgres) stop() error {
	defer func() {
		if filepath.Dir(p.socket) != filepath.Dir(p.data) {
			_ = os.RemoveAll(p.socket)
		}
	}()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		_ = p.cmd.Process.Signal(sig)
		select {
		case <-p.ended:
			return nil
		case <-time.After(stopPatience):
		}
	}
	return fmt.Errorf("PostgreSQL (process %d) doesn't end", p.cmd.Process.Pid)
}

// url of the platform's database for a role.
func (p *postgres) url(role string) string {
	q := url.Values{"host": {p.socket}, "port": {"5432"}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", User: url.User(role), Path: "/flow", RawQuery: q.Encode()}).String()
}

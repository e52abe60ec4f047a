package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"flowplatform/services/internal/protocol"

	"golang.org/x/sys/unix"
)

// Names of the files in the state directory.
const (
	lockName   = "session"        // the ids of sessions, one a line; the lock is on this file
	holderName = "session.holder" // pid of the process that holds the lock, for those who wait
)

// idLine is the length of a line: every line is as long as any other, so that a line written over another is never half of each.
const idLine = 37

// LockFile is the file by which a worker's successor knows that the worker is dead, and which sessions it had. The kernel gives the
// flock up when the last process that holds the descriptor ends, whatever it died of.
type LockFile struct {
	file     *os.File
	dir      string
	previous []protocol.ID
}

// Lock waits until no other process holds the lock of dir, and takes it. While it waits it says for whom, to log and to waiting (which may be nil).
func Lock(ctx context.Context, dir string, log *slog.Logger, waiting func(holder string)) (*LockFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("session.Lock: the state directory can't be made (WORKER_STATE_DIR): %w", err)
	}
	// os.OpenFile sets O_CLOEXEC: no child of ours can act, so none may keep the lock alive.
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("session.Lock: %w", err)
	}
	if err := acquire(ctx, file, dir, log, waiting); err != nil {
		_ = file.Close()
		return nil, err
	}
	l := &LockFile{file: file, dir: dir}
	holder := strconv.Itoa(os.Getpid()) + "\n"
	if err := os.WriteFile(filepath.Join(dir, holderName), []byte(holder), 0o600); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("session.Lock: %w", err)
	}
	if l.previous, err = l.read(); err != nil {
		_ = file.Close()
		return nil, err
	}
	return l, nil
}

// acquire takes the flock; the waiting call sits in the kernel, so that a successor begins within milliseconds of the death it waits for.
func acquire(ctx context.Context, file *os.File, dir string, log *slog.Logger, waiting func(string)) error {
	fd := int(file.Fd())
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("session.Lock: flock %s: %w", file.Name(), err)
	}
	got := make(chan error, 1)
	go func() {
		for {
			err := unix.Flock(fd, unix.LOCK_EX)
			if !errors.Is(err, unix.EINTR) {
				got <- err
				return
			}
		}
	}()
	again := time.NewTicker(10 * time.Second)
	defer again.Stop()
	for {
		holder := "process " + readHolder(dir)
		if waiting != nil {
			waiting(holder)
		}
		log.Warn("another process still holds this worker's lock: waiting for its end, no session of it is touched before", "holder", holder, "file", file.Name())
		select {
		case err := <-got:
			if err != nil {
				return fmt.Errorf("session.Lock: flock %s: %w", file.Name(), err)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("session.Lock: still held by %s: %w", holder, ctx.Err()) // the call in the kernel ends with the process
		case <-again.C:
		}
	}
}

func readHolder(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, holderName))
	if s := strings.TrimSpace(string(b)); err == nil && s != "" {
		return s
	}
	return "unknown"
}

func (l *LockFile) read() ([]protocol.ID, error) {
	b, err := os.ReadFile(l.file.Name())
	if err != nil {
		return nil, fmt.Errorf("session.Lock: %w", err)
	}
	var ids []protocol.ID
	for _, line := range strings.Fields(string(b)) {
		id, err := protocol.ParseID(line)
		if err != nil { // a half-written line was never asked for: the write comes before the asking
			continue
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Previous lists the sessions of processes that held the lock before and are dead now.
func (l *LockFile) Previous() []protocol.ID { return slices.Clone(l.previous) }

// Add writes a session's id down. It comes before the session is asked for: a session that nobody could end is never opened.
func (l *LockFile) Add(id protocol.ID) error {
	end, err := l.file.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("session.Add: %w", err)
	}
	end -= end % idLine // over a line that a crash left half written
	if _, err := l.file.WriteAt([]byte(id.String()+"\n"), end); err != nil {
		return fmt.Errorf("session.Add: the session's id can't be written to %s (is the disk full?): %w", l.file.Name(), err)
	}
	return nil
}

// Only forgets all ids but this one (the zero id: all): their sessions are known to be over. A crash between its two writes leaves too many ids, never too few.
func (l *LockFile) Only(id protocol.ID) error {
	size := int64(0)
	if !id.IsZero() {
		if _, err := l.file.WriteAt([]byte(id.String()+"\n"), 0); err != nil {
			return fmt.Errorf("session.Only: %w", err)
		}
		size = idLine
	}
	if err := l.file.Truncate(size); err != nil {
		return fmt.Errorf("session.Only: %w", err)
	}
	l.previous = nil
	return nil
}

// Close gives the lock up.
func (l *LockFile) Close() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("session.Close: %w", err)
	}
	return nil
}

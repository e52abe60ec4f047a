package dev

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unlockPatience is how long the PostgreSQL of a run that was killed may take to end.
const unlockPatience = 30 * time.Second

// lockDirectory makes the directory and takes its lock. The descriptor goes to PostgreSQL too, so the lock is free when both have ended.
func lockDirectory(ctx context.Context, dir string, shared bool) (*os.File, error) {
	mode := fs.FileMode(0o700)
	if shared { // PostgreSQL runs as another user and must pass; what is secret has rights of its own
		mode = 0o711
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		return nil, fmt.Errorf("make the directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the directory: %w", err)
	}
	if err := take(ctx, f, dir); err != nil {
		f.Close()
		return nil, err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the directory: %w", err)
	}
	return f, nil
}

func take(ctx context.Context, f *os.File, dir string) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for begun := time.Now(); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock the directory: %w (is it on a network file system?)", err)
		}
		b := make([]byte, 20)
		n, _ := f.ReadAt(b, 0)
		pid, _ := strconv.Atoi(string(b[:n]))
		if pid > 0 && pid != os.Getpid() && unix.Kill(pid, 0) == nil {
			return fmt.Errorf("%s is in use by another flowctl dev (process %d): stop that one, or give this one a directory of its own with --dir", dir, pid)
		}
		if time.Since(begun) > unlockPatience {
			return fmt.Errorf("%s is still in use by the PostgreSQL of a run that was killed: `pgrep -af %s` finds it", dir, filepath.Join(dir, "postgres"))
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// secrets are made once for a directory.
type secrets struct {
	JWT            string `json:"jwt"`
	Internal       string `json:"internal"`
	CredentialsKey string `json:"credentialsKey"`
}

// Login is the first administrator.
type Login struct {
	Email    string `json:"email"`
	Password string `json:"password"`
	Token    string `json:"token"`
}

func loadSecrets(dir string) (secrets, error) {
	var s secrets
	found, err := readJSON(filepath.Join(dir, "secrets.json"), &s)
	if err != nil || found {
		return s, err
	}
	s = secrets{JWT: random(), Internal: random(), CredentialsKey: random()}
	return s, writeJSON(filepath.Join(dir, "secrets.json"), s)
}

// random is 32 bytes in base64.
func random() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

func readJSON(path string, into any) (found bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return false, fmt.Errorf("%s can't be read: %w", path, err)
	}
	return true, nil
}

// writeJSON writes a file for its owner only, whole or not at all.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// maxLog is the size from which on a log is set aside at the next start.
const maxLog = 16 << 20

// openLog opens a log for appending; a large one becomes NAME.old first.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// tail gives the last lines of a file, for errors.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(b[max(0, len(b)-16<<10):])), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

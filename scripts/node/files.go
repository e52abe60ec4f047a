package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"flowplatform/scripts/internal/spec"
)

// same says whether a path holds what it should, with the mode that it should have.
func (h host) same(f file) (bool, error) {
	info, err := os.Lstat(h.path(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm() != f.Mode || (h.root == "" && ownerOf(info) != 0) {
		return false, nil
	}
	b, err := os.ReadFile(h.path(f.Path))
	return err == nil && bytes.Equal(b, f.Content), err
}

func ownerOf(info fs.FileInfo) uint32 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Uid
	}
	return 0
}

// write replaces a file as a whole: whoever reads it sees the old one or the new one, also after a loss of power.
func (h host) write(f file) error {
	target := h.path(f.Path)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	temporary := target + ".flownode-new" // one name: what a killed run has left is overwritten
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, f.Mode)
	if err != nil {
		return err
	}
	_, err = out.Write(f.Content)
	err = errors.Join(err, out.Chmod(f.Mode), out.Sync(), out.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	return os.Rename(temporary, target)
}

// strangers are files below spec.Configuration that nobody wants there any more.
func (h host) strangers(d desired) ([]string, error) {
	wanted := map[string]bool{}
	for _, f := range d.Files {
		wanted[f.Path] = true
	}
	for _, dir := range d.Directories {
		wanted[dir.Path] = true
	}
	var found []string
	err := filepath.WalkDir(h.path(spec.Configuration), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(h.path("/"), path)
		if err != nil || wanted["/"+relative] {
			return err
		}
		found = append(found, "/"+relative)
		if entry.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return found, err
}

// settled says whether a directory is there with its mode and owner.
func (h host) settled(d directory) (bool, error) {
	info, err := os.Lstat(h.path(d.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, fmt.Errorf("%s is no directory: move it away", d.Path)
	}
	uid, _, err := h.owner(d)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return false, nil
	}
	return info.Mode().Perm() == d.Mode && (h.root != "" || int(ownerOf(info)) == uid), err
}

// settle makes a directory.
func (h host) settle(d directory) error {
	uid, gid, err := h.owner(d)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(h.path(d.Path), d.Mode); err != nil {
		return err
	}
	if h.root == "" {
		if err := os.Chown(d.Path, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(h.path(d.Path), d.Mode)
}

// owner looks a directory's user up.
func (h host) owner(d directory) (uid, gid int, err error) {
	if d.User == "" || h.root != "" {
		return 0, 0, nil
	}
	u, err := user.Lookup(d.User)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w; its Debian package makes this user: run install with this host's roles first", d.Path, err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(err1, err2)
}

// state is what was applied last: a fingerprint for each unit that was started and answered.
type state struct {
	Cluster string            `json:"cluster"`
	Host    string            `json:"host"`
	Units   map[string]string `json:"units"`
	Rules   string            `json:"rules"` // fingerprint of the firewall as the kernel has it
}

const stateFile = spec.NodeState + "/applied.json"

func (h host) readState() (state, error) {
	s := state{Units: map[string]string{}}
	b, err := os.ReadFile(h.path(stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read what was applied last: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Units == nil {
		return state{Units: map[string]string{}}, nil // then every unit is restarted once
	}
	return s, nil
}

func (h host) writeState(s state) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write down what was applied: %w", err)
	}
	return h.write(file{Path: stateFile, Content: append(b, '\n'), Mode: 0o600})
}

// fingerprint is of everything that a unit is made from.
func (h host) fingerprint(d desired, u unit) (string, error) {
	sum := sha256.New()
	for _, f := range d.Files {
		if slices.Contains(u.Inputs, f.Path) {
			fmt.Fprintf(sum, "%s %o %d\n", f.Path, f.Mode, len(f.Content))
			sum.Write(f.Content)
		}
	}
	if u.Program != "" {
		f, err := os.Open(h.path(u.Program))
		if err != nil {
			return "", fmt.Errorf("%s: %w; run install with --from first", u.Name, err)
		}
		defer f.Close()
		if _, err := io.Copy(sum, f); err != nil {
			return "", fmt.Errorf("%s: read its program: %w", u.Name, err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

const (
	registry = "/run/flowlab"
	most     = 200 // labs on one machine
)

// found takes a number for a new lab and makes its directory.
func found(dir string, o Options) (*Lab, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	first, last := 1, most
	if o.Number != 0 {
		first, last = o.Number, o.Number
	}
	if first < 1 || last > most {
		return nil, fmt.Errorf("lab: number %d: from 1 to %d", o.Number, most)
	}
	for number := first; number <= last; number++ {
		entry := filepath.Join(registry, strconv.Itoa(number))
		if err := os.Mkdir(entry, 0o700); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		l := &Lab{Dir: dir, Number: number}
		record := claim{Dir: dir, Owner: o.Owner, Born: born(o.Owner)}
		if err := writeJSON(filepath.Join(entry, "lab.json"), record); err != nil {
			return nil, err
		}
		return l, l.write()
	}
	if o.Number != 0 {
		return nil, fmt.Errorf("lab: there is a lab with number %d on this machine already (see: lab list)", o.Number)
	}
	return nil, fmt.Errorf("lab: there are %d labs on this machine already (see: lab list)", most)
}

// claim is what the registry says of a number.
type claim struct {
	Dir   string `json:"dir"`
	Owner int    `json:"owner"`
	Born  string `json:"born"` // of the owner's process: its id alone may be another's by now
}

// lockOf is held while a lab changes.
func lockOf(dir string) (func(), error) {
	if err := os.MkdirAll(registry, 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	sum := sha256.Sum256([]byte(dir))
	return lock(filepath.Join(registry, "lock-"+hex.EncodeToString(sum[:6])))
}

// List returns all labs of this machine.
func List() ([]*Lab, error) {
	entries, err := os.ReadDir(registry)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var labs []*Lab
	for _, e := range entries {
		c, number, err := claimOf(e.Name())
		if err != nil {
			continue // being made or taken down at this moment
		}
		l, err := Open(c.Dir)
		if err != nil {
			l = &Lab{Dir: c.Dir, Number: number}
		}
		labs = append(labs, l)
	}
	slices.SortFunc(labs, func(a, b *Lab) int { return a.Number - b.Number })
	return labs, nil
}

func claimOf(name string) (claim, int, error) {
	var c claim
	number, err := strconv.Atoi(name)
	if err != nil {
		return c, 0, err
	}
	content, err := os.ReadFile(filepath.Join(registry, name, "lab.json"))
	if err != nil {
		return c, 0, err
	}
	return c, number, json.Unmarshal(content, &c)
}

// Sweep takes down the labs whose owner has ended without doing so.
func Sweep(ctx context.Context) error {
	entries, _ := os.ReadDir(registry)
	var failed []error
	for _, e := range entries {
		c, number, err := claimOf(e.Name())
		if err != nil || c.Owner == 0 || born(c.Owner) == c.Born {
			continue
		}
		l := &Lab{Dir: c.Dir, Number: number}
		if known, err := Open(c.Dir); err == nil && known.Number == number {
			l = known
		}
		failed = append(failed, l.Down(ctx))
	}
	return errors.Join(failed...)
}

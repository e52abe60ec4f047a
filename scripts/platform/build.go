package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"flowplatform/scripts/internal/console"
	"flowplatform/scripts/internal/login"
	"flowplatform/scripts/internal/programs"
)

// keptArtifacts is how many releases of each program are kept, to go back to.
const keptArtifacts = 10

// install runs the installer, which shows its own progress.
func (s settings) install(ctx context.Context, c *console.Console) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.Root, "scripts", "install"), "--role", "dev", "--bin-dir", s.path("bin"), "--quiet")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if !c.Terminal {
		cmd.Stdout, cmd.Stderr = c.PassThrough(), c.PassThrough()
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("scripts/install: %w", err)
	}
	return nil
}

// build builds the programs into the checkout's bin/.
func (s settings) build(ctx context.Context) error {
	return programs.Build(ctx, s.Root, filepath.Join(s.Root, "bin"), "")
}

// publish copies what was built to where the job artifacts serves it, and returns the version of each program: the SHA-256
// sum of its bytes. New names those that weren't there before.
func (s settings) publish() (versions map[string]string, fresh []string, err error) {
	versions = map[string]string{}
	for _, name := range programs.Released() {
		content, err := os.ReadFile(filepath.Join(s.Root, "bin", name))
		if err != nil {
			return nil, nil, fmt.Errorf("publish: %w", err)
		}
		sum := sha256.Sum256(content)
		version := hex.EncodeToString(sum[:])
		versions[name] = version
		target := s.path("artifacts", name, version, name)
		if _, err := os.Stat(target); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("publish %s: %w", name, err)
		}
		if err := writeFile(target, content, 0o755); err != nil {
			return nil, nil, err
		}
		fresh = append(fresh, name)
		if err := prune(s.path("artifacts", name), version); err != nil {
			return nil, nil, err
		}
	}
	return versions, fresh, nil
}

// prune removes the oldest releases of a program beyond those that are kept, never the current one.
func prune(dir, current string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("prune artifacts: %w", err)
	}
	type release struct {
		name string
		age  int64
	}
	var old []release
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.Name() == current {
			continue
		}
		old = append(old, release{e.Name(), info.ModTime().UnixNano()})
	}
	slices.SortFunc(old, func(a, b release) int { return int(max(-1, min(1, b.age-a.age))) })
	for i := keptArtifacts - 1; i < len(old); i++ {
		if err := os.RemoveAll(filepath.Join(dir, old[i].name)); err != nil {
			return fmt.Errorf("prune artifacts: %w", err)
		}
	}
	return nil
}

// flowctl is bin/flowctl.
func (s settings) flowctl() login.Flowctl {
	return login.Flowctl{Program: filepath.Join(s.Root, "bin", programs.CommandLine), Dir: s.Root}
}

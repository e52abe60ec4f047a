// Package terraform runs Terraform for programs and tests: on a copy of a platform's files, so that what one run leaves (state, locks, modules) is
// in a directory of its own.
package terraform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Run is a platform's files in a directory, with the values of its variables.
type Run struct {
	Dir    string    // where terraform runs
	Output io.Writer // what it says, as it says it; nil: only errors show it
	Env    []string  // beside this process's own, of which settings for Terraform are left out
}

// Copy copies the platform of a checkout, and the modules that it uses, below a directory.
func Copy(root, platform, into string) (*Run, error) {
	for _, part := range []string{"modules", filepath.Join("platforms", platform)} {
		from := filepath.Join(root, "terraform", part)
		err := filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && entry.Name() == ".terraform" {
				return filepath.SkipDir
			}
			if !entry.Type().IsRegular() || strings.Contains(entry.Name(), ".tfstate") || entry.Name() == "terraform.tfvars" {
				return nil
			}
			relative, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			target := filepath.Join(into, relative)
			if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
				return err
			}
			return os.WriteFile(target, content, 0o644)
		})
		if err != nil {
			return nil, fmt.Errorf("terraform: copy %s: %w", from, err)
		}
	}
	return &Run{Dir: filepath.Join(into, "terraform", "platforms", platform)}, nil
}

// Set writes the values of the variables.
func (r *Run) Set(variables map[string]any) error {
	content, err := json.MarshalIndent(variables, "", "  ")
	if err != nil {
		return fmt.Errorf("terraform: %w", err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "terraform.tfvars.json"), content, 0o644); err != nil {
		return fmt.Errorf("terraform: %w", err)
	}
	return nil
}

// Command is terraform with arguments, in a process group of its own: what it starts can be ended with it, or outlive it.
func (r *Run) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "terraform", args...)
	cmd.Dir = r.Dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TF_") { // the caller's own settings are none of this run's
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1"), r.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// At the end of its time the whole group goes: programs that terraform runs hold its output open.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	return cmd
}

// do runs terraform and returns what it said.
func (r *Run) do(ctx context.Context, args ...string) (string, error) {
	var said bytes.Buffer
	cmd := r.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if r.Output != nil {
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&said, r.Output), io.MultiWriter(&said, r.Output)
	}
	if err := cmd.Run(); err != nil {
		return said.String(), fmt.Errorf("terraform %s: %w\n%s", args[0], err, strings.TrimSpace(said.String()))
	}
	return said.String(), nil
}

// Init prepares the directory.
func (r *Run) Init(ctx context.Context) error {
	_, err := r.do(ctx, "init", "-input=false", "-no-color", "-backend=true")
	return err
}

// Apply makes it so.
func (r *Run) Apply(ctx context.Context) error {
	_, err := r.do(ctx, "apply", "-auto-approve", "-input=false", "-no-color")
	return err
}

// Destroy takes it away.
func (r *Run) Destroy(ctx context.Context) error {
	_, err := r.do(ctx, "destroy", "-auto-approve", "-input=false", "-no-color")
	return err
}

// Changes says what an apply would change: "" is nothing.
func (r *Run) Changes(ctx context.Context) (string, error) {
	said, err := r.do(ctx, "plan", "-detailed-exitcode", "-input=false", "-no-color")
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case errors.As(err, &exit) && exit.ExitCode() == 2:
		return said, nil
	}
	return "", err
}

// Value reads an output of the last apply.
func (r *Run) Value(ctx context.Context, name string, into any) error {
	cmd := r.Command(ctx, "output", "-json", name)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	content, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("terraform output %s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	if err := json.Unmarshal(content, into); err != nil {
		return fmt.Errorf("terraform output %s: %w", name, err)
	}
	return nil
}

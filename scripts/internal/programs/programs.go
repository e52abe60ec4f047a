// Package programs is how the platform's programs are built, for all who build them: the same source gives the same bytes, wherever the checkout
// lies and whatever its documentation says, so that a release is what differs.
package programs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CommandLine is the program for people.
const CommandLine = "flowctl"

// Released are the programs that Nomad runs.
func Released() []string { return []string{"gateway", "orchestrator", "worker", "migrate"} }

// Build builds all programs of the checkout root into a directory, for a processor ("" is this machine's).
func Build(ctx context.Context, root, into, arch string) error {
	into, err := filepath.Abs(into)
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	// Without symbols for debuggers, which are a third of it: every new worker fetches and checks its program. Stack traces need none.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", into + "/"}
	for _, name := range append(Released(), CommandLine) {
		args = append(args, "./services/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if arch != "" {
		cmd.Env = append(cmd.Env, "GOOS=linux", "GOARCH="+arch)
	}
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(output))
	}
	return nil
}

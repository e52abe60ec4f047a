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

// Host and Cluster make a cluster: one on each host, the other where its operator is.
const (
	Host    = "flownode"
	Cluster = "flowcluster"
)

// Build builds the released programs and the command line of the checkout root into a directory, for a processor ("" is this machine's).
func Build(ctx context.Context, root, into, arch string) error {
	var packages []string
	for _, name := range append(Released(), CommandLine) {
		packages = append(packages, "./services/"+name)
	}
	return build(ctx, root, into+"/", arch, packages...)
}

// BuildClustering builds Host and Cluster.
func BuildClustering(ctx context.Context, root, into, arch string) error {
	for name, source := range map[string]string{Host: "./scripts/node", Cluster: "./scripts/cluster"} {
		if err := build(ctx, root, filepath.Join(into, name), arch, source); err != nil {
			return err
		}
	}
	return nil
}

// build builds packages into a directory (into ends in a slash), or one into a file.
func build(ctx context.Context, root, into, arch string, packages ...string) error {
	directory := strings.HasSuffix(into, "/")
	into, err := filepath.Abs(into)
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	parent := filepath.Dir(into)
	if directory {
		parent, into = into, into+"/"
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	// Without symbols for debuggers, which are a third of it: every new worker fetches and checks its program. Stack traces need none.
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", into}, packages...)
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

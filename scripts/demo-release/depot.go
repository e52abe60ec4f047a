package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"flowplatform/scripts/internal/running"
)

// released are the jobs whose programs are replaced, in the order in which it is done.
func released() []string { return []string{"gateway", "worker", "orchestrator"} }

// depot is where programs are published, and what Nomad is told to run.
type depot struct {
	*running.Platform
	root   string
	bads   string            // directory of the jobs that releases that can't succeed are run from
	before map[string]string // the versions that ran, by job
	made   []string          // directories of programs that are only for this
}

func newDepot(ctx context.Context, p *running.Platform) (*depot, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "jobs", "gateway.nomad.hcl")); err != nil {
		return nil, fmt.Errorf("run it from the top of the checkout, as make demo-release does: %w", err)
	}
	d := &depot{Platform: p, root: root, bads: root, before: map[string]string{}}
	for _, job := range released() {
		if d.before[job], err = d.version(ctx, job); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// version is the sum of the program that Nomad is told to run for a job.
func (d *depot) version(ctx context.Context, job string) (string, error) {
	var j struct {
		TaskGroups []struct {
			Tasks []struct {
				Artifacts []struct{ GetterOptions map[string]string }
			}
		}
	}
	if err := d.Nomad(ctx, "/v1/job/"+job, &j); err != nil {
		return "", fmt.Errorf("what runs as %s: %w; is the platform up?", job, err)
	}
	if len(j.TaskGroups) == 1 && len(j.TaskGroups[0].Tasks) == 1 && len(j.TaskGroups[0].Tasks[0].Artifacts) == 1 {
		if sum, ok := strings.CutPrefix(j.TaskGroups[0].Tasks[0].Artifacts[0].GetterOptions["checksum"], "sha256:"); ok {
			return sum, nil
		}
	}
	return "", fmt.Errorf("job %s names no program with its sum: is it of this release? make up mends it", job)
}

// publish puts a program where the job artifacts serves it, and gives its version.
func (d *depot) publish(job string, content []byte) (string, error) {
	sum := sha256.Sum256(content)
	version := hex.EncodeToString(sum[:])
	dir := filepath.Join(d.Dir, "artifacts", job, version)
	if _, err := os.Stat(dir); err == nil {
		return version, nil
	}
	d.made = append(d.made, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("publish %s: %w", job, err)
	}
	file := filepath.Join(dir, job)
	if err := errors.Join(os.WriteFile(file+".new", content, 0o755), os.Rename(file+".new", file)); err != nil {
		return "", fmt.Errorf("publish %s: %w", job, err)
	}
	return version, nil
}

// good publishes another release of the program that runs.
func (d *depot) good(job string) (string, error) {
	content, err := os.ReadFile(filepath.Join(d.Dir, "artifacts", job, d.before[job], job))
	if err != nil {
		return "", fmt.Errorf("the program that runs as %s: %w", job, err)
	}
	return d.publish(job, fmt.Appendf(content, "\nanother release, %s\n", time.Now().UTC().Format(time.RFC3339Nano)))
}

// bad publishes a program that never becomes ready.
func (d *depot) bad(ctx context.Context, job string) (string, error) {
	file := filepath.Join(d.Dir, "artifacts", ".deaf")
	defer os.Remove(file)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", file, "./scripts/demo-release/deaf")
	cmd.Dir = d.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program that never becomes ready: %w\n%s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return d.publish(job, content)
}

// run is what a person types. It returns when the release is through, or was taken back; its status says which.
func (d *depot) run(ctx context.Context, job, version string) error {
	return d.runFrom(ctx, d.root, job, version)
}

// impatient makes a copy of the jobs in which a gateway has seconds to become healthy, and returns its directory.
func (d *depot) impatient() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "impatient"); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	for _, part := range []string{"jobs", "configs"} {
		if err = os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(d.root, part))); err != nil {
			return "", err
		}
	}
	file := filepath.Join(dir, "jobs", "gateway.nomad.hcl")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	short := strings.NewReplacer(`healthy_deadline  = "1m"`, `healthy_deadline  = "6s"`, `progress_deadline = "90s"`, `progress_deadline = "9s"`, `kill_timeout = "75s"`, `kill_timeout = "8s"`).Replace(string(text))
	if strings.Count(short, `"6s"`)+strings.Count(short, `"9s"`)+strings.Count(short, `"8s"`) != 3 {
		return "", fmt.Errorf("%s has other deadlines than this program knows", file)
	}
	return dir, os.WriteFile(file, []byte(short), 0o644)
}

func (d *depot) runFrom(ctx context.Context, dir, job, version string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(d.Dir, "bin", "nomad"), "job", "run", "-preserve-counts", "-hcl2-strict=false",
		"-var-file=jobs/vars/local.hcl", "-var-file="+filepath.Join(d.Dir, "config", "jobs.hcl"), "-var", "version="+version, "jobs/"+job+".nomad.hcl")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("NOMAD_ADDR=http://127.0.0.1:%d", d.Ports["NOMAD_PORT"]))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("nomad job run %s: %w\n%s", job, err, lastLines(out, 12))
	}
	return nil
}

// settled waits until a version is what Nomad runs, and no release of the job is under way.
func (d *depot) settled(ctx context.Context, job, version string, bound time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not within %s", bound))
	defer cancel()
	for {
		why, err := d.differs(ctx, job, version)
		if err == nil && why == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s %.12s: %w: %s %w", job, version, context.Cause(ctx), why, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// differs says what is still in the way.
func (d *depot) differs(ctx context.Context, job, version string) (string, error) {
	now, err := d.version(ctx, job)
	if err != nil {
		return "", err
	}
	if now != version {
		return fmt.Sprintf("%.12s runs", now), nil
	}
	var deployment *struct{ Status, StatusDescription string }
	if err := d.Nomad(ctx, "/v1/job/"+job+"/deployment", &deployment); err != nil {
		return "", err
	}
	if deployment != nil && deployment.Status != "successful" {
		return deployment.Status + ": " + deployment.StatusDescription, nil
	}
	return "", nil
}

// restore makes run what ran before, and takes away what was published for this.
func (d *depot) restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	var failed error
	for _, job := range released() {
		now, err := d.version(ctx, job)
		if err == nil && now != d.before[job] {
			err = d.run(ctx, job, d.before[job])
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s doesn't run what it ran before: %w; make up mends it", job, err))
		}
	}
	if failed != nil {
		return failed // whatever runs must still find its program
	}
	for _, dir := range d.made {
		failed = errors.Join(failed, os.RemoveAll(dir))
	}
	return failed
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

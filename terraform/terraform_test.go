package terraform_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/terraform/contract"
)

// program is the terraform to run.
func program(t *testing.T) string {
	t.Helper()
	found := contract.Program()
	if found == "" {
		t.Skip("neither terraform nor tofu is on this machine: `go run ./scripts/providers build` builds tofu (make check does)")
	}
	return found
}

// run runs Terraform in a directory and fails the test with all that it has said.
func run(t *testing.T, program, dir string, environment []string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TF_") { // the developer's own settings are none of a test's
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, environment...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
}

func TestTerraformIsFormatted(t *testing.T) {
	t.Parallel()
	run(t, program(t), ".", nil, "fmt", "-check", "-diff", "-recursive")
}

// TestTerraform does in every platform and module what a developer would do: validate, and terraform test with the values of the example. Where a
// platform's provider isn't in the cache, a stand-in with its schema takes its place (scripts/providers/standin): what is planned is the same, but what the
// provider itself would refuse, such as a size that isn't there, isn't refused.
func TestTerraform(t *testing.T) {
	t.Parallel()
	found := program(t)
	for _, kind := range []string{"modules", "platforms"} {
		entries, err := os.ReadDir(kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			t.Run(entry.Name(), func(t *testing.T) {
				t.Parallel()
				tryFolder(t, found, kind, entry.Name())
			})
		}
	}
}

func tryFolder(t *testing.T, program, kind, name string) {
	p, err := contract.Load(filepath.Join(kind, name))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, part := range []string{"modules", filepath.Join(kind, name)} {
		if err := os.CopyFS(filepath.Join(root, part), os.DirFS(part)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	environment := providers(t, p, root)
	dir := filepath.Join(root, kind, name)
	args := []string{"test"}
	if kind == "platforms" {
		args = append(args, "-var-file=example.tfvars")
	}
	if kind == "platforms" && len(p.Providers()) == 0 { // variables.tf is the same in all, so that one kind of them is enough, and these are quick
		refused, err := os.ReadFile("inputs.tftest.hcl")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tests", "every-platform.tftest.hcl"), refused, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, program, dir, environment, "init", "-input=false", "-no-color")
	run(t, program, dir, environment, "validate", "-no-color")
	if isOpenTofu(t, program) {
		t.Log("terraform test was left out: OpenTofu plays providers and modules otherwise, so that these tests are Terraform's alone")
		return
	}
	run(t, program, dir, environment, append(args, "-no-color")...)
}

func isOpenTofu(t *testing.T, program string) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, "version").Output()
	if err != nil {
		t.Fatalf("%s version: %v", program, err)
	}
	return strings.Contains(string(out), "OpenTofu")
}

// providers says where Terraform finds the platform's provider: the one that was built, or the stand-in.
func providers(t *testing.T, p *contract.Platform, root string) []string {
	t.Helper()
	mirror, schema := contract.Mirror(), ""
	for _, address := range p.Providers() {
		if _, err := os.Stat(filepath.Join(mirror, "registry.terraform.io", address)); err == nil && os.Getenv("FLOW_STANDIN") == "" {
			continue
		}
		program, err := standin()
		if err != nil {
			t.Fatal(err)
		}
		mirror = filepath.Join(root, "mirror")
		for _, registry := range []string{"registry.terraform.io", "registry.opentofu.org"} { // OpenTofu has its own
			dir := filepath.Join(mirror, registry, address, p.Oldest(), runtime.GOOS+"_"+runtime.GOARCH)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(program, filepath.Join(dir, "terraform-provider-"+filepath.Base(address)+"_v"+p.Oldest())); err != nil {
				t.Fatal(err)
			}
		}
		if schema, err = filepath.Abs(filepath.Join("schemas", p.Name+".json")); err != nil {
			t.Fatal(err)
		}
	}
	environment, err := contract.Configuration(root, mirror)
	if err != nil {
		t.Fatal(err)
	}
	return append(environment, "FLOW_STANDIN_SCHEMA="+schema)
}

// standin builds the stand-in once.
var standin = sync.OnceValues(func() (string, error) {
	file := filepath.Join(built, "standin")
	cmd := exec.Command("go", "build", "-o", file, ".")
	cmd.Dir = filepath.Join("..", "scripts", "providers", "standin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -trimpath -buildvcs=false", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the stand-in for providers: %w\n%s", err, out)
	}
	return file, nil
})

// built is where tests put what they build.
var built string

func TestMain(m *testing.M) { os.Exit(within(m)) }

func within(m *testing.M) int {
	var err error
	if built, err = os.MkdirTemp("", "flow-terraform-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(built)
	return m.Run()
}

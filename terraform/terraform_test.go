package terraform_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

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
// platform's provider isn't in the cache, nothing but its schema is checked (TestEveryResourceFitsItsProvidersSchema).
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
	for _, address := range p.Providers() {
		if _, err := os.Stat(filepath.Join(contract.Mirror(), "registry.terraform.io", address)); err != nil {
			t.Skipf("the provider %s isn't on this machine: make check builds libvirt's, OpenStack's and vSphere's; the others can't be built", address)
		}
	}
	root := t.TempDir()
	for _, part := range []string{"modules", filepath.Join(kind, name)} {
		if err := os.CopyFS(filepath.Join(root, part), os.DirFS(part)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	environment, err := contract.Configuration(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, kind, name)
	args := []string{"test"}
	if kind == "platforms" {
		args = append(args, "-var-file=example.tfvars")
		if err := os.WriteFile(filepath.Join(dir, "tests", "every-platform.tftest.hcl"), sharedTest(t, p), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, program, dir, environment, "init", "-input=false", "-no-color")
	run(t, program, dir, environment, "validate", "-no-color")
	run(t, program, dir, environment, append(args, "-no-color")...)
}

// sharedTest is the test of what every platform refuses. This one's provider is played as in its own test.
func sharedTest(t *testing.T, p *contract.Platform) []byte {
	t.Helper()
	text, err := os.ReadFile("inputs.tftest.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Providers()) == 0 {
		return text
	}
	own := filepath.Join(p.Dir, "tests", "hosts.tftest.hcl")
	content, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	file, problems := hclsyntax.ParseConfig(content, own, hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		if b.Type == "mock_provider" {
			text = slices.Concat(b.Range().SliceBytes(content), []byte("\n\n"), text)
		}
	}
	return text
}

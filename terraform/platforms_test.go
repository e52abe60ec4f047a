// Package terraform_test holds every platform to the contract (package contract), and runs Terraform's own tests of those whose providers can be had.
package terraform_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flowplatform/terraform/contract"
)

// reference is the platform with which the files that are the same everywhere are compared.
const reference = "libvirt"

func platforms(t *testing.T) map[string]*contract.Platform {
	t.Helper()
	all, err := contract.LoadAll("platforms")
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*contract.Platform{}
	for _, p := range all {
		byName[p.Name] = p
	}
	return byName
}

func TestThePlatformsThatThereAre(t *testing.T) {
	t.Parallel()
	all := platforms(t)
	for _, name := range []string{"local", "bare-metal", "libvirt", "openstack", "vsphere", "proxmox", "aws", "google-cloud", "azure", "hetzner", "digitalocean"} {
		if all[name] == nil {
			t.Errorf("platform %s is missing", name)
		}
	}
}

func TestEveryPlatformKeepsTheContract(t *testing.T) {
	t.Parallel()
	all := platforms(t)
	for name, p := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, wrong := range p.Rules(all[reference]) {
				t.Error(wrong)
			}
		})
	}
}

// The claim in a README is held against what there is to hold it up.
func TestNoREADMEClaimsMoreThanWasDone(t *testing.T) {
	t.Parallel()
	for name, p := range platforms(t) {
		s, err := p.Schema()
		switch claim := p.Verification(); claim {
		case "Applied":
			if len(p.Providers()) > 0 {
				t.Errorf("%s says that it was applied; nothing here applies a platform that needs the provider %v", name, p.Providers())
			}
		case "Planned":
			if len(p.Providers()) > 0 {
				t.Errorf("%s says that it was planned, and needs the provider %v: that takes a mock", name, p.Providers())
			}
		case "Planned against a mock":
			if err != nil || !strings.HasPrefix(s.Source, "the provider itself") || !p.Has("tests/hosts.tftest.hcl") {
				t.Errorf("%s says that it was planned; that takes the provider itself and tests/hosts.tftest.hcl (%v)", name, err)
			}
		case "Planned against a mock of its schema":
			if err != nil || !strings.HasPrefix(s.Source, "npm @cdktf/") || !p.Has("tests/hosts.tftest.hcl") {
				t.Errorf("%s says that it was planned with its provider's schema; that takes one of CDK for Terraform and tests/hosts.tftest.hcl (%v)", name, err)
			}
		case "Planned against a mock of a translated schema":
			if err != nil || !strings.Contains(s.Source, "translated back") || !p.Has("tests/hosts.tftest.hcl") {
				t.Errorf("%s says that it was planned with a translated schema; that takes one and tests/hosts.tftest.hcl (%v)", name, err)
			}
		default:
			t.Errorf("%s: README.md says %q of how it was verified", name, claim)
		}
		if err == nil && !strings.Contains(p.Claim(), s.Version) {
			t.Errorf("%s: README.md says %q; its schema is that of version %s", name, p.Claim(), s.Version)
		}
	}
}

func TestEveryResourceFitsItsProvidersSchema(t *testing.T) {
	t.Parallel()
	for name, p := range platforms(t) {
		if len(p.Providers()) == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := p.Schema()
			if err != nil {
				t.Fatalf("%v; write it: go run ./scripts/providers schemas %s", err, name)
			}
			for _, wrong := range p.Check(s) {
				t.Error(wrong)
			}
			used := map[string]bool{}
			for _, o := range p.Objects() {
				used[strings.TrimPrefix(o.String(), "data.")[:strings.Index(strings.TrimPrefix(o.String(), "data."), ".")]] = true
			}
			for typ := range s.Types {
				if typ != "provider" && !used[strings.TrimPrefix(typ, "data.")] {
					t.Errorf("terraform/schemas/%s.json has %s, which the platform doesn't use: write it again", name, typ)
				}
			}
		})
	}
}

// The table for users says of each platform what its README says.
func TestTheTableOfPlatformsSaysTheSame(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/deployment.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range platforms(t) {
		row := ""
		for _, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "| ["+name+"](../terraform/platforms/"+name+"/README.md) |") {
				row = line
			}
		}
		if row == "" {
			t.Errorf("docs/deployment.md has no row for platform %s", name)
		} else if !strings.HasSuffix(row, "| "+p.Verification()+" |") {
			t.Errorf("docs/deployment.md says of %s: %s\nits README.md says: %s", name, row, p.Verification())
		}
	}
}

// What a new user is told to write for AWS is what the platform takes.
func TestTheGuideForOneCloudSetsWhatMustBeSet(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/deployment.md")
	if err != nil {
		t.Fatal(err)
	}
	_, guide, _ := strings.Cut(string(text), "\n## On one cloud: AWS\n")
	_, values, found := strings.Cut(guide, "```hcl\n")
	values, _, closed := strings.Cut(values, "```")
	if !found || !closed {
		t.Fatal("docs/deployment.md shows no values for AWS")
	}
	for _, wrong := range platforms(t)["aws"].Values([]byte(strings.ReplaceAll("\n"+values, "\n   ", "\n"))) { // the block is part of a list
		t.Errorf("the guide %s", wrong)
	}
}

// broken copies a platform, changes a file of it, and reads it.
func broken(t *testing.T, name, file, old, changed string) *contract.Platform {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "platforms", name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("platforms", name))); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(root, "schemas"), os.DirFS("schemas")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, file)
	content, err := os.ReadFile(path)
	if err != nil && old != "" {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), old) {
		t.Fatalf("%s has no %q to break", path, old)
	}
	if old == "" {
		content = []byte(changed)
	} else {
		content = []byte(strings.Replace(string(content), old, changed, 1))
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := contract.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPlatformThatBreaksTheContractIsFound(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, file, old, changed, want string }{
		{"another name for an input", "variables.tf", `variable "workers"`, `variable "nodes"`, "variables.tf differs"},
		{"another order of machines", "machines.tf", "port = 22", "port = 2222", "machines.tf differs"},
		{"no description", "platform.tf", "description", "  # description", "variable region has no description"},
		{"an untyped input", "platform.tf", "type        = string", "", "variable region has no type"},
		{"a host without an attribute", "main.tf", "    class           = m.class\n", "", "hosts have the attributes"},
		{"a host with one too many", "main.tf", "    class           = m.class\n", "    class           = m.class\n    colour          = \"\"\n", "hosts have the attributes"},
		{"an image that replaces machines", "main.tf", "ignore_changes = [ami, ", "ignore_changes = [", "would be replaced when its ami changes"},
		{"an example without what must be set", "example.tfvars", `region = "eu-central-1"`, "", "example.tfvars doesn't set region"},
		{"an example of something else", "example.tfvars", "region =", "regoin =", "example.tfvars sets regoin"},
		{"a README without costs", "README.md", "## Costs", "## Prices", `no section "## Costs"`},
		{"a README that claims something else", "README.md", "**Planned against a mock of its schema**", "**Works**", "must begin with one of"},
		{"a secret", "platform.tf", `variable "region"`, `variable "token" { sensitive = true }

variable "region"`, "variable token looks like a secret"},
		{"a firewall that is open", "main.tf", "for_each = local.openings", "for_each = {}", "no firewall uses local.openings"},
		{"a file that others don't have", "extra.tf", "", "# more\n", "extra.tf is none of the files"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wrong := broken(t, "aws", test.file, test.old, test.changed).Rules(platforms(t)[reference])
			if !slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, test.want) }) {
				t.Errorf("want something with %q, got %q", test.want, wrong)
			}
		})
	}
}

func TestAPlatformWithoutTestsIsFound(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "platforms", "moon")
	if err := os.CopyFS(dir, os.DirFS("platforms/aws")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "tests")); err != nil {
		t.Fatal(err)
	}
	p, err := contract.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := p.Rules(platforms(t)[reference]); len(wrong) != 2 || !strings.Contains(wrong[0], "nothing would tell that it is broken") || !strings.Contains(wrong[1], "schemas moon") {
		t.Errorf("a new folder with neither tests nor a schema: %q", wrong)
	}
}

func TestWhatDoesNotFitASchemaIsFound(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, old, changed, want string }{
		{"a type that isn't there", `resource "aws_vpc" `, `resource "aws_cloud" `, "has no type aws_cloud"},
		{"an argument that isn't there", "cidr_block           = var.cidr", "cidr = var.cidr", "there is no argument cidr"},
		{"what is required left out", "  vpc_id            = aws_vpc.cluster.id\n", "", "vpc_id is required"},
		{"a block that isn't there", "  metadata_options {", "  options {", "there is no block options"},
		{"a block as an argument", "  root_block_device {", "  root_block_device = {", "root_block_device is a block"},
		{"a word for yes or no", "encrypted   = true", `encrypted   = "yes"`, "encrypted takes a bool"},
		{"one value for a list", "http_tokens = \"required\"", "http_tokens = [\"required\"]", "http_tokens takes a string, not a list"},
		{"a result that is set", "vpc_id = aws_vpc.cluster.id\n", "vpc_id = aws_vpc.cluster.id\n  arn = \"x\"\n", "arn can't be set"},
		{"a reference to nothing", "aws_instance.host[name].public_ip", "aws_instance.host[name].public_address", "has no attribute public_address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := broken(t, "aws", "main.tf", test.old, test.changed)
			s, err := p.Schema()
			if err != nil {
				t.Fatal(err)
			}
			if wrong := p.Check(s); !slices.ContainsFunc(wrong, func(w string) bool { return strings.Contains(w, test.want) }) {
				t.Errorf("want something with %q, got %q", test.want, wrong)
			}
		})
	}
}

// Package packer holds no code: only what holds the templates of all platforms to each other.
package packer

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// sources are the directories here, with the builder that makes each platform's image.
var sources = map[string]string{
	"qemu": "qemu", "aws": "amazon-ebs", "google-cloud": "googlecompute", "azure": "azure-arm", "vsphere": "vsphere-clone", "proxmox": "proxmox-clone", "openstack": "openstack",
	"hetzner": "hcloud", "digitalocean": "digitalocean",
}

// imageOf says where a platform's image comes from when not from the directory of its name, and which have none.
var imageOf = map[string]string{"libvirt": "qemu", "bare-metal": "", "local": ""}

const shared = "flowplatform.pkr.hcl"

func TestEveryPlatformWithImagesHasASource(t *testing.T) {
	t.Parallel()
	platforms, err := filepath.Glob("../terraform/platforms/*/main.tf")
	if err != nil || len(platforms) < 10 {
		t.Fatalf("%d platforms found, %v", len(platforms), err)
	}
	for _, file := range platforms {
		name := filepath.Base(filepath.Dir(file))
		if from, other := imageOf[name]; other {
			name = from
		}
		if name != "" && sources[name] == "" {
			t.Errorf("terraform/platforms/%s has no source of an image here, and no word why", name)
		}
	}
	for name := range sources {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	here, err := filepath.Glob("*/*.pkr.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range here {
		if sources[filepath.Dir(file)] == "" {
			t.Errorf("%s is not in this test's list", filepath.Dir(file))
		}
	}
}

func parse(t *testing.T, file string) (*hclsyntax.Body, []byte) {
	t.Helper()
	p := hclparse.NewParser()
	f, diags := p.ParseHCLFile(file)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return f.Body.(*hclsyntax.Body), f.Bytes
}

func text(src []byte, r hcl.Range) string { return string(r.SliceBytes(src)) }

// blocks are a body's blocks of a type, with their labels.
func blocks(b *hclsyntax.Body, kind string) map[string]*hclsyntax.Block {
	found := map[string]*hclsyntax.Block{}
	for _, block := range b.Blocks {
		if block.Type == kind {
			found[strings.Join(block.Labels, ".")] = block
		}
	}
	return found
}

// TestTemplatesAreTheSameButForTheirSource compares what every platform's template consists of: the shared file, its plugin, its source, and a build that
// runs the shared steps.
func TestTemplatesAreTheSameButForTheirSource(t *testing.T) {
	t.Parallel()
	var build string
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		if link, err := os.Readlink(filepath.Join(name, shared)); err != nil || link != "../"+shared {
			t.Errorf("%s/%s is no link to ../%s: %q, %v", name, shared, shared, link, err)
		}
		files, err := filepath.Glob(filepath.Join(name, "*"))
		if want := []string{filepath.Join(name, shared), filepath.Join(name, name+".pkr.hcl")}; err != nil || !slices.Equal(files, sorted(want)) {
			t.Errorf("%s holds %q, wanted %q", name, files, want)
		}
		body, src := parse(t, filepath.Join(name, name+".pkr.hcl"))
		source := sources[name] + ".flowplatform"
		if found := slices.Collect(maps.Keys(blocks(body, "source"))); !slices.Equal(found, []string{source}) {
			t.Errorf("%s has the sources %q, wanted %s alone", name, found, source)
		}
		plugins := blocks(body, "packer")[""]
		if plugins == nil || len(plugins.Body.Blocks) != 1 || len(plugins.Body.Blocks[0].Body.Attributes) != 1 || !strings.Contains(text(src, hcl.RangeBetween(plugins.OpenBraceRange, plugins.CloseBraceRange)), `version = "~> `) {
			t.Errorf("%s names no plugin with a version", name)
		}
		b := blocks(body, "build")[""]
		if b == nil {
			t.Errorf("%s has no build", name)
			continue
		}
		steps := strings.ReplaceAll(text(src, hcl.RangeBetween(b.OpenBraceRange, b.CloseBraceRange)), "source."+source, "source.…")
		if build == "" {
			build = steps
		}
		if steps != build || !strings.Contains(steps, "local.scripts") {
			t.Errorf("%s does not run the steps that the others do:\n%s", name, steps)
		}
		checkVariables(t, name, body, src)
	}
	body, src := parse(t, shared)
	checkVariables(t, shared, body, src)
	locals := blocks(body, "locals")[""].Body.Attributes
	if got := text(src, locals["scripts"].Expr.Range()); got != `["${path.root}/../provision", "${path.root}/../clean"]` {
		t.Errorf("what is run on the machine that becomes an image: %s; cleaning is the last of it", got)
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }

// checkVariables wants of every variable a type and a description, and of what logs in that it is never printed and has no value here.
func checkVariables(t *testing.T, name string, body *hclsyntax.Body, src []byte) {
	t.Helper()
	for variable, block := range blocks(body, "variable") {
		a := block.Body.Attributes
		if a["type"] == nil || a["description"] == nil {
			t.Errorf("%s: variable %s has no type or no description", name, variable)
		}
		if !strings.HasSuffix(variable, "_password") && !strings.HasSuffix(variable, "_token") {
			continue
		}
		if a["sensitive"] == nil || a["default"] == nil || !strings.HasPrefix(text(src, a["default"].Expr.Range()), "env(") {
			t.Errorf("%s: variable %s logs in: it is sensitive and comes from the environment", name, variable)
		}
	}
}

// TestTheProvisionerIsTheInstaller reads the two scripts: the first proves the bundle and runs its installer for every role; the second takes away
// everything that a host must not have in common with another.
func TestTheProvisionerIsTheInstaller(t *testing.T) {
	t.Parallel()
	for script, wants := range map[string][]string{
		"provision": {"sha256sum --check --strict", "./install --from", "--role server", "--role data", "--role worker", "--role front-door", "--check", "/opt/flowplatform"},
		"clean": {"/etc/machine-id", "ssh_host_*", "random-seed", "cloud-init clean", "/root/.ssh", "/home/*/.ssh", ".bash_history", "/var/log", "/tmp/*", "/var/lib/dhcp",
			"ssl-cert-snakeoil.key", ".erlang.cookie", "pg_dropcluster", "apt-get clean"},
	} {
		content, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !bytes.Contains(content, []byte(want)) {
				t.Errorf("%s has no %s", script, want)
			}
		}
	}
	for _, script := range []string{"provision", "clean", "base", "image", "try"} {
		if out, err := exec.Command("bash", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
		}
		if info, err := os.Stat(script); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s can't be run: %v", script, err)
		}
	}
}

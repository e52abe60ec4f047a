package contract

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Verifications are what a README may claim, and nothing else; the exact words begin the last section.
var Verifications = []string{
	"Applied",                              // terraform apply, and what it made was used
	"Planned",                              // terraform test, of what needs no provider
	"Planned against a mock",               // terraform test with the provider itself, its answers played
	"Planned against a mock of its schema", // the same with a stand-in that has the provider's names and types
	"Planned against a mock of a translated schema", // the same, the names and types translated back from another tool's spelling
}

var (
	// shared are the same in every platform, byte for byte.
	shared = []string{"cluster.tf", "outputs.tf", "variables.tf"}
	// required are in every platform.
	required = []string{"README.md", "cluster.tf", "example.tfvars", "main.tf", "outputs.tf", "platform.tf", "variables.tf", "versions.tf"}
	// sections of every README, in this order.
	sections = []string{"## Prerequisites", "## Example", "## Costs", "## How it was verified"}
	// attributes of a host: spec.Host in scripts/internal/spec.
	attributes = []string{"address", "class", "jump", "name", "port", "private_address", "roles", "zone"}
)

// Rules returns everything in which a platform breaks the contract; like is one that the shared files are compared with.
func (p *Platform) Rules(like *Platform) []string {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, p.Name+": "+fmt.Sprintf(format, args...)) }
	p.sameFiles(like, say)
	p.described(say)
	p.shapesHosts(say)
	p.keepsMachines(say)
	p.closed(say)
	p.example(say)
	p.readme(say)
	return wrong
}

type sayer func(format string, args ...any)

func (p *Platform) sameFiles(like *Platform, say sayer) {
	for _, name := range required {
		if !p.Has(name) {
			say("%s is missing", name)
		}
	}
	same := shared
	if p.MakesMachines() && like.MakesMachines() {
		same = append(slices.Clone(shared), "machines.tf")
	}
	for _, name := range same {
		if p.Has(name) && !bytes.Equal(p.files[name], like.files[name]) {
			say("%s differs from that of %s: it is the same in every platform, byte for byte; what one platform alone knows goes into platform.tf", name, like.Name)
		}
	}
	for _, name := range sortedKeys(p.files) {
		allowed := slices.Contains(required, name) || name == "machines.tf" || strings.HasPrefix(name, "tests/") && strings.HasSuffix(name, ".tftest.hcl") ||
			filepath.Ext(name) == ".tfvars" // somebody's own values
		if !allowed {
			say("%s is none of the files of a platform", name)
		}
	}
	if !slices.ContainsFunc(sortedKeys(p.files), func(name string) bool { return strings.HasPrefix(name, "tests/") }) {
		say("it has no tests/*.tftest.hcl: nothing would tell that it is broken")
	}
	if _, err := p.Schema(); err != nil && len(p.Providers()) > 0 {
		say("%v: write it with `go run ./scripts/providers schemas %s`", err, p.Name)
	}
}

// described: whoever uses a platform reads terraform-docs or the file; both show the description.
func (p *Platform) described(say sayer) {
	for _, kind := range []string{"variable", "output"} {
		for _, b := range p.blocks(kind) {
			if a := b.Body.Attributes["description"]; a == nil || stringOf(a.Expr) == "" {
				say("%s %s has no description", kind, b.Labels[0])
			}
			if kind == "variable" && b.Body.Attributes["type"] == nil {
				say("variable %s has no type", b.Labels[0])
			}
			for _, check := range b.Body.Blocks {
				if check.Type == "validation" && check.Body.Attributes["error_message"] == nil {
					say("a validation of variable %s has no error_message", b.Labels[0])
				}
			}
		}
	}
	for _, b := range p.blocks("variable") {
		if at := b.DefRange(); !strings.HasSuffix(at.Filename, "/variables.tf") && !strings.HasSuffix(at.Filename, "/platform.tf") {
			say("variable %s is declared outside variables.tf and platform.tf", b.Labels[0])
		}
	}
}

// shapesHosts: local.hosts is the user's list, or is made in one place with every attribute, so that a platform can't forget one.
func (p *Platform) shapesHosts(say sayer) {
	expression := p.local("hosts")
	if expression == nil {
		say("local.hosts is missing: it is what the cluster is made of")
		return
	}
	if _, named := expression.(*hclsyntax.ScopeTraversalExpr); named {
		if p.MakesMachines() {
			say("local.hosts must be written out with every attribute")
		}
		return
	}
	loop, is := expression.(*hclsyntax.ForExpr)
	if !is {
		say("local.hosts must be one for expression over local.machines")
		return
	}
	object, is := loop.ValExpr.(*hclsyntax.ObjectConsExpr)
	if !is {
		say("local.hosts must be made of objects that are written out")
		return
	}
	var names []string
	for _, item := range object.Items {
		names = append(names, hcl.ExprAsKeyword(item.KeyExpr))
	}
	slices.Sort(names)
	if !slices.Equal(names, attributes) {
		say("hosts have the attributes %s; it must be %s", strings.Join(names, ", "), strings.Join(attributes, ", "))
	}
}

// imageArguments are what a machine's first disk is made of, in the words of all providers. Each changes by itself: most images are "the newest".
var imageArguments = []string{"ami", "image", "source", "source_image_id", "source_image_reference", "block_device", "clone"}

// keepsMachines: a machine holds the cluster's data. That a newer image has come out must not replace it.
func (p *Platform) keepsMachines(say sayer) {
	for _, o := range p.Objects() {
		if o.Data {
			continue
		}
		for _, argument := range imageArguments {
			if o.Body.Attributes[argument] == nil && !slices.ContainsFunc(o.Body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == argument }) {
				continue
			}
			if !slices.Contains(p.ignored(o), argument) {
				say("%s would be replaced when its %s changes, and the data on it lost: put it into lifecycle.ignore_changes", o, argument)
			}
		}
	}
}

// ignored are the arguments whose change Terraform is told to leave alone.
func (p *Platform) ignored(o Object) []string {
	var names []string
	for _, b := range o.Body.Blocks {
		if b.Type != "lifecycle" || b.Body.Attributes["ignore_changes"] == nil {
			continue
		}
		list, is := b.Body.Attributes["ignore_changes"].Expr.(*hclsyntax.TupleConsExpr)
		if !is {
			continue
		}
		for _, item := range list.Exprs {
			names = append(names, p.text(item.Range()))
		}
	}
	return names
}

// closed: what the firewall lets in is local.openings, the same in every platform. Where there is no firewall to set, the README says what stands for it.
// And nothing that a platform asks for is a secret, because Terraform would write it into its state.
func (p *Platform) closed(say sayer) {
	if p.MakesMachines() {
		uses := false
		for name, content := range p.files {
			uses = uses || filepath.Ext(name) == ".tf" && name != "machines.tf" && bytes.Contains(content, []byte("local.openings"))
		}
		if !uses && !bytes.Contains(p.files["README.md"], []byte("nftables")) && len(p.Providers()) > 0 {
			say("no firewall uses local.openings, and README.md doesn't say what is the firewall then")
		}
	}
	for _, b := range p.blocks("variable") {
		if secret.MatchString(b.Labels[0]) || b.Body.Attributes["sensitive"] != nil {
			say("variable %s looks like a secret, which Terraform would write into its state: let the provider read it from the environment", b.Labels[0])
		}
	}
}

var secret = regexp.MustCompile(`password|secret|token|credential|api_key`)

var assignment = regexp.MustCompile(`(?m)^([a-z_]+)\s*=`)

func (p *Platform) example(say sayer) {
	for _, wrong := range p.Values(p.files["example.tfvars"]) {
		say("example.tfvars %s", wrong)
	}
}

// Values returns what is wrong with values for the platform's variables: one isn't set that has no default, or one is set that isn't there.
func (p *Platform) Values(text []byte) []string {
	var wrong []string
	set := map[string]bool{}
	for _, match := range assignment.FindAllSubmatch(text, -1) {
		set[string(match[1])] = true
	}
	for _, b := range p.blocks("variable") {
		if b.Body.Attributes["default"] == nil && !set[b.Labels[0]] {
			wrong = append(wrong, fmt.Sprintf("doesn't set %s, which has no default", b.Labels[0]))
		}
		delete(set, b.Labels[0])
	}
	for _, name := range sortedKeys(set) {
		wrong = append(wrong, fmt.Sprintf("sets %s, which is no variable", name))
	}
	return wrong
}

func (p *Platform) readme(say sayer) {
	text, at := string(p.files["README.md"]), 0
	if text == "" {
		return // said already
	}
	for _, section := range sections {
		i := strings.Index(text[at:], "\n"+section+"\n")
		if i < 0 {
			say("README.md has no section %q after the ones before it", section)
			return
		}
		at += i
	}
	claim := p.Verification()
	if claim == "" {
		say("README.md: %q must begin with one of: %s", sections[len(sections)-1], strings.Join(Verifications, "; "))
		return
	}
	for _, verb := range []string{"terraform init", "example.tfvars"} {
		if !strings.Contains(text, verb) {
			say("README.md shows no example: %q is nowhere", verb)
		}
	}
}

// Claim is what the README says of how the platform was verified.
func (p *Platform) Claim() string {
	_, claim, _ := strings.Cut(string(p.files["README.md"]), "\n"+sections[len(sections)-1]+"\n")
	return strings.TrimSpace(claim)
}

// Verification is what the claim comes to, one of Verifications; empty if it is none of them.
func (p *Platform) Verification() string {
	for _, v := range Verifications {
		if strings.HasPrefix(p.Claim(), "**"+v+"**") {
			return v
		}
	}
	return ""
}

package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"flowplatform/terraform/contract"
)

// classes say in which file of a Pulumi package a resource of Terraform is: the package doesn't.
var classes = map[string]string{
	"hcloud_firewall":                              "firewall",
	"hcloud_network":                               "network",
	"hcloud_network_subnet":                        "networkSubnet",
	"hcloud_placement_group":                       "placementGroup",
	"hcloud_server":                                "server",
	"hcloud_ssh_key":                               "sshKey",
	"proxmox_virtual_environment_download_file":    "download/fileLegacy",
	"proxmox_virtual_environment_firewall_options": "firewall/optionsLegacy",
	"proxmox_virtual_environment_firewall_rules":   "firewall/rulesLegacy",
	"proxmox_virtual_environment_vm":               "vmLegacy",
}

// fromPulumi reads the TypeScript declarations of a package of Pulumi's. They follow from the provider's schema, but a name is in camel case, and that of
// a block that may come more than once is a plural: both are undone. What can't be told from them is whether the plural was there before.
func fromPulumi(ctx context.Context, of string, types []string) (*contract.Schema, error) {
	files, err := npmFiles(ctx, of, func(path string) bool { return strings.HasSuffix(path, ".d.ts") })
	if err != nil {
		return nil, err
	}
	d := declarations{}
	d.read(string(files["types/input.d.ts"]))
	settings := declarations{}
	settings.read(string(files["provider.d.ts"]))
	s := &contract.Schema{Source: "npm " + of + ", TypeScript declarations, names translated back", Types: map[string]*contract.Type{"provider": d.block(settings["ProviderArgs"])}}
	for _, name := range types {
		file := classes[name]
		text := string(files[file+".d.ts"])
		if file == "" || text == "" {
			return nil, fmt.Errorf("%s: no file is known for %s", of, name)
		}
		class := file[strings.LastIndex(file, "/")+1:]
		class = strings.ToUpper(class[:1]) + class[1:]
		here := declarations{}
		here.read(text)
		t := d.block(here[class+"Args"])
		for _, p := range here[class] {
			if _, taken := t.Attributes[snake(p.name)]; !taken && t.Blocks[p.terraform()] == nil {
				t.Attributes[snake(p.name)] = contract.Attribute{Type: p.kind(), ReadOnly: true}
			}
		}
		if len(t.Attributes) == 0 {
			return nil, fmt.Errorf("%s: %s.d.ts declares no %sArgs with properties", of, file, class)
		}
		t.Attributes["id"] = contract.Attribute{Type: "string", ReadOnly: true}
		s.Types[name] = t
	}
	return s, nil
}

// declarations are the interfaces and classes of a file, by name, with the namespace before it (firewall.RulesLegacyRule).
type declarations map[string][]property

type property struct {
	name, typ string
	optional  bool
}

var (
	namespace = regexp.MustCompile(`^export (?:declare )?namespace (\w+) \{`)
	opening   = regexp.MustCompile(`^\s*(?:export )?(?:declare )?(?:interface|class) (\w+).*\{$`)
	member    = regexp.MustCompile(`^\s+(?:readonly )?(\w+)(\??): (.*)$`)
	input     = regexp.MustCompile(`inputs\.([\w.]+)`)
)

func (d declarations) read(text string) {
	space, current, depth := "", "", 0
	for _, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "*") || strings.HasPrefix(trimmed, "/*") {
			continue
		}
		if match := namespace.FindStringSubmatch(line); match != nil {
			space = match[1] + "."
		} else if line == "}" && current == "" {
			space = ""
		} else if match := opening.FindStringSubmatch(line); match != nil && current == "" {
			current, depth = space+match[1], 1
			continue
		}
		if current == "" {
			continue
		}
		if match := member.FindStringSubmatch(line); match != nil && depth == 1 && !strings.Contains(line, "static ") {
			d[current] = append(d[current], property{name: match[1], optional: match[2] == "?", typ: match[3]})
		}
		depth += strings.Count(line, "{") - strings.Count(line, "}")
		if depth <= 0 {
			current = ""
		}
	}
}

func (d declarations) block(properties []property) *contract.Type {
	t := &contract.Type{Attributes: map[string]contract.Attribute{}, Blocks: map[string]*contract.Type{}}
	for _, p := range properties {
		if match := input.FindStringSubmatch(p.typ); match != nil {
			nested := d.block(d[match[1]])
			nested.Required, nested.Single = !p.optional, !strings.Contains(p.typ, "[]")
			t.Blocks[p.terraform()] = nested
			continue
		}
		t.Attributes[snake(p.name)] = contract.Attribute{Type: p.kind(), Required: !p.optional}
	}
	return t
}

// terraform is the name of a block in Terraform: in the singular, if it may come more than once.
func (p property) terraform() string {
	name := snake(p.name)
	if strings.Contains(p.typ, "[]") {
		name = strings.TrimSuffix(name, "s")
	}
	return name
}

func (p property) kind() string {
	switch {
	case strings.Contains(p.typ, "[]"):
		return "list(" + property{typ: strings.ReplaceAll(p.typ, "[]", "")}.kind() + ")"
	case strings.Contains(p.typ, "{"): // the values are in the next lines; all that we have met are strings
		return "map(string)"
	case strings.Contains(p.typ, "string"):
		return "string"
	case strings.Contains(p.typ, "number"):
		return "number"
	case strings.Contains(p.typ, "boolean"):
		return "bool"
	}
	return "any"
}

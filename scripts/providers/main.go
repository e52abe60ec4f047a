// Command providers gets what the platforms of terraform/platforms are checked with, where no registry of providers can be reached.
//
//	providers build              builds the providers that build from their Go modules (pins/), and OpenTofu where there is no Terraform,
//	                             into the cache; takes minutes the first time, nothing after that
//	providers schemas [NAME…]    writes terraform/schemas/<platform>.json: of the resources that a platform uses, what its provider takes
//
// A schema comes from the provider itself where it can be built. Else it comes from an npm package that was generated from the provider's schema: CDK
// for Terraform's (names, types and what is required, as they are) or Pulumi's (the same, in that tool's spelling, which is translated back).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"flowplatform/terraform/contract"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "build":
		err = build(ctx)
	case len(os.Args) >= 2 && os.Args[1] == "schemas":
		err = writeSchemas(ctx, os.Args[2:])
	default:
		fmt.Fprintln(os.Stderr, "Usage: go run ./scripts/providers build | schemas [PLATFORM…]")
		return 2
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "providers: %v\n", err)
		return 1
	}
	return 0
}

func writeSchemas(ctx context.Context, only []string) error {
	for _, name := range only {
		if sources[name].read == nil {
			return fmt.Errorf("no source of a schema is known for platform %q", name)
		}
	}
	platforms, err := contract.LoadAll(filepath.Join("terraform", "platforms"))
	if err != nil {
		return err
	}
	for _, p := range platforms {
		from := sources[p.Name]
		if from.read == nil || len(only) > 0 && !slices.Contains(only, p.Name) {
			continue
		}
		fmt.Printf("   %s: %s\n", p.Name, from.of)
		schema, err := from.read(ctx, from.of, used(p))
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		schema.Provider = p.Providers()[0]
		if err := schema.Write(filepath.Join("terraform", "schemas", p.Name+".json")); err != nil {
			return err
		}
	}
	return nil
}

// used are the types that a platform uses; data sources begin with "data.".
func used(p *contract.Platform) []string {
	var names []string
	for _, o := range p.Objects() {
		name := o.Type
		if o.Data {
			name = "data." + name
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// source is where the schema of a platform's provider is read.
type source struct {
	of   string // a package with its version, or a pin
	read func(ctx context.Context, of string, types []string) (*contract.Schema, error)
}

var sources = map[string]source{
	"libvirt":      {"libvirt", fromProvider},
	"openstack":    {"openstack", fromProvider},
	"vsphere":      {"vsphere", fromProvider},
	"aws":          {"@cdktf/provider-aws@21.22.1", fromJsii},
	"google-cloud": {"@cdktf/provider-google@16.12.1", fromJsii},
	"azure":        {"@cdktf/provider-azurerm@14.23.1", fromJsii},
	"digitalocean": {"@cdktf/provider-digitalocean@13.14.1", fromJsii},
	"hetzner":      {"@pulumi/hcloud@1.41.0", fromPulumi},
	"proxmox":      {"@muhlba91/pulumi-proxmoxve@8.6.0", fromPulumi},
}

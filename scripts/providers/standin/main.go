// Command standin is a provider for Terraform that has the schema in the file that FLOW_STANDIN_SCHEMA names (terraform/schemas/<platform>.json) and can
// do nothing else. `terraform test` asks a provider that it plays (mock_provider) for its schema alone, so that with this one a platform is planned
// whose own provider can't be had: every expression is evaluated, every argument is decoded, against the names and types of the real one.
//
// It is a module of its own, so that the platform's go.mod lists only what the platform is made of.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

func main() {
	p, err := read(os.Getenv("FLOW_STANDIN_SCHEMA"))
	if err == nil {
		err = tf5server.Serve("registry.terraform.io/flowplatform/standin", func() tfprotov5.ProviderServer { return p })
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "standin: %v\n", err)
		os.Exit(1)
	}
}

// kind is a type of package contract as it is written in the file.
type kind struct {
	Attributes map[string]string `json:"attributes"` // "list(string) required"
	Blocks     map[string]*kind  `json:"blocks"`
	Required   bool              `json:"required"`
	Single     bool              `json:"single"`
}

// provider answers what is asked of one that is played. Any other call is one that shouldn't come: the embedded interface is nil.
type provider struct {
	tfprotov5.ProviderServer
	schemas *tfprotov5.GetProviderSchemaResponse
}

func read(file string) (*provider, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("FLOW_STANDIN_SCHEMA: %w", err)
	}
	var written struct {
		Types map[string]*kind `json:"types"`
	}
	if err := json.Unmarshal(content, &written); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	r := &tfprotov5.GetProviderSchemaResponse{ResourceSchemas: map[string]*tfprotov5.Schema{}, DataSourceSchemas: map[string]*tfprotov5.Schema{}}
	for name, k := range written.Types {
		schema := &tfprotov5.Schema{Block: k.block(name == "provider")}
		switch data, is := strings.CutPrefix(name, "data."); {
		case name == "provider":
			r.Provider = schema
		case is:
			r.DataSourceSchemas[data] = schema
		default:
			r.ResourceSchemas[name] = schema
		}
	}
	return &provider{schemas: r}, nil
}

// block: what may be left out may also be computed, since the sources don't say of which arguments that holds. Of a provider's own configuration nothing is
// computed, and nothing is required: it may come from the environment.
func (k *kind) block(own bool) *tfprotov5.SchemaBlock {
	b := &tfprotov5.SchemaBlock{}
	for name, text := range k.Attributes {
		typ, more, _ := strings.Cut(text, " ")
		a := &tfprotov5.SchemaAttribute{Name: name, Type: typeOf(typ)}
		switch more {
		case "required":
			a.Required, a.Optional = !own, own
		case "read-only":
			a.Computed = true
			if a.Type.Is(tftypes.DynamicPseudoType) {
				continue // nobody could say of which type the played answer has to be
			}
		default:
			a.Optional, a.Computed = true, !own && !a.Type.Is(tftypes.DynamicPseudoType)
		}
		b.Attributes = append(b.Attributes, a)
	}
	for name, inner := range k.Blocks {
		nested := &tfprotov5.SchemaNestedBlock{TypeName: name, Block: inner.block(own), Nesting: tfprotov5.SchemaNestedBlockNestingModeList}
		if inner.Required {
			nested.MinItems = 1
		}
		if inner.Single {
			nested.MaxItems = 1
		}
		b.BlockTypes = append(b.BlockTypes, nested)
	}
	return b
}

func typeOf(text string) tftypes.Type {
	switch text {
	case "string":
		return tftypes.String
	case "number":
		return tftypes.Number
	case "bool":
		return tftypes.Bool
	case "list(string)", "list(number)", "list(bool)":
		return tftypes.List{ElementType: typeOf(text[5 : len(text)-1])}
	case "map(string)", "map(number)", "map(bool)":
		return tftypes.Map{ElementType: typeOf(text[4 : len(text)-1])}
	}
	return tftypes.DynamicPseudoType
}

func (p *provider) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	r := &tfprotov5.GetMetadataResponse{ServerCapabilities: &tfprotov5.ServerCapabilities{GetProviderSchemaOptional: true}}
	for name := range p.schemas.ResourceSchemas {
		r.Resources = append(r.Resources, tfprotov5.ResourceMetadata{TypeName: name})
	}
	for name := range p.schemas.DataSourceSchemas {
		r.DataSources = append(r.DataSources, tfprotov5.DataSourceMetadata{TypeName: name})
	}
	return r, nil
}

func (p *provider) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	return p.schemas, nil
}

func (p *provider) PrepareProviderConfig(_ context.Context, r *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (p *provider) ValidateResourceTypeConfig(context.Context, *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

func (p *provider) ValidateDataSourceConfig(context.Context, *tfprotov5.ValidateDataSourceConfigRequest) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	return &tfprotov5.ValidateDataSourceConfigResponse{}, nil
}

func (p *provider) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

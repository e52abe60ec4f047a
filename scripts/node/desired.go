package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"flowplatform/scripts/internal/layers"
	"flowplatform/scripts/internal/spec"
)

// Directories below spec.Configuration and where systemd keeps units and users.
const (
	tlsDir      = spec.Configuration + "/tls"
	secretsDir  = spec.Configuration + "/secrets"
	unitsDir    = "/etc/systemd/system"
	sysusers    = "/etc/sysusers.d/flowplatform.conf"
	firewall    = spec.Configuration + "/firewall.nft"
	credentials = "/run/credentials/" // systemd puts what LoadCredential names below it, readable by that service alone
)

// Units in the order in which they are started.
const (
	unitFirewall    = "flow-firewall"
	unitConsul      = "flow-consul"
	unitNomadServer = "flow-nomad-server"
	unitJWKS        = "flow-jwks"
	unitNomadClient = "flow-nomad-client"
)

func allUnits() []string {
	return []string{unitFirewall, unitConsul, unitNomadServer, unitJWKS, unitNomadClient}
}

// file is what a path should hold. Its mode says who may read it: what isn't for everybody is root's alone.
type file struct {
	Path    string
	Content []byte
	Mode    os.FileMode
}

// directory is one that must exist; with User it belongs to that user.
type directory struct {
	Path string
	Mode os.FileMode
	User string
}

// unit is a service of systemd and what it is made from: when an input or its program changes, it is restarted.
type unit struct {
	Name    string
	Program string   // path of the binary, "" for none of ours
	Inputs  []string // paths of files
	URL     string   // answered when it is up, with the host's certificate where it begins with https; "" when there is nothing to ask
}

// desired is everything that flownode makes of a host.
type desired struct {
	Directories []directory
	Files       []file
	Units       []unit
}

// facts are what only the host itself knows.
type facts struct {
	Interface string // that bears the private address
	SSHPorts  []int
}

// desire computes what a host should be. It reads the layers and nothing else.
func desire(n spec.Node, configs fs.FS, f facts) (desired, error) {
	var d desired
	d.add(tlsDir+"/ca.pem", []byte(n.Secrets.CA), 0o600)
	d.add(tlsDir+"/cert.pem", []byte(n.Secrets.Certificate), 0o600)
	d.add(tlsDir+"/key.pem", []byte(n.Secrets.Key), 0o600)
	d.Directories = []directory{
		{Path: spec.Configuration, Mode: 0o755}, {Path: tlsDir, Mode: 0o700}, {Path: secretsDir, Mode: 0o700},
		{Path: spec.DataDir, Mode: 0o755}, {Path: spec.NodeState, Mode: 0o700},
		{Path: spec.DataDir + "/consul", Mode: 0o700, User: "flow-consul"},
	}
	values := values(n, f)
	if err := d.single(configs, "systemd/flowplatform.sysusers", sysusers, values, 0o644); err != nil {
		return desired{}, err
	}
	parts := []func(spec.Node, fs.FS, map[string]string) error{d.firewall, d.consul}
	if n.Host.Has(spec.Server) {
		parts = append(parts, d.nomadServer, d.jwks)
	}
	if n.Host.IsClient() {
		parts = append(parts, d.nomadClient)
	}
	for _, part := range parts {
		if err := part(n, configs, values); err != nil {
			return desired{}, err
		}
	}
	return d, nil
}

// values are what the templates may name.
func values(n spec.Node, f facts) map[string]string {
	addresses := slices.Sorted(slices.Values(n.Servers))
	v := map[string]string{
		"DATA_DIR":           spec.DataDir,
		"NODE_NAME":          n.Host.Name,
		"PRIVATE_ADDRESS":    n.Host.PrivateAddress,
		"NETWORK_INTERFACE":  f.Interface,
		"NODE_CLASS":         n.Host.Class,
		"ZONE":               n.Host.Zone,
		"SERVER_COUNT":       strconv.Itoa(len(addresses)),
		"SERVERS":            list(addresses, 0),
		"SERVER_RPC":         list(addresses, spec.NomadRPC),
		"SERVER_SERF":        list(addresses, spec.NomadSerf),
		"IS_WORKER":          strconv.FormatBool(n.Host.Has(spec.Worker)),
		"IS_FRONT_DOOR":      strconv.FormatBool(n.Host.Has(spec.FrontDoor)),
		"IS_DATA":            strconv.FormatBool(n.Host.Has(spec.Data)),
		"CONSUL_AGENT_TOKEN": n.Secrets.ConsulAgent,
		"CONSUL_NOMAD_TOKEN": n.Secrets.ConsulNomad,
		"CONSUL_GOSSIP_KEY":  n.Secrets.ConsulGossip,
		"NOMAD_GOSSIP_KEY":   n.Secrets.NomadGossip,
	}
	for name, port := range map[string]int{
		"CONSUL_HTTP": spec.ConsulHTTP, "CONSUL_HTTPS": spec.ConsulHTTPS, "CONSUL_RPC": spec.ConsulRPC, "CONSUL_SERF": spec.ConsulSerf,
		"NOMAD_HTTP": spec.NomadHTTP, "NOMAD_RPC": spec.NomadRPC, "NOMAD_SERF": spec.NomadSerf, "NOMAD_CLIENT": spec.NomadClient,
	} {
		v[name] = strconv.Itoa(port)
	}
	maps.Copy(v, firewallValues(n, f.SSHPorts))
	return v
}

// list is a list of HCL, of addresses or, with a port, of address:port.
func list(addresses []string, port int) string {
	items := make([]string, len(addresses))
	for i, a := range addresses {
		items[i] = a
		if port > 0 {
			items[i] = net.JoinHostPort(a, strconv.Itoa(port))
		}
	}
	b, _ := json.Marshal(items) // of strings: it can't fail
	return string(b)
}

func (d *desired) firewall(n spec.Node, configs fs.FS, values map[string]string) error {
	if err := d.single(configs, "nftables/firewall.nft.tmpl", firewall, values, 0o600); err != nil {
		return err
	}
	return d.unit(configs, unit{Name: unitFirewall, Inputs: []string{firewall}})
}

func (d *desired) consul(n spec.Node, configs fs.FS, values map[string]string) error {
	names := []string{"base.hcl", "client.hcl", "secure.hcl.tmpl", "host.hcl.tmpl", "join.hcl.tmpl"}
	if n.Host.Has(spec.Server) {
		names = []string{"base.hcl", "server.hcl", "secure.hcl.tmpl", "host.hcl.tmpl", "join.hcl.tmpl", "join-server.hcl.tmpl"}
	}
	inputs, err := d.layers(configs, "consul", "consul", names, values, credentials+unitConsul+".service")
	if err != nil {
		return err
	}
	if err := d.secrets(configs, "consul", values, true); err != nil {
		return err
	}
	return d.unit(configs, unit{
		Name: unitConsul, Program: spec.Programs + "/consul", Inputs: append(inputs, secretsDir+"/consul.hcl"),
		URL: "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(spec.ConsulHTTP)) + "/",
	})
}

func (d *desired) nomadServer(n spec.Node, configs fs.FS, values map[string]string) error {
	d.Directories = append(d.Directories, directory{Path: spec.DataDir + "/nomad-server", Mode: 0o700, User: "flow-nomad"})
	names := []string{"base.hcl", "server.hcl", "identity.hcl", "secure.hcl.tmpl", "host.hcl.tmpl", "host-server.hcl.tmpl", "join-server.hcl.tmpl"}
	inputs, err := d.layers(configs, "nomad", "nomad-server", names, values, credentials+unitNomadServer+".service")
	if err != nil {
		return err
	}
	if err := d.secrets(configs, "nomad", values, true); err != nil {
		return err
	}
	return d.unit(configs, unit{
		Name: unitNomadServer, Program: spec.Programs + "/nomad", Inputs: append(inputs, secretsDir+"/nomad.hcl"),
		URL: "https://" + net.JoinHostPort(n.Host.PrivateAddress, strconv.Itoa(spec.NomadHTTP)) + "/",
	})
}

func (d *desired) jwks(n spec.Node, configs fs.FS, _ map[string]string) error {
	return d.unit(configs, unit{
		Name: unitJWKS, Program: spec.Programs + "/flownode", Inputs: certificates(),
		URL: "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(spec.NomadJWKS)) + "/",
	})
}

// volumes are what a host of role data keeps beyond its tasks, each owned by the user of the server that writes it.
func volumes() []directory {
	var all []directory
	for _, name := range []string{"postgres", "rabbitmq", "redis", "prometheus"} {
		all = append(all, directory{Path: spec.DataDir + "/volumes/" + name, Mode: 0o700, User: name})
	}
	return all
}

func (d *desired) nomadClient(n spec.Node, configs fs.FS, values map[string]string) error {
	d.Directories = append(d.Directories,
		directory{Path: spec.DataDir + "/nomad-client", Mode: 0o711}, // tasks of other users pass through it
		directory{Path: spec.DataDir + "/artifacts", Mode: 0o755})
	names := []string{"base.hcl", "client.hcl", "templates.hcl", "system.hcl", "artifacts.hcl.tmpl"}
	if n.Host.Has(spec.Data) {
		d.Directories = append(d.Directories, directory{Path: spec.DataDir + "/volumes", Mode: 0o755})
		d.Directories = append(d.Directories, volumes()...)
		names = append(names, "volumes.hcl.tmpl")
	}
	names = append(names, "secure.hcl.tmpl", "host.hcl.tmpl", "host-client.hcl.tmpl", "join-client.hcl.tmpl")
	inputs, err := d.layers(configs, "nomad", "nomad-client", names, values, tlsDir)
	if err != nil {
		return err
	}
	if err := d.secrets(configs, "nomad", values, false); err != nil {
		return err
	}
	return d.unit(configs, unit{
		Name: unitNomadClient, Program: spec.Programs + "/nomad", Inputs: append(inputs, secretsDir+"/nomad.hcl"),
		URL: "https://" + net.JoinHostPort(n.Host.PrivateAddress, strconv.Itoa(spec.NomadClient)) + "/",
	})
}

func certificates() []string {
	return []string{tlsDir + "/ca.pem", tlsDir + "/cert.pem", tlsDir + "/key.pem"}
}

// layers renders a program's layers into spec.Configuration/<into> and returns the paths of those that are inputs, and of the certificates.
// How agents find each other is no input: when a server is added or replaced, the others must not be restarted for it.
func (d *desired) layers(configs fs.FS, program, into string, names []string, values map[string]string, tls string) ([]string, error) {
	all := maps.Clone(values)
	all["TLS_DIR"], all["AGENT"] = tls, into
	dir, err := fs.Sub(configs, program)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", into, err)
	}
	files, err := layers.Render(dir, names, all)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", into, err)
	}
	d.Directories = append(d.Directories, directory{Path: spec.Configuration + "/" + into, Mode: 0o755})
	inputs := certificates()
	for i, f := range files {
		to := spec.Configuration + "/" + into + "/" + f.Name
		d.add(to, f.Content, 0o644)
		if !strings.HasPrefix(names[i], "join") {
			inputs = append(inputs, to)
		}
	}
	return inputs, nil
}

// secrets renders a program's tokens and, for an agent that gossips, its key. The key is no input of the unit: an agent reads it once,
// at its first start, and has its own keyring from then on.
func (d *desired) secrets(configs fs.FS, program string, values map[string]string, gossips bool) error {
	if err := d.single(configs, program+"/secrets.hcl.tmpl", secretsDir+"/"+program+".hcl", values, 0o600); err != nil || !gossips {
		return err
	}
	return d.single(configs, program+"/gossip.hcl.tmpl", secretsDir+"/"+program+"-gossip.hcl", values, 0o600)
}

// single renders one file.
func (d *desired) single(configs fs.FS, from, to string, values map[string]string, mode os.FileMode) error {
	b, err := fs.ReadFile(configs, from)
	if err != nil {
		return fmt.Errorf("render %s: %w", to, err)
	}
	if path.Ext(from) == ".tmpl" {
		filled, err := layers.Fill(string(b), values)
		if err != nil {
			return fmt.Errorf("render %s: %s: %w", to, from, err)
		}
		b = []byte(filled)
	}
	d.add(to, b, mode)
	return nil
}

// unit adds a unit and its file, which is an input too.
func (d *desired) unit(configs fs.FS, u unit) error {
	to := unitFile(u.Name)
	if err := d.single(configs, "systemd/"+u.Name+".service", to, nil, 0o644); err != nil {
		return err
	}
	u.Inputs = append(u.Inputs, to)
	d.Units = append(d.Units, u)
	return nil
}

func unitFile(name string) string { return unitsDir + "/" + name + ".service" }

// add adds a file; the second time the same one.
func (d *desired) add(path string, content []byte, mode os.FileMode) {
	if !slices.ContainsFunc(d.Files, func(f file) bool { return f.Path == path }) {
		d.Files = append(d.Files, file{Path: path, Content: content, Mode: mode})
	}
}

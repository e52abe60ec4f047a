package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"flowplatform/scripts/internal/ground"
	"flowplatform/scripts/internal/jobs"
	"flowplatform/scripts/internal/programs"
)

// runner gives Nomad the jobs of this checkout.
func (s settings) runner(g ground.Ground) jobs.Runner {
	return jobs.Runner{Ground: g, Renderer: jobs.Renderer{
		Program:  s.binary("nomad"),
		Root:     s.Root,
		VarFiles: []string{filepath.Join(s.Root, "jobs", "vars", "local.hcl"), s.path("config", jobVariablesName)},
	}}
}

// jobVariables writes the file with what only this machine knows. Together with jobs/vars/local.hcl it is all that a job
// needs, also by hand, from the top of the checkout:
//
//	nomad job run -preserve-counts -hcl2-strict=false -var-file=jobs/vars/local.hcl \
//	  -var-file=/var/lib/flowplatform/config/jobs.hcl jobs/<name>.nomad.hcl
func (s settings) jobVariables(versions map[string]string, postgresBin string) error {
	var b strings.Builder
	b.WriteString("# Written by make up: what only this machine knows. No secrets.\n")
	fmt.Fprintf(&b, "artifacts_port     = %d\n", s.Ports["ARTIFACTS_PORT"])
	fmt.Fprintf(&b, "artifacts_url      = %q\n", s.url("ARTIFACTS_PORT"))
	fmt.Fprintf(&b, "consul_address     = %q\n", s.address("CONSUL_PORT"))
	fmt.Fprintf(&b, "front_door_address = %q\n", loopback)
	fmt.Fprintf(&b, "front_door_port    = %d\n", s.Ports["FRONT_DOOR_PORT"])
	fmt.Fprintf(&b, "nomad_address      = %q\n", s.url("NOMAD_PORT"))
	fmt.Fprintf(&b, "postgres_address   = %q\n", s.address("POSTGRES_PORT"))
	fmt.Fprintf(&b, "postgres_bin       = %q\n", postgresBin)
	fmt.Fprintf(&b, "postgres_port      = %d\n", s.Ports["POSTGRES_PORT"])
	fmt.Fprintf(&b, "prometheus_port    = %d\n", s.Ports["PROMETHEUS_PORT"])
	fmt.Fprintf(&b, "rabbitmq_address   = %q\n", s.address("RABBITMQ_PORT"))
	fmt.Fprintf(&b, "rabbitmq_port      = %d\n", s.Ports["RABBITMQ_PORT"])
	fmt.Fprintf(&b, "redis_address      = %q\n", s.address("REDIS_PORT"))
	fmt.Fprintf(&b, "redis_port         = %d\n", s.Ports["REDIS_PORT"])
	b.WriteString("\nversions = {\n")
	for _, name := range programs.Released() {
		if versions[name] != "" {
			fmt.Fprintf(&b, "  %-12s = %q\n", name, versions[name])
		}
	}
	b.WriteString("}\n")
	return writeFile(s.path("config", jobVariablesName), []byte(b.String()), 0o644)
}

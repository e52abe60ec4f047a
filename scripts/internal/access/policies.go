// Package access is who may do what in a cluster: Consul's and Nomad's policies, roles, binding rules and tokens, and how they get there. Everybody has the least
// that their work takes; the anonymous have nothing.
//
//	a host's Consul agent   its own node, nothing of another's
//	a host's Nomad agents   themselves, and the platform's services, to register and to take away what a task has left behind
//	a task                  a token of its own that ends with it, by its workload identity: it registers its job's service and finds others
//	the orchestrators       besides, the leader's lock and the settings in Consul, and in Nomad: to read jobs and to scale them
//
// Tokens of hosts and of the management are made by the operator beforehand (package keys) and given to Consul and Nomad with their secrets, so that agents can
// be configured with them before the cluster exists, and nobody has to catch a secret from an answer.
package access

import (
	"fmt"
	"slices"
	"strings"

	"flowplatform/scripts/internal/spec"
)

// Method is the name of Consul's auth method for workload identities; Nomad asks for it by this name (its default).
const Method = "nomad-workloads"

// Audience is what a workload identity must be meant for.
const Audience = "consul.io"

// Names of tokens in the operator's tokens.json.
const (
	ConsulManagement = "consul-management"
	NomadManagement  = "nomad-management"
)

// ConsulAgent names the token of a host's Consul agent.
func ConsulAgent(host string) string { return "consul-agent/" + host }

// ConsulNomad names the token with which a host's Nomad agents talk to Consul.
func ConsulNomad(host string) string { return "consul-nomad/" + host }

// service is a job of the platform that registers in Consul under its own name.
type service struct {
	Job    string
	Leads  bool   // takes the leader's lock, reads settings
	Agent  bool   // asks the agent beside it for its own metrics
	Prefix string // further jobs of the same kind begin so: worker-gpu
}

func services() []service {
	return []service{
		{Job: "artifacts"}, {Job: "postgres"}, {Job: "rabbitmq"}, {Job: "redis"}, {Job: "prometheus", Agent: true},
		{Job: "migrate"}, {Job: "gateway"}, {Job: "orchestrator", Leads: true}, {Job: "worker", Prefix: "worker-"}, {Job: "front-door"},
	}
}

// finding is what every task may: find services.
const finding = `service_prefix "" {
  policy = "read"
}

node_prefix "" {
  policy = "read"
}
`

// leading is what only orchestrators may: the leader's lock with its session, and the settings that people put into Consul (flow/settings).
const leading = `
key "flow/orchestrator/leader" {
  policy = "write"
}

key_prefix "flow/settings/" {
  policy = "read"
}

session_prefix "" {
  policy = "write"
}
`

// asking is what Prometheus may besides: the agent's own metrics.
const asking = `
agent_prefix "" {
  policy = "read"
}
`

// taskPolicy is the policy of a job's tasks.
func taskPolicy(s service) string {
	rules := finding
	if s.Leads {
		rules += leading
	}
	if s.Agent {
		rules += asking
	}
	return rules
}

// nomadPolicy is what a host's Nomad agents may in Consul: look at their own agent, find servers, register themselves. Tasks' services are registered with the
// tasks' own tokens; to take one away whose task is gone (the client was restarted meanwhile), the agent needs the right itself, for the platform's services alone.
func nomadPolicy(host string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "agent %q {\n  policy = \"read\"\n}\n\n%s", host, finding)
	names := []string{"nomad", "nomad-client"}
	for _, s := range services() {
		names = append(names, s.Job)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "\nservice %q {\n  policy = \"write\"\n}\n", name)
	}
	return b.String()
}

// agentPolicy is what a host's Consul agent may besides its node identity: to look at itself.
func agentPolicy(host string) string {
	return fmt.Sprintf("agent %q {\n  policy = \"read\"\n}\n", host)
}

// Orchestrators may read jobs and change their counts; Nomad knows no finer right than the namespace's. They submit nothing, run nothing, and see no variable but
// their job's own.
const orchestratorNomadPolicy = `namespace "default" {
  capabilities = ["list-jobs", "read-job", "read-job-scaling", "scale-job"]
}
`

// Policy is one of Consul's.
type Policy struct{ Name, Description, Rules string }

// Role is one of Consul's, with the names of its policies.
type Role struct {
	Name, Description string
	Policies          []string
}

// Rule binds a workload identity to rights.
type Rule struct{ Description, Selector, BindType, BindName string }

// Token is one of Consul's, with a secret that the operator has made.
type Token struct {
	Name        string // in tokens.json
	Description string
	Policies    []string
	Node        string // node identity
}

// Plan is everything that Consul should know.
type Plan struct {
	Keys     string // URL of the public keys of workload identities, as Consul's servers reach it
	Policies []Policy
	Roles    []Role
	Rules    []Rule
	Tokens   []Token
}

// ours begins every name that this program may also take away again.
const ours = "flow-"

// ForConsul is the plan for a cluster's hosts.
func ForConsul(hosts []spec.Host) Plan {
	p := Plan{Keys: fmt.Sprintf("http://127.0.0.1:%d/.well-known/jwks.json", spec.NomadJWKS)}
	for _, h := range hosts {
		agent, nomad := ours+"agent-"+h.Name, ours+"nomad-"+h.Name
		p.Policies = append(p.Policies,
			Policy{agent, "the Consul agent of " + h.Name, agentPolicy(h.Name)},
			Policy{nomad, "the Nomad agents of " + h.Name, nomadPolicy(h.Name)})
		p.Tokens = append(p.Tokens,
			Token{Name: ConsulAgent(h.Name), Description: "flow: the Consul agent of " + h.Name, Policies: []string{agent}, Node: h.Name},
			Token{Name: ConsulNomad(h.Name), Description: "flow: the Nomad agents of " + h.Name, Policies: []string{nomad}})
	}
	for _, s := range services() {
		name := ours + "job-" + s.Job
		p.Policies = append(p.Policies, Policy{name, "tasks of job " + s.Job, taskPolicy(s)})
		p.Roles = append(p.Roles, Role{name, "tasks of job " + s.Job, []string{name}})
		for _, is := range selectors(s) {
			p.Rules = append(p.Rules,
				Rule{"flow: tasks of " + is.name, is.selector + ` and "nomad_task" in value and "nomad_service" not in value`, "role", name},
				Rule{"flow: service of " + is.name, is.selector + fmt.Sprintf(` and "nomad_service" in value and value.nomad_service==%q`, s.Job), "service", s.Job})
		}
	}
	return p
}

type selected struct{ name, selector string }

// selectors pick out a job's identities; only jobs of the default namespace are the platform's.
func selectors(s service) []selected {
	const namespace = `value.nomad_namespace==default and `
	all := []selected{{s.Job, namespace + fmt.Sprintf("value.nomad_job_id==%q", s.Job)}}
	if s.Prefix != "" {
		all = append(all, selected{s.Prefix + "*", namespace + fmt.Sprintf("value.nomad_job_id matches %q", "^"+s.Prefix)})
	}
	return all
}

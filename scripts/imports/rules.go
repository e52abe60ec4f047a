package main

import (
	"fmt"
	"slices"
	"strings"
)

const module = "flowplatform/"

// pkg is what go list says about one package, tests left out: what production code is made of.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string // Imports and everything behind them
}

// purity says that a package may depend, however indirectly, on the standard library and these packages only, and may itself import only what is
// named of the standard library: nothing that reaches outside.
type purity struct {
	Package  string
	Allowed  []string
	Standard []string
	Why      string
}

// ownership says that a library is imported by its owners only. A path that ends in /... means everything below it.
type ownership struct {
	Library string
	Owners  []string
	Why     string
}

// direction says that no package below From imports one below To.
type direction struct {
	From, To string
	Except   []string
	Why      string
}

type rules struct {
	Pure   []purity
	Owned  []ownership
	OneWay []direction
}

// theRules are DESIGN §2 and §4.
func theRules() rules {
	const (
		internal = "services/internal/"
		tests    = "services/internal/testkit/..."
		endToEnd = "services/e2e/..."
		together = "services/flowctl/internal/dev" // the three services in one process
		users    = internal + "nodes"              // sql.query, redis.command and amqp.publish: what store, live and broker know is the platform's own schema, keys and topology
	)
	// What computes and reaches nowhere. time is here for its types; who calls time.Now would be found by the tests that compute everything twice.
	pureStandard := []string{"bytes", "cmp", "crypto/sha256", "encoding/json", "errors", "fmt", "maps", "math", "reflect", "slices", "strconv", "strings", "time", "unicode/utf16", "unicode/utf8"}
	return rules{
		Pure: []purity{
			{internal + "flow", nil, append([]string{"crypto/sha256"}, pureStandard...), "the engine is a value: no I/O, no clock, no goroutine, no logger, no library"},
			{internal + "protocol", []string{internal + "flow"}, append([]string{"context", "crypto/sha256", "encoding/binary", "encoding/hex", "hash/fnv", "maps"}, pureStandard...), "the protocol's rules run in the simulator too"},
			{internal + "protocol/sim", []string{internal + "flow", internal + "protocol"}, append([]string{"context", "encoding/binary", "iter", "maps", "math/rand/v2", "sync"}, pureStandard...), "what the simulator runs must be the protocol itself, and a schedule follows from its seed"},
		},
		Owned: []ownership{
			{"github.com/jackc/pgx/v5/...", []string{internal + "store/...", users, tests, endToEnd}, "PostgreSQL belongs to store; nodes talk to the servers of users, with connections of their own"},
			{"github.com/pressly/goose/v3/...", []string{internal + "store/...", tests}, "migrations belong to store"},
			{"github.com/rabbitmq/amqp091-go/...", []string{internal + "broker/...", users, tests, endToEnd}, "RabbitMQ belongs to broker; nodes talk to the servers of users, with connections of their own"},
			{"github.com/redis/go-redis/v9/...", []string{internal + "live/...", users, tests, endToEnd}, "Redis belongs to live; nodes talk to the servers of users, with connections of their own"},
			{"github.com/hashicorp/consul/api/...", []string{"services/orchestrator/internal/leader/...", internal + "discovery/...", tests, endToEnd}, "Consul belongs to leader and discovery"},
			{"github.com/hashicorp/nomad/api/...", []string{"services/orchestrator/internal/fleet/...", endToEnd}, "Nomad belongs to fleet"},
			{"github.com/go-chi/chi/v5/...", []string{"services/gateway/internal/api/..."}, "HTTP routes belong to the gateway's api"},
			{"github.com/danielgtaylor/huma/v2/...", []string{"services/gateway/internal/api/..."}, "OpenAPI belongs to the gateway's api"},
			{"github.com/expr-lang/expr/...", []string{internal + "expr/..."}, "the expression language belongs to expr"},
			{"github.com/santhosh-tekuri/jsonschema/v6/...", []string{internal + "...", "services/gateway/internal/..."}, "schemas are checked at the edge"},
			{"github.com/netresearch/go-cron/...", []string{internal + "cron"}, "what an expression comes to in a time zone is decided in one place"},
			{"github.com/itchyny/gojq/...", []string{internal + "nodes"}, "jq belongs to data.transform"},
			{"modernc.org/quickjs/...", []string{internal + "nodes/script"}, "JavaScript runs in processes of its own, which script keeps"},
			{"github.com/caarlos0/env/v11/...", []string{internal + "env/..."}, "options belong to env"},
			{"github.com/alecthomas/kong/...", []string{"services/flowctl/..."}, "the command line belongs to flowctl"},
		},
		OneWay: []direction{
			{internal + "...", "services/gateway/...", nil, "shared packages know no service"},
			{internal + "...", "services/orchestrator/...", nil, "shared packages know no service"},
			{internal + "...", "services/worker/...", nil, "shared packages know no service"},
			{internal + "...", "services/flowctl/...", nil, "shared packages know no service"},
			{"services/...", internal + "testkit/...", []string{tests, endToEnd}, "production code runs without test helpers"},
			{"services/...", "services/gateway/app", []string{"services/gateway", together, endToEnd}, "services meet in flowctl dev only, and there as a whole"},
			{"services/...", "services/orchestrator/app", []string{"services/orchestrator", together, endToEnd}, "services meet in flowctl dev only, and there as a whole"},
			{"services/...", "services/worker/app", []string{"services/worker", together, endToEnd}, "services meet in flowctl dev only, and there as a whole"},
			{"services/...", internal + "broker/memory", []string{together}, "what keeps nothing is for flowctl dev"},
			{"services/...", internal + "broker/brokertest", nil, "production code runs without test helpers"},
			{"services/...", internal + "protocol/sim/...", []string{internal + "protocol/sim/..."}, "production code runs without the simulator"},
		},
	}
}

// violations returns every import that a rule forbids, in words, sorted. A pure package that is missing is one too: a rule
// that guards nothing would pass for ever.
func violations(packages []pkg, r rules) []string {
	var found []string
	for _, p := range packages {
		found = append(found, r.impure(p)...)
		for _, imported := range p.Imports {
			for _, o := range r.Owned {
				if matches(imported, o.Library) && !matchesAny(p.ImportPath, o.Owners) {
					found = append(found, fmt.Sprintf("%s imports %s: %s", plain(p.ImportPath), imported, o.Why))
				}
			}
			for _, d := range r.OneWay {
				if matches(plain(p.ImportPath), d.From) && matches(plain(imported), d.To) && strings.HasPrefix(imported, module) && !matchesAny(p.ImportPath, d.Except) {
					found = append(found, fmt.Sprintf("%s imports %s: %s", plain(p.ImportPath), plain(imported), d.Why))
				}
			}
		}
	}
	for _, rule := range r.Pure {
		if !slices.ContainsFunc(packages, func(p pkg) bool { return plain(p.ImportPath) == rule.Package }) {
			found = append(found, fmt.Sprintf("%s is not there, but a rule guards it", rule.Package))
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func (r rules) impure(p pkg) []string {
	var found []string
	for _, rule := range r.Pure {
		if plain(p.ImportPath) != rule.Package {
			continue
		}
		for _, d := range p.Deps {
			if !isStandard(d) && !slices.Contains(rule.Allowed, plain(d)) {
				found = append(found, fmt.Sprintf("%s depends on %s: %s", rule.Package, plain(d), rule.Why))
			}
		}
		for _, i := range p.Imports {
			if isStandard(i) && !slices.Contains(rule.Standard, i) {
				found = append(found, fmt.Sprintf("%s imports %s: %s", rule.Package, i, rule.Why))
			}
		}
	}
	return found
}

// isStandard says whether a path is of the standard library: its first element has no dot, and it isn't ours.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && !strings.HasPrefix(path, module)
}

func plain(path string) string { return strings.TrimPrefix(path, module) }

func matchesAny(path string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(plain(path), pattern) })
}

// matches says whether a path is the pattern, or below it when the pattern ends in /...
func matches(path, pattern string) bool {
	base, below := strings.CutSuffix(pattern, "/...")
	return path == base || (below && strings.HasPrefix(path, base+"/"))
}

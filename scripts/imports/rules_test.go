package main

import (
	"slices"
	"strings"
	"testing"
)

// lawful are packages that break nothing; each test adds one import to them.
func lawful() []pkg {
	return []pkg{
		{ImportPath: module + "services/internal/flow", Imports: []string{"encoding/json"}, Deps: []string{"encoding/json", "internal/abi"}},
		{ImportPath: module + "services/internal/protocol", Imports: []string{module + "services/internal/flow"}, Deps: []string{module + "services/internal/flow", "time"}},
		{ImportPath: module + "services/internal/protocol/sim", Imports: []string{module + "services/internal/protocol"}, Deps: []string{module + "services/internal/protocol", module + "services/internal/flow"}},
		{ImportPath: module + "services/internal/store", Imports: []string{"github.com/jackc/pgx/v5/pgxpool"}},
		{ImportPath: module + "services/internal/testkit", Imports: []string{"github.com/jackc/pgx/v5"}},
		{ImportPath: module + "services/gateway/internal/api", Imports: []string{"github.com/go-chi/chi/v5"}},
		{ImportPath: module + "services/gateway/app", Imports: []string{module + "services/internal/store"}},
	}
}

func TestLawfulTreePasses(t *testing.T) {
	t.Parallel()
	if got := violations(lawful(), theRules()); len(got) > 0 {
		t.Fatalf("violations of a lawful tree: %q", got)
	}
}

func TestEachForbiddenImportIsFound(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in, imports string
		want        string
	}{
		{"services/internal/flow", "net/http", "services/internal/flow imports net/http"},
		{"services/internal/flow", "log/slog", "services/internal/flow imports log/slog"},
		{"services/internal/flow", "sync", "services/internal/flow imports sync"},
		{"services/internal/protocol", "os", "services/internal/protocol imports os"},
		{"services/internal/flow", "github.com/expr-lang/expr", "services/internal/flow depends on github.com/expr-lang/expr"},
		{"services/internal/flow", module + "services/internal/protocol", "services/internal/flow depends on services/internal/protocol"},
		{"services/internal/protocol", "golang.org/x/sync/errgroup", "services/internal/protocol depends on golang.org/x/sync/errgroup"},
		{"services/internal/protocol", module + "services/internal/store", "services/internal/protocol depends on services/internal/store"},
		{"services/internal/protocol/sim", module + "services/internal/broker", "services/internal/protocol/sim depends on services/internal/broker"},
		{"services/gateway/app", "github.com/jackc/pgx/v5", "PostgreSQL belongs to store"},
		{"services/gateway/app", "github.com/jackc/pgx/v5/pgxpool", "PostgreSQL belongs to store"},
		{"services/gateway/app", "github.com/rabbitmq/amqp091-go", "RabbitMQ belongs to broker"},
		{"services/gateway/app", "github.com/redis/go-redis/v9", "Redis belongs to live"},
		{"services/gateway/app", "github.com/hashicorp/consul/api", "Consul belongs to leader"},
		{"services/gateway/app", "github.com/hashicorp/nomad/api", "Nomad belongs to fleet"},
		{"services/gateway/app", "github.com/go-chi/chi/v5", "HTTP routes belong"},
		{"services/gateway/app", module + "services/internal/testkit", "without test helpers"},
		{"services/gateway/app", module + "services/internal/protocol/sim", "without the simulator"},
		{"services/internal/store", module + "services/gateway/app", "shared packages know no service"},
	}
	for _, test := range tests {
		t.Run(test.in+" imports "+test.imports, func(t *testing.T) {
			t.Parallel()
			tree := lawful()
			i := slices.IndexFunc(tree, func(p pkg) bool { return p.ImportPath == module+test.in })
			tree[i].Imports = append(tree[i].Imports, test.imports)
			tree[i].Deps = append(tree[i].Deps, test.imports)
			got := violations(tree, theRules())
			if !slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, test.want) }) {
				t.Errorf("violations = %q, want one that says %q", got, test.want)
			}
		})
	}
}

func TestPurityIsTransitive(t *testing.T) {
	t.Parallel()
	tree := lawful()
	tree[0].Deps = append(tree[0].Deps, "github.com/somebody/json") // behind an import that looks innocent
	if got := violations(tree, theRules()); len(got) != 1 {
		t.Errorf("violations = %q, want one", got)
	}
}

func TestRuleThatGuardsNothingIsFound(t *testing.T) {
	t.Parallel()
	if got := violations(lawful()[1:], theRules()); !slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, "services/internal/flow is not there") }) {
		t.Errorf("violations = %q, want the missing package", got)
	}
}

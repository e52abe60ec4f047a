package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// PG-8: a restart of everything at once must not ask PostgreSQL for more connections than it has, and no service may take those of another.
func TestPG8_PoolsFitIntoLimitsAndLimitsIntoTheServer(t *testing.T) {
	t.Parallel()
	read := func(path ...string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(append([]string{root(t)}, path...)...))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	number := func(text, pattern string) int {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("nothing matches %s", pattern)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	conf, roles, vars := read("configs", "postgres", "postgresql.conf"), read("configs", "postgres", "roles.sql"), read("jobs", "vars", "local.hcl")
	sum := 0
	limits := map[string]int{}
	for _, role := range []string{"flow_owner", "flow_gateway", "flow_orchestrator", "flow_worker"} {
		limits[role] = number(roles, `ALTER ROLE `+role+` LOGIN CONNECTION LIMIT (\d+)`)
		sum += limits[role]
	}
	if free := number(conf, `(?m)^max_connections += (\d+)`) - number(conf, `(?m)^superuser_reserved_connections += (\d+)`); sum > free {
		t.Errorf("the limits of the roles are %d in sum, the server has %d for them", sum, free)
	}
	// A release runs one more of each (its canary). Workers are scaled: 20 and one.
	for service, instances := range map[string]int{
		"gateway": number(vars, `(?m)^gateway_count += (\d+)`) + 1, "orchestrator": number(vars, `(?m)^orchestrator_count += (\d+)`) + 1, "worker": 20 + 1,
	} {
		pool := number(read("services", service, "app", "options.go"), `DatabasePoolSize +int +`+"`"+`env:"DATABASE_POOL_SIZE" envDefault:"(\d+)"`)
		if limit := limits["flow_"+service]; instances*pool > limit {
			t.Errorf("%d × %s with %d connections each are %d, flow_%s may have %d", instances, service, pool, instances*pool, service, limit)
		}
	}
}

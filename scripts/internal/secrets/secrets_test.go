package secrets

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"flowplatform/scripts/internal/ground"
)

func TestSecretsAreMadeOnceAndCopied(t *testing.T) {
	t.Parallel()
	variables := map[string]*ground.Variable{}
	changed, err := complete(variables, secrets())
	if err != nil {
		t.Fatal(err)
	}
	if len(changed) != len(variables) || len(changed) == 0 {
		t.Fatalf("changed %q of %d variables", changed, len(variables))
	}
	if a, b := variables["nomad/jobs/postgres"].Items["flow_gateway_password"], variables["nomad/jobs/gateway"].Items["database_password"]; a != b || len(a) != 32 {
		t.Errorf("the gateway's password: %d and %d letters, the same: %v", len(a), len(b), a == b)
	}
	values := map[string]string{}
	for _, s := range secrets() {
		value := variables[s.Places[0].Path].Items[s.Places[0].Key]
		if other, seen := values[value]; seen {
			t.Errorf("%v has the same value as %s", s.Places[0], other)
		}
		values[value] = fmt.Sprint(s.Places[0])
	}

	before := maps.Clone(variables["nomad/jobs/gateway"].Items)
	if changed, err := complete(variables, secrets()); err != nil || len(changed) != 0 {
		t.Errorf("a second time: changed %q, %v", changed, err)
	}
	if !maps.Equal(before, variables["nomad/jobs/gateway"].Items) {
		t.Error("a second time gave the gateway other secrets")
	}
}

func TestMissingPlaceIsFilledFromTheFirst(t *testing.T) {
	t.Parallel()
	variables := map[string]*ground.Variable{}
	if _, err := complete(variables, secrets()); err != nil {
		t.Fatal(err)
	}
	want := variables["nomad/jobs/postgres"].Items["flow_worker_password"]
	delete(variables["nomad/jobs/worker"].Items, "database_password")
	changed, err := complete(variables, secrets())
	if err != nil {
		t.Fatal(err)
	}
	if got := variables["nomad/jobs/worker"].Items["database_password"]; got != want {
		t.Error("the worker got another password than PostgreSQL has for it")
	}
	if strings.Join(changed, " ") != "nomad/jobs/worker" {
		t.Errorf("changed %q, want the worker's variable alone", changed)
	}
}

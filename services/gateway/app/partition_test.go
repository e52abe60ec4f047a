package app

import (
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/store"
)

// PG-11: a day without a partition refuses starts with 503 and says when to try again; nothing is half accepted, and when the partition is there all goes on.
func TestPG11_NoPartitionForToday(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "partitions")
	today := time.Now().UTC().Format("20060102")
	if _, err := b.postgres.Exec(b.database, "DROP TABLE executions_"+today+", reports_"+today); err != nil {
		t.Fatal(err)
	}
	r := b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":1}}`, "Idempotency-Key", "k").want(t, 503)
	if !strings.Contains(string(r.body), "partition") || r.header.Get("Retry-After") == "" {
		t.Errorf("%s, Retry-After %q", r.body, r.header.Get("Retry-After"))
	}
	if n := b.count(t, "true"); n != "0" {
		t.Errorf("%s executions", n)
	}
	if made, err := b.owner.EnsurePartitions(t.Context(), store.PartitionDays); err != nil || made != 2 {
		t.Fatalf("%d tables made, %v", made, err)
	}
	x := b.run(t, id, `{"input":{"n":1}}`, "Idempotency-Key", "k")
	b.do(t, "GET", "/executions/"+x.ID, b.admin, nil).want(t, 200)
}

func TestAFlowsRetentionIsKeptWithItsVersion(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	doc := func(retention string) string {
		return `{"name": "short", "nodes": [{"id": "start", "type": "trigger.manual"}], "edges": [], "settings": {"retention": "` + retention + `"}}`
	}
	b.do(t, "POST", "/flows", b.admin, doc("1s")).want(t, 422)
	b.do(t, "POST", "/flows", b.admin, doc("36h")).want(t, 201)
	rules, err := b.owner.FlowRetentions(t.Context())
	if err != nil || len(rules) != 1 || rules[0].Keep != 36*time.Hour {
		t.Errorf("retentions: %+v, %v", rules, err)
	}
}

package app

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const errorFlow = `{"name": %q, "nodes": [{"id": "caught", "type": "trigger.error", "config": %s}], "edges": []}`

// A trigger.error stands for as long as the version with it is published, and a document says what is wrong with one. The gateway leaves a failure where somebody asks for that end, and not elsewhere.
func TestErrorTriggers(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	for doc, want := range map[string][]string{
		fmt.Sprintf(errorFlow, "x", `{"flows": ["a", "x"]}`):                                                                {"/nodes/0/config/flows/1"},
		fmt.Sprintf(errorFlow, "x", `{"flows": ["a", "{{ input.flow }}"]}`):                                                 {"/nodes/0/config/flows/1"},
		fmt.Sprintf(errorFlow, "x", `{"on": ["succeeded"]}`):                                                                {"/nodes/0/config/on/0"},
		`{"name": "x", "nodes": [{"id": "a", "type": "trigger.error"}, {"id": "b", "type": "trigger.error"}], "edges": []}`: {"/nodes/1"},
	} {
		if got := b.do(t, "POST", "/flows", b.admin, doc).want(t, 422).pointers(t); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", doc, got, want)
		}
	}
	sql := func(q string) string {
		t.Helper()
		out, err := b.postgres.Exec(b.database, q)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	rows := func() string {
		return sql(`SELECT coalesce(string_agg(node || ' ' || names::text || ' ' || states::text, '; '), '') FROM error_triggers`)
	}
	var shop, f struct{ ID string }
	b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(simpleFlow, "shop")).want(t, 201).into(t, &shop)
	cancelled := func() string {
		t.Helper()
		var x struct{ ID string }
		b.do(t, "POST", "/flows/"+shop.ID+"/executions", b.admin, `{"input": {"n": 1}}`).want(t, 202).into(t, &x)
		b.do(t, "POST", "/executions/"+x.ID+"/cancel", b.admin, nil).want(t, 200)
		return x.ID
	}
	failures := func() string { return sql(`SELECT coalesce(string_agg(state, ' '), '') FROM failures`) }
	b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(errorFlow, "watch", `{"flows": ["shop"]}`)).want(t, 201).into(t, &f)
	if got := rows(); got != "caught {shop} {failed,timed_out}" {
		t.Errorf("%q", got)
	}
	if cancelled(); failures() != "" {
		t.Errorf("an end that nobody asks for left %s", failures())
	}
	b.do(t, "PUT", "/flows/"+f.ID, b.admin, fmt.Sprintf(errorFlow, "watch", `{"on": ["cancelled"]}`)).want(t, 200)
	if got := rows(); got != "caught {} {cancelled}" {
		t.Errorf("%q", got)
	}
	if id := cancelled(); sql(`SELECT execution_id || ' ' || retries || ' ' || state || ' ' || (convert_from(error, 'UTF8')::json->>'code') FROM failures`) != id+" 0 cancelled cancelled" {
		t.Errorf("failures: %s", failures())
	}
	b.do(t, "PUT", "/flows/"+f.ID+"?draft=true", b.admin, fmt.Sprintf(simpleFlow, "watch")).want(t, 200)
	if rows() == "" {
		t.Error("a draft changes nothing")
	}
	b.do(t, "DELETE", "/flows/"+f.ID, b.admin, nil).want(t, 204)
	if got := rows(); got != "" {
		t.Errorf("of a flow that is deleted: %q", got)
	}
}

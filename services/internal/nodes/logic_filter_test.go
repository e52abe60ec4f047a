package nodes

import (
	"context"
	"errors"
	"strings"
	"testing"

	"flowplatform/services/internal/flow"
)

func TestFilter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ condition, input, want string }{
		{`{{ item > 9007199254740992 }}`, `[9007199254740993, 9007199254740992]`, `[9007199254740993]`},
		{`{{ item.a && index > 0 }}`, `[{"a": true}, {"a": true}]`, `[{"a":true}]`},
		{`{{ random() < 2 }}`, `[1]`, `[1]`},
		{`{{ true }}`, `[]`, `[]`},
		{`{{ item }}`, `[true, 1]`, `config: condition, for item 1, is 1, it must be true or false: compare, as in {{ item.total > 100 }}`},
		{`{{ item.b }}`, `[{"a": 1}]`, `expression: condition, for item 0: there is no key "b" in item (it has: a); use ?. or ?? if it may be missing`},
		{`{{ true }}`, `{"a": 1}`, `config: items is {"a":1}, it must be a list`},
	} {
		if got := compute(t, "logic.filter", `{"items": "{{ input }}", "condition": "`+tc.condition+`"}`, tc.input); got != tc.want {
			t.Errorf("%s of %s:\n got %s\nwant %s", tc.condition, tc.input, got, tc.want)
		}
	}
}

// TestPerItemIsCheckedAtSave: what isn't evaluated before the node runs is compiled like everything else.
func TestPerItemIsCheckedAtSave(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]string{
		`{"items": [], "condition": "{{ item. }}"}`:              "/nodes/1/config/condition expression-syntax",
		`{"items": [], "condition": "{{ steps.gone.output }}"}`:  "/nodes/1/config/condition unknown-step",
		`{"items": [], "condition": "{{ steps.n.output }}"}`:     "/nodes/1/config/condition step-not-upstream",
		`{"items": [], "condition": "{{ steps.start.output }}"}`: "",
	} {
		_, problems := compiled(t, "logic.filter", config)
		var got []string
		for _, p := range problems {
			got = append(got, p.Pointer+" "+p.Code)
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
	_, problems := compiled(t, "data.aggregate", `{"items": [], "groupBy": {"a/b": "{{ nope }}"}, "fields": {"x": {"op": "sum", "value": "{{ item.a + }}"}}}`)
	if len(problems) != 2 || problems[0].Pointer != "/nodes/1/config/fields/x/value" || problems[1].Pointer != "/nodes/1/config/groupBy/a~1b" {
		t.Errorf("%+v", problems)
	}
}

func TestFilterEndsWithItsContext(t *testing.T) {
	t.Parallel()
	x, c := prepared(t, "logic.filter", `{"items": "{{ 1..100000 }}", "condition": "{{ item > 0 }}"}`, `null`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.Execute(ctx, c); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFormulasShareNothing: the same scope serves one item after the other, and random numbers differ by item but not by run.
func TestFormulasShareNothing(t *testing.T) {
	t.Parallel()
	_, c := prepared(t, "logic.filter", `{"items": [], "condition": "{{ random() > 2 || item == index }}"}`, `null`)
	f := c.Scope.Formulas["/condition"]
	for i := range 3 {
		if v, err := f.Eval(c.Scope, i, i); err != nil || v != true {
			t.Errorf("%v %v", v, err)
		}
	}
	if c.Scope.InRound || c.Scope.Item != nil {
		t.Error("the scope was changed")
	}
	_, c = prepared(t, "data.aggregate", `{"items": [], "fields": {"r": {"op": "list", "value": "{{ random() }}"}}}`, `null`)
	f = c.Scope.Formulas["/fields/r/value"]
	values := func() (out [3]any) {
		for i := range out {
			out[i], _ = f.Eval(c.Scope, nil, i)
		}
		return out
	}
	first := values()
	if n, _ := flow.CompareNumbers(first[0], first[1]); n == 0 || first != values() {
		t.Errorf("%v", first)
	}
}

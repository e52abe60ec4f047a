package nodes

import "testing"

func TestAggregate(t *testing.T) {
	t.Parallel()
	const orders = `[{"c": "DE", "n": 1, "d": 0.1}, {"c": "FR", "n": 2, "d": 0.2}, {"c": "DE", "n": 3, "d": null}]`
	for _, tc := range []struct{ config, input, want string }{
		{`"groupBy": "c", "fields": {"n": {"op": "sum", "value": "n"}, "k": {"op": "count", "value": "d"}}`, orders, `[{"c":"DE","k":1,"n":4},{"c":"FR","k":1,"n":2}]`},
		{`"groupBy": ["c", "n"], "fields": {"k": {"op": "count"}}`, orders, `[{"c":"DE","k":1,"n":1},{"c":"FR","k":1,"n":2},{"c":"DE","k":1,"n":3}]`},
		{`"groupBy": "{{ item.n > 1 }}", "fields": {"l": {"op": "list", "value": "{{ index }}"}}`, orders, `[{"group":false,"l":[0]},{"group":true,"l":[1,2]}]`},
		{`"groupBy": {"land": "{{ lower(item.c) }}", "n": "n"}, "fields": {"f": {"op": "first", "value": "d"}}`, orders, `[{"f":0.1,"land":"de","n":1},{"f":0.2,"land":"fr","n":2},{"f":null,"land":"de","n":3}]`},
		{`"fields": {"s": {"op": "sum"}, "a": {"op": "avg"}}`, `[9223372036854775807, 1, -2]`, `[{"a":3074457345618258602,"s":9223372036854775806}]`},
		{`"fields": {"s": {"op": "sum"}, "m": {"op": "max"}}`, `[9223372036854775807, 9223372036854775807, 0.5]`, `[{"m":9223372036854775807,"s":18446744073709551614.5}]`},
		{`"fields": {"s": {"op": "sum"}, "a": {"op": "avg"}}`, `[0.1, 0.2]`, `[{"a":0.15,"s":0.3}]`},
		{`"fields": {"a": {"op": "avg"}}`, `[1, 0, 0]`, `[{"a":0.3333333333333333}]`},
		{`"fields": {"s": {"op": "sum"}}`, `[123456789012345678901234567890.125, 0.875]`, `[{"s":123456789012345678901234567891}]`},
		{`"fields": {"a": {"op": "avg"}, "c": {"op": "count"}, "s": {"op": "sum"}, "m": {"op": "min"}, "l": {"op": "list"}, "d": {"op": "distinct"}}`, `[]`, `[{"a":null,"c":0,"d":[],"l":[],"m":null,"s":0}]`},
		{`"groupBy": "c", "fields": {"c2": {"op": "count"}}`, `[]`, `[]`},
		{`"fields": {"d": {"op": "distinct"}, "n": {"op": "countDistinct"}, "z": {"op": "last"}}`, `[1, 1.0, "1", null, [1], [1], null]`, `[{"d":[1,"1",[1]],"n":3,"z":null}]`},
		{`"fields": {"x": {"op": "max"}, "y": {"op": "min"}}`, `["b", "a", "c"]`, `[{"x":"c","y":"a"}]`},
		{`"fields": {"x": {"op": "sum"}}`, `[1, "2"]`, `aggregate: fields.x (sum), item 1: "2" is no number; in an expression, int() and float() read one from a text`},
		{`"fields": {"x": {"op": "max"}}`, `[1, "2"]`, `aggregate: fields.x (max), item 1: "2" can't be compared with 1`},
		{`"fields": {"x": {"op": "max"}}`, `[{}]`, `aggregate: fields.x (max), item 0: {} is neither a number nor a text`},
		{`"fields": {"x": {"op": "sum"}}`, `[1e1001]`, `aggregate: fields.x (sum), item 0: 1e1001 is too far from 1 to be added exactly: the exponent may be within ±1000`},
		{`"groupBy": "x", "fields": {"n": {"op": "count"}}`, orders, `aggregate: item 0 has no field "x"; if it may be missing, use an expression: {{ item.x ?? null }}`},
		{`"fields": {"n": {"op": "sum", "value": "{{ item.x }}"}}`, `[{"y": 1}]`, `expression: fields/n/value, for item 0: there is no key "x" in item (it has: y); use ?. or ?? if it may be missing`},
	} {
		if got := compute(t, "data.aggregate", `{"items": "{{ input }}", `+tc.config+`}`, tc.input); got != tc.want {
			t.Errorf("%s of %s:\n got %s\nwant %s", tc.config, tc.input, got, tc.want)
		}
	}
}

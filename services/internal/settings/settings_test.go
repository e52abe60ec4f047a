package settings

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/env"
)

func defaults(t *testing.T) Values {
	t.Helper()
	var v Values
	if err := env.Parse(nil, []string{}, &v, nil); err != nil {
		t.Fatal(err)
	}
	return v
}

// Every setting has the name of the variable that gives its default, and what it may be is said the same in both places.
func TestNamesAreThoseOfTheEnvironment(t *testing.T) {
	v := reflect.TypeFor[Values]()
	if v.NumField() != len(Specs()) {
		t.Fatalf("%d fields, %d settings", v.NumField(), len(Specs()))
	}
	base := defaults(t)
	for i := range v.NumField() {
		tag := v.Field(i).Tag
		s, ok := Of(tag.Get("env"))
		if !ok {
			t.Errorf("%s is no setting", tag.Get("env"))
			continue
		}
		if s.Min != tag.Get("min") || s.Max != tag.Get("max") || strings.Join(s.OneOf, "|") != tag.Get("oneof") {
			t.Errorf("%s may be %s to %s, %v; as a variable %s to %s, %s", s.Name, s.Min, s.Max, s.OneOf, tag.Get("min"), tag.Get("max"), tag.Get("oneof"))
		}
		again, problems := Apply(Values{MaxWorkers: 1000, HighWaterMark: 1 << 20}, map[string]json.RawMessage{s.Name: s.Value(base)})
		if len(problems) > 0 || string(s.Value(again)) != string(s.Value(base)) {
			t.Errorf("%s: %s became %s, %v", s.Name, s.Value(base), s.Value(again), problems)
		}
	}
}

func TestApply(t *testing.T) {
	for name, c := range map[string]struct {
		over string
		want func(*Values)
		bad  string // name of the setting that is refused
	}{
		"nothing":                {`{}`, func(*Values) {}, ""},
		"a number":               {`{"MIN_WORKERS": 3}`, func(v *Values) { v.MinWorkers = 3 }, ""},
		"a number as text":       {`{"MIN_WORKERS": "3"}`, func(v *Values) { v.MinWorkers = 3 }, ""},
		"two that need the pair": {`{"MIN_WORKERS": 30, "MAX_WORKERS": 40}`, func(v *Values) { v.MinWorkers, v.MaxWorkers = 30, 40 }, ""},
		"a duration":             {`{"SCALE_DRAIN_TIME": "10s"}`, func(v *Values) { v.DrainTime = 10 * time.Second }, ""},
		"milliseconds":           {`{"SCALE_DRAIN_TIME": 10000}`, func(v *Values) { v.DrainTime = 10 * time.Second }, ""},
		"a strategy":             {`{"LOAD_BALANCE_STRATEGY": "weighted"}`, func(v *Values) { v.Strategy = Weighted }, ""},
		"off":                    {`{"AUTO_SCALING_ENABLED": false}`, func(v *Values) { v.AutoScaling = false }, ""},
		"unknown":                {`{"MIN_WORKER": 3}`, nil, "MIN_WORKER"},
		"above the maximum":      {`{"MIN_WORKERS": 21}`, nil, "MIN_WORKERS"},
		"marks crossed":          {`{"QUEUE_HIGH_WATER_MARK": 100}`, nil, "QUEUE_LOW_WATER_MARK"},
		"out of range":           {`{"MAX_WORKERS": 1001}`, nil, "MAX_WORKERS"},
		"a fraction":             {`{"MAX_WORKERS": 2.5}`, nil, "MAX_WORKERS"},
		"an object":              {`{"MAX_WORKERS": {"a": 1}}`, nil, "MAX_WORKERS"},
		"null":                   {`{"MAX_WORKERS": null}`, nil, "MAX_WORKERS"},
		"no such strategy":       {`{"LOAD_BALANCE_STRATEGY": "random"}`, nil, "LOAD_BALANCE_STRATEGY"},
		"too short":              {`{"SCALE_DRAIN_TIME": "1ms"}`, nil, "SCALE_DRAIN_TIME"},
		"one good, one bad":      {`{"MIN_WORKERS": 3, "AUTO_SCALING_ENABLED": 1}`, nil, "AUTO_SCALING_ENABLED"},
	} {
		t.Run(name, func(t *testing.T) {
			var over map[string]json.RawMessage
			if err := json.Unmarshal([]byte(c.over), &over); err != nil {
				t.Fatal(err)
			}
			base := defaults(t)
			got, problems := Apply(base, over)
			if c.bad != "" {
				if len(problems) != 1 || problems[0].Name != c.bad || got != base {
					t.Errorf("%+v, %v", got, problems)
				}
				return
			}
			want := base
			c.want(&want)
			if len(problems) != 0 || got != want {
				t.Errorf("%+v, %v", got, problems)
			}
		})
	}
}

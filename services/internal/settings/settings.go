// Package settings is what can be changed while the platform runs: names, defaults, what each may be. It is pure; the gateway checks what people ask for with
// it, and the leader checks what it finds, whoever wrote it. A set of settings is good or refused as a whole, since some hold each other's limits.
//
// A setting has one name everywhere: the environment variable that gives its default, the key in Consul KV (flow/settings/<NAME>), the row in PostgreSQL.
package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Strategies of load balancing.
const (
	RoundRobin = "round_robin"
	LeastBusy  = "least_busy"
	Weighted   = "weighted"
)

// Values are all settings. The tags are those of package env, so that an orchestrator's options embed it: its environment gives the defaults.
type Values struct {
	AutoScaling   bool          `env:"AUTO_SCALING_ENABLED" envDefault:"true" desc:"the leader scales the workers through Nomad"`
	MinWorkers    int           `env:"MIN_WORKERS" envDefault:"2" min:"0" max:"1000" desc:"workers of a pool at least"`
	MaxWorkers    int           `env:"MAX_WORKERS" envDefault:"20" min:"1" max:"1000" desc:"workers of a pool at the most"`
	HighWaterMark int           `env:"QUEUE_HIGH_WATER_MARK" envDefault:"1000" min:"1" max:"100000000" desc:"tasks that wait in a pool from which on it is scaled up"`
	LowWaterMark  int           `env:"QUEUE_LOW_WATER_MARK" envDefault:"100" min:"0" max:"100000000" desc:"tasks that wait in a pool below which it may be scaled down"`
	DrainTime     time.Duration `env:"SCALE_DRAIN_TIME" envDefault:"30s" min:"1s" max:"24h" desc:"in which time a backlog shall be worked off"`
	DownWindow    time.Duration `env:"SCALE_DOWN_WINDOW" envDefault:"3m" min:"1s" max:"24h" desc:"down only to the largest need of so long"`
	Strategy      string        `env:"LOAD_BALANCE_STRATEGY" envDefault:"round_robin" oneof:"round_robin|least_busy|weighted" desc:"how work is shared among the workers of a pool"`
	WorkerTimeout time.Duration `env:"WORKER_TIMEOUT" envDefault:"300s" min:"1s" max:"24h" desc:"after so long without a sign a worker leaves the list; executions follow WORKER_LEASE"`
}

// Spec describes a setting.
type Spec struct {
	Name    string
	Kind    string // "boolean", "integer", "duration", "strategy"
	Min     string
	Max     string
	OneOf   []string
	Meaning string
	get     func(*Values) any
	set     func(*Values, any)
}

// Specs lists all settings.
func Specs() []Spec {
	number := func(name, meaning string, low, high int, at func(*Values) *int) Spec {
		return Spec{Name: name, Kind: "integer", Min: strconv.Itoa(low), Max: strconv.Itoa(high), Meaning: meaning, get: func(v *Values) any { return *at(v) }, set: func(v *Values, n any) { *at(v) = n.(int) }}
	}
	span := func(name, meaning string, at func(*Values) *time.Duration) Spec {
		return Spec{Name: name, Kind: "duration", Min: "1s", Max: "24h", Meaning: meaning, get: func(v *Values) any { return at(v).String() }, set: func(v *Values, d any) { *at(v) = d.(time.Duration) }}
	}
	return []Spec{
		{Name: "AUTO_SCALING_ENABLED", Kind: "boolean", Meaning: "The leader scales the workers through Nomad", get: func(v *Values) any { return v.AutoScaling }, set: func(v *Values, b any) { v.AutoScaling = b.(bool) }},
		number("MIN_WORKERS", "Workers of a pool at least", 0, 1000, func(v *Values) *int { return &v.MinWorkers }),
		number("MAX_WORKERS", "Workers of a pool at the most", 1, 1000, func(v *Values) *int { return &v.MaxWorkers }),
		number("QUEUE_HIGH_WATER_MARK", "Tasks that wait in a pool from which on it is scaled up", 1, 100_000_000, func(v *Values) *int { return &v.HighWaterMark }),
		number("QUEUE_LOW_WATER_MARK", "Tasks that wait in a pool below which it may be scaled down", 0, 100_000_000, func(v *Values) *int { return &v.LowWaterMark }),
		span("SCALE_DRAIN_TIME", "In which time a backlog shall be worked off", func(v *Values) *time.Duration { return &v.DrainTime }),
		span("SCALE_DOWN_WINDOW", "Down only to the largest need of so long", func(v *Values) *time.Duration { return &v.DownWindow }),
		{Name: "LOAD_BALANCE_STRATEGY", Kind: "strategy", OneOf: []string{RoundRobin, LeastBusy, Weighted}, Meaning: "How work is shared among the workers of a pool", get: func(v *Values) any { return v.Strategy }, set: func(v *Values, s any) { v.Strategy = s.(string) }},
		span("WORKER_TIMEOUT", "After so long without a sign a worker leaves the list", func(v *Values) *time.Duration { return &v.WorkerTimeout }),
	}
}

// Of finds a setting by its name.
func Of(name string) (Spec, bool) {
	all := Specs()
	i := slices.IndexFunc(all, func(s Spec) bool { return s.Name == name })
	if i < 0 {
		return Spec{}, false
	}
	return all[i], true
}

// Names lists the names of all settings.
func Names() []string {
	var out []string
	for _, s := range Specs() {
		out = append(out, s.Name)
	}
	return out
}

// Value is the setting's value as JSON.
func (s Spec) Value(v Values) json.RawMessage {
	b, err := json.Marshal(s.get(&v))
	if err != nil {
		panic(err) // a bool, a number or a text
	}
	return b
}

// Problem says why a value is refused.
type Problem struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

func (p Problem) Error() string { return p.Name + ": " + p.Message }

// Apply puts the values given (JSON, by name) over base. Nothing is applied when there are problems.
func Apply(base Values, over map[string]json.RawMessage) (Values, []Problem) {
	out := base
	var problems []Problem
	names := make([]string, 0, len(over))
	for name := range over {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		spec, ok := Of(name)
		if !ok {
			problems = append(problems, Problem{name, "there is no such setting; there are " + strings.Join(Names(), ", ")})
			continue
		}
		v, err := spec.read(over[name])
		if err != nil {
			problems = append(problems, Problem{name, err.Error()})
			continue
		}
		spec.set(&out, v)
	}
	if len(problems) == 0 {
		problems = out.check()
	}
	if len(problems) > 0 {
		return base, problems
	}
	return out, nil
}

// check is what settings demand of each other.
func (v *Values) check() []Problem {
	var out []Problem
	if v.MinWorkers > v.MaxWorkers {
		out = append(out, Problem{"MIN_WORKERS", fmt.Sprintf("%d is more than MAX_WORKERS (%d)", v.MinWorkers, v.MaxWorkers)})
	}
	if v.LowWaterMark >= v.HighWaterMark {
		out = append(out, Problem{"QUEUE_LOW_WATER_MARK", fmt.Sprintf("%d must be below QUEUE_HIGH_WATER_MARK (%d): between the marks nothing is changed", v.LowWaterMark, v.HighWaterMark)})
	}
	return out
}

// Check tells what is wrong with values as a whole, such as those of an environment.
func (v Values) Check() []Problem { return v.check() }

func (s Spec) read(raw json.RawMessage) (any, error) {
	text := string(bytes.TrimSpace(raw))
	var plain string
	if json.Unmarshal(raw, &plain) == nil { // a text is read as an environment variable is
		text = plain
	}
	switch s.Kind {
	case "boolean":
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", text)
	case "integer":
		n, err := strconv.Atoi(text)
		low, _ := strconv.Atoi(s.Min)
		high, _ := strconv.Atoi(s.Max)
		if err != nil || n < low || n > high {
			return nil, fmt.Errorf("%q is not a whole number from %s to %s", text, s.Min, s.Max)
		}
		return n, nil
	case "duration":
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			text += "ms"
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second || d > 24*time.Hour {
			return nil, fmt.Errorf("%q is not a duration from %s to %s, such as 30s or 5m", text, s.Min, s.Max)
		}
		return d, nil
	}
	if !slices.Contains(s.OneOf, text) {
		return nil, fmt.Errorf("%q is none of %s", text, strings.Join(s.OneOf, ", "))
	}
	return text, nil
}

// State is what the leader holds to be so: what it follows, and what it refused. It stands in PostgreSQL (leader_state, row StateName).
type State struct {
	Effective map[string]json.RawMessage `json:"effective"`
	Defaults  map[string]json.RawMessage `json:"defaults"` // of the leader's environment
	Refused   []Refusal                  `json:"refused"`
	// Seen holds the values of Consul KV that were looked at last: each is taken (or refused) once, when it changes.
	Seen map[string]string `json:"seen,omitempty"`
}

// Refusal is a value that isn't followed.
type Refusal struct {
	Name   string    `json:"name"`
	Value  string    `json:"value"`
	Source string    `json:"source"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// StateName is the name of the row in leader_state.
const StateName = "settings"

// Map gives all values as JSON, by name.
func Map(v Values) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, s := range Specs() {
		out[s.Name] = s.Value(v)
	}
	return out
}

// Forget takes back what was refused of Consul's value of the setting: there is another one now.
func (s *State) Forget(name string) {
	s.Refused = slices.DeleteFunc(s.Refused, func(r Refusal) bool { return r.Name == name })
}

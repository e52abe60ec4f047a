package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"flowplatform/services/gateway/internal/auth"
	"flowplatform/services/gateway/internal/problem"
	"flowplatform/services/internal/settings"
	"flowplatform/services/internal/store"
)

// Setting is one that can be changed while the platform runs.
type Setting struct {
	Name      string          `json:"name" doc:"Also the environment variable that gives the default, and the key in Consul KV below flow/settings/"`
	Kind      string          `json:"kind" enum:"boolean,integer,duration,strategy"`
	Meaning   string          `json:"meaning"`
	Min       string          `json:"min,omitempty"`
	Max       string          `json:"max,omitempty"`
	OneOf     []string        `json:"oneOf,omitempty"`
	Effective json.RawMessage `json:"effective,omitempty" doc:"What the leader follows; absent before the first leader"`
	Default   json.RawMessage `json:"default,omitempty" doc:"By the leader's environment"`
	Set       json.RawMessage `json:"set,omitempty" doc:"What somebody has set; absent: the default holds"`
	UpdatedBy string          `json:"updatedBy,omitempty"`
	UpdatedAt time.Time       `json:"updatedAt,omitzero"`
	Refused   []Refusal       `json:"refused,omitempty" doc:"Values that are not followed, and why"`
}

// Refusal is a value that is not followed.
type Refusal struct {
	Name   string    `json:"name"`
	Value  string    `json:"value"`
	Source string    `json:"source" doc:"consul-kv, or the row in PostgreSQL and who has set it"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Settings are all settings.
type Settings struct {
	Items   []Setting `json:"items" nullable:"false"`
	Refused []Refusal `json:"refused" nullable:"false" doc:"All that is not followed, of unknown names too"`
}

type settingsOutput struct{ Body Settings }

type putSettingsInput struct {
	Body struct {
		Values map[string]json.RawMessage `json:"values" minProperties:"1" maxProperties:"50" doc:"By name; null: the default again" example:"{\"MAX_WORKERS\": 40, \"SCALE_DRAIN_TIME\": \"10s\"}"`
	}
}

func (a *API) settingRoutes() {
	route(a, auth.Viewer, huma.Operation{OperationID: "getSettings", Method: http.MethodGet, Path: "/settings", Tags: []string{tagOperations}, Summary: "Show the settings that can be changed while it runs"},
		func(ctx context.Context, _ *struct{}) (*settingsOutput, error) { return a.getSettings(ctx) })
	route(a, auth.Admin, huma.Operation{OperationID: "putSettings", Method: http.MethodPut, Path: "/settings", Tags: []string{tagOperations}, Summary: "Change settings", MaxBodyBytes: 64 << 10,
		Description: "All or none. The leader follows within two seconds."}, a.putSettings)
}

// believed is what the leader holds to be so.
func (a *API) believed(ctx context.Context) (settings.State, error) {
	var s settings.State
	b, err := a.o.DB.LeaderState(ctx, settings.StateName)
	if errors.Is(err, store.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

func (a *API) getSettings(ctx context.Context) (*settingsOutput, error) {
	state, err := a.believed(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := a.o.DB.Settings(ctx)
	if err != nil {
		return nil, err
	}
	out := Settings{Items: []Setting{}, Refused: []Refusal{}}
	for _, r := range state.Refused {
		out.Refused = append(out.Refused, Refusal(r))
	}
	for _, spec := range settings.Specs() {
		s := Setting{Name: spec.Name, Kind: spec.Kind, Meaning: spec.Meaning, Min: spec.Min, Max: spec.Max, OneOf: spec.OneOf, Effective: state.Effective[spec.Name], Default: state.Defaults[spec.Name]}
		for _, r := range rows {
			if r.Name == spec.Name {
				s.Set, s.UpdatedBy, s.UpdatedAt = r.Value, r.UpdatedBy, r.UpdatedAt
			}
		}
		for _, r := range out.Refused {
			if r.Name == spec.Name {
				s.Refused = append(s.Refused, r)
			}
		}
		out.Items = append(out.Items, s)
	}
	return &settingsOutput{out}, nil
}

func (a *API) putSettings(ctx context.Context, in *putSettingsInput) (*settingsOutput, error) {
	state, err := a.believed(ctx)
	if err != nil {
		return nil, err
	}
	if state.Defaults == nil {
		return nil, problem.New(http.StatusServiceUnavailable, "no leader has begun yet, so it is not known what the defaults are: is Consul there?").RetryAfter(2 * time.Second)
	}
	rows, err := a.o.DB.Settings(ctx)
	if err != nil {
		return nil, err
	}
	base, problems := settings.Apply(settings.Values{}, state.Defaults)
	if len(problems) > 0 { // of a leader of another build
		return nil, problem.New(http.StatusServiceUnavailable, "the leader's defaults can't be read: %s", problems[0].Error()).RetryAfter(2 * time.Second)
	}
	over := map[string]json.RawMessage{}
	for _, r := range rows {
		if _, known := settings.Of(r.Name); known {
			over[r.Name] = r.Value
		}
	}
	for name, value := range in.Body.Values {
		if over[name] = value; string(value) == "null" {
			delete(over, name)
		}
		if _, known := settings.Of(name); !known {
			over[name] = value // named as unknown below, null or not
		}
	}
	values, problems := settings.Apply(base, over)
	if len(problems) > 0 {
		p := problem.Invalid("settings are refused, the old ones stay")
		for _, bad := range problems {
			p.Errors = append(p.Errors, problem.Body("/values/"+bad.Name, "refused", "%s", bad.Message))
		}
		return nil, p
	}
	change := map[string]json.RawMessage{}
	for name, value := range in.Body.Values {
		spec, _ := settings.Of(name)
		if change[name] = spec.Value(values); string(value) == "null" {
			change[name] = nil
		}
	}
	if _, err := a.o.DB.ChangeSettings(ctx, change, principal(ctx).Actor()); err != nil { // writes the audit entries too
		return nil, err
	}
	return a.getSettings(ctx)
}
